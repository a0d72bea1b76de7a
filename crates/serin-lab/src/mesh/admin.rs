//! Envoy's admin interface, as far as the lab asks it: plain GETs on loopback.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

const TIMEOUT: Duration = Duration::from_secs(5);

/// The text of one page.
///
/// # Errors
/// It does not answer within five seconds, or not with 200.
pub(super) async fn get(admin: SocketAddr, path: &str) -> Result<String, String> {
    let uri: http::Uri = format!("http://{admin}{path}").parse().map_err(|e| format!("{e}"))?;
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let read = async {
        let response = client.get(uri).await.map_err(|e| e.to_string())?;
        if !response.status().is_success() {
            return Err(format!("HTTP {}", response.status()));
        }
        let body = response.into_body().collect().await.map_err(|e| e.to_string())?;
        String::from_utf8(body.to_bytes().to_vec()).map_err(|e| e.to_string())
    };
    tokio::time::timeout(TIMEOUT, read).await.unwrap_or_else(|_| Err("no answer".into()))
}
