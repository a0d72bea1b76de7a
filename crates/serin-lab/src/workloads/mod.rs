//! Deployments, ReplicaSets, Pods and EndpointSlices, and the kubelet that makes Pods processes.

pub mod guard;
pub mod sample;

use std::process::ExitCode;

pub use guard::guarded;

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
