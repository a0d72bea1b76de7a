//! Services: what they select, which ports they have, and how Istio takes those.

use std::collections::{HashMap, HashSet};

use super::subsets::contradicts;
use super::{Cx, Out, in_ns, list, nearest, percent};
use crate::diag::{Finding, Severity};
use crate::model::{Protocol, Route, RouteKind, Routing, Service, ServicePort, ServiceType, Workload, show};
use crate::object::{Kind, same_host};
use crate::yaml::{Type, View};

/// SRN201
pub(super) fn selects_nothing(cx: &Cx<'_>, out: &mut Out) {
    let index = cx.index;
    for s in &index.services {
        if s.selector.is_empty()
            || !s.workloads.is_empty()
            || s.ty == ServiceType::ExternalName
            || index.made_by_flagger(s.obj.ns, s.obj.name)
        {
            continue;
        }
        // Gateways are installed by other means than the application's files.
        let gateway = s.selector.iter().any(|(k, _)| *k == "istio");
        let near = index
            .workloads
            .iter()
            .filter(|w| !w.is_batch() && crate::object::may_be_same(w.obj.ns, s.obj.ns))
            .map(|w| {
                let hits = s.selector.iter().filter(|p| w.labels.contains(p)).count();
                (hits, w)
            })
            .max_by_key(|(hits, _)| *hits);
        let Some((hits, w)) = near.filter(|_| !gateway) else {
            if index.settled() && !gateway {
                out.add(nothing(s));
            }
            continue;
        };
        // A selector with nothing in common is for pods that are elsewhere.
        let spelt = s.selector.iter().any(|(_, v)| nearest(v, w.labels.iter().map(|(_, have)| *have)).is_some());
        if !index.settled() && hits == 0 && !spelt {
            continue;
        }
        let miss: Vec<_> = s.selector.iter().filter(|p| !w.labels.contains(p)).copied().collect();
        out.add(
            nothing(s)
                .related(w.labels_loc(), format!("pods of {} lack {}", w.obj.title(), show(&miss)))
                .help("use labels that the pods carry"),
        );
    }
}

fn nothing(s: &Service<'_>) -> Finding {
    Finding::at(s.selector_loc, format!("no pods in the input carry {}", show(&s.selector)))
        .effect(format!("Service {} has no endpoints: callers get 503", s.obj.name))
        .depends(format!("it is right if pods with {} run in the cluster", show(&s.selector)))
}

/// SRN202
pub(super) fn selects_one_version(cx: &Cx<'_>, out: &mut Out) {
    let index = cx.index;
    for rule in &index.rules {
        let Some(service) = index.service(rule.host) else {
            continue;
        };
        for s in &rule.subsets {
            let Some(key) = contradicts(&service.selector, &s.labels) else {
                continue;
            };
            let value = |labels: &[(&str, &str)]| crate::model::value_of(labels, key).unwrap_or("").to_owned();
            let selector = service.obj.spec().and_then(|x| x.get("selector"));
            let loc = selector.and_then(|x| x.get(key)).map_or(service.selector_loc, View::loc);
            let share = routed_share(cx, rule.host, s.name);
            let pinned = show(&[(key, value(&service.selector).as_str())]);
            let mut f = Finding::at(loc, format!("the Service has pods with {pinned} alone"))
                .related(
                    s.view.get("name").map_or_else(|| s.view.loc(), View::loc),
                    format!("subset {} wants {key}={}", s.name, value(&s.labels)),
                )
                .help(format!("take `{key}` out of the Service's selector"));
            f = match share {
                Some(share) if share > 0.0 => f.effect(format!(
                    "subset {} has no pods: {} of the requests get 503 `no healthy upstream` (UH)",
                    s.name,
                    percent(share)
                )),
                _ => f.severity(Severity::Warning).effect(format!("subset {} has no pods; its first weight will be 503", s.name)),
            };
            out.add(f);
        }
    }
}

/// The largest share that a route gives a subset; `None` if none names it.
fn routed_share<'a>(cx: &Cx<'a>, host: crate::object::Host<'a>, subset: &str) -> Option<f64> {
    cx.index
        .routings
        .iter()
        .flat_map(|r| &r.routes)
        .flat_map(|route| route.dests.iter().map(move |d| (route, d)))
        .filter(|(_, d)| d.subset_name() == Some(subset) && same_host(d.host, host))
        .map(|(route, d)| route.share(d))
        .max_by(f64::total_cmp)
}

/// The repository of an image: without tag and digest.
pub(super) fn repository(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    match image.rfind(':') {
        Some(n) if !image[n..].contains('/') => &image[..n],
        _ => image,
    }
}

/// SRN203
pub(super) fn selects_another_app(cx: &Cx<'_>, out: &mut Out) {
    mistaken_for_another(cx, out);
    let app = |w: &Workload<'_>| ["app.kubernetes.io/name", "app"].iter().find_map(|k| w.label(k).map(str::to_owned));
    let image = |w: &Workload<'_>| w.main_container().and_then(|c| c.str_at("image")).map(|i| repository(i).to_owned());
    for s in &cx.index.services {
        let members: Vec<&Workload<'_>> = s.workloads.iter().map(|n| &cx.index.workloads[*n]).filter(|w| w.obj.kind != Kind::Pod).collect();
        let Some(first) = members.first() else {
            continue;
        };
        let odd = members.iter().skip(1).find(|w| {
            let apps = (app(first), app(w));
            let images = (image(first), image(w));
            matches!(apps, (Some(a), Some(b)) if a != b) && matches!(images, (Some(a), Some(b)) if a != b)
        });
        let Some(odd) = odd else { continue };
        let total = cx.index.pods(&s.workloads);
        let mine = odd.pods.fixed();
        let effect = match (mine, total) {
            (Some(mine), Some(total)) if total > 0 => {
                #[expect(clippy::cast_precision_loss, reason = "pods are few")]
                let share = mine as f64 / total as f64;
                format!("{} of the requests go to {} ({mine} of {total} pods)", percent(share), odd.obj.title())
            }
            _ => format!("a part of the requests goes to {}", odd.obj.title()),
        };
        out.add(
            Finding::at(s.selector_loc, format!("selects {} and {}", first.obj.title(), odd.obj.title()))
                .related(first.labels_loc(), format!("app {}", app(first).unwrap_or_default()))
                .related(odd.labels_loc(), format!("app {}", app(odd).unwrap_or_default()))
                .effect(effect)
                .help("add a label to the selector that only one of them carries"),
        );
    }
}

/// A Service that selects an app of another name, while the app of its own name stands behind
/// no Service.
fn mistaken_for_another(cx: &Cx<'_>, out: &mut Out) {
    fn app<'a>(w: &Workload<'a>) -> Option<&'a str> {
        ["app", "app.kubernetes.io/name"].iter().find_map(|k| w.label(k))
    }
    for s in &cx.index.services {
        let members: Vec<&Workload<'_>> = s.workloads.iter().map(|n| &cx.index.workloads[*n]).collect();
        let Some(first) = members.first().filter(|_| members.iter().all(|w| app(w).is_some_and(|a| a != s.obj.name))) else {
            continue;
        };
        let mut own = cx.index.workloads.iter().enumerate().filter(|(n, w)| {
            let lonely = || !cx.index.services.iter().any(|o| o.workloads.contains(n));
            app(w) == Some(s.obj.name) && crate::object::may_be_same(w.obj.ns, s.obj.ns) && !w.is_batch() && lonely()
        });
        let Some((_, meant)) = own.next() else { continue };
        // An app that has a Service of its own is here by mistake; one that has none may be renamed.
        let theirs = cx.index.services.iter().any(|o| o.obj.id != s.obj.id && o.obj.name == app(first).unwrap_or(""));
        if !theirs {
            continue;
        }
        out.add(
            Finding::at(s.selector_loc, format!("selects {}", first.obj.title()))
                .related(first.labels_loc(), format!("app {}", app(first).unwrap_or("")))
                .related(meant.labels_loc(), format!("app {}, which no Service selects", s.obj.name))
                .effect(format!("requests for {} go to {}", s.obj.name, app(first).unwrap_or("")))
                .help(format!("select the labels of {}", meant.obj.title())),
        );
    }
}

/// Ports of a workload's containers that serve: (name, number).
fn container_ports<'a>(w: &Workload<'a>) -> Vec<(Option<&'a str>, Option<i64>)> {
    w.serving_containers().flat_map(|c| c.list("ports")).map(|p| (p.str_at("name"), p.int_at("containerPort"))).collect()
}

/// SRN206
pub(super) fn target_port(cx: &Cx<'_>, out: &mut Out) {
    for s in &cx.index.services {
        for port in s.ports() {
            let target = port.view.get("targetPort");
            let Some(place) = target.or_else(|| port.view.get("port")) else {
                continue;
            };
            let members = || s.workloads.iter().map(|n| &cx.index.workloads[*n]);
            match place.ty() {
                Type::Str => named_target(place, members(), out),
                Type::Int => numbered_target(s, &port, place, members(), out),
                _ => {}
            }
        }
    }
}

fn named_target<'w, 'a: 'w>(place: View<'a>, members: impl Iterator<Item = &'w Workload<'a>>, out: &mut Out) {
    let name = place.str().unwrap_or("");
    for w in members {
        let ports = container_ports(w);
        if ports.iter().any(|(n, _)| *n == Some(name)) || w.pod.is_none() {
            continue;
        }
        let mut f = Finding::at(place.loc(), format!("no container has a port named {name}"))
            .related(w.labels_loc(), format!("pods of {}", w.obj.title()))
            .effect(format!("pods of {} are no endpoints for this port: callers get 503", w.obj.title()));
        let known = ports.iter().filter_map(|(n, _)| *n);
        f = if name.bytes().all(|b| b.is_ascii_digit()) {
            f.help(format!("in quotes it is a name; write {name} without them"))
                .fix(crate::diag::fix("remove the quotes", [crate::diag::replace(place, name)]))
        } else if let Some(near) = nearest(name, known) {
            f.help(format!("did you mean {near}?"))
        } else {
            f.help("name a port of the container, or use its number")
        };
        out.add(f);
        return;
    }
}

fn numbered_target<'w, 'a: 'w>(
    s: &Service<'a>,
    port: &ServicePort<'a>,
    place: View<'a>,
    members: impl Iterator<Item = &'w Workload<'a>>,
    out: &mut Out,
) {
    let number = place.int().unwrap_or(0);
    for w in members {
        let containers: Vec<View<'_>> = w.serving_containers().collect();
        // A container that lists no port says nothing; a list that lacks this one does.
        let all_say = containers.iter().all(|c| c.list("ports").next().is_some());
        let declared: Vec<i64> = container_ports(w).iter().filter_map(|(_, n)| *n).collect();
        if containers.is_empty() || declared.is_empty() || !all_say || declared.contains(&number) {
            continue;
        }
        let shown: Vec<String> = declared.iter().map(i64::to_string).collect();
        let defaulted = port.view.get("targetPort").is_none();
        out.add(
            Finding::at(
                place.loc(),
                if defaulted {
                    format!("without targetPort it is {number} on the pods too")
                } else {
                    format!("no container declares port {number}")
                },
            )
            .severity(Severity::Warning)
            .related(containers[0].key_loc("ports"), format!("{} declares {}", w.obj.title(), list(&shown)))
            .effect(format!("if nothing listens on {number}, callers of {} get 503 (connection refused)", s.obj.name))
            .help(format!("use targetPort: {}", shown[0])),
        );
        return;
    }
}

/// Routes of HTTP that send to a Service, with the port they ask for.
fn http_routes<'c, 'a>(cx: &'c Cx<'a>, s: &'c Service<'a>) -> impl Iterator<Item = (&'c Routing<'a>, &'c Route<'a>, Option<i64>)> {
    let host = crate::object::Host::Service { name: s.obj.name, ns: s.obj.ns };
    cx.index.routings_of(host).flat_map(move |r| {
        r.routes.iter().filter(|route| route.kind == RouteKind::Http).filter_map(move |route| {
            let d = route.dests.iter().find(|d| cx.index.service(d.host).is_some_and(|found| found.obj.id == s.obj.id))?;
            Some((r, route, d.port().and_then(View::int)))
        })
    })
}

/// SRN208
pub(super) fn opaque_port(cx: &Cx<'_>, out: &mut Out) {
    for s in &cx.index.services {
        let ports: Vec<ServicePort<'_>> = s.ports().collect();
        if ports.iter().all(|p| p.protocol() != Protocol::Opaque) {
            continue;
        }
        let mut told = HashSet::new();
        for (r, route, wanted) in http_routes(cx, s) {
            // Gateways speak HTTP to whatever port the route names.
            if !r.in_mesh() {
                continue;
            }
            let asked: Vec<&ServicePort<'_>> = ports.iter().filter(|p| wanted.is_none_or(|n| n == p.number)).collect();
            if asked.is_empty() || asked.iter().any(|p| p.protocol() != Protocol::Opaque) {
                continue;
            }
            let port = asked[0];
            let place = port.view.get("appProtocol").or_else(|| port.view.get("name")).unwrap_or(port.view);
            if !told.insert(place.loc()) {
                continue;
            }
            let word = place.str().unwrap_or("");
            out.add(
                Finding::at(place.loc(), format!("`{word}` is not HTTP to Istio"))
                    .related(route.loc(), "http routes for this Service")
                    .effect(format!(
                        "callers inside the mesh are connected to any pod of Service {}: no weight, no match and no retry applies",
                        s.obj.name
                    ))
                    .help("if it speaks HTTP, name the port http or grpc (or set appProtocol)"),
            );
        }
    }
}

/// SRN209
pub(super) fn headless(cx: &Cx<'_>, out: &mut Out) {
    for s in &cx.index.services {
        let (label, effect) = match s.ty {
            ServiceType::Normal => continue,
            ServiceType::Headless => {
                ("headless: callers pick the pod themselves", "requests go to the pod that DNS gave the caller, whatever the weights say")
            }
            ServiceType::ExternalName => ("only a name for another host: it has no pods", "subsets of it have no endpoints"),
        };
        let split = http_routes(cx, s).find(|(_, route, _)| route.is_split() || route.dests.iter().any(|d| d.subset.is_some()));
        let Some((_, route, _)) = split else { continue };
        let keys: &[&str] = if s.ty == ServiceType::Headless { &["clusterIP", "clusterIPs"] } else { &["type"] };
        let at = |x: View<'_>| keys.iter().find_map(|k| x.field(k)).map(|f| f.key_loc);
        let loc = s.obj.spec().and_then(at).unwrap_or_else(|| s.obj.name_loc());
        out.add(
            Finding::at(loc, label)
                .related(route.loc(), "routed by version here")
                .effect(effect)
                .help("route to a Service with a cluster IP of its own"),
        );
    }
}

/// SRN210
pub(super) fn nothing_limits_the_canary(cx: &Cx<'_>, out: &mut Out) {
    let index = cx.index;
    for s in &index.services {
        if s.workloads.len() < 2 || s.ty != ServiceType::Normal {
            continue;
        }
        let host = crate::object::Host::Service { name: s.obj.name, ns: s.obj.ns };
        let mut versions: Vec<(&str, Vec<usize>)> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for n in &s.workloads {
            let w = &index.workloads[*n];
            let Some(v) = w.label("version") else {
                continue;
            };
            if w.pods.fixed() == Some(0) {
                continue;
            }
            let at = *places.entry(v).or_insert_with(|| {
                versions.push((v, Vec::new()));
                versions.len() - 1
            });
            versions[at].1.push(*n);
        }
        if versions.len() < 2 || index.made_by_flagger(s.obj.ns, s.obj.name) {
            continue;
        }
        let routed = index.routings_of(host).next().is_some();
        let other = [Kind::HttpRoute, Kind::GrpcRoute, Kind::Rollout, Kind::CanaryRelease];
        if routed || other.iter().any(|k| index.has(*k, s.obj.ns)) {
            continue;
        }
        let smallest = versions.iter().min_by_key(|(_, list)| index.pods(list).unwrap_or(i64::MAX));
        let Some((version, list)) = smallest else {
            continue;
        };
        let numbers = index.pods(list).zip(index.pods(&s.workloads)).filter(|(_, all)| *all > 0);
        let effect = match numbers {
            Some((mine, all)) => {
                #[expect(clippy::cast_precision_loss, reason = "pods are few")]
                let share = mine as f64 / all as f64;
                format!("{version} gets {} of the requests ({mine} of {all} pods) as soon as it runs", percent(share))
            }
            None => format!("{version} gets a share by its pods as soon as it runs"),
        };
        out.add(
            Finding::at(s.selector_loc, format!("selects versions {}", super::list(versions.iter().map(|(v, _)| *v))))
                .related(index.workloads[list[0]].labels_loc(), format!("{version} takes part at once"))
                .effect(effect)
                .help("apply a VirtualService that gives the new version weight 0 first")
                .depends(format!("it is right if a VirtualService in the cluster splits {}{}", s.obj.name, in_ns(s.obj.ns))),
        );
    }
}

/// SRN215
pub(super) fn unknown_port(cx: &Cx<'_>, out: &mut Out) {
    for r in &cx.index.routings {
        for route in &r.routes {
            for d in &route.dests {
                let (Some(service), Some(port)) = (cx.index.service(d.host), d.port()) else {
                    continue;
                };
                let known: Vec<i64> = service.ports().map(|p| p.number).collect();
                let Some(number) = port.int() else { continue };
                if known.is_empty() || known.contains(&number) {
                    continue;
                }
                let shown: Vec<String> = known.iter().map(i64::to_string).collect();
                let target = service.ports().any(|p| p.view.get("targetPort").and_then(View::int) == Some(number));
                let mut f = Finding::at(port.loc(), format!("Service {} has {}", service.obj.name, list(&shown)))
                    .related(service.obj.spec().map_or_else(|| service.obj.name_loc(), |s| s.key_loc("ports")), "its ports")
                    .effect(format!("{} of the requests get 503 (NC)", percent(route.share(d))));
                f = if target {
                    f.help(format!("{number} is the pods' port; routes name the Service's: {}", shown[0]))
                } else {
                    f.help(format!("use {}", list(&shown)))
                };
                out.add(f);
            }
        }
    }
}

/// SRN218
pub(super) fn port_needed(cx: &Cx<'_>, out: &mut Out) {
    for r in &cx.index.routings {
        // Inside the mesh the caller's port is kept; a gateway's port is its own.
        let gateways: Vec<&str> = r.gateways.iter().filter_map(|g| g.str()).filter(|g| *g != "mesh").collect();
        if gateways.is_empty() {
            continue;
        }
        let listening: Vec<i64> = gateways
            .iter()
            .filter_map(|g| {
                let (ns, name) = g.split_once('/').map_or((r.obj.ns, *g), |(ns, name)| (Some(ns), name));
                cx.index.find(Kind::Gateway, ns, name)
            })
            .flat_map(|g| g.spec().into_iter().flat_map(|s| s.list("servers")))
            .filter_map(|s| s.at(&["port", "number"])?.int())
            .collect();
        for route in r.routes.iter().filter(|x| x.kind == RouteKind::Http) {
            for d in route.dests.iter().filter(|d| d.port().is_none()) {
                let Some(service) = cx.index.service(d.host) else {
                    continue;
                };
                let ports: Vec<i64> = service.ports().map(|p| p.number).collect();
                if ports.len() < 2 || listening.iter().any(|p| ports.contains(p)) {
                    continue;
                }
                let shown: Vec<String> = ports.iter().map(i64::to_string).collect();
                let mut f = Finding::at(d.host_view.loc(), format!("which of the ports {}?", list(&shown)))
                    .related(service.obj.spec().map_or_else(|| service.obj.name_loc(), |s| s.key_loc("ports")), "several ports")
                    .effect("the gateway looks for a port like its own and finds none: 503")
                    .help(format!("add port: {{number: {}}} to the destination", shown[0]));
                if listening.is_empty() {
                    f = f.depends("it is right if the Gateway listens on a port of the same number");
                }
                out.add(f);
            }
        }
    }
}
