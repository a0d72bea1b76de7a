//! What a source of metrics is asked and what it answers.
//!
//! The answer is increments between two readings, never counters. Deliberately no verdicts, and no state of a source's own:
//! what it needs to go on is the cursor, which the loop keeps only once what was read is written down.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serin_core::observe::{Reading, SourceProblem};
use serin_core::route::ServiceName;
use serin_core::units::{ObjectName, Timestamp, VersionName};

use super::choose::SourceChoice;

/// One arm, as metrics name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arm {
    /// The version, for messages.
    pub version: VersionName,
    /// The workload that answers: `destination_workload` and its namespace.
    pub workload: ObjectName,
}

/// What is to be counted.
#[derive(Clone, Debug, PartialEq)]
pub struct ArmQuery {
    /// The rollout that asks; another one begins anew.
    pub rollout: String,
    /// What the plan wants to know, as `Plan::questions` has it: an answer to another one is none.
    pub questions: String,
    /// Nothing moves yet: what cannot be answered is better said now. Later a part that has no answer must not blind the rest.
    pub preparing: bool,
    /// The service that both arms stand behind.
    pub service: ServiceName,
    /// The version that serves.
    pub stable: Arm,
    /// The version on trial.
    pub canary: Arm,
    /// Bucket edges, in milliseconds, of which the slower requests are wanted.
    pub edges: Vec<f64>,
    /// Besides these, every edge that all histograms of both arms have.
    pub all_edges: bool,
    /// The plan's queries with limits, filled in: name and PromQL.
    pub limits: Vec<(String, String)>,
    /// The plan's pairs of counters, filled in.
    pub counters: Vec<CountersQuery>,
    /// How often it is asked: what is older than three of these is stale.
    pub interval: Duration,
    /// Which source is asked.
    pub source: SourceChoice,
}

/// A pair of counters, as selectors of series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountersQuery {
    /// The metric's name.
    pub name: String,
    /// Of stable: the bad ones, and all.
    pub stable: (String, String),
    /// Of the canary.
    pub canary: (String, String),
}

/// Where a source stood after a reading. Opaque: each source packs what it needs to go on.
#[derive(Clone)]
pub struct Cursor(Arc<dyn Any + Send + Sync>);

impl Cursor {
    /// Packs.
    pub fn new(inner: impl Any + Send + Sync) -> Self {
        Self(Arc::new(inner))
    }

    /// Unpacks; `None` for another source's.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.0.clone().downcast().ok()
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cursor")
    }
}

/// A reading and where it ended.
pub type Polled = Result<(Reading, Cursor), SourceProblem>;

/// Something that counts requests.
pub trait MetricSource: Send + Sync + 'static {
    /// Counts since `cursor`, or begins: without one the reading is empty and only tells where counting begins. The same cursor
    /// may be given twice, when what was read with it could not be written down.
    ///
    /// # Errors
    /// Why there is no answer; the cursor stays good.
    fn poll(&self, query: ArmQuery, cursor: Option<Cursor>) -> BoxFuture<'_, Polled>;
}

/// The reading that begins: no requests, between `at` and `at`.
pub fn beginning(at: Timestamp, edges: &[f64]) -> Reading {
    let arm = || serin_core::observe::ArmCounts { n: 0.0, errors: 0.0, timed: 0.0, slower: edges.iter().map(|e| (*e, 0.0)).collect() };
    Reading {
        from: at,
        to: at,
        stable: arm(),
        canary: arm(),
        history: Vec::new(),
        no_healthy_upstream: 0.0,
        no_cluster: 0.0,
        answers: Vec::new(),
        counted: Vec::new(),
    }
}

/// The innermost cause, which is the one that says something.
pub(crate) fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The edges, in milliseconds, that every one of these histograms has: each is a name of its own and one of its edges.
pub(crate) fn common_edges(buckets: impl Iterator<Item = (String, f64)>) -> Vec<f64> {
    let mut of: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (histogram, edge) in buckets.filter(|(_, edge)| edge.is_finite()) {
        of.entry(histogram).or_default().push(edge);
    }
    let Some((_, first)) = of.first_key_value() else { return Vec::new() };
    let mut edges: Vec<f64> = first.iter().copied().filter(|edge| of.values().all(|other| other.contains(edge))).collect();
    edges.sort_by(f64::total_cmp);
    edges.dedup();
    edges
}

/// The edges that are read: those asked for, and the common ones where all are wanted.
pub(crate) fn edges_read(query: &ArmQuery, common: impl FnOnce() -> Vec<f64>) -> Vec<f64> {
    let mut edges = query.edges.clone();
    if query.all_edges {
        edges.extend(common());
        edges.sort_by(f64::total_cmp);
        edges.dedup();
    }
    edges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_edges_that_every_histogram_has_are_read() {
        let buckets = [("a", 1.0), ("a", 5.0), ("a", f64::INFINITY), ("b", 5.0), ("b", 10.0), ("b", f64::INFINITY)];
        assert_eq!(common_edges(buckets.into_iter().map(|(h, e)| (h.to_owned(), e))), [5.0]);
        assert_eq!(common_edges(std::iter::empty()), Vec::<f64>::new());
    }
}
