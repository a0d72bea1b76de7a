//! Hosts: what a name means, who defines it, and who can see it.

use super::{Cx, Out, callers, in_ns, nearest};
use crate::diag::{Finding, Severity, fix, replace};
use crate::index::Index;
use crate::model::{Dest, Routing, exported_to};
use crate::object::{Host, Kind, Ns, ObjId, Object, host, known, may_be_same, said, same_host};
use crate::yaml::View;

/// Every place that names a host: the text, its namespace, and what it is for.
struct Named<'a> {
    view: View<'a>,
    text: &'a str,
    ns: Ns<'a>,
    owner: ObjId,
    host: Host<'a>,
    role: Role,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// `hosts` of a VirtualService: any name is legal.
    Routed,
    /// `host` of a DestinationRule.
    Ruled,
    /// A destination.
    Sent,
}

fn names<'a>(index: &Index<'a>) -> Vec<Named<'a>> {
    let mut found = Vec::new();
    let mut add = |view: View<'a>, owner: &Object<'a>, role| {
        let ns = owner.ns;
        if let Some(text) = view.str().filter(|t| !t.is_empty()) {
            found.push(Named { view, text, ns, owner: owner.id, host: host(text, ns), role });
        }
    };
    for r in &index.routings {
        for (view, _) in &r.hosts {
            add(*view, &r.obj, Role::Routed);
        }
        for route in &r.routes {
            for dest in &route.dests {
                add(dest.host_view, &r.obj, Role::Sent);
            }
        }
    }
    for rule in &index.rules {
        if let Some(view) = rule.host_view {
            add(view, &rule.obj, Role::Ruled);
        }
    }
    found
}

/// Whether a ServiceEntry of the input defines a host.
pub(super) fn has_entry(index: &Index<'_>, text: &str) -> bool {
    index.of(Kind::ServiceEntry).any(|e| {
        e.spec()
            .into_iter()
            .flat_map(|s| s.list("hosts"))
            .filter_map(View::str)
            .any(|h| h == text || h.strip_prefix('*').is_some_and(|suffix| text.ends_with(suffix)))
    })
}

/// SRN315
pub(super) fn two_routings(cx: &Cx<'_>, out: &mut Out) {
    let mut seen: std::collections::HashMap<&str, Vec<(usize, usize)>> = std::collections::HashMap::new();
    for (n, r) in cx.index.routings.iter().enumerate() {
        if !r.in_mesh() {
            continue;
        }
        for (h, (_, host)) in r.hosts.iter().enumerate() {
            let key = match host {
                Host::Service { name, .. } => name,
                Host::Literal(text) => text,
                Host::Wildcard(_) => continue,
            };
            seen.entry(key).or_default().push((n, h));
        }
    }
    let mut pairs: Vec<((usize, usize), (usize, usize))> = Vec::new();
    for places in seen.values() {
        for (i, second) in places.iter().enumerate().skip(1) {
            if let Some(first) = places[..i].iter().find(|f| f.0 != second.0 && conflict(cx.index, **f, *second)) {
                pairs.push((*first, *second));
            }
        }
    }
    for (first, second) in pairs {
        let (a, b) = (&cx.index.routings[first.0], &cx.index.routings[second.0]);
        out.add(
            Finding::at(b.hosts[second.1].0.loc(), format!("VirtualService {} is for this host too", a.obj.name))
                .related(a.hosts[first.1].0.loc(), "here")
                .effect(format!(
                    "sidecars obey the older of the two alone; which of {} and {} that is, is not in the files",
                    a.obj.name, b.obj.name
                ))
                .help("put the routes into one VirtualService, or delegate"),
        );
    }
}

fn conflict(index: &Index<'_>, first: (usize, usize), second: (usize, usize)) -> bool {
    let (a, b) = (&index.routings[first.0], &index.routings[second.0]);
    if !same_host(a.hosts[first.1].1, b.hosts[second.1].1) {
        return false;
    }
    // Somebody must see both.
    let everybody = |r: &Routing<'_>| exported_to(r.obj.spec(), r.obj.ns, None);
    let sees = |r: &Routing<'_>, ns: Ns<'_>| exported_to(r.obj.spec(), r.obj.ns, ns);
    everybody(a) && everybody(b) || sees(a, b.obj.ns) && sees(b, b.obj.ns) || sees(b, a.obj.ns) && sees(a, a.obj.ns)
}

/// SRN317
pub(super) fn wrong_namespace(cx: &Cx<'_>, out: &mut Out) {
    for n in names(cx.index) {
        match n.host {
            Host::Literal(text) => half_qualified(cx, &n, text, out),
            Host::Service { name, .. } if !n.text.contains('.') => short(cx, &n, name, out),
            Host::Service { .. } | Host::Wildcard(_) => {}
        }
    }
}

fn half_qualified(cx: &Cx<'_>, n: &Named<'_>, text: &str, out: &mut Out) {
    let mut parts = text.split('.');
    let (Some(name), Some(ns), third, None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return;
    };
    let ends_in_svc = match third {
        None => false,
        Some("svc") => true,
        Some(_) => return,
    };
    // `shop.io` is nobody's half of a name: the namespace must be one that the input knows.
    let named =
        |have: Ns<'_>| have == Some(ns) || known(have).is_none() && (ns == "default" || cx.index.objects.iter().any(|o| o.ns == Some(ns)));
    let known_service = cx.index.services_named(name).any(|s| named(s.obj.ns));
    if !(ends_in_svc || known_service) || has_entry(cx.index, text) || name.starts_with('*') {
        return;
    }
    if n.role == Role::Routed {
        // Beside the whole name, a half of it serves those who call it so.
        let whole = Host::Service { name, ns: Some(ns) };
        let covered = cx
            .index
            .routings
            .iter()
            .filter(|r| r.obj.id == n.owner)
            .any(|r| !r.in_mesh() || r.hosts.iter().any(|(_, h)| same_host(*h, whole)));
        if covered {
            return;
        }
    }
    let full = format!("{name}.{ns}.svc.cluster.local");
    out.add(
        Finding::at(n.view.loc(), "a name with a dot is taken literally")
            .effect(match n.role {
                Role::Sent => format!("Istio knows no host {text}: these requests get 503"),
                Role::Ruled => {
                    format!("this rule is for no host: subsets of {name} are not defined by it")
                }
                Role::Routed => format!("callers of {name} do not obey these routes"),
            })
            .help(format!("write {full}"))
            .fix(fix(format!("write {full}"), [replace(n.view, full.clone())])),
    );
}

fn short(cx: &Cx<'_>, n: &Named<'_>, name: &str, out: &mut Out) {
    let Some(own) = known(n.ns) else { return };
    if cx.index.service(n.host).is_some() || cx.index.made_by_flagger(n.ns, name) {
        return;
    }
    let mut homes = cx.index.services_named(name).filter(|s| known(s.obj.ns).is_some());
    let Some(home) = homes.next() else { return };
    let ns = home.obj.ns.unwrap_or("");
    let full = format!("{name}.{ns}.svc.cluster.local");
    let one = homes.next().is_none();
    let mend = one.then(|| fix(format!("write {full}"), [replace(n.view, full.clone())])).flatten();
    out.add(
        Finding::at(n.view.loc(), format!("means {name}.{own}.svc.cluster.local, which is not there"))
            .related(home.obj.name_loc(), format!("the Service is in namespace {ns}"))
            .effect(match n.role {
                Role::Sent => "these requests get 503",
                Role::Ruled => "this rule applies to nobody",
                Role::Routed => "callers of the Service do not obey these routes",
            })
            .help(format!("write {full}"))
            .fix(mend),
    );
}

/// SRN318
pub(super) fn hidden(cx: &Cx<'_>, out: &mut Out) {
    callers::hidden(cx, out);
    for r in &cx.index.routings {
        let spec = r.obj.spec();
        for route in &r.routes {
            for dest in &route.dests {
                if route.share(dest) > 0.0 {
                    hidden_rule(cx, r, dest, out);
                }
            }
        }
        // Gateways of another namespace must see the routes.
        let own = r.obj.ns;
        for g in &r.gateways {
            let Some((ns, _)) = g.str().and_then(|t| t.split_once('/')) else {
                continue;
            };
            if own.is_none() || own == Some(ns) || exported_to(spec, own, Some(ns)) {
                continue;
            }
            let Some(spec) = spec else { continue };
            out.add(
                Finding::at(spec.key_loc("exportTo"), format!("namespace {ns} is not among them"))
                    .related(g.loc(), "the Gateway is there")
                    .effect("gateway pods in that namespace do not see these routes: 404")
                    .help(format!("add {ns} to exportTo"))
                    .depends(format!("it is right if the gateway's pods run{}", in_ns(own))),
            );
        }
        hidden_by_sidecar(cx, r, out);
    }
}

/// The rule that defines a subset is seen by fewer callers than the route that uses it.
fn hidden_rule<'a>(cx: &Cx<'a>, r: &Routing<'a>, dest: &Dest<'a>, out: &mut Out) {
    let Some(name) = dest.subset_name() else {
        return;
    };
    if !r.in_mesh() || !exported_to(r.obj.spec(), r.obj.ns, None) {
        return;
    }
    let mut rules = cx.index.rules_for(dest.host).filter(|rule| rule.subsets.iter().any(|s| s.name == name)).peekable();
    let Some(first) = rules.peek().map(|rule| rule.obj) else {
        return;
    };
    let home = match dest.host {
        Host::Service { ns, .. } => ns,
        Host::Literal(_) | Host::Wildcard(_) => return,
    };
    // A rule beside its route, for a host of others: a team's own way out.
    if first.ns == r.obj.ns && cx.index.service(dest.host).is_none() {
        return;
    }
    let applies_to_all = |rule: &crate::model::Rule<'_>| {
        let at_home = may_be_same(rule.obj.ns, home) || rule.obj.ns == Some("istio-system");
        at_home && exported_to(rule.obj.spec(), rule.obj.ns, None)
    };
    if rules.any(applies_to_all) {
        return;
    }
    let exported = exported_to(first.spec(), first.ns, None);
    let own = known(first.ns).unwrap_or("its own namespace");
    let loc = match first.spec() {
        Some(spec) if !exported => spec.key_loc("exportTo"),
        _ => first.name_loc(),
    };
    let label = if exported {
        format!("a rule in {own} serves callers of {own} alone")
    } else {
        "not all who see the route see this rule".to_owned()
    };
    out.add(
        Finding::at(loc, label)
            .related(dest.loc(), "used by a route that everybody sees")
            .effect(format!("callers of other namespaces get 503 (NC) for their share to {name}"))
            .help(if exported { "put the rule into the Service's namespace".to_owned() } else { "export both alike".to_owned() }),
    );
}

/// A Sidecar of the route's own namespace that does not let callers there see the host.
fn hidden_by_sidecar<'a>(cx: &Cx<'a>, r: &Routing<'a>, out: &mut Out) {
    if !r.in_mesh() || known(r.obj.ns).is_none() {
        return;
    }
    for sidecar in cx.index.of(Kind::Sidecar).filter(|s| s.ns == r.obj.ns) {
        let Some(spec) = sidecar.spec() else { continue };
        if spec.get("workloadSelector").is_some() || spec.get("egress").is_none() {
            continue;
        }
        for (view, routed) in &r.hosts {
            let Host::Service { name, ns: Some(ns) } = *routed else {
                continue;
            };
            // Callers inside the service's own namespace are judged by its own Sidecar.
            if Some(ns) == sidecar.ns {
                continue;
            }
            let full = format!("{name}.{ns}.svc.cluster.local");
            let visible =
                spec.list("egress").flat_map(|e| e.list("hosts")).filter_map(View::str).any(|h| imports(h, ns, &full, sidecar.ns));
            if visible {
                continue;
            }
            out.add(
                Finding::at(spec.key_loc("egress"), format!("{ns}/{full} is not among them"))
                    .related(view.loc(), "routes for this host")
                    .effect(format!("pods in namespace {} do not know the host and go around its routes", sidecar.ns.unwrap_or("")))
                    .help(format!("add \"{ns}/{full}\" to the hosts of an egress"))
                    .severity(Severity::Warning),
            );
        }
    }
}

pub(super) fn imports(pattern: &str, ns: &str, full: &str, own: Ns<'_>) -> bool {
    let (space, name) = pattern.split_once('/').unwrap_or(("*", pattern));
    let space_fits = match space {
        "*" => true,
        "." => own == Some(ns),
        "~" => false,
        other => other == ns,
    };
    let name_fits = match name.strip_prefix('*') {
        Some(suffix) => full.ends_with(suffix),
        None => name == full,
    };
    space_fits && name_fits
}

/// Whether a destination's host exists as far as the input shows; `None`: it cannot know.
pub(super) fn unknown<'a>(cx: &Cx<'a>, h: Host<'a>) -> Option<String> {
    let index = cx.index;
    match h {
        Host::Service { name, ns } => {
            let full = format!("{name}.{}.svc.cluster.local", said(ns));
            let made = index.service(h).is_some() || has_entry(index, &full) || has_entry(index, name) || index.made_by_flagger(ns, name);
            // Elsewhere in the input by the same short name: SRN317 says so.
            let elsewhere = index.services_named(name).next().is_some();
            let told = index.settled() || index.has(Kind::Service, ns);
            (!made && !elsewhere && told).then(|| format!("it is right if the cluster has a Service {name}{}", in_ns(ns)))
        }
        Host::Literal(text) => {
            let told = index.settled() || index.of(Kind::ServiceEntry).next().is_some();
            let half = text.ends_with(".svc") || {
                let mut parts = text.split('.');
                let name = parts.next().unwrap_or("");
                index.services_named(name).next().is_some() && parts.count() == 1
            };
            (told && !half && !has_entry(index, text)).then(|| format!("it is right if a ServiceEntry in the cluster has {text}"))
        }
        Host::Wildcard(_) => None,
    }
}

/// SRN319
pub(super) fn unknown_host(cx: &Cx<'_>, out: &mut Out) {
    let mut told = std::collections::HashSet::new();
    for n in names(cx.index) {
        // Once for a host in an object.
        if n.role == Role::Routed || !told.insert((n.owner, n.text)) {
            continue;
        }
        let Some(unless) = unknown(cx, n.host) else {
            continue;
        };
        let mut f = Finding::at(n.view.loc(), format!("no {} is in the input", thing(n.host)))
            .effect(match n.role {
                Role::Sent => "requests sent there get 503",
                Role::Ruled | Role::Routed => "this rule applies to nobody",
            })
            .depends(unless);
        let near = nearest(
            n.text.split('.').next().unwrap_or(""),
            cx.index.services.iter().filter(|s| may_be_same(s.obj.ns, n.ns)).map(|s| s.obj.name),
        );
        if let Some(near) = near {
            f = f.help(format!("did you mean {near}?"));
        } else {
            f = f.help("name a Service, or add a ServiceEntry for the host");
        }
        out.add(f);
    }
}

fn thing(h: Host<'_>) -> String {
    match h {
        Host::Service { name, ns } => format!("Service {name}{}", in_ns(ns)),
        Host::Literal(text) | Host::Wildcard(text) => format!("ServiceEntry for {text}"),
    }
}
