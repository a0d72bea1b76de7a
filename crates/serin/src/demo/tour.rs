//! The story: the article's files as they are and as they were meant, a good version, a bad one, and what it all cost.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::Api;
use kube::runtime::wait::await_condition;
use serde_json::json;
use serin_api::names;
use serin_core::observe::RequestAction;
use serin_core::reason::{count, percent};
use serin_core::route::{self, ServiceName, bind_mesh, describe};
use serin_core::units::duration_text;
use serin_lab::mesh::traffic::{LONGEST, Plan, Traffic};

use super::record::{Record, Seen};
use super::report::{Rollout, Split, Summary, beside, by_status, rollouts, table, totals};
use super::say::Story;
use super::traffic::{USERS, by, failed, status};
use super::{DemoArgs, counters, objects};
use crate::cluster::{Cluster, ClusterArgs};
use crate::cmd::request::{annotate, request_for};
use crate::exit::Failure;
use crate::istio::Mesh;
use crate::lab::RunningLab;
use crate::split::{Verdict, because, expected, judge};
use crate::web::Web;

/// Requests of one measurement of a split.
const SAMPLE: u64 = 1_500;
/// A pod of the lab is ready in well under a second; a machine under load takes its time.
const PODS_READY: Duration = Duration::from_secs(60);
/// A rollout of the demo takes some ten seconds, on a starved machine several times that; this long and it has gone wrong.
const ROLLOUT: Duration = Duration::from_secs(180);
/// For weights to be with the proxy; a change in the lab takes some milliseconds.
const TAKES_EFFECT: Duration = Duration::from_millis(500);

/// Whom the callers call.
const HOST: &str = "my-app";

/// Steady callers inside the mesh.
///
/// # Errors
/// The lab tells no address for them.
pub(super) fn callers(args: &DemoArgs, lab: &RunningLab) -> Result<Traffic, Failure> {
    let url = lab.callers()?;
    let target =
        url.authority().and_then(|a| a.as_str().parse().ok()).ok_or_else(|| Failure::new(format!("{url} is no address of callers")))?;
    let plan = Plan {
        target,
        host: HOST.into(),
        path: "/".into(),
        rate: f64::from(args.rate),
        users: USERS,
        seed: args.seed,
        time: LONGEST,
        requests: None,
        log: args.log.clone(),
    };
    Ok(Traffic::start(plan))
}

/// Tells it.
pub(crate) async fn tour(args: &DemoArgs, lab: &RunningLab, story: &Story, begin: Instant) -> Result<Summary, Failure> {
    let cluster = ClusterArgs { kubeconfig: Some(lab.kubeconfig().to_path_buf()), ..ClusterArgs::default() }.connect().await?;
    let web = Web::new()?;
    story.fact("lab", &lab.headline())?;

    story.now("v1 starts");
    objects::create(&cluster, &objects::read(objects::V1)?).await?;
    ready(&cluster, "my-app-v1", 3).await?;
    answers(&web, lab).await?;
    // The proxy has counted the requests that asked whether v1 is there.
    let before = counters::read(&cluster, &web, HOST).await?;
    let traffic = callers(args, lab)?;
    story.fact("traffic", &format!("{} requests/s from inside the mesh, until the end", args.rate))?;

    story.line("")?;
    story.line("1 The article's files, as they are")?;
    story.now("v2 starts");
    for file in [objects::V2, objects::DESTINATION_RULE, objects::VIRTUAL_SERVICE] {
        objects::create(&cluster, &objects::read(file)?).await?;
    }
    ready(&cluster, "my-app-v2", 1).await?;
    story.fact(
        "applied",
        "Service my-app · Deployments my-app-v1 (3 pods), my-app-v2 (1 pod) · DestinationRule my-app · VirtualService my-app (90/10)",
    )?;
    let service = ServiceName::new("my-app", &cluster.namespace);
    let found = measure(&cluster, &service, &traffic, story).await?;
    story.fact("measured", &found.sentence)?;
    if let Some(why) = &found.because {
        story.fact("because", why)?;
    }
    story.fact("check", &objects::judged())?;
    let mended = mend(&cluster, &service).await?;
    story.fact("mended", &mended.join("; "))?;
    let verified = measure(&cluster, &service, &traffic, story).await?;
    story.fact("verified", &verified.sentence)?;

    story.line("")?;
    story.line("2 v2 meets users")?;
    let record = Record::start(&cluster, "my-app", &traffic);
    crate::cluster::define(&cluster).await?;
    objects::create(&cluster, &objects::read(objects::RELEASE)?).await?;
    let good = good(&cluster, &record, &traffic, story).await?;

    story.line("")?;
    story.line(&format!("3 v3 has a fault: {} of its answers are errors", args.fault))?;
    let bad = bad(args, &cluster, &record, &traffic, story).await?;

    story.now("the last answers");
    traffic.stop().await;
    let took = begin.elapsed();
    let summary =
        summary(args, &cluster, &web, &traffic, Parts { before, found, mended, verified, good, bad, seconds: took.as_secs_f64() }).await?;
    close(&summary, story)?;
    Ok(summary)
}

/// Waits until a Deployment has that many ready pods.
async fn ready(cluster: &Cluster, name: &str, pods: i32) -> Result<(), Failure> {
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let enough = move |d: Option<&Deployment>| d.and_then(|d| d.status.as_ref()).and_then(|s| s.ready_replicas).is_some_and(|n| n >= pods);
    match tokio::time::timeout(PODS_READY, await_condition(api, name, enough)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) => Err(Failure::new(format!("cannot watch Deployment {name}: {}", crate::cluster::chain(&e)))),
        Err(_) => {
            Err(Failure::new(format!("Deployment {name} has not {pods} ready pods after {}", duration_text(PODS_READY)))
                .hint("serin lab logs"))
        }
    }
}

/// Waits until a caller inside the mesh is answered.
async fn answers(web: &Web, lab: &RunningLab) -> Result<(), Failure> {
    let url = lab.callers()?;
    let first = async {
        loop {
            if web.get(&url, Some(HOST)).await.is_ok_and(|a| a.status.is_success()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PODS_READY, first).await.map_err(|_| Failure::new("no request to my-app was answered").hint("serin lab logs"))
}

/// Measures the split with the traffic that runs anyway.
async fn measure(cluster: &Cluster, service: &ServiceName, traffic: &Traffic, story: &Story) -> Result<Split, Failure> {
    story.now("measuring the split");
    tokio::time::sleep(TAKES_EFFECT).await;
    let mesh = Mesh::read(cluster).await?;
    let expected = expected(&mesh, service, "version")?;
    let counts = tokio::time::timeout(PODS_READY, super::traffic::measure(traffic, SAMPLE))
        .await
        .map_err(|_| Failure::new("the traffic stands still"))?;
    let verdict: Verdict = judge(&expected.shares, &counts);
    let because = if verdict.agrees { None } else { because(&expected) };
    Ok(Split { sentence: verdict.sentence(&expected.written), weights: expected.written, verdict, because })
}

/// The smallest patch that lets callers inside the mesh see the split.
async fn mend(cluster: &Cluster, service: &ServiceName) -> Result<Vec<String>, Failure> {
    let mesh = Mesh::read(cluster).await?;
    let vs = mesh.virtual_services.iter().find(|vs| vs.pointer("/metadata/name") == Some(&json!("my-app")));
    let vs = vs.ok_or_else(|| Failure::new("VirtualService my-app is gone"))?;
    let patch = bind_mesh(vs, service).map_err(|e| Failure::new(format!("VirtualService my-app cannot be mended: {e}")))?;
    mesh.patch(cluster, "my-app", &patch).await.map_err(|e| cluster.failed("patch VirtualService my-app", &e))?;
    let list = |vs: &serde_json::Value| {
        let names: Vec<&str> = vs
            .pointer("/spec/gateways")
            .and_then(serde_json::Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(serde_json::Value::as_str)
            .collect();
        format!("[{}]", names.join(", "))
    };
    let after = mesh.again(cluster, "my-app").await.map_err(|e| cluster.failed("read VirtualService my-app", &e))?;
    let lines = vec![format!("spec.gateways: {} → {}", list(vs), list(&after))];
    Ok(if list(vs) == list(&after) { describe(&patch) } else { lines })
}

/// Tells each message of the release as it changes, on the live line, until a status fits.
async fn until(
    record: &Record,
    story: &Story,
    what: &str,
    fits: impl Fn(&serin_api::CanaryReleaseStatus) -> bool,
) -> Result<Seen, Failure> {
    let seen = record
        .wait(ROLLOUT, |status| {
            let weight = status.weight.as_ref().map_or_else(String::new, |w| format!("{} · ", w.text));
            story.now(format!("{weight}{}", status.message.clone().unwrap_or_default()));
            fits(status)
        })
        .await;
    seen.ok_or_else(|| {
        let last = record.last().and_then(|s| s.status.message).unwrap_or_else(|| "no controller looked at it".to_string());
        Failure::new(format!("{what} within {}; the last word was: {last}", duration_text(ROLLOUT)))
            .hint("serin demo --keep, and in another terminal: serin why my-app")
    })
}

async fn good(cluster: &Cluster, record: &Record, traffic: &Traffic, story: &Story) -> Result<Option<Rollout>, Failure> {
    let adopted = until(record, story, "Serin did not find the split", |s| s.phase.as_deref() == Some("Paused")).await?;
    story.fact("found", &adopted.status.message.clone().unwrap_or_default())?;
    let release = cluster.release("my-app").await?;
    let request = request_for(&release, RequestAction::Resume, "demo", "the demo goes on");
    annotate(cluster, "my-app", names::REQUEST, &request).await.map_err(|e| cluster.failed("ask CanaryRelease my-app to resume", &e))?;
    story.fact("request", &format!("serin resume my-app   ({}: {})", names::REQUEST, serin_api::request_annotation(&request)))?;
    let uid = adopted.status.rollout.as_ref().map(|r| r.uid.clone()).unwrap_or_default();
    until(record, story, "v2 was not decided", |s| over(s, &uid)).await?;
    let rollout = told(record, traffic, &uid);
    if let Some(r) = &rollout {
        tell(r, story)?;
    }
    Ok(rollout)
}

async fn bad(args: &DemoArgs, cluster: &Cluster, record: &Record, traffic: &Traffic, story: &Story) -> Result<Option<Rollout>, Failure> {
    story.now("v3 starts");
    objects::create(cluster, &objects::faulty(&args.fault, args.seed)?).await?;
    let begun =
        until(record, story, "Serin did not see v3", |s| s.rollout.is_some() && s.canary.as_ref().is_some_and(|c| c.version == "v3"))
            .await?;
    let uid = begun.status.rollout.as_ref().map(|r| r.uid.clone()).unwrap_or_default();
    until(record, story, "v3 was not decided", |s| over(s, &uid)).await?;
    // Answers that were under way belong to the log too.
    tokio::time::sleep(TAKES_EFFECT).await;
    let rollout = told(record, traffic, &uid);
    if let Some(r) = &rollout {
        tell(r, story)?;
    }
    Ok(rollout)
}

/// Whether that rollout has ended.
fn over(status: &serin_api::CanaryReleaseStatus, uid: &str) -> bool {
    status.rollout.is_none() && status.history.iter().any(|p| p.uid == uid)
}

fn told(record: &Record, traffic: &Traffic, uid: &str) -> Option<Rollout> {
    rollouts(&record.statuses(), &record.weights(), &traffic.all()).into_iter().find(|r| r.uid == uid)
}

fn tell(r: &Rollout, story: &Story) -> Result<(), Failure> {
    for line in table(r) {
        story.line(&line)?;
    }
    let took = format!("{:.1} s", r.ended - r.began);
    if r.outcome == "Promoted" {
        story.fact("promoted", &format!("in {took} · {} is kept and may be deleted", r.stable))?;
    } else {
        story.fact("taken back", &format!("{:.1} s after its first weight{}", r.exposed, last_request(r)))?;
    }
    for d in r.decisions.iter().filter(|d| !matches!(d.reason.as_str(), "Bakes" | "Adopted" | "TakenBack")) {
        story.fact(&format!("{:.1} s", d.at), &d.message)?;
    }
    story.fact("cost", &format!("{} of {} users met a fault of {}", count(r.users_hit as f64), count(r.users as f64), r.canary))?;
    if r.outcome == "RolledBack" {
        story.fact("next", &format!("{} will not be tried again until it changes: serin retry my-app", r.canary))?;
    }
    Ok(())
}

/// When the last request met the version that was taken back, beside the moment at which its weight was seen at 0.
fn last_request(r: &Rollout) -> String {
    let Some(late) = r.last_request_after_zero_ms else { return String::new() };
    if late < 0.0 {
        format!(" · no request began there once its weight was 0 (the last one {:.0} ms before)", -late)
    } else {
        format!(" · its last request began {late:.0} ms after its weight was 0")
    }
}

/// What the tour has found, before it is put together.
struct Parts {
    before: std::collections::BTreeMap<(String, u16), u64>,
    found: Split,
    mended: Vec<String>,
    verified: Split,
    good: Option<Rollout>,
    bad: Option<Rollout>,
    seconds: f64,
}

async fn summary(args: &DemoArgs, cluster: &Cluster, web: &Web, traffic: &Traffic, parts: Parts) -> Result<Summary, Failure> {
    let Parts { before, found, mended, verified, good, bad, seconds } = parts;
    let log = traffic.all();
    let by_log = by_status(&log);
    // The proxy writes its counters when a request is over at its side, a moment after the caller has the answer.
    let mut envoy = Vec::new();
    for _ in 0..40 {
        let mut counted = counters::read(cluster, web, HOST).await?;
        for (key, n) in &before {
            counted.entry(key.clone()).and_modify(|c| *c -= (*c).min(*n));
        }
        counted.retain(|_, n| *n > 0);
        envoy = beside(&counted, &by_log);
        if envoy.iter().all(|c| c.envoy == c.log) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let totals = totals(&log, "v3");
    let mut differences = Vec::new();
    if found.verdict.agrees {
        differences.push("the article's files split the traffic as they are, though they name no mesh".to_string());
    }
    if !verified.verdict.agrees {
        differences.push(format!("the mended route does not split as set: {}", verified.sentence));
    }
    let outcome = |r: &Option<Rollout>| r.as_ref().map_or("Unknown", |r| r.outcome.as_str()).to_string();
    if outcome(&good) != "Promoted" {
        differences.push(format!("v2 ended as {}, not promoted", outcome(&good)));
    }
    if outcome(&bad) != "RolledBack" {
        differences.push(format!("v3 ended as {}, not taken back (its fault: {})", outcome(&bad), args.fault));
    }
    let others = totals.failed - totals.failed_by_fault;
    if others > 0 {
        let first = log.iter().find(|e| failed(e) && !(status(e) == 500 && by(e, "v3")));
        let what = first.map_or_else(String::new, |e| {
            format!("; the first at {:.1} s: status {}, {}", e.at.as_secs_f64(), status(e), e.version.as_deref().unwrap_or("no version"))
        });
        differences.push(format!("{} requests failed without being the fault's{what}", count(others as f64)));
    }
    for c in envoy.iter().filter(|c| c.envoy != c.log) {
        differences.push(format!("Envoy counted {} answers {} of {}, the log {}", c.envoy, c.status, c.version, c.log));
    }
    differences.extend(left(cluster, &outcome(&bad)).await?);
    Ok(Summary {
        seed: args.seed,
        rate: args.rate,
        fault: args.fault.clone(),
        found,
        mended,
        verified,
        rollouts: [good, bad].into_iter().flatten().collect(),
        totals,
        envoy,
        differences,
        seconds,
    })
}

/// What must still stand: v1 with its pods, and the weights.
async fn left(cluster: &Cluster, v3: &str) -> Result<Vec<String>, Failure> {
    let mut differences = Vec::new();
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let v1 = deployments.get_opt("my-app-v1").await.map_err(|e| cluster.failed("read Deployment my-app-v1", &e))?;
    let pods = v1.as_ref().and_then(|d| d.spec.as_ref()).and_then(|s| s.replicas);
    if pods != Some(3) {
        differences
            .push(format!("Deployment my-app-v1 was kept with {} pods, not 3", pods.map_or_else(|| "no".to_string(), |n| n.to_string())));
    }
    let mesh = Mesh::read(cluster).await?;
    let service = ServiceName::new("my-app", &cluster.namespace);
    let winner = if v3 == "Promoted" { "v3" } else { "v2" };
    for vs in &mesh.virtual_services {
        for split in route::look(vs, &service, None).splits {
            let share = split.share_of(winner).fraction();
            if share < 1.0 {
                differences.push(format!("{} ends with {} for {winner}, not 100 %", split.label(), percent(share)));
            }
        }
    }
    Ok(differences)
}

fn close(summary: &Summary, story: &Story) -> Result<(), Failure> {
    let t = &summary.totals;
    story.line("")?;
    let whose = if t.failed == t.failed_by_fault && t.failed > 0 { ", all of them by v3" } else { "" };
    story.fact(
        "in all",
        &format!(
            "{} requests of {} users: {} answered, {} failed{whose}; Envoy's own counters {} · total {:.1} s",
            count(t.requests as f64),
            count(t.users as f64),
            count(t.answered as f64),
            count(t.failed as f64),
            if summary.envoy.iter().all(|c| c.envoy == c.log) { "agree" } else { "do not agree" },
            summary.seconds
        ),
    )?;
    for difference in &summary.differences {
        story.fact("differs", difference)?;
    }
    Ok(())
}
