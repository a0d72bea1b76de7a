//! What Istio does with its objects, as data: each file of `tests/routes` holds objects, requests, and what comes of them, through a real Envoy.
//!
//! A file's first document says what it shows, which pods stand behind which services, and the requests; the others are the objects, as a
//! user writes them. Pods are servers of the test that answer with what reached them. What the mesh tells about an object by an Event must
//! be expected by the file: an Event too many fails as well.
#![expect(clippy::print_stdout, reason = "how much ran is for whoever reads the output")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::{Value, json};
use serin_lab::mesh::{self, Mesh, MeshConfig, envoy};
use serin_lab::store::{Key, Resource, Store};
use serin_lab::workloads::{PodIp, PodIps};
use tokio_util::sync::CancellationToken;

/// The first document of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What it shows.
    says: String,
    /// Service, as `name` or `name.namespace`, to the versions of its pods, a pod each.
    #[serde(default)]
    pods: BTreeMap<String, Vec<String>>,
    /// What the mesh must tell by Events: a part of each message.
    #[serde(default)]
    told: Vec<String>,
    requests: Vec<Ask>,
}

/// One request, or several of a kind.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    /// The Host header.
    to: String,
    #[serde(default = "slash")]
    path: String,
    #[serde(default = "get")]
    method: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// At this port of a Gateway, `namespace/name:port`, instead of inside the mesh.
    gateway: Option<String>,
    #[serde(default = "one")]
    times: usize,
    want: Want,
}

fn slash() -> String {
    "/".into()
}

fn get() -> String {
    "GET".into()
}

fn one() -> usize {
    1
}

/// What must come back, of each of the requests.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Want {
    status: Option<u16>,
    /// Which version answers: `v1`, or `v1 of my-app.other`.
    from: Option<String>,
    /// The path that the pod sees.
    path: Option<String>,
    /// Headers that the pod sees; null: it does not.
    #[serde(default)]
    sees: BTreeMap<String, Option<String>>,
    /// Headers of the answer; null: not there.
    #[serde(default)]
    headers: BTreeMap<String, Option<String>>,
    body: Option<String>,
    /// How many tries reach pods.
    tries: Option<usize>,
    /// Exactly one pod answers all of them.
    same_pod: Option<bool>,
    /// The share of each version among them, within four standard deviations.
    shares: Option<BTreeMap<String, f64>>,
    /// The version that also sees each of them, as a shadow.
    mirrored: Option<String>,
}

/// What reached a pod.
#[derive(Clone, Debug)]
struct Seen {
    pod: String,
    host: String,
}

#[derive(Clone)]
struct Pod {
    name: String,
    service: String,
    version: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// Answers with what reached it; `x-answer: 503` has it answer that, `x-wait: 300` after so many milliseconds.
async fn answer(State(pod): State<Pod>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_string);
    pod.seen.lock().unwrap().push(Seen { pod: pod.name.clone(), host: header("host").unwrap_or_default() });
    if let Some(wait) = header("x-wait").and_then(|w| w.parse().ok()) {
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
    let headers: BTreeMap<&str, &str> = head.headers.iter().map(|(k, v)| (k.as_str(), v.to_str().unwrap_or_default())).collect();
    let body = json!({"pod": pod.name, "service": pod.service, "version": pod.version, "path": head.uri.to_string(), "headers": headers});
    let status: u16 = header("x-answer").and_then(|s| s.parse().ok()).unwrap_or(200);
    Response::builder().status(status).header("x-pod", &pod.name).header("x-inner", "yes").body(body.to_string().into()).unwrap()
}

struct Town {
    store: Store,
    mesh: Mesh,
    stop: CancellationToken,
    seen: Arc<Mutex<Vec<Seen>>>,
    _ips: Vec<PodIp>,
    _dir: tempfile::TempDir,
}

impl Town {
    /// A mesh with the case's pods and objects, in force.
    async fn build(case: &Case, objects: Vec<Value>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // A second goes by at each look: what is written first is older.
        let now = AtomicI64::new(1_700_000_000);
        let store = Store::new(Arc::new(move || jiff::Timestamp::from_second(now.fetch_add(1, Ordering::Relaxed)).unwrap()));
        let ips = PodIps::claim().unwrap();
        let stop = CancellationToken::new();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let mut held = Vec::new();
        let mut texts = BTreeMap::new();
        for (service, versions) in &case.pods {
            for (i, version) in versions.iter().enumerate() {
                let ip = ips.take().unwrap();
                texts.insert(format!("{{{{{service} {i}}}}}"), ip.addr().to_string());
                let pod = Pod {
                    name: format!("{}-{version}-{i}", service.split('.').next().unwrap()),
                    service: service.clone(),
                    version: version.clone(),
                    seen: seen.clone(),
                };
                serve(&pod, ip.addr(), stop.clone()).await;
                store_pod(&store, &pod, ip.addr(), &objects, i);
                held.push(ip);
            }
        }
        for object in objects {
            let mut text = object.to_string();
            for (from, to) in &texts {
                text = text.replace(from, to);
            }
            let object: Value = serde_json::from_str(&text).unwrap();
            store.create(&key(&object), object).unwrap();
        }
        let found = tokio::task::spawn_blocking(|| envoy::find(None)).await.unwrap().unwrap();
        let exe = PathBuf::from(env!("CARGO_BIN_EXE_lab-child"));
        let config = MeshConfig { self_exe: exe, envoy: found, dir: dir.path().join("envoy"), ips };
        let mesh = mesh::start(store.clone(), config, stop.clone()).await.unwrap();
        Self { store, mesh, stop, seen, _ips: held, _dir: dir }
    }

    fn address(&self, ask: &Ask) -> Result<SocketAddr, String> {
        let Some(gateway) = &ask.gateway else { return Ok(self.mesh.outbound) };
        let known = self.mesh.gateways.borrow();
        known.get(gateway).copied().ok_or_else(|| format!("no gateway {gateway}, but {:?}", known.keys().collect::<Vec<_>>()))
    }

    /// What is not as the file wants it.
    async fn ask(&self, ask: &Ask) -> Result<(), String> {
        let address = self.address(ask)?;
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<bytes::Bytes>>();
        let mut versions: BTreeMap<String, usize> = BTreeMap::new();
        let mut pods: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..ask.times {
            self.seen.lock().unwrap().clear();
            let mut request =
                http::Request::builder().method(ask.method.as_str()).uri(format!("http://{address}{}", ask.path)).header("host", &ask.to);
            for (name, value) in &ask.headers {
                request = request.header(name, value);
            }
            let response = client.request(request.body(Empty::new()).unwrap()).await.map_err(|e| e.to_string())?;
            let (head, body) = response.into_parts();
            let body = String::from_utf8(body.collect().await.map_err(|e| e.to_string())?.to_bytes().to_vec()).unwrap();
            let told: Value = serde_json::from_str(&body).unwrap_or_default();
            *versions.entry(told["version"].as_str().unwrap_or("nobody").to_string()).or_default() += 1;
            *pods.entry(told["pod"].as_str().unwrap_or("nobody").to_string()).or_default() += 1;
            self.compare(ask, &head, &body, &told).await?;
        }
        if ask.want.same_pod == Some(true) && pods.len() != 1 {
            return Err(format!("several pods answered: {pods:?}"));
        }
        for (version, share) in ask.want.shares.iter().flatten() {
            let (n, k) = (ask.times as f64, versions.get(version).copied().unwrap_or(0) as f64);
            // Four standard deviations and one: outside by chance less than once in 15,000.
            if (k - n * share).abs() > 4.0 * (n * share * (1.0 - share)).sqrt() + 1.0 {
                return Err(format!("{version} should have {share} of {n}: {versions:?}"));
            }
        }
        Ok(())
    }

    async fn compare(&self, ask: &Ask, head: &http::response::Parts, body: &str, told: &Value) -> Result<(), String> {
        let want = &ask.want;
        let status = head.status.as_u16();
        let wrong = |what: &str, wanted: &dyn std::fmt::Debug, got: &dyn std::fmt::Debug| {
            Err(format!("{what}: wanted {wanted:?}, got {got:?} (status {status}, headers {:?}, body {body:?})", head.headers))
        };
        if want.status.unwrap_or(200) != status {
            return wrong("status", &want.status.unwrap_or(200), &status);
        }
        if let Some(from) = &want.from {
            let (version, service) = from.split_once(" of ").map_or((from.as_str(), None), |(v, s)| (v, Some(s)));
            if told["version"] != version || service.is_some_and(|s| told["service"] != s) {
                return wrong("from", from, &told["pod"]);
            }
        }
        if let Some(path) = &want.path
            && told["path"] != path.as_str()
        {
            return wrong("path", path, &told["path"]);
        }
        for (name, value) in &want.sees {
            if told["headers"][name].as_str() != value.as_deref() {
                return wrong(&format!("the pod's {name}"), value, &told["headers"][name]);
            }
        }
        for (name, value) in &want.headers {
            let got = head.headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_string);
            if got != *value {
                return wrong(name, value, &got);
            }
        }
        if let Some(wanted) = &want.body
            && wanted != body
        {
            return wrong("body", wanted, &body);
        }
        let seen = || self.seen.lock().unwrap().clone();
        if let Some(tries) = want.tries
            && seen().len() != tries
        {
            return wrong("tries", &tries, &seen());
        }
        if let Some(version) = &want.mirrored {
            for _ in 0..100 {
                if seen().iter().any(|s| s.host.contains("-shadow") && s.pod.contains(&format!("-{version}-"))) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            return wrong("a shadow at", version, &seen());
        }
        Ok(())
    }

    /// What Events say, for messages that the file does not expect and for expectations that none meets.
    async fn events(&self, case: &Case) -> Result<(), String> {
        let mut said = Vec::new();
        for _ in 0..100 {
            said = self
                .store
                .list(&Resource::new("", "events"), None)
                .0
                .iter()
                .map(|e| e["message"].as_str().unwrap_or_default().to_string())
                .collect();
            if case.told.iter().all(|part| said.iter().any(|s| s.contains(part))) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let missed: Vec<&String> = case.told.iter().filter(|part| !said.iter().any(|s| s.contains(*part))).collect();
        let extra: Vec<&String> = said.iter().filter(|s| !case.told.iter().any(|part| s.contains(part))).collect();
        if missed.is_empty() && extra.is_empty() { Ok(()) } else { Err(format!("not told: {missed:?}; told and not expected: {extra:?}")) }
    }
}

async fn serve(pod: &Pod, ip: Ipv4Addr, stop: CancellationToken) {
    let router = axum::Router::new().fallback(answer).with_state(pod.clone());
    let listener = tokio::net::TcpListener::bind((ip, 8080)).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await });
}

/// The pod, its place in an EndpointSlice for every port of its service, and the service itself where the file has none.
fn store_pod(store: &Store, pod: &Pod, ip: Ipv4Addr, objects: &[Value], number: usize) {
    let (name, namespace) = pod.service.split_once('.').unwrap_or((&pod.service, "default"));
    let own = objects.iter().find(|o| {
        o["kind"] == "Service" && o["metadata"]["name"] == name && o["metadata"]["namespace"].as_str().unwrap_or("default") == namespace
    });
    if own.is_none()
        && number == 0
        && !objects.iter().any(|o| o["kind"] == "ServiceEntry" && o.to_string().contains(&format!("{{{{{}", pod.service)))
    {
        let service = json!({"apiVersion": "v1", "kind": "Service", "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
        store.create(&Key::namespaced("", "services", namespace, name), service).unwrap();
    }
    let labels = json!({"app": name, "version": pod.version});
    let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": labels}, "status": {"podIP": ip.to_string()}});
    store.create(&Key::namespaced("", "pods", namespace, &pod.name), object).unwrap();
    let ports = own.map_or_else(
        || json!([{"name": "http", "port": 8080}]),
        |service| {
            service["spec"]["ports"]
                .as_array()
                .unwrap()
                .iter()
                .map(|p| json!({"name": p["name"].as_str().unwrap_or(""), "port": 8080}))
                .collect()
        },
    );
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"labels": {"kubernetes.io/service-name": name}}, "ports": ports,
        "endpoints": [{"addresses": [ip.to_string()], "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": pod.name}}]});
    store.create(&Key::namespaced("discovery.k8s.io", "endpointslices", namespace, &pod.name), slice).unwrap();
}

fn key(object: &Value) -> Key {
    let kind = object["kind"].as_str().unwrap().to_lowercase();
    let plural = kind.strip_suffix('y').filter(|_| kind.ends_with("entry")).map_or_else(|| format!("{kind}s"), |stem| format!("{stem}ies"));
    let group = object["apiVersion"].as_str().unwrap().split_once('/').map_or("", |(group, _)| group);
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
    Key::namespaced(group, &plural, namespace, object["metadata"]["name"].as_str().unwrap())
}

async fn run(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let mut documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let case: Case = serde_json::from_value(documents.remove(0)).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    assert!(!case.requests.is_empty() && !case.says.is_empty(), "{} asks nothing", file.display());
    let town = Town::build(&case, documents).await;
    let mut wrong = Vec::new();
    for (i, ask) in case.requests.iter().enumerate() {
        if let Err(what) = town.ask(ask).await {
            wrong.push(format!(
                "{}: request {}, {} {} to {}: {what}",
                file.file_name().unwrap().to_string_lossy(),
                i + 1,
                ask.method,
                ask.path,
                ask.to
            ));
        }
    }
    if let Err(what) = town.events(&case).await {
        wrong.push(format!("{}: {what}", file.file_name().unwrap().to_string_lossy()));
    }
    town.stop.cancel();
    wrong
}

/// `ROUTES=NAME cargo test … routes` runs the files whose names contain NAME.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs envoy"]
async fn requests_go_where_istio_sends_them() {
    let only = std::env::var("ROUTES").unwrap_or_default();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/routes");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|f| f.to_string_lossy().contains(&only));
    files.sort();
    assert!(!files.is_empty());
    let mut wrong = Vec::new();
    for file in &files {
        wrong.extend(run(file).await);
    }
    println!("{} files", files.len());
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
