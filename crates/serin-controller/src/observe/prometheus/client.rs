//! Questions to Prometheus' HTTP API, and its answers.
//!
//! One client over rustls with ring; never through a proxy of the environment. Deliberately knows no metric.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use serde::Deserialize;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::matrix::Series;

use crate::observe::source::root;

/// Where a Prometheus, or whatever answers as one does (Thanos, Mimir, VictoriaMetrics), is, and how it is asked.
#[derive(Clone, Debug)]
pub struct PrometheusOptions {
    /// As `http://prometheus.monitoring:9090`, with a path if its API is below one.
    pub url: String,
    /// A file with a bearer token; read for each question, as tokens are renewed.
    pub token_file: Option<PathBuf>,
    /// Certificates to trust instead of the system's, as PEM.
    pub ca: Option<Vec<u8>>,
    /// Certificate and key to show, as PEM.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Headers to send, as `X-Scope-OrgID` with the tenant.
    pub headers: Vec<(String, String)>,
    /// The longest that an answer may take.
    pub timeout: Duration,
    /// How far behind the clock it is asked: a scrape is stored some time after the moment that it is dated.
    pub delay: Duration,
    /// Labels that tell replicas of one Prometheus apart.
    pub replica_labels: Vec<String>,
}

/// Labels by which those who run several replicas of one Prometheus usually tell them apart.
pub const REPLICA_LABELS: [&str; 3] = ["prometheus_replica", "replica", "__replica__"];

impl PrometheusOptions {
    /// One at this URL, asked as most are.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            token_file: None,
            ca: None,
            identity: None,
            headers: Vec::new(),
            timeout: Duration::from_secs(10),
            delay: Duration::from_secs(2),
            replica_labels: REPLICA_LABELS.map(str::to_owned).to_vec(),
        }
    }
}

/// Why a client cannot be made: all of it is the configuration's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OptionsError {
    /// The URL.
    #[error("{url:?} is no URL of a Prometheus ({why}): write it as http://prometheus.monitoring:9090")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// A header.
    #[error("{name:?} is no header, or its value is none")]
    Header {
        /// Its name.
        name: String,
    },
    /// Certificates or key.
    #[error("the {what} of Prometheus cannot be used: {why}")]
    Pem {
        /// Which.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// The largest answer that is read.
const LARGEST_ANSWER: usize = 64 << 20;

/// See the module.
pub(super) struct Asker {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    token_file: Option<PathBuf>,
    timeout: Duration,
    /// The URL without what might be secret in it.
    pub(super) shown: String,
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result: serde_json::Value,
}

/// One value of an instant vector.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Value {
    #[serde(default)]
    pub(super) metric: std::collections::BTreeMap<String, String>,
    pub(super) value: (f64, String),
}

impl Asker {
    pub(super) fn new(options: &PrometheusOptions) -> Result<Self, OptionsError> {
        let bad = |why: String| OptionsError::Url { url: options.url.clone(), why };
        let base: Uri = options.url.trim_end_matches('/').parse().map_err(|e| bad(format!("{e}")))?;
        let (Some(scheme @ ("http" | "https")), Some(authority)) = (base.scheme_str(), base.authority()) else {
            return Err(bad("neither http nor https, or no host".into()));
        };
        let port = authority.as_str().rsplit_once(']').map_or(authority.as_str(), |(_, rest)| rest).rsplit_once(':');
        if port.is_some() && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(bad("its port is none".into()));
        }
        let path = base.path().trim_end_matches('/');
        let uri: Uri = format!("{scheme}://{authority}{path}/api/v1/query").parse().map_err(|e| bad(format!("{e}")))?;
        let mut headers = Vec::new();
        for (name, value) in &options.headers {
            let header = name.parse::<HeaderName>().ok().zip(value.parse::<HeaderValue>().ok());
            let (name, mut value) = header.ok_or_else(|| OptionsError::Header { name: name.clone() })?;
            value.set_sensitive(true);
            headers.push((name, value));
        }
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(options.timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(options, scheme == "https")?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let mut client = Client::builder(hyper_util::rt::TokioExecutor::new());
        let client = client.pool_timer(hyper_util::rt::TokioTimer::new()).pool_idle_timeout(Duration::from_secs(60)).build(connector);
        let shown = format!("{scheme}://{}{path}", authority.as_str().rsplit('@').next().unwrap_or_default());
        Ok(Self { client, uri, headers, token_file: options.token_file.clone(), timeout: options.timeout, shown })
    }

    /// Raw samples.
    pub(super) async fn samples(&self, query: &str, at: f64) -> Result<Vec<Series>, String> {
        self.ask(query, at).await
    }

    /// An instant vector.
    pub(super) async fn values(&self, query: &str, at: f64) -> Result<Vec<Value>, String> {
        self.ask(query, at).await
    }

    async fn ask<T: for<'de> Deserialize<'de>>(&self, query: &str, at: f64) -> Result<Vec<T>, String> {
        let asked = tokio::time::timeout(self.timeout, self.send(query, at)).await;
        asked.unwrap_or_else(|_| Err(format!("no answer within {} s", self.timeout.as_secs_f64())))
    }

    async fn send<T: for<'de> Deserialize<'de>>(&self, query: &str, at: f64) -> Result<Vec<T>, String> {
        let body = format!("query={}&time={at:.3}&timeout={:.0}s", encoded(query), self.timeout.as_secs_f64().max(1.0));
        let mut request = Request::post(self.uri.clone()).header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(file) = &self.token_file {
            let token = tokio::fs::read_to_string(file).await.map_err(|e| format!("the token cannot be read: {e}"))?;
            let mut value: HeaderValue = format!("Bearer {}", token.trim()).parse().map_err(|_| "the token is none".to_owned())?;
            value.set_sensitive(true);
            request = request.header(http::header::AUTHORIZATION, value);
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|e| e.to_string())?;
        let response = self.client.request(request).await.map_err(|e| root(&e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await.map_err(|e| root(&*e))?.to_bytes();
        let answer: Answer = match serde_json::from_slice(&body) {
            Ok(answer) => answer,
            Err(_) if !status.is_success() => return Err(format!("HTTP {status}")),
            Err(error) => return Err(format!("the answer is not Prometheus': {error}")),
        };
        if answer.status != "success" {
            return Err(format!("HTTP {status}: {}", clip(&answer.error)));
        }
        // Half an answer is none: what lacks would count as no requests.
        if let Some(warning) = answer.warnings.first() {
            return Err(format!("it answered with a warning: {}", clip(warning)));
        }
        let result = answer.data.map(|d| d.result).unwrap_or_default();
        serde_json::from_value(result).map_err(|e| format!("the answer is not what was asked for: {e}"))
    }
}

fn clip(text: &str) -> String {
    text.chars().take(300).collect()
}

/// What https trusts and shows. Without https nothing of it is needed, and a machine without certificates will do.
fn tls(options: &PrometheusOptions, https: bool) -> Result<ClientConfig, OptionsError> {
    let pem = |what: &'static str, why: String| OptionsError::Pem { what, why };
    let provider = std::sync::Arc::new(crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|e| pem("TLS setup", e.to_string()))?;
    let builder = match &options.ca {
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(ca) {
                let certificate = certificate.map_err(|e| pem("CA", e.to_string()))?;
                roots.add(certificate).map_err(|e| pem("CA", e.to_string()))?;
            }
            if roots.is_empty() {
                return Err(pem("CA", "it holds no certificate".into()));
            }
            builder.with_root_certificates(roots)
        }
        None if https => builder.with_native_roots().map_err(|e| pem("system's certificates", e.to_string()))?,
        None => builder.with_root_certificates(RootCertStore::empty()),
    };
    match &options.identity {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
            let chain = chain.map_err(|e| pem("client certificate", e.to_string()))?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| pem("client key", e.to_string()))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| pem("client certificate", e.to_string()))
        }
    }
}

/// As a form's value.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
