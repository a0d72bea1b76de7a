//! Which source a release is counted by: the controller's usual one, or one that it names.
//!
//! No release carries a URL: a name leads to what the controller's own configuration says of it. Deliberately counts nothing
//! itself.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use futures::future::BoxFuture;
use serin_api::convert::PROXIES;
use serin_core::observe::SourceProblem;
use serin_core::plan::Problem;

use super::cluster::Cluster;
use super::proxies::Proxies;
use super::source::{ArmQuery, Cursor, MetricSource, Polled};
use crate::config::{Config, Source};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SourceChoice {
    /// The controller's usual one.
    #[default]
    Usual,
    /// One of those that the controller's configuration names.
    Named(String),
}

/// All sources of a controller, behind one face.
pub(crate) struct Sources {
    usual: Arc<dyn MetricSource>,
    named: BTreeMap<String, Arc<dyn MetricSource>>,
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
        Self { usual, named }
    }

    /// The source of a release that writes this in `spec.analysis.source`.
    ///
    /// # Errors
    /// There is none of that name, and which there are.
    pub(crate) fn choose(&self, name: Option<&str>) -> Result<SourceChoice, Problem> {
        let Some(name) = name else { return Ok(SourceChoice::Usual) };
        if self.named.contains_key(name) {
            return Ok(SourceChoice::Named(name.to_owned()));
        }
        let known: Vec<&str> = self.named.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "it names none".to_owned() } else { format!("it names {}", known.join(", ")) };
        Err(Problem {
            path: "spec.analysis.source".into(),
            what: format!("the controller's configuration has no source {name:?}; {known}. Write one of these, or leave the field out"),
        })
    }
}

impl MetricSource for Sources {
    fn poll(&self, query: ArmQuery, cursor: Option<Cursor>) -> BoxFuture<'_, Polled> {
        let source = match &query.source {
            SourceChoice::Usual => Some(&self.usual),
            SourceChoice::Named(name) => self.named.get(name),
        };
        match source {
            Some(source) => source.poll(query, cursor),
            // Names are checked before anything is asked.
            None => Box::pin(futures::future::ready(Err(SourceProblem::Missing { what: "no such source".into() }))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_nobody_configured_is_answered_with_those_that_are() {
        let mut config = Config::new(Arc::new(|| jiff::Timestamp::UNIX_EPOCH));
        let choose = |config: &Config, name| Sources::new(config, &Arc::default()).choose(name);
        assert_eq!(choose(&config, None), Ok(SourceChoice::Usual));
        assert_eq!(choose(&config, Some("Proxies")), Ok(SourceChoice::Named("Proxies".into())));
        config.sources.insert("main".into(), Source::Proxies { port: 15_020 });
        assert_eq!(choose(&config, Some("main")), Ok(SourceChoice::Named("main".into())));
        let problem = choose(&config, Some("mian")).expect_err("a name nobody configured");
        assert_eq!(problem.path, "spec.analysis.source");
        assert!(problem.what.contains("\"mian\"; it names Proxies, main"), "{}", problem.what);
    }
}
