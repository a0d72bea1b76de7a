//! The source that reads Istio's proxies themselves: what the callers' side counted, at `podIP:15090/stats/prometheus`.
//!
//! All rollouts share one reading of all proxies, as long as it is fresh enough for each. Deliberately keeps nothing on disk, and
//! nothing between readings but the last one: a restart drops the gap.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use serin_core::observe::SourceProblem;
use serin_core::units::Timestamp;
use tokio::sync::Mutex;

use super::cluster::Cluster;
use super::increments::{Page, Snapshot, difference};
use super::source::{ArmQuery, Cursor, MetricSource, Polled, beginning, root};
use crate::config::{Clock, now};

/// Above this a reading would cost more than a Prometheus.
pub const MOST_TARGETS: usize = 200;
/// One proxy's answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Proxies that are read at once.
const AT_ONCE: usize = 64;
/// A page is tens to hundreds of kilobytes; this bounds what one proxy can make us hold.
const LARGEST_PAGE: usize = 32 << 20;

/// One proxy to read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    pod: String,
    url: String,
    started: Option<Timestamp>,
}

/// The last reading, or why there is none.
struct Last {
    at: Timestamp,
    outcome: Result<(), SourceProblem>,
    snapshot: Option<Arc<Snapshot>>,
}

/// See the module.
pub struct Proxies {
    cluster: Arc<RwLock<Cluster>>,
    clock: Clock,
    port: u16,
    client: Client<HttpConnector, Empty<bytes::Bytes>>,
    last: Mutex<Option<Last>>,
}

impl Proxies {
    /// Reads the proxies of all pods that `cluster` knows. Plain HTTP, and never through a proxy of the environment, as pods are
    /// not behind it.
    pub(crate) fn new(cluster: Arc<RwLock<Cluster>>, clock: Clock, port: u16) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(TIMEOUT));
        let mut client = Client::builder(hyper_util::rt::TokioExecutor::new());
        let client = client.pool_timer(hyper_util::rt::TokioTimer::new()).pool_idle_timeout(Duration::from_secs(30)).build(connector);
        Self { cluster, clock, port, client, last: Mutex::new(None) }
    }

    fn targets(&self) -> Vec<Target> {
        let cluster = self.cluster.read().unwrap_or_else(PoisonError::into_inner);
        let target = |(name, pod): (&serin_core::units::ObjectName, &super::project::ProxyPod)| {
            let host = if pod.ip.contains(':') { format!("[{}]", pod.ip) } else { pod.ip.clone() };
            Target { pod: name.to_string(), url: format!("http://{host}:{}/stats/prometheus", self.port), started: pod.started }
        };
        let mut targets: Vec<Target> = cluster.proxies().iter().map(target).collect();
        // Several names for one proxy are one proxy.
        targets.sort_by(|a, b| (&a.url, &a.pod).cmp(&(&b.url, &b.pod)));
        targets.dedup_by(|a, b| a.url == b.url);
        targets
    }

    /// A snapshot that is at most half an interval old. Who asks while one is being made waits for that one.
    async fn snapshot(&self, query: &ArmQuery) -> Result<Arc<Snapshot>, SourceProblem> {
        let mut last = self.last.lock().await;
        let instant = now(&self.clock);
        if let Some(last) = &*last
            && instant.since(last.at) < query.interval / 2
        {
            return last
                .outcome
                .clone()
                .and_then(|()| last.snapshot.clone().ok_or(SourceProblem::Missing { what: "no reading yet".into() }));
        }
        let before = last.as_ref().and_then(|l| l.snapshot.clone());
        let made = self.scrape(before.as_deref(), query).await;
        let (outcome, snapshot) = match made {
            Ok(snapshot) => (Ok(()), Some(Arc::new(snapshot))),
            // The last one stays: what comes next is counted from there.
            Err(problem) => (Err(problem), before),
        };
        *last = Some(Last { at: now(&self.clock), outcome: outcome.clone(), snapshot: snapshot.clone() });
        outcome.and_then(|()| snapshot.ok_or(SourceProblem::Missing { what: "no reading yet".into() }))
    }

    async fn scrape(&self, before: Option<&Snapshot>, query: &ArmQuery) -> Result<Snapshot, SourceProblem> {
        let targets = self.targets();
        if targets.is_empty() {
            let what = format!(
                "no running pod has an istio-proxy container, and requests to {} are counted at the proxies of its callers: turn injection on for them, or use Prometheus",
                query.service.name
            );
            return Err(SourceProblem::Missing { what });
        }
        if targets.len() > MOST_TARGETS {
            let what =
                format!("{} proxies would have to be read, and {MOST_TARGETS} are the most: use Prometheus as the source", targets.len());
            return Err(SourceProblem::Missing { what });
        }
        let reads = stream::iter(targets).map(|target| async move {
            let text = self.fetch(&target.url).await;
            (target, text)
        });
        let mut reads = reads.buffer_unordered(AT_ONCE);
        let mut pages = HashMap::new();
        let (mut answered, mut failure) = (0, None);
        while let Some((target, text)) = reads.next().await {
            let old = before.and_then(|b| b.pages.get(&target.pod)).cloned();
            match text {
                Ok(text) => {
                    answered += 1;
                    pages.insert(target.pod, Arc::new(Page::read(&text, target.started, old.as_deref())));
                }
                // One proxy that does not answer takes its requests with it; its next answer brings them.
                Err(why) => {
                    tracing::debug!(url = %target.url, %why, "a proxy did not answer");
                    failure = Some(format!("{}: {why}", target.url));
                    old.map(|old| pages.insert(target.pod, old));
                }
            }
        }
        match failure {
            Some(what) if answered == 0 => Err(SourceProblem::Unreachable { what }),
            Some(_) | None => Ok(Snapshot { at: now(&self.clock), pages }),
        }
    }

    async fn fetch(&self, url: &str) -> Result<String, String> {
        let uri: http::Uri = url.parse().map_err(|e| format!("{e}"))?;
        let read = async {
            let response = self.client.get(uri).await.map_err(|e| root(&e))?;
            if !response.status().is_success() {
                return Err(format!("HTTP {}", response.status()));
            }
            let body = Limited::new(response.into_body(), LARGEST_PAGE).collect().await.map_err(|e| root(&*e))?;
            String::from_utf8(body.to_bytes().to_vec()).map_err(|_| "the answer is no text".to_owned())
        };
        tokio::time::timeout(TIMEOUT, read).await.unwrap_or_else(|_| Err(format!("no answer within {} s", TIMEOUT.as_secs())))
    }
}

impl MetricSource for Proxies {
    fn poll(&self, query: ArmQuery, cursor: Option<Cursor>) -> BoxFuture<'_, Polled> {
        async move {
            if let Some(name) = query.limits.iter().map(|(name, _)| name).chain(query.counters.iter().map(|c| &c.name)).next() {
                let what = format!(
                    "metric {name} asks in PromQL, and Istio's proxies answer none: name a Prometheus in spec.analysis.source, or leave the metric out"
                );
                return Err(SourceProblem::Missing { what });
            }
            let after = self.snapshot(&query).await?;
            let reading = match cursor.and_then(|c| c.get::<Arc<Snapshot>>()) {
                Some(before) => difference(&before, &after, &query)?,
                None => {
                    // An edge that nobody has is better said before the first step than in it.
                    difference(&after, &after, &query)?;
                    beginning(after.at, &query.edges)
                }
            };
            Ok((reading, Cursor::new(after)))
        }
        .boxed()
    }
}
