//! `serin lab`: the mesh on this machine, up in the background until it is taken down.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use clap::{Args, Subcommand};
use http::Uri;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::{Format, print};
use crate::cluster::ClusterArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::lab::state::{Folder, LabState, find, running};
pub(crate) use crate::lab::{LabOptions, RunningLab};
use crate::out;

/// A small mesh on this machine: a Kubernetes API, pods as processes, a real Envoy
#[derive(Args, Debug)]
#[command(
    after_help = "Needs no cluster, no container runtime and no rights. An image without a command of its own runs the built-in sample app,\nwhich answers with its version.\n\nExit codes: 0 done; 1 no lab runs (status); 2 no answer; 130 interrupted.\n\nExamples:\n  serin lab up\n  export KUBECONFIG=$(serin lab status -o kubeconfig)\n  kubectl apply -f examples/article\n  serin lab down"
)]
pub(crate) struct LabArgs {
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Subcommand, Debug)]
enum LabCommand {
    /// Start it, and leave it running in the background
    Up(UpArgs),
    /// End it, and every process it started
    Down(NameArgs),
    /// What runs, and how to reach it
    Status(StatusArgs),
    /// Its log
    Logs(LogsArgs),
    /// Get Envoy, and do nothing else
    Fetch(FetchArgs),
}

/// Which lab.
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 done; 1 no lab of that name runs; 2 no answer.\n\nExample:\n  serin lab down")]
struct NameArgs {
    /// Its name
    #[arg(long, value_name = "NAME", default_value = "default")]
    name: String,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 it is up; 2 it could not start; 130 interrupted (--foreground).\n\nExamples:\n  serin lab up\n  serin lab up --controller\n  serin lab up --foreground --image 'shop/*=/usr/local/bin/shop --port 8080'"
)]
struct UpArgs {
    /// Its name
    #[arg(long, value_name = "NAME", default_value = "default")]
    name: String,
    /// The Envoy to use
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// The API's port [default: any free one]
    #[arg(long, value_name = "PORT", default_value = "0", hide_default_value = true)]
    port: u16,
    /// What an image runs; may be given several times
    #[arg(long = "image", value_name = "GLOB=COMMAND ARGS")]
    images: Vec<String>,
    /// Run commands that manifests name, on this machine and with your rights
    #[arg(long)]
    exec: bool,
    /// Run Serin's controller too, and define its kinds
    #[arg(long)]
    controller: bool,
    /// Stay in this terminal, and end with it
    #[arg(long)]
    foreground: bool,
    /// The other half of `up` without --foreground
    #[arg(long, hide = true)]
    detached: bool,
    /// How to print
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 it runs; 1 it does not; 2 no answer.\n\nExamples:\n  serin lab status\n  export KUBECONFIG=$(serin lab status -o kubeconfig)"
)]
struct StatusArgs {
    /// Its name
    #[arg(long, value_name = "NAME", default_value = "default")]
    name: String,
    /// How to print
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<StatusFormat>,
}

/// What of a lab is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum StatusFormat {
    Json,
    Yaml,
    /// The path of the kubeconfig
    Kubeconfig,
    /// Where callers inside the mesh send requests
    Url,
}

#[derive(Args, Debug)]
#[command(after_help = "Pods' logs: kubectl logs POD. Exit codes: 0 done; 1 there is no log; 130 interrupted.\n\nExample:\n  serin lab logs -f")]
struct LogsArgs {
    /// Its name
    #[arg(long, value_name = "NAME", default_value = "default")]
    name: String,
    /// Go on printing what is written
    #[arg(short, long)]
    follow: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 Envoy is there; 2 it cannot be had.\n\nExample:\n  serin lab fetch")]
struct FetchArgs {
    /// How to print
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// Runs it.
pub(crate) async fn run(args: LabArgs) -> Outcome {
    match args.command {
        LabCommand::Up(args) if args.foreground => foreground(args).await,
        LabCommand::Up(args) => background(args).await,
        LabCommand::Down(args) => down(&args.name).await,
        LabCommand::Status(args) => status(&args),
        LabCommand::Logs(args) => logs(&args).await,
        LabCommand::Fetch(args) => fetch(&args).await,
    }
}

async fn foreground(args: UpArgs) -> Outcome {
    if args.detached {
        // A session of its own: the terminal may go, the lab stays.
        let _ = rustix::process::setsid();
        let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).try_init();
    }
    let folder = Folder::of(&args.name)?;
    let _lock = folder.lock()?;
    let options = LabOptions {
        name: if args.name == "default" { "serin-lab".into() } else { format!("serin-lab-{}", args.name) },
        folder: Some(folder.path.clone()),
        envoy: args.envoy.clone(),
        port: args.port,
        images: args.images.clone(),
        exec: args.exec,
    };
    let lab = tokio::select! {
        lab = RunningLab::start(options) => lab?,
        () = crate::cli::interrupted() => return Ok(Exit::Interrupted),
    };
    let controller = if args.controller { Some(start_controller(&lab).await?) } else { None };
    let state = LabState {
        name: args.name.clone(),
        pid: std::process::id(),
        api: lab.api().to_string(),
        kubeconfig: lab.kubeconfig().to_path_buf(),
        callers: lab.callers_url(),
        envoy: lab.envoy().to_string(),
        log: folder.log(),
        since: jiff::Timestamp::now().to_string(),
        controller: args.controller,
    };
    folder.write(&state)?;
    if !args.detached {
        show_up(&args, &state, &lab.headline())?;
    }
    let outcome = match &controller {
        Some(controller) => tokio::select! {
            failure = controller.ended() => Err(failure),
            () = crate::cli::interrupted() => Ok(()),
        },
        None => {
            crate::cli::interrupted().await;
            Ok(())
        }
    };
    folder.clear();
    if let Some(controller) = controller {
        controller.stop().await;
    }
    lab.stop().await;
    outcome.map(|()| if args.detached { Exit::Done } else { Exit::Interrupted })
}

async fn start_controller(lab: &RunningLab) -> Result<super::controller::Running, Failure> {
    let cluster = ClusterArgs { kubeconfig: Some(lab.kubeconfig().to_path_buf()), ..ClusterArgs::default() }.connect().await?;
    crate::cluster::define(&cluster).await?;
    super::controller::Running::start(lab.kubeconfig(), false).await
}

/// Longer than a start takes on a busy machine, Envoy's download included.
const STARTS: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(20);

async fn background(args: UpArgs) -> Outcome {
    let folder = Folder::of(&args.name)?;
    // Taken and given back: the answer to "does it run" before anything is started.
    drop(folder.lock()?);
    folder.clear();
    let cannot = |e: std::io::Error| Failure::new(format!("cannot start the lab: {e}"));
    let log = File::create(folder.log()).map_err(cannot)?;
    let mut command = std::process::Command::new(std::env::current_exe().map_err(cannot)?);
    command.args(["lab", "up", "--foreground", "--detached", "--name", &args.name]);
    command.args(args.envoy.iter().flat_map(|e| ["--envoy".into(), e.clone().into_os_string()]));
    command.args(["--port", &args.port.to_string()]);
    command.args(args.images.iter().flat_map(|i| ["--image", i.as_str()]));
    command.args(args.exec.then_some("--exec")).args(args.controller.then_some("--controller"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let mut child = command.spawn().map_err(cannot)?;
    let begin = Instant::now();
    let end = begin + STARTS;
    loop {
        if let Some(state) = folder.read() {
            let headline = format!("API {} · {} · ready in {:.1} s", state.api, state.envoy, begin.elapsed().as_secs_f64());
            show_up(&args, &state, &headline)?;
            return Ok(Exit::Done);
        }
        if let Some(status) = child.try_wait().map_err(cannot)? {
            let said = fs::read_to_string(folder.log()).unwrap_or_default();
            // The other half has said what is wrong, and what to type; it is not said twice.
            let told: Vec<&str> = said.lines().skip_while(|l| !l.starts_with("serin: ")).collect();
            return Err(match told.split_first() {
                Some((what, hints)) => hints.iter().fold(Failure::new(what.trim_start_matches("serin: ")), |f, h| f.hint(h.trim())),
                None => Failure::new(format!("the lab ended while it started ({status})")).hint(format!("serin lab logs --name {}", args.name)),
            });
        }
        if Instant::now() > end {
            let _ = child.kill();
            return Err(Failure::new(format!("the lab was not up within {} s", STARTS.as_secs())).hint(format!("serin lab logs --name {}", args.name)));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn show_up(args: &UpArgs, state: &LabState, headline: &str) -> Result<(), Failure> {
    match args.output {
        Some(format) => print(format, state),
        None => out::answer(&format!("lab {} is up · {headline}\n{}", state.name, how_to_reach(state))),
    }
}

fn how_to_reach(state: &LabState) -> String {
    let mut lines = vec![format!("export KUBECONFIG={}", state.kubeconfig.display()), format!("curl -H 'Host: SERVICE' {}    calls a Service as a pod of the mesh would", state.callers)];
    if !state.controller {
        lines.push("serin install --crds | kubectl apply -f - && serin controller    releases need a controller".into());
    }
    lines.push(if state.name == "default" { "serin lab down".into() } else { format!("serin lab down --name {}", state.name) });
    lines.iter().map(|l| format!("  {l}\n")).collect()
}

/// A lab ends its pods gently; then the guards end what is left.
const ENDS: Duration = Duration::from_secs(20);

async fn down(name: &str) -> Outcome {
    let folder = Folder::of(name)?;
    let Some(state) = folder.read() else {
        if folder.runs() {
            return Err(Failure::new(format!("lab {name} is just starting")).hint("serin lab status"));
        }
        return Err(Failure::no(format!("no lab {name} runs{}", others(name))).hint("serin lab up"));
    };
    let pid = i32::try_from(state.pid).ok().and_then(Pid::from_raw).ok_or_else(|| Failure::new(format!("lab {name} tells no process")))?;
    let send = |signal| kill_process(pid, signal).map_err(|e| Failure::new(format!("cannot end lab {name} (process {}): {e}", state.pid)));
    send(Signal::TERM)?;
    let end = Instant::now() + ENDS;
    while folder.runs() {
        if Instant::now() > end {
            out::talk(&format!("lab {name} did not end within {} s and is killed; its guards end its processes", ENDS.as_secs()));
            send(Signal::KILL)?;
            tokio::time::sleep(Duration::from_millis(500)).await;
            folder.clear();
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    out::answer(&format!("lab {name} is down\n"))?;
    Ok(Exit::Done)
}

fn others(name: &str) -> String {
    let others: Vec<String> = running().into_iter().map(|l| l.name).filter(|n| n != name).collect();
    if others.is_empty() { String::new() } else { format!("; there is {}", crate::cluster::listed(&others)) }
}

fn status(args: &StatusArgs) -> Outcome {
    let Some(state) = Folder::of(&args.name)?.read() else {
        return Err(Failure::no(format!("no lab {} runs{}", args.name, others(&args.name))).hint("serin lab up"));
    };
    match args.output {
        Some(StatusFormat::Json) => print(Format::Json, &state)?,
        Some(StatusFormat::Yaml) => print(Format::Yaml, &state)?,
        Some(StatusFormat::Kubeconfig) => out::answer(&format!("{}\n", state.kubeconfig.display()))?,
        Some(StatusFormat::Url) => out::answer(&format!("{}\n", state.callers))?,
        None => {
            let controller = if state.controller { "with a controller" } else { "without a controller" };
            out::answer(&format!("lab {} runs since {} {controller} · API {} · {} · process {}\n{}", state.name, state.since, state.api, state.envoy, state.pid, how_to_reach(&state)))?;
        }
    }
    Ok(Exit::Done)
}

async fn logs(args: &LogsArgs) -> Outcome {
    let folder = Folder::of(&args.name)?;
    let mut file = File::open(folder.log()).map_err(|_| Failure::no(format!("lab {} has no log: it was never started in the background", args.name)).hint("serin lab up"))?;
    let mut at = 0;
    loop {
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(at)).and_then(|_| file.read_to_end(&mut text)).map_err(|e| Failure::new(format!("cannot read {}: {e}", folder.log().display())))?;
        at += text.len() as u64;
        out::answer(&String::from_utf8_lossy(&text))?;
        if !args.follow {
            return Ok(Exit::Done);
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
            () = crate::cli::interrupted() => return Ok(Exit::Interrupted),
        }
    }
}

async fn fetch(args: &FetchArgs) -> Outcome {
    let _ = args;
    Err(Failure::new("not there yet"))
}

/// Where callers inside the mesh send their requests.
///
/// # Errors
/// No lab runs, or several do.
pub(crate) fn callers_proxy(kubeconfig: Option<&std::path::Path>) -> Result<Uri, Failure> {
    let none = || Failure::new("no lab runs on this machine to send requests through").hint("serin lab up").hint("serin verify NAME --url URL");
    let state = find(kubeconfig).ok_or_else(none)?;
    state.callers.parse().map_err(|e| Failure::new(format!("lab {} tells no address for callers: {e}", state.name)))
}
