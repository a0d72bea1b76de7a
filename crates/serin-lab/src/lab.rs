//! Starts and stops all parts of the lab together, and knows the labs of this machine.
//!
//! A lab has a name and a directory; a lock in it is held as long as the lab lives, whatever ends it. What other
//! processes need to know (`serin lab status`, `down`) stands in `lab.json`; the kubeconfig lies beside it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{Api, LogError, LogRequest, LogStream, Logs, ServeError, Serving, write_private};
use crate::mesh::envoy::Found;
use crate::mesh::{self, Mesh, MeshConfig, MeshError};
use crate::store::{Clock, Key, Store};
use crate::workloads::{self, IpError, LogOptions, PodIps, WorkloadConfig};

/// The name of a lab that nobody named; the next ones on the machine are `lab-2`, `lab-3`.
const NAME: &str = "lab";
/// So many labs are looked through for a free name.
const MOST: usize = 64;

/// How a lab is to be.
#[derive(Clone)]
pub struct LabConfig {
    /// The binary that calls [`workloads::dispatch`] first thing: it becomes guards and sample apps.
    pub self_exe: PathBuf,
    /// Its name; `None` takes the first that is free.
    pub name: Option<String>,
    /// Where labs keep their directories; `None`: `$XDG_STATE_HOME/serin/labs`.
    pub root: Option<PathBuf>,
    /// The API's port; 0 takes any free one.
    pub port: u16,
    /// Which commands images stand for: `GLOB=COMMAND ARGS`.
    pub images: Vec<String>,
    /// Whether commands that stand in manifests are run.
    pub exec: bool,
    /// YAML texts that are applied before anything runs: CRDs, mostly.
    pub manifests: Vec<String>,
    /// The Envoy that plays the mesh, as `mesh::envoy::find` gave it; `None`: a lab without a mesh.
    pub envoy: Option<Found>,
    /// The wall clock.
    pub clock: Clock,
}

impl LabConfig {
    /// A lab with nothing in it, run by `self_exe`.
    pub fn new(self_exe: impl Into<PathBuf>, clock: Clock) -> Self {
        Self {
            self_exe: self_exe.into(),
            name: None,
            root: None,
            port: 0,
            images: Vec::new(),
            exec: false,
            manifests: Vec::new(),
            envoy: None,
            clock,
        }
    }
}

/// Why a lab cannot be started or found.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Another lab of this name runs.
    #[error("a lab named {0} runs already")]
    Running(String),
    /// The name is no plain one.
    #[error("{0:?} is no name for a lab: use lower-case letters, digits and dashes")]
    Name(String),
    /// A file of the lab's directory.
    #[error("{what} {}: {cause}", path.display())]
    File {
        /// What was tried: `write`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The API.
    #[error(transparent)]
    Api(#[from] ServeError),
    /// Addresses of pods.
    #[error(transparent)]
    Addresses(#[from] IpError),
    /// Envoy, or what it needs.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// A manifest to start with was refused.
    #[error("apply {0}")]
    Manifest(String),
}

/// What other processes may know of a lab; `lab.json`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LabInfo {
    /// Its name.
    pub name: String,
    /// The process that runs it.
    pub pid: u32,
    /// The API's address: `https://127.0.0.1:PORT`.
    pub api: String,
    /// The kubeconfig, readable by its owner alone.
    pub kubeconfig: PathBuf,
    /// Its directory: logs and the files above.
    pub dir: PathBuf,
    /// Since when it runs (RFC 3339).
    pub started: String,
    /// Addresses that other parts listen on, by what they are: `callers` (in the mesh; the service is chosen by the Host header),
    /// `gateway/NAMESPACE/NAME:PORT`, `metrics` (of the callers' proxy), `envoy-admin`.
    pub addresses: BTreeMap<String, String>,
}

/// A running lab. Dropping it without [`Lab::stop`] ends its tasks' processes too, but less gently.
pub struct Lab {
    api: Api,
    info: LabInfo,
    mesh: Option<Mesh>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    _lock: File,
}

impl std::fmt::Debug for Lab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lab").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Lab {
    /// Starts a lab; when this returns, the API answers.
    ///
    /// # Errors
    /// What could not be had; nothing of the lab is left then.
    pub async fn start(config: LabConfig) -> Result<Self, LabError> {
        let root = config.root.clone().unwrap_or_else(default_root);
        let (name, dir, lock) = claim(&root, config.name.as_deref())?;
        let store = Store::new(config.clock.clone());
        let api = Api::new(store.clone());
        for text in &config.manifests {
            api.apply(text, "serin-lab").await.map_err(LabError::Manifest)?;
        }
        let logs = workloads::Logs::new(dir.join("logs"));
        api.set_logs(Arc::new(ContainerLogs { logs: logs.clone(), store: store.clone() }));
        let ips = PodIps::claim()?;
        let stop = CancellationToken::new();
        // From here on, leaving early must end what was started.
        let guard = stop.clone().drop_guard();
        let serving = api.serve(config.port, stop.clone()).await?;
        let mut info = LabInfo {
            name: name.clone(),
            pid: std::process::id(),
            api: serving.url.clone(),
            kubeconfig: dir.join("kubeconfig"),
            dir: dir.clone(),
            started: crate::store::seconds((config.clock)()),
            addresses: BTreeMap::new(),
        };
        serving.write_kubeconfig(&format!("serin-{name}"), &info.kubeconfig)?;
        let mesh_config =
            config.envoy.map(|envoy| MeshConfig { self_exe: config.self_exe.clone(), envoy, dir: dir.join("envoy"), ips: ips.clone() });
        let workload = WorkloadConfig { self_exe: config.self_exe, logs, exec: config.exec, ips, images: config.images };
        let housekeeping = api.clone();
        let ended = stop.clone();
        let Serving { task, .. } = serving;
        let mut tasks = vec![
            task,
            tokio::spawn(async move { housekeeping.run(ended).await }),
            tokio::spawn(workloads::run(store.clone(), workload, stop.clone())),
        ];
        let mesh = match mesh_config {
            Some(config) => Some(mesh::start(store, config, stop.clone()).await?),
            None => None,
        };
        if let Some(mesh) = &mesh {
            let fixed = [("callers", mesh.outbound), ("metrics", mesh.telemetry), ("envoy-admin", mesh.admin)];
            info.addresses.extend(fixed.map(|(name, address)| (name.to_owned(), address.to_string())));
            tasks.push(tokio::spawn(tell_gateways(info.clone(), mesh.gateways.clone(), stop.clone())));
        }
        let lab = Self { api, info, mesh, stop, tasks, _lock: lock };
        write_info(&lab.info)?;
        let _ = guard.disarm();
        Ok(lab)
    }

    /// What others may know of it.
    pub fn info(&self) -> &LabInfo {
        &self.info
    }

    /// Where its kubeconfig is.
    pub fn kubeconfig(&self) -> &Path {
        &self.info.kubeconfig
    }

    /// Its API, for clients in this process.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Its mesh, if it has one.
    pub fn mesh(&self) -> Option<&Mesh> {
        self.mesh.as_ref()
    }

    /// Cancelled when the lab stops; a part that fails for good cancels it.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// Ends everything it started, and waits for the end.
    pub async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a part of the lab panicked");
            }
        }
        for file in ["lab.json", "kubeconfig"] {
            // Not there is as good.
            let _ = fs::remove_file(self.info.dir.join(file));
        }
    }
}

fn write_info(info: &LabInfo) -> Result<(), LabError> {
    let path = info.dir.join("lab.json");
    let text = serde_json::to_vec_pretty(info).unwrap_or_default();
    write_private(&path, &text).map_err(|cause| LabError::File { what: "write", path, cause })
}

/// Keeps the ports of Gateways in `lab.json`: they come and go with the objects.
async fn tell_gateways(info: LabInfo, mut gateways: watch::Receiver<BTreeMap<String, SocketAddr>>, stop: CancellationToken) {
    loop {
        let now = gateways.borrow_and_update().clone();
        let mut info = info.clone();
        info.addresses.extend(now.iter().map(|(name, address)| (format!("gateway/{name}"), address.to_string())));
        if let Err(error) = write_info(&info) {
            tracing::warn!(%error, "lab.json");
        }
        tokio::select! {
            changed = gateways.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

/// `$XDG_STATE_HOME/serin/labs`, `~/.local/state/serin/labs`, or a directory for temporary files.
pub fn default_root() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let state = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")));
    state.unwrap_or_else(std::env::temp_dir).join("serin/labs")
}

/// The labs that run now under `root`, by name.
pub fn running(root: &Path) -> Vec<LabInfo> {
    let mut all: Vec<LabInfo> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| is_locked(&entry.path().join("lock")))
        .filter_map(|entry| serde_json::from_slice(&fs::read(entry.path().join("lab.json")).ok()?).ok())
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// Asks a running lab to stop; it ends its processes by itself. Whether there was one to ask.
pub fn ask_to_stop(info: &LabInfo) -> bool {
    let pid = i32::try_from(info.pid).ok().and_then(Pid::from_raw);
    // The lock tells that the process is still that lab, not another one that got its number.
    is_locked(&info.dir.join("lock")) && pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok())
}

fn is_locked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}

/// A name, its directory, and the lock on it.
fn claim(root: &Path, name: Option<&str>) -> Result<(String, PathBuf, File), LabError> {
    if let Some(name) = name {
        let plain = !name.is_empty() && name.len() <= 40 && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
        if !plain {
            return Err(LabError::Name(name.to_owned()));
        }
        return lock(root, name)?.ok_or_else(|| LabError::Running(name.to_owned()));
    }
    for n in 1..=MOST {
        let name = if n == 1 { NAME.to_owned() } else { format!("{NAME}-{n}") };
        if let Some(claimed) = lock(root, &name)? {
            return Ok(claimed);
        }
    }
    Err(LabError::Running(NAME.to_owned()))
}

fn lock(root: &Path, name: &str) -> Result<Option<(String, PathBuf, File)>, LabError> {
    let dir = root.join(name);
    let fail = |what, path: &Path| {
        let path = path.to_owned();
        move |cause| LabError::File { what, path, cause }
    };
    fs::create_dir_all(&dir).map_err(fail("create", &dir))?;
    let path = dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(fail("open", &path))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(None);
    }
    // What a lab that died left behind.
    let _ = fs::remove_dir_all(dir.join("logs"));
    for old in ["lab.json", "kubeconfig"] {
        let _ = fs::remove_file(dir.join(old));
    }
    Ok(Some((name.to_owned(), dir, file)))
}

/// The kubelet's log files, as the API asks for them.
struct ContainerLogs {
    logs: workloads::Logs,
    store: Store,
}

impl Logs for ContainerLogs {
    fn open(&self, request: LogRequest) -> Result<LogStream, LogError> {
        let LogRequest { namespace, pod, container, .. } = &request;
        let Some(path) = self.logs.path(namespace, pod, container, request.previous) else {
            return Err(LogError::NotThere(if request.previous {
                format!("previous terminated container {container:?} in pod {pod:?} not found")
            } else {
                format!("container {container:?} in pod {pod:?} is waiting to start: {}", self.waiting(namespace, pod, container))
            }));
        };
        let now = (self.store.clock())();
        let seconds = request.since_seconds.and_then(|s| i64::try_from(s).ok()).map(jiff::SignedDuration::from_secs);
        let options = LogOptions {
            follow: request.follow,
            tail_lines: request.tail_lines.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
            since: seconds.and_then(|s| now.checked_sub(s).ok()),
            limit_bytes: request.limit_bytes.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
            timestamps: request.timestamps,
        };
        let reader = self.logs.read(&path, options).map_err(|e| LogError::Failed(format!("read {}: {e}", path.display())))?;
        let pieces = futures::stream::unfold(reader, |mut reader| async move {
            match reader.next().await? {
                Ok(piece) => Some((piece, reader)),
                Err(error) => {
                    tracing::warn!(%error, "read a container's log");
                    None
                }
            }
        });
        Ok(pieces.boxed())
    }
}

impl ContainerLogs {
    fn waiting(&self, namespace: &str, pod: &str, container: &str) -> String {
        let found = self.store.get(&Key::namespaced("", "pods", namespace, pod));
        let statuses = found.as_deref().map(|p| &p["status"]["containerStatuses"]);
        let status = statuses.and_then(|s| s.as_array()?.iter().find(|c| c["name"] == container));
        let reason = status.and_then(|s| s["state"]["waiting"]["reason"].as_str());
        reason.unwrap_or("ContainerCreating").to_owned()
    }
}
