//! How long a watch waits before it tries again. kube's own default doubles up to 30 seconds, and a
//! changed annotation would wait as long after an outage; this one stops earlier.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use kube::runtime::utils::Backoff;

const FIRST: Duration = Duration::from_millis(400);
const LONGEST: Duration = Duration::from_secs(8);

/// Doubles, and differs from node to node, so that they do not all come at once.
#[derive(Debug)]
pub(super) struct Doubling {
    next: Duration,
}

impl Default for Doubling {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Iterator for Doubling {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        // From three quarters to all of it. The keys of the standard library's hashes are random.
        let random = RandomState::new().hash_one(wait) % 256;
        Some(wait * 3 / 4 + wait / 4 * (random as u32) / 256)
    }
}

impl Backoff for Doubling {
    fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_begin_anew() {
        let mut waits = Doubling::default();
        for full in [400, 800, 1600, 3200, 6400, 8000, 8000] {
            let wait = waits.next().unwrap().as_millis();
            assert!((full * 3 / 4..=full).contains(&wait), "{wait} ms of {full}");
        }
        waits.reset();
        assert!(waits.next().unwrap() <= FIRST);
    }
}
