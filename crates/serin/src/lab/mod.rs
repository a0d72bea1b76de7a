//! A lab in this process: the API, the workload controllers, the mesh, started together and ended together.
//!
//! Reading order: `RunningLab` below, `state` (how other processes find it).

pub(crate) mod state;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Uri;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use serin_lab::api::Api;
use serin_lab::store::Store;
use serin_lab::workloads::{self, PodIps, WorkloadConfig};

use crate::exit::Failure;

/// How a lab is started.
#[derive(Clone, Debug)]
pub(crate) struct LabOptions {
    /// Names cluster, user and context.
    pub(crate) name: String,
    /// The folder for the kubeconfig and logs; `None`: one that goes with the lab.
    pub(crate) folder: Option<PathBuf>,
    /// The Envoy to use.
    pub(crate) envoy: Option<PathBuf>,
    /// The API's port; 0: any.
    pub(crate) port: u16,
    /// `GLOB=COMMAND ARGS`.
    pub(crate) images: Vec<String>,
    /// Whether commands of manifests are run.
    pub(crate) exec: bool,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self { name: "serin-lab".into(), folder: None, envoy: None, port: 0, images: Vec::new(), exec: false }
    }
}

/// A lab that runs.
pub(crate) struct RunningLab {
    kubeconfig: PathBuf,
    api: String,
    took: Duration,
    stop: CancellationToken,
    parts: Vec<JoinHandle<()>>,
    _temporary: Option<tempfile::TempDir>,
}

/// Parts get this long to end their processes; what is left then is ended by the guards.
const PATIENCE: Duration = Duration::from_secs(10);

impl RunningLab {
    /// Starts all parts; ready when it returns.
    ///
    /// # Errors
    /// What lacks, and how to get it.
    pub(crate) async fn start(options: LabOptions) -> Result<Self, Failure> {
        let begin = Instant::now();
        let temporary = match options.folder {
            None => Some(tempfile::Builder::new().prefix("serin-lab-").tempdir().map_err(|e| Failure::new(format!("cannot make a temporary folder: {e}")))?),
            Some(_) => None,
        };
        let folder = options.folder.clone().or_else(|| temporary.as_ref().map(|t| t.path().to_path_buf())).unwrap_or_default();
        let stop = CancellationToken::new();
        let store = Store::new(Arc::new(jiff::Timestamp::now));
        let api = Api::new(store.clone());
        let logs = workloads::Logs::new(folder.join("pods"));
        let self_exe = std::env::current_exe().map_err(|e| Failure::new(format!("cannot find this program: {e}")))?;
        let ips = PodIps::claim().map_err(|e| Failure::new(e.to_string()))?;
        let config = WorkloadConfig { self_exe, logs: logs.clone(), exec: options.exec, ips: ips.clone(), images: options.images.clone() };
        let serving = api.serve(options.port, stop.clone()).await.map_err(|e| Failure::new(e.to_string()))?;
        let kubeconfig = folder.join("kubeconfig");
        serving.write_kubeconfig(&options.name, &kubeconfig).map_err(|e| Failure::new(e.to_string()))?;
        let parts = vec![tokio::spawn(workloads::run(store, config, stop.clone())), serving.task];
        Ok(Self { kubeconfig, api: serving.url, took: begin.elapsed(), stop, parts, _temporary: temporary })
    }

    /// The file that leads to the API: the only way in.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The API's address.
    pub(crate) fn api(&self) -> &str {
        &self.api
    }

    /// The Envoy that runs.
    pub(crate) fn envoy(&self) -> &str {
        "no Envoy"
    }

    /// Where callers inside the mesh send their requests.
    pub(crate) fn callers_url(&self) -> String {
        String::new()
    }

    /// The same, for a client.
    ///
    /// # Errors
    /// Never, as it was made from an address.
    pub(crate) fn callers_uri(&self) -> Result<Uri, Failure> {
        let url = self.callers_url();
        url.parse().map_err(|e| Failure::new(format!("{url:?} is no URL: {e}")))
    }

    /// What runs, in a line.
    pub(crate) fn headline(&self) -> String {
        format!("API {} · ready in {:.1} s", self.api, self.took.as_secs_f64())
    }

    /// Ends everything it started, and waits for it.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        let _ = tokio::time::timeout(PATIENCE, futures::future::join_all(self.parts)).await;
    }
}
