//! `serin promote`, `pause`, `resume`, `set-weight`, `retry`, `rollback`: a person's request, as an annotation, and the controller's answer to it.

use std::time::Duration;

use clap::Args;
use futures::{StreamExt, pin_mut};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use serin_api::status::HandledStatus;
use serin_api::{CanaryRelease, names, request_annotation};
use serin_core::observe::{Request, RequestAction};
use serin_core::units::Weight;

use super::{Format, print};
use crate::clock::now;
use crate::cluster::{Cluster, ClusterArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::out;

/// What all requests take.
#[derive(Args, Debug)]
pub(crate) struct RequestArgs {
    /// The release
    name: String,
    /// Why, for events and history
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// How long to wait for the controller's answer
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = super::duration)]
    timeout: Duration,
    /// How to print
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// Leave this step or pause now, or all of them
#[derive(Args, Debug)]
#[command(
    after_help = "A canary that is found worse is taken back all the same.\n\nExit codes: 0 done; 1 refused; 2 no answer.\n\nExamples:\n  serin promote my-app\n  serin promote my-app --full --reason 'fix must be out today'"
)]
pub(crate) struct PromoteArgs {
    #[command(flatten)]
    request: RequestArgs,
    /// Through all remaining steps, each only as long as it settles
    #[arg(long)]
    full: bool,
}

/// Stay at this weight until resumed
#[derive(Args, Debug)]
#[command(
    after_help = "A canary that is found worse is taken back all the same.\n\nExit codes: 0 done; 1 refused; 2 no answer.\n\nExample:\n  serin pause my-app --reason 'looking into latency'"
)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    request: RequestArgs,
}

/// Go on after a pause
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 done; 1 refused; 2 no answer.\n\nExample:\n  serin resume my-app")]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    request: RequestArgs,
}

/// Try a version again that was taken back
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 done; 1 refused; 2 no answer.\n\nExample:\n  serin retry my-app --reason 'the database is back'")]
pub(crate) struct RetryArgs {
    #[command(flatten)]
    request: RequestArgs,
}

/// Give the canary this share of the requests, and stay there until resumed
#[derive(Args, Debug)]
#[command(
    after_help = "Up to the plan's highest step; the way up waits for pods, the way down does not. A canary that is found worse is taken back all the same.\n\nExit codes: 0 done; 1 refused; 2 no answer.\n\nExamples:\n  serin set-weight my-app 30\n  serin set-weight my-app 0.5% --reason 'a closer look'\n  serin resume my-app"
)]
pub(crate) struct SetWeightArgs {
    #[command(flatten)]
    request: RequestArgs,
    /// Percent of the requests, as 30 or 0.5%
    #[arg(value_name = "WEIGHT", value_parser = Weight::parse)]
    weight: Weight,
}

/// After a promotion: back to the version that served before
#[derive(Args, Debug)]
#[command(
    after_help = "The old version gets as many pods as the new one has, and then every request; the new one is not tried again until it changes or\nsomeone retries. While a rollout still runs: serin abort.\n\nExit codes: 0 it goes back; 1 refused; 2 no answer.\n\nExamples:\n  serin rollback my-app --reason 'orders are lost'\n  serin rollback my-app --now"
)]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    request: RequestArgs,
    /// Without waiting for more pods than one
    #[arg(long)]
    now: bool,
}

/// `serin set-weight`.
pub(crate) async fn set_weight(args: SetWeightArgs, cluster: &ClusterArgs) -> Outcome {
    ask(args.request, RequestAction::SetWeight(args.weight), cluster).await
}

/// `serin rollback`.
pub(crate) async fn rollback(args: RollbackArgs, cluster: &ClusterArgs) -> Outcome {
    let action = if args.now { RequestAction::RollbackNow } else { RequestAction::Rollback };
    ask(args.request, action, cluster).await
}

/// `serin promote`.
pub(crate) async fn promote(args: PromoteArgs, cluster: &ClusterArgs) -> Outcome {
    let action = if args.full { RequestAction::PromoteFull } else { RequestAction::Promote };
    ask(args.request, action, cluster).await
}

/// `serin pause`.
pub(crate) async fn pause(args: PauseArgs, cluster: &ClusterArgs) -> Outcome {
    ask(args.request, RequestAction::Pause, cluster).await
}

/// `serin resume`.
pub(crate) async fn resume(args: ResumeArgs, cluster: &ClusterArgs) -> Outcome {
    ask(args.request, RequestAction::Resume, cluster).await
}

/// `serin retry`.
pub(crate) async fn retry(args: RetryArgs, cluster: &ClusterArgs) -> Outcome {
    ask(args.request, RequestAction::Retry, cluster).await
}

/// A request for the release as the person sees it now.
pub(crate) fn request_for(release: &CanaryRelease, action: RequestAction, who: &str, why: &str) -> Request {
    let rollout = release.status.as_ref().and_then(|s| s.rollout.as_ref());
    let at = now();
    Request {
        id: format!("{}-{:x}-{:x}", action, at.0, std::process::id()).replace([' ', '-', '%', '.'], "_"),
        action,
        rollout: rollout.map(|r| r.uid.clone()).unwrap_or_default(),
        step: rollout.and_then(|r| usize::try_from(r.step - 1).ok()),
        who: who.to_string(),
        why: why.to_string(),
        at,
    }
}

/// Who asks: the user of the kubeconfig, else of this machine.
pub(crate) fn who(cluster: &Cluster) -> String {
    let of_machine = || std::env::var("USER").ok().filter(|u| !u.is_empty()).unwrap_or_else(|| "somebody".to_string());
    if cluster.user.is_empty() { of_machine() } else { cluster.user.clone() }
}

/// Writes the annotation.
///
/// # Errors
/// The cluster refuses it or does not answer.
pub(crate) async fn annotate(cluster: &Cluster, name: &str, annotation: &str, request: &Request) -> Result<(), kube::Error> {
    let patch = json!({"metadata": {"annotations": {annotation: request_annotation(request)}}});
    let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
    cluster.releases().patch_metadata(name, &params, &Patch::Merge(patch)).await.map(|_| ())
}

async fn ask(args: RequestArgs, action: RequestAction, cluster: &ClusterArgs) -> Outcome {
    let cluster = cluster.connect().await?;
    let release = cluster.release(&args.name).await?;
    let request = request_for(&release, action, &who(&cluster), &args.reason);
    annotate(&cluster, &args.name, names::REQUEST, &request)
        .await
        .map_err(|e| cluster.failed(&format!("ask CanaryRelease {}/{} to {action}", cluster.namespace, args.name), &e))?;
    match tokio::time::timeout(args.timeout, handled(&cluster, &args.name, &request.id)).await {
        Ok(Some((release, handled))) => answer(&args, action, &release, &handled),
        Ok(None) => Err(Failure::new(format!("CanaryRelease {} is gone", args.name)).hint("serin get")),
        Err(_) => Err(match blocked(&cluster, &args.name).await {
            Some(why) => Failure::no(format!("{action} was not carried out: {why}")).hint(format!("serin why {}", args.name)),
            None => Failure::new(format!(
                "the controller has not answered within {}: the request stands, and is refused once it is ten minutes old",
                serin_core::units::duration_text(args.timeout)
            ))
            .hint(format!("serin why {}", args.name))
            .hint("kubectl get pods -A -l app.kubernetes.io/name=serin"),
        }),
    }
}

/// What keeps the controller from working on a release at all, as its status says; then it answers no request either.
async fn blocked(cluster: &Cluster, name: &str) -> Option<String> {
    let status = cluster.release(name).await.ok()?.status?;
    let stalled = status.conditions.iter().find(|c| c.type_ == "Stalled" && c.status == "True")?;
    let works_on = ["TakenBack", "Drift"].contains(&stalled.reason.as_str());
    (!works_on).then(|| stalled.message.clone())
}

async fn handled(cluster: &Cluster, name: &str, id: &str) -> Option<(CanaryRelease, HandledStatus)> {
    let changes = super::get::changes_of(cluster.releases(), name);
    pin_mut!(changes);
    while let Some(change) = changes.next().await {
        let Ok(release) = change else { continue };
        let found = release.status.as_ref().and_then(|s| s.handled.iter().find(|h| h.id == id)).cloned();
        if let Some(found) = found {
            return Some((release, found));
        }
    }
    None
}

fn answer(args: &RequestArgs, action: RequestAction, release: &CanaryRelease, handled: &HandledStatus) -> Outcome {
    let status = release.status.clone().unwrap_or_default();
    let message = status.message.unwrap_or_default();
    let weight = status.weight.map(|w| w.text).unwrap_or_default();
    if let Some(format) = args.output {
        print(
            format,
            &json!({"name": release.name_any(), "action": action.to_string(), "id": handled.id, "refused": handled.refused, "phase": status.phase, "weight": weight, "message": message}),
        )?;
    }
    if let Some(why) = &handled.refused {
        return Err(Failure::no(format!("{action} was refused: {why}")).hint(format!("serin why {}", args.name)));
    }
    if args.output.is_none() {
        let weight = if weight.is_empty() { String::new() } else { format!(" ({weight})") };
        out::answer(&format!("{}  {message}{weight}\n", args.name))?;
    }
    Ok(Exit::Done)
}
