//! What passed a limit, in the bytes that the limit is about: whole Ethernet frames.
//!
//! Counted by the kernel where the receiver's namespace takes packets in as IP packets. A limit
//! lies before that place in every direction and way of shaping. The counters of the interface do
//! not serve: a hook redirects a packet to an IFB only after the interface has counted it.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Ns;

/// The Internet Protocol's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

/// A look-out for the first second of traffic that arrives in a namespace.
#[must_use]
pub struct Wire(JoinHandle<Vec<Sample>>);

/// What had arrived up to a moment. The kernel does not show all its counters of one moment: a packet
/// that comes between two of them can make a sample one TCP/IP header too large, so that the next
/// one is smaller. Hence a number with a sign.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    bytes: f64,
}

/// The time between two looks, and so how sharp the beginning of the first second is.
const STEP: Duration = Duration::from_millis(1);

const SECOND: Duration = Duration::from_secs(1);

/// How long the first frame may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A step with more than this is data; a handshake and neighbour discovery stay below.
const DATA_BYTES: f64 = 1_000.0;

/// Bytes of an Ethernet header.
const ETHERNET: u64 = 14;

impl Wire {
    /// Begins to look at what `ns` receives. Nothing of the traffic has been sent yet.
    pub fn watch(ns: &Ns, family: Family) -> Self {
        let mut samples = vec![Sample::take(ns, family)];
        let ns = ns.clone();
        Self(std::thread::spawn(move || {
            let mut end = Instant::now() + PATIENCE;
            let mut begun = false;
            while let Some(before) = samples.last().copied()
                && before.at <= end
            {
                std::thread::sleep(STEP);
                let sample = Sample::take(&ns, family);
                if !begun && sample.bytes > before.bytes + DATA_BYTES {
                    // Only the last quiet sample matters of all that came before.
                    samples = vec![before];
                    begun = true;
                    end = sample.at + SECOND;
                }
                samples.push(sample);
            }
            assert!(begun, "no traffic arrived in {} for {PATIENCE:?}", ns.label);
            samples
        }))
    }

    /// Bits of all frames that arrived in the second after the first one with data.
    pub fn first_second_bits(self) -> f64 {
        let samples = self.0.join().expect("the look-out does not die");
        // The first frame came between samples 0 and 1: it counts, and the second begins at 1.
        let (before, end) = (samples[0].bytes, samples[1].at + SECOND);
        let after = samples.iter().position(|sample| sample.at >= end).expect("a whole second");
        let (left, right) = (samples[after - 1], samples[after]);
        // Between two looks: in proportion, so that a late look does not count for more.
        let share = (end - left.at).as_secs_f64() / (right.at - left.at).as_secs_f64();
        let bytes = left.bytes - before + share * (right.bytes - left.bytes);
        bytes * 8.0
    }
}

impl Sample {
    fn take(ns: &Ns, family: Family) -> Self {
        let file = |name: &str| {
            let path = format!("/proc/{}/net/{name}", ns.pid);
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
        };
        let bytes = match family {
            Family::V4 => {
                let (snmp, netstat) = (file("snmp"), file("netstat"));
                let look = |name: &str| match name {
                    "InReceives" => in_table(&snmp, "Ip:", name),
                    _ => in_table(&netstat, "IpExt:", name),
                };
                frames(look, 20)
            }
            Family::V6 => {
                let snmp6 = file("snmp6");
                frames(|name| in_list(&snmp6, &format!("Ip6{name}")), 40)
            }
        };
        Self { at: Instant::now(), bytes: bytes as f64 }
    }
}

/// Bytes of the frames in the counters that `look` gives. The kernel counts the octets of a packet
/// that passed as one piece (generic segmentation offload) with one header, but the segments in it
/// by themselves (`ip_rcv_core`, `ip6_rcv_core`); so does TBF, which takes the headers of all.
fn frames(look: impl Fn(&str) -> u64, ip_header: u64) -> u64 {
    let marks = ["InNoECTPkts", "InECT0Pkts", "InECT1Pkts", "InCEPkts"];
    let segments: u64 = marks.into_iter().map(&look).sum();
    // TCP's header has 20 bytes and 12 of timestamps. Nothing else is sent in pieces here.
    let more_headers = segments.saturating_sub(look("InReceives")) * (ip_header + 32);
    look("InOctets") + segments * ETHERNET + more_headers
}

/// The counter `name` of /proc/net/snmp or netstat: a line of names, then a line of numbers.
fn in_table(text: &str, group: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter(|line| line.split(' ').next() == Some(group));
    let (names, numbers) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut pairs = names.split(' ').zip(numbers.split(' '));
    let number = pairs.find(|pair| pair.0 == name).and_then(|pair| pair.1.parse().ok());
    number.unwrap_or_else(|| panic!("the kernel has no counter {group} {name}"))
}

/// The counter `name` of /proc/net/snmp6: a line for each.
fn in_list(text: &str, name: &str) -> u64 {
    let mut lines = text.lines().map(str::split_whitespace);
    let line = lines.find_map(|mut words| (words.next() == Some(name)).then(|| words.next()));
    let number = line.flatten().and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("the kernel has no counter {name}"))
}
