//! A limit that changes under load: what is lost, and what passes beyond it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Run;
use crate::common::{Direction, Flow, Traffic, Way};
use crate::frames::{Frames, counter};
use crate::process::inside;
use crate::shaped::{SECOND, Shaped, congestion_controls, direction_name, in_lanes};
use crate::statistics::round;
use crate::subject::{Limits, Subject, Target};

const M: u64 = 1_000_000;

/// bit/s, one after the other; the first by an ADD on a fresh pod.
const STEPS: [u64; 3] = [10 * M, 50 * M, 5 * M];

/// The time before and after a change in which segments that were sent again are counted.
const HALF: Duration = Duration::from_millis(500);

struct Cell<'a> {
    subject: &'a Subject,
    direction: Direction,
    congestion: &'static str,
    seconds: u32,
}

/// All of it, as the JSON of this part.
pub(crate) fn measure(run: &Run) -> Value {
    let options = &run.options;
    let ours = Way::ALL.map(|way| Subject::ours(options, way));
    let seconds = if options.quick { 2 } else { 4 };
    let mut controls = congestion_controls();
    controls.truncate(if options.quick { 1 } else { controls.len() });
    let mut cells = Vec::new();
    for _ in 0..options.repetitions() {
        for &congestion in &controls {
            for direction in Direction::ALL {
                cells.extend(ours.iter().map(|subject| Cell {
                    subject,
                    direction,
                    congestion,
                    seconds,
                }));
            }
        }
    }
    let lanes = 3;
    run.progress.steps(cells.len() / lanes);
    let mut rows: Vec<Value> = Vec::new();
    for cells in cells.chunks(lanes) {
        run.progress.step("10M, 50M, 5M");
        rows.extend(in_lanes(lanes, cells, measure_cell).into_iter().flatten());
    }
    json!({"rows": rows, "reference": reference(run)})
}

/// One connection through all steps; a row for each change.
fn measure_cell(cell: &Cell) -> Vec<Value> {
    let Cell { subject, direction, congestion, seconds } = *cell;
    let shaped = Shaped::new(Some(subject), Limits::both(STEPS[0]));
    let (from, to, address) = shaped.ends(direction);
    let step = SECOND * seconds;
    let traffic = Traffic { congestion, flows: 1, duration: step * (STEPS.len() as u32 + 1) };
    let mut flow = Flow::start(from, to, address, &traffic);
    flow.until(step - HALF);
    let mut rows = Vec::new();
    for two in STEPS.windows(2) {
        // As long before the change as after it: a sender loses packets to a full queue anyway.
        let long_before = retransmitted(from.pid);
        flow.skip_what_is_past();
        flow.bytes_in(HALF);
        let before = retransmitted(from.pid);
        let frames = Frames::watch(to, SECOND / 500, 52);
        let began = Instant::now();
        shaped.call(subject, "ADD", Limits::both(two[1]));
        let took = began.elapsed();
        // Read on in the receiver's own time; the curve has its own clock.
        flow.skip_what_is_past();
        flow.bytes_in(HALF);
        let after = retransmitted(from.pid);
        flow.bytes_in(step - SECOND);
        let curve = frames.stop();
        let rate = two[1] as f64;
        // From the moment when the call had returned, at the latest: the most that was ever ahead.
        let from_then = took.as_secs_f64();
        let windows = (1..=20).map(|n| f64::from(n) * 0.05);
        let ahead = windows
            .clone()
            .map(|window| curve.by(from_then + window) - curve.by(from_then) - rate * window);
        let steady =
            |at: &f64| curve.rate(from_then + at - 0.05, from_then + at + 0.05) >= 0.9 * rate;
        rows.push(json!({
            "subject": subject.name,
            "direction": direction_name(direction),
            "congestion": congestion,
            "from": two[0],
            "to": two[1],
            "beyond_bytes": round(ahead.fold(0.0, f64::max) / 8.0),
            "resent_before": before - long_before,
            "resent_after": after - before,
            "ninety_percent_after_ms": windows.clone().find(steady).map(|at| round(at * 1000.0)),
            "later_of_limit": round(curve.rate(f64::from(seconds) / 4.0, f64::from(seconds) - 0.6) / rate),
        }));
    }
    rows
}

/// Segments that the senders of a namespace sent again.
fn retransmitted(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/snmp")).expect("it is there");
    counter(&text, "Tcp:", "RetransSegs")
}

/// What the reference says to a second ADD.
fn reference(run: &Run) -> Value {
    let subject = Subject::reference(&run.options);
    let shaped = Shaped::new(Some(&subject), Limits::both(STEPS[0]));
    let call = subject.call("ADD", &Target::eth0(&shaped.pod), Limits::both(STEPS[1]));
    let said = inside(&shaped.lab, || crate::process::answer(&call));
    json!({"second_add": said})
}
