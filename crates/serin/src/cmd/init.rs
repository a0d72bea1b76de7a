//! `serin init`: writes a CanaryRelease for a Service, and says what it would do before anybody applies it.
//!
//! Changes nothing. The forecast is no formula but the plan itself, simulated with a canary that is as good as stable at this service's traffic: a plan
//! that could not promote it within a day is refused, with the changes that cure it.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use futures::future::join_all;
use http::Uri;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use serde_json::Value;
use serin_controller::observe::exposition::samples;
use serin_controller::observe::increments::{REQUESTS, failed};
use serin_controller::observe::prometheus::matrix::totals;
use serin_core::plan::{Plan, Step};
use serin_core::reason::{Reason, per_second, percent};
use serin_core::route::ServiceName;
use serin_core::simulate::{Outcome as Simulated, Run, World, run_once};
use serin_core::units::{Weight, duration_text};

use super::simulate;
use crate::cluster::{Cluster, ClusterArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::istio::{Mesh, pod_labels};
use crate::out;
use crate::sources::{Prometheus, PrometheusArgs};
use crate::web::Web;

/// Write a CanaryRelease for a Service, with a forecast for its traffic
#[derive(Args, Debug)]
#[command(
    after_help = "Prints YAML and changes nothing. Without --rate the requests are counted at the proxies of the service's callers, for as long as --measure says; or a Prometheus is asked for so much of the past.\n\n\
        Exit codes: 0 printed; 1 the plan would take longer than a day with this traffic: the cures are told; 2 no answer.\n\n\
        Examples:\n  serin init my-app > release.yaml\n  serin init my-app --prometheus-url http://localhost:9090 --measure 24h\n  serin init my-app --rate 5 --margin 2% | kubectl apply -f -"
)]
pub(crate) struct InitArgs {
    /// The Service
    service: String,
    /// Requests a second to it
    #[arg(long, value_name = "NUMBER")]
    rate: Option<f64>,
    /// Its share of failed requests [default: measured, else 0.1%]
    #[arg(long, value_name = "PERCENT", value_parser = serin_api::values::percent)]
    error_rate: Option<f64>,
    /// How long to count requests [default: 10s at proxies, 1h of a Prometheus' past]
    #[arg(long, value_name = "TIME", value_parser = super::duration)]
    measure: Option<Duration>,
    #[command(flatten)]
    prometheus: PrometheusArgs,
    /// By how many points the canary may fail more often
    #[arg(long, value_name = "PERCENT", default_value = "0.5%", value_parser = serin_api::values::percent)]
    margin: f64,
    /// Print a plan that takes longer than a day all the same
    #[arg(long)]
    slow: bool,
}

/// Longer than this a plan is not proposed: nobody waits, and a week has other traffic than the hour that was measured.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Rollouts behind a forecast, and behind the forecast of a cure.
const RUNS: u64 = 120;
const FEW: u64 = 12;
const SEED: u64 = 1;
/// How long requests are counted unless it is said.
const AT_PROXIES: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);

/// Prints a release.
pub(crate) async fn run(args: InitArgs, cluster: &ClusterArgs) -> Outcome {
    if args.rate.is_some_and(|r| !(r > 0.0 && r <= 1e7)) {
        return Err(Failure::new("--rate: requests a second, above 0 and at most 10,000,000")
            .hint(format!("serin init {} --rate 50", args.service)));
    }
    let cluster = cluster.connect().await?;
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let service = match services.get_opt(&args.service).await {
        Ok(Some(service)) => service,
        Ok(None) => {
            return Err(
                Failure::new(format!("no Service {} is in namespace {}", args.service, cluster.namespace)).hint("kubectl get services")
            );
        }
        Err(e) => return Err(cluster.failed(&format!("read Service {}/{}", cluster.namespace, args.service), &e)),
    };
    if let Ok(Some(release)) = cluster.releases().get_opt(&args.service).await {
        return Err(
            Failure::new(format!("CanaryRelease {} is there already", release.name_any())).hint(format!("serin status {}", args.service))
        );
    }
    let found = Found::of(&cluster, &service).await?;
    for line in found.lines(&args.service) {
        out::talk(&line);
    }
    let prometheus = args.prometheus.described();
    let span = args.measure.unwrap_or(if prometheus.is_some() { HOUR } else { AT_PROXIES });
    let measured = match (args.rate, prometheus) {
        (Some(rate), _) => Measured { rate, errors: None },
        (None, Some(prometheus)) => remembered(&prometheus, &cluster, &args.service, span).await?,
        (None, None) => measure(&cluster, &args.service, span).await?,
    };
    let error_rate = args.error_rate.or(measured.errors).unwrap_or(0.001);
    let world = World { requests_per_s: vec![measured.rate], error_rate, pods: found.stable_pods.max(1), ..World::default() };
    let text = yaml(&args, &cluster.namespace, args.margin);
    let plan = simulate::plan_of_text(&text, "the plan")?;
    let outcome = simulated(&plan, &world);
    out::talk(&format!(
        "{} requests a second, {} of them fail{}",
        per_second(measured.rate),
        percent(error_rate),
        if args.rate.is_none() { format!(", as counted over {}", duration_text(span)) } else { String::new() }
    ));
    if fits(&outcome) || args.slow {
        out::talk(&forecast(&outcome));
        out::talk(&step_by_step(&plan, &world));
        accepted(&cluster, &text).await?;
        out::answer(&text)?;
        out::talk(&format!("serin init {} … | kubectl apply -f -    starts nothing and moves nothing", args.service));
        return Ok(Exit::Done);
    }
    let mut failure = Failure::no(format!("this plan is refused: {}", forecast(&outcome)));
    for cure in cures(&args, &cluster.namespace, &plan, &world)? {
        failure = failure.hint(cure);
    }
    Err(failure.hint(format!("serin init {} --slow …    print it all the same", args.service)))
}

fn simulated(plan: &Plan, world: &World) -> Simulated {
    let run = |runs| tokio::task::block_in_place(|| simulate::simulated(plan, world, runs, SEED, LONGEST.as_secs_f64()));
    // A day without an answer is the dearest to simulate: where that is the rule, a few tell it.
    let few = run(FEW);
    if few.promoted.share < 0.5 { few } else { run(RUNS) }
}

/// Nine of ten good canaries are promoted within a day.
fn fits(outcome: &Simulated) -> bool {
    outcome.promoted.share >= 0.9
}

fn forecast(outcome: &Simulated) -> String {
    let time = |s: f64| duration_text(Duration::from_secs_f64(s));
    match outcome.promoted_s {
        Some((half, nine)) if fits(outcome) => {
            format!("a good canary is promoted within {} (half of them) to {} (nine of ten)", time(half), time(nine))
        }
        Some(_) => format!("{:.0} % of good canaries would be promoted within a day", 100.0 * outcome.promoted.share),
        None => "no good canary would be promoted within a day".to_string(),
    }
}

/// How long each step of a good canary takes: `1 % 2m 20s, …, 50 % 6m 10s (nine of ten 9m)`.
fn step_by_step(plan: &Plan, world: &World) -> String {
    let runs: Vec<Run> = (0..FEW).map(|n| run_once(plan, world, SEED, n, LONGEST.as_secs_f64())).collect();
    let text = |s: f64| duration_text(Duration::from_secs_f64(s));
    let begins = |run: &Run, index: usize| {
        let begins = |reason: &Reason| match reason {
            Reason::StepBegins { step, .. } => *step == index,
            Reason::StepsPassed { .. } => index == plan.spec().steps.len(),
            _ => false,
        };
        run.told.iter().find(|(_, reason)| begins(reason)).map(|(at, _)| *at)
    };
    let mut parts = Vec::new();
    for (index, step) in plan.spec().steps.iter().enumerate() {
        let mut took: Vec<f64> = runs.iter().filter_map(|run| Some(begins(run, index + 1)? - begins(run, index)?)).collect();
        took.sort_by(f64::total_cmp);
        let (Step::Weight { weight, .. }, Some(median)) = (step, took.get(took.len() / 2)) else { continue };
        let ninety = took.get(took.len() * 9 / 10).copied().unwrap_or(*median);
        let slow = if ninety > median * 1.2 { format!(" (nine of ten {})", text(ninety)) } else { String::new() };
        parts.push(format!("{weight} {}{slow}", text(*median)));
    }
    format!("step by step: {}", parts.join(", "))
}

/// The smallest changes with which the plan fits into a day; each is simulated.
fn cures(args: &InitArgs, namespace: &str, plan: &Plan, world: &World) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    for margin in [0.01, 0.02, 0.05, 0.1].into_iter().filter(|m| *m > args.margin) {
        let plan = simulate::plan_of_text(&yaml(args, namespace, margin), "the plan")?;
        let outcome = simulated(&plan, world);
        if fits(&outcome) {
            found.push(format!("serin init {} --margin {}    {}", args.service, percent(margin).replace(' ', ""), forecast(&outcome)));
            break;
        }
    }
    for factor in [2.0, 5.0, 10.0, 20.0, 50.0, 100.0] {
        let busier = World { requests_per_s: vec![world.requests_per_s.first().copied().unwrap_or_default() * factor], ..world.clone() };
        let outcome = simulated(plan, &busier);
        if fits(&outcome) {
            let rate = busier.requests_per_s.first().copied().unwrap_or_default();
            found.push(format!("release when it gets {} requests a second, or send it some: {}", per_second(rate), forecast(&outcome)));
            break;
        }
    }
    found.push("leave out `confirm`: its steps go on after their hold unless something speaks against it, and prove nothing".to_string());
    Ok(found)
}

/// What is printed: the defaults in full, so that they can be read and changed.
fn yaml(args: &InitArgs, namespace: &str, margin: f64) -> String {
    let (service, margin) = (&args.service, percent(margin).replace(' ', ""));
    format!(
        "apiVersion: serin.dev/v1alpha1\n\
         kind: CanaryRelease\n\
         metadata:\n  name: {service}\n  namespace: {namespace}\n\
         spec:\n  service: {service}\n  steps:\n\
         \x20 - {{weight: 1, hold: 2m}}      # goes on after its hold, unless a gross fault is not excluded yet or harm is suspected\n\
         \x20 - {{weight: 5, hold: 2m}}\n\
         \x20 - {{weight: 10, hold: 2m}}\n\
         \x20 - {{weight: 25, hold: 2m}}\n\
         \x20 - {{weight: 50, hold: 2m, confirm: true}}   # goes on once the canary is shown not to be worse by the margins below\n\
         \x20 promotion: {{bake: 10m}}       # at 100 %, watched, before the canary is the new stable\n\
         \x20 analysis:\n    metrics:\n\
         \x20   - name: errors\n      errorRate: {{margin: \"{margin}\"}}   # points by which the canary may fail more often\n\
         \x20   - name: slow\n      latency: {{slowerThan: 500ms, margin: \"1%\"}}\n"
    )
}

/// Whether the cluster would take it: asked, and not done.
async fn accepted(cluster: &Cluster, text: &str) -> Result<(), Failure> {
    let release = serde_saphyr::from_str(text).map_err(|e| Failure::new(format!("cannot read what was written: {e}")))?;
    let params = PostParams { dry_run: true, ..PostParams::default() };
    match cluster.releases().create(&params, &release).await {
        Ok(_) => Ok(()),
        // Who only wants to see it needs no kind yet.
        Err(kube::Error::Api(status)) if status.code == 404 => {
            out::talk("the cluster does not know the kind yet: serin install --crds | kubectl apply -f -");
            Ok(())
        }
        Err(e) => Err(cluster.failed("try the CanaryRelease (dry run)", &e)),
    }
}

/// What stands behind the service.
struct Found {
    /// Version, Deployment, ready pods, share.
    versions: Vec<(String, String, u32, f64)>,
    virtual_services: Vec<String>,
    stable_pods: u32,
}

impl Found {
    async fn of(cluster: &Cluster, service: &Service) -> Result<Self, Failure> {
        let selector = service.spec.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default();
        if selector.is_empty() {
            return Err(Failure::new(format!("Service {} has no selector, so no Deployment stands behind it", service.name_any()))
                .hint(format!("kubectl get service {} -o yaml", service.name_any())));
        }
        let name = ServiceName::new(service.name_any(), &cluster.namespace);
        let mesh = Mesh::read(cluster).await?;
        let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        let deployments = deployments
            .list(&ListParams::default())
            .await
            .map_err(|e| cluster.failed(&format!("list Deployments in namespace {}", cluster.namespace), &e))?;
        let routes = mesh.routes(&name, None);
        let label = serin_api::convert::defaults::LABEL;
        let mut versions = Vec::new();
        for deployment in &deployments {
            let labels = pod_labels(deployment);
            if !selector.iter().all(|(k, v)| labels.get(k) == Some(v)) {
                continue;
            }
            let Some(version) = labels.get(label) else { continue };
            let ready = deployment.status.as_ref().and_then(|s| s.ready_replicas).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
            let share = mesh.share(&name, label, &labels, &routes).unwrap_or(0.0);
            versions.push((version.clone(), deployment.name_any(), ready, share));
        }
        if versions.is_empty() {
            return Err(Failure::new(format!(
                "no Deployment with the label {label} on its pods stands behind Service {}",
                service.name_any()
            ))
            .hint("kubectl get deployments --show-labels")
            .hint("serin check --live"));
        }
        versions.sort_by(|a, b| b.3.total_cmp(&a.3).then_with(|| b.2.cmp(&a.2)));
        let stable_pods = versions.first().map_or(1, |v| v.2);
        let virtual_services =
            routes.iter().map(|(vs, _)| vs.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_string()).collect();
        Ok(Self { versions, virtual_services, stable_pods })
    }

    fn lines(&self, service: &str) -> Vec<String> {
        let mut lines: Vec<String> = self
            .versions
            .iter()
            .map(|(version, deployment, ready, share)| {
                let share = Weight::from_parts((share * 100_000.0).round() as u32).unwrap_or(Weight::ZERO);
                format!("found     {version}: Deployment {deployment}, {ready} ready, {share} of the requests")
            })
            .collect();
        lines.push(match self.virtual_services.as_slice() {
            [] => format!(
                "found     no VirtualService that sends to {service}: without a split nothing can be released; serin check tells more"
            ),
            some => format!("found     VirtualService {}", some.join(", ")),
        });
        let split = self.versions.iter().filter(|v| v.3 > 0.0).count() > 1;
        lines.push(if split {
            "once it is applied: the split stays as it is, paused, until serin resume".to_string()
        } else {
            "once it is applied: nothing moves; the next new version goes on trial".to_string()
        });
        lines
    }
}

struct Measured {
    rate: f64,
    errors: Option<f64>,
}

/// What a Prometheus counted of the service.
async fn remembered(prometheus: &Prometheus, cluster: &Cluster, service: &str, past: Duration) -> Result<Measured, Failure> {
    let series = prometheus.record(&ServiceName::new(service, &cluster.namespace), past).await?;
    let (n, errors, seconds) = totals(&series);
    if n <= 0.0 || seconds <= 0.0 {
        return Err(Failure::new(format!("nobody called {service} in the last {}, as far as that Prometheus knows", duration_text(past)))
            .hint(format!("serin init {service} --rate 50    requests a second, as you know them")));
    }
    Ok(Measured { rate: n / seconds, errors: Some(errors / n) })
}

/// Counts requests to the service at the proxies of its callers, twice.
async fn measure(cluster: &Cluster, service: &str, span: Duration) -> Result<Measured, Failure> {
    let give = |what: String| {
        Failure::new(format!("the service's requests cannot be counted: {what}"))
            .hint(format!("serin init {service} --rate 50    requests a second, as you know them"))
    };
    let pods: Api<Pod> = Api::all(cluster.client.clone());
    let pods = pods.list(&ListParams::default()).await.map_err(|e| give(format!("pods may not be listed ({e})")))?;
    let has_proxy = |pod: &&Pod| {
        let spec = pod.spec.as_ref();
        spec.is_some_and(|s| s.containers.iter().chain(s.init_containers.iter().flatten()).any(|c| c.name == "istio-proxy"))
    };
    let addresses: Vec<String> = pods.iter().filter(has_proxy).filter_map(|p| p.status.as_ref()?.pod_ip.clone()).collect();
    if addresses.is_empty() {
        return Err(give("no pod has an istio-proxy container".into()));
    }
    let web = Web::new()?;
    let before = counts(&web, &addresses, service, &cluster.namespace).await;
    if before.is_empty() {
        return Err(give(format!("none of {} proxies answers from here, at port {}", addresses.len(), serin_controller::PROXIES_PORT)));
    }
    let begun = tokio::time::Instant::now();
    out::talk(&format!("counting requests at {} proxies for {} …", before.len(), duration_text(span)));
    tokio::time::sleep(span).await;
    let after = counts(&web, &addresses, service, &cluster.namespace).await;
    let seconds = begun.elapsed().as_secs_f64().max(0.001);
    let (mut all, mut failed) = (0.0, 0.0);
    for (address, (n, bad)) in &after {
        let (old, old_bad) = before.get(address).copied().unwrap_or((*n, *bad));
        all += (n - old).max(0.0);
        failed += (bad - old_bad).max(0.0);
    }
    if all == 0.0 {
        return Err(give(format!("nobody called it within {}", duration_text(span))));
    }
    // Too few to tell a rate of errors from nothing: the usual one is taken.
    let errors = (all >= 1000.0).then_some(failed / all);
    Ok(Measured { rate: all / seconds, errors })
}

/// Requests to the service, and those that failed, by proxy; proxies that do not answer are left out.
async fn counts(web: &Web, addresses: &[String], service: &str, namespace: &str) -> BTreeMap<String, (f64, f64)> {
    let ask = |address: &String| {
        let (web, address) = (web.clone(), address.clone());
        async move {
            let url: Uri = format!("http://{address}:{}/stats/prometheus", serin_controller::PROXIES_PORT).parse().ok()?;
            let answer = tokio::time::timeout(Duration::from_secs(3), web.get(&url, None)).await.ok()?.ok()?;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            let (mut n, mut bad) = (0.0, 0.0);
            for sample in samples(&text, |name| name == REQUESTS) {
                let ours = sample.label("reporter") == "source"
                    && sample.label("destination_service_name") == service
                    && sample.label("destination_service_namespace") == namespace;
                if ours && sample.value.is_finite() {
                    n += sample.value;
                    bad += if failed(|name| sample.label(name)) { sample.value } else { 0.0 };
                }
            }
            Some((address, (n, bad)))
        }
    };
    join_all(addresses.iter().map(ask)).await.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(margin: f64) -> InitArgs {
        InitArgs {
            service: "shop".into(),
            rate: Some(50.0),
            error_rate: None,
            measure: None,
            prometheus: PrometheusArgs::default(),
            margin,
            slow: false,
        }
    }

    #[test]
    fn what_is_written_is_the_default_plan_in_full() {
        let written = simulate::plan_of_text(&yaml(&args(0.005), "default", 0.005), "the plan").expect("a plan");
        let default = simulate::plan(None).expect("the default plan");
        assert_eq!((written.spec().steps.clone(), written.metrics()), (default.spec().steps.clone(), default.metrics()));
        assert_eq!((written.spec().bake, written.spec().interval), (default.spec().bake, default.spec().interval));
        assert_eq!(written.shares(), default.shares());
    }
}
