//! A small HTTP client: GET a URL under a Host header, as often as asked, or POST to one.
//!
//! Deliberately no redirects, no retries, no proxy: what comes back is what the mesh answered.

use std::time::Duration;

use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::exit::Failure;

/// A client with its connections.
#[derive(Clone)]
pub(crate) struct Web {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) body: Bytes,
}

/// Longer than any answer that a person waits for.
const TIMEOUT: Duration = Duration::from_secs(30);

impl Web {
    /// A client that trusts the machine's certificates.
    ///
    /// # Errors
    /// They cannot be read.
    pub(crate) fn new() -> Result<Self, Failure> {
        let provider = tokio_rustls::rustls::crypto::ring::default_provider();
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(provider)
            .map_err(|e| Failure::new(format!("cannot read this machine's certificates: {e}")))?
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector) })
    }

    /// One request to do something, without a body.
    ///
    /// # Errors
    /// A fragment that says what became of it.
    pub(crate) async fn post(&self, url: &Uri) -> Result<Answer, String> {
        self.send(Request::post(url.clone())).await
    }

    /// One request.
    ///
    /// # Errors
    /// A fragment that says what became of it.
    pub(crate) async fn get(&self, url: &Uri, host: Option<&str>) -> Result<Answer, String> {
        let mut request = Request::get(url.clone());
        if let Some(host) = host {
            request = request.header(header::HOST, host);
        }
        self.send(request).await
    }

    async fn send(&self, request: http::request::Builder) -> Result<Answer, String> {
        let request = request.body(Empty::new()).map_err(|e| e.to_string())?;
        let answer = async {
            let response = self.client.request(request).await.map_err(|e| crate::cluster::chain(&e))?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|e| crate::cluster::chain(&e))?.to_bytes();
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        tokio::time::timeout(TIMEOUT, answer).await.unwrap_or_else(|_| Err(format!("no answer within {} s", TIMEOUT.as_secs())))
    }
}
