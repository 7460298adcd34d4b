//! One call by a runtime, up to the kernel: `CNI_COMMAND`, `CNI_CONTAINERID`, `CNI_NETNS`,
//! `CNI_IFNAME`, `CNI_ARGS` and standard input, with a zero byte between each.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use pod_bandwidth::cni::error::Code;
use pod_bandwidth::cni::{Command, Environment, Request, version};
use pod_bandwidth::policy::Direction;
use pod_bandwidth::shaping::Attachment;
use pod_bandwidth::shaping::identity::{alias_field, is_of_network};
use pod_bandwidth::shaping::tag::Tag;
use pod_bandwidth::text;
use pod_bandwidth_fuzz::{check_error, check_policy};
use serde_json::Value;

const NAMES: [&str; 5] = ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"];

fuzz_target!(|data: &[u8]| -> Corpus {
    let parts: Vec<&[u8]> = data.splitn(NAMES.len() + 1, |byte| *byte == 0).collect();
    let [variables @ .., input] = parts.as_slice() else { return Corpus::Reject };
    if variables.len() != NAMES.len() {
        return Corpus::Reject;
    }
    // As the plugin does: a variable that is not UTF-8 counts as absent.
    let get = |name: &str| {
        let place = NAMES.iter().position(|known| *known == name)?;
        std::str::from_utf8(variables[place]).ok().map(str::to_string)
    };
    match Environment::read(get) {
        Ok(environment) if environment.command == Command::Version => check_version(input),
        Ok(environment) => check_request(environment, input),
        Err(error) => {
            assert_eq!(error.code, Code::InvalidEnvironment);
            check_error(&error);
        }
    }
    Corpus::Keep
});

fn check_version(input: &[u8]) {
    let asked: Option<Value> = serde_json::from_slice(input).ok();
    let asked = asked.as_ref().and_then(|asked| asked.get("cniVersion")?.as_str());
    let result: Value = serde_json::from_str(&version::result(asked)).expect("a result is JSON");
    assert_eq!(result["cniVersion"], asked.unwrap_or(version::NEWEST));
}

fn check_request(environment: Environment, input: &[u8]) {
    let command = environment.command;
    let request = match Request::read(environment, input) {
        Ok(request) => request,
        Err(error) => {
            use Code::{Decoding, IncompatibleVersion, InvalidConfig};
            assert!(matches!(error.code, Decoding | IncompatibleVersion | InvalidConfig));
            return check_error(&error);
        }
    };
    assert!(version::SUPPORTED.contains(&request.cni_version.as_str()));
    assert!(!request.network.is_empty());
    check_prev_result(&request, input);
    match command {
        Command::Gc => match request.valid_attachments() {
            Ok(valid) => valid.into_iter().flatten().for_each(|(container_id, ifname)| {
                check_names(Attachment {
                    network: request.network.clone(),
                    container_id,
                    ifname,
                    pod: None,
                });
            }),
            Err(error) => check_error(&error),
        },
        Command::Add | Command::Check | Command::Del => check_names(Attachment {
            network: request.network.clone(),
            container_id: request.environment.container_id.clone(),
            ifname: request.environment.ifname.clone(),
            pod: request.environment.args.pod(),
        }),
        Command::Status | Command::Version => {}
    }
    let line = text::escape(&format!("{:?} {}", request.environment, request.network));
    assert!(!line.chars().any(char::is_control));
    check_policy(&request.config);
}

/// prevResult goes through byte by byte, and no part of it is taken for configuration.
fn check_prev_result(request: &Request, input: &[u8]) {
    let is_prev_result = |key: &String| key.eq_ignore_ascii_case("prevResult");
    assert!(!request.config.keys().any(is_prev_result));
    if let Some(result) = &request.prev_result {
        let text = result.get().as_bytes();
        assert!(input.windows(text.len()).any(|window| window == text));
    }
    // The key as the specification spells it is stronger than one that only looks like it. A value
    // nested deeper than serde_json goes can still be a prevResult, but not be compared here.
    if let Ok(Value::Object(all)) = serde_json::from_slice(input)
        && let Some(exact) = all.get("prevResult").filter(|value| !value.is_null())
    {
        let result = request.prev_result.as_ref().expect("prevResult was lost");
        assert_eq!(&serde_json::from_str::<Value>(result.get()).expect("it was read"), exact);
    }
}

/// What we leave in the kernel fits there and is known again, whatever the runtime calls a pod.
fn check_names(attachment: Attachment) {
    let alias = attachment.alias("veth0");
    assert!(alias.len() <= 255 && alias.bytes().all(|b| b.is_ascii_graphic() || b == b' '));
    assert_eq!(alias_field(&alias, "dev"), Some("veth0"), "{alias}");
    let tag = attachment.tag();
    for direction in [Direction::Ingress, Direction::Egress] {
        let name = attachment.ifb_name(direction);
        assert_eq!(name.len(), 15);
        assert_eq!(Tag::of_ifb_name(&name), Some(tag));
    }
    for alias in [Some(alias.as_str()), None] {
        assert!(is_of_network(tag, alias, &attachment.network), "{alias:?}");
    }
}
