//! `serin controller`: the loop that carries releases out, in a cluster or beside one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use kube::{Client, Config as KubeConfig};
use serin_controller::{Config, LeaseOptions, Options, Source};
use serin_core::route::rules::ROOT_NAMESPACE;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, ClusterArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::out;
use crate::sources::PrometheusArgs;

/// Run the controller
#[derive(Args, Debug)]
#[command(
    after_help = "Uses the kubeconfig, or in a pod the pod's own account. --namespace limits it to one namespace.\nSIGTERM and Ctrl-C let the looks that are under way end; traffic stays exactly where it is.\n\nExit codes: 0 ended as asked; 2 it could not start; 130 interrupted.\n\nExamples:\n  serin controller\n  serin controller --namespace shop --log json\n  serin controller --leader-elect --listen 0.0.0.0:8081\n  serin controller --source prometheus --prometheus-url http://prometheus.monitoring:9090"
)]
pub(crate) struct ControllerArgs {
    /// Where requests are counted: proxies reads Istio's proxies themselves, prometheus asks one that does
    #[arg(long, value_enum, value_name = "SOURCE", default_value = "proxies")]
    source: SourceKind,
    /// The port where proxies show their metrics
    #[arg(long, value_name = "PORT", default_value = "15090")]
    proxies_port: u16,
    #[command(flatten)]
    prometheus: PrometheusArgs,
    /// A file (YAML) with sources that releases may name in spec.analysis.source; see docs/prometheus.md
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "prometheus_url"])]
    config: Option<PathBuf>,
    /// Act only while holding a lease: of several controllers one is in charge
    #[arg(long)]
    leader_elect: bool,
    /// The controller's own namespace: of its lease, and of the CanaryPolicy "default" [default: the pod's, else the context's]
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", hide_env = true)]
    lease_namespace: Option<String>,
    /// Who this is among several controllers [default: the pod's name, else host and process]
    #[arg(long, value_name = "NAME", env = "POD_NAME", hide_env = true)]
    identity: Option<String>,
    /// Serve /healthz, /readyz and /metrics at this address
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Istio's root namespace
    #[arg(long, value_name = "NAME", default_value = ROOT_NAMESPACE)]
    root_namespace: String,
    /// How log lines are written
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    log: LogFormat,
}

/// Sources of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SourceKind {
    Proxies,
    Prometheus,
}

/// Forms of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl ControllerArgs {
    fn config(&self, namespace: Option<String>) -> Result<Config, Failure> {
        let config = config(namespace);
        if let Some(file) = &self.config {
            return crate::sources::read(file, config);
        }
        if self.source == SourceKind::Proxies {
            return Ok(Config { source: Source::Proxies { port: self.proxies_port }, ..config });
        }
        let named = self.prometheus.described().ok_or_else(|| {
            Failure::new("--source prometheus needs to know where it is")
                .hint("serin controller --source prometheus --prometheus-url http://prometheus.monitoring:9090")
        })?;
        let source = named.source(&config.clock)?;
        Ok(Config { sources: [("Prometheus".to_string(), source.clone())].into(), source, ..config })
    }

    fn options(&self, namespace: &str) -> Options {
        let lease = self.leader_elect.then(|| LeaseOptions::new(self.lease_namespace.as_deref().unwrap_or(namespace)));
        let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").map(|h| h.trim().to_string()).unwrap_or_else(|_| "serin".into());
        Options {
            root_namespace: self.root_namespace.clone(),
            home: Some(self.lease_namespace.clone().unwrap_or_else(|| namespace.to_string())),
            identity: self.identity.clone().unwrap_or_else(|| format!("{}-{}", host(), std::process::id())),
            lease,
            serve: self.listen,
        }
    }
}

fn config(namespace: Option<String>) -> Config {
    Config { namespace, ..Config::new(Arc::new(jiff::Timestamp::now)) }
}

/// Runs until it is told to end.
pub(crate) async fn run(args: ControllerArgs, cluster: &ClusterArgs) -> Outcome {
    log_to_stderr(args.log);
    let (client, namespace) = client(cluster).await?;
    let stop = CancellationToken::new();
    let running = serin_controller::run_with(client, args.config(cluster.namespace.clone())?, args.options(&namespace), stop.clone());
    tokio::pin!(running);
    let ended = tokio::select! {
        ended = &mut running => ended,
        () = crate::cli::interrupted() => { stop.cancel(); running.await }
    };
    ended.map_err(|e| {
        let hint = match &e {
            serin_controller::StartError::Listen { .. } => "serin controller --listen 127.0.0.1:0    # or another free port",
            serin_controller::StartError::WatchesEnded => "kubectl cluster-info",
        };
        Failure::new(format!("the controller cannot start: {}", crate::cluster::chain(&e))).hint(hint)
    })?;
    Ok(Exit::Done)
}

/// A pod has no kubeconfig; a desk has one.
async fn client(cluster: &ClusterArgs) -> Result<(Client, String), Failure> {
    let in_pod =
        std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() && cluster.kubeconfig.is_none() && std::env::var_os("KUBECONFIG").is_none();
    if !in_pod {
        let Cluster { client, namespace, .. } = cluster.connect().await?;
        return Ok((client, namespace));
    }
    let mut config = KubeConfig::incluster().map_err(|e| Failure::new(format!("cannot use the pod's account: {e}")))?;
    config.proxy_url = None;
    let namespace = config.default_namespace.clone();
    Client::try_from(config)
        .map(|client| (client, namespace))
        .map_err(|e| Failure::new(format!("cannot make a client of the pod's account: {e}")))
}

/// Log lines go to standard error; `RUST_LOG` chooses which.
fn log_to_stderr(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match format {
        LogFormat::Text => {
            log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none()).try_init()
        }
        LogFormat::Json => log.json().try_init(),
    };
    if let Err(e) = set {
        out::talk(&format!("serin: no log: {e}"));
    }
}

/// A controller that runs beside something else: as a task, or as a process of its own. Either reaches the API by a
/// kubeconfig and by nothing else.
pub(crate) struct Running {
    kind: Kind,
}

enum Kind {
    Task { stop: CancellationToken, task: tokio::sync::Mutex<tokio::task::JoinHandle<Result<(), serin_controller::StartError>>> },
    Process { child: Box<tokio::sync::Mutex<tokio::process::Child>>, _held: tokio::process::ChildStdin, pid: u32 },
}

impl Running {
    /// Starts one.
    ///
    /// # Errors
    /// The kubeconfig cannot be used, or the process cannot be started.
    pub(crate) async fn start(kubeconfig: &Path, external: bool) -> Result<Self, Failure> {
        if external {
            return Self::process(kubeconfig);
        }
        let Cluster { client, .. } = ClusterArgs { kubeconfig: Some(kubeconfig.to_path_buf()), ..ClusterArgs::default() }.connect().await?;
        let stop = CancellationToken::new();
        let options = Options { home: Some(super::install::NAMESPACE.into()), ..Options::default() };
        let task = tokio::spawn(serin_controller::run_with(client, config(None), options, stop.clone()));
        Ok(Self { kind: Kind::Task { stop, task: tokio::sync::Mutex::new(task) } })
    }

    fn process(kubeconfig: &Path) -> Result<Self, Failure> {
        let cannot = |e: std::io::Error| Failure::new(format!("cannot start serin controller: {e}"));
        let program = std::env::current_exe().map_err(cannot)?;
        // Under the lab's guard, so that it ends with this process however that ends.
        let mut command = serin_lab::workloads::guarded(
            &program,
            &program,
            [std::ffi::OsStr::new("controller"), "--kubeconfig".as_ref(), kubeconfig.as_os_str()],
        );
        command.env("RUST_LOG", std::env::var_os("RUST_LOG").unwrap_or_else(|| "warn".into()));
        let mut child = command.spawn().map_err(cannot)?;
        let held = child.stdin.take().ok_or_else(|| Failure::new("cannot start serin controller: no pipe"))?;
        let pid = child.id().unwrap_or_default();
        Ok(Self { kind: Kind::Process { child: Box::new(tokio::sync::Mutex::new(child)), _held: held, pid } })
    }

    /// Comes back when it has ended by itself, and says why.
    pub(crate) async fn ended(&self) -> Failure {
        match &self.kind {
            Kind::Task { task, .. } => match (&mut *task.lock().await).await {
                Ok(Err(e)) => Failure::new(format!("the controller cannot start: {}", crate::cluster::chain(&e))),
                Ok(Ok(())) => Failure::new("the controller ended before its time"),
                Err(e) => Failure::new(format!("the controller broke: {e}")),
            },
            Kind::Process { child, .. } => match child.lock().await.wait().await {
                Ok(status) => Failure::new(format!("serin controller ended before its time ({status})")),
                Err(e) => Failure::new(format!("serin controller is lost: {e}")),
            },
        }
    }

    /// Lets what is under way end, and waits for it.
    pub(crate) async fn stop(self) {
        const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);
        match self.kind {
            Kind::Task { stop, task } => {
                stop.cancel();
                let _ = tokio::time::timeout(PATIENCE, task.into_inner()).await;
            }
            Kind::Process { child, _held, pid } => {
                // The guard passes it on to the controller.
                if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                }
                let _ = tokio::time::timeout(PATIENCE, child.into_inner().wait()).await;
            }
        }
    }
}
