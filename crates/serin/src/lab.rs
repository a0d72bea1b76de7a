//! A lab in this process, as the commands need it: started, told of, ended.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http::Uri;
use serin_lab::api::ServeError;
use serin_lab::lab::{Lab, LabConfig, LabError, LabInfo, default_root, running};
use serin_lab::mesh::envoy::{EnvoyError, Found, fetch as fetch_envoy, find as find_envoy};

use crate::exit::Failure;

/// How a lab is started.
#[derive(Clone, Debug, Default)]
pub(crate) struct LabOptions {
    /// Its name; `None`: nobody has to find it.
    pub(crate) name: Option<String>,
    /// The Envoy to use.
    pub(crate) envoy: Option<PathBuf>,
    /// The API's port; 0: any.
    pub(crate) port: u16,
    /// `GLOB=COMMAND ARGS`.
    pub(crate) images: Vec<String>,
    /// Whether commands of manifests are run.
    pub(crate) exec: bool,
    /// YAML that is there from the start.
    pub(crate) manifests: Vec<String>,
}

/// A lab that runs.
pub(crate) struct RunningLab {
    lab: Lab,
    envoy: Found,
    took: Duration,
    _temporary: Option<tempfile::TempDir>,
}

/// Parts get this long to end their processes; what is left then is ended by the guards.
const PATIENCE: Duration = Duration::from_secs(15);

impl RunningLab {
    /// Starts all parts; ready when it returns.
    ///
    /// # Errors
    /// What lacks, and how to get it.
    pub(crate) async fn start(options: LabOptions) -> Result<Self, Failure> {
        let self_exe = std::env::current_exe().map_err(|e| Failure::new(format!("cannot find this program: {e}")))?;
        let envoy = envoy(options.envoy).await?;
        let begin = Instant::now();
        // A lab that nobody has to find leaves nothing behind.
        let temporary = match options.name {
            None => Some(
                tempfile::Builder::new()
                    .prefix("serin-lab-")
                    .tempdir()
                    .map_err(|e| Failure::new(format!("cannot make a temporary folder: {e}")))?,
            ),
            Some(_) => None,
        };
        let config = LabConfig {
            name: options.name,
            root: temporary.as_ref().map(|t| t.path().to_path_buf()),
            port: options.port,
            images: options.images,
            exec: options.exec,
            manifests: options.manifests,
            envoy: Some(envoy.clone()),
            ..LabConfig::new(self_exe, std::sync::Arc::new(jiff::Timestamp::now))
        };
        let lab = Lab::start(config).await.map_err(|e| {
            let hint = match &e {
                LabError::Api(ServeError::Listen { .. }) => "serin lab up    # without --port any free one is taken",
                _ => "serin lab status",
            };
            Failure::new(format!("cannot start the lab: {e}")).hint(hint)
        })?;
        Ok(Self { lab, envoy, took: begin.elapsed(), _temporary: temporary })
    }

    /// What others may know of it.
    pub(crate) fn info(&self) -> &LabInfo {
        self.lab.info()
    }

    /// The file that leads to the API: the only way in.
    pub(crate) fn kubeconfig(&self) -> &Path {
        self.lab.kubeconfig()
    }

    /// What runs, in a line.
    pub(crate) fn headline(&self) -> String {
        format!("API {} · {} · up in {:.1} s", self.info().api, name_of(&self.envoy), self.took.as_secs_f64())
    }

    /// Where callers inside the mesh send their requests.
    ///
    /// # Errors
    /// The lab tells no address.
    pub(crate) fn callers(&self) -> Result<Uri, Failure> {
        callers(self.info())
    }

    /// Its mesh.
    ///
    /// # Errors
    /// It has none.
    pub(crate) fn mesh(&self) -> Result<&serin_lab::mesh::Mesh, Failure> {
        self.lab.mesh().ok_or_else(|| Failure::new(format!("lab {} has no mesh", self.info().name)))
    }

    /// Comes back when a part of it has failed for good.
    pub(crate) async fn failed(&self) {
        self.lab.stopping().cancelled().await;
    }

    /// Ends everything it started, and waits for it.
    pub(crate) async fn stop(self) {
        let _ = tokio::time::timeout(PATIENCE, self.lab.stop()).await;
    }
}

/// `Envoy 1.40.0 (cached)`.
pub(crate) fn name_of(envoy: &Found) -> String {
    format!("Envoy {} ({})", envoy.version, envoy.from)
}

/// The Envoy to run; fetched if there is none, which takes its time.
///
/// # Errors
/// None is there, and none can be had.
pub(crate) async fn envoy(given: Option<PathBuf>) -> Result<Found, Failure> {
    on_its_own_thread(move || find_envoy(given.as_deref())).await
}

/// Gets Envoy into the cache, if it is not there.
///
/// # Errors
/// It cannot be had.
pub(crate) async fn fetch() -> Result<Found, Failure> {
    on_its_own_thread(fetch_envoy).await
}

/// Finding and fetching block; the signals that end the program must not wait for them.
async fn on_its_own_thread(get: impl FnOnce() -> Result<Found, EnvoyError> + Send + 'static) -> Result<Found, Failure> {
    let found = tokio::task::spawn_blocking(get).await.map_err(|e| Failure::new(format!("cannot look for Envoy: {e}")))?;
    found.map_err(|e| Failure::new(e.what).hint(e.hint))
}

/// Where callers inside the mesh send their requests.
///
/// # Errors
/// The lab tells no address.
pub(crate) fn callers(info: &LabInfo) -> Result<Uri, Failure> {
    let address = info.addresses.get("callers").ok_or_else(|| Failure::new(format!("lab {} has no proxy for callers", info.name)))?;
    let url = if address.contains("://") { address.clone() } else { format!("http://{address}/") };
    url.parse().map_err(|e| Failure::new(format!("lab {} tells {url:?} as its callers' proxy: {e}", info.name)))
}

/// The lab of that name, if it runs.
pub(crate) fn named(name: &str) -> Option<LabInfo> {
    running(&default_root()).into_iter().find(|l| l.name == name)
}

/// The lab whose kubeconfig that is, else the only one that runs.
pub(crate) fn find(kubeconfig: Option<&Path>) -> Option<LabInfo> {
    let labs = running(&default_root());
    let from_env = std::env::var_os("KUBECONFIG").map(PathBuf::from);
    let wanted = kubeconfig.map(Path::to_path_buf).or(from_env);
    let by_file = wanted.and_then(|file| labs.iter().find(|l| l.kubeconfig == file).cloned());
    by_file.or_else(|| if let [one] = labs.as_slice() { Some(one.clone()) } else { None })
}
