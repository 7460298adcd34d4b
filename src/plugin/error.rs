//! What can go wrong with an attachment, and the specification's codes for it.

use std::path::PathBuf;

use crate::cni::CniError;
use crate::cni::error::Code;
use crate::kernel::KernelError;
use crate::kernel::apply::ApplyError;
use crate::policy::PolicyError;

/// Why the ends of an attachment could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The pod's network namespace could not be opened.
    #[error("CNI_NETNS: {0}")]
    Namespace(#[source] KernelError),
    /// CNI_NETNS is not a pod's.
    #[error("CNI_NETNS: {} is the plugin's own network namespace, not a pod's", .0.display())]
    OwnNamespace(PathBuf),
    /// One of the ends could not be read.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl OpenError {
    /// The pod's network namespace or its interface is not there any more: what DEL wants.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::OwnNamespace(_) => true,
            Self::Namespace(cause) | Self::Kernel(cause) => {
                cause.is_gone_namespace() || matches!(cause, KernelError::NoDevice { .. })
            }
        }
    }

    fn may_help_to_look_again(&self) -> bool {
        match self {
            Self::OwnNamespace(_) => false,
            Self::Namespace(cause) | Self::Kernel(cause) => cause.is_race() || cause.is_passing(),
        }
    }
}

/// Why an attachment was not reconciled.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Its ends could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The configuration asks for what this interface does not allow.
    #[error(transparent)]
    Refused(#[from] CniError),
    /// A step failed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl ReconcileError {
    /// As [`OpenError::is_gone`].
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Open(error) if error.is_gone())
    }

    /// Nothing was changed, and what was in the way may be gone.
    pub(super) fn may_help_to_look_again(&self) -> bool {
        match self {
            Self::Open(error) => error.may_help_to_look_again(),
            Self::Refused(_) => false,
            Self::Apply(error) => error.may_help_to_look_again(),
        }
    }
}

impl From<PolicyError> for CniError {
    fn from(error: PolicyError) -> Self {
        Self::new(Code::InvalidConfig, error.to_string())
    }
}

impl From<KernelError> for CniError {
    fn from(error: KernelError) -> Self {
        Self::new(code_of(&error), error.to_string())
    }
}

impl From<OpenError> for CniError {
    fn from(error: OpenError) -> Self {
        let code = match &error {
            OpenError::OwnNamespace(_) => Code::InvalidEnvironment,
            OpenError::Namespace(cause) | OpenError::Kernel(cause) => code_of(cause),
        };
        Self::new(code, error.to_string())
    }
}

impl From<ReconcileError> for CniError {
    fn from(error: ReconcileError) -> Self {
        match error {
            ReconcileError::Open(error) => error.into(),
            ReconcileError::Refused(error) => error,
            ReconcileError::Apply(error) => Self::new(code_of(&error.cause), error.to_string()),
        }
    }
}

/// The specification's code of an error that is left after the plugin's own tries.
pub(super) fn code_of(error: &KernelError) -> Code {
    match error {
        KernelError::NoDevice { .. } => Code::NoInterface,
        error if error.is_missing_privilege() => Code::MissingPrivilege,
        error if error.is_missing_feature() => Code::MissingFeature,
        error if error.may_pass() => Code::TryAgainLater,
        KernelError::Namespace { .. } => Code::InvalidEnvironment,
        _ => Code::Kernel,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::errno::Errno;

    use super::*;

    fn namespace(call: &'static str, errno: Errno) -> KernelError {
        KernelError::Namespace { path: "/run/netns/x".into(), call, errno }
    }

    fn refused(errno: Errno) -> KernelError {
        KernelError::Refused { doing: "add a TBF".into(), errno, ext_ack: None }
    }

    #[test]
    fn only_what_may_pass_is_to_be_tried_again_later() {
        let (doing, partial) = (String::new(), Vec::new());
        for passing in [
            refused(Errno::EBUSY),
            refused(Errno::ENOBUFS),
            refused(Errno::ENOMEM),
            // A race that was lost at every try.
            refused(Errno::EEXIST),
            refused(Errno::ENODEV),
            KernelError::Interrupted { doing: doing.clone(), partial },
            KernelError::Silent { doing: doing.clone(), timeout: Duration::from_secs(10) },
            KernelError::Exchange { doing: doing.clone(), call: "send", errno: Errno::ENOBUFS },
            KernelError::Exchange { doing: doing.clone(), call: "socket", errno: Errno::EMFILE },
            namespace("open", Errno::ENFILE),
            namespace("setns", Errno::ENOMEM),
        ] {
            assert_eq!(code_of(&passing), Code::TryAgainLater, "{passing}");
        }
        for (staying, code) in [
            (refused(Errno::EINVAL), Code::Kernel),
            (refused(Errno::EOPNOTSUPP), Code::Kernel),
            (KernelError::Garbled { doing, what: "short".into() }, Code::Kernel),
            (refused(Errno::EPERM), Code::MissingPrivilege),
            (namespace("open", Errno::EACCES), Code::MissingPrivilege),
            (namespace("open", Errno::ENOENT), Code::InvalidEnvironment),
            (namespace("open", Errno::ELOOP), Code::InvalidEnvironment),
        ] {
            assert_eq!(code_of(&staying), code, "{staying}");
        }
    }

    #[test]
    fn a_namespace_is_gone_only_if_nothing_or_something_else_is_at_its_path() {
        for errno in [Errno::ENOENT, Errno::ENOTDIR, Errno::ESTALE] {
            assert!(OpenError::Namespace(namespace("open", errno)).is_gone(), "{errno}");
        }
        assert!(OpenError::OwnNamespace("/proc/self/ns/net".into()).is_gone());
        let place = "the pod's network namespace";
        assert!(OpenError::Kernel(KernelError::NoDevice { name: "eth0".into(), place }).is_gone());
        for errno in [
            Errno::EMFILE,
            Errno::ENFILE,
            Errno::ENOMEM,
            Errno::EIO,
            Errno::ELOOP,
            Errno::EACCES,
            Errno::EPERM,
            Errno::ENAMETOOLONG,
        ] {
            assert!(!OpenError::Namespace(namespace("open", errno)).is_gone(), "{errno}");
            assert!(!OpenError::Kernel(namespace("setns", errno)).is_gone(), "{errno}");
        }
        assert!(!OpenError::Kernel(refused(Errno::ENOENT)).is_gone());
    }
}
