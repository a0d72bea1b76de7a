//! The lab's callers and their record of every answer, as the demo reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serin_lab::mesh::traffic::{Answer, Sample, Traffic};

/// Users among whom requests are drawn.
pub(crate) const USERS: u32 = 10_000;

/// HTTP status; 0: none came.
pub(crate) fn status(sample: &Sample) -> u16 {
    match sample.answer {
        Answer::Status(status) => status,
        Answer::None => 0,
    }
}

/// Whether the caller did not get what it asked for. A 404 is no answer either: the route was not there.
pub(crate) fn failed(sample: &Sample) -> bool {
    sample.failed() || status(sample) >= 400
}

/// Whether that version gave the answer.
pub(crate) fn by(sample: &Sample, version: &str) -> bool {
    sample.version.as_deref() == Some(version)
}

/// Waits until `many` requests that begin from now on are answered by some version; gives the answers by version.
pub(crate) async fn measure(traffic: &Traffic, many: u64) -> BTreeMap<String, u64> {
    let from = traffic.now();
    loop {
        let counts = count(&traffic.between(from, Duration::MAX));
        if counts.values().sum::<u64>() >= many {
            return counts;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Answers by version.
pub(crate) fn count(samples: &[Sample]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for version in samples.iter().filter_map(|s| s.version.as_deref()) {
        *counts.entry(version.to_string()).or_insert(0) += 1;
    }
    counts
}

/// Different users among samples.
pub(crate) fn users<'a>(samples: impl Iterator<Item = &'a Sample>) -> u64 {
    samples.map(|s| s.user).collect::<BTreeSet<u32>>().len() as u64
}
