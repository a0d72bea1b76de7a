//! `serin abort`: all traffic back to stable, with or without a controller.
//!
//! The annotation is sent first; where the weight is not gone within a second, the routes are patched from here, all in
//! parallel, each until it shows 0, and marked so that the controller finds the abort when it is back. Nothing comes
//! before it but one fact: stable has a ready endpoint.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use futures::future::join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use serin_api::convert::version_label;
use serin_api::{CanaryRelease, names};
use serin_controller::observe::receivers;
use serin_core::observe::RequestAction;
use serin_core::route::rules::Labels;
use serin_core::route::{Arms, Mark, ServiceName, Share, abort};
use tokio::time::Instant;

use super::request::{annotate, request_for, who};
use super::{Format, print};
use crate::cluster::{Cluster, ClusterArgs, chain};
use crate::exit::{Exit, Failure, Outcome};
use crate::istio::{Mesh, all_again, pod_labels, share_of};
use crate::out;

/// Take the canary back: all traffic to stable, at once
#[derive(Args, Debug)]
#[command(
    after_help = "Works without the controller: where it does not act within a second, the VirtualServices are patched from here.\n\nExit codes: 0 every route shows 0; 1 refused, as stable has no ready pod; 2 no answer.\n\nExamples:\n  serin abort my-app\n  serin abort my-app --reason 'errors on checkout'"
)]
pub(crate) struct AbortArgs {
    /// The release
    name: String,
    /// Even though stable has no ready pod, which makes the abort an outage
    #[arg(long)]
    force: bool,
    /// Why, for events and history
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Give up after this long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = super::duration)]
    timeout: Duration,
    /// How to print
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// How long the controller gets before the routes are patched from here.
const CONTROLLERS_TURN: Duration = Duration::from_secs(1);
/// Between two looks at the routes; an abort is seen soon after it is done.
const LOOK: Duration = Duration::from_millis(50);

/// The two versions of a rollout, and how requests reach them.
struct Pair {
    stable: String,
    canary: String,
    arms: Arms,
    /// Labels of stable's pods.
    stable_labels: Labels,
    /// What its Deployment says, for where the endpoints cannot be read.
    stable_ready: i32,
    stable_wanted: i32,
    rollout: Option<String>,
}

/// What happened to one VirtualService.
struct Done {
    name: String,
    before: Share,
    by: By,
    took: Duration,
    left: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Controller,
    CommandLine,
    Nobody,
}

/// Takes the canary back.
pub(crate) async fn run(args: AbortArgs, cluster: &ClusterArgs) -> Outcome {
    let cluster = cluster.connect().await?;
    let release = cluster.release(&args.name).await?;
    let service = ServiceName::new(&release.spec.service, &cluster.namespace);
    let (mesh, deployments) = futures::future::join(Mesh::read(&cluster), deployments(&cluster.client, &cluster.namespace)).await;
    let mesh = mesh?;
    let deployments = deployments.map_err(|e| cluster.failed(&format!("list Deployments in namespace {}", cluster.namespace), &e))?;
    let named = release.spec.traffic.as_ref().and_then(|t| t.virtual_services.as_deref());
    let routes = mesh.routes(&service, named);
    let Some(pair) = pair(&release, &mesh, &service, &routes, &deployments) else {
        let stable = release.status.as_ref().and_then(|s| s.stable.as_ref()).map_or("the version that serves", |v| v.version.as_str());
        let message = format!("no version but {stable} gets requests");
        match args.output {
            Some(format) => print(format, &json!({"name": args.name, "aborted": false, "message": message}))?,
            None => out::answer(&format!("{}  nothing to take back: {message}\n", args.name))?,
        }
        return Ok(Exit::Done);
    };
    if !args.force && receiving(&cluster, &service, &pair.stable_labels).await.unwrap_or(pair.stable_ready) == 0 {
        let lacks = match pair.stable_ready {
            0 => format!("{} has no ready pod (0 of {})", pair.stable, pair.stable_wanted),
            ready => format!("no endpoint of Service {} is a pod of {}, though {ready} are ready", service.name, pair.stable),
        };
        return Err(Failure::no(format!("{lacks}: taking {} back would be the outage, so nothing was done", pair.canary))
            .hint(format!("kubectl get pods,endpointslices -n {}", cluster.namespace))
            .hint(format!("serin abort {} --force", args.name)));
    }
    let targets: Vec<(String, Option<Vec<String>>)> = routes.iter().map(|(vs, only)| (name_of(vs), only.map(<[String]>::to_vec))).collect();
    let before: Vec<Share> = routes.iter().map(|(vs, only)| share_of(vs, &service, *only, &subset(&pair.arms.canary))).collect();
    let action = if args.force { RequestAction::AbortForced } else { RequestAction::Abort };
    let request = request_for(&release, action, &who(&cluster), &args.reason);
    let begin = Instant::now();
    // The annotation must not delay what it asks for: where it cannot be written, the routes are patched at once.
    let asked = match tokio::time::timeout(CONTROLLERS_TURN, annotate(&cluster, &args.name, names::ABORT, &request)).await {
        Ok(Ok(())) => None,
        Ok(Err(e)) => Some(chain(&e)),
        Err(_) => Some("no answer within 1 s".to_string()),
    };
    let mut done: Vec<Option<Done>> = targets.iter().map(|_| None).collect();
    if asked.is_none() {
        wait_for_controller(&mesh, &cluster, &service, &pair, &targets, &before, begin, &mut done).await;
    }
    let end = begin + args.timeout;
    let missing: Vec<usize> = (0..targets.len()).filter(|i| done[*i].is_none()).collect();
    let why =
        if args.reason.is_empty() { format!("aborted by {}", request.who) } else { format!("aborted by {}: {}", request.who, args.reason) };
    let mark = pair.rollout.as_deref().map(|rollout| Mark { rollout, why: &why });
    let patched = join_all(missing.iter().map(|i| take_back(&mesh, &cluster, &service, &pair, mark, &targets[*i], before[*i], end))).await;
    for (i, result) in missing.iter().zip(patched) {
        done[*i] = Some(result?);
    }
    let done: Vec<Done> = done.into_iter().flatten().collect();
    report(&args, &cluster, &pair, &done, asked.as_deref())?;
    if done.iter().all(|d| d.left.is_empty()) { Ok(Exit::Done) } else { Ok(Exit::NoAnswer) }
}

/// How many pods with these labels receive the service's requests. `None` where it cannot be read at once, for whatever reason: nothing may
/// stand in the way of an abort.
async fn receiving(cluster: &Cluster, service: &ServiceName, labels: &Labels) -> Option<i32> {
    if labels.is_empty() {
        return None;
    }
    let selector = labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",");
    let pods = async {
        let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &service.namespace);
        api.list_metadata(&ListParams::default().labels(&selector)).await
    };
    let both = tokio::time::timeout(CONTROLLERS_TURN, futures::future::join(slices(cluster, service), pods));
    let (slices, pods) = both.await.ok()?;
    let pods: BTreeSet<String> = pods.ok()?.items.into_iter().filter_map(|p| p.metadata.name).collect();
    let slices = slices?;
    // Each once: a dual-stack service has two slices.
    let names: BTreeSet<&str> = slices.iter().flat_map(receivers).collect();
    i32::try_from(names.into_iter().filter(|name| pods.contains(*name)).count()).ok()
}

/// The service's EndpointSlices, in the version that the cluster serves.
async fn slices(cluster: &Cluster, service: &ServiceName) -> Option<Vec<Value>> {
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={}", service.name));
    for version in ["v1", "v1beta1"] {
        let kind = GroupVersionKind::gvk("discovery.k8s.io", version, "EndpointSlice");
        let api: Api<DynamicObject> =
            Api::namespaced_with(cluster.client.clone(), &service.namespace, &ApiResource::from_gvk_with_plural(&kind, "endpointslices"));
        match api.list(&of_service).await {
            Ok(list) => return Some(list.items.into_iter().map(|slice| slice.data).collect()),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(_) => return None,
        }
    }
    None
}

async fn deployments(client: &Client, namespace: &str) -> Result<Vec<Deployment>, kube::Error> {
    Api::<Deployment>::namespaced(client.clone(), namespace).list(&ListParams::default()).await.map(|l| l.items)
}

fn name_of(vs: &Value) -> String {
    vs.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_string()
}

fn subset(target: &serin_core::route::Target) -> String {
    target.subset.clone().unwrap_or_default()
}

/// Who is stable and who is the canary: as the status says; without a rollout there, as the weights say.
fn pair(
    release: &CanaryRelease,
    mesh: &Mesh,
    service: &ServiceName,
    routes: &[(&Value, Option<&[String]>)],
    deployments: &[Deployment],
) -> Option<Pair> {
    let label = version_label(&release.spec);
    let of_version = |version: &str| deployments.iter().find(|d| pod_labels(d).get(label).is_some_and(|v| v == version));
    let subset_of = |version: &str, deployment: Option<&Deployment>| {
        let labels = deployment.map_or_else(|| Labels::from([(label.to_string(), version.to_string())]), pod_labels);
        mesh.subset(service, label, &labels)
    };
    let status = release.status.as_ref();
    let rollout = status.and_then(|s| s.rollout.as_ref()).map(|r| r.uid.clone());
    let named = rollout.as_ref().and_then(|_| {
        let s = status?;
        Some((s.stable.as_ref()?.version.clone(), s.canary.as_ref()?.version.clone()))
    });
    let (stable, canary) = named.or_else(|| {
        // By weight: the version with the most is stable, another one that has any is the canary.
        let mut shares: Vec<(String, f64)> = Vec::new();
        for deployment in deployments {
            let Some(version) = pod_labels(deployment).get(label).cloned() else { continue };
            let share = mesh.share(service, label, &pod_labels(deployment), routes).unwrap_or(0.0);
            if share > 0.0 && !shares.iter().any(|(v, _)| *v == version) {
                shares.push((version, share));
            }
        }
        shares.sort_by(|a, b| b.1.total_cmp(&a.1));
        match shares.as_slice() {
            [(stable, _), (canary, _), ..] => Some((stable.clone(), canary.clone())),
            [] | [_] => None,
        }
    })?;
    let (stable_deployment, canary_deployment) = (of_version(&stable), of_version(&canary));
    let arms = Arms::subsets(service, subset_of(&stable, stable_deployment)?, subset_of(&canary, canary_deployment)?);
    let ready = stable_deployment.and_then(|d| d.status.as_ref()).and_then(|s| s.ready_replicas).unwrap_or(0);
    let wanted = stable_deployment.and_then(|d| d.spec.as_ref()).and_then(|s| s.replicas).unwrap_or(0);
    let stable_labels = stable_deployment.map(pod_labels).unwrap_or_default();
    Some(Pair { stable, canary, arms, stable_labels, stable_ready: ready, stable_wanted: wanted, rollout })
}

#[expect(clippy::too_many_arguments, reason = "one loop's view of one abort; a struct for it would be used once")]
async fn wait_for_controller(
    mesh: &Mesh,
    cluster: &Cluster,
    service: &ServiceName,
    pair: &Pair,
    targets: &[(String, Option<Vec<String>>)],
    before: &[Share],
    begin: Instant,
    done: &mut [Option<Done>],
) {
    let names: Vec<String> = targets.iter().map(|(n, _)| n.clone()).collect();
    let canary = subset(&pair.arms.canary);
    while begin.elapsed() < CONTROLLERS_TURN && done.iter().any(Option::is_none) {
        for (i, seen) in all_again(mesh, cluster, &names).await.into_iter().enumerate() {
            let Ok(vs) = seen else { continue };
            if done[i].is_none() && share_of(&vs, service, targets[i].1.as_deref(), &canary).is_none() {
                let by = if before[i].is_none() { By::Nobody } else { By::Controller };
                done[i] = Some(Done { name: names[i].clone(), before: before[i], by, took: begin.elapsed(), left: Vec::new() });
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Patches one VirtualService until it shows 0. A test that fails means that somebody wrote it meanwhile: read and try again.
#[expect(clippy::too_many_arguments, reason = "as above")]
async fn take_back(
    mesh: &Mesh,
    cluster: &Cluster,
    service: &ServiceName,
    pair: &Pair,
    mark: Option<Mark<'_>>,
    target: &(String, Option<Vec<String>>),
    before: Share,
    end: Instant,
) -> Result<Done, Failure> {
    let (name, only) = target;
    let begin = Instant::now();
    let canary = subset(&pair.arms.canary);
    let mut last = None;
    loop {
        let tried = async {
            let vs = mesh.again(cluster, name).await?;
            let abort = abort(&vs, only.as_deref(), &pair.arms, mark);
            let left: Vec<String> = abort.left.iter().map(ToString::to_string).collect();
            let vs = if abort.patch.is_noop() { vs } else { mesh.patch(cluster, name, &abort.patch).await? };
            Ok::<_, kube::Error>((vs, left))
        };
        match tried.await {
            Ok((vs, left)) if share_of(&vs, service, only.as_deref(), &canary).is_none() || !left.is_empty() => {
                return Ok(Done { name: name.clone(), before, by: By::CommandLine, took: begin.elapsed(), left });
            }
            Ok(_) => {}
            Err(e) => last = Some(e),
        }
        if Instant::now() >= end {
            let tried = format!("take {} back in VirtualService {}/{name}", pair.canary, cluster.namespace);
            return Err(match last {
                Some(e) => cluster.failed(&tried, &e),
                None => Failure::new(format!("cannot {tried}: it is given weight again each time"))
                    .hint(format!("kubectl get virtualservice {name} -n {} -o yaml --show-managed-fields", cluster.namespace)),
            });
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn report(args: &AbortArgs, cluster: &Cluster, pair: &Pair, done: &[Done], not_asked: Option<&str>) -> Result<(), Failure> {
    let by_hand = done.iter().any(|d| d.by == By::CommandLine);
    let note = match (by_hand, not_asked) {
        (true, Some(why)) => format!("The request could not be written ({why}), so the routes were changed from here."),
        (true, None) => {
            "The controller did not answer within 1 s, so the routes were changed from here; it will find this when it is back.".to_string()
        }
        (false, _) => "Done by the controller.".to_string(),
    };
    if let Some(format) = args.output {
        let routes: Vec<Value> = done
            .iter()
            .map(|d| {
                json!({"virtualService": format!("{}/{}", cluster.namespace, d.name), "from": d.before.rounded().to_string(), "to": "0 %", "milliseconds": d.took.as_millis() as u64,
                    "by": match d.by { By::Controller => "controller", By::CommandLine => "command line", By::Nobody => "was 0 already" }, "left": d.left})
            })
            .collect();
        return print(
            format,
            &json!({"name": args.name, "aborted": true, "stable": pair.stable, "canary": pair.canary, "stableReady": pair.stable_ready, "stableWanted": pair.stable_wanted, "routes": routes, "note": note}),
        );
    }
    let mut text = String::new();
    for d in done {
        text += &format!(
            "{}  {} {} → 0 %, {} 100 %: done in VirtualService {}/{} ({} ms)\n",
            args.name,
            pair.canary,
            d.before.rounded(),
            pair.stable,
            cluster.namespace,
            d.name,
            d.took.as_millis()
        );
        for left in &d.left {
            text += &format!("        still sends to {}: {left}\n", pair.canary);
        }
    }
    text += &format!("        {} has {} of {} pods ready. {note}\n", pair.stable, pair.stable_ready, pair.stable_wanted);
    out::answer(&text)
}
