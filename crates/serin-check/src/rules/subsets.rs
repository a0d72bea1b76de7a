//! Subsets: defined where, selecting which pods.

use super::{Cx, Out, list, nearest, percent};
use crate::diag::{Finding, Severity, fix, replace};
use crate::model::{Dest, Route, Rule, exported_to, matches, show, value_of};
use crate::object::{Host, Kind, known};
use crate::yaml::View;

/// Says that a destination's subset is defined nowhere; `None` if it is, or if nobody can say.
pub(super) fn undefined<'a>(cx: &Cx<'a>, dest: &Dest<'a>) -> Option<Finding> {
    let name = dest.subset_name()?;
    let subset = dest.subset?;
    if cx.index.subset(dest.host, name).is_some() {
        return None;
    }
    let host = dest.host_view.str().unwrap_or("");
    let rules: Vec<_> = cx.index.rules_for(dest.host).collect();
    if rules.is_empty() {
        return Some(
            Finding::at(subset.loc(), format!("no DestinationRule for {host} is in the input"))
                .help(format!("apply a DestinationRule for {host} with subset {name} first"))
                .depends(format!("it is right if a DestinationRule in the cluster defines subset {name} of {host}")),
        );
    }
    let known: Vec<&str> = rules.iter().flat_map(|r| r.subsets.iter().map(|s| s.name)).collect();
    let mut f = Finding::at(
        subset.loc(),
        if known.is_empty() { format!("the DestinationRule of {host} has no subsets") } else { format!("not among {}", list(&known)) },
    );
    for rule in &rules {
        let loc = rule.obj.spec().map_or_else(|| rule.obj.name_loc(), |s| s.key_loc("subsets"));
        f = f.related(loc, format!("the subsets of {host}"));
    }
    Some(match nearest(name, known) {
        Some(near) => f.help(format!("did you mean {near}?")).fix(fix(format!("write {near}"), [replace(subset, near)])),
        None => f.help(format!("add subset {name} to the DestinationRule, and apply it first")),
    })
}

/// SRN306
pub(super) fn unknown_subset(cx: &Cx<'_>, out: &mut Out) {
    for r in &cx.index.routings {
        for route in &r.routes {
            for dest in &route.dests {
                let Some(f) = undefined(cx, dest) else {
                    continue;
                };
                let share = route.share(dest);
                out.add(if share > 0.0 {
                    f.effect(format!("{} of the requests of {} get 503 with an empty body (NC)", percent(share), route.title()))
                } else {
                    f.severity(Severity::Warning).effect("nobody is sent there yet; the first weight will be 503 (NC)")
                });
            }
        }
    }
}

/// SRN307
pub(super) fn selects_no_pods(cx: &Cx<'_>, out: &mut Out) {
    let index = cx.index;
    let mut told = std::collections::HashSet::new();
    for r in &index.routings {
        for route in &r.routes {
            for dest in &route.dests {
                let share = route.share(dest);
                let Some(name) = dest.subset_name().filter(|_| share > 0.0) else {
                    continue;
                };
                let (Some(service), Some((_, subset))) = (index.service(dest.host), index.subset(dest.host, name)) else {
                    continue;
                };
                if service.selector.is_empty()
                    || service.workloads.is_empty()
                    || !index.in_subset(service, subset).is_empty()
                    // SRN202 says it better.
                    || contradicts(&service.selector, &subset.labels).is_some()
                    || !told.insert(subset.view.loc())
                {
                    continue;
                }
                let loc = match subset.view.field("labels") {
                    Some(f) => f.key_loc,
                    None => subset.view.loc(),
                };
                let carried: Vec<String> = service
                    .workloads
                    .iter()
                    .map(|n| {
                        let w = &index.workloads[*n];
                        let mine: Vec<_> = w.labels.iter().filter(|(k, _)| value_of(&subset.labels, k).is_some()).copied().collect();
                        if mine.is_empty() { w.obj.title() } else { format!("{} ({})", w.obj.title(), show(&mine)) }
                    })
                    .collect();
                let mut f = Finding::at(loc, format!("no pods of Service {} carry {}", service.obj.name, show(&subset.labels)))
                    .related(dest.loc(), format!("gets {}", percent(share)))
                    .effect(format!("{} of the requests get 503 `no healthy upstream` (UH)", percent(share)))
                    .depends(format!("it is right if pods with {} run in the cluster", show(&subset.labels)));
                f = if carried.is_empty() {
                    f.help("give the pods these labels, or the subset labels of the pods")
                } else {
                    f.help(format!("the Service selects {}: use labels of its pods", list(&carried)))
                };
                out.add(f);
            }
        }
    }
}

/// A key for which selector and subset want different values.
pub(super) fn contradicts<'a>(selector: &[(&'a str, &'a str)], subset: &[(&'a str, &'a str)]) -> Option<&'a str> {
    selector.iter().find(|(k, v)| value_of(subset, k).is_some_and(|w| w != *v)).map(|(k, _)| *k)
}

/// Subset labels of a destination; without subset none, which selects all pods.
fn wanted<'a>(cx: &Cx<'a>, dest: &Dest<'a>) -> Option<Vec<(&'a str, &'a str)>> {
    match dest.subset_name() {
        None => Some(Vec::new()),
        Some(name) => {
            let (rule, subset) = cx.index.subset(dest.host, name)?;
            (!cx.index.written_by_argo(rule)).then(|| subset.labels.clone())
        }
    }
}

fn pairs<'r, 'a>(route: &'r Route<'a>) -> impl Iterator<Item = (&'r Dest<'a>, &'r Dest<'a>)> {
    route
        .dests
        .iter()
        .enumerate()
        .flat_map(move |(i, a)| route.dests[i + 1..].iter().filter(move |b| b.host == a.host).map(move |b| (a, b)))
}

/// Where a subset's labels stand, for pointing at.
fn labels_loc<'a>(cx: &Cx<'a>, dest: &Dest<'a>) -> crate::source::Loc {
    dest.subset_name().and_then(|name| cx.index.subset(dest.host, name)).map_or_else(
        || dest.loc(),
        |(_, s)| match s.view.field("labels") {
            Some(f) => f.key_loc,
            None => s.view.get("name").map_or_else(|| s.view.loc(), View::loc),
        },
    )
}

/// Destinations of different hosts, and the pods that they reach by their Services.
fn pairs_of_services<'r, 'a>(
    cx: &'r Cx<'a>,
    route: &'r Route<'a>,
) -> impl Iterator<Item = (&'r Dest<'a>, &'r Dest<'a>, Vec<usize>, Vec<usize>)> {
    let reached = move |d: &Dest<'a>| cx.index.reached(d).filter(|w| !w.is_empty());
    // Argo Rollouts and Flagger change what their Services select.
    let plain = move |w: &[usize]| w.iter().all(|n| cx.index.workloads[*n].obj.kind != Kind::Rollout);
    route.dests.iter().take(100).enumerate().flat_map(move |(i, a)| {
        route.dests[i + 1..].iter().take(100).filter(move |b| b.host != a.host).filter_map(move |b| {
            let (p, q) = (reached(a)?, reached(b)?);
            let kept = |d: &Dest<'_>| matches!(d.host, Host::Service { name, ns } if cx.index.made_by_flagger(ns, name));
            (plain(&p) && plain(&q) && !kept(a) && !kept(b)).then_some((a, b, p, q))
        })
    })
}

/// Where the selector of a destination's Service stands.
fn selector_loc<'a>(cx: &Cx<'a>, dest: &Dest<'a>) -> crate::source::Loc {
    cx.index.service(dest.host).map_or_else(|| dest.loc(), |s| s.selector_loc)
}

/// SRN308
pub(super) fn same_pods(cx: &Cx<'_>, out: &mut Out) {
    for (_, route) in cx.index.splits() {
        for (a, b, p, q) in pairs_of_services(cx, route) {
            if p == q && a.subset.is_none() && b.subset.is_none() {
                out.add(
                    Finding::at(selector_loc(cx, b), format!("the same pods as Service {}", a.label()))
                        .related(selector_loc(cx, a), "selected here too")
                        .related(b.loc(), "the route splits between the two")
                        .effect(format!("requests to {} and {} go to the same pods: nothing is split", a.label(), b.label()))
                        .help("select one version by each Service"),
                );
            }
        }
        for (a, b) in pairs(route) {
            if a.subset_name() == b.subset_name() {
                out.add(
                    Finding::at(b.loc(), "stands here twice")
                        .related(a.loc(), "first here")
                        .effect(format!("both weights go to the same pods: {} in all", percent(route.share(a) + route.share(b))))
                        .help("name the other version's subset"),
                );
                continue;
            }
            let (Some(x), Some(y)) = (wanted(cx, a), wanted(cx, b)) else {
                continue;
            };
            let equal = !x.is_empty() && matches(&x, &y) && matches(&y, &x);
            let reached = || match (cx.index.reached(a), cx.index.reached(b)) {
                (Some(p), Some(q)) => !p.is_empty() && p == q && !x.is_empty() && !y.is_empty(),
                _ => false,
            };
            if equal || reached() {
                out.add(
                    Finding::at(labels_loc(cx, b), format!("the same pods as {}", a.label()))
                        .related(labels_loc(cx, a), "selected here too")
                        .effect(format!("requests to {} and {} go to the same pods: nothing is split", a.label(), b.label()))
                        .help("give each subset the label that tells its version"),
                );
            }
        }
    }
}

/// SRN309
pub(super) fn both_versions<'a>(cx: &Cx<'a>, out: &mut Out) {
    for (_, route) in cx.index.splits() {
        for (a, b, p, q) in pairs_of_services(cx, route) {
            let within = |n: &[usize], w: &[usize]| w.len() > n.len() && n.iter().all(|x| w.contains(x));
            let (wide, narrow) = if within(&q, &p) {
                (a, b)
            } else if within(&p, &q) {
                (b, a)
            } else {
                continue;
            };
            out.add(
                Finding::at(selector_loc(cx, wide), format!("selects the pods of {} too", narrow.label()))
                    .related(narrow.loc(), format!("gets {} of its own", percent(route.share(narrow))))
                    .related(wide.loc(), format!("gets {}", percent(route.share(wide))))
                    .effect(format!("a part of the {} for {} reaches {} too", percent(route.share(wide)), wide.label(), narrow.label()))
                    .help("route to a Service that selects the other version alone"),
            );
        }
        for (a, b) in pairs(route) {
            let (Some(x), Some(y)) = (wanted(cx, a), wanted(cx, b)) else {
                continue;
            };
            // The wider one wants a real part of what the other wants, or reaches its pods by
            // other labels.
            let spills = |wide: &Dest<'a>, narrow: &Dest<'a>| match (cx.index.reached(wide), cx.index.reached(narrow)) {
                (Some(w), Some(n)) => !n.is_empty() && w.len() > n.len() && n.iter().all(|x| w.contains(x)),
                _ => false,
            };
            let (wide, narrow) = if x.len() < y.len() && matches(&x, &y) || spills(a, b) {
                (a, b)
            } else if y.len() < x.len() && matches(&y, &x) || spills(b, a) {
                (b, a)
            } else {
                continue;
            };
            let share = |d: &Dest<'_>| route.share(d);
            let pods = |d| cx.index.reached(d).and_then(|w| cx.index.pods(&w));
            let effect = match (pods(wide), pods(narrow)) {
                (Some(all), Some(part)) if all > part && part > 0 => {
                    #[expect(clippy::cast_precision_loss, reason = "pods are few")]
                    let spill = share(wide) * part as f64 / all as f64;
                    format!(
                        "{} gets {} instead of {}: {part} of the {all} pods of {} are its own",
                        narrow.label(),
                        percent(share(narrow) + spill),
                        percent(share(narrow)),
                        wide.label()
                    )
                }
                _ => format!("a part of the {} for {} reaches {} too", percent(share(wide)), wide.label(), narrow.label()),
            };
            let label = if wide.subset.is_none() {
                "without a subset this is every version".to_owned()
            } else {
                format!("these labels select the pods of {} too", narrow.label())
            };
            out.add(
                Finding::at(labels_loc(cx, wide), label)
                    .related(labels_loc(cx, narrow), "selected here")
                    .effect(effect)
                    .help("name a subset that selects the other version alone"),
            );
        }
    }
}

/// A rule of the callers' own namespace replaces the Service's for them: subsets that only the
/// latter has do not exist there.
fn replaced_for_callers(cx: &Cx<'_>, out: &mut Out) {
    let mut told = std::collections::HashSet::new();
    for (r, route) in cx.index.splits().filter(|(r, _)| r.in_mesh()) {
        for dest in &route.dests {
            let Host::Service { ns: Some(home), .. } = dest.host else { continue };
            let Some(name) = dest.subset_name().filter(|_| route.share(dest) > 0.0) else { continue };
            let rules: Vec<_> = cx.index.rules_for(dest.host).collect();
            let has = |rule: &Rule<'_>| rule.subsets.iter().any(|s| s.name == name);
            let Some(defining) = rules.iter().find(|rule| rule.obj.ns == Some(home) && has(rule)) else { continue };
            for rule in &rules {
                let Some(ns) = known(rule.obj.ns).filter(|ns| *ns != home) else { continue };
                let selective = rule.obj.spec().is_some_and(|s| s.get("workloadSelector").is_some());
                let joined = rules.iter().any(|other| other.obj.ns == Some(ns) && has(other));
                let obeys = exported_to(r.obj.spec(), r.obj.ns, Some(ns));
                if selective || joined || !obeys || !told.insert((rule.obj.id, name)) {
                    continue;
                }
                out.add(
                    Finding::at(
                        rule.host_view.map_or_else(|| rule.obj.name_loc(), View::loc),
                        format!("for callers in {ns} this rule replaces {home}/{}", defining.obj.name),
                    )
                    .severity(Severity::Error)
                    .related(dest.loc(), format!("sends them to subset {name}"))
                    .related(defining.obj.name_loc(), format!("the rule that has subset {name}"))
                    .effect(format!("callers in {ns} get 503 with an empty body (NC) for their share to {name}"))
                    .help(format!("add the subsets here too, or leave the policy to the rule in {home}")),
                );
            }
        }
    }
}

/// SRN316
pub(super) fn two_rules(cx: &Cx<'_>, out: &mut Out) {
    replaced_for_callers(cx, out);
    let rules = &cx.index.rules;
    let mut by_host: std::collections::HashMap<_, Vec<usize>> = std::collections::HashMap::new();
    for (n, rule) in rules.iter().enumerate() {
        let selective = rule.obj.spec().is_some_and(|s| s.get("workloadSelector").is_some());
        if !selective {
            by_host.entry((rule.host, rule.obj.ns)).or_default().push(n);
        }
    }
    let mut groups: Vec<_> = by_host.into_values().filter(|g| g.len() > 1).collect();
    groups.sort_unstable();
    let loc = |s: &crate::model::Subset<'_>| s.view.get("name").map_or_else(|| s.view.loc(), View::loc);
    for group in groups {
        let mut firsts: std::collections::HashMap<&str, (&Rule<'_>, &crate::model::Subset<'_>)> = std::collections::HashMap::new();
        let mut policy: Option<&Rule<'_>> = None;
        for rule in group.iter().map(|n| &rules[*n]) {
            for s in &rule.subsets {
                let Some((earlier, first)) = firsts.get(s.name).filter(|(r, _)| r.obj.id != rule.obj.id) else {
                    firsts.entry(s.name).or_insert((rule, s));
                    continue;
                };
                out.add(
                    Finding::at(loc(s), format!("subset {} again", s.name))
                        .related(loc(first), "also here")
                        .effect(format!("of {} and {} only the older rule's subset {} counts", earlier.obj.name, rule.obj.name, s.name))
                        .help("keep all subsets of a host in one DestinationRule"),
                );
            }
            let (Some(_), Some(spec)) = (rule.policy(), rule.obj.spec()) else { continue };
            let Some(earlier) = policy else {
                policy = Some(rule);
                continue;
            };
            let there = earlier.obj.spec().map_or_else(|| earlier.obj.name_loc(), |s| s.key_loc("trafficPolicy"));
            out.add(
                Finding::at(spec.key_loc("trafficPolicy"), format!("{} has one for this host too", earlier.obj.name))
                    .related(there, "also here")
                    .effect(format!("of {} and {} only the older rule's policy counts", earlier.obj.name, rule.obj.name))
                    .help("keep the policy of a host in one DestinationRule"),
            );
        }
    }
}
