//! Being in the mesh: sidecars, version labels, telemetry.

use std::collections::BTreeMap;

use super::deployments::is_routed;
use super::{Cx, Out, in_ns, input, list};
use crate::diag::{Finding, fix};
use crate::model::{Workload, labels, value_of};
use crate::object::{Host, Kind, Ns, Object, known};
use crate::source::Loc;
use crate::yaml::View;

const INJECT: &str = "sidecar.istio.io/inject";

/// Whether pods get a sidecar.
enum Injection {
    Yes,
    /// Never, and where that stands.
    No(Loc, String),
    /// Their namespace is in the input and says nothing.
    Unlabelled(Loc),
    /// The input does not hold what decides.
    Unknown,
}

fn annotation<'a>(w: &Workload<'a>, key: &str) -> Option<View<'a>> {
    w.template.at(&["metadata", "annotations"])?.get(key)
}

fn pod_label<'a>(w: &Workload<'a>, key: &str) -> Option<View<'a>> {
    w.template.at(&["metadata", "labels"])?.get(key)
}

/// What Istio's injection webhook does with a workload's pods: either label "disabled" or
/// "false" wins over everything, then either "enabled"; native sidecars are init containers.
fn injection(cx: &Cx<'_>, w: &Workload<'_>) -> Injection {
    let proxy = |c: View<'_>| c.str_at("name") == Some("istio-proxy");
    // Machines outside run a proxy of their own.
    if w.obj.kind == Kind::WorkloadEntry || w.containers().chain(w.init_containers()).any(proxy) {
        return Injection::Yes;
    }
    if let Some(host) = w.pod.and_then(|p| p.get("hostNetwork"))
        && host.bool() == Some(true)
    {
        return Injection::No(host.loc(), "pods on the host's network get no sidecar".into());
    }
    let label = pod_label(w, INJECT);
    if let Some(l) = label.filter(|l| l.scalar() == Some("false")) {
        return Injection::No(l.loc(), "this label keeps the sidecar out".into());
    }
    if let Some(a) = annotation(w, INJECT).filter(|a| a.scalar() == Some("false"))
        && label.is_none()
    {
        return Injection::No(a.loc(), "this annotation keeps the sidecar out".into());
    }
    // Where nothing names a namespace, all goes, most likely, to the only one that comes with it.
    let mut spaces = cx.index.of(Kind::Namespace);
    let unsaid = || cx.index.objects.iter().all(|o| o.ns.is_none());
    let alone = match (spaces.next(), spaces.next()) {
        (Some(one), None) if unsaid() => Some(one),
        _ => None,
    };
    let space = match w.obj.ns {
        Some(ns) => cx.index.find(Kind::Namespace, None, ns),
        None => alone,
    };
    let space_labels = space.map(|s| labels(s.view.at(&["metadata", "labels"])));
    let of_space = |key| space_labels.as_deref().and_then(|l| value_of(l, key));
    if of_space("istio-injection") == Some("disabled") {
        let loc = space.and_then(|s| s.view.at(&["metadata", "labels", "istio-injection"])).map_or_else(|| w.obj.name_loc(), View::loc);
        return Injection::No(loc, "the namespace keeps sidecars out".into());
    }
    let wanted = label.is_some_and(|l| l.scalar() == Some("true"))
        || pod_label(w, "istio.io/rev").is_some()
        || of_space("istio-injection") == Some("enabled")
        || of_space("istio.io/rev").is_some()
        || of_space("istio.io/dataplane-mode") == Some("ambient")
        || w.label("istio.io/dataplane-mode") == Some("ambient");
    match space {
        _ if wanted => Injection::Yes,
        Some(space) => Injection::Unlabelled(space.name_loc()),
        None => Injection::Unknown,
    }
}

/// Workloads whose traffic the input wants Istio to direct.
pub(super) fn routed<'c, 'a>(cx: &'c Cx<'a>) -> Vec<&'c Workload<'a>> {
    let mut numbers: Vec<usize> = cx.index.families.iter().flat_map(|f| f.arms.iter().flat_map(|a| a.workloads.iter().copied())).collect();
    for r in &cx.index.routings {
        for d in r.routes.iter().flat_map(|x| &x.dests) {
            if let Some(s) = cx.index.service(d.host).filter(|_| r.in_mesh()) {
                numbers.extend(&s.workloads);
            }
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    numbers.into_iter().map(|n| &cx.index.workloads[n]).collect()
}

const WITHOUT: &str = "without a sidecar their own calls go around every route, and what they serve is measured by callers alone";

/// SRN101
pub(super) fn no_sidecar(cx: &Cx<'_>, out: &mut Out) {
    let mut open: BTreeMap<Ns<'_>, (Vec<&Workload<'_>>, Option<Loc>)> = BTreeMap::new();
    for w in routed(cx) {
        match injection(cx, w) {
            Injection::Yes => {}
            Injection::No(loc, why) => out.add(
                Finding::at(loc, why)
                    .related(w.obj.name_loc(), "a version that requests are routed to")
                    .effect(WITHOUT)
                    .help(format!("label the pods {INJECT}: \"true\", in a namespace that does not forbid it")),
            ),
            Injection::Unlabelled(loc) => {
                let entry = open.entry(w.obj.ns).or_default();
                entry.0.push(w);
                entry.1 = Some(loc);
            }
            Injection::Unknown => open.entry(w.obj.ns).or_default().0.push(w),
        }
    }
    // One finding for a namespace: one label mends all of it.
    for (ns, (workloads, space)) in open {
        let Some(first) = workloads.first() else {
            continue;
        };
        let names = list(workloads.iter().map(|w| w.obj.name));
        let loc = space.unwrap_or_else(|| first.labels_loc());
        let label = match space {
            Some(_) => "no istio-injection and no istio.io/rev label".to_owned(),
            None => format!("nothing in the input puts a sidecar into pods of {names}"),
        };
        let ns = known(ns);
        let which = ns.map_or_else(|| "the namespace".to_owned(), |ns| format!("namespace {ns}"));
        let target = ns.unwrap_or("NAMESPACE");
        let f = Finding::at(loc, label);
        out.add(
            if space.is_some() { f.related(first.labels_loc(), format!("pods of {names}")) } else { f }
                .effect(WITHOUT)
                .help(format!("kubectl label namespace {target} istio-injection=enabled, then restart the pods"))
                .depends(format!("it is right if {which} is labelled istio-injection=enabled or istio.io/rev")),
        );
    }
}

/// SRN102
pub(super) fn annotation_does_nothing(cx: &Cx<'_>, out: &mut Out) {
    for w in &cx.index.workloads {
        let Some(a) = annotation(w, INJECT).filter(|a| a.scalar() == Some("true")) else {
            continue;
        };
        if matches!(injection(cx, w), Injection::Yes) || w.is_batch() {
            continue;
        }
        let labels_at = w.template.at(&["metadata", "labels"]);
        let first = labels_at.and_then(|l| l.fields().next());
        let mend = match (labels_at, first, w.template.at(&["metadata", "annotations"])) {
            (Some(l), Some(first), Some(annotations)) => {
                let add = crate::diag::insert_line_before(l, first.key_loc, &format!("{INJECT}: \"true\""));
                let drop = input::remove(annotations, INJECT, "").and_then(|f| f.edits.into_iter().next());
                // The annotation may be the only one; then it stays and does no harm.
                match drop {
                    Some(drop) => fix("make it a label", [add, Some(drop)]),
                    None => fix("add it as a label", [add]),
                }
            }
            _ => None,
        };
        out.add(
            Finding::at(a.loc(), "as an annotation, \"true\" asks for nothing")
                .related(w.labels_loc(), "it works as a label of the pods")
                .effect(format!("pods of {} get no sidecar by it", w.obj.name))
                .help(format!("make it a label: {INJECT}: \"true\""))
                .fix(mend),
        );
    }
}

/// SRN103
pub(super) fn no_version_label(cx: &Cx<'_>, out: &mut Out) {
    let told = ["version", "app.kubernetes.io/version", "service.istio.io/canonical-revision"];
    let mut members: Vec<usize> = cx.index.families.iter().flat_map(|f| f.arms.iter().flat_map(|a| a.workloads.iter().copied())).collect();
    for s in &cx.index.services {
        let host = Host::Service { name: s.obj.name, ns: s.obj.ns };
        if cx.index.rules_for(host).any(|r| r.subsets.len() > 1) {
            members.extend(&s.workloads);
        }
    }
    members.sort_unstable();
    members.dedup();
    for n in members {
        let w = &cx.index.workloads[n];
        // Argo Rollouts tells versions apart by a label of its own.
        if w.obj.kind == Kind::Rollout {
            continue;
        }
        let on_object = w.obj.view.at(&["metadata", "labels", "version"]).is_some();
        if told.iter().any(|k| w.label(k).is_some()) || on_object && is_routed(cx, w) {
            continue;
        }
        out.add(
            Finding::at(w.labels_loc(), "no `version` among the pods' labels")
                .effect(format!(
                    "metrics, Kiali and dashboards call the version of {} unknown; a subset by version does not find it",
                    w.obj.name
                ))
                .help("add version: NAME to the labels of spec.template (and to spec.selector of a new Deployment)"),
        );
    }
}

/// Labels without which stable and canary cannot be told apart or judged.
const NEEDED: [&str; 7] = [
    "reporter",
    "destination_workload",
    "destination_workload_namespace",
    "response_code",
    "response_flags",
    "grpc_response_status",
    "request_protocol",
];

/// SRN104
pub(super) fn telemetry_removed(cx: &Cx<'_>, out: &mut Out) {
    for t in cx.index.of(Kind::Telemetry) {
        for metrics in t.spec().into_iter().flat_map(|s| s.list("metrics")) {
            let mut providers = metrics.list("providers").filter_map(|p| p.str_at("name")).peekable();
            // Other providers than Prometheus do not feed a decision.
            if providers.peek().is_some() && !providers.any(|p| p.contains("prometheus")) {
                continue;
            }
            for o in metrics.list("overrides") {
                one_override(t, o, out);
            }
        }
    }
}

fn one_override(t: &Object<'_>, o: View<'_>, out: &mut Out) {
    let m = o.get("match");
    let mode = m.and_then(|m| m.str_at("mode")).unwrap_or("CLIENT_AND_SERVER");
    if mode == "SERVER" || m.is_some_and(|m| m.get("customMetric").is_some()) {
        return;
    }
    let metric = m.and_then(|m| m.str_at("metric")).unwrap_or("ALL_METRICS");
    if !matches!(metric, "ALL_METRICS" | "REQUEST_COUNT" | "REQUEST_DURATION") {
        return;
    }
    let whom = in_ns(t.ns);
    if let Some(off) = o.get("disabled").filter(|d| d.bool() == Some(true)) {
        out.add(
            Finding::at(off.loc(), format!("{metric} is not counted at callers"))
                .effect(format!("no canary{whom} can be judged: there are no errors and no latencies to compare"))
                .help("disable other metrics, or only mode SERVER"),
        );
    }
    for tag in o.get("tagOverrides").into_iter().flat_map(View::fields) {
        if NEEDED.contains(&tag.key) && tag.value.str_at("operation") == Some("REMOVE") {
            out.add(
                Finding::at(tag.key_loc, "removed from the metrics of callers")
                    .effect(match tag.key {
                        "destination_workload" | "destination_workload_namespace" => "stable and canary cannot be told apart".to_owned(),
                        "reporter" => "requests are counted twice".to_owned(),
                        other => format!("without {other} errors cannot be told from answers"),
                    })
                    .help(format!("keep {}; remove labels of many values instead", tag.key)),
            );
        }
    }
}
