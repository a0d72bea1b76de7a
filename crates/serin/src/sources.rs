//! The controller's configuration file: sources of metrics by name.
//!
//! Whoever may write a release may not choose where the controller sends its questions and its tokens: that is said here, once.
//! Deliberately reads the file at the start only; a bearer token alone is read anew for each question, as tokens are renewed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serin_controller::observe::prometheus::matrix::Series;
use serin_controller::{Clock, Config, PROXIES_PORT, PrometheusOptions, Source};
use serin_core::observe::SourceProblem;
use serin_core::route::ServiceName;

use crate::exit::Failure;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    /// Which of them is asked for a release that names none; absent: the first.
    default_source: Option<String>,
    sources: Vec<Named>,
}

/// One source: exactly one of the kinds.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Named {
    name: String,
    prometheus: Option<Prometheus>,
    proxies: Option<Proxies>,
}

/// Istio's proxies themselves.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proxies {
    port: Option<u16>,
}

/// A Prometheus, and how it is asked.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Prometheus {
    /// As `http://prometheus.monitoring:9090`.
    pub(crate) url: String,
    /// A bearer token; read for each question.
    pub(crate) token_file: Option<PathBuf>,
    /// Certificates to trust instead of the system's, as PEM.
    pub(crate) ca_file: Option<PathBuf>,
    /// A certificate to show, as PEM.
    pub(crate) certificate_file: Option<PathBuf>,
    /// Its key, as PEM.
    pub(crate) key_file: Option<PathBuf>,
    /// Headers to send, as `X-Scope-OrgID`.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// The longest that an answer may take.
    #[serde(default, deserialize_with = "duration")]
    pub(crate) timeout: Option<Duration>,
    /// How far behind the clock it is asked.
    #[serde(default, deserialize_with = "duration")]
    pub(crate) delay: Option<Duration>,
    /// Labels that tell replicas of one Prometheus apart.
    pub(crate) replica_labels: Option<Vec<String>>,
}

/// One Prometheus, by flags.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct PrometheusArgs {
    /// The Prometheus to ask, as http://prometheus.monitoring:9090
    #[arg(long, value_name = "URL")]
    pub(crate) prometheus_url: Option<String>,
    /// A file with a bearer token for it, read anew for each question
    #[arg(long, value_name = "FILE", requires = "prometheus_url")]
    prometheus_token_file: Option<PathBuf>,
    /// A file with the certificates (PEM) to trust for it, instead of the system's
    #[arg(long, value_name = "FILE", requires = "prometheus_url")]
    prometheus_ca: Option<PathBuf>,
    /// A header to send to it, as X-Scope-OrgID=team; may be given several times
    #[arg(long, value_name = "NAME=VALUE", requires = "prometheus_url", value_parser = header)]
    prometheus_header: Vec<(String, String)>,
    /// A file with the certificate (PEM) to show to it
    #[arg(long, value_name = "FILE", requires = "prometheus_key")]
    prometheus_certificate: Option<PathBuf>,
    /// A file with that certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "prometheus_certificate")]
    prometheus_key: Option<PathBuf>,
    /// The longest that an answer of it may take
    #[arg(long, value_name = "DURATION", value_parser = crate::cmd::duration, requires = "prometheus_url")]
    prometheus_timeout: Option<Duration>,
    /// How far behind the clock it is asked, as scrapes are stored some time after their moment [default: 2s]
    #[arg(long, value_name = "DURATION", value_parser = crate::cmd::duration, requires = "prometheus_url")]
    prometheus_delay: Option<Duration>,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is no header: write NAME=VALUE"))?;
    Ok((name.to_string(), value.to_string()))
}

impl PrometheusArgs {
    /// What the flags describe; `None` without a URL.
    pub(crate) fn described(&self) -> Option<Prometheus> {
        Some(Prometheus {
            url: self.prometheus_url.clone()?,
            token_file: self.prometheus_token_file.clone(),
            ca_file: self.prometheus_ca.clone(),
            certificate_file: self.prometheus_certificate.clone(),
            key_file: self.prometheus_key.clone(),
            headers: self.prometheus_header.iter().cloned().collect(),
            timeout: self.prometheus_timeout,
            delay: self.prometheus_delay,
            ..Prometheus::default()
        })
    }
}

fn duration<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    serin_api::values::duration(&text).map(Some).map_err(serde::de::Error::custom)
}

impl Prometheus {
    /// The source that it describes.
    ///
    /// # Errors
    /// A file that cannot be read, or what of the description cannot be used.
    pub(crate) fn source(&self, clock: &Clock) -> Result<Source, Failure> {
        Ok(Source::Custom(Arc::new(self.client(clock)?)))
    }

    /// What callers counted of a service in the time that is over, as raw samples.
    ///
    /// # Errors
    /// What of the description cannot be used, or why there is no answer.
    pub(crate) async fn record(&self, service: &ServiceName, past: Duration) -> Result<Vec<Series>, Failure> {
        let clock: Clock = Arc::new(jiff::Timestamp::now);
        self.client(&clock)?.record(service, past).await.map_err(|problem| {
            let what = match problem {
                SourceProblem::Unreachable { what } | SourceProblem::Missing { what } => what,
                SourceProblem::Stale { age_s } => format!("its newest samples are {age_s} s old"),
            };
            Failure::new(format!("cannot read what was recorded: {what}"))
        })
    }

    /// The same as what it is.
    ///
    /// # Errors
    /// As `source`.
    pub(crate) fn client(&self, clock: &Clock) -> Result<serin_controller::Prometheus, Failure> {
        let read = |file: &Option<PathBuf>| {
            file.as_ref().map(|p| std::fs::read(p).map_err(|e| Failure::new(format!("cannot read {}: {e}", p.display())))).transpose()
        };
        let identity = match (read(&self.certificate_file)?, read(&self.key_file)?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(Failure::new("a client certificate for Prometheus needs its key: add keyFile")),
            (None, Some(_)) => return Err(Failure::new("a key for Prometheus needs its certificate: add certificateFile")),
        };
        if let Some(token) = &self.token_file {
            // Read again for each question; what is wrong with it is better said now.
            std::fs::read_to_string(token).map_err(|e| Failure::new(format!("cannot read the token {}: {e}", token.display())))?;
        }
        let usual = PrometheusOptions::new(&self.url);
        let options = PrometheusOptions {
            token_file: self.token_file.clone(),
            ca: read(&self.ca_file)?,
            identity,
            headers: self.headers.iter().map(|(n, v)| (n.clone(), v.clone())).collect(),
            timeout: self.timeout.unwrap_or(usual.timeout),
            delay: self.delay.unwrap_or(usual.delay),
            replica_labels: self.replica_labels.clone().unwrap_or_else(|| usual.replica_labels.clone()),
            ..usual
        };
        serin_controller::Prometheus::new(&options, clock.clone()).map_err(|e| Failure::new(format!("cannot ask Prometheus: {e}")))
    }
}

/// Reads the file into the controller's configuration.
///
/// # Errors
/// It cannot be read, or what is wrong in it.
pub(crate) fn read(path: &Path, config: Config) -> Result<Config, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| Failure::new(format!("cannot read {}: {e}", path.display())))?;
    parse(&text, config).map_err(|failure| Failure { what: format!("{}: {}", path.display(), failure.what), ..failure })
}

fn parse(text: &str, mut config: Config) -> Result<Config, Failure> {
    const SHAPE: &str = "write it as: {sources: [{name: main, prometheus: {url: \"http://prometheus.monitoring:9090\"}}]}";
    let file: File = serde_saphyr::from_str(text).map_err(|e| Failure::new(format!("{e}")).hint(SHAPE))?;
    let mut names = BTreeSet::new();
    for named in &file.sources {
        let source = match (&named.prometheus, &named.proxies) {
            (Some(prometheus), None) => {
                prometheus.source(&config.clock).map_err(|f| Failure { what: format!("source {}: {}", named.name, f.what), ..f })?
            }
            (None, Some(proxies)) => Source::Proxies { port: proxies.port.unwrap_or(PROXIES_PORT) },
            _ => return Err(Failure::new(format!("source {}: exactly one of prometheus and proxies", named.name)).hint(SHAPE)),
        };
        if !names.insert(named.name.clone()) {
            return Err(Failure::new(format!("source {}: two have this name", named.name)));
        }
        config.sources.insert(named.name.clone(), source);
    }
    let usual = file
        .default_source
        .as_ref()
        .or(file.sources.first().map(|s| &s.name))
        .ok_or_else(|| Failure::new("it names no source").hint(SHAPE))?;
    let listed: Vec<String> = names.into_iter().collect();
    let source = config.sources.get(usual).cloned();
    config.source = source
        .ok_or_else(|| Failure::new(format!("defaultSource: there is no source {usual}; there is {}", crate::cluster::listed(&listed))))?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        parse(text, Config::new(Arc::new(|| jiff::Timestamp::UNIX_EPOCH))).map_err(|f| f.what)
    }

    #[test]
    fn sources_are_read_by_name_and_one_is_the_usual() {
        let text = "defaultSource: near\nsources:\n- {name: main, prometheus: {url: 'http://p:9090', headers: {X-Scope-OrgID: shop}, timeout: 5s, delay: 500ms}}\n- {name: near, proxies: {port: 15020}}\n";
        let config = read(text).expect("a configuration");
        assert_eq!(config.sources.keys().collect::<Vec<_>>(), ["main", "near"]);
        assert!(matches!(config.source, Source::Proxies { port: 15020 }));
        assert!(matches!(read("sources: [{name: main, prometheus: {url: 'http://p:9090'}}]").expect("one").source, Source::Custom(_)));
    }

    #[test]
    fn what_is_wrong_in_the_file_is_said() {
        for (text, said) in [
            ("sources: []", "names no source"),
            ("sources: [{name: a}]", "source a: exactly one of"),
            ("sources: [{name: a, proxies: {}}, {name: a, proxies: {}}]", "two have this name"),
            ("defaultSource: b\nsources: [{name: a, proxies: {}}]", "there is no source b; there is a"),
            ("sources: [{name: a, prometheus: {url: 'p:9090'}}]", "source a: cannot ask Prometheus"),
            ("sources: [{name: a, prometheus: {url: 'http://p', timeout: soon}}]", "soon"),
            ("sources: [{name: a, prometheus: {url: 'http://p', tokenFile: /no/such}}]", "cannot read the token /no/such"),
            ("sources: [{name: a, prometheus: {url: 'https://p', certificateFile: /dev/null}}]", "needs its key"),
            ("sources: [{name: a, prometheus: {uri: 'http://p'}}]", "uri"),
        ] {
            let error = read(text).err().unwrap_or_default();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
