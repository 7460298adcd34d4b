//! How long a watch waits before it tries again. kube's own default doubles up to 30 seconds, and a
//! changed annotation would wait as long after an outage; this one stops earlier.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use kube::runtime::utils::Backoff;

const FIRST: Duration = Duration::from_millis(400);
const LONGEST: Duration = Duration::from_secs(8);

/// How long after a wait the next error is a new trouble.
const CALM: Duration = Duration::from_secs(20);

/// Doubles, and differs from node to node, so that they do not all come at once.
#[derive(Debug)]
pub(super) struct Doubling {
    next: Duration,
    /// The last wait's end.
    waited: Option<Instant>,
}

impl Default for Doubling {
    fn default() -> Self {
        Self { next: FIRST, waited: None }
    }
}

impl Doubling {
    fn wait_at(&mut self, now: Instant) -> Duration {
        if self.waited.is_some_and(|waited| now.saturating_duration_since(waited) > CALM) {
            self.next = FIRST;
        }
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        // From three quarters to all of it. The keys of the standard library's hashes are random.
        let random = RandomState::new().hash_one(wait) % 256;
        let wait = wait * 3 / 4 + wait / 4 * (random as u32) / 256;
        self.waited = Some(now + wait);
        wait
    }
}

impl Iterator for Doubling {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.wait_at(Instant::now()))
    }
}

impl Backoff for Doubling {
    /// Called at each event, also at the one by which a watch says that it begins, before anybody has
    /// answered it. So time decides.
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_begin_anew_after_a_calm() {
        let (mut waits, mut now) = (Doubling::default(), Instant::now());
        for full in [400, 800, 1600, 3200, 6400, 8000, 8000] {
            let wait = waits.wait_at(now);
            assert!((full * 3 / 4..=full).contains(&wait.as_millis()), "{wait:?} of {full} ms");
            // A watch that begins has reached nobody.
            waits.reset();
            now += wait;
        }
        assert!(waits.wait_at(now + CALM) > FIRST);
        now = waits.waited.unwrap() + CALM + Duration::from_millis(1);
        assert!(waits.wait_at(now) <= FIRST);
    }
}
