//! A pod with limits, and who sends to whom.

use std::time::{Duration, Instant};

use crate::common::{Direction, Lab, Ns, Pod, Shape};
use crate::process::{inside, wall_us};
use crate::subject::{Limits, Subject, Target};

/// A fresh lab with a fresh pod, shaped by a plugin with containerd's input; its buckets are full.
pub(crate) struct Shaped {
    /// The node.
    pub(crate) lab: Lab,
    /// Its only pod.
    pub(crate) pod: Pod,
}

impl Shaped {
    /// `subject` `None`: no plugin is called.
    pub(crate) fn new(subject: Option<&Subject>, limits: Limits) -> Self {
        let lab = Lab::open().expect("it opened before");
        let pod = lab.pod("veth2b312fe4");
        let shaped = Self { lab, pod };
        if let Some(subject) = subject {
            shaped.call(subject, "ADD", limits);
            shaped.verify(subject, limits);
        }
        shaped
    }

    /// A call that must succeed.
    pub(crate) fn call(&self, subject: &Subject, verb: &str, limits: Limits) {
        let call = subject.call(verb, &Target::eth0(&self.pod), limits);
        inside(&self.lab, || wall_us(&call));
    }

    fn verify(&self, subject: &Subject, limits: Limits) {
        let wanted = (limits.to_pod.unwrap_or(0), limits.from_pod.unwrap_or(0));
        match subject.way {
            Some(way) => assert_eq!(Shape::of(&self.pod, way).rates(), wanted, "{way:?}"),
            None => {
                let qdiscs = self.lab.run(&["tc", "qdisc", "show"]);
                assert!(qdiscs.contains("qdisc tbf"), "the reference has not shaped: {qdiscs}");
            }
        }
    }

    /// Sender, receiver and the receiver's address.
    pub(crate) fn ends(&self, direction: Direction) -> (&Ns, &Ns, &str) {
        let at = &self.pod.eth0;
        match direction {
            Direction::ToPod => (&self.lab, &self.pod, &at.pod_v4),
            Direction::FromPod => (&self.pod, &self.lab, &at.host_v4),
        }
    }
}

/// For tables and JSON.
pub(crate) fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::ToPod => "to the pod",
        Direction::FromPod => "from the pod",
    }
}

/// Does all jobs, so many at once, and gives their results in order. Each thread makes its own labs.
pub(crate) fn in_lanes<J: Sync, T: Send>(
    lanes: usize,
    jobs: &[J],
    work: impl Fn(&J) -> T + Sync,
) -> Vec<T> {
    let mut results = Vec::new();
    for some in jobs.chunks(lanes.max(1)) {
        let work = &work;
        results.extend(std::thread::scope(|scope| {
            let running: Vec<_> = some.iter().map(|job| scope.spawn(move || work(job))).collect();
            let done = running.into_iter().map(std::thread::ScopedJoinHandle::join);
            done.map(|end| end.unwrap_or_else(|p| std::panic::resume_unwind(p))).collect::<Vec<_>>()
        }));
    }
    results
}

/// Waits until `moment`.
pub(crate) fn until(moment: Instant) {
    std::thread::sleep(moment.saturating_duration_since(Instant::now()));
}

/// The congestion controls that are measured, of those that this kernel has.
pub(crate) fn congestion_controls() -> Vec<&'static str> {
    // Asking for it loads the module, where it is one.
    if let Ok(socket) = std::net::TcpListener::bind("127.0.0.1:0") {
        use nix::sys::socket::{setsockopt, sockopt};
        let _ = setsockopt(&socket, sockopt::TcpCongestion, &"bbr".into());
    }
    let known = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control");
    let known = known.unwrap_or_default();
    let has = |name: &&str| known.split_whitespace().any(|word| word == *name);
    ["bbr", "cubic"].into_iter().filter(has).collect()
}

/// Share of a full frame at MTU 1500 that is TCP payload over IPv4, with timestamps.
pub(crate) const TCP_SHARE: f64 = 1448.0 / 1514.0;

/// A second.
pub(crate) const SECOND: Duration = Duration::from_secs(1);
