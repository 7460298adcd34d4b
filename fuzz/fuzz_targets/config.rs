//! Settings and limits from any JSON object: wrong types, odd spellings, foreign keys.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use pod_bandwidth_fuzz::check_policy;
use serde_json::Value;

fuzz_target!(|data: &[u8]| -> Corpus {
    match serde_json::from_slice(data) {
        Ok(Value::Object(config)) => check_policy(&config),
        _ => return Corpus::Reject,
    }
    Corpus::Keep
});
