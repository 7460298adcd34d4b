//! Errors as the specification wants them (section 5, "Error").

use std::fmt;

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
pub struct CniError {
    /// What kind of error.
    pub code: Code,
    /// One sentence: what failed, and on what.
    pub message: String,
    /// More, where there is more.
    pub details: Option<String>,
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.details.as_ref().map_or(Ok(()), |details| write!(f, "; {details}"))
    }
}

impl CniError {
    /// An error without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: None }
    }

    /// The error as JSON for standard output.
    pub fn to_json(&self, cni_version: &str) -> String {
        let mut error = json!({
            "cniVersion": cni_version,
            "code": self.code as u16,
            "msg": self.message,
        });
        if let Some(details) = &self.details {
            error["details"] = json!(details);
        }
        error.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_the_specifications_json() {
        let mut error = CniError::new(Code::Conflict, "veth0 has a \"root\"");
        error.details = Some("line\nbreak".into());
        let json: serde_json::Value = serde_json::from_str(&error.to_json("1.0.0")).unwrap();
        assert_eq!(
            json,
            json!({"cniVersion": "1.0.0", "code": 101, "msg": "veth0 has a \"root\"",
                   "details": "line\nbreak"})
        );
    }
}
