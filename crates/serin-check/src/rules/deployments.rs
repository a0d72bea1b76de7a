//! Workloads: labels, probes, images and sizes of the versions behind a split.

use std::collections::{BTreeMap, BTreeSet};

use super::{Cx, Out, list, percent, pods, services::repository};
use crate::diag::{Finding, Severity};
use crate::index::{Arm, Family};
use crate::model::{Workload, show};
use crate::object::Kind;
use crate::yaml::View;

/// Whether an arm takes requests, as far as the input shows.
fn takes_traffic(arm: &Arm<'_>) -> bool {
    arm.share.is_none_or(|s| s > 0.0)
}

/// Workloads of versions that take requests, each once, with the share where one is known.
fn serving<'c, 'a>(cx: &'c Cx<'a>) -> Vec<(&'c Workload<'a>, Option<f64>)> {
    let mut found: BTreeMap<usize, Option<f64>> = BTreeMap::new();
    for family in &cx.index.families {
        for arm in family.arms.iter().filter(|a| takes_traffic(a)) {
            for n in &arm.workloads {
                let entry = found.entry(*n).or_insert(arm.share);
                if entry.is_none() {
                    *entry = arm.share;
                }
            }
        }
    }
    found.into_iter().map(|(n, share)| (&cx.index.workloads[n], share)).filter(|(w, _)| w.pods.fixed() != Some(0)).collect()
}

/// SRN106
pub(super) fn no_readiness_probe(cx: &Cx<'_>, out: &mut Out) {
    for (w, share) in serving(cx) {
        let Some(main) = w.main_container() else {
            continue;
        };
        if w.serving_containers().any(|c| c.get("readinessProbe").is_some()) {
            continue;
        }
        let name = main.get("name").map_or_else(|| main.loc(), View::loc);
        let part = share.map_or_else(|| "the requests".to_owned(), |s| format!("{} of the requests", percent(s)));
        out.add(
            Finding::at(name, "no readinessProbe")
                .effect(format!(
                    "a pod of {} takes its part of {part} as soon as its process starts, and keeps it when it hangs",
                    w.obj.name
                ))
                .help("add a readinessProbe that fails until the pod can answer"),
        );
    }
}

/// SRN107
pub(super) fn one_stable_pod(cx: &Cx<'_>, out: &mut Out) {
    for family in cx.index.families.iter().filter(|f| f.split) {
        let arm = family.stable_arm();
        if cx.index.pods(&arm.workloads) != Some(1) {
            continue;
        }
        let w = &cx.index.workloads[arm.workloads[0]];
        if w.obj.kind == Kind::Pod {
            continue;
        }
        let loc = match w.obj.spec().and_then(|s| s.get("replicas")) {
            Some(replicas) => replicas.loc(),
            None => w.obj.name_loc(),
        };
        let share = arm.share.map_or_else(|| "its share".to_owned(), percent);
        out.add(
            Finding::at(loc, format!("{} is one pod", arm.name))
                .effect(format!("while this pod restarts, {share} of the requests fail, and nothing can take the canary's share back"))
                .help("give the stable version at least 2 replicas"),
        );
    }
}

/// SRN204
pub(super) fn selector_and_template_differ(cx: &Cx<'_>, out: &mut Out) {
    for w in &cx.index.workloads {
        let Some(selector) = w.selector.view else {
            continue;
        };
        if w.selector.is_empty() || w.selector.selects(&w.labels) {
            continue;
        }
        let miss: Vec<(&str, &str)> = w.selector.pairs.iter().filter(|p| !w.labels.contains(p)).copied().collect();
        let loc = miss
            .first()
            .and_then(|(k, _)| selector.at(&["matchLabels", k]))
            .map_or_else(|| selector.fields().next().map_or_else(|| selector.loc(), |f| f.key_loc), View::loc);
        let label = if miss.is_empty() {
            "the template's labels do not fit".to_owned()
        } else {
            format!("the template's pods do not carry {}", show(&miss))
        };
        out.add(
            Finding::at(loc, label)
                .related(w.labels_loc(), format!("they carry {}", show(&w.labels)))
                .effect(format!("the API server refuses the {}", w.obj.kind_name))
                .help("make the selector a part of the template's labels"),
        );
    }
}

/// SRN205
pub(super) fn selectors_overlap(cx: &Cx<'_>, out: &mut Out) {
    let scaled = |w: &Workload<'_>| w.pods == crate::model::Pods::Scaled;
    for (n, w) in cx.index.workloads.iter().enumerate() {
        if w.selector.pairs.is_empty() || !w.selector.selects(&w.labels) {
            continue;
        }
        for m in cx.index.selected(w.obj.ns, &w.selector.pairs) {
            let other = &cx.index.workloads[m];
            let back = other.selector.selects(&w.labels) && !other.selector.is_empty();
            if m == n
                || other.selector.view.is_none()
                || !w.selector.selects(&other.labels)
                // Told once, at the second, if it holds both ways.
                || back && m > n
            {
                continue;
            }
            let effect = if scaled(w) {
                format!("the autoscaler of {} counts pods of {} as its own", w.obj.name, other.obj.name)
            } else {
                format!(
                    "what counts or lists pods by this selector (autoscaler, kubectl, dashboards) takes pods of {} for pods of {}",
                    other.obj.name, w.obj.name
                )
            };
            out.add(
                Finding::at(
                    w.selector
                        .view
                        .map_or_else(|| w.obj.name_loc(), |v| v.key_loc("matchLabels")),
                    format!("selects the pods of {} too", other.obj.title()),
                )
                .related(other.labels_loc(), "these labels fit both")
                .effect(effect)
                .help("add the label that tells them apart, for instance `version`, to the selector (it cannot be changed later: delete and create)"),
            );
            // One of them is enough to know what to do.
            break;
        }
    }
}

/// A number that no container of the pod lists. Listing ports is a habit, not a need, so it
/// is told for versions that requests are routed to, and as a warning.
fn numbered_probe(w: &Workload<'_>, c: View<'_>, port: View<'_>, probe: &str, out: &mut Out) {
    let Some(number) = port.int() else { return };
    let listed = |c: View<'_>| c.list("ports").filter_map(|p| p.int_at("containerPort")).collect::<Vec<_>>();
    let own = listed(c);
    if own.is_empty() || w.serving_containers().flat_map(listed).any(|n| n == number) {
        return;
    }
    let shown: Vec<String> = own.iter().map(i64::to_string).collect();
    out.add(
        Finding::at(port.loc(), format!("no container lists port {number}"))
            .severity(Severity::Warning)
            .related(c.key_loc("ports"), format!("it lists {}", list(&shown)))
            .effect(match probe {
                "readinessProbe" => format!("if nothing listens on {number}, the pods never become ready: they get no request"),
                _ => format!("if nothing listens on {number}, the container is restarted again and again"),
            })
            .help(format!("probe {}, or list {number} in `ports`", shown[0])),
    );
}

/// SRN207
pub(super) fn probe_port(cx: &Cx<'_>, out: &mut Out) {
    let routed: BTreeSet<_> = super::mesh::routed(cx).iter().map(|w| w.obj.id).collect();
    for w in &cx.index.workloads {
        for c in w.containers().chain(w.init_containers()) {
            for probe in ["readinessProbe", "livenessProbe", "startupProbe"] {
                for how in ["httpGet", "tcpSocket", "grpc"] {
                    let Some(port) = c.at(&[probe, how, "port"]) else {
                        continue;
                    };
                    let Some(name) = port.str() else {
                        if routed.contains(&w.obj.id) {
                            numbered_probe(w, c, port, probe, out);
                        }
                        continue;
                    };
                    let known: Vec<&str> = c.list("ports").filter_map(|p| p.str_at("name")).collect();
                    if known.contains(&name) {
                        continue;
                    }
                    let mut f = Finding::at(port.loc(), format!("no port of this container is named {name}"))
                        .related(
                            c.get("name").map_or_else(|| c.loc(), View::loc),
                            if known.is_empty() { "it names no ports".to_owned() } else { format!("it names {}", list(&known)) },
                        )
                        .effect(match probe {
                            "readinessProbe" => "the pods never become ready: they get no request",
                            _ => "the probe fails and the container is restarted again and again",
                        });
                    f = match super::nearest(name, known) {
                        Some(near) => f.help(format!("did you mean {near}?")),
                        None => f.help("name the port in `ports`, or use its number"),
                    };
                    out.add(f);
                }
            }
        }
    }
}

/// The single workload of an arm that has one.
fn only<'c, 'a>(cx: &'c Cx<'a>, arm: &Arm<'a>) -> Option<&'c Workload<'a>> {
    match arm.workloads.as_slice() {
        [n] => Some(&cx.index.workloads[*n]),
        _ => None,
    }
}

fn same_field(a: View<'_>, b: View<'_>, key: &str) -> bool {
    a.get(key).map(View::to_json) == b.get(key).map(View::to_json)
}

/// SRN211
pub(super) fn same_image(cx: &Cx<'_>, out: &mut Out) {
    for family in &cx.index.families {
        let Some(stable) = only(cx, family.stable_arm()) else {
            continue;
        };
        for arm in family.canaries() {
            let Some(canary) = only(cx, arm) else {
                continue;
            };
            let (Some(a), Some(b)) = (stable.main_container(), canary.main_container()) else {
                continue;
            };
            let (Some(x), Some(y)) = (a.get("image"), b.get("image")) else {
                continue;
            };
            // A version may differ by its settings alone.
            let settings = ["env", "envFrom", "args", "command", "volumeMounts", "resources"];
            let same = x.scalar() == y.scalar()
                && settings.iter().all(|k| same_field(a, b, k))
                && match (stable.pod, canary.pod) {
                    (Some(p), Some(q)) => same_field(p, q, "volumes") && p.list("containers").count() == q.list("containers").count(),
                    _ => true,
                };
            if !same {
                continue;
            }
            out.add(
                Finding::at(y.loc(), format!("the image of {} too", stable.obj.name))
                    .related(x.loc(), format!("{} runs it", family.stable_arm().name))
                    .effect("the canary is the stable version: whatever it shows, nothing new was tried")
                    .help(format!("name the image of {}", arm.name)),
            );
        }
    }
}

/// The tag of an image; `None` with a digest, which is exact.
fn tag(image: &str) -> Option<&str> {
    if image.contains('@') {
        return None;
    }
    Some(image[repository(image).len()..].trim_start_matches(':'))
}

/// Containers of the versions behind splits, each once.
fn version_workloads<'c, 'a>(cx: &'c Cx<'a>) -> Vec<(&'c Family<'a>, &'c Arm<'a>, &'c Workload<'a>)> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for family in &cx.index.families {
        for arm in &family.arms {
            for n in &arm.workloads {
                if seen.insert(*n) {
                    found.push((family, arm, &cx.index.workloads[*n]));
                }
            }
        }
    }
    found
}

/// SRN212
pub(super) fn latest(cx: &Cx<'_>, out: &mut Out) {
    for (_, arm, w) in version_workloads(cx) {
        let Some(image) = w.main_container().and_then(|c| c.get("image")) else {
            continue;
        };
        let Some(text) = image.str().filter(|t| !t.is_empty()) else {
            continue;
        };
        let label = match tag(text) {
            Some("latest") => "`latest` is whatever was pushed last",
            Some("") => "without a tag it is `latest`",
            _ => continue,
        };
        out.add(
            Finding::at(image.loc(), label)
                .effect(format!(
                    "pods of {} that start at different times may run different code; a rollback cannot name what ran before",
                    arm.name
                ))
                .help("name a tag that is never moved, or a digest"),
        );
    }
}

/// `v1.2.3` and `1.2.3` as numbers; `None` for anything else.
fn numbers(text: &str) -> Option<Vec<u64>> {
    text.trim_start_matches(['v', 'V']).split('.').map(|p| p.parse().ok()).collect()
}

/// SRN213
pub(super) fn tag_against_label(cx: &Cx<'_>, out: &mut Out) {
    for (family, arm, w) in version_workloads(cx) {
        let Some(image) = w.main_container().and_then(|c| c.get("image")) else {
            continue;
        };
        let Some(tag) = image.str().and_then(tag).filter(|t| !t.is_empty()) else {
            continue;
        };
        let Some(own) = w.label("version") else {
            continue;
        };
        let same = |a: &str, b: &str| a == b || numbers(a).is_some() && numbers(a) == numbers(b);
        if same(tag, own) {
            continue;
        }
        // The tag of another version of this family, or another full version number.
        let others = family
            .arms
            .iter()
            .filter(|a| a.name != arm.name)
            .flat_map(|a| &a.workloads)
            .filter_map(|n| cx.index.workloads[*n].label("version"))
            .find(|v| same(tag, v));
        let both_full = numbers(tag).is_some_and(|n| n.len() >= 3) && numbers(own).is_some_and(|n| n.len() >= 3);
        if others.is_none() && !both_full {
            continue;
        }
        let loc = w.template.at(&["metadata", "labels", "version"]).map_or_else(|| w.labels_loc(), View::loc);
        out.add(
            Finding::at(image.loc(), format!("runs {tag}"))
                .related(loc, format!("says {own}"))
                .effect(format!("weights, metrics and decisions for {own} are those of the code of {tag}"))
                .help("make label and tag name the same version"),
        );
    }
}

/// SRN214
pub(super) fn label_in_one_place(cx: &Cx<'_>, out: &mut Out) {
    for w in &cx.index.workloads {
        if !matches!(w.obj.kind, Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet | Kind::Rollout) {
            continue;
        }
        let Some(outer) = w.obj.view.at(&["metadata", "labels", "version"]) else {
            continue;
        };
        let Some(said) = outer.scalar() else { continue };
        let inner = w.template.at(&["metadata", "labels", "version"]);
        match inner {
            // Only where versions are told apart by it; elsewhere it is a note for people.
            None if is_routed(cx, w) => out.add(
                Finding::at(outer.loc(), "on the object alone")
                    .related(w.labels_loc(), "not on its pods")
                    .effect(format!("Istio reads labels of pods: no subset finds these as {said}, and metrics call their version unknown"))
                    .help(format!("add version: {said} to spec.template.metadata.labels")),
            ),
            Some(inner) if inner.scalar().is_some_and(|v| v != said) => out.add(
                Finding::at(outer.loc(), format!("{said} here"))
                    .related(inner.loc(), "another version on the pods")
                    .effect(format!("the pods count as {}, whatever the object says", inner.scalar().unwrap_or("")))
                    .help("make both the same"),
            ),
            _ => {}
        }
    }
}

/// Whether a workload stands behind a Service whose host has subsets or a split.
pub(super) fn is_routed(cx: &Cx<'_>, w: &Workload<'_>) -> bool {
    cx.index.services.iter().any(|s| {
        let mine = s.workloads.iter().any(|n| cx.index.workloads[*n].obj.id == w.obj.id);
        mine && {
            let host = crate::object::Host::Service { name: s.obj.name, ns: s.obj.ns };
            cx.index.rules_for(host).any(|r| !r.subsets.is_empty())
        }
    })
}

/// SRN216
pub(super) fn too_few_pods(cx: &Cx<'_>, out: &mut Out) {
    for family in cx.index.families.iter().filter(|f| f.split) {
        let stable = family.stable_arm();
        let Some(n) = cx.index.pods(&stable.workloads) else {
            continue;
        };
        for arm in family.canaries() {
            let (Some(share), Some(have), Some(dest)) = (arm.share, cx.index.pods(&arm.workloads), arm.dest) else {
                continue;
            };
            // Serin's own rule: ceil(share × pods of stable). No pod at all is SRN217's.
            #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "pods are few")]
            let needed = (share * n as f64 - 1e-9).ceil() as i64;
            if have == 0 || have >= needed {
                continue;
            }
            let w = &cx.index.workloads[arm.workloads[0]];
            let loc = match w.obj.spec().and_then(|s| s.get("replicas")) {
                Some(replicas) => replicas.loc(),
                None => w.obj.name_loc(),
            };
            #[expect(clippy::cast_precision_loss, reason = "pods are few")]
            let load = share * n as f64 / (have as f64 * stable.share.unwrap_or(1.0).max(0.01));
            out.add(
                Finding::at(loc, format!("{} for {}", pods(have), percent(share)))
                    .related(dest.weight.map_or_else(|| dest.loc(), View::loc), format!("{} of the requests", percent(share)))
                    .effect(format!(
                        "each pod of {} gets {load:.1} times the requests of a pod of {}: slowness may be the load, not the version",
                        arm.name, stable.name
                    ))
                    .help(format!("{} take {} of what {} of {} served", pods(needed), percent(share), pods(n), stable.name)),
            );
        }
    }
}

/// SRN217
pub(super) fn weight_on_nothing(cx: &Cx<'_>, out: &mut Out) {
    let mut told = BTreeSet::new();
    for r in &cx.index.routings {
        for route in &r.routes {
            for dest in &route.dests {
                let share = route.share(dest);
                let Some(reached) = cx.index.reached(dest) else {
                    continue;
                };
                if share <= 0.0 || reached.is_empty() || cx.index.pods(&reached) != Some(0) {
                    continue;
                }
                let w = &cx.index.workloads[reached[0]];
                let loc = w.obj.spec().and_then(|s| s.get("replicas")).map_or_else(|| w.obj.name_loc(), View::loc);
                if !told.insert(loc) {
                    continue;
                }
                out.add(
                    Finding::at(loc, "no pods")
                        .related(dest.weight.map_or_else(|| dest.loc(), View::loc), format!("{} of the requests", percent(share)))
                        .effect(format!("{} of the requests get 503 `no healthy upstream` (UH)", percent(share)))
                        .help("start the pods first, or set the weight to 0"),
                );
            }
        }
    }
}
