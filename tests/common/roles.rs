//! Bodies of processes that run inside a pod. No program is needed for them: the test binary
//! starts itself again inside the pod with `POD_BANDWIDTH_ROLE` set, and `Lab::open`, with which
//! every test begins, plays the role instead of the test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::socket::{self, sockopt};

use super::{Ns, peers};

const ROLE: &str = "POD_BANDWIDTH_ROLE";

/// Width of one count of received bytes.
pub(super) const BUCKET: Duration = Duration::from_millis(10);

/// The mark of a line that is for the harness; libtest prints lines of its own.
const MARK: &str = "role: ";

/// How `value` of `variable` (a role: words, the first one names it) is played elsewhere: the test
/// binary, its arguments, and the variable of its environment.
fn call(variable: &'static str, value: &str) -> (PathBuf, [String; 4], (&'static str, String)) {
    let own = std::env::current_exe().expect("the test binary has a path");
    let options = ["--exact", &peers::test_name(), "--nocapture", "--test-threads=1"];
    (own, options.map(str::to_owned), (variable, value.to_owned()))
}

/// How `role` is played elsewhere, see [`start`].
pub fn role_call(role: &str) -> (PathBuf, [String; 4], (&'static str, String)) {
    call(ROLE, role)
}

/// What the harness is told by a line that a role printed, `None` for what libtest prints.
pub fn told(line: &str) -> Option<&str> {
    // libtest writes "test name ... " without an end of line before the first of ours.
    line.split_once(MARK).map(|(_, words)| words)
}

/// Starts `role` inside `ns`: words, the first one names it.
pub(super) fn start(ns: &Ns, role: &str) -> Child {
    start_test_again(ns, ROLE, role)
}

/// Starts the running test again inside `ns`, with a variable that says what it is to do there.
pub fn start_test_again(ns: &Ns, variable: &'static str, value: &str) -> Child {
    let (own, options, (key, value)) = call(variable, value);
    let mut argv = vec![own.to_str().expect("a path in UTF-8")];
    argv.extend(options.iter().map(String::as_str));
    ns.spawn(&argv, &[(key, &value)])
}

/// Plays the role that the environment asks for, and does not come back then.
pub(super) fn play_if_asked() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let words: Vec<&str> = role.split_whitespace().collect();
    match words[..] {
        ["receive", address, flows] => receive(address, flows.parse().expect("a number")),
        ["send", address, control, milliseconds] => send(
            address.parse().expect("an address"),
            control,
            Duration::from_millis(milliseconds.parse().expect("a number")),
        ),
        ["flood", address, segment, packet] => flood(
            address.parse().expect("an address"),
            segment.parse().expect("a number"),
            packet.parse().expect("a number"),
        ),
        ["listen", address] => listen(address),
        ["probe", address, count] => {
            probe(address.parse().expect("an address"), count.parse().expect("a number"))
        }
        _ => panic!("{ROLE}={role} is no role"),
    }
    std::process::exit(0);
}

/// Takes `flows` TCP connections and counts what arrives, in buckets of 10 ms from the first
/// byte on. Says `listening ADDRESS` first, and then one number per bucket.
fn receive(address: &str, flows: usize) {
    let listener = TcpListener::bind(address).expect("the address can be bound");
    say(&format!("listening {}", listener.local_addr().expect("bound")));
    let total = Arc::new(AtomicU64::new(0));
    let first: Arc<OnceLock<Instant>> = Arc::default();
    let readers: Vec<_> = (0..flows)
        .map(|_| {
            let (mut stream, _) = listener.accept().expect("a sender connects");
            let (total, first) = (Arc::clone(&total), Arc::clone(&first));
            std::thread::spawn(move || {
                let mut buffer = vec![0; 1 << 17];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    first.get_or_init(Instant::now);
                    total.fetch_add(count as u64, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut told = 0;
    let mut bucket = 0;
    loop {
        let done = readers.iter().all(std::thread::JoinHandle::is_finished);
        match first.get() {
            Some(&start) => {
                bucket += 1;
                std::thread::sleep(
                    (start + BUCKET * bucket).saturating_duration_since(Instant::now()),
                );
                let now = total.load(Ordering::Relaxed);
                say(&(now - told).to_string());
                told = now;
            }
            None => std::thread::sleep(BUCKET / 10),
        }
        if done {
            return;
        }
    }
}

/// Writes to one TCP connection for `duration` with the congestion control `control`, then cuts it.
fn send(address: SocketAddr, control: &str, duration: Duration) {
    let mut stream = TcpStream::connect(address).expect("the receiver listens");
    socket::setsockopt(&stream, sockopt::TcpCongestion, &control.into())
        .unwrap_or_else(|error| panic!("the congestion control {control}: {error}"));
    stream.set_write_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    let block = vec![0; 1 << 17];
    let end = Instant::now() + duration;
    while Instant::now() < end {
        match stream.write(&block) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("the stream broke: {error}"),
        }
    }
    // What still waits in the socket is thrown away, else it would go on at the limit's pace.
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    socket::setsockopt(&stream, sockopt::Linger, &linger).expect("a reset instead of a farewell");
}

/// Sends UDP packets of `packet` bytes without end, each cut into segments of `segment` bytes by
/// generic segmentation offload: the kernel carries it through the queues as one packet.
fn flood(address: SocketAddr, segment: i32, packet: usize) {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket::setsockopt(&socket, sockopt::UdpGsoSegment, &segment).expect("UDP_SEGMENT");
    // A deep send buffer: as many packets in the queue as it takes.
    socket::setsockopt(&socket, sockopt::SndBuf, &(4 << 20)).expect("SO_SNDBUF");
    let block = vec![0; packet];
    let mut told = false;
    loop {
        match socket.send_to(&block, address) {
            Ok(_) if !told => {
                say("sending");
                told = true;
            }
            // A full queue: what was asked for.
            Ok(_) | Err(_) => {}
        }
        // Some 500 Mbit/s: far above every limit, and a core is left for the others.
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Takes every TCP connection and closes it, as a container does whose port is probed. Says
/// `listening ADDRESS` first.
fn listen(address: &str) {
    let listener = TcpListener::bind(address).expect("the address can be bound");
    say(&format!("listening {}", listener.local_addr().expect("bound")));
    listener.incoming().for_each(drop);
}

/// Connects `count` times, one after another, each within a second as a kubelet's probe, and says
/// how many failed.
fn probe(address: SocketAddr, count: usize) {
    let patience = Duration::from_secs(1);
    let fails = || TcpStream::connect_timeout(&address, patience).is_err();
    say(&(0..count).filter(|_| fails()).count().to_string());
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // When nobody reads any more, the harness is gone and so is the reason to go on.
    if writeln!(out, "{MARK}{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}
