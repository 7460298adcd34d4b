//! What shaping costs for each bit: processor time of the whole machine, per Gbit that arrived.

use std::time::Instant;

use serde_json::{Value, json};

use crate::Run;
use crate::common::{Direction, Flow, Traffic, Way};
use crate::senders::start_tcp;
use crate::shaped::{SECOND, Shaped, TCP_SHARE, direction_name};
use crate::statistics::round;
use crate::subject::{Limits, Subject};

/// One way of sending at a rate.
#[derive(Clone)]
struct Cell {
    /// What is compared.
    name: String,
    /// `None`: the sender itself keeps to the rate.
    subject: Option<Subject>,
    direction: Direction,
    rate: u64,
    /// Bytes; both plugins get the same.
    burst: u64,
    /// Whether the devices take packets of several frames.
    gso: bool,
}

const GBIT: u64 = 1_000_000_000;

/// The rule of our plugin.
fn derived_burst(rate: u64) -> u64 {
    rate / 8 / 250
}

/// All of it, as the JSON of this part. One TCP flow, cubic.
pub(crate) fn measure(run: &Run) -> Value {
    let options = &run.options;
    let ours = |way| Subject::ours(options, way);
    let rates = options.chosen(if options.quick { &[GBIT] } else { &[GBIT, 5 * GBIT] });
    let mut cells = Vec::new();
    for &rate in &rates {
        for direction in Direction::ALL {
            let burst = derived_burst(rate);
            let of = |name: &str, subject| Cell {
                name: name.to_owned(),
                subject,
                direction,
                rate,
                burst,
                gso: true,
            };
            cells.push(of("not shaped", None));
            cells.push(of("reference", Some(Subject::reference(options))));
            cells.extend(Way::ALL.map(|way| of(ours(way).name, Some(ours(way)))));
        }
    }
    if !options.quick {
        // What contributes: at 1G, to the pod, by the root qdisc alone.
        let root = || Cell {
            name: String::new(),
            subject: Some(ours(Way::Root)),
            direction: Direction::ToPod,
            rate: GBIT,
            burst: derived_burst(GBIT),
            gso: true,
        };
        for burst in [7_570, 32 << 10, 64 << 10, 128 << 10, 5_000_000] {
            cells.push(Cell { name: format!("burst of {burst} bytes"), burst, ..root() });
        }
        cells.push(Cell { name: "no GSO".into(), gso: false, ..root() });
        cells.push(Cell { name: "not shaped, no GSO".into(), gso: false, subject: None, ..root() });
    }
    let repetitions = if options.quick { 1 } else { options.repetitions().max(5) };
    let seconds = if options.quick { 1 } else { 4 };
    run.progress.steps(repetitions * cells.len());
    let mut rows = Vec::new();
    for _ in 0..repetitions {
        for cell in &cells {
            run.progress.step(&cell.name);
            rows.push(measure_cell(cell, seconds));
        }
    }
    json!({"rows": rows})
}

fn measure_cell(cell: &Cell, seconds: u64) -> Value {
    let Cell { name, subject, direction, rate, burst, gso } = cell;
    let limits = Limits { burst: Some(burst * 8), ..Limits::both(*rate) };
    let shaped = Shaped::new(subject.as_ref(), limits);
    if !gso {
        for (ns, dev) in
            [(&shaped.pod.host, &shaped.pod.eth0.host), (&shaped.pod.ns, &shaped.pod.eth0.name)]
        {
            ns.run(&["ethtool", "-K", dev, "gso", "off", "tso", "off", "gro", "off"]);
        }
    }
    let (from, to, address) = shaped.ends(*direction);
    let congestion = "cubic";
    let duration = SECOND * (seconds as u32 + 3);
    let _paced;
    let mut flow = if subject.is_some() {
        Flow::start(from, to, address, &Traffic { congestion, flows: 1, duration })
    } else {
        let (flow, target) = Flow::listen(to, address, 1);
        _paced = start_tcp(from, &target, congestion, (*rate as f64 * TCP_SHARE) as u64);
        flow
    };
    // The first second has the burst in it.
    flow.until(SECOND);
    flow.skip_what_is_past();
    let (began, idle) = (Instant::now(), idle_seconds());
    let bytes = flow.bytes_in(SECOND * seconds as u32);
    let (idle, wall) = (idle_seconds() - idle, began.elapsed().as_secs_f64());
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let busy = wall * processors as f64 - idle;
    let gbit = bytes as f64 * 8.0 / 1e9;
    json!({
        "name": name,
        "subject": subject.as_ref().map(|subject| subject.name),
        "direction": direction_name(*direction),
        "rate": rate,
        "burst": burst,
        "gso": gso,
        "cpu_s_per_gbit": round(busy / gbit),
        "gbit_per_s": round(gbit / wall),
    })
}

/// Time that the processors had nothing to do, or were away for another virtual machine, in seconds
/// since boot, summed over all of them. The kernel counts idle time exactly, busy time only at ticks.
fn idle_seconds() -> f64 {
    /// USER_HZ: the unit of /proc/stat on every machine of today.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/stat").expect("procfs is there");
    let line = stat.lines().next().expect("a line for all processors");
    let ticks: Vec<f64> =
        line.split_whitespace().skip(1).map(|n| n.parse().expect("a number")).collect();
    let (idle, iowait, steal) = (ticks[3], ticks[4], ticks[7]);
    (idle + iowait + steal) / TICKS_PER_SECOND
}
