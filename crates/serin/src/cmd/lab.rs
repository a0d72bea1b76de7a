//! `serin lab`: the mesh on this machine.

use clap::Args;
use http::Uri;

use crate::exit::{Failure, Outcome};

/// A small mesh on this machine: a Kubernetes API, pods as processes, a real Envoy
#[derive(Args, Debug)]
pub(crate) struct LabArgs {}

/// Runs it.
pub(crate) async fn run(_args: LabArgs) -> Outcome {
    Err(Failure::new("not there yet"))
}

/// Where callers inside the mesh send their requests.
pub(crate) fn callers_proxy() -> Result<Uri, Failure> {
    Err(Failure::new("no lab runs on this machine").hint("serin lab up"))
}
