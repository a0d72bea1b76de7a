//! The release object itself, and who else has a hand on its route.

use serin_core::plan::{Bad, Plan, Step};
use serin_core::stats::{Test, forecast};

use super::{Cx, Out, in_ns, nearest};
use crate::diag::Finding;
use crate::model::Routing;
use crate::object::{Host, Kind, Object, may_be_same, same_host};
use crate::yaml::View;

/// SRN502
pub(super) fn steps_go_down(cx: &Cx<'_>, out: &mut Out) {
    for release in cx.index.of(Kind::CanaryRelease) {
        for (_, weight, high) in crate::crd::lower_steps(release.view) {
            out.add(
                Finding::at(weight.loc(), "less than a step before it")
                    .related(high.loc(), "this is more")
                    .effect("the controller refuses the plan: steps only go up, an abort goes down by itself")
                    .help("sort the steps by weight, or remove this one"),
            );
        }
    }
}

/// A rate of requests above which a service is a rare one: plans that need more are told so
/// even when nobody said how many there are.
const RARE_RATE: f64 = 1_000.0;
/// Failing requests of a healthy service, for forecasts. Fewer need fewer requests.
const USUAL_ERRORS: f64 = 0.001;
/// The same for slow ones.
const USUAL_SLOW: f64 = 0.01;
/// A step without maxWait may take as long as a person waits for it.
const A_DAY: f64 = 24.0 * 60.0;

/// SRN503
pub(super) fn undecidable(cx: &Cx<'_>, out: &mut Out) {
    for release in cx.index.of(Kind::CanaryRelease) {
        let json = release.spec().map(View::to_json).unwrap_or_default();
        let Ok(spec) = serde_json::from_value::<serin_api::CanaryReleaseSpec>(json) else { continue };
        let Ok(plan) = serin_api::plan_of(&spec) else { continue };
        for (i, step) in plan.spec().steps.iter().enumerate() {
            let Step::Weight { weight, confirm: true, max_wait, .. } = step else { continue };
            let share = f64::from(weight.parts()) / 100_000.0;
            let limit = max_wait.map_or(A_DAY, |d| d.as_secs_f64() / 60.0);
            let Some((name, requests)) = slowest(&plan, share) else { continue };
            let needs = requests / (share * limit * 60.0);
            let path = format!("spec.steps[{i}]");
            let loc = crate::crd::locate(release.view, &format!("{path}.confirm"));
            let within = match max_wait {
                Some(d) => format!("its maxWait of {}", serin_api::values::duration_string(*d)),
                None => "a day".to_owned(),
            };
            let finding = |rate: &str| {
                Finding::at(loc, format!("metric {name} takes about {} requests to the canary", super::about(requests)))
                    .effect(format!("at {} of {rate} the step is not decided within {within}", super::percent(share)))
                    .help("confirm at a higher weight, allow a larger margin, or wait longer (serin simulate shows the times)")
            };
            match cx.rate {
                Some(rate) if rate < needs => out.add(finding(&format!("{rate} requests a second"))),
                None if needs > RARE_RATE => out.add(
                    finding("the requests of most services")
                        .depends(format!("it is right if the service gets {} requests a second or more", super::about(needs))),
                ),
                _ => {}
            }
        }
    }
}

/// The metric that takes most requests to the canary until it is probably shown fit.
fn slowest(plan: &Plan, share: f64) -> Option<(String, f64)> {
    let evidence = forecast::pass_evidence_needed(plan.settings().beta);
    plan.metrics()
        .iter()
        .filter_map(|m| {
            let usual = match m.bad {
                Bad::Errors => USUAL_ERRORS,
                Bad::SlowerThan { .. } => USUAL_SLOW,
                // Its margin follows from stable's latency, or nobody knows what is counted: no manifest tells.
                Bad::Quantile { .. } | Bad::Counted { .. } => return None,
            };
            let speed = match m.test.test {
                Test::Compare { margin, ratio } => forecast::pass_speed(usual, share, margin, ratio),
                Test::Limit { max } => forecast::limit_pass_speed(usual.min(max / 2.0), max),
            }?;
            Some((m.name.clone(), forecast::needed(speed, evidence).median))
        })
        .max_by(|a, b| a.1.total_cmp(&b.1))
}

fn service<'a>(release: &Object<'a>) -> Option<(View<'a>, &'a str)> {
    let v = release.spec()?.get("service")?;
    Some((v, v.str()?))
}

/// VirtualServices that send to a release's service.
fn routes<'c, 'a>(cx: &'c Cx<'a>, release: &Object<'a>, name: &'a str) -> Vec<&'c Routing<'a>> {
    let host = Host::Service { name, ns: release.ns };
    cx.index
        .routings
        .iter()
        .filter(|r| may_be_same(r.obj.ns, release.ns) && r.routes.iter().any(|x| x.dests.iter().any(|d| same_host(d.host, host))))
        .collect()
}

/// How to let weights change, by who keeps the VirtualService as it is in Git.
enum Keeper<'a> {
    ArgoCd(Option<&'a Object<'a>>),
    FluxKustomize,
    FluxHelm,
    Helm,
}

fn keeper<'c>(cx: &'c Cx<'c>, vs: &Object<'_>) -> Option<Keeper<'c>> {
    let argo = vs.annotation("argocd.argoproj.io/tracking-id").is_some() || vs.label("argocd.argoproj.io/instance").is_some();
    if vs.label("kustomize.toolkit.fluxcd.io/name").is_some() {
        return Some(Keeper::FluxKustomize);
    }
    if vs.label("helm.toolkit.fluxcd.io/name").is_some() {
        return Some(Keeper::FluxHelm);
    }
    let mut apps = cx.index.of(Kind::ArgoApplication);
    if argo {
        return Some(Keeper::ArgoCd(apps.next()));
    }
    // `helm template` writes the label, an install the annotation too.
    (vs.label("app.kubernetes.io/managed-by") == Some("Helm")).then_some(Keeper::Helm)
}

/// Whether an Application already leaves the weights alone: it ignores the difference, and a
/// sync does not write it back either.
fn ignores_weights(app: &Object<'_>) -> bool {
    let options = app.spec().and_then(|s| s.get("syncPolicy"));
    let respected = options.into_iter().flat_map(|p| p.list("syncOptions")).any(|o| o.str() == Some("RespectIgnoreDifferences=true"));
    respected
        && app.spec().into_iter().flat_map(|s| s.list("ignoreDifferences")).any(|d| {
            let paths = ["jsonPointers", "jqPathExpressions"];
            d.str_at("kind") == Some("VirtualService")
                && (paths
                    .iter()
                    .flat_map(|k| d.list(k))
                    .filter_map(View::str)
                    .any(|p| p.contains("/spec/http") || p.contains(".spec.http"))
                    || d.list("managedFieldsManagers").filter_map(View::str).any(|m| m == "serin"))
        })
}

/// SRN504
pub(super) fn owned_by_another(cx: &Cx<'_>, out: &mut Out) {
    for release in cx.index.of(Kind::CanaryRelease) {
        let Some((_, name)) = service(release) else {
            continue;
        };
        for r in routes(cx, release, name) {
            let vs = &r.obj;
            let (who, loc, help) = match keeper(cx, vs) {
                None => continue,
                Some(Keeper::ArgoCd(app)) => {
                    if app.is_some_and(ignores_weights) {
                        continue;
                    }
                    (
                        "Argo CD",
                        vs.view.at(&["metadata", "annotations", "argocd.argoproj.io/tracking-id"])
                            .or_else(|| vs.view.at(&["metadata", "labels", "argocd.argoproj.io/instance"])),
                        "tell the Application to leave weights alone:\n  spec:\n    syncPolicy:\n      syncOptions: [RespectIgnoreDifferences=true]\n    ignoreDifferences:\n    - group: networking.istio.io\n      kind: VirtualService\n      managedFieldsManagers: [serin]".to_owned(),
                    )
                }
                Some(Keeper::FluxKustomize) => {
                    let merged = vs.annotation("kustomize.toolkit.fluxcd.io/ssa");
                    if matches!(merged, Some("IfNotPresent" | "Ignore"))
                        || vs.annotation("kustomize.toolkit.fluxcd.io/reconcile") == Some("disabled")
                    {
                        continue;
                    }
                    (
                        "Flux",
                        vs.view.at(&["metadata", "labels", "kustomize.toolkit.fluxcd.io/name"]),
                        "tell Flux to write it once:\n  metadata:\n    annotations:\n      kustomize.toolkit.fluxcd.io/ssa: IfNotPresent".to_owned(),
                    )
                }
                Some(Keeper::FluxHelm) => {
                    let drift = cx.index.of(Kind::FluxHelmRelease).any(|h| {
                        h.spec().is_some_and(|s| {
                            s.at(&["driftDetection", "ignore"])
                                .is_some_and(|i| i.items().len() > 0)
                        })
                    });
                    if drift {
                        continue;
                    }
                    (
                        "Flux (HelmRelease)",
                        vs.view.at(&["metadata", "labels", "helm.toolkit.fluxcd.io/name"]),
                        "tell the HelmRelease to leave weights alone:\n  spec:\n    driftDetection:\n      mode: enabled\n      ignore:\n      - paths: [/spec/http]\n        target: {kind: VirtualService}".to_owned(),
                    )
                }
                Some(Keeper::Helm) => (
                    "Helm",
                    vs.view
                        .at(&["metadata", "annotations", "meta.helm.sh/release-name"])
                        .or_else(|| vs.view.at(&["metadata", "labels", "app.kubernetes.io/managed-by"])),
                    "a `helm upgrade` in the middle of a release writes the chart's weights back: upgrade between releases, or keep the VirtualService out of the chart".to_owned(),
                ),
            };
            let loc = loc.map_or_else(|| vs.name_loc(), View::loc);
            out.add(
                Finding::at(loc, format!("{who} keeps this VirtualService as it is in Git"))
                    .related(release.name_loc(), "moves its weights")
                    .effect(format!("{who} writes the weights of {} back while they are being moved", vs.name))
                    .help(help),
            );
        }
    }
}

/// SRN505
pub(super) fn unknown_service(cx: &Cx<'_>, out: &mut Out) {
    for release in cx.index.of(Kind::CanaryRelease) {
        let Some((v, name)) = service(release) else {
            continue;
        };
        let host = Host::Service { name, ns: release.ns };
        let told = cx.index.settled() || cx.index.has(Kind::Service, release.ns);
        if cx.index.service(host).is_some() || !told {
            continue;
        }
        let known = cx.index.services.iter().filter(|s| may_be_same(s.obj.ns, release.ns)).map(|s| s.obj.name);
        let help = match nearest(name, known) {
            Some(near) => format!("did you mean {near}?"),
            None => "name the Service that all versions stand behind".to_owned(),
        };
        out.add(
            Finding::at(v.loc(), format!("no Service {name}{}", in_ns(release.ns)))
                .effect("the release waits and does nothing")
                .help(help)
                .depends(format!("it is right if the cluster has a Service {name}{}", in_ns(release.ns))),
        );
    }
}

/// SRN506
pub(super) fn two_owners(cx: &Cx<'_>, out: &mut Out) {
    let releases: Vec<(&Object<'_>, View<'_>, &str)> =
        cx.index.of(Kind::CanaryRelease).filter_map(|o| service(o).map(|(v, name)| (o, v, name))).collect();
    for (n, (release, v, name)) in releases.iter().enumerate() {
        let first = releases[..n].iter().find(|(o, _, other)| other == name && may_be_same(o.ns, release.ns));
        if let Some((_, at, _)) = first {
            out.add(
                Finding::at(v.loc(), format!("another release moves {name} too"))
                    .related(at.loc(), "here")
                    .effect("the older one works, this one is Stalled")
                    .help("keep one release for a service"),
            );
        }
        for canary in cx.index.of(Kind::FlaggerCanary) {
            let target = canary
                .spec()
                .and_then(|s| s.at(&["service", "name"]).or_else(|| s.at(&["targetRef", "name"])))
                .and_then(View::str)
                .unwrap_or(canary.name);
            if target == *name && may_be_same(canary.ns, release.ns) {
                out.add(
                    Finding::at(v.loc(), format!("Flagger moves {name} too"))
                        .related(canary.name_loc(), "by this Canary")
                        .effect("Serin refuses to work on a route that Flagger owns: the release is Stalled")
                        .help("remove the Canary first; Flagger then leaves the route as it is"),
                );
            }
        }
        for rollout in cx.index.of(Kind::Rollout) {
            let istio = rollout.spec().and_then(|s| s.at(&["strategy", "canary", "trafficRouting", "istio"]));
            let one = istio.and_then(|i| i.get("virtualService"));
            let owned = one.into_iter().chain(istio.into_iter().flat_map(|i| i.list("virtualServices"))).filter_map(|v| v.get("name"));
            let mine = routes(cx, release, name);
            for vs in owned.filter(|v| mine.iter().any(|r| Some(r.obj.name) == v.str())) {
                out.add(
                    Finding::at(v.loc(), format!("Argo Rollouts moves {name} too"))
                        .related(vs.loc(), "by this Rollout")
                        .effect("Serin refuses to work on a route that Argo Rollouts owns: the release is Stalled")
                        .help("take the traffic routing out of the Rollout, or remove the release"),
                );
            }
        }
    }
}
