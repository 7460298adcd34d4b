//! The traffic generator: one bulk TCP flow. It knows sockets and the clock. A
//! socket belongs to the network namespace of the thread that made it, so the
//! caller says where each one is made and any thread may use it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, setsockopt, sockopt};

use super::measure::{BUCKET, Buckets};

/// How much the sender hands to the kernel at a time: bytes.
const CHUNK: usize = 128 * 1024;

/// How long a connection or the first byte may take. Long enough for the slowest limits: at 1 kbit/s one frame takes 12 s.
const PATIENCE: Duration = Duration::from_secs(30);

/// A TCP connection with both of its ends.
#[derive(Debug)]
pub(super) struct Flow {
    sender: TcpStream,
    receiver: TcpStream,
}

impl Flow {
    /// Opens a listening socket at `address`, in the namespace of this thread.
    pub(super) fn listen(address: Ipv4Addr) -> io::Result<TcpListener> {
        TcpListener::bind((address, 0))
    }

    /// Connects to `port`, in the namespace of this thread, with the wanted
    /// congestion control or the system's own.
    pub(super) fn connect(target: SocketAddr, congestion: Option<&str>) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&target, PATIENCE)?;
        if let Some(name) = congestion {
            setsockopt(&stream, sockopt::TcpCongestion, &name.into())?;
        }
        Ok(stream)
    }

    /// Joins a connected sender with what the listener has for it.
    pub(super) fn join(sender: TcpStream, listener: &TcpListener) -> io::Result<Self> {
        // The handshake is over, so this does not wait.
        let (receiver, _) = listener.accept()?;
        Ok(Self { sender, receiver })
    }

    /// The name of the congestion control that the sender uses, as the kernel says it.
    pub(super) fn congestion(&self) -> io::Result<String> {
        let name = getsockopt(&self.sender, sockopt::TcpCongestion)?;
        Ok(name.to_string_lossy().trim_end_matches('\0').to_owned())
    }

    /// Sends as much as goes through for `seconds` from the first byte that is
    /// received, and returns what the receiver got. `tick` hears about every
    /// 100 ms how long it has been and how many bytes came since its last call.
    ///
    /// # Errors
    /// When nothing arrives for 30 s, or either end fails.
    pub(super) fn run(
        self,
        seconds: u32,
        mut tick: impl FnMut(Duration, u64),
    ) -> io::Result<Buckets> {
        let Self { mut sender, receiver } = self;
        // A blocked write comes back to look at `stop`.
        sender.set_write_timeout(Some(BUCKET))?;
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let sending = scope.spawn(|| send(&mut sender, &stop));
            let received = receive(&receiver, seconds, &mut tick);
            stop.store(true, Ordering::Relaxed);
            // Closed before the sender: what still comes is answered with a reset,
            // so the sender's buffered megabytes do not disturb what is measured next.
            drop(receiver);
            let sent = sending.join().unwrap_or_else(|_| Err(io::Error::other("sender died")));
            received.and_then(|buckets| sent.map(|()| buckets))
        })
    }
}

/// Writes until `stop`. Errors count only before it.
fn send(stream: &mut TcpStream, stop: &AtomicBool) -> io::Result<()> {
    let chunk = vec![0u8; CHUNK];
    loop {
        let result = stream.write(&chunk);
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        match result {
            Ok(_) => {}
            Err(error) if is_pause(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads for `seconds` from the first byte on and counts.
fn receive(
    mut stream: &TcpStream,
    seconds: u32,
    tick: &mut impl FnMut(Duration, u64),
) -> io::Result<Buckets> {
    let mut chunk = vec![0u8; CHUNK];
    let mut buckets = Buckets::new(seconds);
    let time = Duration::from_secs(seconds.into());

    stream.set_read_timeout(Some(PATIENCE))?;
    let mut length = stream.read(&mut chunk).map_err(|error| {
        if is_pause(&error) {
            io::Error::new(io::ErrorKind::TimedOut, format!("no byte came within {PATIENCE:?}"))
        } else {
            error
        }
    })?;
    let first = Instant::now();
    stream.set_read_timeout(Some(BUCKET))?;

    let (mut since, mut next_tick, mut fresh) = (Duration::ZERO, BUCKET, 0);
    loop {
        buckets.record(since, length as u64);
        fresh += length as u64;
        if since >= next_tick {
            tick(since.min(time), fresh);
            (next_tick, fresh) = (since + BUCKET, 0);
        }
        if since >= time {
            return Ok(buckets);
        }
        length = match stream.read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => length,
            Err(error) if is_pause(&error) => 0,
            Err(error) => return Err(error),
        };
        since = first.elapsed();
    }
}

/// A read or write that its timeout or a signal ended: nothing is wrong.
pub(super) fn is_pause(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback() -> Flow {
        let listener = Flow::listen(Ipv4Addr::LOCALHOST).unwrap();
        let sender = Flow::connect(listener.local_addr().unwrap(), Some("reno")).unwrap();
        Flow::join(sender, &listener).unwrap()
    }

    #[test]
    fn a_flow_is_measured_for_its_time_and_reported_on_the_way() {
        let (mut ticks, mut heard) = (0, 0);
        let buckets = loopback()
            .run(2, |_, bytes| {
                ticks += 1;
                heard += bytes;
            })
            .unwrap();
        assert!(buckets.first_second() > 0 && buckets.steady() > 0, "{buckets:?}");
        assert!((2..=20).contains(&ticks), "{ticks} ticks");
        assert!(heard >= buckets.whole() / 8, "ticks left bytes out: {heard}");
    }

    #[test]
    fn the_congestion_control_is_the_one_asked_for() {
        assert_eq!(loopback().congestion().unwrap(), "reno");
    }

    #[test]
    fn a_congestion_control_that_the_kernel_lacks_is_an_error() {
        let listener = Flow::listen(Ipv4Addr::LOCALHOST).unwrap();
        let result = Flow::connect(listener.local_addr().unwrap(), Some("no-such"));
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_sender_that_goes_away_is_an_error() {
        let Flow { sender, receiver } = loopback();
        drop(sender);
        let result = receive(&receiver, 2, &mut |_, _| {});
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
