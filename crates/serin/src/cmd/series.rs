//! `serin bench --only rollouts`: whole rollouts on a real Envoy, kind by kind, beside what `simulate` says of the same plan.
//!
//! Healthy versions one after the other on one lab; each fault on a lab of its own. Deliberately judges nothing but what the promises say:
//! how often a healthy version was taken back stands in the last line.

use std::time::{Duration, Instant};

use http::Uri;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use serin_core::plan::Plan;
use serin_core::simulate::{Begin, Fault, Latency, Outage, World, simulate};
use serin_lab::mesh::traffic::{Plan as Calls, Traffic};

use super::bench::calls;
use super::soak::{forget_old, status, wait};
use crate::cluster::{Cluster, ClusterArgs};
use crate::cmd::controller::Running;
use crate::demo::objects;
use crate::exit::Failure;
use crate::lab::{LabOptions, RunningLab};
use crate::out;
use crate::web::Web;

/// What is measured.
pub(crate) struct Series {
    /// Healthy versions in a row.
    pub(crate) runs: u32,
    /// Rollouts of each kind of fault.
    pub(crate) faults: u32,
    /// Requests a second.
    pub(crate) rate: u32,
}

/// A rollout that has not ended by then is undecided.
const LONGEST: Duration = Duration::from_secs(60);
/// Of every request to whatever version, so that nobody is without any error.
const USUAL_ERRORS: f64 = 0.001;
/// A log-normal law that agrees with the sample app's `exp:20ms` at the edges about its 0.9 quantile, 25 and 50 ms.
const LIKE_EXP_20MS: Latency = Latency { median_ms: 15.6, sigma: 0.838 };

/// Something that goes wrong, or nothing.
struct Kind {
    name: &'static str,
    /// The canary's settings, beside the usual ones.
    canary: &'static [(&'static str, &'static str)],
    later: Later,
    /// Whether latency is asked for by quantile.
    quantile: bool,
    faults: Vec<Fault>,
    outages: Vec<Outage>,
}

/// What is set at the running pods.
#[derive(Clone, Copy)]
enum Later {
    Nothing,
    /// The canary's, with this step, from 0.
    WithStep(usize, &'static str),
    /// Of both versions, so long after the first weight.
    Both {
        after: Duration,
        lasts: Duration,
        set: &'static str,
    },
}

impl Kind {
    /// Nothing that comes later, and latency by its usual metric.
    fn plain(name: &'static str, canary: &'static [(&'static str, &'static str)], faults: Vec<Fault>) -> Self {
        Self { name, canary, later: Later::Nothing, quantile: false, faults, outages: Vec::new() }
    }

    /// Nothing at all.
    fn healthy() -> Self {
        Self::plain("as good as stable", &[], Vec::new())
    }
}

fn kinds() -> Vec<Kind> {
    let plain = Kind::plain;
    let errors = |errors: f64| vec![Fault { errors, ..Fault::default() }];
    let slower = |slower: f64| vec![Fault { slower, ..Fault::default() }];
    let slow = |name, canary, faults| Kind { quantile: true, ..plain(name, canary, faults) };
    let outage = Outage { from_s: 5.0, seconds: 4.0, errors: 0.3 };
    vec![
        plain("50 points more errors", &[("ERROR_RATE", "50.1%")], errors(0.5)),
        plain("5 points more errors", &[("ERROR_RATE", "5.1%")], errors(0.05)),
        plain("1 point more errors", &[("ERROR_RATE", "1.1%")], errors(0.01)),
        slow("as fast, p90 asked", &[], Vec::new()),
        slow("20 % slower, p90 may grow 20 %", &[("LATENCY", "exp:24ms")], slower(1.2)),
        slow("50 % slower, p90 may grow 20 %", &[("LATENCY", "exp:30ms")], slower(1.5)),
        slow("300 ms more, p90 may grow 20 %", &[("LATENCY", "300ms-340ms")], vec![Fault { added_ms: 300.0, ..Fault::default() }]),
        Kind {
            later: Later::WithStep(2, "ERROR_RATE=20.1%25"),
            ..plain("20 points more errors with the third step", &[], vec![Fault { from: Begin::Step(3), errors: 0.2, ..Fault::default() }])
        },
        Kind {
            later: Later::Both { after: Duration::from_secs(5), lasts: Duration::from_secs(4), set: "ERROR_RATE=30.1%25" },
            outages: vec![outage],
            ..plain("an outage of 30 points that both share, for 4 s", &[], Vec::new())
        },
    ]
}

/// How one ended.
#[derive(Clone, Debug)]
struct End {
    outcome: &'static str,
    seconds: f64,
    requests: f64,
    failed: f64,
    why: String,
}

/// Runs it.
pub(crate) async fn run(series: &Series) -> Result<(), Failure> {
    let healthy = healthy(series).await?;
    let aborted = healthy.iter().filter(|e| e.outcome == "taken back").count();
    tell(series, &Kind::healthy(), &healthy)?;
    for kind in kinds() {
        let mut ends = Vec::new();
        for number in 0..series.faults {
            let stage = Stage::start(series, kind.quantile, u64::from(number)).await?;
            ends.push(stage.rollout(&kind, "v2").await?);
            stage.stop().await;
        }
        tell(series, &kind, &ends)?;
    }
    out::answer(&format!("{aborted} of {} healthy versions were taken back\n", healthy.len()))
}

/// Healthy versions, each beside the one before it.
async fn healthy(series: &Series) -> Result<Vec<End>, Failure> {
    let kind = Kind::healthy();
    let stage = Stage::start(series, false, 0).await?;
    let mut ends = Vec::new();
    for number in 0..series.runs {
        ends.push(stage.rollout(&kind, &format!("v{}", number + 2)).await?);
        // A hundred of them would run.
        forget_old(&stage.cluster, number + 2).await?;
    }
    stage.stop().await;
    Ok(ends)
}

fn release(quantile: bool) -> Result<Value, Failure> {
    let mut release = objects::read(objects::RELEASE)?.into_iter().next().ok_or_else(|| Failure::new("the demo's release is empty"))?;
    if quantile {
        release["spec"]["analysis"]["metrics"][1] = json!({"name": "p90", "latency": {"quantile": "0.9", "mayGrow": "20%"}});
    }
    Ok(release)
}

fn plan(quantile: bool) -> Result<Plan, Failure> {
    let spec =
        serde_json::from_value(release(quantile)?["spec"].clone()).map_err(|e| Failure::new(format!("cannot read the spec: {e}")))?;
    serin_api::plan_of(&spec).map_err(|p| Failure::new(format!("cannot make a plan: {p:?}")))
}

/// A line of what happened, and one of what was to be expected.
fn tell(series: &Series, kind: &Kind, ends: &[End]) -> Result<(), Failure> {
    let many = |outcome: &str| ends.iter().filter(|e| e.outcome == outcome).count();
    let median = |of: fn(&End) -> f64| {
        let mut values: Vec<f64> = ends.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    out::answer(&format!(
        "{}: {} promoted, {} taken back, {} undecided; median {:.1} s, {:.0} requests to it, {:.0} failed\n",
        kind.name,
        many("promoted"),
        many("taken back"),
        many("undecided"),
        median(|e| e.seconds),
        median(|e| e.requests),
        median(|e| e.failed)
    ))?;
    let world = World {
        requests_per_s: vec![f64::from(series.rate)],
        error_rate: USUAL_ERRORS,
        latency: if kind.quantile { LIKE_EXP_20MS } else { Latency { median_ms: 2.0, sigma: 0.5 } },
        faults: kind.faults.clone(),
        outages: kind.outages.clone(),
        history: false,
        ..World::default()
    };
    let expected = simulate(&plan(kind.quantile)?, &world, 200, 1, LONGEST.as_secs_f64());
    let times = |t: Option<(f64, f64)>| {
        t.map_or_else(|| "never".to_owned(), |(median, ninety)| format!("{median:.1} s, nine of ten {ninety:.1} s"))
    };
    out::answer(&format!(
        "  simulated: {:.0} % promoted ({}), {:.0} % taken back ({}), {:.0} % undecided\n",
        expected.promoted.share * 100.0,
        times(expected.promoted_s),
        expected.rolled_back.share * 100.0,
        times(expected.rolled_back_s),
        expected.undecided.share * 100.0
    ))?;
    match ends.iter().find(|e| e.outcome != "promoted") {
        Some(end) => out::answer(&format!("  said: {}\n", end.why)),
        None => Ok(()),
    }
}

/// A lab with a controller, callers, and a version that serves.
struct Stage {
    lab: RunningLab,
    cluster: Cluster,
    controller: Running,
    traffic: Traffic,
    quantile: bool,
}

impl Stage {
    async fn start(series: &Series, quantile: bool, seed: u64) -> Result<Self, Failure> {
        let lab = RunningLab::start(LabOptions::default()).await?;
        let cluster = ClusterArgs { kubeconfig: Some(lab.kubeconfig().to_path_buf()), ..ClusterArgs::default() }.connect().await?;
        let controller = Running::start(lab.kubeconfig(), false).await?;
        let mut v1 = objects::read(objects::V1)?;
        for deployment in v1.iter_mut().filter(|o| o["kind"] == "Deployment") {
            set(deployment, quantile, &[]);
        }
        objects::create(&cluster, &v1).await?;
        objects::create(&cluster, &objects::read(objects::DESTINATION_RULE)?).await?;
        objects::create(&cluster, &objects::all_to_v1()?).await?;
        objects::ready(&cluster, "my-app-v1").await?;
        crate::cluster::define(&cluster).await?;
        objects::create(&cluster, &[release(quantile)?]).await?;
        let calls = Calls { seed, time: Duration::from_secs(86_400), ..calls(&lab, f64::from(series.rate))? };
        let traffic = Traffic::start(calls);
        wait(&cluster, Duration::from_secs(60), |s| s["phase"] == "Idle" && s["stable"]["version"] == "v1")
            .await
            .map_err(|last| Failure::new(format!("the release is not adopted: {last}")))?;
        Ok(Self { lab, cluster, controller, traffic, quantile })
    }

    async fn stop(self) {
        self.traffic.stop().await;
        self.controller.stop().await;
        self.lab.stop().await;
    }

    /// One version on trial, to its end.
    async fn rollout(&self, kind: &Kind, version: &str) -> Result<End, Failure> {
        let mut deployment = objects::version(version)?;
        set(&mut deployment, self.quantile, kind.canary);
        objects::create(&self.cluster, &[deployment]).await?;
        let begin = Instant::now();
        let (mut first, mut done, mut over) = (None, false, false);
        loop {
            let status = status(&self.cluster).await.unwrap_or_default();
            let history = status["history"].as_array().and_then(|h| h.last()).cloned().unwrap_or_default();
            if history["canary"] == version {
                let served = |field: &str| history["served"]["canary"][field].as_f64().unwrap_or(0.0);
                let outcome = if history["outcome"] == "Promoted" { "promoted" } else { "taken back" };
                let why = history["why"].as_str().unwrap_or_default().to_owned();
                return Ok(End {
                    outcome,
                    seconds: begin.elapsed().as_secs_f64(),
                    requests: served("requests"),
                    failed: served("bad"),
                    why,
                });
            }
            if begin.elapsed() > LONGEST {
                let why = status["message"].as_str().unwrap_or_default().to_owned();
                return Ok(End { outcome: "undecided", seconds: LONGEST.as_secs_f64(), requests: 0.0, failed: 0.0, why });
            }
            let step = status["rollout"]["step"].as_u64();
            if status["phase"] == "Progressing" && first.is_none() {
                first = Some(Instant::now());
            }
            match kind.later {
                Later::Nothing => {}
                Later::WithStep(wanted, setting) => {
                    // The status counts from 1.
                    if !done && step == Some(wanted as u64 + 1) {
                        self.at_pods(&format!("app=my-app,version={version}"), setting).await?;
                        done = true;
                    }
                }
                Later::Both { after, lasts, set } => {
                    let since = first.map_or(Duration::ZERO, |at: Instant| at.elapsed());
                    if !done && since >= after {
                        self.at_pods("app=my-app", set).await?;
                        done = true;
                    }
                    if !over && since >= after + lasts {
                        self.at_pods("app=my-app", "ERROR_RATE=0.1%25").await?;
                        over = true;
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sets a fault at running pods.
    async fn at_pods(&self, labels: &str, setting: &str) -> Result<(), Failure> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &self.cluster.namespace);
        let listed = pods.list(&ListParams::default().labels(labels)).await.map_err(|e| self.cluster.failed("list pods", &e))?;
        let web = Web::new()?;
        for pod in listed.items {
            let Some(ip) = pod.status.and_then(|s| s.pod_ip) else { continue };
            let uri: Uri =
                format!("http://{ip}:8080/fault?{setting}").parse().map_err(|e| Failure::new(format!("fault {setting}: {e}")))?;
            let answer = web.post(&uri).await.map_err(|why| Failure::new(format!("cannot set {setting} at a pod: {why}")))?;
            if !answer.status.is_success() {
                return Err(Failure::new(format!("a pod does not take {setting}: HTTP {}", answer.status)));
            }
        }
        Ok(())
    }
}

/// The sample app's settings: those of every version, and the canary's own. No seed: pods draw by their names, as pods that draw alike would
/// not fail independently.
fn set(deployment: &mut Value, quantile: bool, own: &[(&str, &str)]) {
    let usual = if quantile { vec![("ERROR_RATE", "0.1%"), ("LATENCY", "exp:20ms")] } else { vec![("ERROR_RATE", "0.1%")] };
    let usual = usual.iter().filter(|(name, _)| !own.iter().any(|(other, _)| other == name));
    let env: Vec<Value> = usual.chain(own).map(|(name, value)| json!({"name": name, "value": value})).collect();
    deployment["spec"]["template"]["spec"]["containers"][0]["env"] = json!(env);
}

#[cfg(test)]
mod tests {
    /// Neither crate may know the other: only here do both stand side by side.
    #[test]
    fn what_is_simulated_has_the_edges_of_the_lab() {
        assert_eq!(serin_core::simulate::ISTIO_EDGES, serin_lab::mesh::telemetry::EDGES_MS);
    }
}
