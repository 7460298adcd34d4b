//! Errors as the specification wants them (section 5, "Error").

use serde_json::json;

/// Codes 0 to 99 are the specification's, 100 and more ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Code {
    /// Incompatible CNI version.
    IncompatibleVersion = 1,
    /// An environment variable is missing or wrong; the message names it.
    InvalidEnvironment = 4,
    /// Reading or writing failed.
    Io = 5,
    /// The configuration is not JSON, or not the JSON it should be.
    Decoding = 6,
    /// The network configuration or an annotation is wrong.
    InvalidConfig = 7,
    /// What is in the way may be gone in a moment.
    TryAgainLater = 11,
    /// STATUS: no ADD could succeed.
    NotAvailable = 50,
    /// Ours: the kernel refused a step.
    Kernel = 100,
    /// Ours: another program is where we would have to be.
    Conflict = 101,
    /// Ours: CHECK found differences.
    CheckFailed = 102,
    /// Ours: the kernel lacks a feature.
    MissingFeature = 103,
    /// Ours: the process lacks a privilege.
    MissingPrivilege = 104,
    /// Ours: an interface is not there.
    NoInterface = 105,
}

/// An error for the runtime.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CniError {
    /// What kind of error.
    pub code: Code,
    /// One sentence: what failed, and on what.
    pub message: String,
}

impl CniError {
    /// An error with its message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The error as JSON for standard output.
    pub fn to_json(&self, cni_version: &str) -> String {
        json!({ "cniVersion": cni_version, "code": self.code as u16, "msg": self.message })
            .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_the_specifications_json() {
        let error = CniError::new(Code::Conflict, "veth0 has a \"root\"");
        let json: serde_json::Value = serde_json::from_str(&error.to_json("1.0.0")).unwrap();
        assert_eq!(
            json,
            json!({"cniVersion": "1.0.0", "code": 101, "msg": "veth0 has a \"root\""})
        );
    }
}
