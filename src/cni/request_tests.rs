use serde_json::json;

use super::*;

fn environment(pairs: &[(&str, &str)]) -> Result<Environment, CniError> {
    let pairs: BTreeMap<&str, &str> = pairs.iter().copied().collect();
    Environment::read(|name| pairs.get(name).map(|value| value.to_string()))
}

const ADD: [(&str, &str); 4] = [
    ("CNI_COMMAND", "ADD"),
    ("CNI_CONTAINERID", "c1"),
    ("CNI_NETNS", "/run/netns/x"),
    ("CNI_IFNAME", "eth0"),
];

#[test]
fn every_missing_variable_is_named() {
    for (given, named) in [
        (&[("CNI_COMMAND", "ADD")][..], &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"][..]),
        (&[("CNI_COMMAND", "DEL"), ("CNI_IFNAME", "")], &["CNI_CONTAINERID", "CNI_IFNAME"]),
        (&[("CNI_COMMAND", "add")], &["CNI_COMMAND", "ADD, DEL, CHECK, GC, STATUS, VERSION"]),
        (&[], &["CNI_COMMAND"]),
    ] {
        let error = environment(given).unwrap_err();
        assert_eq!(error.code, Code::InvalidEnvironment);
        assert!(named.iter().all(|name| error.message.contains(name)), "{error}");
    }
}

#[test]
fn optional_variables_may_be_absent() {
    let del = environment(&[ADD[1], ADD[3], ("CNI_COMMAND", "DEL")]).unwrap();
    assert_eq!((del.netns, del.args), (None, Args::default()));
    for command in ["GC", "STATUS", "VERSION"] {
        environment(&[("CNI_COMMAND", command)]).unwrap();
    }
}

#[test]
fn odd_identifiers_are_refused() {
    for (name, value) in [
        ("CNI_CONTAINERID", "../x"),
        ("CNI_CONTAINERID", "-a"),
        ("CNI_CONTAINERID", "a b"),
        ("CNI_IFNAME", "eth0/1"),
        ("CNI_IFNAME", "0123456789abcdef"),
        ("CNI_IFNAME", ".."),
        ("CNI_IFNAME", "a\tb"),
    ] {
        let mut given = ADD.to_vec();
        given.push((name, value));
        let error = environment(&given).unwrap_err();
        assert!(error.message.contains(name), "{error}");
    }
}

fn read(config: &str) -> Result<Request, CniError> {
    Request::read(environment(&ADD).unwrap(), config.as_bytes())
}

#[test]
fn prev_result_stays_the_text_it_was() {
    let prev = r#"{ "b":1, "a":[1.10, 12345678901234567890123], "x":{"y":null} }"#;
    let config = format!(r#"{{"cniVersion":"1.0.0","name":"n","PrevResult": {prev}}}"#);
    let request = read(&config).unwrap();
    assert_eq!(request.prev_result.unwrap().get(), prev);
    assert!(!request.config.contains_key("PrevResult"));
    let without = read(r#"{"cniVersion":"1.0.0","name":"n","prevResult":null}"#).unwrap();
    assert!(without.prev_result.is_none());
}

#[test]
fn prev_result_is_found_as_every_key_is() {
    for (keys, found) in [
        (r#""PrevResult":{"a":1},"prevResult":{"b":2},"prevresult":{"c":3}"#, r#"{"b":2}"#),
        (r#""prevresult":{"c":3},"prevResult":null"#, r#"{"c":3}"#),
        (r#""prevResult":{"b":2},"prevresult":null"#, r#"{"b":2}"#),
    ] {
        let request = read(&format!(r#"{{"cniVersion":"1.0.0","name":"n",{keys}}}"#)).unwrap();
        assert_eq!(request.prev_result.unwrap().get(), found, "{keys}");
    }
}

/// 16 MiB may come in; an event of Kubernetes holds 1 KiB.
#[test]
fn an_error_repeats_little_of_its_input() {
    let long = "\u{202e}x".repeat(5_000);
    let key = format!(r#"{{"{long}":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
    let errors = [
        environment(&[("CNI_COMMAND", long.as_str())]).map(|_| ()).unwrap_err(),
        read(&format!("\"{long}\"")).map(|_| ()).unwrap_err(),
        read(&key).map(|_| ()).unwrap_err(),
        read(&format!(r#"{{"cniVersion":"{long}","name":"n"}}"#)).map(|_| ()).unwrap_err(),
    ];
    for error in errors {
        assert!(error.message.chars().count() <= 1_000, "{error}");
        assert!(!error.message.contains('\u{202e}'), "{error}");
    }
}

#[test]
fn what_is_no_configuration_is_refused() {
    for (config, code) in [
        ("", Code::Decoding),
        ("[]", Code::Decoding),
        ("{\"name\":", Code::Decoding),
        (r#"{"cniVersion":1,"name":"n"}"#, Code::Decoding),
        (r#"{"cniVersion":"1.0.0","name":3}"#, Code::Decoding),
        (r#"{"cniVersion":"1.0.0"}"#, Code::InvalidConfig),
        (r#"{"cniVersion":"1.0.0","name":""}"#, Code::InvalidConfig),
        (r#"{"name":"n"}"#, Code::IncompatibleVersion),
        (r#"{"cniVersion":"2.0.0","name":"n"}"#, Code::IncompatibleVersion),
    ] {
        assert_eq!(read(config).map(|_| ()).unwrap_err().code, code, "{config}");
    }
}

#[test]
fn gc_reads_its_list() {
    let request = |list: Option<Value>| {
        let mut config = json!({"cniVersion": "1.1.0", "name": "n"});
        if let Some(list) = list {
            config["cni.dev/valid-attachments"] = list;
        }
        read(&config.to_string()).unwrap().valid_attachments()
    };
    let good = request(Some(json!([{"containerID": "c", "ifname": "eth0", "more": 1}]))).unwrap();
    assert_eq!(good, Some(vec![("c".to_string(), "eth0".to_string())]));
    for none in [json!([]), json!(null)] {
        assert_eq!(request(Some(none)).unwrap(), Some(Vec::new()));
    }
    assert_eq!(request(None).unwrap(), None);
    let bad = [json!({}), json!("c"), json!([1]), json!([{"containerID": "c"}])];
    for bad in bad {
        assert_eq!(request(Some(bad)).unwrap_err().code, Code::InvalidConfig);
    }
}
