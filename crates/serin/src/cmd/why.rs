//! `serin why`: one sentence, then the evidence, then what would change it.

use clap::Args;

use super::{Format, print};
use crate::cluster::ClusterArgs;
use crate::exit::{Exit, Outcome};
use crate::out;
use crate::view::why::{text, why};

/// Why a release does what it does, and what would change it
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 done; 2 no answer.\n\nExample:\n  serin why my-app")]
pub(crate) struct WhyArgs {
    /// The release
    name: String,
    /// How to print
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// Says it.
pub(crate) async fn run(args: WhyArgs, cluster: &ClusterArgs) -> Outcome {
    let release = cluster.connect().await?.release(&args.name).await?;
    let answer = why(&release);
    match args.output {
        Some(format) => print(format, &answer)?,
        None => out::answer(&text(&answer))?,
    }
    Ok(Exit::Done)
}
