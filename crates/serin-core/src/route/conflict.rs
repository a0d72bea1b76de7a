//! VirtualServices together: which of them the same callers would use for one host, and who delegates to whom.
//!
//! For a sidecar the oldest VirtualService of a host wins entirely, and the others might as well not be there. At a gateway
//! they are merged, and routes for every request are moved behind all others (`SortVHostRoutes`, Istio 1.31): teams share a
//! host with a path each, and that is no conflict, until two have a route for every request, of which only the older one's
//! is reached. A pair of one for the mesh and one for a gateway is the usual way to serve both, and no conflict. A
//! pattern and a host within it are none either: the more specific one wins, for every caller alike.
//!
//! Deliberately no Gateway objects: whether a gateway exists, and serves the host, is the linter's work.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::borrow::Borrow;

use serde_json::Value;

use super::host::{ServiceName, covers, is_wildcard, resolve};
use super::json::{age_key, list, namespace, object_name, text, texts};
use super::problem::{Place, RouteProblem};
use super::rules::export_to;
use super::structure::{MESH, in_mesh};
use super::survey::{VIRTUAL_SERVICE, takes_everything};
use crate::units::ObjectName;

/// Every pair of VirtualServices of which at least one is in `ours` that the same callers would use for one host. `all` are
/// all VirtualServices that are known, those of `ours` among them.
pub fn same_host<R: Borrow<Value>>(all: &[R], ours: &[ObjectName]) -> Vec<RouteProblem> {
    let bound: Vec<&Value> = all.iter().map(Borrow::borrow).filter(|vs| !is_delegate(vs)).collect();
    let is_ours = |vs: &&Value| ours.iter().any(|name| text(vs, "/metadata/name") == Some(&name.name) && namespace(vs) == name.namespace);
    let (mut ours, mut others): (Vec<&Value>, Vec<&Value>) = bound.into_iter().partition(is_ours);
    ours.sort_by_key(|vs| age_key(vs));
    others.sort_by_key(|vs| age_key(vs));
    let ours: Vec<Binding<'_>> = ours.into_iter().map(Binding::of).collect();
    let hosts: BTreeSet<String> = ours.iter().flat_map(|binding| binding.hosts.iter().cloned()).collect();
    // Asked of every VirtualService in the cluster: a name is built only where one is short.
    let known = |host: &str, of: &str| {
        if host.contains('.') { hosts.contains(&*host.to_ascii_lowercase()) } else { hosts.contains(&resolve(host, of)) }
    };
    let shares = |vs: &&Value| texts(vs, "/spec/hosts").any(|host| known(host, namespace(vs)));
    let others: Vec<Binding<'_>> = others.into_iter().filter(shares).map(Binding::of).collect();
    let mut problems = Vec::new();
    for (place, mine) in ours.iter().enumerate() {
        for other in ours.iter().skip(place + 1).chain(&others) {
            let (older, younger) = if age_key(mine.object) <= age_key(other.object) { (mine, other) } else { (other, mine) };
            let Some(host) = older.hosts.intersection(&younger.hosts).next() else { continue };
            let hides = |gateway: &&String| *gateway == MESH || (older.takes_everything() && younger.takes_everything());
            let mut shared = older.gateways.intersection(&younger.gateways).filter(|_| older.meets(younger)).filter(hides);
            let Some(gateway) = shared.next() else { continue };
            let merged = gateway != MESH;
            let callers = if merged { format!("gateway {gateway}") } else { "the mesh".to_owned() };
            let place = |binding: &Binding<'_>| Place::whole(VIRTUAL_SERVICE, binding.object);
            problems.push(RouteProblem::SameHost { at: place(older), other: place(younger), host: host.clone(), callers, merged });
        }
    }
    problems
}

/// Whether it is a delegate: it has no hosts of its own.
pub fn is_delegate(vs: &Value) -> bool {
    list(vs, "/spec/hosts").is_empty()
}

/// The VirtualServices that delegate to `delegate`, and may: it is exported to their namespace.
pub fn roots_of<'a, R: Borrow<Value>>(all: &'a [R], delegate: &Value) -> Vec<&'a Value> {
    let name = object_name(delegate);
    let exports = export_to(delegate);
    let delegates = |root: &&Value| {
        let visible = exports.contains("*") || exports.contains(namespace(root));
        visible && list(root, "/spec/http").iter().any(|route| delegate_of(root, route).as_ref() == Some(&name))
    };
    all.iter().map(Borrow::borrow).filter(|root| !is_delegate(root)).filter(delegates).collect()
}

/// Whether only requests that match something reach a delegate: each route that delegates to it has a match.
pub(super) fn reached_by_match_only<R: Borrow<Value>>(all: &[R], delegate: &Value) -> bool {
    let name = object_name(delegate);
    let roots = roots_of(all, delegate);
    let routes = roots.iter().flat_map(|root| list(root, "/spec/http").iter().map(move |route| (*root, route)));
    let mut delegating = routes.filter(|(root, route)| delegate_of(root, route).as_ref() == Some(&name)).peekable();
    delegating.peek().is_some() && delegating.all(|(_, route)| !takes_everything(route))
}

/// The VirtualService by which sidecars of the service's own namespace route calls to the service's name: of those bound to the
/// mesh and exported there, the one with the most specific host, the oldest among equals. `None`: such calls reach every version
/// by number of pods, whatever weights a gateway's VirtualService has.
pub fn mesh_route<'a, R: Borrow<Value>>(all: &'a [R], service: &ServiceName) -> Option<&'a Value> {
    let fqdn = service.fqdn();
    let mut best: Option<(&'a Value, (bool, usize))> = None;
    let serves = |vs: &&Value| texts(vs, "/spec/hosts").any(|host| service.is_covered_by(host, namespace(vs)));
    let mut sorted: Vec<&'a Value> = all.iter().map(Borrow::borrow).filter(serves).filter(|vs| in_mesh(vs)).collect();
    sorted.sort_by_key(|vs| age_key(vs));
    for vs in sorted {
        let exports = export_to(vs);
        if !exports.contains("*") && !exports.contains(&service.namespace) {
            continue;
        }
        let hosts = texts(vs, "/spec/hosts").map(|host| resolve(host, namespace(vs))).filter(|host| covers(host, &fqdn));
        let rank = hosts.map(|host| (!is_wildcard(&host), host.len())).max();
        if let Some(rank) = rank
            && best.is_none_or(|(_, known)| rank > known)
        {
            best = Some((vs, rank));
        }
    }
    best.map(|(vs, _)| vs)
}

/// A delegate that nobody delegates to, as a refusal.
pub fn unused_delegate<R: Borrow<Value>>(all: &[R], vs: &Value) -> Option<RouteProblem> {
    let unused = is_delegate(vs) && roots_of(all, vs).is_empty();
    unused.then(|| RouteProblem::UnusedDelegate { at: Place::whole(VIRTUAL_SERVICE, vs) })
}

/// The VirtualService that a route delegates to, if it does.
pub fn delegate_of(root: &Value, route: &Value) -> Option<ObjectName> {
    let name = text(route, "/delegate/name")?.to_owned();
    Some(ObjectName { namespace: text(route, "/delegate/namespace").unwrap_or_else(|| namespace(root)).to_owned(), name })
}

/// The gateways that a VirtualService is bound to: `mesh`, or `NAMESPACE/NAME`.
pub fn gateways(vs: &Value) -> BTreeSet<String> {
    let named: BTreeSet<String> = texts(vs, "/spec/gateways").map(|gateway| gateway_name(gateway, namespace(vs))).collect();
    if named.is_empty() { BTreeSet::from([MESH.to_owned()]) } else { named }
}

/// `resolveGatewayName`, Istio 1.31: a bare name is of the object's namespace; the old `NAME.NAMESPACE…` form is still read.
fn gateway_name(written: &str, namespace: &str) -> String {
    if written == MESH {
        return written.to_owned();
    }
    match written.split_once('/') {
        Some((".", name)) => format!("{namespace}/{name}"),
        Some(_) => written.to_owned(),
        None => match written.split_once('.') {
            Some((name, rest)) => format!("{}/{name}", rest.split('.').next().unwrap_or(rest)),
            None => format!("{namespace}/{written}"),
        },
    }
}

/// For whom a VirtualService routes which hosts.
struct Binding<'a> {
    object: &'a Value,
    hosts: BTreeSet<String>,
    gateways: BTreeSet<String>,
    exports: BTreeSet<String>,
}

impl<'a> Binding<'a> {
    fn of(vs: &'a Value) -> Self {
        let hosts = texts(vs, "/spec/hosts").map(|host| resolve(host, namespace(vs))).collect();
        Self { object: vs, hosts, gateways: gateways(vs), exports: export_to(vs) }
    }

    /// Whether it has a route for every request.
    fn takes_everything(&self) -> bool {
        list(self.object, "/spec/http").iter().any(takes_everything)
    }

    /// Whether some namespace sees both.
    fn meets(&self, other: &Self) -> bool {
        let all = |b: &Self| b.exports.contains("*");
        all(self) || all(other) || !self.exports.is_disjoint(&other.exports)
    }
}
