//! Versions of the specification, and which verb came with which.

use serde_json::json;

use super::error::{CniError, Code};
use super::request::{Command, excerpt};

/// The versions that this plugin speaks.
pub const SUPPORTED: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The newest of them.
pub const NEWEST: &str = "1.1.0";

/// What a configuration without `cniVersion` means (section 1).
pub const UNNAMED: &str = "0.1.0";

/// Refuses a version that the plugin, or the verb, does not know.
///
/// # Errors
/// Code 1, naming both versions.
pub fn check(command: Command, version: &str) -> Result<(), CniError> {
    let since = match command {
        Command::Check => "0.4.0",
        Command::Gc | Command::Status => "1.1.0",
        Command::Add | Command::Del | Command::Version => "0.3.0",
    };
    let position = |version: &str| SUPPORTED.iter().position(|known| *known == version);
    match position(version) {
        Some(index) if Some(index) >= position(since) => Ok(()),
        Some(_) => Err(CniError::new(
            Code::IncompatibleVersion,
            format!(
                "{} came with CNI {since}, and the network configuration says cniVersion \
                 {version}; raise cniVersion in the conflist",
                command.name()
            ),
        )),
        None => Err(CniError::new(
            Code::IncompatibleVersion,
            format!(
                "cniVersion {} is not supported; this plugin speaks {}",
                excerpt(version),
                SUPPORTED.join(", ")
            ),
        )),
    }
}

/// The result of VERSION.
pub fn result(asked: Option<&str>) -> String {
    json!({ "cniVersion": asked.unwrap_or(NEWEST), "supportedVersions": SUPPORTED }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_has_its_first_version() {
        for (command, first_good) in [
            (Command::Add, 0),
            (Command::Del, 0),
            (Command::Check, 2),
            (Command::Gc, 4),
            (Command::Status, 4),
        ] {
            for (index, version) in SUPPORTED.iter().enumerate() {
                assert_eq!(
                    check(command, version).is_ok(),
                    index >= first_good,
                    "{command:?} {version}"
                );
            }
            for version in ["0.1.0", "0.2.0", "1.2.0", "", "1.0"] {
                let error = check(command, version).unwrap_err();
                assert_eq!(error.code, Code::IncompatibleVersion);
                assert!(error.message.contains("0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"), "{error}");
            }
        }
    }
}
