//! What a limit lets through: at its beginning, and when it is steady.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Run;
use crate::common::{Direction, Flow, Way};
use crate::frames::Frames;
use crate::senders::{start_bulk, start_udp};
use crate::shaped::{
    SECOND, Shaped, TCP_SHARE, congestion_controls, direction_name, in_lanes, until,
};
use crate::statistics::round;
use crate::subject::{Limits, Subject};

/// What is sent.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Tcp {
        congestion: &'static str,
        flows: usize,
    },
    /// Half more than the limit.
    Udp,
}

struct Cell<'a> {
    subject: &'a Subject,
    direction: Direction,
    rate: u64,
    kind: Kind,
    seconds: u64,
}

/// bit/s; from `ALONE_FROM` on one measurement at a time, because each takes a processor.
const RATES: [u64; 5] = [1_000_000, 10_000_000, 100_000_000, 1_000_000_000, 5_000_000_000];
const ALONE_FROM: u64 = 1_000_000_000;

/// All of it, as the JSON of this part.
pub(crate) fn measure(run: &Run) -> Value {
    let options = &run.options;
    let subjects: Vec<Subject> = Way::ALL
        .map(|way| Subject::ours(options, way))
        .into_iter()
        .chain([Subject::reference(options)])
        .collect();
    let quick = options.quick && options.rates.is_empty();
    let rates = options.chosen(if quick { &RATES[1..2] } else { &RATES });
    let mut kinds = vec![];
    for congestion in congestion_controls() {
        kinds.extend([1, 8].map(|flows| Kind::Tcp { congestion, flows }));
    }
    kinds.push(Kind::Udp);
    if quick {
        kinds = vec![kinds[0], Kind::Udp];
    }
    // A late frame of one of 8 flows holds back others of it: at 1M that is seen over seconds.
    let seconds = |rate| match rate {
        _ if quick => 3,
        1_000_000 => 12,
        10_000_000 => 6,
        _ => 4,
    };
    let mut cells = Vec::new();
    for _ in 0..options.repetitions() {
        for &rate in &rates {
            for &kind in &kinds {
                for direction in Direction::ALL {
                    // All plugins in turn, or at once.
                    let seconds = seconds(rate);
                    let of = |subject| Cell { subject, direction, rate, kind, seconds };
                    cells.push(subjects.iter().map(of).collect::<Vec<_>>());
                }
            }
        }
    }
    run.progress.steps(cells.len());
    let mut rows = Vec::new();
    for cells in &cells {
        run.progress.step(&format!("{} Mbit/s", cells[0].rate / 1_000_000));
        let lanes = if cells[0].rate >= ALONE_FROM { 1 } else { cells.len() };
        rows.extend(in_lanes(lanes, cells, measure_cell));
    }
    json!({"rows": rows})
}

fn measure_cell(cell: &Cell) -> Value {
    let Cell { subject, direction, rate, kind, seconds } = *cell;
    let shaped = Shaped::new(Some(subject), Limits::both(rate));
    let (from, to, address) = shaped.ends(direction);
    let step = Duration::from_millis(if rate >= ALONE_FROM { 5 } else { 2 });
    let duration = SECOND * seconds as u32;
    let (curve, steady) = match kind {
        Kind::Tcp { congestion, flows } => {
            let frames = Frames::watch(to, step, 52);
            let (mut flow, target) = Flow::listen(to, address, flows);
            let _sending = start_bulk(from, &target, congestion, flows);
            flow.until(duration);
            let payload = flow.throughput().steady_bits;
            (frames.stop(), payload / TCP_SHARE)
        }
        Kind::Udp => {
            let frames = Frames::watch(to, step, 28);
            let sending = start_udp(from, address, rate + rate / 2);
            until(Instant::now() + duration + SECOND / 2);
            let curve = frames.stop();
            drop(sending);
            let steady = curve.rate(1.0, seconds as f64);
            (curve, steady)
        }
    };
    let limit = rate as f64;
    // The beginning as a curve, where the plot shows it.
    let points = (1..=40).map(|n| round(curve.by(f64::from(n) * 0.05) / 1e6));
    json!({
        "subject": subject.name,
        "direction": direction_name(direction),
        "rate": rate,
        "traffic": kind.name(),
        "first_100_ms": round(curve.by(0.1) / (limit * 0.1)),
        "first_second": round(curve.by(1.0) / limit),
        "steady_of_ideal": round(steady / limit),
        // Whole frames, sent again or not.
        "steady_frames": round(curve.rate(1.0, seconds as f64) / limit),
        "mbit_each_50_ms": (rate == 10_000_000).then(|| points.collect::<Vec<_>>()),
    })
}

impl Kind {
    fn name(self) -> String {
        match self {
            Self::Tcp { congestion, flows: 1 } => format!("TCP {congestion}, 1 flow"),
            Self::Tcp { congestion, flows } => format!("TCP {congestion}, {flows} flows"),
            Self::Udp => "UDP at 1.5 x the limit".to_owned(),
        }
    }
}
