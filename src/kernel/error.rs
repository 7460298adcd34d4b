//! What can go wrong at the kernel's door, with the kernel's own words.

use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

use super::netns::NetNs;

/// A request that did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The kernel said no.
    #[error("{doing}: the kernel said {}{}{}", words(*errno), ack(ext_ack), help(*errno, ext_ack))]
    Refused {
        /// What was tried, and on which device.
        doing: String,
        /// The error number of the answer.
        errno: Errno,
        /// The extended ack: the kernel's explanation, where it gave one.
        ext_ack: Option<String>,
    },
    /// An fq_codel was insisted on, and this kernel has none.
    #[error(
        "{doing}: this kernel lacks fq_codel: load the module (modprobe sch_fq_codel) or install \
         it, or use \"queue\": \"auto\" or \"fifo\""
    )]
    NoFqCodel {
        /// What was tried.
        doing: String,
    },
    /// No answer came.
    #[error("{doing}: the kernel did not answer within {} s; try again", timeout.as_secs())]
    Silent {
        /// What was tried.
        doing: String,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// Sending or receiving failed.
    #[error("{doing}: netlink {call} failed: {}", words(*errno))]
    Exchange {
        /// What was tried.
        doing: String,
        /// The system call.
        call: &'static str,
        /// Its error number.
        errno: Errno,
    },
    /// Things changed while they were listed, each time that they were.
    #[error("{doing}: things change faster than they can be listed; try again")]
    Interrupted {
        /// What was tried.
        doing: String,
        /// What the last list held all the same. Something may be missing in it.
        partial: Vec<Vec<u8>>,
    },
    /// An answer that is no netlink message.
    #[error("{doing}: the kernel's answer cannot be read: {what}")]
    Garbled {
        /// What was tried.
        doing: String,
        /// What is odd about it.
        what: String,
    },
    /// A network namespace that cannot be used.
    #[error("network namespace {}: {call}: {}{}", path.display(), words(*errno), namespace_help(*errno))]
    Namespace {
        /// Its path.
        path: PathBuf,
        /// What was tried.
        call: &'static str,
        /// The error number.
        errno: Errno,
    },
    /// A device that must be there is not.
    #[error("there is no interface {name} in {place}")]
    NoDevice {
        /// Its name.
        name: String,
        /// Where it was looked for.
        place: &'static str,
    },
}

impl KernelError {
    /// The error number of the kernel's answer.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. }
            | Self::Exchange { errno, .. }
            | Self::Namespace { errno, .. } => Some(*errno),
            Self::Silent { .. }
            | Self::Interrupted { .. }
            | Self::Garbled { .. }
            | Self::NoDevice { .. }
            | Self::NoFqCodel { .. } => None,
        }
    }

    /// The thing asked for is not there: what a removal wanted anyway.
    pub fn is_gone(&self) -> bool {
        matches!(self.errno(), Some(Errno::ENOENT | Errno::ENODEV))
            || matches!(self, Self::NoDevice { .. })
            || self.explains("Parent Qdisc doesn't exist")
    }

    /// An invalid argument, in words that begin so: EINVAL alone says too little. The texts are those of
    /// tc_get_qdisc in net/sched/sch_api.c and __tcf_qdisc_find in cls_api.c.
    fn explains(&self, begin: &str) -> bool {
        matches!(self, Self::Refused { errno: Errno::EINVAL, ext_ack: Some(text), .. }
            if text.starts_with(begin))
    }

    /// The qdisc in this place has another handle or kind than the one asked for.
    pub fn is_other_qdisc(&self) -> bool {
        self.explains("Invalid handle") || self.explains("Invalid qdisc name")
    }

    /// The kernel, as it is configured, lacks something that is needed.
    pub fn is_missing_feature(&self) -> bool {
        match self {
            Self::Refused { errno, ext_ack, .. } => missing_feature(*errno, ext_ack).is_some(),
            Self::NoFqCodel { .. } => true,
            _ => false,
        }
    }

    /// The caller lacks a privilege.
    pub fn is_missing_privilege(&self) -> bool {
        matches!(self.errno(), Some(Errno::EPERM | Errno::EACCES))
    }

    /// No answer came, so it is not known whether it was done.
    pub fn is_unclear(&self) -> bool {
        matches!(self, Self::Silent { .. } | Self::Exchange { call: "recv", .. })
    }

    /// What stood in the way may be gone in a moment. Not so after a silence, which was long.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Interrupted { .. })
            || matches!(
                self.errno(),
                Some(
                    Errno::EBUSY
                        | Errno::ENOBUFS
                        | Errno::ENOMEM
                        | Errno::EAGAIN
                        | Errno::EINTR
                        | Errno::EMFILE
                        | Errno::ENFILE
                )
            )
    }

    /// Another call may succeed later, with nothing changed by hand.
    pub fn may_pass(&self) -> bool {
        self.is_passing() || self.is_race() || matches!(self, Self::Silent { .. })
    }

    /// There is no network namespace at the path: nothing is there, or something else. Any other
    /// error does not tell.
    pub fn is_gone_namespace(&self) -> bool {
        match self {
            Self::Namespace { call: NetNs::IS_NONE, .. } => true,
            Self::Namespace { call: NetNs::OPEN, errno, .. } => {
                matches!(errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE)
            }
            _ => false,
        }
    }

    /// Somebody changed things between our look and our step: looking again may help.
    pub fn is_race(&self) -> bool {
        let is_refused = matches!(self, Self::Refused { .. });
        let is_change = self.is_gone() || self.errno() == Some(Errno::EEXIST);
        let is_other = self.is_other_qdisc();
        !self.is_missing_feature() && is_refused && (is_change || is_other)
    }
}

/// Most characters that are repeated of an extended ack. The kernel's own are shorter.
const EXT_ACK: usize = 200;

fn words(errno: Errno) -> String {
    format!("\"{}\" ({errno:?})", errno.desc())
}

fn ack(ext_ack: &Option<String>) -> String {
    ext_ack
        .as_ref()
        .map(|text| format!(": {}", crate::text::quote(text, EXT_ACK)))
        .unwrap_or_default()
}

/// The texts are the kernel's: qdisc_create in net/sched/sch_api.c, tc_new_tfilter in cls_api.c,
/// tc_action_load_ops in act_api.c, rtnl_newlink in net/core/rtnetlink.c.
fn missing_feature(errno: Errno, ext_ack: &Option<String>) -> Option<&'static str> {
    let text = ext_ack.as_deref().unwrap_or_default();
    match errno {
        Errno::ENOENT if text.contains("qdisc kind is unknown") => Some("sch_tbf and sch_ingress"),
        Errno::ENOENT if text.contains("TC classifier not found") => Some("cls_u32"),
        Errno::ENOENT if text.contains("TC action") => Some("act_mirred"),
        Errno::EOPNOTSUPP if text.contains("Unknown device type") => {
            Some("that kind of device (ifb)")
        }
        _ => None,
    }
}

fn namespace_help(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM | Errno::EACCES => "; run it as root, or with CAP_SYS_ADMIN",
        Errno::ENOENT => "; the pod is gone, or the runtime's /var/run/netns is not visible here",
        _ => "",
    }
}

fn help(errno: Errno, ext_ack: &Option<String>) -> String {
    if let Some(modules) = missing_feature(errno, ext_ack) {
        return format!("; this kernel lacks {modules}: load the module (modprobe) or install it");
    }
    match errno {
        Errno::EPERM | Errno::EACCES => {
            "; run it as root, or with CAP_NET_ADMIN (and CAP_SYS_ADMIN to enter a namespace)"
                .into()
        }
        Errno::EBUSY | Errno::ENOBUFS | Errno::ENOMEM | Errno::EAGAIN | Errno::EINTR => {
            "; try again".into()
        }
        Errno::EEXIST | Errno::EINVAL | Errno::EOPNOTSUPP => "; another program may hold that \
            place: see `tc qdisc show` and `tc filter show` for this interface, or choose another \
            \"placement\""
            .into(),
        _ => String::new(),
    }
}
