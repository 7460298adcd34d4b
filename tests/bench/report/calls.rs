//! Section: what one call costs.

use serde_json::Value;

use super::{Page, share, spread_of, text_of, with_quartiles};
use crate::floor::STEPS;
use crate::plots::{bars, short, stacks};
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

/// What an ADD is made of, in microseconds: start, sockets, each kind of step, and our own work.
fn composition(floor: &Value) -> Vec<f64> {
    let middle = |value: &Value| spread_of(value).median;
    let mut parts = vec![middle(&floor["exec_us"]), middle(&floor["sockets_us"])];
    let steps = STEPS[..4].iter().map(|s| floor["ADD"]["median_us"][s].as_f64().unwrap_or(0.0));
    parts.extend(steps);
    parts.push(middle(&floor["ADD"]["call_us"]) - parts.iter().sum::<f64>());
    parts
}

/// A call over the least that it could be, of each sample.
fn above_floor(floor: &Value, verb: &str) -> f64 {
    let exec = numbers(&floor["exec_us"]);
    let requests = numbers(&floor[verb]["requests_us"]);
    let least: Vec<f64> = exec.iter().zip(&requests).map(|(exec, sum)| exec + sum).collect();
    median(&ratios(&numbers(&floor[verb]["call_us"]), &least))
}

fn floor(page: &mut Page, part: &Value) {
    page.line("### The floor\n");
    page.line(
        "What a call can cost at least: the start and end of an empty static program, and the same netlink \
         requests, recorded from the plugin and\nsent by one warm process in a fresh namespace, which \
         then sees the plugin itself. The rest is our own: reading, planning, writing.\n",
    );
    let floors = part["floor"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut rows = Vec::new();
    let mut bars = Vec::new();
    for floor in floors {
        for verb in ["ADD", "DEL"] {
            let time = |value: &Value| with_quartiles(spread_of(value), 1000.0);
            rows.push(vec![
                text_of(&floor["way"]),
                verb.to_owned(),
                floor[verb]["sends"].to_string(),
                time(&floor[verb]["requests_us"]),
                match floor[verb]["median_us"][STEPS[5]].as_f64() {
                    Some(us) if us > 0.0 => short(us / 1000.0),
                    _ => String::new(),
                },
                time(&floor["exec_us"]),
                time(&floor[verb]["call_us"]),
                format!("**{}**", share(above_floor(floor, verb))),
            ]);
        }
        bars.push((text_of(&floor["way"]), composition(floor)));
    }
    let head = [
        "placement",
        "call",
        "sends",
        "requests, ms",
        "of them: remove the IFB",
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
    for (case, name) in [(0, "host (root)"), (1, "host (hooks)"), (2, "pod")] {
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
        page.target(format!("ADD, {name}: wall, of floor + exec"), above_floor(floor, "ADD"), 1.3);
    }
}
