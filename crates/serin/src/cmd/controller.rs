//! `serin controller`: the loop that carries releases out.

use clap::Args;

use crate::cluster::ClusterArgs;
use crate::exit::{Failure, Outcome};

/// Run the controller
#[derive(Args, Debug)]
pub(crate) struct ControllerArgs {}

/// Runs it.
pub(crate) async fn run(_args: ControllerArgs, _cluster: &ClusterArgs) -> Outcome {
    Err(Failure::new("not there yet"))
}
