//! Istio's metrics: what Envoy's access logger is told to count, and the pages on which a mesh's proxies would show it.
//!
//! One Envoy plays all proxies of the lab; each page shows the requests of its own proxy only. Deliberately computes nothing:
//! numbers are Envoy's own.

use std::net::{IpAddr, SocketAddr};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

/// Istio's edges of request durations, in milliseconds.
pub const EDGES_MS: [f64; 19] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0, 30_000.0, 60_000.0, 300_000.0, 600_000.0, 1_800_000.0,
    3_600_000.0,
];

/// Ports where Istio's proxies show their metrics: the proxy's own, and merged with the app's.
pub const PORTS: [u16; 2] = [15090, 15020];

/// The labels of Istio's standard metrics, and the access-log format that gives each. `{proxy}` is the calling workload.
pub const LABELS: [(&str, &str); 24] = [
    ("reporter", "source"),
    ("source_workload", "{proxy}"),
    ("source_workload_namespace", "{namespace}"),
    ("source_app", "{proxy}"),
    ("source_version", "latest"),
    ("source_canonical_service", "{proxy}"),
    ("source_canonical_revision", "latest"),
    ("source_principal", "unknown"),
    ("source_cluster", "Kubernetes"),
    ("destination_workload", "%UPSTREAM_METADATA(istio:workload)%"),
    ("destination_workload_namespace", "%UPSTREAM_METADATA(istio:namespace)%"),
    ("destination_app", "%UPSTREAM_METADATA(istio:app)%"),
    ("destination_version", "%UPSTREAM_METADATA(istio:version)%"),
    ("destination_canonical_service", "%UPSTREAM_METADATA(istio:app)%"),
    ("destination_canonical_revision", "%UPSTREAM_METADATA(istio:version)%"),
    ("destination_service", "%METADATA(ROUTE:istio:service)%"),
    ("destination_service_name", "%METADATA(ROUTE:istio:service_name)%"),
    ("destination_service_namespace", "%METADATA(ROUTE:istio:service_namespace)%"),
    ("destination_principal", "unknown"),
    ("destination_cluster", "Kubernetes"),
    ("request_protocol", "http"),
    ("response_code", "%RESPONSE_CODE%"),
    ("grpc_response_status", "%GRPC_STATUS_NUMBER%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
];

/// One proxy's pages.
#[derive(Clone)]
pub struct Proxy {
    /// The workload that it stands beside: the value of `source_workload`.
    pub workload: String,
    /// Envoy's own admin interface.
    pub admin: SocketAddr,
}

/// Serves one proxy's pages at its address until `stop`.
///
/// # Errors
/// A port is taken.
pub async fn serve(proxy: Proxy, ip: IpAddr, stop: CancellationToken) -> std::io::Result<()> {
    let app = Router::new().route("/stats/prometheus", get(page)).with_state(proxy);
    for port in PORTS {
        let listener = tokio::net::TcpListener::bind((ip, port)).await?;
        let (app, stop) = (app.clone(), stop.clone());
        tokio::spawn(async move { axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await });
    }
    Ok(())
}

async fn page(State(proxy): State<Proxy>) -> impl IntoResponse {
    match super::admin::get(proxy.admin, "/stats/prometheus?filter=^istio").await {
        Ok(text) => (StatusCode::OK, [("content-type", "text/plain; version=0.0.4")], istio(&text, &proxy.workload)),
        Err(error) => (StatusCode::BAD_GATEWAY, [("content-type", "text/plain")], format!("Envoy's statistics: {error}\n")),
    }
}

/// Envoy's page as Istio shows it: without Envoy's prefix, `unknown` for what is not known, and one proxy's series only.
pub fn istio(text: &str, workload: &str) -> String {
    let mine = format!("source_workload=\"{workload}\"");
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# TYPE envoy_") {
            out.push_str("# TYPE ");
            out.push_str(comment);
        } else if let Some(sample) = line.strip_prefix("envoy_istio_").filter(|s| s.contains(&mine)) {
            out.push_str("istio_");
            known(&mut out, sample);
        } else {
            continue;
        }
        out.push('\n');
    }
    out
}

/// Absent values come empty, or as `-`. Istio writes `unknown` for a destination, nothing for a status that no gRPC call gave, and keeps `-` for flags.
fn known(out: &mut String, sample: &str) {
    let mut rest = sample;
    while let Some(at) = rest.find("=\"") {
        let (before, value) = (&rest[..at], &rest[at + 2..]);
        let label = before.rsplit(['{', ',']).next().unwrap_or_default();
        let end = value.find('"').unwrap_or(value.len());
        let shown = match &value[..end] {
            "" | "-" if label.starts_with("destination_") => "unknown",
            "-" if label == "grpc_response_status" => "",
            as_it_is => as_it_is,
        };
        out.push_str(before);
        out.push_str("=\"");
        out.push_str(shown);
        rest = &value[end..];
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_show_one_proxy_and_say_unknown() {
        let text = "# TYPE envoy_istio_requests_total counter\n\
            envoy_istio_requests_total{source_workload=\"caller\",destination_version=\"\",response_flags=\"-\",grpc_response_status=\"-\"} 3\n\
            envoy_istio_requests_total{source_workload=\"gateway\",destination_version=\"v1\"} 4\nenvoy_other 1\n";
        let page = istio(text, "caller");
        assert_eq!(
            page,
            "# TYPE istio_requests_total counter\n\
            istio_requests_total{source_workload=\"caller\",destination_version=\"unknown\",response_flags=\"-\",grpc_response_status=\"\"} 3\n"
        );
    }
}
