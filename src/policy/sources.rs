//! Sources: who may write a limit, and where.
//!
//! Knows the keys of every source and which is stronger. What the numbers do together is decided
//! in limits.rs.

use serde_json::{Map, Value};

use super::bounds::{self, Range};
use super::direction::Direction;
use super::error::PolicyError;
use super::json::{Entry, Object};

/// Capability key under which a runtime passes all annotations of the pod (containerd, CRI-O,
/// cri-dockerd).
pub(super) const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// Bursts that mean "no limit", so nobody asked for them: annotations of Kubernetes carry no burst,
/// and the reference plugin refuses a rate without one. In the order given: cri-dockerd (largest
/// int32), containerd (largest uint32), CRI-O (largest uint32 x 8 - 1), and largest uint32 x 8, the
/// most that a burst can be at all.
const UNLIMITED_BURSTS: [u64; 4] = [2_147_483_647, 4_294_967_295, 34_359_738_359, 34_359_738_360];

/// A number within its range, and where it was written.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) number: u64,
    pub(super) key: String,
}

/// What one source says about one direction, or several of them after [`Partial::or`].
#[derive(Clone, Default)]
pub(super) struct Partial {
    /// Bits per second.
    pub(super) rate: Option<Given>,
    /// Bits.
    pub(super) burst: Option<Given>,
    /// Bits per second.
    pub(super) peak_rate: Option<Given>,
    /// Bytes.
    pub(super) min_burst: Option<Given>,
}

impl Partial {
    /// Key by key, what is said here or else what the weaker source says.
    pub(super) fn or(self, weaker: Partial) -> Partial {
        Partial {
            rate: self.rate.or(weaker.rate),
            burst: self.burst.or(weaker.burst),
            peak_rate: self.peak_rate.or(weaker.peak_rate),
            min_burst: self.min_burst.or(weaker.min_burst),
        }
    }
}

/// How a source spells its numbers.
type Reader = fn(&Range, &Entry<'_>, &[u64]) -> Result<Option<u64>, PolicyError>;

/// The parts of a network configuration that may say something about limits.
pub(super) struct Sources<'a> {
    config: Object<'a>,
    annotations: Option<Object<'a>>,
    bandwidth: Option<Object<'a>>,
    defaults: Option<Object<'a>>,
    maximum: Option<Object<'a>>,
}

impl<'a> Sources<'a> {
    /// Finds the parts; an error where one is there and is not an object.
    pub(super) fn open(config: &'a Map<String, Value>) -> Result<Self, PolicyError> {
        let config = Object::root(config);
        let runtime = config.object("runtimeConfig")?;
        let runtime_part = |key| match &runtime {
            Some(runtime) => runtime.object(key),
            None => Ok(None),
        };
        Ok(Sources {
            annotations: runtime_part(ANNOTATIONS)?,
            bandwidth: runtime_part("bandwidth")?,
            defaults: config.object("defaults")?,
            maximum: config.object("maximum")?,
            config,
        })
    }

    /// What the pod's annotations ask for: Calico's before those of Kubernetes, which have only a
    /// rate. Names from libcalico-go/lib/backend/k8s/conversion/constants.go.
    pub(super) fn annotated(&self, direction: Direction) -> Result<Partial, PolicyError> {
        let calico = |what: &str, range: &Range| {
            self.annotation(&format!("qos.projectcalico.org/{direction}{what}"), range)
        };
        let calico = Partial {
            rate: calico("Bandwidth", &bounds::RATE)?,
            burst: calico("Burst", &bounds::BURST)?,
            peak_rate: calico("Peakrate", &bounds::PEAK_RATE)?,
            min_burst: calico("Minburst", &bounds::MIN_BURST)?,
        };
        let name = format!("kubernetes.io/{direction}-bandwidth");
        let rate = self.annotation(&name, &bounds::RATE)?;
        Ok(calico.or(Partial { rate, ..Partial::default() }))
    }

    /// What everybody but the pod asks for: the runtime, the static keys, the node's defaults.
    ///
    /// All are read, also those that a stronger one hides: a wrong value is told when it is
    /// written, not when the stronger one goes away.
    pub(super) fn configured(&self, direction: Direction) -> Result<Partial, PolicyError> {
        let runtime = numbers(self.bandwidth.as_ref(), direction, Range::integer)?;
        let fixed = numbers(Some(&self.config), direction, Range::integer)?;
        let defaults = numbers(self.defaults.as_ref(), direction, Range::integer_or_quantity)?;
        Ok(runtime.or(fixed).or(defaults))
    }

    /// The most that the node grants.
    pub(super) fn maximum(&self, direction: Direction) -> Result<Partial, PolicyError> {
        numbers(self.maximum.as_ref(), direction, Range::integer_or_quantity)
    }

    fn annotation(&self, name: &str, range: &Range) -> Result<Option<Given>, PolicyError> {
        let value = self.annotations.as_ref().and_then(|annotations| annotations.exact(name));
        let Some(value) = value else { return Ok(None) };
        let entry = Entry { key: format!("annotation {name}"), value };
        Ok(Some(Given { number: range.annotation(&entry)?, key: entry.key }))
    }
}

/// Reads `ingressRate` and `ingressBurst`, or the two of egress, from an object.
fn numbers(
    object: Option<&Object<'_>>,
    direction: Direction,
    read: Reader,
) -> Result<Partial, PolicyError> {
    let number = |what: &str, range: &Range, absent: &[u64]| -> Result<_, PolicyError> {
        let entry = object.and_then(|object| object.entry(&format!("{direction}{what}")));
        let Some(entry) = entry else { return Ok(None) };
        let number = read(range, &entry, absent)?;
        Ok(number.map(|number| Given { number, key: entry.key }))
    };
    Ok(Partial {
        rate: number("Rate", &bounds::RATE, &[])?,
        burst: number("Burst", &bounds::BURST, &UNLIMITED_BURSTS)?,
        ..Partial::default()
    })
}
