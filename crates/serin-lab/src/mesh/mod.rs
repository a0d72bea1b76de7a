//! VirtualServices and DestinationRules as Envoy configuration, Envoy itself, its telemetry, and traffic.
//!
//! Reading order: `world` (what routing depends on), `translate` (objects → Envoy's configuration: `rules` and `clusters`; `routes`,
//! `delegate` and `http`; `fields` is what is understood), `listeners`,
//! `session` and `xds` (how Envoy gets them), `ports`, `envoy` (the program), `telemetry` (its counters as Istio shows them), `traffic`
//! (callers), `report` (what objects are told).
//! One Envoy plays the callers' sidecar and every gateway: they are separate listeners.

mod admin;
mod clusters;
mod delegate;
pub mod envoy;
mod fields;
mod hosts;
mod http;
mod listeners;
mod ports;
mod report;
mod routes;
mod rules;
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

use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::store::{Key, Store, StoreError, seconds};
use crate::workloads::{PodIp, PodIps, guarded};
use envoy::{EnvoyError, Found};
use ports::{Held, Ports};
use report::Told;
use session::{Snapshot, Verdict};
use translate::Caller;
use world::{KINDS, World};

/// Changes that come together are sent together.
const GATHER: Duration = Duration::from_millis(2);
/// So long Envoy may take to come up, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Before an Envoy that ended is started again; doubled each time, up to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
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
    let mut ports = Ports::take().map_err(io("find a port"))?;
    let admin_port = Held::take().map_err(io("find a port"))?;
    let (outbound, admin) = (ports.outbound(), admin_port.address);
    let (first, complaints) = ports.snapshot(&World::read(&store)).map_err(io("find a port"))?;
    let mut told = Told::default();
    told.tell(&store, &complaints);
    let seen = first.version;
    let (gateways_out, gateways) = watch::channel(ports.gateways());
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
    let follower = Follower { store: store.clone(), ports, told, gateways: gateways_out, snapshots };
    tokio::spawn(follower.run(seen, stop.clone()));
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
                    Some(Verdict::Refused { kind, error, .. }) => report::refused(&store, kind, &error, *in_force_out.borrow()),
                }
            }
        });
    }
    let (ended, mut down) = mpsc::channel(1);
    let log = config.log();
    tokio::spawn(keep(store, config, ads, admin_port, ended, stop.clone()));
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

/// Translates after each change, once what comes with it has come too.
struct Follower {
    store: Store,
    ports: Ports,
    told: Told,
    gateways: watch::Sender<BTreeMap<String, SocketAddr>>,
    snapshots: watch::Sender<Arc<Snapshot>>,
}

impl Follower {
    /// `seen`: the store's version up to which changes are in the latest snapshot.
    async fn run(mut self, mut seen: u64, stop: CancellationToken) {
        loop {
            let Ok(mut changes) = self.store.watch(None, None, Some(seen)) else {
                // Further behind than the store remembers.
                seen = self.translate();
                continue;
            };
            loop {
                let event = tokio::select! {
                    event = changes.next() => event,
                    () = stop.cancelled() => return,
                };
                let Ok(event) = event else { break };
                if event.version <= seen {
                    continue;
                }
                let resource = &event.key.resource;
                if !KINDS.iter().any(|(g, p)| *g == resource.group && *p == resource.plural) {
                    seen = event.version;
                    continue;
                }
                tokio::time::sleep(GATHER).await;
                seen = self.translate();
            }
        }
    }

    /// The version of the store that is translated now.
    fn translate(&mut self) -> u64 {
        let world = World::read(&self.store);
        match self.ports.snapshot(&world) {
            Ok((snapshot, complaints)) => {
                self.told.tell(&self.store, &complaints);
                let gateways = self.ports.gateways();
                self.gateways.send_if_modified(|now| std::mem::replace(now, gateways.clone()) != gateways);
                // Sent even when nothing of it reaches Envoy: the version that is in force goes on.
                self.snapshots.send_replace(Arc::new(snapshot));
            }
            Err(error) => tracing::warn!(%error, "no port for a gateway"),
        }
        world.version
    }
}

/// Keeps an address until the end.
fn hold(ip: PodIp, stop: CancellationToken) {
    tokio::spawn(async move {
        stop.cancelled().await;
        drop(ip);
    });
}

/// The Pod that a proxy of the lab is, for whoever looks for proxies to read.
fn stand(store: &Store, workload: &str, namespace: &str, ip: Ipv4Addr) {
    let now = seconds((store.clock())());
    if namespace != "default" {
        let key = Key::cluster("", "namespaces", namespace);
        let made = store.create(
            &key,
            json!({"apiVersion": "v1", "kind": "Namespace", "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
        );
        debug_assert!(!matches!(made, Err(StoreError::NotFound(..))));
    }
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "labels": Caller::labels(workload),
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

/// Runs Envoy, and again when it ends by itself, until `stop`.
async fn keep(store: Store, config: MeshConfig, ads: SocketAddr, admin: Held, ended: mpsc::Sender<String>, stop: CancellationToken) {
    let mut pause = SHORTEST_PAUSE;
    loop {
        let began = tokio::time::Instant::now();
        let why = match run_once(&config, ads, admin.address, &stop).await {
            Ok(None) => return,
            Ok(Some(why)) => why,
            Err(error) => error.to_string(),
        };
        if began.elapsed() > LONGEST_PAUSE {
            pause = SHORTEST_PAUSE;
        }
        tracing::warn!(why, ?pause, "Envoy ended; it is started again");
        let caller = ("Pod".to_string(), CALLER.1.to_string(), CALLER.0.to_string());
        report::event(&store, &caller, "EnvoyEnded", &format!("Envoy ended and is started again; meanwhile nobody is answered: {why}"));
        // Nobody waits for it after the start.
        let _ = ended.try_send(why);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// `None` when it was told to end; else why it ended.
async fn run_once(config: &MeshConfig, ads: SocketAddr, admin: SocketAddr, stop: &CancellationToken) -> std::io::Result<Option<String>> {
    std::fs::create_dir_all(&config.dir)?;
    let file = config.dir.join("envoy.json");
    std::fs::write(&file, serde_json::to_vec_pretty(&envoy::bootstrap(ads, admin))?)?;
    let output = std::fs::File::options().create(true).append(true).open(config.log())?;
    let args = [
        "-c".into(),
        file.into_os_string(),
        "--disable-hot-restart".into(),
        "--concurrency".into(),
        "2".into(),
        "--log-level".into(),
        "warning".into(),
    ];
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
