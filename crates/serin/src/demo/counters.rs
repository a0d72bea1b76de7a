//! Envoy's own counters, read as a Prometheus would: from the callers' pods that the API names.

use std::collections::BTreeMap;

use http::Uri;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};

use crate::cluster::Cluster;
use crate::exit::Failure;
use crate::web::Web;

/// Where Istio's proxies show their metrics.
const PORT: u16 = 15_090;

/// Requests to a Service by destination version and HTTP status, as all proxies together counted them at the caller's side.
///
/// # Errors
/// No proxy is there, or one does not answer.
pub(crate) async fn read(cluster: &Cluster, web: &Web, service: &str) -> Result<BTreeMap<(String, u16), u64>, Failure> {
    let pods: Api<Pod> = Api::all(cluster.client.clone());
    let pods = pods.list(&ListParams::default()).await.map_err(|e| cluster.failed("list Pods", &e))?;
    let has_proxy = |pod: &&Pod| {
        let spec = pod.spec.as_ref();
        spec.is_some_and(|s| s.containers.iter().chain(s.init_containers.iter().flatten()).any(|c| c.name == "istio-proxy"))
    };
    let mut counts = BTreeMap::new();
    let mut found = false;
    for pod in pods.iter().filter(has_proxy) {
        let Some(ip) = pod.status.as_ref().and_then(|s| s.pod_ip.as_ref()) else { continue };
        let url: Uri =
            format!("http://{ip}:{PORT}/stats/prometheus").parse().map_err(|e| Failure::new(format!("pod address {ip}: {e}")))?;
        let answer = web.get(&url, None).await.map_err(|e| Failure::new(format!("cannot read {url}: {e}")))?;
        found = true;
        add(&mut counts, &String::from_utf8_lossy(&answer.body), service);
    }
    if found { Ok(counts) } else { Err(Failure::new("no pod has a proxy that counts requests").hint("kubectl get pods -A")) }
}

fn add(counts: &mut BTreeMap<(String, u16), u64>, text: &str, service: &str) {
    for line in text.lines().filter(|l| l.starts_with("istio_requests_total{")) {
        let Some((labels, value)) = line.trim_start_matches("istio_requests_total{").rsplit_once('}') else { continue };
        let label = |name: &str| {
            labels.split("\",").find_map(|pair| pair.trim_end_matches('"').split_once("=\"").filter(|(n, _)| *n == name).map(|(_, v)| v))
        };
        if label("reporter") != Some("source") || label("destination_service_name") != Some(service) {
            continue;
        }
        let (Some(version), Some(Ok(status))) = (label("destination_version"), label("response_code").map(str::parse)) else { continue };
        let Ok(value) = value.trim().split(' ').next().unwrap_or_default().parse::<f64>() else { continue };
        *counts.entry((version.to_string(), status)).or_insert(0) += value as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_counts_of_the_service_are_added_up() {
        let text = concat!(
            "# TYPE istio_requests_total counter\n",
            "istio_requests_total{reporter=\"source\",destination_service_name=\"my-app\",destination_version=\"v1\",response_code=\"200\"} 7\n",
            "istio_requests_total{reporter=\"source\",destination_service_name=\"my-app\",destination_version=\"v1\",response_code=\"200\",source_app=\"b\"} 2\n",
            "istio_requests_total{reporter=\"destination\",destination_service_name=\"my-app\",destination_version=\"v1\",response_code=\"200\"} 9\n",
            "istio_requests_total{reporter=\"source\",destination_service_name=\"other\",destination_version=\"v1\",response_code=\"200\"} 4\n",
            "istio_requests_total{reporter=\"source\",destination_service_name=\"my-app\",destination_version=\"unknown\",response_code=\"503\"} 1\n",
        );
        let mut counts = BTreeMap::new();
        add(&mut counts, text, "my-app");
        assert_eq!(counts, BTreeMap::from([(("v1".into(), 200), 9), (("unknown".into(), 503), 1)]));
    }
}
