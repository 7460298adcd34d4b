//! The mark of a limit: who gave it its numbers.
//!
//! It is kept where the numbers are, in the kernel: as the `mpu` (minimum packet unit) of the TBF's
//! rate. A packet shorter than that counts as so long (psched_l2t_ns in include/net/sch_generic.h),
//! and every Ethernet frame is longer than our values. The kernel changes it in place with the numbers
//! and shows it again (psched_ratecfg_getrate, since [`SHOWN_SINCE`]). A handle could not be changed
//! without another qdisc, and what waits would be lost.

/// The kernels that show an `mpu`: commit fb80445c438c ("net_sched: restore "mpu xxx" handling"), and
/// the long-term releases that took it.
pub const SHOWN_SINCE: &str = "Linux 5.17, 5.15.17, 5.10.94 or 5.4.174";

/// Who gave a TBF its numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mark {
    /// An ADD of the runtime.
    #[default]
    Added,
    /// The node agent, from annotations that have changed since.
    Agent,
    /// A person, with `set`.
    Hand,
    /// Somebody who gave our TBF an `mpu` of another meaning.
    Other(u16),
}

impl Mark {
    /// As the kernel keeps it, in bytes.
    pub fn mpu(self) -> u16 {
        match self {
            Self::Added => 0,
            Self::Agent => 1,
            Self::Hand => 2,
            Self::Other(mpu) => mpu,
        }
    }

    /// The mark that the kernel keeps as so many bytes.
    pub fn of_mpu(mpu: u16) -> Self {
        match mpu {
            0 => Self::Added,
            1 => Self::Agent,
            2 => Self::Hand,
            other => Self::Other(other),
        }
    }

    /// The numbers are not ADD's, and meant to be so: CHECK then verifies the shape alone.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Agent | Self::Hand)
    }

    /// Whether a TBF with the wanted numbers may keep the mark that it shows. What an ADD has set as
    /// the agent wants it is nothing that the agent would have to sign.
    pub fn accepts(self, shown: Self) -> bool {
        self == shown || (self == Self::Agent && shown == Self::Added)
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Added => f.write_str("as ADD set it"),
            Self::Agent => f.write_str("set by the node agent"),
            Self::Hand => f.write_str("set by hand"),
            Self::Other(mpu) => write!(f, "mpu {mpu}, which is not ours"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_comes_back_and_changes_no_packets_time() {
        const ETHERNET_HEADER_BYTES: u16 = 14;
        for mark in [Mark::Added, Mark::Agent, Mark::Hand, Mark::Other(64)] {
            assert_eq!(Mark::of_mpu(mark.mpu()), mark);
            let is_ours = !matches!(mark, Mark::Other(_));
            assert_eq!(is_ours, mark.mpu() < ETHERNET_HEADER_BYTES);
        }
    }

    #[test]
    fn only_the_agent_lets_anothers_mark_stand_and_only_adds() {
        let marks = [Mark::Added, Mark::Agent, Mark::Hand, Mark::Other(64)];
        for wanted in marks {
            for shown in marks {
                let expected = wanted == shown || (wanted, shown) == (Mark::Agent, Mark::Added);
                assert_eq!(wanted.accepts(shown), expected, "{wanted:?} where {shown:?} is");
            }
        }
    }
}
