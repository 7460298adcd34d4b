//! What a limit lets through, and how long a ping takes beside it: with the input that containerd
//! gives (its burst of 4294967295 bits means "no limit"), in every way and both directions, at MTU
//! 1500. Run by itself (`scripts/test` does): anything else on the machine moves the numbers.
//!
//! - **First second**: bits of all Ethernet frames that the receiver's namespace got in the second
//!   that begins with the first frame of data, handshake left out, over the limit x 1 s. Frames,
//!   because a limit is about frames. The bucket is full when it begins (each repetition has a pod
//!   and an ADD of its own), so a burst of 4 ms or two frames shows as up to 1.012 at 2M.
//! - **Steady**: payload that the receiving program got after its first second, per second, over
//!   the limit. The ideal is payload / frame: 1448 / 1514 = 0.956, over IPv6 1428 / 1514 = 0.943.
//! - **Ping**: mean round trip of the echo requests that were answered, 50 ms apart, in the
//!   direction of a bulk TCP connection that has filled the queue.
//!
//! Each number is the median of three, and the sender's congestion control is named with it.
//! `--nocapture` shows them; with `POD_BANDWIDTH_MEASURED=<file>` they go into a Markdown file.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test file")]

mod common;

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{
    Direction, Family, Flow, Lab, Ns, Pod, Recorded, Shape, Traffic, Way, Wire, shipped_plugin,
};
use nix::sys::socket::{self, sockopt};

/// Parts of the limit, in frames.
const FIRST_SECOND_MAX: f64 = 1.05;
/// Parts of the limit, in payload.
const STEADY: std::ops::RangeInclusive<f64> = 0.92..=0.965;
/// Congestion control, and the mean round trip at 10 Mbit/s that it may cost, in milliseconds.
const PING_MAX_MS: [(&str, f64); 2] = [("bbr", 15.0), ("cubic", 25.0)];

const REPETITIONS: usize = 3;
/// One second for the beginning, three for the steady rate.
const DURATION: Duration = Duration::from_secs(4);
/// Until the queue is full, and for how many echo requests it then stays so.
const FILL: Duration = Duration::from_millis(500);
const PINGS: u32 = 50;

const MBIT: u64 = 1_000_000;

#[test]
fn at_2_mbit_a_limit_holds_from_the_first_second_on() {
    measure_rates("2 Mbit/s over IPv4", 2 * MBIT, Family::V4, &Way::ALL);
}

#[test]
fn at_10_mbit_a_limit_holds_from_the_first_second_on() {
    measure_rates("10 Mbit/s over IPv4", 10 * MBIT, Family::V4, &Way::ALL);
}

#[test]
fn at_100_mbit_a_limit_holds_from_the_first_second_on() {
    measure_rates("100 Mbit/s over IPv4", 100 * MBIT, Family::V4, &Way::ALL);
}

#[test]
fn at_10_mbit_over_ipv6_a_limit_holds_from_the_first_second_on() {
    measure_rates("10 Mbit/s over IPv6", 10 * MBIT, Family::V6, &[Way::Root]);
}

#[test]
fn a_ping_beside_a_bulk_connection_at_10_mbit_waits_for_a_short_queue() {
    if Lab::open().is_none() {
        return;
    }
    let mut report = Report::open("Ping under load, 10 Mbit/s over IPv4");
    for (congestion, most) in PING_MAX_MS {
        if congestion == "bbr" && !has_bbr() {
            common::skip("this kernel has no bbr; with cubic ping was measured");
            continue;
        }
        for way in Way::ALL {
            // given a shaped pod, three times
            let runs = [(); REPETITIONS].map(|()| {
                let (lab, pod) = shaped_pod(10 * MBIT, way);
                Direction::ALL.map(|direction| ping_under_load(&lab, &pod, direction, congestion))
            });
            for (at, direction) in Direction::ALL.into_iter().enumerate() {
                // then the queue that a ping meets is short
                let pings = runs.map(|run| run[at]);
                let case = Case { way, direction, rate: 10 * MBIT, congestion };
                report.row(&case, ["-", "-", &format!("{:.1} ms", median(pings))]);
                report.expect(median(pings) <= most, || {
                    format!("{case}: a mean ping of {pings:.1?} ms, at most {most} ms is wanted")
                });
            }
        }
    }
    report.verdict();
}

/// What one repetition gave.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "drops are for the message of a failure")]
struct Run {
    /// Frames in the first second, part of the limit.
    first_second: f64,
    /// Payload after it, part of the limit.
    steady: f64,
    /// Packets that the TBF dropped, as `tc` says.
    drops: u64,
}

/// What was measured.
struct Case {
    way: Way,
    direction: Direction,
    rate: u64,
    congestion: &'static str,
}

fn measure_rates(title: &str, rate: u64, family: Family, ways: &[Way]) {
    if Lab::open().is_none() {
        return;
    }
    let mut report = Report::open(title);
    let congestion = if has_bbr() { "bbr" } else { "cubic" };
    if congestion == "cubic" {
        report
            .line("This kernel has no bbr: cubic instead (at 2 Mbit/s its steady part is 0.927).");
    }
    for &way in ways {
        // given a pod with the limit in both directions and full buckets, three times
        let runs = [(); REPETITIONS].map(|()| {
            let (lab, pod) = shaped_pod(rate, way);
            // when one connection after the other sends as much as it can
            Direction::ALL.map(|direction| {
                measure_rate(&lab, &pod, &Case { way, direction, rate, congestion }, family)
            })
        });
        for (at, direction) in Direction::ALL.into_iter().enumerate() {
            // then the limit holds from the beginning, and nearly all of it is used
            let runs = runs.map(|run| run[at]);
            let case = Case { way, direction, rate, congestion };
            let first_second = median(runs.map(|run| run.first_second));
            let steady = median(runs.map(|run| run.steady));
            report.row(&case, [&format!("{first_second:.3}"), &format!("{steady:.3}"), "-"]);
            report.expect(first_second <= FIRST_SECOND_MAX, || {
                format!("{case}: first second {first_second:.3} of the limit, at most {FIRST_SECOND_MAX} is wanted: {runs:.3?}")
            });
            report.expect(STEADY.contains(&steady), || {
                format!("{case}: steady {steady:.3} of the limit, {STEADY:?} is wanted: {runs:.3?}")
            });
        }
    }
    report.verdict();
}

/// A fresh pod that the shipped plugin has shaped with containerd's input: `rate` both ways.
fn shaped_pod(rate: u64, way: Way) -> (Lab, Pod) {
    let lab = Lab::open().expect("it opened before");
    let recorded = Recorded::add(rate, way);
    let pod = recorded.pod(&lab);
    recorded.run(&lab, &shipped_plugin());
    assert_eq!(Shape::of(&pod, way).rates(), (rate, rate), "{way:?}: what ADD has made");
    (lab, pod)
}

/// Sender, receiver and the receiver's address.
fn ends<'a>(
    lab: &'a Lab,
    pod: &'a Pod,
    direction: Direction,
    family: Family,
) -> (&'a Ns, &'a Ns, &'a str) {
    let at = &pod.eth0;
    match (direction, family) {
        (Direction::ToPod, Family::V4) => (lab, pod, &at.pod_v4),
        (Direction::ToPod, Family::V6) => (lab, pod, &at.pod_v6),
        (Direction::FromPod, Family::V4) => (pod, lab, &at.host_v4),
        (Direction::FromPod, Family::V6) => (pod, lab, &at.host_v6),
    }
}

fn measure_rate(lab: &Lab, pod: &Pod, case: &Case, family: Family) -> Run {
    let (from, to, address) = ends(lab, pod, case.direction, family);
    let wire = Wire::watch(to, family);
    let traffic = Traffic { congestion: case.congestion, flows: 1, duration: DURATION };
    let mut flow = Flow::start(from, to, address, &traffic);
    flow.until(DURATION);
    let limit = case.rate as f64;
    Run {
        first_second: wire.first_second_bits() / limit,
        steady: flow.throughput().steady_bits / limit,
        drops: drops(pod, case.way, case.direction),
    }
}

/// Mean round trip in milliseconds.
fn ping_under_load(lab: &Lab, pod: &Pod, direction: Direction, congestion: &'static str) -> f64 {
    let (from, to, address) = ends(lab, pod, direction, Family::V4);
    let traffic = Traffic { congestion, flows: 1, duration: Duration::from_secs(10) };
    let mut flow = Flow::start(from, to, address, &traffic);
    flow.until(FILL);
    let ping = from.ping(address, PINGS, Duration::from_secs(1));
    // A ping that meets a full queue is lost; a mean of few would say little.
    assert!(ping.received >= PINGS / 2, "{direction:?}, {congestion}: {ping:?}");
    assert!(flow.rate_in(Duration::from_millis(50)) > 0.0, "the connection fills the direction");
    ping.average_ms
}

fn drops(pod: &Pod, way: Way, direction: Direction) -> u64 {
    let dev = way.queue_device(pod, &pod.eth0, direction).expect("a TBF");
    let argv = ["tc", "-s", "-j", "qdisc", "show", "dev", &dev, "root"];
    way.namespace(pod).json(&argv)[0]["drops"].as_u64().expect("tc counts drops")
}

fn median(mut values: [f64; REPETITIONS]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[REPETITIONS / 2]
}

/// Asks for bbr once, as root with success where it is a module, and then whether it is there.
fn has_bbr() -> bool {
    if let Ok(socket) = std::net::TcpListener::bind("127.0.0.1:0") {
        let _ = socket::setsockopt(&socket, sockopt::TcpCongestion, &"bbr".into());
    }
    let known = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control");
    known.is_ok_and(|names| names.split_whitespace().any(|name| name == "bbr"))
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.cells().join(", "))
    }
}

impl Case {
    fn cells(&self) -> [String; 4] {
        let way = match self.way {
            Way::Root => "host/root",
            Way::Hooks => "host/hooks",
            Way::Pod => "pod",
        };
        let direction = match self.direction {
            Direction::ToPod => "to the pod",
            Direction::FromPod => "from the pod",
        };
        let rate = format!("{} Mbit/s", self.rate / MBIT);
        [way.to_owned(), direction.to_owned(), rate, self.congestion.to_owned()]
    }
}

/// A table in Markdown, and what in it is out of bounds.
struct Report {
    complaints: String,
}

impl Report {
    fn open(title: &str) -> Self {
        let report = Self { complaints: String::new() };
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let (kernel, load) = (read("/proc/sys/kernel/osrelease"), read("/proc/loadavg"));
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        report.line(&format!("\n### {title}\n"));
        report.line(&format!(
            "Kernel {}, {processors} processors, load before {}, {}, median of {REPETITIONS}.\n",
            kernel.trim(),
            load.split(' ').next().unwrap_or_default(),
            if shipped_plugin().ends_with("release/pod-bandwidth") { "release" } else { "debug" },
        ));
        let heads =
            "| way | direction | limit | congestion control | first second | steady | ping |";
        report.line(heads);
        report.line("|---|---|---|---|---|---|---|");
        report
    }

    fn row(&self, case: &Case, numbers: [&str; 3]) {
        self.line(&format!("| {} | {} |", case.cells().join(" | "), numbers.join(" | ")));
    }

    /// To the screen, and into the file that was asked for; the first line of a run empties it.
    fn line(&self, line: &str) {
        static BEGUN: AtomicBool = AtomicBool::new(false);
        eprintln!("{line}");
        let Some(path) = std::env::var_os("POD_BANDWIDTH_MEASURED") else { return };
        let mut options = std::fs::OpenOptions::new();
        if BEGUN.swap(true, Ordering::Relaxed) {
            options.append(true);
        } else {
            options.write(true).create(true).truncate(true);
        }
        let written = options.open(&path).and_then(|mut file| writeln!(file, "{line}"));
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Remembers what is wrong; the whole table is measured all the same.
    fn expect(&mut self, holds: bool, complaint: impl FnOnce() -> String) {
        if !holds {
            let _ = writeln!(self.complaints, "{}", complaint());
        }
    }

    fn verdict(self) {
        assert!(self.complaints.is_empty(), "out of bounds:\n{}", self.complaints);
    }
}
