//! What a source of metrics is asked and what it answers.
//!
//! The answer is increments between two readings, never counters. Deliberately no verdicts, and no state of a source's own:
//! what it needs to go on is the cursor, which the loop keeps only once what was read is written down.

use std::any::Any;
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
    /// The service that both arms stand behind.
    pub service: ServiceName,
    /// The version that serves.
    pub stable: Arm,
    /// The version on trial.
    pub canary: Arm,
    /// Bucket edges, in milliseconds, of which the slower requests are wanted.
    pub edges: Vec<f64>,
    /// How often it is asked: what is older than three of these is stale.
    pub interval: Duration,
    /// Which source is asked.
    pub source: SourceChoice,
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
    let arm = || serin_core::observe::ArmCounts { n: 0.0, errors: 0.0, slower: edges.iter().map(|e| (*e, 0.0)).collect() };
    Reading { from: at, to: at, stable: arm(), canary: arm(), history: Vec::new(), no_healthy_upstream: 0.0, no_cluster: 0.0 }
}
