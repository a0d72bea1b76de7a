//! `serin demo`: a canary on this machine, from beginning to end.

use clap::Args;

use crate::exit::{Failure, Outcome};

/// A canary on this machine, from beginning to end, with a real Envoy
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {}

/// Runs it.
pub(crate) async fn run(_args: DemoArgs) -> Outcome {
    Err(Failure::new("not there yet"))
}
