//! Ping: a UDP echo, because ICMP sockets need a privilege or a system setting
//! that a plain user may lack. It knows sockets and the clock; a socket belongs to
//! the network namespace of the thread that made it.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::measure::Pings;
use super::traffic::is_pause;

/// Time between two pings.
const PING_INTERVAL: Duration = Duration::from_millis(100);

/// A ping without an answer for this long is lost.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// Pings that may be lost before the network is taken as it is.
const SETTLE_PINGS: u32 = 15;

/// Bytes of a ping's payload, as of an ICMP echo from the usual tools.
const PING_BYTES: usize = 56;

/// A UDP echo and its client.
#[derive(Debug)]
pub(super) struct Echo {
    /// Answers.
    server: UdpSocket,
    /// Asks.
    client: UdpSocket,
    /// Number of the next ping. It only grows, so a late answer is never taken for another's.
    next: AtomicU64,
}

impl Echo {
    /// Opens a socket for either end at `address`, in the namespace of this thread.
    pub(super) fn open(address: Ipv4Addr) -> io::Result<UdpSocket> {
        UdpSocket::bind((address, 0))
    }

    /// Joins the two ends.
    pub(super) fn join(client: UdpSocket, server: UdpSocket) -> io::Result<Self> {
        client.connect(server.local_addr()?)?;
        server.connect(client.local_addr()?)?;
        server.set_read_timeout(Some(PING_INTERVAL))?;
        Ok(Self { server, client, next: AtomicU64::new(0) })
    }

    /// Pings every 100 ms, `count` times.
    pub(super) fn ping(&self, count: u32) -> io::Result<Pings> {
        self.answered(|| self.ask(|sent| sent >= count as usize))
    }

    /// Pings every 100 ms while `work` runs. Returns both results.
    pub(super) fn ping_during<T>(&self, work: impl FnOnce() -> T) -> (T, io::Result<Pings>) {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let asking =
                scope.spawn(|| self.answered(|| self.ask(|_| done.load(Ordering::Relaxed))));
            let result = work();
            done.store(true, Ordering::Relaxed);
            (result, joined(asking))
        })
    }

    /// Waits until what was sent before is through: pings until one is answered, for half a
    /// minute at most. At 20 kbit/s the queue that a flow leaves behind takes seconds.
    pub(super) fn settle(&self) -> io::Result<()> {
        self.answered(|| {
            for _ in 0..SETTLE_PINGS {
                if self.round_trip()?.is_some() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Does `work` while a thread answers pings.
    fn answered<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let answering = scope.spawn(|| answer(&self.server, &stop));
            let result = work();
            stop.store(true, Ordering::Relaxed);
            joined(answering).and(result)
        })
    }

    /// Sends pings until `enough`, which is given the number of those sent.
    fn ask(&self, enough: impl Fn(usize) -> bool) -> io::Result<Pings> {
        let mut pings = Pings::default();
        let start = Instant::now();
        let mut due = PING_INTERVAL;
        while !enough(pings.sent()) {
            thread::sleep(due.saturating_sub(start.elapsed()));
            pings.record(self.round_trip()?);
            // A late answer moves the next ping, it does not make two at once.
            due = (due + PING_INTERVAL).max(start.elapsed());
        }
        Ok(pings)
    }

    /// One ping: its time, or `None` when no answer came.
    fn round_trip(&self) -> io::Result<Option<Duration>> {
        let mut packet = [0u8; PING_BYTES];
        packet[..8].copy_from_slice(&self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let sent = Instant::now();
        self.client.send(&packet)?;
        loop {
            let left = PING_TIMEOUT.saturating_sub(sent.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            self.client.set_read_timeout(Some(left))?;
            let mut answer = [0u8; PING_BYTES];
            match self.client.recv(&mut answer) {
                // An answer to an earlier ping that was given up is not ours.
                Ok(_) if answer == packet => return Ok(Some(sent.elapsed())),
                Ok(_) => {}
                Err(error) if is_pause(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The result of a thread.
fn joined<T>(thread: ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the ping died")))
}

/// Sends back what comes, until `stop`.
fn answer(server: &UdpSocket, stop: &AtomicBool) -> io::Result<()> {
    let mut packet = [0u8; PING_BYTES];
    while !stop.load(Ordering::Relaxed) {
        match server.recv(&mut packet) {
            Ok(length) => drop(server.send(&packet[..length])?),
            Err(error) if is_pause(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback() -> Echo {
        let open = || Echo::open(Ipv4Addr::LOCALHOST).unwrap();
        Echo::join(open(), open()).unwrap()
    }

    #[test]
    fn every_ping_is_answered() {
        let pings = loopback().ping(3).unwrap();
        assert_eq!((pings.sent(), pings.lost), (3, 0));
        assert!(pings.median_ms().unwrap() > 0.0);
    }

    #[test]
    fn pings_go_on_while_the_work_runs_and_its_result_comes_back() {
        let (answer, pings) = loopback().ping_during(|| {
            // The work is time itself: about five pings long.
            thread::sleep(PING_INTERVAL * 5);
            42
        });
        let pings = pings.unwrap();
        assert_eq!(answer, 42);
        assert!((1..=6).contains(&pings.sent()), "{pings:?}");
    }

    #[test]
    fn an_answer_to_another_ping_does_not_count() {
        // given a server that first sends an answer nobody asked for
        let echo = loopback();
        echo.server.send(&[0xff; PING_BYTES]).unwrap();
        // when a ping goes out and nobody answers it
        // then the stale answer is not taken for its own
        assert_eq!(echo.round_trip().unwrap(), None);
    }
}
