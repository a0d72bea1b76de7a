//! `serin bench --only scale`: what a controller costs among ten, a thousand and ten thousand releases.
//!
//! The API and its objects live in this process; the controller in one of its own, so that its memory and its time are its own.
//! Every release has what it has in a cluster: a Service, two Deployments, EndpointSlices, a VirtualService, a DestinationRule,
//! with managed fields. There are no pods: callers are arithmetic, and the source of metrics answers at once. Deliberately
//! judges nothing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use kube::client::Body;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use serin_api::CanaryRelease;
use serin_controller::observe::source::beginning;
use serin_controller::{ArmQuery, Config, Cursor, MetricSource, Options, Polled, Source};
use serin_core::observe::{ArmCounts, Reading};
use serin_core::units::Timestamp;
use serin_lab::store::{Key, Store};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, ClusterArgs};
use crate::cmd::install::FEW_ARENAS;
use crate::exit::Failure;
use crate::out;

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    /// How many releases, one number for each run.
    pub(crate) releases: Vec<u32>,
    /// How many of them roll out.
    pub(crate) active: u32,
    /// How long idle and active times are each watched.
    pub(crate) watched: Duration,
    /// `spec.analysis.interval`.
    pub(crate) interval: Duration,
}

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Measured {
    releases: u32,
    active: u32,
    /// Begin to filled caches, with the status of every release still to write.
    sync_s: f64,
    /// Begin to the last of these statuses.
    adopted_s: f64,
    /// Begin to filled caches of a controller that finds its statuses.
    restart_s: f64,
    /// Requests that the second controller made, lists and watches left out.
    restart_requests: usize,
    rss_mb: f64,
    rss_active_mb: f64,
    cpu_idle_percent: f64,
    cpu_active_percent: f64,
    idle_requests_per_minute: f64,
    active_requests_per_minute: f64,
    active_requests_per_release_and_minute: f64,
    /// From a fault in the metrics to the patch of its route.
    fault_to_patch_p50_s: f64,
    fault_to_patch_p99_s: f64,
    /// From the reading that decided to the patch.
    reading_to_patch_p50_ms: f64,
    reading_to_patch_p99_ms: f64,
}

/// Runs each size.
///
/// # Errors
/// It could not run.
pub(crate) async fn run(scale: &Scale, as_json: bool) -> Result<(), Failure> {
    for releases in &scale.releases {
        let measured = one(scale, *releases).await?;
        if as_json {
            let line = serde_json::to_string(&measured).map_err(|e| Failure::new(format!("cannot write JSON: {e}")))?;
            out::answer(&format!("{line}\n"))?;
        } else {
            out::answer(&text(&measured))?;
        }
    }
    Ok(())
}

fn text(m: &Measured) -> String {
    format!(
        "{} releases, {} active\n  first sync {:.2} s, every release adopted after {:.2} s; after a restart {:.2} s with {} requests beside the lists\n  \
         memory {:.0} MB idle, {:.0} MB active; CPU {:.1} % of a core idle, {:.1} % active\n  \
         requests a minute: {:.1} idle, {:.0} active ({:.1} for each active release)\n  \
         fault in the metrics to patch: p50 {:.2} s, p99 {:.2} s; deciding reading to patch: p50 {:.1} ms, p99 {:.1} ms\n",
        m.releases,
        m.active,
        m.sync_s,
        m.adopted_s,
        m.restart_s,
        m.restart_requests,
        m.rss_mb,
        m.rss_active_mb,
        m.cpu_idle_percent,
        m.cpu_active_percent,
        m.idle_requests_per_minute,
        m.active_requests_per_minute,
        m.active_requests_per_release_and_minute,
        m.fault_to_patch_p50_s,
        m.fault_to_patch_p99_s,
        m.reading_to_patch_p50_ms,
        m.reading_to_patch_p99_ms,
    )
}

/// The API with its objects here, the controller there.
async fn one(scale: &Scale, releases: u32) -> Result<Measured, Failure> {
    let store = Store::new(Arc::new(jiff::Timestamp::now));
    let api = serin_lab::api::Api::new(store.clone());
    let stop = CancellationToken::new();
    let serving = api.serve(0, stop.clone()).await.map_err(|e| Failure::new(format!("cannot serve the API: {e}")))?;
    let folder = tempfile::tempdir().map_err(|e| Failure::new(format!("cannot make a temporary folder: {e}")))?;
    let kubeconfig = folder.path().join("kubeconfig");
    serving.write_kubeconfig("scale", &kubeconfig).map_err(|e| Failure::new(format!("{e}")))?;
    crate::cluster::define(&connect(&kubeconfig).await?).await?;
    for i in 0..releases {
        objects(&store, i, scale.interval)?;
    }
    let program = std::env::current_exe().map_err(|e| Failure::new(format!("cannot find this program: {e}")))?;
    let output = tokio::process::Command::new(program)
        .args(["bench", "--only", "scale", "--releases", &releases.to_string(), "--active", &scale.active.min(releases).to_string()])
        .args(["--watched", &format!("{}ms", scale.watched.as_millis()), "--interval", &format!("{}ms", scale.interval.as_millis())])
        .arg("--controller-of")
        .arg(&kubeconfig)
        // As it is installed.
        .env(FEW_ARENAS.0, FEW_ARENAS.1)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|e| Failure::new(format!("cannot start the controller: {e}")))?;
    stop.cancel();
    let measured = serde_json::from_slice(&output.stdout);
    measured.map_err(|_| Failure::new(format!("the controller measured nothing ({})", output.status)))
}

async fn connect(kubeconfig: &Path) -> Result<Cluster, Failure> {
    ClusterArgs { kubeconfig: Some(kubeconfig.to_path_buf()), ..ClusterArgs::default() }.connect().await
}

/// A namespace has a hundred of them.
fn place(i: u32) -> (String, String) {
    (format!("team-{}", i / 100), format!("app-{i}"))
}

/// What one release has, written past the API, which would check each for milliseconds.
fn objects(store: &Store, i: u32, interval: Duration) -> Result<(), Failure> {
    let (namespace, name) = place(i);
    let put = |group: &str, plural: &str, version: &str, kind: &str, called: &str, mut object: Value| {
        object["apiVersion"] = if group.is_empty() { version.into() } else { format!("{group}/{version}").into() };
        object["kind"] = kind.into();
        let fields = json!({"f:metadata": {"f:labels": {"f:app": {}}}, "f:spec": {"f:replicas": {}, "f:http": {}, "f:hosts": {}, "f:selector": {}, "f:template": {"f:spec": {"f:containers": {}}}}});
        object["metadata"]["managedFields"] = json!([{"manager": "kubectl-client-side-apply", "operation": "Update", "apiVersion": object["apiVersion"], "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields}]);
        let stored = store.create(&Key::namespaced(group, plural, &namespace, called), object);
        stored.map(drop).map_err(|e| Failure::new(format!("cannot store {kind} {called}: {e}")))
    };
    put("", "services", "v1", "Service", &name, json!({"spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80}]}}))?;
    for version in ["v1", "v2"] {
        let deployment = format!("{name}-{version}");
        let labels = json!({"app": name, "version": version});
        let environment: Vec<Value> =
            (0..10).map(|n| json!({"name": format!("SETTING_{n}"), "value": "some value of a setting"})).collect();
        let container = json!({"name": "app", "image": format!("{name}:{version}"), "ports": [{"containerPort": 8080}], "env": environment,
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}, "readinessProbe": {"httpGet": {"path": "/", "port": 8080}}});
        let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [container]}});
        put(
            "apps",
            "deployments",
            "v1",
            "Deployment",
            &deployment,
            json!({"spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}, "status": {"replicas": 2, "readyReplicas": 2}}),
        )?;
        let endpoint = |n: u32| json!({"addresses": [format!("10.0.0.{n}")], "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": format!("{deployment}-5d4f8c7b9-abcd{n}")}});
        let slice = json!({"metadata": {"labels": {"kubernetes.io/service-name": name}}, "addressType": "IPv4", "endpoints": [endpoint(1), endpoint(2)], "ports": [{"port": 8080}]});
        put("discovery.k8s.io", "endpointslices", "v1", "EndpointSlice", &deployment, slice)?;
    }
    let subset = |v: &str| json!({"name": v, "labels": {"version": v}});
    put(
        "networking.istio.io",
        "destinationrules",
        "v1",
        "DestinationRule",
        &name,
        json!({"spec": {"host": name, "subsets": [subset("v1"), subset("v2")]}}),
    )?;
    let destination = |v: &str, weight: u32| json!({"destination": {"host": name, "subset": v}, "weight": weight});
    let route = json!({"spec": {"hosts": [name], "gateways": ["mesh"], "http": [{"name": "primary", "route": [destination("v1", 100), destination("v2", 0)]}]}});
    put("networking.istio.io", "virtualservices", "v1", "VirtualService", &name, route)?;
    let interval = format!("{}ms", interval.as_millis());
    let spec =
        json!({"service": name, "steps": [{"weight": 10, "hold": "1h"}], "traffic": {"settle": "1s"}, "analysis": {"interval": interval}});
    put("serin.dev", "canaryreleases", "v1alpha1", "CanaryRelease", &name, json!({"metadata": {"generation": 1}, "spec": spec}))
}

/// What the controller asked for.
#[derive(Default)]
struct Asked {
    all: AtomicUsize,
    statuses: AtomicUsize,
    routes: Mutex<HashMap<String, Instant>>,
}

impl Asked {
    /// A client whose requests are counted; lists, watches and questions for kinds are not, as they do not grow with releases.
    fn client(self: &Arc<Self>, inner: Client) -> Client {
        let asked = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            asked.note(&request);
            let inner = inner.clone();
            async move { inner.send(request).await }
        });
        Client::new(service, "default")
    }

    fn note(&self, request: &http::Request<Body>) {
        let path = request.uri().path();
        let parts: Vec<&str> = path.split('/').collect();
        // /apis/GROUP/VERSION/namespaces/NAMESPACE/PLURAL/NAME…
        let single =
            parts.iter().position(|p| *p == "namespaces").is_some_and(|at| parts.len() > at + 3) || request.method() != http::Method::GET;
        if !single {
            return;
        }
        self.all.fetch_add(1, Ordering::Relaxed);
        if path.ends_with("/status") {
            self.statuses.fetch_add(1, Ordering::Relaxed);
        }
        if path.contains("/virtualservices/") && request.method() == http::Method::PATCH {
            let name = parts.last().copied().unwrap_or_default().to_owned();
            self.routes.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Instant::now());
        }
    }

    fn count(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }

    fn patched(&self, name: &str) -> Option<Instant> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }
}

/// Fifty requests a second to each service, a tenth of them to the canary, half of which fail once it is said so.
#[derive(Default)]
struct Counted {
    faulty: Mutex<HashMap<String, Instant>>,
    read: Mutex<HashMap<String, Instant>>,
}

impl MetricSource for Counted {
    fn poll(&self, query: ArmQuery, cursor: Option<Cursor>) -> BoxFuture<'_, Polled> {
        let to = Timestamp(jiff::Timestamp::now().as_millisecond());
        let from = cursor.and_then(|c| c.get::<Timestamp>()).map(|t| *t);
        let Some(from) = from else { return Box::pin(futures::future::ready(Ok((beginning(to, &query.edges), Cursor::new(to))))) };
        let name = query.service.name.clone();
        let seconds = to.since(from).as_secs_f64();
        let faulty = self.faulty.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&name);
        self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Instant::now());
        let arm = |rate: f64, errors: f64| {
            let n = (rate * seconds).round();
            ArmCounts { n, errors: (n * errors).round(), timed: n, slower: query.edges.iter().map(|e| (*e, 0.0)).collect() }
        };
        let canary = arm(5.0, if faulty { 0.5 } else { 0.0 });
        let reading = Reading {
            from,
            to,
            stable: arm(45.0, 0.0),
            canary,
            history: Vec::new(),
            no_healthy_upstream: 0.0,
            no_cluster: 0.0,
            counted: Vec::new(),
            answers: Vec::new(),
        };
        Box::pin(futures::future::ready(Ok((reading, Cursor::new(to)))))
    }
}

/// The other half: the controller, and what it costs. Prints one line of JSON.
///
/// # Errors
/// It could not run.
pub(crate) async fn controller(scale: &Scale, kubeconfig: PathBuf) -> Result<(), Failure> {
    let releases = scale.releases.first().copied().unwrap_or(1);
    let active = scale.active;
    let cluster = connect(&kubeconfig).await?;
    let asked = Arc::new(Asked::default());
    let source = Arc::new(Counted::default());
    let running = Run::start(&asked, &cluster, &source).await?;
    let sync = running.synced().await?;
    let adopted =
        until(Duration::from_secs(600), || (asked.statuses.load(Ordering::Relaxed) >= releases as usize).then(|| running.begin.elapsed()))
            .await?;
    // What is still under way, events among it, comes to its end.
    quiet(&asked).await;
    let rss = rss_mb();
    let idle = watched(scale, &asked).await;
    running.stop().await;

    let before = asked.count();
    let running = Run::start(&asked, &cluster, &source).await?;
    let restart = running.synced().await?;
    quiet(&asked).await;
    let restart_requests = asked.count() - before;

    let desired = json!({"spec": {"version": {"desired": "v2"}}});
    for i in 0..active {
        let (namespace, name) = place(i);
        let api: Api<CanaryRelease> = Api::namespaced(cluster.client.clone(), &namespace);
        api.patch(&name, &PatchParams::default(), &Patch::Merge(&desired))
            .await
            .map_err(|e| cluster.failed(&format!("patch CanaryRelease {namespace}/{name}"), &e))?;
    }
    let names: Vec<String> = (0..active).map(|i| place(i).1).collect();
    until(Duration::from_secs(120), || names.iter().all(|n| asked.patched(n).is_some()).then_some(())).await?;
    tokio::time::sleep(scale.interval.max(Duration::from_secs(2))).await;
    let busy = watched(scale, &asked).await;
    let rss_active = rss_mb();

    // Faults fall evenly over an interval, as polls do.
    let mut faults = Vec::new();
    for name in &names {
        tokio::time::sleep(scale.interval / active.max(1)).await;
        let at = Instant::now();
        source.faulty.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), at);
        faults.push((name.clone(), at));
    }
    let back = |(name, at): &(String, Instant)| asked.patched(name).filter(|p| p > at).map(|p| (p, p.duration_since(*at).as_secs_f64()));
    until(scale.interval * 20 + Duration::from_secs(60), || faults.iter().all(|f| back(f).is_some()).then_some(())).await?;
    let mut to_patch: Vec<f64> = faults.iter().filter_map(|f| back(f).map(|(_, s)| s)).collect();
    let read = source.read.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut from_reading: Vec<f64> =
        faults.iter().filter_map(|f| Some(back(f)?.0.checked_duration_since(*read.get(&f.0)?)?.as_secs_f64() * 1e3)).collect();
    running.stop().await;
    let measured = Measured {
        releases,
        active,
        sync_s: sync.as_secs_f64(),
        adopted_s: adopted.as_secs_f64(),
        restart_s: restart.as_secs_f64(),
        restart_requests,
        rss_mb: rss,
        rss_active_mb: rss_active,
        cpu_idle_percent: idle.cpu,
        cpu_active_percent: busy.cpu,
        idle_requests_per_minute: idle.requests,
        active_requests_per_minute: busy.requests,
        active_requests_per_release_and_minute: busy.requests / f64::from(active.max(1)),
        fault_to_patch_p50_s: quantile(&mut to_patch, 0.5),
        fault_to_patch_p99_s: quantile(&mut to_patch, 0.99),
        reading_to_patch_p50_ms: quantile(&mut from_reading, 0.5),
        reading_to_patch_p99_ms: quantile(&mut from_reading, 0.99),
    };
    out::answer(&serde_json::to_string(&measured).map_err(|e| Failure::new(format!("cannot write JSON: {e}")))?)
}

/// A controller that runs.
struct Run {
    begin: Instant,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), serin_controller::StartError>>,
    ready: std::net::SocketAddr,
}

impl Run {
    async fn start(asked: &Arc<Asked>, cluster: &Cluster, source: &Arc<Counted>) -> Result<Self, Failure> {
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.and_then(|l| l.local_addr());
        let ready = free.map_err(|e| Failure::new(format!("no port on this machine: {e}")))?;
        let config = Config { source: Source::Custom(source.clone()), ..Config::new(Arc::new(jiff::Timestamp::now)) };
        let stop = CancellationToken::new();
        let options = Options { serve: Some(ready), ..Options::default() };
        let begin = Instant::now();
        let task = tokio::spawn(serin_controller::run_with(asked.client(cluster.client.clone()), config, options, stop.clone()));
        Ok(Self { begin, stop, task, ready })
    }

    /// Waits until its caches are filled; how long that took.
    async fn synced(&self) -> Result<Duration, Failure> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let end = Instant::now() + Duration::from_secs(600);
        while Instant::now() < end {
            if let Ok(mut stream) = tokio::net::TcpStream::connect(self.ready).await {
                let mut answer = String::new();
                let asked = stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
                if asked.is_ok() && stream.read_to_string(&mut answer).await.is_ok() && answer.starts_with("HTTP/1.1 200") {
                    return Ok(self.begin.elapsed());
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(Failure::new("the caches were not filled in ten minutes"))
    }

    async fn stop(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

/// Waits until the controller has asked for nothing for two seconds.
async fn quiet(asked: &Asked) {
    let mut last = asked.count();
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = asked.count();
        if now == last {
            return;
        }
        last = now;
    }
}

async fn until<T>(longest: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T, Failure> {
    let end = Instant::now() + longest;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() > end {
            return Err(Failure::new(format!("the controller did not do what it was to do in {longest:?}")));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Requests a minute, and percent of a core.
struct Watched {
    requests: f64,
    cpu: f64,
}

async fn watched(scale: &Scale, asked: &Asked) -> Watched {
    let (begin, requests, cpu) = (Instant::now(), asked.count(), cpu_s());
    tokio::time::sleep(scale.watched).await;
    let seconds = begin.elapsed().as_secs_f64();
    Watched { requests: (asked.count() - requests) as f64 * 60.0 / seconds, cpu: (cpu_s() - cpu) * 100.0 / seconds }
}

fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = ((values.len() as f64 * q).ceil() as usize).clamp(1, values.len().max(1)) - 1;
    values.get(at).copied().unwrap_or(0.0)
}

/// Memory of this process in MB; 0 where the system does not tell.
fn rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kb = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<f64>().ok());
    kb.unwrap_or(0.0) / 1024.0
}

/// Processor time of this process in seconds; 0 where the system does not tell.
fn cpu_s() -> f64 {
    // Fields 14 and 15, in hundredths of a second on every Linux that runs today.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
