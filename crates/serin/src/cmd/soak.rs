//! `serin soak`: rollouts and faults at random on a real lab, for as long as one likes, with every response counted.
//!
//! Good and bad versions come one after the other while the controller is killed with SIGKILL, stopped for a while, and pods are
//! deleted. What must hold: no request fails but those that a bad version answered and those around a deleted pod; no bad version
//! is ever promoted; every rollout comes to an end. The seed makes the same choices again, though not at the same instants.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use serin_core::stats::random::Random;
use serin_lab::mesh::traffic::{Plan as Calls, Traffic};
use tokio::process::{Child, Command};

use crate::cluster::{Cluster, ClusterArgs};
use crate::demo::objects;
use crate::exit::{Exit, Failure, Outcome};
use crate::lab::{LabOptions, RunningLab};
use crate::out;

/// Rollouts and faults at random on a lab of its own, with every response counted
#[derive(Args, Debug, Clone)]
#[command(
    after_help = "Exit codes: 0 nothing was lost; 1 a request was lost, a bad version was promoted, or a rollout did not end; 2 it could not run; 130 interrupted.\n\nExamples:\n  serin soak --minutes 2\n  serin soak --minutes 30 --seed 7"
)]
pub(crate) struct SoakArgs {
    /// How long
    #[arg(long, value_name = "MINUTES", default_value = "30", value_parser = clap::value_parser!(u64).range(1..=10_080))]
    minutes: u64,
    /// Begin of the random numbers
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    seed: u64,
    /// Requests a second
    #[arg(long, value_name = "COUNT", default_value = "200", value_parser = clap::value_parser!(u32).range(1..=5000))]
    rate: u32,
}

/// A rollout that has not ended by then is stuck.
const LONGEST: Duration = Duration::from_secs(180);
/// Requests that fail so soon after a pod was deleted are the deletion's.
const AROUND: Duration = Duration::from_secs(3);

/// Runs it.
pub(crate) async fn run(args: SoakArgs) -> Outcome {
    tokio::select! {
        outcome = soak(&args) => outcome,
        () = crate::cli::interrupted() => Ok(Exit::Interrupted),
    }
}

/// A whole number below `n`.
fn below(draws: &mut Random, n: u64) -> u64 {
    (draws.unit() * n as f64) as u64
}

/// The controller, in a process that can be killed.
struct Controller {
    kubeconfig: PathBuf,
    child: Option<Child>,
}

impl Controller {
    fn start(&mut self) -> Result<(), Failure> {
        let program = std::env::current_exe().map_err(|e| Failure::new(format!("cannot find this program: {e}")))?;
        let mut command = Command::new(program);
        command.arg("controller").arg("--kubeconfig").arg(&self.kubeconfig).kill_on_drop(true);
        command.env("RUST_LOG", std::env::var_os("RUST_LOG").unwrap_or_else(|| "error".into()));
        self.child = Some(command.spawn().map_err(|e| Failure::new(format!("cannot start serin controller: {e}")))?);
        Ok(())
    }

    async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().await;
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = self.child.as_ref().and_then(Child::id).and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

/// What happened.
#[derive(Default)]
struct Tally {
    killed: u32,
    stopped: u32,
    pods: Vec<Instant>,
    promoted: u32,
    taken_back: u32,
    /// Good versions that went back: whoever loses its only pod does.
    good_taken_back: u32,
    bad: Vec<String>,
    wrong: Vec<String>,
}

async fn soak(args: &SoakArgs) -> Outcome {
    let lab = RunningLab::start(LabOptions::default()).await?;
    let cluster = ClusterArgs { kubeconfig: Some(lab.kubeconfig().to_path_buf()), ..ClusterArgs::default() }.connect().await?;
    crate::cluster::define(&cluster).await?;
    objects::create(&cluster, &objects::read(objects::V1)?).await?;
    objects::create(&cluster, &objects::read(objects::DESTINATION_RULE)?).await?;
    objects::create(&cluster, &objects::all_to_v1()?).await?;
    objects::create(&cluster, &objects::read(objects::RELEASE)?).await?;
    let mut controller = Controller { kubeconfig: lab.kubeconfig().to_path_buf(), child: None };
    controller.start()?;
    wait(&cluster, Duration::from_secs(60), |s| s["phase"] == "Idle" && s["stable"]["version"] == "v1")
        .await
        .map_err(|last| Failure::new(format!("the release is not adopted: {last}")))?;
    objects::ready(&cluster, "my-app-v1").await?;
    let target = lab.mesh()?.outbound;
    let plan = Calls {
        target,
        host: "my-app".into(),
        path: "/".into(),
        rate: f64::from(args.rate),
        users: 10_000,
        seed: args.seed,
        time: Duration::from_secs(args.minutes * 60 + 600),
        requests: None,
        log: None,
    };
    // The first answer may still be on its way to the proxy.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let begin = Instant::now();
    let traffic = Traffic::start(plan);
    let mut tally = Tally::default();
    let worked = rollouts(args, &cluster, &mut controller, begin, &mut tally).await;
    traffic.stop().await;
    controller.kill().await;
    let samples = traffic.all();
    lab.stop().await;
    worked?;

    let near = |at: Duration| tally.pods.iter().any(|pod| begin + at + AROUND > *pod && begin + at < *pod + AROUND);
    let (mut by_fault, mut around, mut lost) = (0_u64, 0_u64, Vec::new());
    for sample in samples.iter().filter(|s| s.failed()) {
        match &sample.version {
            Some(version) if tally.bad.iter().any(|bad| **bad == **version) => by_fault += 1,
            _ if near(sample.at) => around += 1,
            _ => lost.push(sample),
        }
    }
    out::answer(&format!(
        "{} requests in {:.1} minutes, seed {}\n  {} rollouts promoted, {} bad versions taken back, {} good ones taken back as their pods died\n  \
         controller killed {} times, stopped {} times; {} pods deleted\n  failed: {} answered by bad versions, {} around a deleted pod, {} lost\n",
        samples.len(),
        begin.elapsed().as_secs_f64() / 60.0,
        args.seed,
        tally.promoted,
        tally.taken_back,
        tally.good_taken_back,
        tally.killed,
        tally.stopped,
        tally.pods.len(),
        by_fault,
        around,
        lost.len(),
    ))?;
    for sample in lost.iter().take(10) {
        out::answer(&format!("  lost at {:.3} s: {:?} by {:?}\n", sample.at.as_secs_f64(), sample.answer, sample.version))?;
    }
    for wrong in &tally.wrong {
        out::answer(&format!("  wrong: {wrong}\n"))?;
    }
    Ok(if lost.is_empty() && tally.wrong.is_empty() { Exit::Done } else { Exit::No })
}

/// Version after version, with faults while each is on its way.
async fn rollouts(
    args: &SoakArgs,
    cluster: &Cluster,
    controller: &mut Controller,
    begin: Instant,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let mut draws = Random::new(args.seed);
    let end = begin + Duration::from_secs(args.minutes * 60);
    let mut number = 1_u32;
    let mut stable = "v1".to_string();
    while Instant::now() < end {
        number += 1;
        let name = format!("v{number}");
        let bad = below(&mut draws, 3) == 0;
        if bad {
            tally.bad.push(name.clone());
        }
        let mut deployment = objects::version(&name)?;
        let rate = if bad { ["100%", "50%", "20%"][below(&mut draws, 3) as usize] } else { "0%" };
        deployment["spec"]["template"]["spec"]["containers"][0]["env"] =
            json!([{"name": "ERROR_RATE", "value": rate}, {"name": "SEED", "value": number.to_string()}]);
        objects::create(cluster, &[deployment]).await?;
        let started = Instant::now();
        let mut next_fault = started + Duration::from_millis(500 + below(&mut draws, 4000));
        let outcome = loop {
            let status = status(cluster).await;
            let canary = |s: &Value| s["stable"]["version"].as_str() == Some(&name);
            if let Some(s) = &status {
                if s["phase"] == "Idle" && canary(s) {
                    break Some(true);
                }
                // Of this version: the one before it may still be told of.
                let last = s["history"].as_array().and_then(|h| h.last()).cloned().unwrap_or_default();
                if s["phase"] == "RolledBack" && last["canary"].as_str() == Some(&name) {
                    break Some(false);
                }
            }
            if started.elapsed() > LONGEST {
                let s = status.unwrap_or_default();
                tally.wrong.push(format!("{name} did not come to an end in {LONGEST:?}: {} {}", s["phase"], s["message"]));
                break None;
            }
            if Instant::now() >= next_fault {
                fault(cluster, controller, &mut draws, tally, &[&stable, &name]).await?;
                next_fault = Instant::now() + Duration::from_millis(1000 + below(&mut draws, 5000));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        match outcome {
            Some(true) if bad => tally.wrong.push(format!("{name}, which fails {rate} of its requests, was promoted")),
            Some(true) => tally.promoted += 1,
            Some(false) if bad => tally.taken_back += 1,
            Some(false) => tally.good_taken_back += 1,
            None => return Ok(()),
        }
        let old = if outcome == Some(true) { std::mem::replace(&mut stable, name) } else { name };
        // Its weight is 0; proxies have let go of it after the settle time.
        tokio::time::sleep(Duration::from_secs(2)).await;
        remove(cluster, &old).await?;
    }
    Ok(())
}

async fn fault(
    cluster: &Cluster,
    controller: &mut Controller,
    draws: &mut Random,
    tally: &mut Tally,
    versions: &[&str],
) -> Result<(), Failure> {
    match below(draws, 4) {
        0 | 1 => {
            controller.kill().await;
            tally.killed += 1;
            tokio::time::sleep(Duration::from_millis(below(draws, 1500))).await;
            controller.start()
        }
        2 => {
            controller.signal(rustix::process::Signal::STOP);
            tally.stopped += 1;
            tokio::time::sleep(Duration::from_millis(500 + below(draws, 2500))).await;
            controller.signal(rustix::process::Signal::CONT);
            Ok(())
        }
        _ => {
            let version = versions.get(below(draws, versions.len() as u64) as usize).copied().unwrap_or_default();
            let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
            let listed = pods.list(&ListParams::default().labels(&format!("app=my-app,version={version}"))).await;
            let listed = listed.map_err(|e| cluster.failed("list pods", &e))?;
            // Whoever has one pod only would be an outage that no canary tool can help.
            if listed.items.len() < 2 {
                return Ok(());
            }
            if let Some(pod) = listed.items.get(below(draws, listed.items.len() as u64) as usize) {
                tally.pods.push(Instant::now());
                let _ = pods.delete(&pod.name_any(), &DeleteParams::default()).await;
            }
            Ok(())
        }
    }
}

/// An old version: first whatever names it, then its pods.
async fn remove(cluster: &Cluster, version: &str) -> Result<(), Failure> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let scaled =
        deployments.patch(&format!("my-app-{version}"), &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 1}}))).await;
    scaled.map(drop).map_err(|e| cluster.failed(&format!("scale my-app-{version}"), &e))?;
    forget_old(cluster, version.trim_start_matches('v').parse().unwrap_or(0)).await
}

/// Deletes versions once they are two versions older than this number, but for the one that serves: the last one is the way back.
pub(super) async fn forget_old(cluster: &Cluster, number: u32) -> Result<(), Failure> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let listed = deployments.list(&ListParams::default().labels("app=my-app")).await.map_err(|e| cluster.failed("list deployments", &e))?;
    let serving = status(cluster).await.and_then(|s| s["stable"]["version"].as_str().map(str::to_owned)).unwrap_or_default();
    for deployment in listed.items {
        let name = deployment.name_any();
        let old = name.strip_prefix("my-app-v").and_then(|n| n.parse::<u32>().ok()).is_some_and(|n| n + 1 < number);
        if old && name != format!("my-app-{serving}") {
            let _ = deployments.delete(&name, &DeleteParams::default()).await;
        }
    }
    Ok(())
}

/// The release's status, if there is one.
pub(super) async fn status(cluster: &Cluster) -> Option<Value> {
    let release = cluster.releases().get("my-app").await.ok()?;
    serde_json::to_value(release.status?).ok()
}

/// Waits for a status; else tells the last one.
pub(super) async fn wait(cluster: &Cluster, longest: Duration, fits: impl Fn(&Value) -> bool) -> Result<(), String> {
    let end = Instant::now() + longest;
    loop {
        let now = status(cluster).await.unwrap_or_default();
        if fits(&now) {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(format!("{} {}", now["phase"], now["message"]));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
