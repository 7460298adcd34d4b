//! `pod-bandwidth demo`, run as a person runs it: what it prints is true and nothing stays.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

use serde_json::Value;

fn demo(options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pod-bandwidth")).arg("demo").args(options).output().unwrap()
}

#[test]
fn every_placement_holds_the_limits_and_leaves_nothing() {
    for (options, taken) in [
        (&["--placement=auto"][..], "host, root"),
        (&["--placement=host", "--host-ingress=hooks"], "host, hooks"),
        (&["--placement=pod"], "pod"),
    ] {
        // when the demo runs
        let output = demo(&[&["--json", "--seconds=3"], options].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{options:?}: {said}");

        // then it took the placement, kept both limits, and DEL left nothing
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&report["placement_taken"], &report["nothing_left"]),
            (&taken.into(), &true.into())
        );
        for (row, limit) in report["directions"].as_array().unwrap().iter().zip([10e6, 20e6]) {
            let share = |key: &str| row[key].as_f64().unwrap() / limit;
            assert!(share("first_second_bits_per_second") <= 1.05, "{options:?}: {row}");
            assert!((0.5..=0.965).contains(&share("whole_bits_per_second")), "{options:?}: {row}");
            assert!(share("unlimited_bits_per_second") > 2.0, "{options:?}: {row}");
        }
    }
}

#[test]
fn what_the_plugin_refuses_ends_the_demo_with_its_words() {
    let output = demo(&["--seconds=2", "--burst=100"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("refused ADD with code 7") && said.contains("ingressBurst"), "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn an_unknown_congestion_control_is_refused_with_those_that_are_there() {
    let output = demo(&["--congestion=no-such"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("\"no-such\"; this kernel has: reno"), "{said}");
}
