//! `serin history`: the last rollouts and requests of a release.

use clap::Args;
use serde_json::json;

use super::{Format, print};
use crate::cluster::ClusterArgs;
use crate::exit::{Exit, Outcome};
use crate::out;
use crate::view::history::text;

/// The last rollouts: versions, outcome, why, what each served
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 done; 2 no answer.\n\nExamples:\n  serin history my-app\n  serin history my-app -o json")]
pub(crate) struct HistoryArgs {
    /// The release
    name: String,
    /// How to print
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// Prints it.
pub(crate) async fn run(args: HistoryArgs, cluster: &ClusterArgs) -> Outcome {
    let release = cluster.connect().await?.release(&args.name).await?;
    match args.output {
        Some(format) => {
            let status = release.status.unwrap_or_default();
            print(format, &json!({"rollouts": status.history, "requests": status.handled}))?;
        }
        None => out::answer(&text(&release))?,
    }
    Ok(Exit::Done)
}
