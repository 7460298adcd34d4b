use super::*;
use crate::shaping::bucket::{BytesPerSecond, Peak};
use crate::shaping::queue::Queue;

fn bucket(rate: u64, peak: Option<Peak>) -> Bucket {
    let limit = u32::MAX;
    Bucket {
        rate: BytesPerSecond(rate),
        burst: limit,
        limit,
        peak,
        queue: Queue::Fifo,
        mark: Mark::Added,
    }
}

fn job(way: Way, reason: &str, buckets: Buckets, scope: Scope) -> Job {
    let decision = Decision { way, reason: reason.into() };
    let shape = Shape { scope, ..Shape::default() };
    Job { decision, buckets, shape, wanted: Vec::new(), other: Vec::new() }
}

#[test]
fn the_line_of_an_add_names_placement_reason_and_both_limits() {
    let limited = Buckets { ingress: Some(bucket(1_250_000, None)), egress: None };
    let reason = "placement is auto; the root qdisc is free";
    assert_eq!(
        job(Way::HostRoot, reason, limited, Scope::All).summary(),
        "placement host (root) (auto; the root qdisc is free); ingress 10 Mbit/s; egress unlimited"
    );
}

#[test]
fn the_line_of_an_add_fits_in_200_characters_and_its_details_have_the_rest() {
    let nets = vec!["10.0.0.0/8".parse().unwrap(); 64];
    let reasons = [
        "placement is auto; the root qdisc is free".to_owned(),
        "placementByPrefix has \"123456789012345\" for this interface; the root qdisc is free"
            .into(),
        "placement is auto; subnets need the egress hook of 123456789012345, which is taken".into(),
        // A name of 15 bytes that are no text.
        format!("placementByPrefix has {:?} for this interface", "\u{1b}".repeat(15)),
        "\u{202e}".repeat(400),
    ];
    let peak = Peak { rate: BytesPerSecond(124_999_999_999_999), burst: u32::MAX };
    // The rate with the most digits.
    let full = Some(bucket(124_999_999_999_998, Some(peak)));
    for reason in &reasons {
        for way in Way::ALL {
            for scope in [Scope::All, Scope::Except(nets.clone()), Scope::Only(nets.clone())] {
                let job = job(way, reason, Buckets { ingress: full, egress: full }, scope);
                let line = crate::text::escape(&job.summary());
                assert!(line.chars().count() <= 200, "{} characters: {line}", line.len());
                for word in
                    [&format!("placement {way} ("), "; ingress 999.99", "; egress 999.99", "bit/s"]
                {
                    assert!(line.contains(word), "{word} in {line}");
                }
                let details = job.details();
                assert!(details.starts_with(reason.as_str()) && details.contains("4294967295"));
            }
        }
    }
}
