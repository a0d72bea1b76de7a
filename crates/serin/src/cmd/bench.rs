//! `serin bench`: the figures that the README and the notes give, measured on this machine, as distributions.
//!
//! Each run is a lab of its own with a real Envoy, reached through its kubeconfig. Deliberately judges nothing: machines differ.

use std::time::{Duration, Instant};

use clap::Args;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::runtime::wait::await_condition;
use serde_json::json;
use serin_core::decide::decide;
use serin_core::observe::{ArmCounts, Observation, Reading, Route, Rules, Split, Traffic as Seen, Workload};
use serin_core::state::State;
use serin_core::units::{ObjectName, Timestamp, VersionName, Weight};
use serin_lab::mesh::traffic::{Plan as Calls, Sample, Traffic};

use crate::cluster::{Cluster, ClusterArgs};
use crate::cmd::controller::Running;
use crate::cmd::scale::Scale;
use crate::demo::objects;
use crate::exit::{Exit, Failure, Outcome};
use crate::lab::{LabOptions, RunningLab};
use crate::out;

/// Measure on this machine: lab start, weight changes, faults, and the decision itself
#[derive(Args, Debug, Clone)]
#[command(
    after_help = "Exit codes: 0 measured; 2 it could not run; 130 interrupted.\n\nExamples:\n  serin bench\n  serin bench --only fault --runs 5\n  serin bench --only rollouts --runs 100\n  serin bench --only scale --releases 10,1000,10000"
)]
pub(crate) struct BenchArgs {
    /// Runs of each kind
    #[arg(long, value_name = "COUNT", default_value = "20", value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Only one of them [default: all but scale and rollouts, which take minutes]
    #[arg(long, value_enum, value_name = "WHAT")]
    only: Option<What>,
    /// For rollouts: requests a second
    #[arg(long, value_name = "COUNT", default_value = "500", value_parser = clap::value_parser!(u32).range(1..=5000))]
    rate: u32,
    /// For rollouts: how many with each kind of fault [default: a twentieth of the runs]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    faults: Option<u32>,
    /// For scale: how many releases; several numbers are several runs
    #[arg(long, value_name = "COUNTS", value_delimiter = ',', default_value = "10,1000,10000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    releases: Vec<u32>,
    /// For scale: how many of them roll out
    #[arg(long, value_name = "COUNT", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    active: u32,
    /// For scale: how long the idle and the active controller are each watched
    #[arg(long, value_name = "DURATION", value_parser = super::duration, default_value = "30s")]
    watched: Duration,
    /// For scale: spec.analysis.interval of the releases
    #[arg(long, value_name = "DURATION", value_parser = super::duration, default_value = "10s")]
    interval: Duration,
    /// For scale: a line of JSON for each run
    #[arg(long)]
    json: bool,
    /// The other half of scale
    #[arg(long, value_name = "FILE", hide = true)]
    controller_of: Option<std::path::PathBuf>,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Lab start to the first routed 200
    Start,
    /// Weight patch to Envoy's acknowledgement, and requests failed meanwhile
    Weights,
    /// A version's first request to no request at all, when half of its answers are errors
    Fault,
    /// One call of `decide`
    Decide,
    /// Whole rollouts on a real Envoy: healthy versions in a row, and each kind of fault, beside their simulation
    Rollouts,
    /// A controller among many releases: memory, processor, requests, first sync, fault to patch
    Scale,
}

/// Runs them.
pub(crate) async fn run(args: BenchArgs) -> Outcome {
    let wanted = |what| args.only.is_none_or(|only| only == what);
    let work = async {
        if args.only == Some(What::Scale) {
            let scale = Scale { releases: args.releases, active: args.active, watched: args.watched, interval: args.interval };
            match args.controller_of {
                Some(kubeconfig) => super::scale::controller(&scale, kubeconfig).await?,
                None => super::scale::run(&scale, args.json).await?,
            }
            return Ok(Exit::Done);
        }
        if args.only == Some(What::Rollouts) {
            let faults = args.faults.unwrap_or(args.runs.div_ceil(20));
            super::series::run(&super::series::Series { runs: args.runs, faults, rate: args.rate }).await?;
            return Ok(Exit::Done);
        }
        if wanted(What::Decide) {
            decision(args.runs)?;
        }
        if wanted(What::Start) {
            starts(args.runs).await?;
        }
        if wanted(What::Weights) {
            weights().await?;
        }
        if wanted(What::Fault) {
            for (rate, share) in [(5.0, 50), (50.0, 50), (500.0, 50)] {
                faults(args.runs, rate, share).await?;
            }
        }
        Ok(Exit::Done)
    };
    tokio::select! {
        outcome = work => outcome,
        () = crate::cli::interrupted() => Ok(Exit::Interrupted),
    }
}

/// Prints a distribution: least, median, 90th, 99th percentile (nearest rank), most.
fn tell(what: &str, unit: &str, mut values: Vec<f64>) -> Result<(), Failure> {
    values.sort_by(f64::total_cmp);
    let at =
        |q: f64| values.get(((values.len() as f64 * q).ceil() as usize).clamp(1, values.len().max(1)) - 1).copied().unwrap_or(f64::NAN);
    out::answer(&format!(
        "{what}: {} runs, {unit}: least {:.3}, median {:.3}, p90 {:.3}, p99 {:.3}, most {:.3}\n",
        values.len(),
        at(0.0),
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    ))
}

async fn connect(lab: &RunningLab) -> Result<Cluster, Failure> {
    ClusterArgs { kubeconfig: Some(lab.kubeconfig().to_path_buf()), ..ClusterArgs::default() }.connect().await
}

/// Calls of `my-app` from inside the mesh.
pub(super) fn calls(lab: &RunningLab, rate: f64) -> Result<Calls, Failure> {
    let target = lab.mesh()?.outbound;
    Ok(Calls {
        target,
        host: "my-app".into(),
        path: "/".into(),
        rate,
        users: 10_000,
        seed: 1,
        time: Duration::from_secs(600),
        requests: None,
        log: None,
    })
}

async fn starts(runs: u32) -> Result<(), Failure> {
    let mut seconds = Vec::new();
    for _ in 0..runs {
        let begin = Instant::now();
        let lab = RunningLab::start(LabOptions::default()).await?;
        let cluster = connect(&lab).await?;
        objects::create(&cluster, &objects::read(objects::V1)?).await?;
        loop {
            let one = Traffic::start(Calls { requests: Some(1), rate: 1000.0, ..calls(&lab, 1000.0)? });
            one.finished().await;
            if one.all().iter().any(|s| !s.failed() && s.version.is_some()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        seconds.push(begin.elapsed().as_secs_f64());
        lab.stop().await;
    }
    tell("lab start to first routed 200", "s", seconds)
}

/// Both versions ready, the mended route, and callers.
async fn article(cluster: &Cluster) -> Result<(), Failure> {
    for file in [objects::V1, objects::V2, objects::DESTINATION_RULE] {
        objects::create(cluster, &objects::read(file)?).await?;
    }
    let mut routes = objects::read(objects::VIRTUAL_SERVICE)?;
    for route in &mut routes {
        route["spec"]["gateways"] = json!(["my-gateway", "mesh"]);
    }
    objects::create(cluster, &routes).await?;
    for name in ["my-app-v1", "my-app-v2"] {
        objects::ready(cluster, name).await?;
    }
    Ok(())
}

fn virtual_services(cluster: &Cluster) -> Api<DynamicObject> {
    let resource = kube::api::ApiResource {
        group: "networking.istio.io".into(),
        version: "v1".into(),
        api_version: "networking.istio.io/v1".into(),
        kind: "VirtualService".into(),
        plural: "virtualservices".into(),
    };
    Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &resource)
}

async fn weigh(api: &Api<DynamicObject>, stable: u32, canary: u32) -> Result<u64, Failure> {
    let patch: json_patch::Patch = serde_json::from_value(json!([
        {"op": "replace", "path": "/spec/http/0/route/0/weight", "value": stable},
        {"op": "replace", "path": "/spec/http/0/route/1/weight", "value": canary},
    ]))
    .map_err(|e| Failure::new(format!("cannot make a patch: {e}")))?;
    let patched = api.patch("my-app", &PatchParams::default(), &Patch::Json::<()>(patch)).await;
    let patched = patched.map_err(|e| Failure::new(format!("cannot patch VirtualService my-app: {e}")))?;
    patched.metadata.resource_version.and_then(|v| v.parse().ok()).ok_or_else(|| Failure::new("the lab gives no resourceVersion"))
}

async fn weights() -> Result<(), Failure> {
    const CHANGES: u32 = 100;
    let lab = RunningLab::start(LabOptions::default()).await?;
    let cluster = connect(&lab).await?;
    article(&cluster).await?;
    let api = virtual_services(&cluster);
    let traffic = Traffic::start(calls(&lab, 500.0)?);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut milliseconds = Vec::new();
    for i in 0..CHANGES {
        let canary = [5, 10, 25, 50, 75][i as usize % 5];
        let begin = Instant::now();
        let version = weigh(&api, 100 - canary, canary).await?;
        let mut in_force = lab.mesh()?.in_force.clone();
        let taken = tokio::time::timeout(Duration::from_secs(10), in_force.wait_for(|v| *v >= version)).await;
        taken
            .map_err(|_| Failure::new("Envoy has not taken a change of weights within 10 s"))?
            .map_err(|_| Failure::new("the mesh ended"))?;
        milliseconds.push(begin.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    traffic.stop().await;
    let samples = traffic.all();
    let failed = samples.iter().filter(|s| s.failed()).count();
    lab.stop().await;
    tell("weight patch sent to Envoy's acknowledgement", "ms", milliseconds)?;
    out::answer(&format!("  {failed} of {} requests failed over these {CHANGES} changes, at 500 requests/s\n", samples.len()))
}

/// v2 fails half of its requests at a first step of `share` percent; `rate` requests a second go to it.
async fn faults(runs: u32, rate: f64, share: u32) -> Result<(), Failure> {
    let (mut seconds, mut failures) = (Vec::new(), Vec::new());
    for run in 0..runs {
        let lab = RunningLab::start(LabOptions::default()).await?;
        let cluster = connect(&lab).await?;
        let controller = Running::start(lab.kubeconfig(), false).await?;
        for file in [objects::V1, objects::DESTINATION_RULE] {
            objects::create(&cluster, &objects::read(file)?).await?;
        }
        objects::create(&cluster, &objects::all_to_v1()?).await?;
        objects::ready(&cluster, "my-app-v1").await?;
        crate::cluster::define(&cluster).await?;
        let mut release = objects::read(objects::RELEASE)?;
        for object in &mut release {
            object["spec"]["steps"] = json!([{"weight": share, "hold": "30s"}]);
        }
        objects::create(&cluster, &release).await?;
        let traffic = Traffic::start(calls(&lab, rate * 100.0 / f64::from(share))?);
        adopted(&cluster).await?;
        let mut bad = objects::read(objects::V2)?;
        for object in &mut bad {
            object["spec"]["template"]["spec"]["containers"][0]["env"] =
                json!([{"name": "ERROR_RATE", "value": "50%"}, {"name": "SEED", "value": run.to_string()}]);
        }
        objects::create(&cluster, &bad).await?;
        taken_back(&cluster).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        traffic.stop().await;
        let samples: Vec<Sample> = traffic.all().into_iter().filter(|s| s.version.as_deref() == Some("v2")).collect();
        let first = samples.iter().map(|s| s.at).min().unwrap_or_default();
        let last = samples.iter().map(|s| s.at).max().unwrap_or_default();
        seconds.push((last - first).as_secs_f64());
        failures.push(samples.iter().filter(|s| s.failed()).count() as f64);
        controller.stop().await;
        lab.stop().await;
    }
    tell(&format!("half of v2's answers are errors, {rate} requests/s to it: first to last request"), "s", seconds)?;
    tell("  requests that failed by then", "count", failures)
}

async fn phase(cluster: &Cluster, what: &str, fits: fn(&str) -> bool) -> Result<(), Failure> {
    let api: Api<serin_api::CanaryRelease> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let at =
        move |r: Option<&serin_api::CanaryRelease>| r.and_then(|r| r.status.as_ref()).and_then(|s| s.phase.as_deref()).is_some_and(fits);
    let waited = tokio::time::timeout(Duration::from_secs(120), await_condition(api, "my-app", at)).await;
    waited
        .map_err(|_| Failure::new(format!("{what} after two minutes")))?
        .map(drop)
        .map_err(|e| Failure::new(format!("cannot watch CanaryRelease my-app: {e}")))
}

async fn adopted(cluster: &Cluster) -> Result<(), Failure> {
    phase(cluster, "the release is not adopted", |p| p == "Idle").await
}

async fn taken_back(cluster: &Cluster) -> Result<(), Failure> {
    phase(cluster, "v2 is not taken back", |p| p == "RolledBack").await
}

/// `decide` in the middle of a step, with a reading of two metrics.
fn decision(runs: u32) -> Result<(), Failure> {
    const CALLS: u32 = 2_000;
    let release: serin_api::CanaryReleaseSpec =
        serde_json::from_value(json!({"service": "my-app", "steps": [{"weight": 10, "hold": "1h"}]}))
            .map_err(|e| Failure::new(format!("cannot read a spec: {e}")))?;
    let plan = serin_api::plan_of(&release).map_err(|p| Failure::new(format!("cannot make a plan: {p:?}")))?;
    let mut now = Timestamp(1_700_000_000_000);
    let mut state = State::new();
    let mut seen = observation(now, &[("v1", 100_000)])?;
    // Through adoption and preparation to the step, as the controller goes.
    for turn in 0..40 {
        now = now.plus(Duration::from_secs(10));
        let weight = state.rollout().map_or(0, |r| r.weight.share.parts());
        seen =
            if turn < 2 { observation(now, &[("v1", 100_000)])? } else { observation(now, &[("v1", 100_000 - weight), ("v2", weight)])? };
        state = decide(&plan, &state, &seen, now).next;
    }
    if state.phase.name() != "Progressing" {
        return Err(Failure::new(format!("the benchmark's rollout is {}, not at a step", state.phase.name())));
    }
    let mut microseconds = Vec::new();
    for _ in 0..runs {
        let begin = Instant::now();
        for _ in 0..CALLS {
            let _ =
                std::hint::black_box(decide(std::hint::black_box(&plan), std::hint::black_box(&state), std::hint::black_box(&seen), now));
        }
        microseconds.push(begin.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS));
    }
    tell(&format!("one decide, with a reading, at a step (means of {CALLS})"), "µs", microseconds)
}

fn observation(now: Timestamp, shares: &[(&str, u32)]) -> Result<Observation, Failure> {
    let name = |v: &str| VersionName::new(v).map_err(Failure::new);
    let mut workloads = Vec::new();
    let mut split = Vec::new();
    for (version, share) in shares {
        workloads.push(Workload {
            version: name(version)?,
            name: format!("my-app-{version}"),
            hash: "a".into(),
            replicas: 3,
            ready: 3,
            endpoints: 3,
            created: Timestamp(i64::from(*version == "v2")),
            scaled_by: None,
            kept_by: None,
        });
        split.push((name(version)?, Weight::from_parts(*share).unwrap_or(Weight::ZERO)));
    }
    let arm = |n: f64| ArmCounts { n, errors: 0.0, timed: n, slower: vec![(500.0, 0.0)] };
    let reading = Reading {
        from: Timestamp(now.0 - 10_000),
        to: now,
        stable: arm(450.0),
        canary: arm(if shares.len() > 1 { 50.0 } else { 0.0 }),
        history: Vec::new(),
        no_healthy_upstream: 0.0,
        no_cluster: 0.0,
        counted: Vec::new(),
        answers: Vec::new(),
    };
    Ok(Observation {
        at: now,
        rules: Rules { subsets: workloads.iter().map(|w| w.version.clone()).collect(), own: Vec::new(), unused: Vec::new(), refusal: None },
        workloads,
        routes: vec![Route {
            object: ObjectName { namespace: "default".into(), name: "my-app".into() },
            resource_version: "1".into(),
            splits: vec![Split { label: "spec.http[0]".into(), shares: split }],
            manager: None,
            mark: None,
            because: None,
        }],
        traffic: Seen::Read(reading),
        requests: Vec::new(),
        abort: None,
        freeze: None,
        obstacle: None,
    })
}
