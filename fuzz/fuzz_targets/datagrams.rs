//! Datagrams of netlink messages: how many requests, the first one's number, then datagrams, each
//! behind its length in two bytes.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use pod_bandwidth::kernel::fuzzing::collect;
use pod_bandwidth_fuzz::check_message;

fuzz_target!(|data: &[u8]| -> Corpus {
    let [requests, first, rest @ ..] = data else { return Corpus::Reject };
    let requests = usize::from(requests % 8) + 1;
    // Near the wrap, so that a few requests cross it.
    let first = u32::from(*first).wrapping_sub(4);
    let datagrams = datagrams(rest);
    let (answers, complete) = collect(first, requests, &datagrams);
    assert_eq!(answers.len(), requests);
    let mut bytes = 0;
    for answer in &answers {
        match answer {
            Ok(payloads) => {
                bytes += payloads.iter().map(|payload| 16 + payload.len()).sum::<usize>()
            }
            // The kernel's own words are as long as it makes them; at most what was sent.
            Err(error) if data.len() < 300 => check_message(&error.to_string()),
            Err(error) => assert!(!error.to_string().chars().any(char::is_control)),
        }
    }
    assert!(bytes <= rest.len(), "{bytes} bytes out of {}", rest.len());
    // Every answer needs a message of its own to end.
    assert!(!complete || rest.len() >= 16 * requests, "{requests} answers in {} bytes", rest.len());
    Corpus::Keep
});

fn datagrams(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut datagrams = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(tail.len());
        let (datagram, tail) = tail.split_at(length);
        datagrams.push(datagram);
        rest = tail;
    }
    datagrams
}
