//! Senders that the tests do not have: UDP above a rate, and TCP at a rate of the program's own. They
//! run as processes inside a namespace: this program again, with a variable that says what to do.

use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::common::{Ns, start_test_again};

const ROLE: &str = "POD_BANDWIDTH_BENCH_ROLE";

/// UDP payload of a full frame at MTU 1500.
pub(crate) const UDP_PAYLOAD: usize = 1472;

/// A sender; it is killed when this is dropped.
pub(crate) struct Sending(Child);

impl Drop for Sending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Plays the sender that the environment asks for, and does not come back then.
pub(crate) fn play_if_asked() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let words: Vec<&str> = role.split(' ').collect();
    let address = |text: &str| text.parse().expect("an address");
    let number = |text: &str| text.parse().expect("a number");
    match words[..] {
        ["udp", to, rate] => udp(address(to), number(rate)),
        ["bulk", to, congestion, flows] => bulk(address(to), congestion, number(flows) as usize),
        ["tcp", to, congestion, rate] => tcp(address(to), congestion, number(rate)),
        _ => panic!("{ROLE}={role} is no role"),
    }
    std::process::exit(0);
}

/// UDP to `address`, `rate` bits of frames per second.
pub(crate) fn start_udp(from: &Ns, address: &str, rate: u64) -> Sending {
    Sending(start_test_again(from, ROLE, &format!("udp {address}:9 {rate}")))
}

/// TCP connections to `target` that send as much as they can once all are there: one that begins
/// while others fill a short queue may wait for many seconds.
pub(crate) fn start_bulk(from: &Ns, target: &str, congestion: &str, flows: usize) -> Sending {
    Sending(start_test_again(from, ROLE, &format!("bulk {target} {congestion} {flows}")))
}

/// TCP to `target`, `rate` bits of payload per second.
pub(crate) fn start_tcp(from: &Ns, target: &str, congestion: &str, rate: u64) -> Sending {
    Sending(start_test_again(from, ROLE, &format!("tcp {target} {congestion} {rate}")))
}

/// Nobody receives: what arrives is counted by the kernel. Several frames go in one send (UDP_SEGMENT)
/// where the rate needs that.
fn udp(to: SocketAddr, rate: u64) {
    const SENDS_PER_SECOND: u64 = 5_000;
    let frame_bits = (UDP_PAYLOAD as u64 + 42) * 8;
    let frames = (rate / frame_bits / SENDS_PER_SECOND).clamp(1, 44);
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    if frames > 1 {
        setsockopt(&socket, sockopt::UdpGsoSegment, &(UDP_PAYLOAD as i32)).expect("UDP_SEGMENT");
    }
    setsockopt(&socket, sockopt::SndBuf, &(8 << 20)).expect("SO_SNDBUF");
    socket.set_nonblocking(true).expect("a flag");
    let block = vec![0; UDP_PAYLOAD * frames as usize];
    let began = Instant::now();
    for number in 1_u64.. {
        // A full queue refuses: the packet is lost, as on any wire.
        let _ = socket.send_to(&block, to);
        pause(began, number * frames * frame_bits, rate);
    }
}

fn connect(to: SocketAddr, congestion: &str) -> TcpStream {
    let stream = TcpStream::connect(to).expect("the receiver listens");
    setsockopt(&stream, sockopt::TcpCongestion, &congestion.into()).expect("it is known");
    stream
}

fn bulk(to: SocketAddr, congestion: &str, flows: usize) {
    let streams: Vec<_> = (0..flows).map(|_| connect(to, congestion)).collect();
    std::thread::scope(|scope| {
        for mut stream in streams {
            scope.spawn(move || {
                let block = vec![0; 128 << 10];
                while stream.write_all(&block).is_ok() {}
            });
        }
    });
}

fn tcp(to: SocketAddr, congestion: &str, rate: u64) {
    let mut stream = connect(to, congestion);
    let block = vec![0; 64 << 10];
    let began = Instant::now();
    for number in 1_u64.. {
        if stream.write_all(&block).is_err() {
            return;
        }
        pause(began, number * 8 * block.len() as u64, rate);
    }
}

/// Sleeps until `bits` are due.
fn pause(began: Instant, bits: u64, rate: u64) {
    let due = began + Duration::from_secs_f64(bits as f64 / rate as f64);
    let wait = due.saturating_duration_since(Instant::now());
    // A shorter sleep costs more than it waits.
    if wait > Duration::from_micros(100) {
        std::thread::sleep(wait);
    }
}
