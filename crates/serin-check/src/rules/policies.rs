//! Policies that know the stable version and forget the canary.

use super::{Cx, Out, list};
use crate::diag::Finding;
use crate::index::Family;
use crate::model::{Labels, Selector, Workload, labels};
use crate::object::{Kind, Object, known, may_be_same};
use crate::yaml::View;

/// Where a kind keeps the labels of the pods it is for.
fn selector<'a>(obj: &Object<'a>) -> Option<Selector<'a>> {
    let spec = obj.spec()?;
    match obj.kind {
        Kind::AuthorizationPolicy | Kind::PeerAuthentication | Kind::RequestAuthentication => {
            spec.at(&["selector", "matchLabels"]).map(Selector::plain)
        }
        Kind::EnvoyFilter | Kind::Sidecar => spec.at(&["workloadSelector", "labels"]).map(Selector::plain),
        Kind::NetworkPolicy => Some(Selector::read(spec.get("podSelector"))),
        Kind::PodDisruptionBudget | Kind::PodMonitor => Some(Selector::read(spec.get("selector"))),
        _ => None,
    }
    .filter(|s| !s.is_empty())
}

fn workloads<'c, 'a>(cx: &'c Cx<'a>, numbers: &[usize]) -> Vec<&'c Workload<'a>> {
    numbers.iter().map(|n| &cx.index.workloads[*n]).collect()
}

/// The pair by which a selector leaves pods out, and its place.
fn excluding<'a>(s: &Selector<'a>, have: &Labels<'a>) -> crate::source::Loc {
    let pairs = s.pairs.iter().find(|p| !have.contains(p));
    let view = s.view;
    pairs
        .and_then(|(k, _)| {
            let v = view?;
            v.get(k).or_else(|| v.at(&["matchLabels", k]))
        })
        .or_else(|| view?.get("matchExpressions"))
        .or(view)
        .map_or_else(
            // A selector always has a view: it was read from one.
            || unreachable!("a selector without a place"),
            View::loc,
        )
}

/// Policies of a kind that select stable's pods and not those of a canary that takes part.
/// What a policy for all pods of a namespace does for those that no other one selects.
enum Blanket {
    /// Nothing that differs, as far as this rule can tell: it stays silent.
    Covers,
    /// It shuts out whom no other policy lets in.
    Shuts(String),
    /// Something else than the one for stable.
    Differs,
}

/// Policies without a selector, of the namespace or of the mesh's root.
fn blanket<'a>(cx: &Cx<'a>, obj: &Object<'a>, canary: &Workload<'a>) -> Option<Blanket> {
    let field = |o: &Object<'a>, key: &str| o.spec().and_then(|s| s.get(key));
    let for_all = |o: &Object<'a>| match o.kind {
        Kind::NetworkPolicy => Selector::read(field(o, "podSelector")).is_empty(),
        // Of these, one without a selector selects nothing.
        Kind::PodDisruptionBudget | Kind::PodMonitor => field(o, "selector").is_some_and(|s| Selector::read(Some(s)).is_empty()),
        _ => selector(o).is_none() && field(o, "targetRef").is_none() && field(o, "targetRefs").is_none(),
    };
    let reaches = |o: &Object<'a>| match o.kind {
        Kind::PodMonitor => sees(o, canary.obj.ns),
        Kind::AuthorizationPolicy | Kind::PeerAuthentication | Kind::RequestAuthentication => {
            may_be_same(o.ns, canary.obj.ns) || o.ns == Some("istio-system")
        }
        _ => may_be_same(o.ns, canary.obj.ns),
    };
    let mut found: Vec<&Object<'a>> = cx.index.of(obj.kind).filter(|o| o.id != obj.id && reaches(o) && for_all(o)).collect();
    let text = |o: &Object<'a>, path: &[&str]| o.spec().and_then(|s| s.at(path)).and_then(View::str);
    match obj.kind {
        Kind::AuthorizationPolicy => {
            let action = |o: &Object<'a>| text(o, &["action"]).unwrap_or("ALLOW");
            found.retain(|o| action(o) == action(obj));
            let nothing = |o: &&Object<'a>| o.spec().is_none_or(|s| s.list("rules").next().is_none());
            match found.first() {
                None => None,
                Some(o) if action(obj) == "ALLOW" && found.iter().all(nothing) => Some(Blanket::Shuts(o.title())),
                Some(_) => Some(Blanket::Covers),
            }
        }
        Kind::PeerAuthentication => {
            let mode = |o: &Object<'a>| text(o, &["mtls", "mode"]);
            found.first().map(|o| if mode(o) == mode(obj) { Blanket::Covers } else { Blanket::Differs })
        }
        Kind::NetworkPolicy => {
            let shut = |o: &&Object<'a>| o.spec().is_some_and(|s| s.list("ingress").next().is_none() && s.list("egress").next().is_none());
            match found.first() {
                None => None,
                Some(o) if found.iter().all(shut) => Some(Blanket::Shuts(o.title())),
                Some(_) => Some(Blanket::Covers),
            }
        }
        Kind::RequestAuthentication | Kind::PodDisruptionBudget | Kind::PodMonitor => found.first().map(|_| Blanket::Covers),
        _ => None,
    }
}

fn forgotten<'c, 'a>(
    cx: &'c Cx<'a>,
    kind: Kind,
    group: impl Fn(&Object<'a>) -> Option<&'a str>,
    mut tell: impl FnMut(&Object<'a>, crate::source::Loc, &Family<'a>, &'c Workload<'a>, &str, Option<&str>),
) {
    let all: Vec<(&Object<'a>, Selector<'a>)> = cx.index.of(kind).filter_map(|o| Some((o, selector(o)?))).collect();
    if all.is_empty() {
        return;
    }
    let mut told = std::collections::HashSet::new();
    for family in &cx.index.families {
        let stable = workloads(cx, &family.stable_arm().workloads);
        for arm in family.canaries() {
            for canary in workloads(cx, &arm.workloads) {
                for (obj, s) in &all {
                    let here = |o: &Object<'_>| match kind {
                        Kind::PodMonitor => sees(o, canary.obj.ns),
                        _ => may_be_same(o.ns, canary.obj.ns),
                    };
                    if !here(obj) || !stable.iter().any(|w| s.selects(&w.labels)) || s.selects(&canary.labels) {
                        continue;
                    }
                    let covered = all.iter().any(|(o, other)| here(o) && group(o) == group(obj) && other.selects(&canary.labels));
                    let all_pods = blanket(cx, obj, canary);
                    if covered || matches!(all_pods, Some(Blanket::Covers)) || !told.insert((obj.id, canary.obj.id)) {
                        continue;
                    }
                    let shut = match &all_pods {
                        Some(Blanket::Shuts(by)) => Some(by.as_str()),
                        _ => None,
                    };
                    tell(obj, excluding(s, &canary.labels), family, canary, arm.name, shut);
                }
            }
        }
    }
}

/// The usual shape of a finding.
fn usual(cx: &Cx<'_>, out: &mut Out, kind: Kind, effect: impl Fn(&str, &Object<'_>) -> String) {
    forgotten(
        cx,
        kind,
        |o| o.spec().and_then(|s| s.str_at("action")).or(Some("ALLOW")),
        |obj, loc, family, canary, arm, shut| {
            let effect = match shut {
                Some(by) => format!("{by} is for all pods and lets nobody in: calls to {arm} are refused"),
                None => effect(arm, obj),
            };
            out.add(
                Finding::at(loc, format!("{} alone; {arm} is left out", family.stable_arm().name))
                    .related(canary.labels_loc(), format!("pods of {arm}"))
                    .effect(effect)
                    .help("select by a label that all versions share, for instance `app`"),
            );
        },
    );
}

/// SRN401
pub(super) fn authorization(cx: &Cx<'_>, out: &mut Out) {
    usual(cx, out, Kind::AuthorizationPolicy, |arm, obj| {
        let action = obj.spec().and_then(|s| s.str_at("action")).unwrap_or("ALLOW");
        match action {
            "DENY" => format!("what is denied at stable is allowed at {arm}"),
            "CUSTOM" => format!("{arm} does not ask the authorizer"),
            "AUDIT" => format!("requests to {arm} are not audited"),
            _ => format!("with no policy of its own, {arm} takes requests from everybody"),
        }
    });
}

/// SRN402
pub(super) fn peer_authentication(cx: &Cx<'_>, out: &mut Out) {
    usual(cx, out, Kind::PeerAuthentication, |arm, obj| {
        let mode = obj.spec().and_then(|s| s.at(&["mtls", "mode"])).and_then(View::str).unwrap_or("its mode");
        format!("{mode} holds for stable; {arm} takes what the namespace's default allows")
    });
}

/// SRN403
pub(super) fn request_authentication(cx: &Cx<'_>, out: &mut Out) {
    usual(cx, out, Kind::RequestAuthentication, |arm, _| {
        format!("{arm} does not check tokens: forged ones pass, and claims are not known")
    });
}

/// SRN404
pub(super) fn network(cx: &Cx<'_>, out: &mut Out) {
    usual(cx, out, Kind::NetworkPolicy, |arm, _| format!("{arm} can be reached, and can reach out, where stable cannot"));
}

/// SRN405
pub(super) fn disruption(cx: &Cx<'_>, out: &mut Out) {
    usual(cx, out, Kind::PodDisruptionBudget, |arm, _| format!("a node drain may take all pods of {arm} at once"));
}

/// SRN406
pub(super) fn autoscaler(cx: &Cx<'_>, out: &mut Out) {
    let target = |o: &Object<'_>| {
        let t = o.spec()?.get("scaleTargetRef")?;
        let kind = t.str_at("kind").unwrap_or("Deployment").to_owned();
        Some((kind, t.get("name")?.str()?.to_owned(), t.get("name")?.loc()))
    };
    let scalers: Vec<_> = [Kind::HorizontalPodAutoscaler, Kind::ScaledObject]
        .into_iter()
        .flat_map(|k| cx.index.of(k))
        .filter_map(|o| Some((o, target(o)?)))
        .collect();
    let of = |w: &Workload<'_>| {
        scalers.iter().find(|(o, (kind, name, _))| may_be_same(o.ns, w.obj.ns) && *kind == w.obj.kind_name && *name == w.obj.name)
    };
    for family in cx.index.families.iter().filter(|f| f.split) {
        let stable = workloads(cx, &family.stable_arm().workloads);
        let Some((_, (_, _, loc))) = stable.iter().find_map(|w| of(w)) else {
            continue;
        };
        for arm in family.canaries() {
            for canary in workloads(cx, &arm.workloads) {
                if of(canary).is_some() || arm.share.is_none_or(|s| s <= 0.0) {
                    continue;
                }
                let size = canary.pods.fixed().map_or_else(|| "its size".to_owned(), super::pods);
                out.add(
                    Finding::at(*loc, format!("scales {} alone", family.stable_arm().name))
                        .related(canary.obj.name_loc(), format!("{} stays at {size}", arm.name))
                        .effect(format!(
                            "as its weight grows {} gets more requests on the same pods: slowness may be the load, not the version",
                            arm.name
                        ))
                        .help(format!("add an autoscaler for {}", canary.obj.name)),
                );
            }
        }
    }
}

/// SRN407
pub(super) fn monitor(cx: &Cx<'_>, out: &mut Out) {
    usual(cx, out, Kind::PodMonitor, |arm, _| {
        format!("Prometheus does not scrape pods of {arm}: there is no data on it, which looks like no errors")
    });
    // A ServiceMonitor selects Services, and by them pods: those of all versions must be among them.
    let monitors: Vec<(&Object<'_>, Selector<'_>)> =
        cx.index.of(Kind::ServiceMonitor).filter_map(|m| Some((m, Selector::read(m.spec()?.get("selector"))))).collect();
    if monitors.is_empty() {
        return;
    }
    let scraped = |number: usize| {
        monitors.iter().find(|(m, selector)| {
            cx.index.services.iter().any(|s| {
                let labels = labels(s.obj.view.at(&["metadata", "labels"]));
                s.workloads.contains(&number) && sees(m, s.obj.ns) && selector.selects(&labels)
            })
        })
    };
    let mut told = std::collections::HashSet::new();
    for family in &cx.index.families {
        let Some((monitor, selector)) = family.stable_arm().workloads.iter().find_map(|n| scraped(*n)) else {
            continue;
        };
        for arm in family.canaries() {
            // An empty selector selects all, so what it leaves out lies elsewhere; a canary that a
            // PodMonitor reads is read.
            let left = arm.workloads.iter().find(|n| scraped(**n).is_none() && !pod_monitored(cx, &cx.index.workloads[**n]));
            let Some(canary) = left.map(|n| &cx.index.workloads[*n]).filter(|w| !selector.is_empty() && told.insert(w.obj.id)) else {
                continue;
            };
            let loc = selector.view.map_or_else(|| monitor.name_loc(), View::loc);
            out.add(
                Finding::at(loc, format!("by the Services it selects, pods of {} alone", family.stable_arm().name))
                    .related(canary.labels_loc(), format!("pods of {} are behind none of them", arm.name))
                    .effect(format!("Prometheus does not scrape pods of {}: there is no data on it, which looks like no errors", arm.name))
                    .help("select by a label that all Services carry, or a Service that all versions stand behind"),
            );
        }
    }
}

/// Whether a monitor looks into a namespace: its own unless it says more.
fn sees(monitor: &Object<'_>, ns: crate::object::Ns<'_>) -> bool {
    let spaces = monitor.spec().and_then(|s| s.get("namespaceSelector"));
    match spaces {
        None => may_be_same(monitor.ns, ns),
        Some(s) if s.bool_at("any") == Some(true) => true,
        Some(s) => {
            ns.is_none()
                || s.list("matchNames").any(|n| n.str() == ns)
                || s.list("matchNames").next().is_none() && may_be_same(monitor.ns, ns)
        }
    }
}

fn pod_monitored(cx: &Cx<'_>, w: &Workload<'_>) -> bool {
    cx.index.of(Kind::PodMonitor).any(|m| sees(m, w.obj.ns) && Selector::read(m.spec().and_then(|s| s.get("selector"))).selects(&w.labels))
}

/// SRN408
pub(super) fn envoy_filter(cx: &Cx<'_>, out: &mut Out) {
    usual(cx, out, Kind::EnvoyFilter, |arm, _| format!("the proxies of {arm} work otherwise than stable's: the two are not comparable"));
}

/// SRN409
pub(super) fn sidecar(cx: &Cx<'_>, out: &mut Out) {
    usual(cx, out, Kind::Sidecar, |arm, _| format!("{arm} sees other hosts and ports than stable does"));
}

fn account<'a>(w: &Workload<'a>) -> &'a str {
    w.pod.and_then(|p| p.str_at("serviceAccountName").or_else(|| p.str_at("serviceAccount"))).unwrap_or("default")
}

/// Whether a pattern of an AuthorizationPolicy (`x`, `x*`, `*x`, `*`) fits.
fn fits(pattern: &str, value: &str) -> bool {
    match (pattern.strip_suffix('*'), pattern.strip_prefix('*')) {
        (Some(prefix), _) => value.starts_with(prefix),
        (_, Some(suffix)) => value.ends_with(suffix),
        _ => pattern == value,
    }
}

/// SRN410
pub(super) fn only_stable_admitted(cx: &Cx<'_>, out: &mut Out) {
    let mut told = std::collections::HashSet::new();
    for family in &cx.index.families {
        let stable = workloads(cx, &family.stable_arm().workloads);
        for arm in family.canaries() {
            for canary in workloads(cx, &arm.workloads) {
                let Some(w) = stable.first() else { continue };
                principals(cx, w, canary, arm.name, &mut told, out);
                peers(cx, w, canary, arm.name, &mut told, out);
            }
        }
    }
}

type Told = std::collections::HashSet<crate::source::Loc>;

/// The identities that a rule of an AuthorizationPolicy names.
fn callers_of(rule: View<'_>) -> Vec<(View<'_>, &str)> {
    let sources = rule.list("from").filter_map(|f| f.get("source")).flat_map(|s| s.list("principals").chain(s.list("serviceAccounts")));
    let conditions = rule.list("when").filter(|c| c.str_at("key") == Some("source.principal")).flat_map(|c| c.list("values"));
    sources.chain(conditions).filter_map(|v| Some((v, v.str()?))).collect()
}

fn principals(cx: &Cx<'_>, stable: &Workload<'_>, canary: &Workload<'_>, arm: &str, told: &mut Told, out: &mut Out) {
    let (a, b) = (account(stable), account(canary));
    if a == b {
        return;
    }
    let ns = known(stable.obj.ns).or(known(canary.obj.ns));
    let named = |pattern: &str, sa: &str| match ns {
        Some(ns) => [format!("cluster.local/ns/{ns}/sa/{sa}"), format!("{ns}/{sa}"), sa.to_owned()].iter().any(|n| fits(pattern, n)),
        // Whatever the namespace turns out to be, the account's name must fit.
        None => pattern.rsplit('/').next().is_some_and(|last| fits(last, sa)),
    };
    for policy in cx.index.of(Kind::AuthorizationPolicy) {
        let Some(spec) = policy.spec() else { continue };
        if !matches!(spec.str_at("action"), None | Some("ALLOW")) {
            continue;
        }
        // A rule that asks for no caller lets both in.
        if spec.list("rules").any(|r| r.get("from").is_none() && r.get("when").is_none()) {
            continue;
        }
        let listed: Vec<(View<'_>, &str)> = spec.list("rules").flat_map(callers_of).collect();
        let admits = |sa: &str| listed.iter().find(|(_, p)| named(p, sa));
        let Some((at, _)) = admits(a) else { continue };
        // Several policies add up: another one may let the canary in.
        let elsewhere = cx.index.of(Kind::AuthorizationPolicy).any(|other| {
            let Some(spec) = other.spec().filter(|_| other.id != policy.id && may_be_same(other.ns, policy.ns)) else { return false };
            matches!(spec.str_at("action"), None | Some("ALLOW"))
                && spec.list("rules").any(|r| {
                    let open = r.get("from").is_none() && r.get("when").is_none();
                    open || callers_of(r).iter().any(|(_, p)| named(p, b))
                })
        });
        if admits(b).is_some() || elsewhere || !told.insert(at.loc()) {
            continue;
        }
        out.add(
            Finding::at(at.loc(), format!("{a} may call, {b} may not"))
                .related(canary.obj.name_loc(), format!("runs as {b}"))
                .effect(format!("calls of {arm} to what AuthorizationPolicy {} guards get 403", policy.name))
                .help(format!("add {b}, or let both versions run as one service account")),
        );
    }
}

fn peers(cx: &Cx<'_>, stable: &Workload<'_>, canary: &Workload<'_>, arm: &str, told: &mut Told, out: &mut Out) {
    for policy in cx.index.of(Kind::NetworkPolicy) {
        let Some(spec) = policy.spec() else { continue };
        for rule in spec.list("ingress") {
            let from: Vec<(View<'_>, Selector<'_>)> = rule
                .list("from")
                .filter(|p| p.get("namespaceSelector").is_none())
                .filter_map(|p| Some((p, Selector::read(Some(p.get("podSelector")?)))))
                .collect();
            let others = rule.list("from").any(|p| p.get("podSelector").is_none());
            let Some((_, s)) = from.iter().find(|(_, s)| !s.pairs.is_empty() && s.selects(&stable.labels) && !s.selects(&canary.labels))
            else {
                continue;
            };
            let admitted = others || from.iter().any(|(_, s)| s.selects(&canary.labels));
            // Another policy for the same pods adds to what is admitted.
            let elsewhere = cx.index.of(Kind::NetworkPolicy).any(|p| {
                p.id != policy.id
                    && p.spec().is_some_and(|x| {
                        x.list("ingress")
                            .flat_map(|r| r.list("from"))
                            .any(|f| f.get("podSelector").is_some_and(|v| Selector::read(Some(v)).selects(&canary.labels)))
                    })
            });
            if admitted || elsewhere || !may_be_same(policy.ns, canary.obj.ns) {
                continue;
            }
            let loc = excluding(s, &canary.labels);
            if !told.insert(loc) {
                continue;
            }
            let names: Vec<&str> = s.pairs.iter().map(|(_, v)| *v).collect();
            out.add(
                Finding::at(loc, format!("pods of {} alone may call", list(names)))
                    .related(canary.labels_loc(), format!("pods of {arm}"))
                    .effect(format!("calls of {arm} to what NetworkPolicy {} guards are dropped", policy.name))
                    .help("select by a label that all versions share"),
            );
        }
    }
}
