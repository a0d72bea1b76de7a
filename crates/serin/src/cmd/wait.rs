//! `serin wait`: ends when a release is promoted, paused or rolled back.

use std::time::Duration;

use clap::{Args, ValueEnum};
use futures::{StreamExt, pin_mut};
use serde_json::json;
use serin_api::CanaryRelease;

use super::{Format, print};
use crate::cluster::{ClusterArgs, chain};
use crate::exit::{Exit, Failure, Outcome};
use crate::out;
use crate::view::why::why;

/// Wait until a release is promoted, paused or rolled back
#[derive(Args, Debug)]
#[command(
    after_help = "Ends at the first of the states named. A state that is not named and ends the rollout all the same ends the wait with 1.\n\nExit codes: 0 it came; 1 another end came, or none in time; 2 no answer.\n\nExamples:\n  serin wait my-app --for promoted --timeout 1h\n  serin wait my-app --version v2 --for promoted\n  serin wait my-app --for paused,rolledback"
)]
pub(crate) struct WaitArgs {
    /// The release
    name: String,
    /// What to wait for
    #[arg(long = "for", value_enum, value_delimiter = ',', value_name = "STATES", default_value = "promoted")]
    states: Vec<Awaited>,
    /// That this version is promoted, or rolled back; without it whatever version it is
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// How long
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = super::duration)]
    timeout: Duration,
    /// How to print
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// States that can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Awaited {
    /// The wanted version serves every request
    Promoted,
    /// It stays on purpose
    Paused,
    /// The canary was taken back
    Rolledback,
}

/// Where the release stands, if at one of them. A status of another generation, or a spec that nobody has looked at, says nothing.
fn stands(release: &CanaryRelease, version: Option<&str>) -> Option<Awaited> {
    let status = release.status.as_ref()?;
    if status.observed_generation != release.metadata.generation {
        return None;
    }
    let is = |v: &Option<serin_api::status::VersionStatus>| version.is_none_or(|wanted| v.as_ref().is_some_and(|v| v.version == wanted));
    match status.phase.as_deref()? {
        "Idle" if is(&status.stable) => {
            status.conditions.iter().any(|c| c.type_ == "Promoted" && c.status == "True").then_some(Awaited::Promoted)
        }
        "Paused" if is(&status.canary) => Some(Awaited::Paused),
        "RolledBack" if is(&status.canary) => Some(Awaited::Rolledback),
        _ => None,
    }
}

/// Waits.
pub(crate) async fn run(args: WaitArgs, cluster: &ClusterArgs) -> Outcome {
    let cluster = cluster.connect().await?;
    let mut last = cluster.release(&args.name).await?;
    let changes = super::get::changes_of(cluster.releases(), &args.name);
    pin_mut!(changes);
    let end = tokio::time::Instant::now() + args.timeout;
    loop {
        match stands(&last, args.version.as_deref()) {
            Some(state) if args.states.contains(&state) => return answer(&args, &last, state),
            Some(Awaited::Rolledback) => {
                say(&args, &last, "rolledback")?;
                return Ok(Exit::No);
            }
            Some(_) | None => {}
        }
        match tokio::time::timeout_at(end, changes.next()).await {
            Err(_) => {
                say(&args, &last, "timeout")?;
                return Ok(Exit::No);
            }
            Ok(Some(Ok(release))) => last = release,
            Ok(Some(Err(e))) => out::talk(&format!("serin: watching again: {}", chain(&e))),
            Ok(None) => return Err(Failure::new(format!("CanaryRelease {} is gone", args.name)).hint("serin get")),
        }
    }
}

fn answer(args: &WaitArgs, release: &CanaryRelease, state: Awaited) -> Outcome {
    let word = state.to_possible_value().map(|v| v.get_name().to_string()).unwrap_or_default();
    say(args, release, &word)?;
    Ok(Exit::Done)
}

fn say(args: &WaitArgs, release: &CanaryRelease, result: &str) -> Result<(), Failure> {
    let why = why(release);
    match args.output {
        Some(format) => print(format, &json!({"name": args.name, "result": result, "phase": why.phase, "message": why.sentence})),
        None => out::answer(&format!("{}  {}: {}\n", args.name, if result == "timeout" { "not in time" } else { result }, why.sentence)),
    }
}
