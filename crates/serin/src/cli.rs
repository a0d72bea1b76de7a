//! The commands, as clap knows them, and the way into each.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::cluster::On;
use crate::cmd;
use crate::exit::{Exit, Failure};
use crate::out;

/// Releases new versions on Kubernetes and Istio to a few users first, watches them, and then promotes or takes them back.
#[derive(Parser, Debug)]
#[command(
    name = "serin",
    version,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "Exit codes: 0 done; 1 the answer is no; 2 no answer (wrong usage, bad input, out of reach); 130 interrupted.\n\nExamples:\n  serin demo                a canary on this machine, from beginning to end\n  serin lab up              a small mesh on this machine, for kubectl\n  serin status my-app -w    watch a release\n  serin abort my-app        all traffic back to stable, at once"
)]
pub(crate) struct Cli {
    /// When to colour the output; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto", global = true, help_heading = "Output")]
    pub(crate) color: out::Color,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// A canary on this machine, from beginning to end, with a real Envoy
    Demo(crate::demo::DemoArgs),
    /// A small mesh on this machine: a Kubernetes API, pods as processes, a real Envoy
    Lab(cmd::lab::LabArgs),
    /// Find the mistakes that break a canary, in files or in the cluster
    Check(On<cmd::check::CheckArgs>),
    /// Explain a rule of check, with a wrong and a right example
    Explain(cmd::explain::ExplainArgs),
    /// Write a CanaryRelease for a Service, with a forecast for its traffic
    Init(On<cmd::init::InitArgs>),
    /// Print the manifests that a cluster needs
    Install(cmd::install::InstallArgs),
    /// Print the manifests that a cluster needs no more
    Uninstall(cmd::install::UninstallArgs),
    /// Run the controller
    Controller(On<cmd::controller::ControllerArgs>),
    /// List releases
    Get(On<cmd::get::GetArgs>),
    /// What a release does now, measured, and what comes next
    Status(On<cmd::status::StatusArgs>),
    /// Why a release does what it does, and what would change it
    Why(On<cmd::why::WhyArgs>),
    /// Wait until a release is promoted, paused or rolled back
    Wait(On<cmd::wait::WaitArgs>),
    /// Leave this step or pause now, or all of them
    Promote(On<cmd::request::PromoteArgs>),
    /// Stay at this weight until resumed
    Pause(On<cmd::request::PauseArgs>),
    /// Go on after a pause
    Resume(On<cmd::request::ResumeArgs>),
    /// Take the canary back: all traffic to stable, at once
    Abort(On<cmd::abort::AbortArgs>),
    /// Give the canary this share of the requests, and stay there until resumed
    SetWeight(On<cmd::request::SetWeightArgs>),
    /// After a promotion: back to the version that served before
    Rollback(On<cmd::request::RollbackArgs>),
    /// Try a version again that was taken back
    Retry(On<cmd::request::RetryArgs>),
    /// Let no release move forward; each may go back
    Freeze(On<cmd::freeze::FreezeArgs>),
    /// End a freeze: what waited goes on
    Thaw(On<cmd::freeze::ThawArgs>),
    /// The last rollouts: versions, outcome, why, what each served
    History(On<cmd::history::HistoryArgs>),
    /// Send bounded traffic and test the measured split against the weights
    Verify(On<cmd::verify::VerifyArgs>),
    /// What a plan would do with a canary, many times over, in a world of chance
    Simulate(cmd::simulate::SimulateArgs),
    /// Recorded requests through a plan: when it would have decided what
    Replay(cmd::replay::ReplayArgs),
    /// Measure on this machine: lab start, weight changes, faults, the decision itself
    Bench(cmd::bench::BenchArgs),
    /// Rollouts and faults at random on a lab of its own, with every response counted
    Soak(cmd::soak::SoakArgs),
    /// Print completions for a shell
    Completions(cmd::completions::CompletionsArgs),
}

/// Runs what the arguments of this process say.
pub(crate) fn run() -> Exit {
    let args: Vec<OsString> = std::env::args_os().collect();
    let matches = match command_for(args.first()).try_get_matches_from(&args) {
        Ok(matches) => matches,
        Err(error) => return usage(&error),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match start(cli) {
        Ok(exit) => exit,
        Err(failure) => {
            out::talk(failure.text().trim_end());
            failure.exit
        }
    }
}

/// The command under the name it was called by: `kubectl-serin` is kubectl's plugin, whose help says `kubectl serin`.
pub(crate) fn command_for(program: Option<&OsString>) -> clap::Command {
    let name = program.and_then(|p| Path::new(p).file_stem()).map(|n| n.to_string_lossy().into_owned());
    let command = Cli::command();
    if name.as_deref().is_some_and(|n| n.starts_with("kubectl-serin")) {
        command.bin_name("kubectl serin")
    } else {
        command.bin_name("serin")
    }
}

fn usage(error: &clap::Error) -> Exit {
    let text = error.render();
    if error.use_stderr() {
        out::talk(text.to_string().trim_end());
        return Exit::NoAnswer;
    }
    // Help and version were asked for: they are the answer.
    let _ = std::io::stdout().write_all(text.to_string().as_bytes());
    Exit::Done
}

fn start(cli: Cli) -> Result<Exit, Failure> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| Failure::new(format!("cannot start: {e}")))?;
    let exit = runtime.block_on(dispatch(cli));
    // Tasks that hang on a socket must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    exit
}

async fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    let Cli { color, command } = cli;
    match command {
        // These end on Ctrl-C by themselves, as they have something to end.
        Command::Demo(args) => crate::demo::run(args).await,
        Command::Lab(args) => cmd::lab::run(args).await,
        Command::Controller(args) => cmd::controller::run(args.args, &args.cluster).await,
        Command::Bench(args) => cmd::bench::run(args).await,
        Command::Soak(args) => cmd::soak::run(args).await,
        Command::Completions(args) => cmd::completions::run(&args),
        Command::Install(args) => cmd::install::run(&args),
        Command::Simulate(args) => tokio::task::block_in_place(|| cmd::simulate::run(&args)),
        Command::Replay(args) => cmd::replay::run(&args).await,
        Command::Uninstall(args) => cmd::install::uninstall(&args),
        Command::Explain(args) => cmd::explain::run(&args),
        other => tokio::select! {
            outcome = ask(other, color) => outcome,
            () = interrupted() => Ok(Exit::Interrupted),
        },
    }
}

async fn ask(command: Command, color: out::Color) -> Result<Exit, Failure> {
    match command {
        Command::Check(args) => cmd::check::run(args.args, &args.cluster, color).await,
        Command::Init(args) => cmd::init::run(args.args, &args.cluster).await,
        Command::Get(args) => cmd::get::run(args.args, &args.cluster).await,
        Command::Status(args) => cmd::status::run(args.args, &args.cluster, out::coloured(color)).await,
        Command::Why(args) => cmd::why::run(args.args, &args.cluster).await,
        Command::Wait(args) => cmd::wait::run(args.args, &args.cluster).await,
        Command::Promote(args) => cmd::request::promote(args.args, &args.cluster).await,
        Command::Pause(args) => cmd::request::pause(args.args, &args.cluster).await,
        Command::Resume(args) => cmd::request::resume(args.args, &args.cluster).await,
        Command::SetWeight(args) => cmd::request::set_weight(args.args, &args.cluster).await,
        Command::Rollback(args) => cmd::request::rollback(args.args, &args.cluster).await,
        Command::Retry(args) => cmd::request::retry(args.args, &args.cluster).await,
        Command::Freeze(args) => cmd::freeze::freeze(args.args, &args.cluster).await,
        Command::Thaw(args) => cmd::freeze::thaw(args.args, &args.cluster).await,
        Command::Abort(args) => cmd::abort::run(args.args, &args.cluster).await,
        Command::History(args) => cmd::history::run(args.args, &args.cluster).await,
        Command::Verify(args) => cmd::verify::run(args.args, &args.cluster).await,
        Command::Bench(_)
        | Command::Soak(_)
        | Command::Demo(_)
        | Command::Lab(_)
        | Command::Controller(_)
        | Command::Completions(_)
        | Command::Explain(_)
        | Command::Install(_)
        | Command::Uninstall(_)
        | Command::Simulate(_)
        | Command::Replay(_) => Err(Failure::new("this command does not run here")),
    }
}

/// Ends when the person presses Ctrl-C, the terminal is gone, or somebody asks politely.
pub(crate) async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut signals = Vec::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        if let Ok(stream) = signal(kind) {
            signals.push(stream);
        }
    }
    if signals.is_empty() {
        return std::future::pending().await;
    }
    let waits = signals.iter_mut().map(|s| Box::pin(s.recv()));
    futures::future::select_all(waits).await;
}
