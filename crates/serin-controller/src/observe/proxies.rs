//! Reads Istio's proxies themselves: exact increases of what the callers' side counted.
//!
//! Each series is differenced on its own before anything is summed; what cannot be matched with the reading before is dropped,
//! never counted twice. Deliberately keeps nothing on disk: a restart drops the gap.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serin_core::observe::{ArmCounts, Reading, SourceProblem};
use serin_core::units::Timestamp;

use super::exposition::{Sample, samples};

/// Above this a reading would cost more than a Prometheus.
pub const MOST_TARGETS: usize = 200;
const TIMEOUT: Duration = Duration::from_secs(2);
const REQUESTS: &str = "istio_requests_total";
const DURATION_BUCKET: &str = "istio_request_duration_milliseconds_bucket";
const DURATION_COUNT: &str = "istio_request_duration_milliseconds_count";

/// What is asked of a source.
#[derive(Clone, Debug, PartialEq)]
pub struct ArmQuery {
    /// Namespace of service and workloads.
    pub namespace: String,
    /// The Service.
    pub service: String,
    /// Stable's Deployment.
    pub stable: String,
    /// The canary's Deployment.
    pub canary: String,
    /// Bucket edges, in milliseconds, whose slower requests are wanted.
    pub edges: Vec<f64>,
}

/// One proxy to read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Names it over restarts of the reader: namespace and pod.
    pub pod: String,
    /// `http://IP:15090/stats/prometheus`.
    pub url: String,
    /// When the pod started, if it is known.
    pub started: Option<Timestamp>,
}

type Series = HashMap<Box<str>, f64>;

/// What was read last: per proxy its series, and when.
#[derive(Default)]
pub struct Cursor {
    targets: HashMap<Target, Series>,
    at: Option<Timestamp>,
}

/// Plain HTTP to the proxies; a proxy of the environment is never asked, as pods are not behind it.
#[derive(Clone)]
pub struct Proxies {
    client: hyper_util::client::legacy::Client<hyper_util::client::legacy::connect::HttpConnector, http_body_util::Empty<bytes::Bytes>>,
}

impl Default for Proxies {
    fn default() -> Self {
        let mut connector = hyper_util::client::legacy::connect::HttpConnector::new();
        connector.set_connect_timeout(Some(TIMEOUT));
        let mut client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new());
        Self { client: client.pool_idle_timeout(Duration::from_secs(30)).build(connector) }
    }
}

impl Proxies {
    /// Reads every target once. The increases since the cursor, and the new cursor.
    ///
    /// # Errors
    /// No target, too many, none that answers, or an edge that the histogram lacks. The cursor stays as it was.
    pub async fn poll(&self, targets: &[Target], query: &ArmQuery, cursor: &mut Cursor, now: Timestamp) -> Result<Reading, SourceProblem> {
        if targets.is_empty() {
            let what = format!("no running pod with an istio-proxy container calls {}: requests are counted at the callers' proxies", query.service);
            return Err(SourceProblem::Missing { what });
        }
        if targets.len() > MOST_TARGETS {
            let what = format!("{} proxies would have to be read, {MOST_TARGETS} at most: use Prometheus", targets.len());
            return Err(SourceProblem::Missing { what });
        }
        let mut reads: FuturesUnordered<_> = targets.iter().map(|t| async move { (t, self.fetch(&t.url).await) }).collect();
        let mut texts = Vec::new();
        let mut failure = None;
        while let Some((target, result)) = reads.next().await {
            match result {
                Ok(text) => texts.push((target.clone(), text)),
                Err(why) => failure = Some(format!("{}: {why}", target.url)),
            }
        }
        // One proxy that does not answer takes its requests with it; its next answer brings them.
        if let (Some(what), true) = (failure, texts.is_empty()) {
            return Err(SourceProblem::Unreachable { what });
        }
        self.difference(&texts, query, cursor, now)
    }

    fn difference(&self, texts: &[(Target, String)], query: &ArmQuery, cursor: &mut Cursor, now: Timestamp) -> Result<Reading, SourceProblem> {
        let mut tally = Tally::new(query);
        let mut read = HashMap::new();
        for (target, text) in texts {
            let before = cursor.targets.get(target);
            // A proxy that started since the last reading has counted nothing that was not ours.
            let began_since = cursor.at.is_some_and(|at| target.started.is_some_and(|s| s >= at));
            let mut series = Series::new();
            for sample in samples(text, |n| matches!(n, REQUESTS | DURATION_BUCKET | DURATION_COUNT)) {
                if sample.label("reporter") != "source" || !sample.value.is_finite() {
                    continue;
                }
                let id = identity(&sample);
                let increase = match before {
                    // New to us: what it counted before is not known to be ours.
                    None if !began_since => 0.0,
                    None => sample.value,
                    Some(before) => match before.get(id.as_str()) {
                        Some(old) if sample.value >= *old => sample.value - old,
                        // A new series of a known proxy counts from 0, and so does one that began again.
                        Some(_) | None => sample.value,
                    },
                };
                series.insert(id.into(), sample.value);
                tally.add(&sample, increase);
            }
            read.insert(target.clone(), series);
        }
        if let Some(what) = tally.missing_edge() {
            return Err(SourceProblem::Missing { what });
        }
        let from = cursor.at.unwrap_or(now);
        // A target that did not answer keeps its last reading, so that its next one is a bigger batch and not a new series.
        for (target, series) in read {
            cursor.targets.insert(target, series);
        }
        cursor.at = Some(now);
        Ok(tally.reading(from, now))
    }

    async fn fetch(&self, url: &str) -> Result<String, String> {
        use http_body_util::BodyExt;
        let uri: http::Uri = url.parse().map_err(|e| format!("{e}"))?;
        let read = async {
            let response = self.client.get(uri).await.map_err(|e| root(&e))?;
            if !response.status().is_success() {
                return Err(format!("HTTP {}", response.status()));
            }
            let body = response.into_body().collect().await.map_err(|e| root(&e))?;
            String::from_utf8(body.to_bytes().to_vec()).map_err(|_| "the answer is no text".to_string())
        };
        tokio::time::timeout(TIMEOUT, read).await.unwrap_or_else(|_| Err(format!("no answer within {} s", TIMEOUT.as_secs())))
    }
}

/// The innermost cause, which is the one that says something.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn identity(sample: &Sample) -> String {
    let mut id = sample.name.clone();
    for (name, value) in &sample.labels {
        id.push('\u{1}');
        id.push_str(name);
        id.push('\u{2}');
        id.push_str(value);
    }
    id
}

/// Sums of increases, by arm.
struct Tally<'q> {
    query: &'q ArmQuery,
    stable: Arm,
    canary: Arm,
    no_healthy_upstream: f64,
    no_cluster: f64,
    edges_seen: std::collections::BTreeSet<String>,
}

#[derive(Default)]
struct Arm {
    n: f64,
    errors: f64,
    timed: f64,
    within: Vec<f64>,
}

impl<'q> Tally<'q> {
    fn new(query: &'q ArmQuery) -> Self {
        let arm = || Arm { within: vec![0.0; query.edges.len()], ..Arm::default() };
        Self { query, stable: arm(), canary: arm(), no_healthy_upstream: 0.0, no_cluster: 0.0, edges_seen: Default::default() }
    }

    fn add(&mut self, sample: &Sample, increase: f64) {
        if sample.name == DURATION_BUCKET && sample.label("le") != "+Inf" && !self.edges_seen.contains(sample.label("le")) {
            self.edges_seen.insert(sample.label("le").to_string());
        }
        let workload = sample.label("destination_workload");
        let same_namespace = sample.label("destination_workload_namespace") == self.query.namespace;
        let arm = match workload {
            w if same_namespace && w == self.query.stable => &mut self.stable,
            w if same_namespace && w == self.query.canary => &mut self.canary,
            _ => {
                self.add_unknown(sample, increase);
                return;
            }
        };
        match sample.name.as_str() {
            REQUESTS => {
                arm.n += increase;
                arm.errors += if failed(sample) { increase } else { 0.0 };
            }
            DURATION_COUNT => arm.timed += increase,
            _ => {
                let le: f64 = sample.label("le").parse().unwrap_or(f64::NAN);
                for (edge, within) in self.query.edges.iter().zip(&mut arm.within) {
                    if le == *edge {
                        *within += increase;
                    }
                }
            }
        }
    }

    /// Requests that reached no version: only the service is known.
    fn add_unknown(&mut self, sample: &Sample, increase: f64) {
        if sample.name != REQUESTS || !self.for_service(sample) {
            return;
        }
        let flags = sample.label("response_flags");
        if flags.split(',').any(|f| f == "UH") {
            self.no_healthy_upstream += increase;
        } else if flags.split(',').any(|f| f == "NC") {
            self.no_cluster += increase;
        }
    }

    fn for_service(&self, sample: &Sample) -> bool {
        let ArmQuery { service, namespace, .. } = self.query;
        if sample.label("destination_service_name") == service {
            return sample.label("destination_service_namespace") == namespace || sample.label("destination_service_namespace") == "unknown";
        }
        let host = sample.label("destination_service");
        host == service || host.strip_prefix(service.as_str()).is_some_and(|rest| rest.starts_with(&format!(".{namespace}")))
    }

    fn missing_edge(&self) -> Option<String> {
        if self.edges_seen.is_empty() {
            return None;
        }
        let has = |edge: &f64| self.edges_seen.iter().any(|e| e.parse::<f64>().is_ok_and(|e| e == *edge));
        let lacks = self.query.edges.iter().find(|e| !has(e))?;
        let mut edges: Vec<f64> = self.edges_seen.iter().filter_map(|e| e.parse().ok()).collect();
        edges.sort_by(f64::total_cmp);
        let edges: Vec<String> = edges.iter().map(ToString::to_string).collect();
        Some(format!("the proxies' histogram has no edge at {lacks} ms, so nobody can tell which requests were slower; its edges are {} ms", edges.join(", ")))
    }

    fn reading(self, from: Timestamp, to: Timestamp) -> Reading {
        let edges = &self.query.edges;
        let counts = |arm: Arm| {
            // A request is timed when it is counted; between two scrapes of one page they agree.
            let slower = edges.iter().zip(&arm.within).map(|(edge, within)| (*edge, (arm.timed - within).clamp(0.0, arm.n))).collect();
            ArmCounts { n: arm.n, errors: arm.errors.min(arm.n), slower }
        };
        Reading {
            from,
            to,
            stable: counts(self.stable),
            canary: counts(self.canary),
            history: Vec::new(),
            no_healthy_upstream: self.no_healthy_upstream,
            no_cluster: self.no_cluster,
        }
    }
}

/// HTTP 5xx, or a gRPC status other than 0 (a gRPC failure is HTTP 200; `docs/istio.md`, section 4).
fn failed(sample: &Sample) -> bool {
    let grpc = sample.label("grpc_response_status");
    let grpc_failed = sample.label("request_protocol") == "grpc" && !matches!(grpc, "" | "0" | "OK");
    grpc_failed || (sample.label("response_code").len() == 3 && sample.label("response_code").starts_with('5'))
}
