//! Numbers out of what was received: goodput from byte counts in time, round
//! trip times from pings. Pure: no sockets, no clock.

use std::time::Duration;

/// Width of one bucket of received bytes.
pub(super) const BUCKET: Duration = Duration::from_millis(100);

/// Buckets that make the first second.
const FIRST_SECOND: usize = 10;

/// Bytes received per 100 ms since the first byte came, over a fixed time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Buckets {
    bytes: Vec<u64>,
}

impl Buckets {
    /// Empty buckets for `seconds` of receiving.
    pub(super) fn new(seconds: u32) -> Self {
        Self { bytes: vec![0; seconds as usize * FIRST_SECOND] }
    }

    /// Counts `bytes` that were read `since_first` after the first byte. What
    /// comes after the time of the measurement is not counted.
    pub(super) fn record(&mut self, since_first: Duration, bytes: u64) {
        let index = (since_first.as_nanos() / BUCKET.as_nanos()) as usize;
        if let Some(bucket) = self.bytes.get_mut(index) {
            *bucket += bytes;
        }
    }

    /// Bits per second in the second that begins with the first byte.
    pub(super) fn first_second(&self) -> u64 {
        rate(self.bytes.get(..FIRST_SECOND).unwrap_or(&self.bytes))
    }

    /// Bits per second after the first second; 0 where there is no such time.
    pub(super) fn steady(&self) -> u64 {
        rate(self.bytes.get(FIRST_SECOND..).unwrap_or_default())
    }

    /// Bits per second over the whole time.
    pub(super) fn whole(&self) -> u64 {
        rate(&self.bytes)
    }
}

/// Bits per second of these buckets.
fn rate(buckets: &[u64]) -> u64 {
    let bits = buckets.iter().sum::<u64>() * 8;
    let milliseconds = buckets.len() as u64 * BUCKET.as_millis() as u64;
    (bits * 1000).checked_div(milliseconds).unwrap_or_default()
}

/// What one series of pings gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pings {
    times: Vec<Duration>,
    /// Pings without an answer within the time that one may take.
    pub(super) lost: u32,
}

impl Pings {
    /// Adds a ping: its round trip time, or `None` when no answer came.
    pub(super) fn record(&mut self, time: Option<Duration>) {
        match time {
            Some(time) => self.times.push(time),
            None => self.lost += 1,
        }
    }

    /// Pings that were sent.
    pub(super) fn sent(&self) -> usize {
        self.times.len() + self.lost as usize
    }

    /// Median round trip time in milliseconds; `None` without an answer.
    pub(super) fn median_ms(&self) -> Option<f64> {
        let mut times = self.times.clone();
        times.sort_unstable();
        let last = times.len().checked_sub(1)?;
        // The two middle ones: the same one when the count is odd.
        Some((milliseconds(times[last / 2]) + milliseconds(times[last.div_ceil(2)])) / 2.0)
    }

    /// Mean round trip time in milliseconds; `None` without an answer.
    pub(super) fn mean_ms(&self) -> Option<f64> {
        let sum: Duration = self.times.iter().sum();
        (!self.times.is_empty()).then(|| milliseconds(sum) / self.times.len() as f64)
    }

    /// Longest round trip time in milliseconds; `None` without an answer.
    pub(super) fn max_ms(&self) -> Option<f64> {
        self.times.iter().max().copied().map(milliseconds)
    }
}

/// A duration as milliseconds, to the microsecond: a clock reading has no more
/// meaning than that here.
pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_first_second_begins_with_the_first_byte_and_the_rest_is_steady() {
        // given a burst at once, 100 kB in the first second and 10 kB per 100 ms afterwards
        let mut buckets = Buckets::new(3);
        buckets.record(ms(0), 60_000);
        buckets.record(ms(999), 40_000);
        for step in 10..30 {
            buckets.record(ms(step * 100), 10_000);
        }
        // then each part has its own rate
        assert_eq!(buckets.first_second(), 800_000);
        assert_eq!(buckets.steady(), 800_000);
        assert_eq!(buckets.whole(), 800_000);

        // when more comes at the first moment after the first second
        buckets.record(ms(1000), 200_000);
        // then only the steady part grows: 400,000 bytes in 2 s
        assert_eq!(buckets.first_second(), 800_000);
        assert_eq!(buckets.steady(), 1_600_000);
    }

    #[test]
    fn bytes_after_the_end_do_not_count() {
        let mut buckets = Buckets::new(2);
        buckets.record(ms(1999), 1000);
        buckets.record(ms(2000), 5000);
        assert_eq!(buckets.steady(), 8000);
    }

    #[test]
    fn a_measurement_of_one_second_has_no_steady_part() {
        let mut buckets = Buckets::new(1);
        buckets.record(ms(10), 1000);
        assert_eq!((buckets.first_second(), buckets.steady()), (8000, 0));
    }

    #[test]
    fn fast_links_do_not_overflow() {
        // 400 Gbit/s for ten minutes
        let mut buckets = Buckets::new(600);
        for step in 0..6000 {
            buckets.record(ms(step * 100), 5_000_000_000);
        }
        assert_eq!(buckets.whole(), 400_000_000_000);
    }

    #[test]
    fn ping_numbers() {
        // (round trips in ms, lost) → (median, mean, max)
        type Case<'a> = (&'a [u64], u32, Option<(f64, f64, f64)>);
        let cases: [Case<'_>; 4] = [
            (&[], 2, None),
            (&[7], 0, Some((7.0, 7.0, 7.0))),
            (&[9, 1, 2], 0, Some((2.0, 4.0, 9.0))),
            (&[1, 10, 2, 3], 1, Some((2.5, 4.0, 10.0))),
        ];
        for (times, lost, want) in cases {
            let mut pings = Pings::default();
            times.iter().for_each(|&time| pings.record(Some(ms(time))));
            (0..lost).for_each(|_| pings.record(None));
            let got = pings.median_ms().zip(pings.mean_ms()).zip(pings.max_ms());
            assert_eq!(got.map(|((median, mean), max)| (median, mean, max)), want, "{times:?}");
            assert_eq!(pings.sent(), times.len() + lost as usize);
        }
    }
}
