//! Counters → increments: what each arm was asked between two readings of the proxies.
//!
//! Each series is differenced on its own before anything is summed; what cannot be matched with the reading before is dropped,
//! never counted twice. Deliberately no I/O and no clock.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serin_core::observe::{ArmCounts, Reading, SourceProblem};
use serin_core::units::Timestamp;

use super::exposition::{Sample, samples};
use super::source::{Arm, ArmQuery, common_edges, edges_read};

/// Requests, as Istio names them (`docs/istio.md`).
pub const REQUESTS: &str = "istio_requests_total";
/// Buckets of their duration.
pub const DURATION_BUCKET: &str = "istio_request_duration_milliseconds_bucket";
/// How many of them were timed.
pub const DURATION_COUNT: &str = "istio_request_duration_milliseconds_count";

/// One series: which metric, and its labels in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Series {
    metric: Metric,
    labels: Box<[(Box<str>, Box<str>)]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Metric {
    Requests,
    Bucket,
    Timed,
}

impl Series {
    /// `None` for a metric that is not counted, or counted by somebody else than the caller's side, which alone knows of
    /// requests that reached nobody.
    fn of(sample: Sample) -> Option<Self> {
        let metric = match sample.name.as_str() {
            REQUESTS => Metric::Requests,
            DURATION_BUCKET => Metric::Bucket,
            DURATION_COUNT => Metric::Timed,
            _ => return None,
        };
        if sample.label("reporter") != "source" {
            return None;
        }
        let mut labels: Vec<(Box<str>, Box<str>)> = sample.labels.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
        // Who writes them in another order means the same series.
        labels.sort_unstable();
        Some(Self { metric, labels: labels.into() })
    }

    fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(n, _)| **n == *name).map_or("", |(_, v)| v)
    }

    /// All labels but the edge: what the buckets of one histogram have in common.
    fn histogram(&self) -> String {
        self.labels.iter().filter(|(name, _)| **name != *"le").map(|(name, value)| format!("{name}={value},")).collect()
    }

    fn has_flag(&self, flag: &str) -> bool {
        self.label("response_flags").split(',').any(|f| f == flag)
    }

    fn is_of(&self, arm: &Arm) -> bool {
        self.label("destination_workload") == arm.workload.name && self.label("destination_workload_namespace") == arm.workload.namespace
    }

    /// Whether it was sent to the service, whoever answered: by the service's labels, else by the host that was called.
    fn is_for(&self, query: &ArmQuery) -> bool {
        let (name, namespace) = (query.service.name.as_str(), query.service.namespace.as_str());
        if self.label("destination_service_name") == name && self.label("destination_service_namespace") == namespace {
            return true;
        }
        let host = self.label("destination_service");
        // Where the subset's cluster lacks nothing but the Host header is known, and callers of the namespace may write the short name.
        if host == name && self.label("source_workload_namespace") == namespace {
            return true;
        }
        host.strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('.'))
            .and_then(|rest| rest.strip_prefix(namespace))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

/// Whether a series of requests, by its labels, counts failures: HTTP 5xx, or a gRPC status other than 0, as a failed gRPC call is HTTP 200.
pub fn failed<'a>(label: impl Fn(&'static str) -> &'a str) -> bool {
    let grpc_failed = label("request_protocol") == "grpc" && !matches!(label("grpc_response_status"), "" | "0" | "OK");
    let code = label("response_code");
    grpc_failed || (code.len() == 3 && code.starts_with('5'))
}

/// What one proxy had counted.
#[derive(Clone, Debug, Default)]
pub struct Page {
    values: HashMap<Arc<Series>, f64>,
    /// When the proxy's pod started, as far as it is known.
    started: Option<Timestamp>,
}

impl Page {
    /// Reads a proxy's text. Series that `before` knows are shared with it, as they are most of the memory.
    pub fn read(text: &str, started: Option<Timestamp>, before: Option<&Self>) -> Self {
        let wanted = |name: &str| matches!(name, REQUESTS | DURATION_BUCKET | DURATION_COUNT);
        let mut values = HashMap::new();
        for sample in samples(text, wanted).filter(|s| s.value.is_finite() && s.value >= 0.0) {
            let value = sample.value;
            let Some(series) = Series::of(sample) else { continue };
            let known = before.and_then(|b| b.values.get_key_value(&series)).map(|(known, _)| known.clone());
            values.insert(known.unwrap_or_else(|| Arc::new(series)), value);
        }
        Self { values, started }
    }
}

/// What all proxies had counted at one instant.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When they were read.
    pub at: Timestamp,
    /// Pages by proxy. One that did not answer keeps its last page, so that its next one is a bigger increment and no new proxy.
    pub pages: HashMap<String, Arc<Page>>,
}

/// What was counted between two snapshots.
///
/// # Errors
/// An edge is asked for that no bucket has.
pub fn difference(before: &Snapshot, after: &Snapshot, query: &ArmQuery) -> Result<Reading, SourceProblem> {
    let buckets = || {
        let of_arms =
            |series: &&Arc<Series>| series.metric == Metric::Bucket && (series.is_of(&query.stable) || series.is_of(&query.canary));
        let pages = after.pages.iter().flat_map(|(target, page)| page.values.keys().filter(of_arms).map(move |series| (target, series)));
        common_edges(
            pages.filter_map(|(target, series)| Some((format!("{target} {}", series.histogram()), series.label("le").parse().ok()?))),
        )
    };
    let mut tally = Tally::new(query, edges_read(query, buckets));
    for (target, page) in &after.pages {
        let old = before.pages.get(target);
        if old.is_some_and(|old| Arc::ptr_eq(old, page)) {
            page.values.keys().for_each(|series| tally.note_edge(series));
            continue;
        }
        // A proxy that began since then has counted nothing that was not ours; one that was only found now may have.
        let counts_from_zero = old.is_some() || page.started.is_some_and(|started| started >= before.at);
        for (series, value) in &page.values {
            tally.note_edge(series);
            let increase = match old.and_then(|old| old.values.get(series)) {
                Some(old) if value >= old => value - old,
                // It began anew, or is new: either way from 0.
                Some(_) | None if counts_from_zero => *value,
                Some(_) | None => 0.0,
            };
            if increase > 0.0 {
                tally.add(series, increase);
            }
        }
    }
    tally.missing_edge().map_or_else(|| Ok(tally.reading(before.at, after.at)), |what| Err(SourceProblem::Missing { what }))
}

/// Sums of increases, by arm.
struct Tally<'q> {
    query: &'q ArmQuery,
    stable: Sum,
    canary: Sum,
    no_healthy_upstream: f64,
    no_cluster: f64,
    /// Edges that are counted.
    read: Vec<f64>,
    /// Edges that are there.
    edges: BTreeSet<Box<str>>,
}

#[derive(Default)]
struct Sum {
    n: f64,
    errors: f64,
    timed: f64,
    within: Vec<f64>,
}

impl<'q> Tally<'q> {
    fn new(query: &'q ArmQuery, read: Vec<f64>) -> Self {
        let sum = || Sum { within: vec![0.0; read.len()], ..Sum::default() };
        let (stable, canary) = (sum(), sum());
        Self { query, stable, canary, no_healthy_upstream: 0.0, no_cluster: 0.0, read, edges: BTreeSet::new() }
    }

    fn note_edge(&mut self, series: &Series) {
        if series.metric == Metric::Bucket && !self.query.edges.is_empty() && !self.edges.contains(series.label("le")) {
            self.edges.insert(series.label("le").into());
        }
    }

    fn add(&mut self, series: &Series, increase: f64) {
        let query = self.query;
        let sum = if series.is_of(&query.stable) {
            &mut self.stable
        } else if series.is_of(&query.canary) {
            &mut self.canary
        } else {
            // It reached no version: only the service is known.
            if series.metric == Metric::Requests && series.is_for(query) {
                self.no_healthy_upstream += if series.has_flag("UH") { increase } else { 0.0 };
                self.no_cluster += if series.has_flag("NC") { increase } else { 0.0 };
            }
            return;
        };
        // Calls to a workload through another service are not this service's requests.
        if !series.is_for(query) && !series.label("destination_service").is_empty() {
            return;
        }
        match series.metric {
            Metric::Requests => {
                sum.n += increase;
                sum.errors += if failed(|name| series.label(name)) { increase } else { 0.0 };
            }
            Metric::Timed => sum.timed += increase,
            Metric::Bucket => {
                let le: f64 = series.label("le").parse().unwrap_or(f64::NAN);
                for (edge, within) in self.read.iter().zip(&mut sum.within) {
                    *within += if le == *edge { increase } else { 0.0 };
                }
            }
        }
    }

    fn missing_edge(&self) -> Option<String> {
        let mut edges: Vec<f64> = self.edges.iter().filter_map(|le| le.parse().ok()).filter(|le: &f64| le.is_finite()).collect();
        if edges.is_empty() {
            return None;
        }
        let lacks = self.query.edges.iter().find(|edge| !edges.contains(edge))?;
        edges.sort_by(f64::total_cmp);
        let edges: Vec<String> = edges.iter().map(ToString::to_string).collect();
        Some(format!(
            "the proxies' histogram has no edge at {lacks} ms, so nobody can tell which requests were slower: write one of its edges in slowerThan ({} ms)",
            edges.join(", ")
        ))
    }

    fn reading(&self, from: Timestamp, to: Timestamp) -> Reading {
        let counts = |sum: &Sum| {
            // A page is read at one instant, and its histograms were merged at another.
            let slower = self.read.iter().zip(&sum.within).map(|(edge, within)| (*edge, (sum.timed - within).clamp(0.0, sum.timed)));
            ArmCounts { n: sum.n, errors: sum.errors.min(sum.n), timed: sum.timed, slower: slower.collect() }
        };
        Reading {
            from,
            to,
            stable: counts(&self.stable),
            canary: counts(&self.canary),
            history: Vec::new(),
            no_healthy_upstream: self.no_healthy_upstream,
            no_cluster: self.no_cluster,
            answers: Vec::new(),
            counted: Vec::new(),
        }
    }
}
