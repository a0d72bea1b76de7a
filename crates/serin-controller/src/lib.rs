//! The controller: observe, decide, write, act, sleep.
//!
//! Reading order: `run` (the loop), `observe` (cluster and metrics → one `Observation`), `act` (one `Action` → API calls). Deliberately
//! decides nothing: that is `serin_core::decide`.

pub mod act;
pub mod observe;
mod run;

use std::sync::Arc;

use serin_core::observe::{Reading, SourceProblem};
use serin_core::units::Timestamp;
use tokio_util::sync::CancellationToken;

use observe::proxies::ArmQuery;

/// Reads the wall clock. Handed in, so that tests can run on a paused clock.
pub type Clock = Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>;

/// Another source of metrics than the proxies.
pub trait MetricSource: Send + Sync {
    /// The increases since the last call for the same arms.
    fn poll<'a>(&'a self, query: &'a ArmQuery, now: Timestamp) -> futures::future::BoxFuture<'a, Result<Reading, SourceProblem>>;
}

/// Where metrics come from.
#[derive(Clone)]
pub enum Source {
    /// Istio's proxies themselves, at this port of each pod that has one.
    Proxies {
        /// 15090 in Istio.
        port: u16,
    },
    /// Something else.
    Custom(Arc<dyn MetricSource>),
}

/// What a controller needs to know.
#[derive(Clone)]
pub struct Config {
    /// The wall clock.
    pub clock: Clock,
    /// Only this namespace; `None`: all.
    pub namespace: Option<String>,
    /// Where metrics come from.
    pub source: Source,
}

/// Why the controller did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The API server did not answer, or refused.
    #[error("ask the API server which versions of networking.istio.io it serves: {0}")]
    Discovery(Box<kube::Error>),
}

/// Runs until `stop`: looks that are under way end first.
///
/// # Errors
/// The API server is out of reach at the start.
pub async fn run(client: kube::Client, config: Config, stop: CancellationToken) -> Result<(), StartError> {
    let istio = istio_version(&client).await?;
    let cluster = observe::cluster::Cluster::watch(&client, config.namespace.clone(), &istio, &stop);
    let context = run::Context {
        cluster,
        hands: act::Hands { client, istio },
        clock: config.clock,
        source: config.source,
        proxies: observe::proxies::Proxies::default(),
    };
    run::run(Arc::new(context), stop).await;
    Ok(())
}

/// `v1`, else the newest older one that is served. Without Istio's CRDs `v1`: its watches find them once they are there.
async fn istio_version(client: &kube::Client) -> Result<String, StartError> {
    let groups = client.list_api_groups().await.map_err(|e| StartError::Discovery(Box::new(e)))?;
    let istio = groups.groups.iter().find(|g| g.name == "networking.istio.io");
    let served = |version: &&str| istio.is_some_and(|g| g.versions.iter().any(|v| v.version == *version));
    Ok(["v1", "v1beta1", "v1alpha3"].iter().copied().find(served).unwrap_or("v1").to_string())
}
