//! Which source a release is counted by: the controller's usual one, or one that it names.
//!
//! No release carries a URL: a name leads to what its policy says of it, else to what the controller's own configuration says. Deliberately
//! counts nothing itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use futures::future::BoxFuture;
use serin_api::convert::PROXIES;
use serin_api::policy::{PolicySource, PrometheusSpec};
use serin_api::values;
use serin_core::observe::SourceProblem;
use serin_core::plan::Problem;

use super::cluster::Cluster;
use super::prometheus::{OptionsError, Prometheus, PrometheusOptions};
use super::proxies::Proxies;
use super::source::{ArmQuery, Cursor, MetricSource, Polled};
use crate::config::{Clock, Config, Source};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SourceChoice {
    /// The controller's usual one.
    #[default]
    Usual,
    /// One of those that the controller's configuration names.
    Named(String),
    /// One that a policy describes.
    Described(PrometheusSpec),
}

/// Headers that carry a secret.
const SECRET_HEADERS: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];
/// Headers that are the connection's own.
const OWN_HEADERS: [&str; 4] = ["host", "content-length", "transfer-encoding", "connection"];

/// More clients than this of policies that came and went are let go.
const CLIENTS: usize = 1024;

/// All sources of a controller, behind one face.
pub(crate) struct Sources {
    usual: Arc<dyn MetricSource>,
    named: BTreeMap<String, Arc<dyn MetricSource>>,
    clock: Clock,
    /// Of policies, made when first named: a client keeps its connections.
    described: Mutex<HashMap<PrometheusSpec, Arc<Prometheus>>>,
}

impl Sources {
    pub(crate) fn new(config: &Config, cluster: &Arc<RwLock<Cluster>>) -> Self {
        let make = |source: &Source| -> Arc<dyn MetricSource> {
            match source {
                Source::Proxies { port } => Arc::new(Proxies::new(cluster.clone(), config.clock.clone(), *port)),
                Source::Custom(source) => source.clone(),
            }
        };
        let usual = make(&config.source);
        let mut named: BTreeMap<String, Arc<dyn MetricSource>> =
            config.sources.iter().map(|(name, source)| (name.clone(), make(source))).collect();
        if matches!(config.source, Source::Proxies { .. }) {
            named.entry(PROXIES.to_owned()).or_insert_with(|| usual.clone());
        }
        Self { usual, named, clock: config.clock.clone(), described: Mutex::default() }
    }

    /// The source of a release that writes this in `spec.analysis.source`, with those that its policy describes.
    ///
    /// # Errors
    /// There is none of that name, and which there are; or what of the policy's description cannot be used.
    pub(crate) fn choose(&self, name: Option<&str>, of_policy: &[PolicySource]) -> Result<SourceChoice, Problem> {
        let Some(name) = name else { return Ok(SourceChoice::Usual) };
        if let Some((index, source)) = of_policy.iter().enumerate().find(|(_, s)| s.name == name) {
            let at = |(field, what): (&str, String)| Problem { path: format!("spec.sources[{index}].prometheus{field}"), what };
            return match self.client(&source.prometheus) {
                Ok(_) => Ok(SourceChoice::Described(source.prometheus.clone())),
                Err(problem) => Err(at(problem)),
            };
        }
        if self.named.contains_key(name) {
            return Ok(SourceChoice::Named(name.to_owned()));
        }
        let known: Vec<&str> = of_policy.iter().map(|s| s.name.as_str()).chain(self.named.keys().map(String::as_str)).collect();
        let known = if known.is_empty() { "they name none".to_owned() } else { format!("they name {}", known.join(", ")) };
        Err(Problem {
            path: "spec.analysis.source".into(),
            what: format!(
                "neither the policy nor the controller's configuration has a source {name:?}; {known}. Write one of these, or leave the field out"
            ),
        })
    }

    /// The client for what a policy describes.
    ///
    /// # Errors
    /// The field that cannot be used, and why.
    fn client(&self, spec: &PrometheusSpec) -> Result<Arc<Prometheus>, (&'static str, String)> {
        let mut clients = self.described.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(spec) {
            return Ok(client.clone());
        }
        let client = Arc::new(Prometheus::new(&options(spec)?, self.clock.clone()).map_err(|error| {
            let field = match &error {
                OptionsError::Url { .. } => ".url",
                OptionsError::Header { .. } => ".headers",
                OptionsError::Pem { .. } => "",
            };
            (field, error.to_string())
        })?);
        if clients.len() >= CLIENTS {
            clients.retain(|_, client| Arc::strong_count(client) > 1);
        }
        clients.insert(spec.clone(), client.clone());
        Ok(client)
    }
}

fn options(spec: &PrometheusSpec) -> Result<PrometheusOptions, (&'static str, String)> {
    let header_of = |list: &[&str]| spec.headers.keys().find(|name| list.contains(&name.to_ascii_lowercase().as_str()));
    if let Some(name) = header_of(&SECRET_HEADERS) {
        let what = format!(
            "{name} is a secret, and many may read this object: name this source in the controller's configuration file, with tokenFile"
        );
        return Err((".headers", what));
    }
    if let Some(name) = header_of(&OWN_HEADERS) {
        return Err((".headers", format!("{name} is the connection's own, and follows from the url: leave it out")));
    }
    let time = |field: &'static str, text: &Option<String>, usual| match text {
        None => Ok(usual),
        Some(text) => values::duration(text).map_err(|what| (field, what)),
    };
    let usual = PrometheusOptions::new(&spec.url);
    let timeout = time(".timeout", &spec.timeout, usual.timeout)?;
    if timeout.is_zero() {
        return Err((".timeout", "0s: no answer comes in no time; leave it out for 10s".into()));
    }
    Ok(PrometheusOptions {
        headers: spec.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        timeout,
        delay: time(".delay", &spec.delay, usual.delay)?,
        replica_labels: if spec.replica_labels.is_empty() { usual.replica_labels.clone() } else { spec.replica_labels.clone() },
        ..usual
    })
}

impl MetricSource for Sources {
    fn poll(&self, query: ArmQuery, cursor: Option<Cursor>) -> BoxFuture<'_, Polled> {
        // Names and descriptions are checked before anything is asked.
        let gone = |what: String| Err(SourceProblem::Missing { what });
        match &query.source {
            SourceChoice::Usual => self.usual.poll(query, cursor),
            SourceChoice::Named(name) => match self.named.get(name) {
                Some(source) => source.poll(query, cursor),
                None => Box::pin(futures::future::ready(gone("no such source".into()))),
            },
            SourceChoice::Described(spec) => match self.client(spec) {
                Ok(client) => Box::pin(async move { client.poll(query, cursor).await }),
                Err((_, what)) => Box::pin(futures::future::ready(gone(what))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_nobody_configured_is_answered_with_those_that_are() {
        let mut config = Config::new(Arc::new(|| jiff::Timestamp::UNIX_EPOCH));
        let choose = |config: &Config, name| Sources::new(config, &Arc::default()).choose(name, &[]);
        assert_eq!(choose(&config, None), Ok(SourceChoice::Usual));
        assert_eq!(choose(&config, Some("Proxies")), Ok(SourceChoice::Named("Proxies".into())));
        config.sources.insert("main".into(), Source::Proxies { port: 15_020 });
        assert_eq!(choose(&config, Some("main")), Ok(SourceChoice::Named("main".into())));
        let problem = choose(&config, Some("mian")).expect_err("a name nobody configured");
        assert_eq!(problem.path, "spec.analysis.source");
        assert!(problem.what.contains("\"mian\"; they name Proxies, main"), "{}", problem.what);
    }

    #[test]
    fn a_policys_source_comes_before_the_controllers_and_what_is_wrong_with_it_is_said() {
        let mut config = Config::new(Arc::new(|| jiff::Timestamp::UNIX_EPOCH));
        config.sources.insert("main".into(), Source::Proxies { port: 15_020 });
        let sources = Sources::new(&config, &Arc::default());
        let policy = |prometheus: serde_json::Value| -> Vec<PolicySource> {
            serde_json::from_value(serde_json::json!([{"name": "main", "prometheus": prometheus}])).expect("a policy's sources")
        };
        let good = policy(serde_json::json!({"url": "http://p:9090", "headers": {"X-Scope-OrgID": "shop"}, "timeout": "5s"}));
        assert_eq!(sources.choose(Some("main"), &good), Ok(SourceChoice::Described(good[0].prometheus.clone())));
        assert_eq!(sources.choose(None, &good), Ok(SourceChoice::Usual));
        assert_eq!(sources.choose(Some("Proxies"), &good), Ok(SourceChoice::Named("Proxies".into())));
        for (prometheus, path, what) in [
            (serde_json::json!({"url": "p:9090"}), ".url", "is no URL of a Prometheus"),
            (serde_json::json!({"url": "http://p", "headers": {"Authorization": "Bearer x"}}), ".headers", "is a secret"),
            (serde_json::json!({"url": "http://p", "headers": {"a b": "x"}}), ".headers", "is no header"),
            (serde_json::json!({"url": "http://p", "headers": {"Host": "x"}}), ".headers", "the connection's own"),
            (serde_json::json!({"url": "http://p", "timeout": "soon"}), ".timeout", "soon"),
            (serde_json::json!({"url": "http://p", "timeout": "0s"}), ".timeout", "no answer comes"),
            (serde_json::json!({"url": "http://p:99999"}), ".url", "is no URL of a Prometheus"),
        ] {
            let problem = sources.choose(Some("main"), &policy(prometheus)).expect_err(path);
            assert_eq!(problem.path, format!("spec.sources[0].prometheus{path}"));
            assert!(problem.what.contains(what), "{}", problem.what);
        }
    }
}
