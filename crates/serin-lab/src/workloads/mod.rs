//! Deployments, ReplicaSets, Pods and EndpointSlices, and the kubelet that makes Pods processes.
//!
//! Two halves that meet only in the store: the controllers (`queue` and what it calls) do what kube-controller-manager
//! does, the `kubelet` what a node does. Neither knows HTTP; the API's deletes only mark, and are worked off here.

pub mod deployment;
pub mod endpoints;
pub mod events;
pub mod gc;
pub mod guard;
pub mod job;
pub mod kubelet;
pub mod namespace;
pub mod node;
pub mod object;
pub mod queue;
pub mod replicaset;
pub mod sample;
pub mod unsupported;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::store::Store;
use events::Recorder;
pub use guard::guarded;
pub use kubelet::ip::{IpError, PodIp, PodIps};
pub use kubelet::logs::{Logs, Options as LogOptions, Reader as LogReader};

/// How a lab runs pods.
#[derive(Clone)]
pub struct WorkloadConfig {
    /// The binary that calls [`dispatch`] first; on Linux `/proc/self/exe` survives that the file is replaced.
    pub self_exe: PathBuf,
    /// Where containers' output goes, shared with the API that serves it.
    pub logs: Logs,
    /// Whether commands of manifests (`command`, exec probes and hooks) are run.
    pub exec: bool,
    /// Pod addresses, shared with whoever else needs some.
    pub ips: PodIps,
    /// `GLOB=COMMAND ARGS` of the command line, written to the ConfigMap `kube-system/lab-images` at the start.
    pub images: Vec<String>,
}

/// Runs the controllers and the kubelet until told to stop. Returns when every process it started is gone.
pub async fn run(store: Store, config: WorkloadConfig, stop: CancellationToken) {
    kubelet::images::seed(&store, &config.images);
    node::register(&store);
    let events = Recorder::new(store.clone());
    let node = kubelet::run(Arc::new(kubelet::Kubelet { store: store.clone(), events: events.clone(), config }), stop.clone());
    tokio::join!(queue::run(queue::Context { store, events }, stop), node);
}

/// Runs the controllers alone, without a node: for tests that play the kubelet themselves.
pub async fn run_controllers(store: Store, stop: CancellationToken) {
    let events = Recorder::new(store.clone());
    queue::run(queue::Context { store, events }, stop).await;
}

/// Runs the lab's hidden subcommand if this process was started as one (`lab-guard`, `lab-sample-app`): then the
/// caller's `main` returns the code and does nothing else. To be called first, before arguments are parsed:
/// a pod starts as fast as this is reached.
pub fn dispatch() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    match args.next()?.to_str()? {
        guard::SUBCOMMAND => Some(guard::main(args)),
        sample::SUBCOMMAND => Some(sample::main()),
        _ => None,
    }
}
