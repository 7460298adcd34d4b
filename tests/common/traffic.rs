//! Traffic between a lab and its pods, and what of it arrived.

use std::io::{BufRead, BufReader, Read};
use std::process::Child;
use std::sync::mpsc;
use std::time::Duration;

use super::{Ns, roles};

/// What is to be sent over TCP.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Congestion control of the sender: `bbr`, `cubic`, …
    pub congestion: &'static str,
    /// Connections at the same time.
    pub flows: usize,
    /// How long is measured, from the first byte on.
    pub duration: Duration,
}

impl Default for Traffic {
    fn default() -> Self {
        Self { congestion: "cubic", flows: 1, duration: Duration::from_secs(4) }
    }
}

/// Payload that the receiving program got, in bits.
#[derive(Clone, Copy, Debug)]
pub struct Throughput {
    /// In the first second after the first byte.
    pub first_second_bits: f64,
    /// Per second, from the second second to the end.
    pub steady_bits: f64,
}

/// TCP connections that are under way from one namespace to another.
pub struct Flow {
    senders: Vec<Sender>,
    receiver: Process,
    lines: Lines,
    buckets: Vec<u64>,
}

/// Answers to `ping`.
#[derive(Clone, Copy, Debug)]
pub struct Ping {
    /// Echo requests.
    pub sent: u32,
    /// Answers.
    pub received: u32,
    /// Mean round trip in milliseconds; not a number where nothing was answered.
    pub average_ms: f64,
}

/// A child that does not outlive its handle.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures TCP from one namespace to `address` of another: at the receiver, payload alone.
pub fn throughput(from: &Ns, to: &Ns, address: &str, traffic: &Traffic) -> Throughput {
    let mut flow = Flow::start(from, to, address, traffic);
    flow.until(traffic.duration);
    flow.throughput()
}

impl Flow {
    /// Connects `traffic.flows` senders in `from` to a receiver at `address` in `to`.
    pub fn start(from: &Ns, to: &Ns, address: &str, traffic: &Traffic) -> Self {
        let (mut flow, target) = Self::listen(to, address, traffic.flows);
        flow.senders = (0..traffic.flows).map(|_| Sender::start(from, &target, traffic)).collect();
        flow
    }

    /// A receiver in `to` for `flows` senders that somebody else starts, and the address and port
    /// that it listens on.
    pub fn listen(to: &Ns, address: &str, flows: usize) -> (Self, String) {
        let bind =
            if address.contains(':') { format!("[{address}]:0") } else { format!("{address}:0") };
        Self::listen_at(to, &bind, flows)
    }

    /// The same at a port that the senders know already.
    pub fn listen_at(to: &Ns, bind: &str, flows: usize) -> (Self, String) {
        let mut receiver = Process(roles::start(to, &format!("receive {bind} {flows}")));
        let lines = Lines::of(&mut receiver.0);
        let line = lines.next().unwrap_or_else(|| panic!("no receiver: {}", words(&mut receiver)));
        let target = line.strip_prefix("listening ").expect("the receiver's first line").to_owned();
        (Self { senders: Vec::new(), receiver, lines, buckets: Vec::new() }, target)
    }

    /// Reads on for `duration` of the receiver's time, and says how many bytes came meanwhile.
    /// The first call waits for the first byte.
    pub fn bytes_in(&mut self, duration: Duration) -> u64 {
        let count = duration.as_millis() / roles::BUCKET.as_millis();
        (0..count).map(|_| self.bucket()).sum()
    }

    /// Bits per second over `duration` from now on.
    pub fn rate_in(&mut self, duration: Duration) -> f64 {
        self.skip_what_is_past();
        self.bytes_in(duration) as f64 * 8.0 / duration.as_secs_f64()
    }

    /// Reads on until `duration` of the receiver's time has passed since the first byte.
    pub fn until(&mut self, duration: Duration) {
        let buckets = (duration.as_millis() / roles::BUCKET.as_millis()) as usize;
        while self.buckets.len() < buckets {
            self.bucket();
        }
    }

    /// What was seen so far.
    pub fn throughput(&self) -> Throughput {
        Throughput::of(&self.buckets)
    }

    /// Forgets what came while nobody read: it is about the past.
    pub fn skip_what_is_past(&mut self) {
        self.bucket();
        while let Ok(line) = self.lines.0.try_recv() {
            self.buckets.push(count(&line));
        }
    }

    fn bucket(&mut self) -> u64 {
        let line = self.lines.next();
        let bytes = count(&line.unwrap_or_else(|| panic!("no more: {}", self.last_words())));
        self.buckets.push(bytes);
        bytes
    }

    fn last_words(&mut self) -> String {
        let all = self.senders.iter_mut().map(|s| &mut s.0).chain([&mut self.receiver]);
        all.map(words).collect::<Vec<_>>().join(" ")
    }
}

/// One TCP connection that sends as much as it can; it is cut when this is dropped.
#[must_use]
pub struct Sender(Process);

impl Sender {
    /// Connects to `target`, an address and a port where a receiver listens.
    pub fn start(from: &Ns, target: &str, traffic: &Traffic) -> Self {
        Self(Process(roles::start(from, &Self::role(target, traffic))))
    }

    /// The role that a sender plays.
    pub fn role(target: &str, traffic: &Traffic) -> String {
        // A second more than is looked at: the end of the connections is not measured.
        let duration = traffic.duration.as_millis() + 1_000;
        format!("send {target} {} {duration}", traffic.congestion)
    }
}

impl Throughput {
    /// From a receiver's counts, one number of bytes for each 10 ms.
    pub fn of(buckets: &[u64]) -> Self {
        let second = (1.0 / roles::BUCKET.as_secs_f64()) as usize;
        assert!(buckets.len() > 2 * second, "{} buckets are too few", buckets.len());
        let (first, rest) = buckets.split_at(second);
        let bits = |buckets: &[u64]| buckets.iter().sum::<u64>() as f64 * 8.0;
        Self {
            first_second_bits: bits(first),
            steady_bits: bits(rest) / (rest.len() as f64 * roles::BUCKET.as_secs_f64()),
        }
    }
}

fn count(line: &str) -> u64 {
    line.parse().expect("a number of bytes")
}

impl Ns {
    /// Sends `count` echo requests, 50 ms apart, each waited for `deadline` at most.
    pub fn ping(&self, address: &str, count: u32, deadline: Duration) -> Ping {
        let (number, wait) = (count.to_string(), deadline.as_secs_f64().to_string());
        let argv = ["ping", "-n", "-q", "-i", "0.05", "-c", &number, "-W", &wait, address];
        let text = String::from_utf8_lossy(&self.attempt(&argv).stdout).into_owned();
        let received = text
            .split(',')
            .find_map(|part| part.trim().strip_suffix(" received"))
            .unwrap_or_else(|| panic!("ping printed {text:?}"));
        let average = text.split_once("mdev = ").and_then(|(_, times)| times.split('/').nth(1));
        Ping {
            sent: count,
            received: received.parse().expect("a number"),
            average_ms: average.map_or(f64::NAN, |text| text.parse().expect("milliseconds")),
        }
    }

    /// Floods `address` with UDP packets of `packet` bytes that pass the queues whole and leave in
    /// segments of `segment` bytes.
    pub fn flood_udp_gso(&self, address: &str, segment: u32, packet: u32) -> Flood {
        let mut child =
            Process(roles::start(self, &format!("flood {address}:9 {segment} {packet}")));
        let first = Lines::of(&mut child.0).next();
        assert_eq!(first.as_deref(), Some("sending"), "no flood: {}", words(&mut child));
        Flood(child)
    }
}

/// How many of `count` TCP probes from one namespace to a listener at `address` of another fail.
pub fn failed_probes(from: &Ns, to: &Ns, address: &str, count: u32) -> u32 {
    let mut listener = Process(roles::start(to, &format!("listen {address}:0")));
    let line = Lines::of(&mut listener.0).next();
    let line = line.unwrap_or_else(|| panic!("no listener: {}", words(&mut listener)));
    let target = line.strip_prefix("listening ").expect("the listener's first line");
    let mut probe = Process(roles::start(from, &format!("probe {target} {count}")));
    let mut output = String::new();
    probe.0.stdout.take().expect("piped").read_to_string(&mut output).expect("UTF-8");
    let failed = output.lines().find_map(|line| roles::told(line));
    failed.expect("the probe's only line").parse().expect("a number")
}

/// A flood; it ends when this is dropped.
#[must_use]
pub struct Flood(Process);

/// The lines of a role that are for the harness, read by a thread as soon as they are written.
struct Lines(mpsc::Receiver<String>);

/// A role says something every 10 ms once bytes flow; this long a silence means that none do.
const SILENCE: Duration = Duration::from_secs(20);

impl Lines {
    fn of(child: &mut Child) -> Self {
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some(words) = roles::told(&line)
                    && sender.send(words.to_owned()).is_err()
                {
                    break;
                }
            }
        });
        Self(receiver)
    }

    fn next(&self) -> Option<String> {
        match self.0.recv_timeout(SILENCE) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("nothing arrived for {SILENCE:?}"),
        }
    }
}

fn words(process: &mut Process) -> String {
    let _ = process.0.kill();
    let mut words = String::new();
    if let Some(stderr) = process.0.stderr.as_mut() {
        let _ = stderr.read_to_string(&mut words);
    }
    words
}
