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
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// What Istio calls the only cluster of an installation.
pub(super) const CLUSTER: &str = "Kubernetes";

/// Ports where Istio's proxies show their metrics: the proxy's own, and merged with the app's.
pub const PORTS: [u16; 2] = [15090, 15020];

/// What is spoken in a request: Istio counts the two under labels of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    /// All that is not gRPC.
    Http,
    /// By the request's content type.
    Grpc,
}

/// The labels of Istio's standard metrics as a caller's proxy gives them, and the access-log format of each.
///
/// - Of the destination's service the cluster tells; where there is none (NC, NR, an answer by the proxy itself) the host as it was called.
/// - All else of the destination is the pod's that was chosen, its namespace as the service's too. Where none was (UH, NC, NR) it is `unknown`.
/// - What the caller's side cannot know of encryption is `unknown` in Istio as well.
pub(super) fn labels((workload, namespace): (&str, &str), spoken: Spoken) -> Vec<(&'static str, String)> {
    let service = |key: &str| {
        format!(
            r#"%COALESCE({{"operators":[{{"command":"CLUSTER_METADATA","param":"istio:{key}"}},{{"command":"REQ","param":":AUTHORITY"}}]}})%"#
        )
    };
    let pod = |key: &str| format!("%UPSTREAM_METADATA(istio:{key})%");
    let (protocol, status) = match spoken {
        // Envoy takes no empty format; `known` makes nothing of the dash.
        Spoken::Http => ("http", "-"),
        Spoken::Grpc => ("grpc", "%GRPC_STATUS_NUMBER%"),
    };
    vec![
        ("reporter", "source".into()),
        ("source_workload", workload.into()),
        ("source_workload_namespace", namespace.into()),
        ("source_app", workload.into()),
        // The lab's proxies have no label of a version.
        ("source_version", "unknown".into()),
        ("source_canonical_service", workload.into()),
        ("source_canonical_revision", "latest".into()),
        ("source_principal", "unknown".into()),
        ("source_cluster", CLUSTER.into()),
        ("destination_workload", pod("workload")),
        ("destination_workload_namespace", pod("namespace")),
        ("destination_app", pod("app")),
        ("destination_version", pod("version")),
        ("destination_canonical_service", pod("canonical_service")),
        ("destination_canonical_revision", pod("canonical_revision")),
        ("destination_service", service("service")),
        ("destination_service_name", service("service_name")),
        ("destination_service_namespace", pod("namespace")),
        ("destination_principal", "unknown".into()),
        ("destination_cluster", pod("cluster")),
        ("request_protocol", protocol.into()),
        ("response_code", "%RESPONSE_CODE%".into()),
        ("grpc_response_status", status.into()),
        ("response_flags", "%RESPONSE_FLAGS%".into()),
        ("connection_security_policy", "unknown".into()),
    ]
}

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

/// Absent values come empty, or as `-`. Istio writes `latest` for a canonical revision, `unknown` for all else of a destination, nothing for a
/// status that no gRPC call gave, and keeps `-` for flags.
fn known(out: &mut String, sample: &str) {
    let mut rest = sample;
    while let Some(at) = rest.find("=\"") {
        let (before, value) = (&rest[..at], &rest[at + 2..]);
        let label = before.rsplit(['{', ',']).next().unwrap_or_default();
        let end = value.find('"').unwrap_or(value.len());
        let shown = match &value[..end] {
            "" | "-" if label == "destination_canonical_revision" => "latest",
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
