//! What the controller is told at its start. Deliberately reads no environment and no files: the binary does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serin_core::units::Timestamp;

use crate::lease::LeaseOptions;
use crate::observe::source::MetricSource;

/// Reads the wall clock. Handed in, so that hours pass in a test without waiting; waits go by tokio's clock.
pub type Clock = Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>;

/// Where requests are counted.
#[derive(Clone)]
pub enum Source {
    /// Istio's proxies themselves, at this port of each pod that has one.
    Proxies {
        /// 15090 in Istio.
        port: u16,
    },
    /// Something else that counts.
    Custom(Arc<dyn MetricSource>),
}

/// What a controller needs to know.
#[derive(Clone)]
pub struct Config {
    /// The one clock.
    pub clock: Clock,
    /// Only this namespace; `None`: all.
    pub namespace: Option<String>,
    /// Where requests are counted for a release that names no source.
    pub source: Source,
    /// What a release may name in `spec.analysis.source`; `Proxies` is known wherever it is the source of the others.
    pub sources: BTreeMap<String, Source>,
}

impl Config {
    /// The usual one: all namespaces, counted at Istio's proxies.
    pub fn new(clock: Clock) -> Self {
        Self { clock, namespace: None, source: Source::Proxies { port: PROXIES_PORT }, sources: BTreeMap::new() }
    }

    /// Whether proxies are read at all.
    pub(crate) fn reads_proxies(&self) -> bool {
        std::iter::once(&self.source).chain(self.sources.values()).any(|s| matches!(s, Source::Proxies { .. }))
    }
}

/// Istio's port of a proxy's own metrics.
pub const PROXIES_PORT: u16 = 15_090;

/// What a controller in a cluster is told beside it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Istio's root namespace.
    pub root_namespace: String,
    /// The controller's own namespace, whose policy `default` holds for releases that name none; `None`: no policy does.
    pub home: Option<String>,
    /// Who this is among several controllers: the pod's name. Shown in events, and held by the lease.
    pub identity: String,
    /// Among several controllers the one that holds this lease acts; `None`: this one acts.
    pub lease: Option<LeaseOptions>,
    /// Where health, readiness and metrics are served; `None`: nowhere.
    pub serve: Option<SocketAddr>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            root_namespace: serin_core::route::rules::ROOT_NAMESPACE.to_owned(),
            home: None,
            identity: "serin".to_owned(),
            lease: None,
            serve: None,
        }
    }
}

/// The clock, as the core counts.
pub(crate) fn now(clock: &Clock) -> Timestamp {
    Timestamp(clock().as_millisecond())
}
