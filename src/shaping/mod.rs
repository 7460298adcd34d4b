//! Shaping: limits and an MTU in, token buckets and a list of steps out.
//!
//! Everything here is pure: integers, names and enums. It knows the rules ("a foreign hook
//! is used, not fought"; "never delete what is not ours"), not how the kernel is told.

pub mod bucket;
pub mod conflict;
pub mod describe;
pub mod identity;
pub mod mark;
pub mod placement;
pub mod plan;
pub mod queue;
pub mod rules;
pub mod shadow;
pub mod site;
pub mod tag;
pub mod undo;

pub use bucket::{Bucket, BytesPerSecond, Leaf, Peak, TbfState};
pub use conflict::Conflict;
pub use identity::Attachment;
pub use mark::Mark;
pub use plan::{Step, plan};
pub use queue::{FqCodel, Queue};
pub use rules::{Match, Rule};
pub use shadow::Shadow;
pub use site::{Hook, HookKind, Observed, Place, Shape, Side, Site, Takes};
pub use tag::Tag;
