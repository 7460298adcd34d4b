//! What this kernel can do, tried for real in a private network namespace. For `doctor`; a call by
//! a runtime never comes here.
//!
//! Only a try tells: a module may be there and not be allowed to load, and a kernel may have been
//! built without a part that its version is known for. The requests are the plugin's own.

use std::fs;
use std::path::PathBuf;
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use super::error::KernelError;
use super::netns::NetNs;
use super::qdisc;
use super::sandbox::{self, VethEnd};
use super::socket::{Request, Socket};
use super::{filter, link};
use crate::policy::{BitsPerSecond, Limit, QueueKind, SourceKinds};
use crate::shaping::identity::LEAF_HANDLES;
use crate::shaping::queue::{NewLeaf, Queue};
use crate::shaping::site::{Hook, HookKind, Root};
use crate::shaping::tag::Tag;
use crate::shaping::{Bucket, Mark, Match};

/// Something that the plugin asks of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// A veth pair: what a pod hangs at.
    Veth,
    /// An IFB device.
    Ifb,
    /// Its alias, by which people and GC know whose it is.
    Alias,
    /// A TBF qdisc.
    Tbf,
    /// The mark of a TBF, by which its numbers are known as ADD's, the node agent's or a person's.
    Mark,
    /// An fq_codel below it.
    FqCodel,
    /// A clsact qdisc.
    Clsact,
    /// A u32 filter on it.
    U32,
    /// A redirect by such a filter.
    Mirred,
}

/// Each feature, and what the kernel said where it lacks it.
pub type Features = Vec<(Feature, Result<(), KernelError>)>;

const SHAPED: &str = "doctor0";
const HOOKED: &str = "doctor1";
const MTU: u32 = 1500;

/// Index of lo in every network namespace (LOOPBACK_IFINDEX in include/net/flow.h).
const LOOPBACK: u32 = 1;

/// Moves this process into a network namespace of its own, inside a user namespace where it may not
/// do so otherwise. There is no way back: what follows is the last that the process does with a
/// network. The process must have one thread.
///
/// # Errors
/// [`KernelError::Namespace`] with the call that was refused.
pub fn enter_private_network() -> Result<(), KernelError> {
    match unshare(CloneFlags::CLONE_NEWNET) {
        Err(Errno::EPERM) => {}
        other => return other.map_err(|errno| refused("a new network namespace", errno)),
    }
    // Before unshare: afterwards they are "nobody" until the maps are written.
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUSER)
        .map_err(|errno| refused("a new user and network namespace", errno))?;
    // The group only after setgroups is off (user_namespaces(7)).
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ] {
        let path = format!("/proc/self/{file}");
        let errno = |error: std::io::Error| {
            Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32))
        };
        fs::write(&path, text).map_err(|error| KernelError::Namespace {
            path: path.clone().into(),
            call: "write",
            errno: errno(error),
        })?;
    }
    Ok(())
}

fn refused(what: &str, errno: Errno) -> KernelError {
    KernelError::Namespace { path: PathBuf::from(what), call: "unshare", errno }
}

/// Tries each feature in the namespace that the process is in, which must be private: what is made
/// stays there.
///
/// # Errors
/// Where not even a netlink socket can be had.
pub fn features() -> Result<Features, KernelError> {
    let mut probe = Probe { socket: Socket::open()? };
    let mut found = vec![(Feature::Veth, probe.veth())];
    let ifb = probe.ifb(SHAPED).and_then(|index| Ok([index, probe.ifb(HOOKED)?]));
    let [shaped, hooked] = match ifb {
        Ok(indexes) => indexes,
        // Without an IFB there is nothing to try the rest on.
        Err(error) => {
            found.push((Feature::Ifb, Err(error)));
            return Ok(found);
        }
    };
    found.push((Feature::Ifb, Ok(())));
    found.push((Feature::Alias, probe.alias(shaped)));
    let tbf = probe.tbf(shaped);
    let has_tbf = tbf.is_ok();
    found.push((Feature::Tbf, tbf));
    if has_tbf {
        found.push((Feature::Mark, probe.mark(shaped)));
        found.push((Feature::FqCodel, probe.fq_codel(shaped)));
    }
    let clsact = probe.request(qdisc::add_hook(hooked, doing("add a clsact qdisc")));
    let has_clsact = clsact.is_ok();
    found.push((Feature::Clsact, clsact));
    if has_clsact {
        let u32 = probe.filter(hooked, Hook::Egress, None);
        let has_u32 = u32.is_ok();
        found.push((Feature::U32, u32));
        if has_u32 {
            found.push((Feature::Mirred, probe.filter(hooked, Hook::Ingress, Some(shaped))));
        }
    }
    Ok(found)
}

/// Whether this kernel shows the mark of a TBF, tried in a network namespace of a thread of its own, which
/// goes with the thread.
///
/// # Errors
/// [`KernelError::Namespace`] without the privilege to make one, and what the kernel said to a TBF.
pub fn shows_marks() -> Result<bool, KernelError> {
    let tried = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| refused("a new network namespace", errno))?;
        Probe { socket: Socket::open()? }.shows_marks(LOOPBACK)
    });
    tried
        .join()
        .unwrap_or_else(|_| Err(refused("a thread for a new network namespace", Errno::EIO)))
}

/// Whether a TBF that was given a mark is shown with it.
fn shows(root: &Root, mark: Mark) -> bool {
    matches!(root, Root::Ours(state) if state.mark == mark)
}

fn doing(what: &str) -> String {
    format!("{what} in a private network namespace")
}

struct Probe {
    socket: Socket,
}

impl Probe {
    fn request(&mut self, request: Request) -> Result<(), KernelError> {
        self.socket.request(request).map(drop)
    }

    fn veth(&mut self) -> Result<(), KernelError> {
        let end = |name, last| VethEnd {
            name,
            mac: [0x02, 0, 198, 18, 0, last],
            address: std::net::Ipv4Addr::UNSPECIFIED,
        };
        let own = NetNs::open("/proc/thread-self/ns/net")?;
        sandbox::create_veth(&mut self.socket, &end("doctor2", 1), &end("doctor3", 2), &own)
    }

    fn ifb(&mut self, name: &str) -> Result<u32, KernelError> {
        self.request(link::create_ifb(name, MTU, doing("make an IFB")))?;
        let made = link::by_name(&mut self.socket, name)?;
        made.map(|link| link.index).ok_or_else(|| KernelError::NoDevice {
            name: name.into(),
            place: "a private network namespace",
        })
    }

    fn alias(&mut self, index: u32) -> Result<(), KernelError> {
        const ALIAS: &str = "pod-bandwidth doctor";
        let what = doing("give an IFB an alias");
        self.request(link::label(index, MTU, ALIAS, what.clone()))?;
        let link = link::by_index(&mut self.socket, index)?.unwrap_or_default();
        match link.alias.as_deref() {
            Some(ALIAS) => Ok(()),
            other => Err(KernelError::Garbled { doing: what, what: format!("it is {other:?}") }),
        }
    }

    fn tbf(&mut self, index: u32) -> Result<(), KernelError> {
        self.marked_tbf(index, Mark::Added)
    }

    /// Adds a TBF with this mark, or changes the one that is there.
    fn marked_tbf(&mut self, index: u32, mark: Mark) -> Result<(), KernelError> {
        let what = doing("add a TBF");
        let Some(bucket) = bucket() else {
            return Err(KernelError::Garbled { doing: what, what: "no bucket".into() });
        };
        self.request(qdisc::add_tbf(index, &Bucket { mark, ..bucket }, true, what))
    }

    fn shows_marks(&mut self, index: u32) -> Result<bool, KernelError> {
        let mark = Mark::Agent;
        self.marked_tbf(index, mark)?;
        let root = self.socket.request(qdisc::get_root(index, "a device of a private namespace"));
        Ok(shows(&qdisc::root_of(root)?, mark))
    }

    fn mark(&mut self, index: u32) -> Result<(), KernelError> {
        match self.shows_marks(index)? {
            true => Ok(()),
            false => Err(KernelError::Garbled {
                doing: doing("mark a TBF"),
                what: "the mpu of its rate is not shown".into(),
            }),
        }
    }

    fn fq_codel(&mut self, index: u32) -> Result<(), KernelError> {
        let what = doing("put fq_codel below a TBF");
        let Some(Queue::FqCodel(queue)) = bucket().map(|bucket| bucket.queue) else {
            return Err(KernelError::Garbled { doing: what, what: "no queue".into() });
        };
        let [handle, _] = LEAF_HANDLES;
        self.request(qdisc::replace_leaf(index, handle, &NewLeaf::FqCodel(queue), what))
    }

    fn filter(&mut self, index: u32, hook: Hook, target: Option<u32>) -> Result<(), KernelError> {
        let what = doing(match target {
            Some(_) => "redirect by a u32 filter (mirred)",
            None => "add a u32 filter",
        });
        let kind = HookKind::Clsact;
        let record = filter::Record {
            made_hook: true,
            tag: Tag::of_bytes([0; 8]),
            sources: SourceKinds::default(),
        };
        self.request(filter::add(index, (hook, kind), Match::All, target, record, what))
    }
}

/// The one of 10 Mbit/s.
fn bucket() -> Option<Bucket> {
    const LATENCY_MS: u32 = 25;
    let limit = Limit {
        rate: BitsPerSecond(10_000_000),
        burst: None,
        max_burst: None,
        peak_rate: None,
        min_burst: None,
    };
    let bucket = Bucket::new(&limit, MTU, LATENCY_MS).ok()?;
    Some(bucket.with_queue(QueueKind::FqCodel, MTU, LATENCY_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_that_is_not_shown_is_none() {
        let state = |mark| Root::Ours(Bucket { mark, ..bucket().unwrap() }.to_state());
        assert!(shows(&state(Mark::Agent), Mark::Agent));
        // As a kernel that keeps no mpu shows it, and one where the TBF is another's by now.
        assert!(!shows(&state(Mark::Added), Mark::Agent));
        assert!(!shows(&Root::Foreign("tbf 1:".into()), Mark::Agent));
    }
}
