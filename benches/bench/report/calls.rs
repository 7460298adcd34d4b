//! Section: what one call costs.

use serde_json::Value;

use super::{Page, share, spread_of, text_of, with_quartiles};
use crate::floor::STEPS;
use crate::plots::{bars, stacks};
use crate::statistics::{median, numbers, ratios};

/// Writes the section.
pub(super) fn write(page: &mut Page, part: &Value) {
    page.line("## What one call costs\n");
    page.line(
        "Each call is a process, started in a private network namespace with containerd's own input \
         (limits of 10M to the pod and 20M from it). Wall time is\nfrom before the start until the end is known; \
         CPU is the process and the kernel for it (`getrusage`); memory is `VmHWM`, read as the\n\
         process ends. Each round is ADD, CHECK, DEL and a second DEL with nothing to remove, \
         by both plugins in turn; who is first alternates.\n",
    );
    let cases = part["cases"].as_array().map(Vec::as_slice).unwrap_or_default();
    table(page, part, cases);
    plot(page, cases);
    floor(page, part);
    targets(page, part, cases);
}

/// The median of the ratios of one number of a verb.
fn ratio(verb: &Value, key: &str) -> f64 {
    let side = |name: &str| numbers(&verb[name][key]);
    let (ours, theirs) = (side("ours"), side("reference"));
    if key == "peak_kib" {
        median(&ours) / median(&theirs)
    } else {
        median(&ratios(&ours, &theirs))
    }
}

fn row(case: &str, name: &str, verb: &Value) -> Vec<String> {
    let time = |side: &str, key: &str| with_quartiles(spread_of(&verb[side][key]), 1000.0);
    let mib = |side: &str| format!("{:.1}", spread_of(&verb[side]["peak_kib"]).median / 1024.0);
    let both = |key: &str| {
        format!(
            "{} / {} = **{}**",
            time("ours", key),
            time("reference", key),
            share(ratio(verb, key))
        )
    };
    vec![
        case.to_owned(),
        name.to_owned(),
        both("wall_us"),
        both("cpu_us"),
        format!("{} / {} = **{}**", mib("ours"), mib("reference"), share(ratio(verb, "peak_kib"))),
    ]
}

fn table(page: &mut Page, part: &Value, cases: &[Value]) {
    let mut rows = Vec::new();
    for case in cases {
        for name in ["ADD", "CHECK", "DEL", "DEL, nothing there"] {
            rows.push(row(&text_of(&case["case"]), name, &case["verbs"][name]));
        }
    }
    rows.push(row("", "VERSION", &part["version"]));
    page.table(&["our placement", "call", "wall, ms", "CPU, ms", "peak memory, MiB"], &rows);
    let pairs = numbers(&part["version"]["ours"]["wall_us"]).len();
    page.line(&format!("Each cell: ours / the reference's = ratio. {pairs} pairs.\n"));
}

fn plot(page: &mut Page, cases: &[Value]) {
    let mut groups = Vec::new();
    for case in cases.iter().take(3) {
        for name in ["ADD", "CHECK", "DEL", "DEL, nothing there"] {
            let bar = |side: &str| {
                let s = spread_of(&case["verbs"][name][side]["wall_us"]);
                Some((s.median / 1000.0, Some((s.low / 1000.0, s.high / 1000.0))))
            };
            let way = text_of(&case["case"]).replace(", both directions", "");
            groups.push((format!("{way}: {name}"), vec![bar("ours"), bar("reference")]));
        }
    }
    let svg = bars(
        "Wall time of a call, both directions",
        "ms",
        true,
        &["pod-bandwidth", "reference"],
        &groups,
    );
    page.plot("calls", "Wall time of a call", svg);
}

/// What an ADD is made of, in microseconds: start, our own work, sockets, and each kind of step.
fn composition(part: &Value, floor: &Value, add: f64) -> Vec<f64> {
    let exec = spread_of(&part["exec"]["wall_us"]).median;
    let sockets = spread_of(&floor["sockets_us"]).median;
    let steps: Vec<f64> =
        STEPS[..4].iter().map(|s| floor["ADD"]["median_us"][s].as_f64().unwrap_or(0.0)).collect();
    let known = exec + sockets + steps.iter().sum::<f64>();
    let mut parts = vec![exec, sockets];
    parts.extend(steps);
    parts.push(add - known);
    parts
}

fn floor(page: &mut Page, part: &Value) {
    page.line("### The floor\n");
    page.line(
        "What a call can cost at least: the start and end of an empty static program, and the same netlink \
         requests, recorded from the plugin and\nsent by one warm process in a fresh namespace. \
         The rest is our own: reading, planning, writing.\n",
    );
    let floors = part["floor"].as_array().map(Vec::as_slice).unwrap_or_default();
    let exec = spread_of(&part["exec"]["wall_us"]);
    let mut rows = Vec::new();
    let mut bars = Vec::new();
    for (floor, case) in floors.iter().zip(part["cases"].as_array().into_iter().flatten()) {
        for verb in ["ADD", "DEL"] {
            let requests = spread_of(&floor[verb]["wall_us"]);
            let ours = spread_of(&case["verbs"][verb]["ours"]["wall_us"]);
            rows.push(vec![
                text_of(&floor["way"]),
                verb.to_owned(),
                floor[verb]["sends"].to_string(),
                with_quartiles(requests, 1000.0),
                with_quartiles(exec, 1000.0),
                with_quartiles(ours, 1000.0),
                format!("**{}**", share(ours.median / (requests.median + exec.median))),
            ]);
            if verb == "ADD" {
                bars.push((text_of(&floor["way"]), composition(part, floor, ours.median)));
            }
        }
    }
    let head = [
        "placement",
        "call",
        "sends",
        "requests, ms",
        "exec, ms",
        "call, ms",
        "call / (requests + exec)",
    ];
    page.table(&head, &rows);
    let series = ["exec", "sockets", STEPS[0], STEPS[1], STEPS[2], STEPS[3], "our own work"];
    let svg = stacks("Where an ADD spends its time", "µs", &series, &bars);
    page.plot("add", "Where an ADD spends its time", svg);
}

fn targets(page: &mut Page, part: &Value, cases: &[Value]) {
    for (case, name) in [(0, "host (root)"), (2, "pod")] {
        let Some(verbs) = cases.get(case).map(|case| &case["verbs"]) else { continue };
        for (key, word, most) in
            [("wall_us", "wall", 0.4), ("cpu_us", "CPU", 0.35), ("peak_kib", "peak memory", 0.6)]
        {
            page.target(
                format!("ADD, {name}: {word}, of the reference's"),
                ratio(&verbs["ADD"], key),
                most,
            );
        }
        page.target(
            format!("DEL, {name}: wall, of the reference's"),
            ratio(&verbs["DEL"], "wall_us"),
            0.85,
        );
        page.target(
            format!("DEL with nothing to remove, {name}: wall, of the reference's"),
            ratio(&verbs["DEL, nothing there"], "wall_us"),
            0.4,
        );
        let floor = &part["floor"][case];
        let exec = spread_of(&part["exec"]["wall_us"]).median;
        let add = spread_of(&verbs["ADD"]["ours"]["wall_us"]).median;
        let requests = spread_of(&floor["ADD"]["wall_us"]).median;
        page.target(format!("ADD, {name}: wall, of floor + exec"), add / (requests + exec), 1.3);
    }
}
