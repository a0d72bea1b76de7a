//! `serin freeze`, `thaw`: no release moves forward, every one may go back.
//!
//! An annotation that the controller honours for as long as it is there: no answer is waited for, and none is needed.

use clap::Args;
use futures::future::join_all;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use serin_api::names;

use super::{Format, print};
use crate::cluster::{Cluster, ClusterArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::out;

/// Let no release move forward; each may go back, and harm still takes a canary back
#[derive(Args, Debug)]
#[command(
    after_help = "Holds until thawed, over restarts of the controller.\n\nExit codes: 0 done; 2 no answer.\n\nExamples:\n  serin freeze my-app --reason 'sale until Monday'\n  serin freeze --all -n shop\n  serin freeze --policy default -n serin-system --reason INC-123"
)]
pub(crate) struct FreezeArgs {
    #[command(flatten)]
    which: Which,
    /// Why; status and events repeat it
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// End a freeze: what waited goes on
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 done; 2 no answer.\n\nExamples:\n  serin thaw my-app\n  serin thaw --all -n shop")]
pub(crate) struct ThawArgs {
    #[command(flatten)]
    which: Which,
}

/// The releases that are meant.
#[derive(Args, Debug)]
struct Which {
    /// The releases
    #[arg(value_name = "NAME", required_unless_present_any = ["all", "policy"], conflicts_with_all = ["all", "policy"])]
    names: Vec<String>,
    /// Every release that this CanaryPolicy holds for
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    policy: Option<String>,
    /// Every release of the namespace
    #[arg(long)]
    all: bool,
    /// How to print
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// `serin freeze`.
pub(crate) async fn freeze(args: FreezeArgs, cluster: &ClusterArgs) -> Outcome {
    let cluster = cluster.connect().await?;
    let who = super::request::who(&cluster);
    let why = if args.reason.is_empty() { format!("by {who}") } else { format!("by {who}: {}", args.reason) };
    annotate(&args.which, &cluster, &json!(why), &format!("frozen {why}")).await
}

/// `serin thaw`.
pub(crate) async fn thaw(args: ThawArgs, cluster: &ClusterArgs) -> Outcome {
    let cluster = cluster.connect().await?;
    let done = annotate(&args.which, &cluster, &Value::Null, "thawed").await?;
    // A policy may be frozen in Git as well, and there no annotation ends it.
    let Some(name) = &args.which.policy else { return Ok(done) };
    let policy = cluster.policies(&cluster.namespace).get_opt(name).await;
    match policy.ok().flatten().and_then(|p| p.spec.freeze) {
        Some(why) => Err(Failure::no(format!("CanaryPolicy {name} stays frozen: its spec.freeze says {why:?}")).hint(format!(
            "kubectl patch canarypolicy {name} -n {} --type json -p '[{{\"op\":\"remove\",\"path\":\"/spec/freeze\"}}]'",
            cluster.namespace
        ))),
        None => Ok(done),
    }
}

async fn annotate(which: &Which, cluster: &Cluster, value: &Value, done: &str) -> Outcome {
    let patch = Patch::Merge(json!({"metadata": {"annotations": {names::FREEZE: value}}}));
    let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
    if let Some(policy) = &which.policy {
        let patched = cluster.policies(&cluster.namespace).patch_metadata(policy, &params, &patch).await;
        return policy_told(policy, which.output, cluster, patched, done);
    }
    let names: Vec<String> = if which.all {
        let list = cluster.releases().list(&ListParams::default()).await.map_err(|e| cluster.failed("list CanaryReleases", &e))?;
        list.items.iter().map(ResourceExt::name_any).collect()
    } else {
        which.names.clone()
    };
    // A name that does not exist is told before anything has changed.
    for found in join_all(names.iter().map(|name| cluster.release(name))).await {
        found?;
    }
    let releases = cluster.releases();
    let results = join_all(names.iter().map(|name| releases.patch_metadata(name, &params, &patch))).await;
    let mut failed = Vec::new();
    for (name, result) in names.iter().zip(&results) {
        match result {
            Ok(_) if which.output.is_none() => out::answer(&format!("{name}  {done}\n"))?,
            Ok(_) => {}
            Err(e) => failed.push(cluster.failed(&format!("annotate CanaryRelease {}/{name}", cluster.namespace), e)),
        }
    }
    if let Some(format) = which.output {
        let results: Vec<Value> = names.iter().zip(&results).map(|(name, r)| json!({"name": name, "done": r.is_ok()})).collect();
        print(format, &results)?;
    } else if names.is_empty() {
        out::answer(&format!("no CanaryRelease in namespace {}\n", cluster.namespace))?;
    }
    failed.into_iter().next().map_or(Ok(Exit::Done), Err::<Exit, Failure>)
}

fn policy_told<T>(name: &str, output: Option<Format>, cluster: &Cluster, patched: Result<T, kube::Error>, done: &str) -> Outcome {
    patched.map_err(|e| {
        cluster
            .failed(&format!("annotate CanaryPolicy {}/{name}", cluster.namespace), &e)
            .hint(format!("kubectl get canarypolicies -n {}", cluster.namespace))
    })?;
    match output {
        Some(format) => print(format, &json!([{"policy": name, "done": true}]))?,
        None => out::answer(&format!("CanaryPolicy {name}  {done}\n"))?,
    }
    Ok(Exit::Done)
}
