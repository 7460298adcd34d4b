//! What arrives in a namespace over time, in bits of whole Ethernet frames: behind the limiter, in
//! every way and direction. As `tests/common/wire.rs`, but as a curve, and for UDP as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::common::Ns;

/// A look-out; it ends with [`Frames::stop`].
pub(crate) struct Frames {
    thread: JoinHandle<Vec<(Instant, f64)>>,
    done: Arc<AtomicBool>,
}

/// Bits that had arrived by each moment, in seconds since the first data.
pub(crate) struct Curve(Vec<(f64, f64)>);

/// More than this in one look is data; a handshake stays below.
const DATA_BITS: f64 = 8_000.0;

impl Frames {
    /// Looks at what `ns` receives, every `step`. `headers`: bytes of IP and transport of each segment.
    pub(crate) fn watch(ns: &Ns, step: Duration, headers: u64) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let (pid, end) = (ns.pid, Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            let mut samples = vec![(Instant::now(), bits(pid, headers))];
            while !end.load(Ordering::Relaxed) {
                std::thread::sleep(step);
                samples.push((Instant::now(), bits(pid, headers)));
            }
            samples
        });
        Self { thread, done }
    }

    /// The curve from the first data on.
    pub(crate) fn stop(self) -> Curve {
        self.done.store(true, Ordering::Relaxed);
        let samples = self.thread.join().expect("the look-out does not die");
        let first = samples.windows(2).position(|two| two[1].1 > two[0].1 + DATA_BITS);
        let first = first.expect("something arrived");
        // The first data came between two looks: it counts, and time begins with the second look.
        let (began, before) = (samples[first + 1].0, samples[first].1);
        let points = samples[first + 1..].iter();
        Curve(points.map(|(at, bits)| ((*at - began).as_secs_f64(), bits - before)).collect())
    }
}

impl Curve {
    /// Bits by `seconds` after the first data; between two looks in proportion.
    pub(crate) fn by(&self, seconds: f64) -> f64 {
        let after = self.0.iter().position(|(at, _)| *at >= seconds);
        match after {
            Some(0) => self.0[0].1,
            Some(after) => {
                let ((t0, b0), (t1, b1)) = (self.0[after - 1], self.0[after]);
                b0 + (b1 - b0) * (seconds - t0) / (t1 - t0)
            }
            None => self.0.last().map_or(0.0, |point| point.1),
        }
    }

    /// Bits per second between two moments.
    pub(crate) fn rate(&self, from: f64, to: f64) -> f64 {
        (self.by(to) - self.by(from)) / (to - from)
    }
}

/// The kernel counts a packet that passed in one piece (GSO) with one header, and its segments apart.
fn bits(pid: u32, headers: u64) -> f64 {
    let file = |name: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).expect("the namespace is there")
    };
    let (snmp, netstat) = (file("snmp"), file("netstat"));
    let look = |name: &str| counter(&netstat, "IpExt:", name);
    let marks = ["InNoECTPkts", "InECT0Pkts", "InECT1Pkts", "InCEPkts"];
    let segments: u64 = marks.into_iter().map(look).sum();
    let received = counter(&snmp, "Ip:", "InReceives");
    let bytes = look("InOctets") + segments * 14 + segments.saturating_sub(received) * headers;
    bytes as f64 * 8.0
}

/// The counter `name` of a group of /proc/net/snmp or netstat.
pub(crate) fn counter(text: &str, group: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter(|line| line.split(' ').next() == Some(group));
    let (names, numbers) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut pairs = names.split(' ').zip(numbers.split(' '));
    let number = pairs.find(|pair| pair.0 == name).and_then(|pair| pair.1.parse().ok());
    number.unwrap_or_else(|| panic!("the kernel has no counter {group} {name}"))
}
