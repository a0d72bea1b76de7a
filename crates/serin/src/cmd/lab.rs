//! `serin lab`: the mesh on this machine, up in the background until it is taken down.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use clap::{Args, Subcommand};
use http::Uri;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::time::Instant;

use super::{Format, print};
use serin_lab::lab::{LabInfo, ask_to_stop, default_root, running};

use crate::exit::{Exit, Failure, Outcome};
use crate::lab::{LabOptions, RunningLab, callers, find, name_of, named};
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
    #[arg(long, value_name = "NAME", default_value = "lab")]
    name: String,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 it is up; 2 it could not start; 130 interrupted (--foreground).\n\nExamples:\n  serin lab up\n  serin lab up --controller\n  serin lab up --foreground --image 'shop/*=/usr/local/bin/shop --port 8080'"
)]
struct UpArgs {
    /// Its name
    #[arg(long, value_name = "NAME", default_value = "lab")]
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
    #[arg(long, value_name = "NAME", default_value = "lab")]
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
#[command(
    after_help = "Pods' logs: kubectl logs POD. Exit codes: 0 done; 1 there is no log; 130 interrupted.\n\nExample:\n  serin lab logs -f"
)]
struct LogsArgs {
    /// Its name
    #[arg(long, value_name = "NAME", default_value = "lab")]
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

fn log_file(name: &str) -> PathBuf {
    default_root().join(name).join("lab.log")
}

async fn foreground(args: UpArgs) -> Outcome {
    if args.detached {
        // A session of its own: the terminal may go, the lab stays.
        let _ = rustix::process::setsid();
        let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).try_init();
    }
    let options = LabOptions {
        name: Some(args.name.clone()),
        envoy: args.envoy.clone(),
        port: args.port,
        images: args.images.clone(),
        exec: args.exec,
        manifests: vec![serin_api::crds()],
    };
    let lab = tokio::select! {
        lab = RunningLab::start(options) => lab?,
        () = crate::cli::interrupted() => return Ok(Exit::Interrupted),
    };
    let controller = if args.controller { Some(super::controller::Running::start(lab.kubeconfig(), false).await?) } else { None };
    if !args.detached {
        show_up(&args, lab.info(), &lab.headline())?;
    }
    let controller_ended = async {
        match &controller {
            Some(controller) => controller.ended().await,
            None => std::future::pending().await,
        }
    };
    let outcome = tokio::select! {
        failure = controller_ended => Err(failure),
        () = lab.failed() => Err(Failure::new(format!("a part of lab {} failed for good", args.name)).hint(format!("serin lab logs --name {}", args.name))),
        () = crate::cli::interrupted() => Ok(()),
    };
    if let Some(controller) = controller {
        controller.stop().await;
    }
    lab.stop().await;
    outcome.map(|()| if args.detached { Exit::Done } else { Exit::Interrupted })
}

/// Longer than a start takes on a busy machine, Envoy's download included.
const STARTS: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(20);

async fn background(args: UpArgs) -> Outcome {
    if let Some(info) = named(&args.name) {
        return Err(Failure::new(format!("lab {} runs already, since {}", info.name, info.started))
            .hint("serin lab status")
            .hint(format!("serin lab down --name {}", args.name)));
    }
    let cannot = |e: std::io::Error| Failure::new(format!("cannot start the lab: {e}"));
    let log_path = log_file(&args.name);
    let unwritable = |e: std::io::Error| {
        Failure::new(format!("cannot start the lab: its log {} cannot be written: {e}", log_path.display()))
            .hint("export XDG_STATE_HOME=FOLDER    a folder that you may write to")
    };
    if let Some(folder) = log_path.parent() {
        fs::create_dir_all(folder).map_err(unwritable)?;
    }
    let log = File::create(&log_path).map_err(unwritable)?;
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
        if let Some(info) = named(&args.name).filter(|l| l.pid == child.id()) {
            show_up(&args, &info, &format!("API {} · ready in {:.1} s", info.api, begin.elapsed().as_secs_f64()))?;
            return Ok(Exit::Done);
        }
        if let Some(status) = child.try_wait().map_err(cannot)? {
            let said = fs::read_to_string(&log_path).unwrap_or_default();
            // The other half has said what is wrong, and what to type; it is not said twice.
            let told: Vec<&str> = said.lines().skip_while(|l| !l.starts_with("serin: ")).collect();
            return Err(match told.split_first() {
                Some((what, hints)) => hints.iter().fold(Failure::new(what.trim_start_matches("serin: ")), |f, h| f.hint(h.trim())),
                None => {
                    Failure::new(format!("the lab ended while it started ({status})")).hint(format!("serin lab logs --name {}", args.name))
                }
            });
        }
        if Instant::now() > end {
            let _ = child.kill();
            return Err(Failure::new(format!("the lab was not up within {} s", STARTS.as_secs()))
                .hint(format!("serin lab logs --name {}", args.name)));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn show_up(args: &UpArgs, info: &LabInfo, headline: &str) -> Result<(), Failure> {
    match args.output {
        Some(format) => print(format, info),
        None => out::answer(&format!("lab {} is up · {headline}\n{}", info.name, how_to_reach(info))),
    }
}

fn how_to_reach(info: &LabInfo) -> String {
    let mut lines = vec![format!("export KUBECONFIG={}", info.kubeconfig.display())];
    if let Ok(url) = callers(info) {
        lines.push(format!("curl -H 'Host: my-app' {url}    calls Service my-app as a pod of the mesh would"));
    }
    for (name, address) in info.addresses.iter().filter(|(name, _)| name.starts_with("gateway/")) {
        lines.push(format!("curl http://{address}/    comes in through {name}"));
    }
    lines.push(if info.name == "lab" { "serin lab down".into() } else { format!("serin lab down --name {}", info.name) });
    lines.iter().map(|l| format!("  {l}\n")).collect()
}

/// A lab ends its pods gently; then the guards end what is left.
const ENDS: Duration = Duration::from_secs(30);

async fn down(name: &str) -> Outcome {
    let Some(info) = named(name) else {
        return Err(Failure::no(format!("no lab {name} runs{}", others(name))).hint("serin lab up"));
    };
    if !ask_to_stop(&info) {
        return Err(Failure::new(format!("cannot end lab {name} (process {})", info.pid)).hint(format!("kill {}", info.pid)));
    }
    let end = Instant::now() + ENDS;
    while named(name).is_some() {
        if Instant::now() > end {
            out::talk(&format!("lab {name} did not end within {} s and is killed; its guards end its processes", ENDS.as_secs()));
            if let Some(pid) = i32::try_from(info.pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    out::answer(&format!("lab {name} is down\n"))?;
    Ok(Exit::Done)
}

fn others(name: &str) -> String {
    let others: Vec<String> = running(&default_root()).into_iter().map(|l| l.name).filter(|n| n != name).collect();
    if others.is_empty() { String::new() } else { format!("; there is {}", crate::cluster::listed(&others)) }
}

fn status(args: &StatusArgs) -> Outcome {
    let Some(info) = named(&args.name) else {
        return Err(Failure::no(format!("no lab {} runs{}", args.name, others(&args.name))).hint("serin lab up"));
    };
    match args.output {
        Some(StatusFormat::Json) => print(Format::Json, &info)?,
        Some(StatusFormat::Yaml) => print(Format::Yaml, &info)?,
        Some(StatusFormat::Kubeconfig) => out::answer(&format!("{}\n", info.kubeconfig.display()))?,
        Some(StatusFormat::Url) => out::answer(&format!("{}\n", callers(&info)?))?,
        None => out::answer(&format!(
            "lab {} runs since {} · API {} · process {}\n{}",
            info.name,
            info.started,
            info.api,
            info.pid,
            how_to_reach(&info)
        ))?,
    }
    Ok(Exit::Done)
}

async fn logs(args: &LogsArgs) -> Outcome {
    let path = log_file(&args.name);
    let mut file = File::open(&path)
        .map_err(|_| Failure::no(format!("lab {} has no log: it was never started in the background", args.name)).hint("serin lab up"))?;
    let mut at = 0;
    loop {
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.read_to_end(&mut text))
            .map_err(|e| Failure::new(format!("cannot read {}: {e}", path.display())))?;
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
    let found = crate::lab::fetch().await?;
    match args.output {
        Some(format) => print(format, &json!({"path": found.path, "version": found.version, "from": found.from}))?,
        None => out::answer(&format!("{} at {}\n", name_of(&found), found.path.display()))?,
    }
    Ok(Exit::Done)
}

/// Where callers inside the mesh send their requests.
///
/// # Errors
/// No lab runs, or several do.
pub(crate) fn callers_proxy(kubeconfig: Option<&std::path::Path>) -> Result<Uri, Failure> {
    let none =
        || Failure::new("no lab runs on this machine to send requests through").hint("serin lab up").hint("serin verify NAME --url URL");
    callers(&find(kubeconfig).ok_or_else(none)?)
}
