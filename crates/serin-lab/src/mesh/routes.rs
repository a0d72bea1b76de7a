//! Envoy's route tables: for callers inside the mesh, and for each port of a Gateway.
//!
//! Pure. Which VirtualService is heard for which host is decided here; what one of its routes does is the room of `http`.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::google::protobuf::BoolValue;
use serde_json::Value;

use super::delegate;
use super::hosts;
use super::http::{self, Place};
use super::rules::Rule;
use super::translate::{Caller, Complaint, OUTBOUND, Server};
use super::world::{Port, Protocol, Service, World, exported, list, text};

/// The name under which a VirtualService is bound to the sidecars.
pub(super) const MESH: &str = "mesh";

/// What routes are made from.
#[derive(Clone, Copy)]
pub(super) struct View<'w> {
    /// All objects.
    pub(super) world: &'w World,
    /// Who calls inside the mesh.
    pub(super) caller: &'w Caller,
    /// The proxy that plays the gateways.
    pub(super) gateway: &'w Caller,
    /// What DestinationRules say, by host.
    pub(super) rules: &'w BTreeMap<&'w str, Rule<'w>>,
}

/// The table of callers inside the mesh: each port of each service under all its names, with the VirtualService that is heard for it.
///
/// Of several VirtualServices for a host the oldest is heard and no other; an exact host comes before a pattern, a longer pattern
/// before a shorter one. One that has no route for this caller and port is as if it were not there. The bare name stands for port
/// 80, or else the service's first: the lab's callers all call at one port of the kernel's choice.
pub(super) fn outbound(view: &View<'_>, complaints: &mut Vec<Complaint>) -> route::RouteConfiguration {
    let caller = view.caller;
    let mut inside: Vec<(u8, &Value)> = Vec::new();
    for vs in view.world.routes.iter().filter(|vs| bound(vs).contains(MESH)) {
        inside.extend(exported(vs, &caller.namespace).map(|rank| (rank, &**vs)));
    }
    inside.sort_by_key(|(rank, _)| *rank);
    let inside: Vec<&Value> = inside.into_iter().map(|(_, vs)| vs).collect();
    let heard = |host: &str| {
        let mut fitting: Vec<(&Value, String)> = Vec::new();
        for vs in &inside {
            let own = hosts_of(vs);
            let best = own.into_iter().filter(|h| hosts::covers(h, host)).max_by_key(|h| hosts::closeness(h));
            fitting.extend(best.map(|h| (*vs, h)));
        }
        // The sort is stable: among equals the oldest stays first.
        fitting.sort_by_key(|(_, h)| std::cmp::Reverse(hosts::closeness(h)));
        fitting.into_iter().map(|(vs, _)| vs).collect::<Vec<_>>()
    };
    let mut routes_of = |host: &str, port: u16| {
        let place = Place { view: *view, gateway: MESH, port };
        let found = heard(host).into_iter().map(|vs| (vs, table_of(&place, vs, complaints))).find(|(_, routes)| !routes.is_empty());
        found.map(|(vs, routes)| (inside.iter().position(|other| std::ptr::eq(*other, vs)), routes))
    };

    let mut wanted = Vec::new();
    for service in view.world.services.values() {
        let Some(main) = main_port(service) else { continue };
        for port in &service.ports {
            let own = match port.protocol {
                Protocol::Http | Protocol::Http2 => routes_of(&service.host, port.number),
                Protocol::Tcp => None,
            };
            let (by, routes) = own.unwrap_or_else(|| (None, vec![http::plain(view, service, port)]));
            let names = hosts::domains(&service.host, &caller.namespace);
            wanted.push(Wanted { by, host: service.host.clone(), names, port: port.number, main: port == main, routes });
        }
    }
    // Hosts of VirtualServices that are no services: only at port 80 and by the name as it is written, as with Istio.
    for host in inside.iter().flat_map(|vs| hosts_of(vs)).collect::<BTreeSet<_>>() {
        if view.world.services.keys().any(|s| hosts::covers(&host, s)) {
            continue;
        }
        if let Some((by, routes)) = routes_of(&host, 80) {
            wanted.push(Wanted { by, names: vec![host.clone()], host, port: 80, main: true, routes });
        }
    }
    // A name goes to the VirtualService that is heard first, and to a service without one last: `my-app.default`, which is no service, may
    // be a VirtualService's host and one of the names of `my-app`.
    wanted.sort_by_key(|w| w.by.unwrap_or(usize::MAX));
    let mut domains = Domains::default();
    let table = wanted.into_iter().map(|w| {
        let also: &[u16] = if w.main { &[caller.port] } else { &[] };
        virtual_host(&w.host, w.port, domains.take(&w.names, w.main, w.port, also), w.routes)
    });
    let table = table.collect();
    configuration(OUTBOUND, table, false)
}

/// One table per port of each Gateway: all VirtualServices that name it and share a host with it, merged, oldest first; routes for
/// everything go last. Callers outside know full names only.
pub(super) fn gateways(view: &View<'_>, complaints: &mut Vec<Complaint>) -> Vec<(Server, route::RouteConfiguration)> {
    let mut out = Vec::new();
    for gateway in &view.world.gateways {
        let (namespace, name) = (text(gateway, "/metadata/namespace"), text(gateway, "/metadata/name"));
        let full = format!("{namespace}/{name}");
        let mut ports: BTreeMap<u16, BTreeMap<String, Merged>> = BTreeMap::new();
        for server in list(gateway, "/spec/servers") {
            let Some(port) = server.pointer("/port/number").and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok()) else { continue };
            let protocol = text(server, "/port/protocol").to_ascii_uppercase();
            if !matches!(protocol.as_str(), "HTTP" | "HTTP2" | "GRPC" | "") {
                complaints.push(Complaint::about(
                    "Gateway",
                    gateway,
                    format!("port {port} is {protocol}, which the lab does not play: only HTTP"),
                ));
                continue;
            }
            let redirect = server.pointer("/tls/httpsRedirect") == Some(&Value::Bool(true));
            let table = ports.entry(port).or_default();
            for served in list(server, "/hosts").iter().filter_map(Value::as_str) {
                let (from, served) = served.split_once('/').unwrap_or(("*", served));
                let from = if from == "." { namespace } else { from };
                let served = served.to_ascii_lowercase();
                for vs in view.world.routes.iter().filter(|vs| bound(vs).contains(&full) && exported(vs, &view.gateway.namespace).is_some())
                {
                    if from != "*" && from != text(vs, "/metadata/namespace") {
                        continue;
                    }
                    for host in hosts_of(vs) {
                        let Some(host) = hosts::common(&served, &host) else { continue };
                        let merged = table.entry(host.to_string()).or_default();
                        merged.redirect |= redirect;
                        if merged.from.insert((text(vs, "/metadata/namespace").to_string(), text(vs, "/metadata/name").to_string())) {
                            merged.routes.extend(table_of(&Place { view: *view, gateway: &full, port }, vs, complaints));
                        }
                    }
                }
                if redirect {
                    table.entry(served).or_default().redirect = true;
                }
            }
        }
        for (port, merged) in ports {
            let virtual_hosts = merged.into_iter().map(|(host, mut merged)| {
                merged.routes.sort_by_key(catches_all);
                let mut out = virtual_host(&host, port, vec![host.clone()], merged.routes);
                if merged.redirect {
                    out.require_tls = route::virtual_host::TlsRequirementType::All as i32;
                }
                out
            });
            let server = Server { name: format!("gateway {full}:{port}"), gateway: full.clone(), port };
            let table = configuration(&server.name, virtual_hosts.collect(), true);
            out.push((server, table));
        }
    }
    out
}

/// A virtual host of the table inside the mesh, before names are given out.
struct Wanted {
    /// The place of its VirtualService among those that are heard; `None`: it has none.
    by: Option<usize>,
    host: String,
    /// The names by which it is called.
    names: Vec<String>,
    port: u16,
    /// Whether it is also called without a port.
    main: bool,
    routes: Vec<route::Route>,
}

/// What is known of one host at a gateway's port.
#[derive(Default)]
struct Merged {
    routes: Vec<route::Route>,
    from: BTreeSet<(String, String)>,
    redirect: bool,
}

/// Names that are given: each goes to one virtual host, the first that asks.
#[derive(Default)]
struct Domains(BTreeSet<String>);

impl Domains {
    /// Names with the service's port; without one where the port is the main one; with the caller's port, which clients write that
    /// were told to connect to it.
    fn take(&mut self, names: &[String], main: bool, port: u16, also: &[u16]) -> Vec<String> {
        let mut out = Vec::new();
        for name in names {
            // `*` covers every port already, and Envoy has no pattern for it with one.
            let ports: Vec<String> =
                if name == "*" { Vec::new() } else { std::iter::once(&port).chain(also).map(|p| format!("{name}:{p}")).collect() };
            out.extend(main.then(|| name.clone()).into_iter().chain(ports).filter(|d| self.0.insert(d.clone())));
        }
        out
    }
}

fn virtual_host(host: &str, port: u16, domains: Vec<String>, routes: Vec<route::Route>) -> route::VirtualHost {
    route::VirtualHost { name: format!("{host}:{port}"), domains, routes, ..Default::default() }
}

fn configuration(name: &str, virtual_hosts: Vec<route::VirtualHost>, any_port: bool) -> route::RouteConfiguration {
    route::RouteConfiguration {
        name: name.into(),
        virtual_hosts: virtual_hosts.into_iter().filter(|v| !v.domains.is_empty()).collect(),
        validate_clusters: Some(BoolValue { value: false }),
        ignore_port_in_host_matching: any_port,
        ..Default::default()
    }
}

/// The routes of a VirtualService in a place, up to the first that takes everything: what stands after it is never reached.
fn table_of(place: &Place<'_>, vs: &Value, complaints: &mut Vec<Complaint>) -> Vec<route::Route> {
    if !list(vs, "/spec/tcp").is_empty() || !list(vs, "/spec/tls").is_empty() {
        complaints.push(Complaint::about("VirtualService", vs, "tcp and tls routes are not played by the lab"));
    }
    let mut out = Vec::new();
    for http in delegate::routes(place.view.world, vs, complaints) {
        for route in http::routes(place, &http, complaints) {
            let last = catches_all(&route);
            out.push(route);
            if last {
                return out;
            }
        }
    }
    out
}

fn catches_all(route: &route::Route) -> bool {
    let Some(m) = &route.r#match else { return false };
    let any = matches!(&m.path_specifier, Some(route::route_match::PathSpecifier::Prefix(p)) if p == "/");
    any && m.headers.is_empty() && m.query_parameters.is_empty()
}

/// The hosts of a VirtualService, in full.
fn hosts_of(vs: &Value) -> Vec<String> {
    let namespace = text(vs, "/metadata/namespace");
    list(vs, "/spec/hosts").iter().filter_map(Value::as_str).map(|h| hosts::resolve(h, namespace)).collect()
}

/// The gateways that a VirtualService is bound to, as `namespace/name`; none named means the mesh.
fn bound(vs: &Value) -> BTreeSet<String> {
    let named = list(vs, "/spec/gateways");
    if named.is_empty() {
        return [MESH.to_string()].into();
    }
    named.iter().filter_map(Value::as_str).map(|g| full_gateway(g, text(vs, "/metadata/namespace"))).collect()
}

/// A gateway's name as `namespace/name`. Also read are `./name`, and the old form `name.namespace.svc.cluster.local`.
pub(super) fn full_gateway(written: &str, namespace: &str) -> String {
    if written == MESH {
        return written.to_string();
    }
    match (written.split_once('/'), written.split_once('.')) {
        (Some((".", name)), _) => format!("{namespace}/{name}"),
        (Some(_), _) => written.to_string(),
        (None, Some((name, rest))) => format!("{}/{name}", rest.split('.').next().unwrap_or(rest)),
        (None, None) => format!("{namespace}/{written}"),
    }
}

/// The port that a service's bare name stands for.
fn main_port(service: &Service) -> Option<&Port> {
    service.ports.iter().find(|p| p.number == 80).or_else(|| service.ports.first())
}
