//! VirtualServices and DestinationRules as Envoy configuration, Envoy itself, its telemetry, and traffic.
//!
//! Reading order: `world` (what routing depends on), `translate` and `routes` (objects → Envoy's clusters and routes), `listeners`,
//! `session` and `xds` (how Envoy gets them), `envoy` (the program), `telemetry` (its counters as Istio shows them), `traffic` (callers).
//! One Envoy plays the callers' sidecar and every gateway: they are separate listeners.

mod admin;
pub mod envoy;
mod hosts;
mod listeners;
mod routes;
pub mod session;
pub mod telemetry;
pub mod traffic;
pub mod translate;
mod world;
mod xds;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::store::{Key, Store, StoreError, Write, seconds};
use crate::workloads::{PodIp, PodIps, guarded};
use envoy::{EnvoyError, Found};
use session::{Snapshot, Verdict};
use translate::{Complaint, OUTBOUND};
use world::{KINDS, World};

/// Changes that come together are sent together.
const GATHER: Duration = Duration::from_millis(2);
/// So long Envoy may take to come up, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// The node that the lab's own proxies stand on: no kubelet tends it.
const NODE: &str = "serin-mesh";
/// The workload that plays callers inside the mesh, and its namespace.
pub const CALLER: (&str, &str) = ("caller", "default");
/// The workload that plays Istio's gateway, and its namespace.
pub const GATEWAY: (&str, &str) = ("gateway", "istio-system");

/// How a mesh is run.
#[derive(Clone)]
pub struct MeshConfig {
    /// The binary that calls `workloads::dispatch` first.
    pub self_exe: PathBuf,
    /// The Envoy to run, as `envoy::find` gave it.
    pub envoy: Found,
    /// Where Envoy's configuration and log go.
    pub dir: PathBuf,
    /// Addresses, shared with the kubelet.
    pub ips: PodIps,
}

impl MeshConfig {
    fn log(&self) -> PathBuf {
        self.dir.join("envoy.log")
    }
}

/// Why the mesh did not start.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// No Envoy.
    #[error(transparent)]
    Envoy(#[from] EnvoyError),
    /// A port, a file or a process.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// What came of it.
        error: std::io::Error,
    },
    /// Envoy ended, or took nothing.
    #[error("Envoy did not come up: {0}")]
    Down(String),
}

/// A running mesh.
#[derive(Clone)]
pub struct Mesh {
    /// Where callers inside the mesh call; the service is chosen by the Host header.
    pub outbound: SocketAddr,
    /// Envoy's own admin interface.
    pub admin: SocketAddr,
    /// Ports of Gateways, by `namespace/name:port`, as they are now.
    pub gateways: watch::Receiver<BTreeMap<String, SocketAddr>>,
    /// The store version up to which Envoy has taken everything.
    pub in_force: watch::Receiver<u64>,
    /// Where the callers' proxy shows its metrics.
    pub telemetry: SocketAddr,
}

/// Starts Envoy and the tasks that keep it configured until `stop`; returns once it has taken its first configuration.
///
/// # Errors
/// Ports, files, or Envoy itself.
pub async fn start(store: Store, config: MeshConfig, stop: CancellationToken) -> Result<Mesh, MeshError> {
    let io = |what: &str| {
        let what = what.to_string();
        move |error| MeshError::Io { what, error }
    };
    let (outbound, admin) = (free_port().map_err(io("find a port"))?, free_port().map_err(io("find a port"))?);
    let mut ports = Ports { outbound, known: BTreeMap::new() };
    let (first, mut complaints) = ports.snapshot(&World::read(&store)).map_err(io("find a port"))?;
    tell(&store, &BTreeMap::new(), &complaints);
    let begun = first.version;
    let (gateways_out, gateways) = watch::channel(ports.known.clone());
    let (snapshots, for_envoy) = watch::channel(Arc::new(first));
    let (verdicts_out, mut verdicts) = mpsc::channel(256);
    let (in_force_out, mut in_force) = watch::channel(0);
    let ads = xds::serve(for_envoy, verdicts_out, stop.clone()).await.map_err(io("serve ADS"))?;

    let mut telemetry = None;
    for (workload, namespace) in [CALLER, GATEWAY] {
        let ip = config.ips.take().ok_or_else(|| MeshError::Down("no address is left for the proxies' metrics".into()))?;
        telemetry::serve(telemetry::Proxy { workload: workload.into(), admin }, IpAddr::V4(ip.addr()), stop.clone())
            .await
            .map_err(io("serve the proxies' metrics"))?;
        stand(&store, workload, namespace, ip.addr());
        telemetry.get_or_insert(SocketAddr::from((ip.addr(), telemetry::PORTS[0])));
        hold(ip, stop.clone());
    }

    // Translation: after each change, once what comes with it has come too.
    {
        let (store, stop) = (store.clone(), stop.clone());
        tokio::spawn(async move {
            let mut told: BTreeMap<Complaint, ()> = complaints.drain(..).map(|c| (c, ())).collect();
            // From what was read first, and after a gap from what was read last: nothing between the two is missed.
            let mut known = begun;
            loop {
                let mut changes = match store.watch(None, None, Some(known)) {
                    Ok(changes) => changes,
                    Err(_) => {
                        known = 0;
                        tokio::time::sleep(GATHER).await;
                        let Ok(changes) = store.watch(None, None, None) else { continue };
                        changes
                    }
                };
                loop {
                    let event = tokio::select! {
                        event = changes.next() => event,
                        () = stop.cancelled() => return,
                    };
                    let Ok(event) = event else { break };
                    let resource = &event.key.resource;
                    // Of a burst the first event has brought all of it.
                    if event.version <= known || !KINDS.iter().any(|(g, p)| *g == resource.group && *p == resource.plural) {
                        continue;
                    }
                    tokio::time::sleep(GATHER).await;
                    let world = World::read(&store);
                    known = world.version;
                    match ports.snapshot(&world) {
                        Ok((snapshot, complaints)) => {
                            tell(&store, &told, &complaints);
                            told = complaints.into_iter().map(|c| (c, ())).collect();
                            gateways_out.send_if_modified(|now| std::mem::replace(now, ports.known.clone()) != ports.known);
                            // Sent even when nothing of it reaches Envoy: what is in force is then of this version all the same.
                            snapshots.send_replace(Arc::new(snapshot));
                        }
                        Err(error) => tracing::warn!(%error, "no port for a gateway"),
                    }
                }
            }
        });
    }
    // What Envoy says.
    {
        let (store, stop) = (store.clone(), stop.clone());
        tokio::spawn(async move {
            loop {
                let verdict = tokio::select! {
                    verdict = verdicts.recv() => verdict,
                    () = stop.cancelled() => return,
                };
                match verdict {
                    None => return,
                    Some(Verdict::InForce(version)) => {
                        in_force_out.send_replace(version);
                    }
                    Some(Verdict::Refused { kind, error, .. }) => refused(&store, kind, &error),
                }
            }
        });
    }
    let (ended, mut down) = mpsc::channel(1);
    let log = config.log();
    tokio::spawn(keep(config, ads, admin, ended, stop.clone()));
    tokio::select! {
        _ = in_force.wait_for(|v| *v > 0) => {}
        Some(why) = down.recv() => return Err(MeshError::Down(why)),
        () = tokio::time::sleep(PATIENCE) => {
            let why = format!("it has not taken its configuration within {} s; its last words: {}", PATIENCE.as_secs(), last_words(&log));
            return Err(MeshError::Down(why));
        }
    }
    let telemetry = telemetry.unwrap_or(admin);
    Ok(Mesh { outbound, admin, gateways, in_force, telemetry })
}

/// Keeps an address until the end.
fn hold(ip: PodIp, stop: CancellationToken) {
    tokio::spawn(async move {
        stop.cancelled().await;
        drop(ip);
    });
}

/// Real ports, which stay once they are given.
struct Ports {
    outbound: SocketAddr,
    known: BTreeMap<String, SocketAddr>,
}

impl Ports {
    fn snapshot(&mut self, world: &World) -> std::io::Result<(Snapshot, Vec<Complaint>)> {
        let (resources, complaints) = translate::translate(world, CALLER.1);
        let mut listeners = BTreeMap::new();
        listeners.insert(OUTBOUND.to_string(), listeners::listener(OUTBOUND, self.outbound, CALLER.0, CALLER.1));
        let mut known = BTreeMap::new();
        for server in &resources.servers {
            let key = format!("{}:{}", server.gateway, server.port);
            let address = match self.known.get(&key) {
                Some(address) => *address,
                None => free_port()?,
            };
            known.insert(key, address);
            listeners.insert(server.name.clone(), listeners::listener(&server.name, address, GATEWAY.0, GATEWAY.1));
        }
        self.known = known;
        Ok((Snapshot { resources, listeners, version: world.version }, complaints))
    }
}

/// A port that was free a moment ago. Envoy takes it at once; between the two another process may, which Envoy then says.
fn free_port() -> std::io::Result<SocketAddr> {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// The Pod that a proxy of the lab is, for whoever looks for proxies to read.
fn stand(store: &Store, workload: &str, namespace: &str, ip: Ipv4Addr) {
    let now = seconds((store.clock())());
    if namespace != "default" {
        let key = Key::cluster("", "namespaces", namespace);
        let made = store.create(&key, json!({"apiVersion": "v1", "kind": "Namespace", "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}));
        debug_assert!(!matches!(made, Err(StoreError::NotFound(..))));
    }
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "labels": {"app": workload, "serin.dev/lab": "proxy"},
            "annotations": {"serin.dev/lab": "played by the lab's Envoy; its metrics are at :15090/stats/prometheus"},
        },
        "spec": {"nodeName": NODE, "containers": [{"name": "istio-proxy", "image": "envoy", "ports": [{"containerPort": 15090, "name": "http-envoy-prom"}]}]},
        "status": {
            "phase": "Running", "podIP": ip.to_string(), "podIPs": [{"ip": ip.to_string()}], "startTime": now,
            "conditions": [condition("Initialized"), condition("Ready"), condition("ContainersReady"), condition("PodScheduled")],
            "containerStatuses": [{"name": "istio-proxy", "image": "envoy", "imageID": "", "ready": true, "started": true, "restartCount": 0,
                "state": {"running": {"startedAt": now}}}],
        },
    });
    let key = Key::namespaced("", "pods", namespace, workload);
    if let Err(error) = store.create(&key, pod) {
        tracing::debug!(%error, "the proxy's pod");
    }
}

/// What the lab does not play is an Event on the object, once.
fn tell(store: &Store, told: &BTreeMap<Complaint, ()>, complaints: &[Complaint]) {
    for c in complaints.iter().filter(|c| !told.contains_key(*c)) {
        event(store, &c.kind, &c.namespace, &c.name, "NotPlayed", &c.what);
    }
}

/// Envoy's refusal of a whole update, told on every VirtualService, as any of them may be the cause.
fn refused(store: &Store, kind: session::Type, error: &str) {
    tracing::warn!(?kind, error, "Envoy refused the update; the old configuration goes on");
    for vs in World::read(store).routes {
        let (namespace, name) = (world::text(&vs, "/metadata/namespace"), world::text(&vs, "/metadata/name"));
        event(store, "VirtualService", namespace, name, "Refused", &format!("Envoy refused the update, and the old routes go on: {error}"));
    }
}

fn event(store: &Store, kind: &str, namespace: &str, name: &str, reason: &str, message: &str) {
    let now = seconds((store.clock())());
    let plural = format!("{}s", kind.to_ascii_lowercase());
    let uid = store.get(&Key::namespaced("networking.istio.io", &plural, namespace, name)).map(|o| o["metadata"]["uid"].clone()).unwrap_or_default();
    let message: String = message.chars().take(1024).collect();
    // One event per object and reason; the next one counts up.
    let key = Key::namespaced("", "events", namespace, &format!("{name}.{}", reason.to_ascii_lowercase()));
    let body = json!({
        "apiVersion": "v1", "kind": "Event", "type": "Warning", "reason": reason, "message": message, "count": 1,
        "firstTimestamp": now, "lastTimestamp": now, "source": {"component": "serin-lab"}, "reportingComponent": "serin-lab",
        "involvedObject": {"apiVersion": "networking.istio.io/v1", "kind": kind, "namespace": namespace, "name": name, "uid": uid},
    });
    if let Err(StoreError::AlreadyExists(..)) = store.create(&key, body) {
        let again = store.update(&key, Write::Whole, |old| {
            let mut new = old.clone();
            new["count"] = (old["count"].as_u64().unwrap_or(1) + 1).into();
            new["lastTimestamp"] = now.as_str().into();
            new["message"] = message.as_str().into();
            Ok::<Value, StoreError>(new)
        });
        if let Err(error) = again {
            tracing::debug!(%error, "event");
        }
    }
}

/// Runs Envoy, and again when it ends by itself, until `stop`.
async fn keep(config: MeshConfig, ads: SocketAddr, admin: SocketAddr, ended: mpsc::Sender<String>, stop: CancellationToken) {
    let mut pause = Duration::from_millis(100);
    loop {
        let why = match run_once(&config, ads, admin, &stop).await {
            Ok(None) => return,
            Ok(Some(why)) => why,
            Err(error) => error.to_string(),
        };
        tracing::warn!(why, ?pause, "Envoy ended; it is started again");
        // Nobody waits for it after the start.
        let _ = ended.try_send(why);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// `None` when it was told to end; else why it ended.
async fn run_once(config: &MeshConfig, ads: SocketAddr, admin: SocketAddr, stop: &CancellationToken) -> std::io::Result<Option<String>> {
    std::fs::create_dir_all(&config.dir)?;
    let file = config.dir.join("envoy.json");
    std::fs::write(&file, serde_json::to_vec_pretty(&envoy::bootstrap(ads, admin))?)?;
    let output = std::fs::File::options().create(true).append(true).open(config.log())?;
    let args = ["-c".into(), file.into_os_string(), "--disable-hot-restart".into(), "--concurrency".into(), "2".into(), "--log-level".into(), "warning".into()];
    let mut command = guarded(&config.self_exe, &config.envoy.path, args);
    command.stdout(output.try_clone()?).stderr(output).kill_on_drop(true);
    let mut child = command.spawn()?;
    // Closing this pipe ends Envoy with its guard: at the latest when this process ends, however it does.
    let pipe = child.stdin.take();
    let status = tokio::select! {
        status = child.wait() => status?,
        () = stop.cancelled() => {
            drop(pipe);
            child.wait().await?;
            return Ok(None);
        }
    };
    Ok(Some(format!("{status}; its last words: {}", last_words(&config.log()))))
}

fn last_words(log: &Path) -> String {
    let said = std::fs::read_to_string(log).unwrap_or_default();
    said.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("none").to_string()
}
