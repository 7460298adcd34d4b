//! Why the demo stopped.

use std::fmt::Display;
use std::process::ExitStatus;

use serde_json::{Map, Value};

/// What was tried, what was got, what helps.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The system refused a step of the demo's own.
    #[error("cannot {tried}: {got}\n{help}")]
    Step {
        /// What was tried.
        tried: String,
        /// What the system said.
        got: String,
        /// What to do.
        help: String,
    },
    /// The kernel refused a step of the demo's network; the text says all.
    #[error("cannot make the demo's network: {0}")]
    Kernel(String),
    /// The plugin ended with an error as CNI defines it.
    #[error("the plugin refused {verb} with code {code}: {text}")]
    Refused {
        /// CNI_COMMAND.
        verb: String,
        /// CNI's error code.
        code: i64,
        /// Its message and details.
        text: String,
    },
    /// The plugin's answer is not one that CNI knows.
    #[error("the plugin answered {verb} with {status} and no CNI result:\n{text}\n{log}")]
    Answer {
        /// CNI_COMMAND.
        verb: String,
        /// How its process ended.
        status: ExitStatus,
        /// stdout.
        text: String,
        /// stderr.
        log: String,
    },
}

impl Error {
    /// A step that the system refused.
    pub(super) fn step(tried: impl Into<String>, got: impl Display, help: &str) -> Self {
        Self::Step { tried: tried.into(), got: got.to_string(), help: help.to_owned() }
    }

    /// A step of the network that the kernel refused.
    pub(super) fn kernel(error: impl Display) -> Self {
        Self::Kernel(error.to_string())
    }

    /// The pod's thread ended, which it does only when its work panics.
    pub(super) fn pod_died() -> Self {
        Self::step("use the pod's namespace", "its thread has ended", "This is a bug of the demo.")
    }

    /// The plugin's error object. Its log is left out: it says the same again.
    pub(super) fn refused(verb: &str, error: &Map<String, Value>) -> Self {
        let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
        let details = match text("details") {
            "" => String::new(),
            details => format!("\n{details}"),
        };
        Self::Refused {
            verb: verb.to_owned(),
            code: error.get("code").and_then(Value::as_i64).unwrap_or_default(),
            text: format!("{}{details}", text("msg")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_shows_all_that_the_plugin_said() {
        let object = json!({
            "cniVersion": "1.1.0", "code": 103, "msg": "no TBF", "details": "load sch_tbf",
        });
        let error = Error::refused("ADD", object.as_object().unwrap());
        assert_eq!(error.to_string(), "the plugin refused ADD with code 103: no TBF\nload sch_tbf");
    }

    #[test]
    fn a_step_says_what_was_tried_what_came_and_what_helps() {
        let error = Error::step("open a door", "it is locked", "Take the key.");
        assert_eq!(error.to_string(), "cannot open a door: it is locked\nTake the key.");
    }
}
