//! Gateways and the routes bound to them.

use super::{Cx, Out, list, nearest, percent};
use crate::diag::{Finding, append_item, fix};
use crate::index::Index;
use crate::model::{Routing, labels, matches};
use crate::object::{Host, Kind, Ns, Object, known, said, same_host};
use crate::yaml::View;

/// A reference to a Gateway: its namespace and name.
fn reference<'a>(text: &'a str, own: Ns<'a>) -> (Ns<'a>, &'a str) {
    match text.split_once('/') {
        Some((ns, name)) => (Some(ns), name),
        None => (own, text),
    }
}

/// Gateways that a VirtualService names, `mesh` left out: the reference and the object.
fn named<'c, 'a>(index: &'c Index<'a>, r: &Routing<'a>) -> Vec<(View<'a>, Option<&'c Object<'a>>)> {
    r.gateways
        .iter()
        .filter_map(|v| Some((*v, v.str()?)))
        .filter(|(_, text)| *text != "mesh")
        .map(|(v, text)| {
            let (ns, name) = reference(text, r.obj.ns);
            (v, index.find(Kind::Gateway, ns, name))
        })
        .collect()
}

/// SRN301
pub(super) fn mesh_missing(cx: &Cx<'_>, out: &mut Out) {
    let index = cx.index;
    for r in &index.routings {
        if r.in_mesh() || r.is_delegate() {
            continue;
        }
        let inside = |h: &Host<'_>| matches!(h, Host::Service { .. });
        let Some((_, host)) = r.hosts.iter().find(|(_, h)| inside(h)) else {
            continue;
        };
        // Only routes that tell versions apart are missed by those who go around them.
        let Some(route) = r.routes.iter().find(|route| route.dests.iter().any(|d| d.subset.is_some()) || route.is_split()) else {
            continue;
        };
        let covered = index
            .routings
            .iter()
            .any(|other| other.obj.id != r.obj.id && other.in_mesh() && other.hosts.iter().any(|(_, h)| same_host(*h, *host)));
        if covered {
            continue;
        }
        let Some(spec) = r.obj.spec() else { continue };
        let names = list(r.gateways.iter().filter_map(|g| g.str()));
        let mut f = Finding::at(spec.key_loc("gateways"), format!("only {names}; `mesh` is not among them"))
            .effect(bypass(index, route, *host))
            .help("add `mesh`, or remove `gateways` if nobody calls from outside");
        if let Some(gateways) = spec.get("gateways") {
            f = f.fix(fix("add `mesh` to `gateways`", [append_item(gateways, "mesh")]));
        }
        out.add(f);
    }
}

fn bypass<'a>(index: &Index<'a>, route: &crate::model::Route<'a>, host: Host<'a>) -> String {
    let service = index.service(host);
    let name = match host {
        Host::Service { name, .. } => name,
        Host::Literal(text) | Host::Wildcard(text) => text,
    };
    let start = format!("requests from pods in the mesh reach every pod of Service {name}");
    let numbers = service.and_then(|s| {
        let all = index.pods(&s.workloads).filter(|n| *n > 0)?;
        // The smallest share tells most about what a canary was meant to get.
        let dest = route.dests.iter().min_by(|a, b| route.share(a).total_cmp(&route.share(b)))?;
        let mine = index.pods(&index.reached(dest)?)?;
        #[expect(clippy::cast_precision_loss, reason = "pods are few")]
        let real = mine as f64 / all as f64;
        let meant = route.share(dest);
        if (real - meant).abs() < 0.005 {
            return None;
        }
        Some(format!(", {} on {} ({mine} of {all} pods) instead of {}", percent(real), dest.label(), percent(meant)))
    });
    match numbers {
        Some(numbers) => start + &numbers,
        None => start + ": their share is by pods, not by weight",
    }
}

/// SRN302
pub(super) fn missing_gateway(cx: &Cx<'_>, out: &mut Out) {
    for r in &cx.index.routings {
        for (v, found) in named(cx.index, r) {
            let text = v.str().unwrap_or("");
            if found.is_some() || text.is_empty() {
                continue;
            }
            let (ns, name) = reference(text, r.obj.ns);
            let foreign = ns != r.obj.ns;
            // Gateways of other namespaces belong to other people's files.
            if foreign && !cx.index.settled() && !cx.index.has(Kind::Gateway, ns) {
                continue;
            }
            let names = cx.index.of(Kind::Gateway).map(|g| g.name);
            let mut f = Finding::at(v.loc(), format!("no Gateway {name} is in the input"))
                .effect(if r.in_mesh() {
                    "requests from outside get 404 for these hosts; callers inside are served"
                } else {
                    "this VirtualService serves nobody: requests from outside get 404"
                })
                .depends(format!("it is right if the cluster has a Gateway {name}{}", super::in_ns(ns)));
            if let Some(hint) = nearest(name, names) {
                f = f.help(format!("did you mean {hint}?"));
            } else if let Some(other) = cx.index.of(Kind::Gateway).find(|g| g.name == name) {
                let ns = known(other.ns).unwrap_or("its namespace");
                f = f.related(other.name_loc(), "this one is in another namespace").help(format!("write {ns}/{name}"));
            } else {
                f = f.help("name a Gateway that exists, as name or namespace/name");
            }
            out.add(f);
        }
    }
}

/// Hosts of a Gateway's servers, with the server.
fn served<'a>(gateway: &Object<'a>) -> Vec<(View<'a>, &'a str, View<'a>)> {
    let mut found = Vec::new();
    for server in gateway.spec().into_iter().flat_map(|s| s.list("servers")) {
        for host in server.list("hosts") {
            if let Some(text) = host.str() {
                found.push((host, text, server));
            }
        }
    }
    found
}

/// Whether host patterns of a route and of a server have a name in common, as Istio takes it.
fn overlap(a: &str, b: &str) -> bool {
    let within = |inner: &str, outer: &str| match outer.strip_prefix('*') {
        None => inner.eq_ignore_ascii_case(outer),
        Some(suffix) => inner.to_ascii_lowercase().ends_with(&suffix.to_ascii_lowercase()),
    };
    within(a, b) || within(b, a)
}

fn serves(gateway: &Object<'_>, pattern: &str, host: &str, ns: Ns<'_>) -> bool {
    let (space, name) = match pattern.split_once('/') {
        Some((space, name)) => (space, name),
        None => ("*", pattern),
    };
    let allowed = match space {
        "*" => true,
        "." => gateway.ns == ns || known(ns).is_none() || known(gateway.ns).is_none(),
        other => known(ns).is_none() || ns == Some(other),
    };
    allowed && overlap(host, name)
}

/// SRN303
pub(super) fn host_not_served(cx: &Cx<'_>, out: &mut Out) {
    for r in &cx.index.routings {
        let gateways = named(cx.index, r);
        if gateways.is_empty() || gateways.iter().any(|(_, g)| g.is_none()) {
            continue;
        }
        let objects = || gateways.iter().filter_map(|(_, g)| *g);
        let is_served = |view: &View<'_>, host: &Host<'_>| {
            let text = view.str().unwrap_or("");
            let full = match host {
                Host::Service { name, ns } => {
                    format!("{name}.{}.svc.cluster.local", said(*ns))
                }
                Host::Literal(_) | Host::Wildcard(_) => text.to_owned(),
            };
            objects()
                .any(|g| served(g).iter().any(|(_, pattern, _)| serves(g, pattern, &full, r.obj.ns) || serves(g, pattern, text, r.obj.ns)))
        };
        let any = r.hosts.iter().any(|(v, h)| is_served(v, h));
        for (view, host) in &r.hosts {
            // A name for callers inside needs no gateway; without `mesh` SRN301 speaks.
            let inside = matches!(host, Host::Service { .. });
            if inside && (any || r.in_mesh()) || is_served(view, host) {
                continue;
            }
            let text = view.str().unwrap_or("");
            // In-mesh callers may use any name too; with `mesh` only a wholly unserved list
            // is a mistake beyond doubt.
            let mut f = Finding::at(view.loc(), "no server of its Gateways has this host");
            for g in objects() {
                let hosts: Vec<_> = served(g).iter().map(|(_, h, _)| *h).collect();
                let loc = g.spec().map_or_else(|| g.name_loc(), |s| s.key_loc("servers"));
                f = f.related(loc, format!("Gateway {} serves {}", g.name, list(hosts)));
            }
            if r.in_mesh() {
                f = f.severity(crate::diag::Severity::Warning);
            }
            out.add(
                f.effect(format!("requests from outside for {text} get 404"))
                    .help("add the host to a server of the Gateway, or remove it here"),
            );
        }
    }
}

/// SRN304
pub(super) fn selects_nothing(cx: &Cx<'_>, out: &mut Out) {
    let is_proxy = |w: &crate::model::Workload<'_>| {
        w.label("istio").is_some_and(|v| v.contains("gateway"))
            || w.template.at(&["metadata", "annotations"]).and_then(|a| a.str_at("inject.istio.io/templates")) == Some("gateway")
    };
    for g in cx.index.of(Kind::Gateway) {
        let Some(spec) = g.spec() else { continue };
        // Gateways are mostly installed by other means; their pods in the same namespace are a
        // sign that these are not.
        let proxies = cx.index.workloads.iter().filter(|w| is_proxy(w) && w.obj.ns == g.ns).count();
        if !cx.index.settled() && proxies == 0 {
            continue;
        }
        let want = labels(spec.get("selector"));
        if want.is_empty() || cx.index.workloads.iter().any(|w| matches(&want, &w.labels)) {
            continue;
        }
        let mut f = Finding::at(spec.key_loc("selector"), format!("no pods carry {}", crate::model::show(&want)))
            .effect("no proxy opens the ports of this Gateway: nobody outside is answered")
            .depends(format!("it is right if gateway pods in the cluster carry {}", crate::model::show(&want)));
        if let Some(w) = cx.index.workloads.iter().find(|w| is_proxy(w)) {
            f = f.related(w.labels_loc(), format!("the gateway's pods carry {}", crate::model::show(&w.labels)));
        }
        out.add(f.help("use labels of the gateway's pods, often `istio: ingressgateway`"));
    }
}

/// SRN305
pub(super) fn port_and_tls(cx: &Cx<'_>, out: &mut Out) {
    for g in cx.index.of(Kind::Gateway) {
        for server in g.spec().into_iter().flat_map(|s| s.list("servers")) {
            let Some(protocol) = server.at(&["port", "protocol"]) else {
                continue;
            };
            let word = protocol.str().unwrap_or("").to_ascii_uppercase();
            let tls = server.get("tls");
            let secure = matches!(word.as_str(), "HTTPS" | "TLS");
            let plain = matches!(word.as_str(), "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB");
            match tls {
                None if secure => out.add(
                    Finding::at(protocol.loc(), "this server has no `tls`")
                        .effect("Istio refuses the Gateway: nothing is served on this port")
                        .help("add tls with a mode, or use protocol HTTP"),
                ),
                Some(tls) if plain => {
                    let only_redirect = tls.fields().all(|f| f.key == "httpsRedirect");
                    if !only_redirect {
                        out.add(
                            Finding::at(server.key_loc("tls"), "a plain HTTP port has no TLS")
                                .related(protocol.loc(), "plain HTTP")
                                .effect("Istio refuses the Gateway")
                                .help("use protocol HTTPS, or keep httpsRedirect alone"),
                        );
                    }
                }
                Some(tls) if secure => server_tls(cx, g, server, tls, out),
                _ => {}
            }
        }
    }
}

fn server_tls<'a>(cx: &Cx<'a>, g: &Object<'a>, server: View<'a>, tls: View<'a>, out: &mut Out) {
    let has_certificate =
        ["credentialName", "credentialNames", "serverCertificate", "tlsCertificates"].iter().any(|k| tls.get(k).is_some());
    let mode = tls.str_at("mode");
    match mode {
        Some("SIMPLE" | "MUTUAL" | "OPTIONAL_MUTUAL") if !has_certificate => out.add(
            Finding::at(tls.key_loc("mode"), "no certificate is named")
                .effect("Istio refuses the Gateway, or the handshake fails")
                .help("add credentialName: the Secret with the certificate"),
        ),
        None if has_certificate => out.add(
            Finding::at(server.key_loc("tls"), "without `mode` it is PASSTHROUGH")
                .effect("the certificate is not used and http routes see no request")
                .help("add mode: SIMPLE"),
        ),
        None | Some("PASSTHROUGH") if !has_certificate => {
            passthrough(cx, g, server, tls, out);
        }
        _ => {}
    }
}

/// A VirtualService whose hosts only a passing-through server has needs `tls` routes.
fn passthrough<'a>(cx: &Cx<'a>, g: &Object<'a>, server: View<'a>, tls: View<'a>, out: &mut Out) {
    for r in &cx.index.routings {
        let bound = named(cx.index, r).iter().any(|(_, o)| o.is_some_and(|o| o.id == g.id));
        let kind = |k| r.routes.iter().any(|route| route.kind == k);
        if !bound
            || !kind(crate::model::RouteKind::Http)
            || kind(crate::model::RouteKind::Tls)
            || kind(crate::model::RouteKind::Tcp)
            || r.gateways.len() > 1
        {
            continue;
        }
        for (view, _) in &r.hosts {
            let text = view.str().unwrap_or("");
            let all = served(g);
            let mut hits = all.iter().filter(|(_, p, _)| serves(g, p, text, r.obj.ns)).peekable();
            let only_here = hits.peek().is_some() && hits.all(|(_, _, s)| s.loc() == server.loc());
            if only_here {
                out.add(
                    Finding::at(
                        r.obj.spec().map_or_else(|| view.loc(), |s| s.key_loc("http")),
                        "http routes, but TLS passes through unopened",
                    )
                    .related(tls.field("mode").map_or_else(|| server.key_loc("tls"), |f| f.value.loc()), "PASSTHROUGH")
                    .effect(format!("requests for {text} match none of these routes"))
                    .help("use `tls` routes with sniHosts, or mode SIMPLE with a certificate"),
                );
                return;
            }
        }
    }
}
