//! Routes through a real Envoy: shares, changes under load, failures as callers see them, and metrics that agree with the callers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use serin_lab::mesh::traffic::{Answer, Plan, Sample, Traffic};
use serin_lab::mesh::{self, Mesh, MeshConfig, envoy};
use serin_lab::store::{Key, Store, StoreError, Write};
use serin_lab::workloads::{Logs, PodIps, WorkloadConfig};
use tokio_util::sync::CancellationToken;

struct World {
    store: Store,
    mesh: Mesh,
    stop: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(Arc::new(jiff::Timestamp::now));
        for namespace in ["default", "kube-system"] {
            store.create(&Key::cluster("", "namespaces", namespace), json!({"apiVersion": "v1", "kind": "Namespace"})).unwrap();
        }
        let stop = CancellationToken::new();
        let ips = PodIps::claim().unwrap();
        let exe = std::path::PathBuf::from(env!("CARGO_BIN_EXE_lab-child"));
        let found = tokio::task::spawn_blocking(|| envoy::find(None)).await.unwrap().unwrap();
        let config = MeshConfig { self_exe: exe.clone(), envoy: found, dir: dir.path().join("envoy"), ips: ips.clone() };
        let workload = WorkloadConfig { self_exe: exe, logs: Logs::new(dir.path().join("logs")), exec: false, ips, images: Vec::new() };
        let tasks = vec![tokio::spawn(serin_lab::workloads::run(store.clone(), workload, stop.clone()))];
        let mesh = mesh::start(store.clone(), config, stop.clone()).await.unwrap();
        Self { store, mesh, stop, tasks, _dir: dir }
    }

    async fn end(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }

    fn put(&self, group: &str, plural: &str, name: &str, object: Value) {
        self.store.create(&Key::namespaced(group, plural, "default", name), object).unwrap();
    }

    fn app(&self, versions: &[(&str, u32)]) {
        self.put(
            "",
            "services",
            "my-app",
            json!({"apiVersion": "v1", "kind": "Service",
            "spec": {"selector": {"app": "my-app"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]}}),
        );
        for (version, pods) in versions {
            self.deploy(version, *pods);
        }
    }

    fn deploy(&self, version: &str, pods: u32) {
        let labels = json!({"app": "my-app", "version": version});
        self.put("apps", "deployments", &format!("my-app-{version}"), json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {
            "replicas": pods, "selector": {"matchLabels": labels}, "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "my-app", "image": format!("my-app:{version}"),
                "ports": [{"containerPort": 8080}]}]}}}}));
    }

    fn subsets(&self, versions: &[&str]) {
        let subsets: Vec<Value> = versions.iter().map(|v| json!({"name": v, "labels": {"version": v}})).collect();
        self.put(
            "networking.istio.io",
            "destinationrules",
            "my-app",
            json!({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
            "spec": {"host": "my-app", "subsets": subsets}}),
        );
    }

    fn route(&self, gateways: &[&str], weights: &[(&str, u32)]) {
        self.put(
            "networking.istio.io",
            "virtualservices",
            "my-app",
            json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "spec": {"hosts": ["my-app"], "gateways": gateways, "http": [{"route": destinations(weights)}]}}),
        );
    }

    /// Sets weights and waits until Envoy has taken them.
    async fn weigh(&self, weights: &[(&str, u32)]) {
        let key = Key::namespaced("networking.istio.io", "virtualservices", "default", "my-app");
        let written = self.store.update(&key, Write::Whole, |old| {
            let mut new = old.clone();
            new["spec"]["http"][0]["route"] = destinations(weights);
            Ok::<Value, StoreError>(new)
        });
        let version: u64 = written.unwrap()["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        self.in_force(version).await;
    }

    async fn in_force(&self, version: u64) {
        let mut now = self.mesh.in_force.clone();
        tokio::time::timeout(Duration::from_secs(30), now.wait_for(|v| *v >= version)).await.expect("Envoy took it").unwrap();
    }

    async fn pods_ready(&self, version: &str, pods: u64) {
        let key = Key::namespaced("apps", "deployments", "default", &format!("my-app-{version}"));
        let ready = || self.store.get(&key).and_then(|d| d["status"]["readyReplicas"].as_u64()).unwrap_or(0);
        for _ in 0..600 {
            if ready() >= pods {
                return self.in_force(self.endpoints_version(pods)).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{version} has {} of {pods} pods", ready());
    }

    fn endpoints_version(&self, _: u64) -> u64 {
        let slices = self.store.list(&serin_lab::store::Resource::new("discovery.k8s.io", "endpointslices"), None).0;
        slices.iter().filter_map(|s| s["metadata"]["resourceVersion"].as_str()?.parse().ok()).max().unwrap_or(0)
    }

    async fn call(&self, requests: u64, rate: f64) -> Vec<Sample> {
        let traffic = Traffic::start(self.plan(Some(requests), rate));
        traffic.finished().await;
        traffic.all()
    }

    fn plan(&self, requests: Option<u64>, rate: f64) -> Plan {
        Plan {
            target: self.mesh.outbound,
            host: "my-app".into(),
            path: "/".into(),
            rate,
            users: 1000,
            seed: 7,
            time: Duration::from_secs(120),
            requests,
            log: None,
        }
    }

    async fn page(&self) -> String {
        let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
            .build_http::<http_body_util::Empty<bytes::Bytes>>();
        let uri: http::Uri = format!("http://{}/stats/prometheus", self.mesh.telemetry).parse().unwrap();
        let body = http_body_util::BodyExt::collect(client.get(uri).await.unwrap().into_body()).await.unwrap();
        String::from_utf8(body.to_bytes().to_vec()).unwrap()
    }
}

fn destinations(weights: &[(&str, u32)]) -> Value {
    weights.iter().map(|(v, w)| json!({"destination": {"host": "my-app", "subset": v}, "weight": w})).collect()
}

fn by_version(samples: &[Sample]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for sample in samples {
        *counts.entry(sample.version.as_deref().unwrap_or("none").to_string()).or_insert(0) += 1;
    }
    counts
}

/// Requests of the page whose line has all of `labels`.
fn counted(page: &str, labels: &[&str]) -> f64 {
    let lines = page.lines().filter(|l| l.starts_with("istio_requests_total{") && labels.iter().all(|p| l.contains(p)));
    lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Within four standard deviations of the binomial: by chance outside less than once in 15,000.
fn near(count: usize, n: usize, share: f64) -> bool {
    let (n, k) = (n as f64, count as f64);
    (k - n * share).abs() <= 4.0 * (n * share * (1.0 - share)).sqrt() + 1.0
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs envoy"]
async fn a_route_bound_to_a_gateway_alone_splits_nobody_inside_the_mesh_and_with_mesh_it_does() {
    let world = World::start().await;
    world.app(&[("v1", 3), ("v2", 1)]);
    world.subsets(&["v1", "v2"]);
    world.route(&["my-gateway"], &[("v1", 90), ("v2", 10)]);
    world.pods_ready("v1", 3).await;
    world.pods_ready("v2", 1).await;
    let samples = world.call(1000, 500.0).await;
    let counts = by_version(&samples);
    assert!(samples.iter().all(|s| !s.failed()), "{counts:?}");
    // Least-request balancing keeps pods even: a quarter on one of four, however the route's weights stand.
    assert!((150..=350).contains(&counts["v2"]), "{counts:?}");

    let key = Key::namespaced("networking.istio.io", "virtualservices", "default", "my-app");
    let written = world.store.update(&key, Write::Whole, |old| {
        let mut new = old.clone();
        new["spec"]["gateways"] = json!(["my-gateway", "mesh"]);
        Ok::<Value, StoreError>(new)
    });
    world.in_force(written.unwrap()["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()).await;
    let before = world.page().await;
    let samples = world.call(2000, 700.0).await;
    let counts = by_version(&samples);
    assert!(near(counts["v2"], 2000, 0.1), "{counts:?}");

    // The proxies' page counts exactly what the callers counted.
    let mut page = world.page().await;
    for _ in 0..50 {
        if counted(&page, &["response_code=\"200\""]) - counted(&before, &["response_code=\"200\""]) >= 2000.0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        page = world.page().await;
    }
    for version in ["v1", "v2"] {
        let labels = [
            &format!("destination_version=\"{version}\"")[..],
            &format!("destination_workload=\"my-app-{version}\""),
            "destination_workload_namespace=\"default\"",
            "destination_service=\"my-app.default.svc.cluster.local\"",
            "destination_service_name=\"my-app\"",
            "reporter=\"source\"",
            "source_workload=\"caller\"",
            "response_flags=\"-\"",
        ];
        let seen = counted(&page, &labels) - counted(&before, &labels);
        assert_eq!(seen, counts[version] as f64, "{version}");
    }
    assert!(page.contains("istio_request_duration_milliseconds_bucket{"), "no histogram");
    assert!(page.contains("le=\"500\""), "not Istio's edges");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs envoy"]
async fn a_hundred_changes_of_weight_and_a_new_subset_lose_no_request() {
    let world = World::start().await;
    world.app(&[("v1", 2), ("v2", 2)]);
    world.subsets(&["v1", "v2"]);
    world.route(&["mesh"], &[("v1", 100), ("v2", 0)]);
    world.pods_ready("v1", 2).await;
    world.pods_ready("v2", 2).await;
    let traffic = Traffic::start(world.plan(None, 400.0));
    for i in 0..100 {
        let share = [0, 10, 50, 90, 100][i % 5];
        world.weigh(&[("v1", 100 - share), ("v2", share)]).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A third version: its pods, its subset, then its weight; and away again in the opposite order.
    world.deploy("v3", 1);
    world.pods_ready("v3", 1).await;
    let rule = Key::namespaced("networking.istio.io", "destinationrules", "default", "my-app");
    let set = |versions: &'static [&'static str]| {
        world.store.update(&rule, Write::Whole, |old| {
            let mut new = old.clone();
            new["spec"]["subsets"] = versions.iter().map(|v| json!({"name": v, "labels": {"version": v}})).collect();
            Ok::<Value, StoreError>(new)
        })
    };
    set(&["v1", "v2", "v3"]).unwrap();
    world.weigh(&[("v1", 50), ("v2", 0), ("v3", 50)]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.weigh(&[("v1", 100), ("v2", 0)]).await;
    set(&["v1", "v2"]).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    traffic.stop().await;
    let samples = traffic.all();
    let failed: Vec<&Sample> = samples.iter().filter(|s| s.failed()).collect();
    assert!(failed.is_empty(), "{} of {} failed: {:?}", failed.len(), samples.len(), failed.first());
    assert!(by_version(&samples).contains_key("v3"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs envoy"]
async fn failures_are_those_of_istio() {
    let world = World::start().await;
    world.app(&[("v1", 1), ("v2", 0)]);
    world.subsets(&["v1", "v2"]);
    world.route(&["mesh"], &[("v1", 50), ("v9", 50)]);
    world.pods_ready("v1", 1).await;
    let samples = world.call(400, 400.0).await;
    let unavailable = samples.iter().filter(|s| s.answer == Answer::Status(503)).count();
    assert!(near(unavailable, 400, 0.5), "{unavailable} of 400");
    world.weigh(&[("v1", 50), ("v2", 50)]).await;
    let samples = world.call(400, 400.0).await;
    let unhealthy = samples.iter().filter(|s| s.answer == Answer::Status(503)).count();
    assert!(near(unhealthy, 400, 0.5), "{unhealthy} of 400");
    let mut page = world.page().await;
    for _ in 0..50 {
        if counted(&page, &["istio"]) >= 800.0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        page = world.page().await;
    }
    let unknown = ["destination_version=\"unknown\"", "destination_workload=\"unknown\"", "destination_service_name=\"my-app\""];
    let with = |flag: &'static str| counted(&page, &[unknown[0], unknown[1], unknown[2], flag]);
    assert_eq!(with("response_flags=\"NC\""), unavailable as f64);
    assert_eq!(with("response_flags=\"UH\""), unhealthy as f64);
    // A total of 0 is refused as a whole, said, and the old routes go on.
    let key = Key::namespaced("networking.istio.io", "virtualservices", "default", "my-app");
    world
        .store
        .update(&key, Write::Whole, |old| {
            let mut new = old.clone();
            new["spec"]["http"][0]["route"] = destinations(&[("v1", 0), ("v2", 0)]);
            Ok::<Value, StoreError>(new)
        })
        .unwrap();
    let event = Key::namespaced("", "events", "default", "my-app.virtualservice.refused");
    for _ in 0..100 {
        if world.store.get(&event).is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let said = world.store.get(&event).expect("a refusal is told");
    assert!(said["message"].as_str().unwrap().contains("greater than 0"), "{said}");
    world.weigh(&[("v1", 1), ("v2", 0)]).await;
    let samples = world.call(50, 400.0).await;
    assert!(samples.iter().all(|s| s.answer == Answer::Status(200)));
    world.end().await;
}
