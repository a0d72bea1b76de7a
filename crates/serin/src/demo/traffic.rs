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

/// Waits until `many` requests that begin from now on are answered by some version; gives the answers by version, of all requests
/// that had begun by then, the slow ones too.
pub(crate) async fn measure(traffic: &Traffic, many: u64) -> BTreeMap<String, u64> {
    let from = traffic.now();
    while count(&traffic.between(from, Duration::MAX)).values().sum::<u64>() < many {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let to = traffic.now();
    traffic.settled(to).await;
    count(&traffic.between(from, to))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serin_lab::mesh::traffic::Plan;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Answers each request in turn as `fast` at once or as `slow` later.
    async fn two_versions() -> std::net::SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let turn = Arc::new(AtomicUsize::new(0));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let turn = turn.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                        let slow = turn.fetch_add(1, Ordering::Relaxed) % 2 == 1;
                        if slow {
                            tokio::time::sleep(Duration::from_millis(400)).await;
                        }
                        let version = if slow { "slow" } else { "fast" };
                        let answer = format!("HTTP/1.1 200 OK\r\nx-version: {version}\r\ncontent-length: 0\r\n\r\n");
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_version_that_answers_slowly_is_counted_in_full() {
        let target = two_versions().await;
        let plan = Plan {
            target,
            host: "x".into(),
            path: "/".into(),
            rate: 400.0,
            users: 1,
            seed: 1,
            time: Duration::from_secs(60),
            requests: None,
            log: None,
        };
        let traffic = Traffic::start(plan);
        let counts = measure(&traffic, 200).await;
        traffic.stop().await;
        let (fast, slow) = (counts["fast"], counts["slow"]);
        // Every other request is a slow one; only the window's two edges can differ.
        assert!(fast.abs_diff(slow) <= 8, "{fast} fast, {slow} slow");
    }
}
