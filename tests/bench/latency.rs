//! How long a ping takes beside a bulk connection.

use std::time::Duration;

use serde_json::{Value, json};

use crate::Run;
use crate::common::{Direction, Flow, Lab, Ns, Way};
use crate::senders::start_bulk;
use crate::shaped::{Shaped, congestion_controls, direction_name, in_lanes};
use crate::statistics::{quantile, round};
use crate::subject::{Limits, Subject};

struct Cell<'a> {
    subject: Option<&'a Subject>,
    queue: &'a str,
    direction: Direction,
    rate: u64,
    congestion: &'static str,
    pings: u32,
}

/// Between two pings, in seconds; an answer is waited for this long.
const INTERVAL: &str = "0.01";
const PATIENCE_SECONDS: &str = "2";

/// All of it, as the JSON of this part.
pub(crate) fn measure(run: &Run) -> Value {
    let options = &run.options;
    let ours = Way::ALL.map(|way| Subject::ours(options, way));
    let reference = Subject::reference(options);
    let queues: &[&str] = if has_fq_codel() { &["fifo", "fq_codel"] } else { &["fifo"] };
    let pings = if options.quick { 100 } else { 500 };
    let rates = if options.quick { &[10_000_000][..] } else { &[10_000_000, 100_000_000] };
    let rates = options.chosen(rates);
    let mut controls = congestion_controls();
    controls.truncate(if options.quick { 1 } else { controls.len() });
    let mut groups = Vec::new();
    for _ in 0..options.repetitions() {
        for &rate in &rates {
            for &congestion in &controls {
                for direction in Direction::ALL {
                    let cell = |subject, queue| Cell {
                        subject,
                        queue,
                        direction,
                        rate,
                        congestion,
                        pings,
                    };
                    let mut cells = vec![cell(None, "none"), cell(Some(&reference), "fifo")];
                    for queue in queues {
                        cells.extend(ours.iter().map(|ours| cell(Some(ours), queue)));
                    }
                    groups.push(cells);
                }
            }
        }
    }
    run.progress.steps(groups.len());
    let mut rows = Vec::new();
    for cells in &groups {
        run.progress.step(&format!("{} Mbit/s", cells[0].rate / 1_000_000));
        // What is not limited takes the whole machine: by itself, and idle.
        rows.extend(in_lanes(3, cells, measure_cell));
    }
    json!({"rows": rows, "fq_codel": queues.len() > 1})
}

fn measure_cell(cell: &Cell) -> Value {
    let Cell { subject, queue, direction, rate, congestion, pings } = *cell;
    let limits = Limits::both(rate);
    let chosen = subject.map(|subject| subject.clone().with_queue(queue));
    let shaped = Shaped::new(chosen.as_ref(), limits);
    let (from, to, address) = shaped.ends(direction);
    // Without a plugin: the idle way, to see what the machine itself adds.
    // It goes on until both are dropped: how long the pings take the queue decides.
    let mut bulk = subject.is_some().then(|| {
        let (mut flow, target) = Flow::listen(to, address, 1);
        let sending = start_bulk(from, &target, congestion, 1);
        flow.until(Duration::from_millis(1_500));
        (flow, sending)
    });
    let times = ping(from, address, pings);
    if let Some((flow, _)) = &mut bulk {
        let rate = flow.rate_in(Duration::from_millis(500));
        assert!(rate > 0.0, "the connection went on beside the pings");
    }
    json!({
        "subject": subject.map_or("idle, no limit", |subject| subject.name),
        "queue": queue,
        "direction": direction_name(direction),
        "rate": rate,
        "congestion": congestion,
        "p50_ms": finite(quantile(&times, 0.5)),
        "p99_ms": finite(quantile(&times, 0.99)),
        "lost": times.iter().filter(|time| time.is_infinite()).count(),
        "sent": times.len(),
    })
}

/// JSON has no infinity: `null` is a ping without an answer.
fn finite(number: f64) -> Option<f64> {
    number.is_finite().then(|| round(number))
}

/// Round trips in milliseconds, infinite where no answer came.
fn ping(from: &Ns, address: &str, count: u32) -> Vec<f64> {
    let number = count.to_string();
    let argv = ["ping", "-n", "-i", INTERVAL, "-c", &number, "-W", PATIENCE_SECONDS, address];
    let text = String::from_utf8_lossy(&from.attempt(&argv).stdout).into_owned();
    let time = |line: &str| {
        let (_, time) = line.split_once(" time=")?;
        // An answer that came late is none: its next line is marked.
        if line.contains("DUP!") { None } else { time.split(' ').next()?.parse().ok() }
    };
    let mut times: Vec<f64> = text.lines().filter_map(time).collect();
    assert!(times.len() <= count as usize, "ping printed:\n{text}");
    times.resize(count as usize, f64::INFINITY);
    times
}

fn has_fq_codel() -> bool {
    let lab = Lab::open().expect("it opened before");
    lab.sh("ip link add probe type ifb");
    lab.attempt(&["tc", "qdisc", "add", "dev", "probe", "root", "fq_codel"]).status.success()
}
