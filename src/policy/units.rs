//! Units: numbers that know what they count.
//!
//! Kubernetes and Calico write rates and bursts in bits and a minburst in bytes; the kernel takes
//! bytes. A type for each keeps a factor of eight from getting lost.

use std::fmt;

/// A rate in bits per second, the unit of the pod annotations and of `runtimeConfig.bandwidth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BitsPerSecond(pub u64);

impl BitsPerSecond {
    /// The whole bytes per second, rounded down: what the kernel's TBF can be given
    /// (`struct tc_ratespec` counts bytes).
    pub fn whole_bytes(self) -> u64 {
        self.0 / 8
    }
}

/// A size in bits: the unit of bursts in `runtimeConfig.bandwidth` and in Calico's annotations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bits(pub u64);

/// A size in bytes: the unit of Calico's minburst annotations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

impl fmt::Display for BitsPerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        decimal(f, self.0, "bit/s")
    }
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        decimal(f, self.0, "bit")
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} byte{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

/// Writes `number` with the largest decimal prefix that it reaches, exactly: 1500000 is "1.5 M".
fn decimal(f: &mut fmt::Formatter<'_>, number: u64, unit: &str) -> fmt::Result {
    const PREFIXES: [(u64, &str); 6] = [
        (1_000_000_000_000_000_000, "E"),
        (1_000_000_000_000_000, "P"),
        (1_000_000_000_000, "T"),
        (1_000_000_000, "G"),
        (1_000_000, "M"),
        (1_000, "k"),
    ];
    let Some((one, prefix)) = PREFIXES.iter().find(|(one, _)| number >= *one) else {
        return write!(f, "{number} {unit}");
    };
    let (whole, part) = (number / one, number % one);
    if part == 0 {
        return write!(f, "{whole} {prefix}{unit}");
    }
    // `one` is a power of ten, so its zeros count the places that `part` may fill.
    let places = one.ilog10() as usize;
    let digits = format!("{part:0places$}");
    write!(f, "{whole}.{} {prefix}{unit}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_the_largest_prefix_and_no_digit_is_lost() {
        for (bits, text) in [
            (0, "0 bit/s"),
            (999, "999 bit/s"),
            (1_000, "1 kbit/s"),
            (1_001, "1.001 kbit/s"),
            (10_000_000, "10 Mbit/s"),
            (1_500_000, "1.5 Mbit/s"),
            (1_234_567_890, "1.23456789 Gbit/s"),
            (40_000_000_000_000, "40 Tbit/s"),
            (1_000_000_000_000_001, "1.000000000000001 Pbit/s"),
            (u64::MAX, "18.446744073709551615 Ebit/s"),
        ] {
            assert_eq!(BitsPerSecond(bits).to_string(), text);
        }
        assert_eq!(Bits(40_000).to_string(), "40 kbit");
        assert_eq!(Bits(34_359_738_360).to_string(), "34.35973836 Gbit");
        assert_eq!(Bytes(5_000).to_string(), "5000 bytes");
        assert_eq!(Bytes(1).to_string(), "1 byte");
    }

    #[test]
    fn a_rate_in_bytes_is_rounded_down() {
        assert_eq!(BitsPerSecond(1_007).whole_bytes(), 125);
        assert_eq!(BitsPerSecond(1_008).whole_bytes(), 126);
    }
}
