//! The caches: what the watches said, indexed so that one look costs the same among ten releases or ten thousand.
//!
//! Every change answers with the releases it may concern; a change that touches nothing Serin reads concerns none.
//! Deliberately no I/O and no judgement.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use kube::core::{ApiResource, DynamicObject};
use serde_json::Value;
use serin_core::route::host::{covers, is_wildcard};
use serin_core::route::{Selection, ServiceName};
use serin_core::units::ObjectName;

use super::project::{self, Autoscaler, Deployment, Policy, ProxyPod, Release, Rule, Service, Slice, VirtualService};
use crate::kinds::Kind;
use crate::watch::{Change, WatchEvent};

/// Releases by name.
pub(crate) type Dirty = BTreeSet<ObjectName>;

/// A few names, sorted. Nearly always one: a tree would take five times the memory.
type Names = Vec<ObjectName>;

/// The slices of one Service, by name: one or two.
type Slices = Vec<(Box<str>, Arc<Slice>)>;

type ByNamespace<T> = HashMap<String, BTreeMap<String, T>>;

/// How far one watch has come.
#[derive(Default)]
struct Watched {
    /// Names that the running list has told.
    listing: Option<HashSet<ObjectName>>,
    /// Listed once in full, or known to be missing.
    synced: bool,
}

/// Everything that is known of the cluster.
#[derive(Default)]
pub(crate) struct Cluster {
    watches: HashMap<(Kind, Option<String>), Watched>,
    resources: HashMap<Kind, ApiResource>,
    missing: BTreeMap<Kind, String>,
    /// In order, so that those of a namespace stand together.
    releases: BTreeMap<ObjectName, Arc<Release>>,
    policies: HashMap<ObjectName, Arc<Policy>>,
    by_host: HashMap<String, Names>,
    deployments: ByNamespace<Arc<Deployment>>,
    services: HashMap<ObjectName, Arc<Service>>,
    /// Slices by the Service's name.
    slices: HashMap<ObjectName, Slices>,
    slice_service: HashMap<ObjectName, ObjectName>,
    routes: HashMap<ObjectName, Arc<VirtualService>>,
    routes_to: HashMap<String, Names>,
    routes_for: HashMap<String, Names>,
    /// VirtualServices by the delegates that they name.
    roots_of: HashMap<ObjectName, Names>,
    rules: HashMap<ObjectName, Arc<Rule>>,
    /// By resolved host, and by pattern: patterns are few, and looked through one by one.
    rules_for: HashMap<String, Names>,
    patterns: HashMap<String, Names>,
    /// Autoscalers by namespace and Deployment, with the kind and name of each.
    autoscalers: HashMap<ObjectName, BTreeMap<(Kind, String), String>>,
    scales: HashMap<(Kind, ObjectName), ObjectName>,
    proxies: HashMap<ObjectName, ProxyPod>,
}

/// Whether `new` may replace what is stored: resource versions grow, as far as they are numbers.
fn not_older(old: &str, new: &str) -> bool {
    match (old.parse::<u64>(), new.parse::<u64>()) {
        (Ok(old), Ok(new)) => new >= old,
        _ => true,
    }
}

fn index<K: Clone + Eq + std::hash::Hash>(map: &mut HashMap<K, Names>, keys: &[K], name: &ObjectName) {
    for key in keys {
        let names = map.entry(key.clone()).or_default();
        if let Err(at) = names.binary_search(name) {
            names.reserve_exact(1);
            names.insert(at, name.clone());
        }
    }
}

fn unindex<K: Eq + std::hash::Hash>(map: &mut HashMap<K, Names>, keys: &[K], name: &ObjectName) {
    for key in keys {
        if let Some(names) = map.get_mut(key) {
            names.retain(|other| other != name);
            if names.is_empty() {
                map.remove(key);
            }
        }
    }
}

impl Cluster {
    /// Says which watches there will be, so that `synced` knows what to wait for.
    pub(crate) fn expect(&mut self, kind: Kind, scope: Option<String>) {
        self.watches.entry((kind, scope)).or_default();
    }

    /// Whether every watch has listed once.
    pub(crate) fn synced(&self) -> bool {
        self.watches.values().all(|w| w.synced)
    }

    /// Kinds that are not served, with what to do.
    pub(crate) fn missing(&self, kind: Kind) -> Option<&str> {
        self.missing.get(&kind).map(String::as_str)
    }

    /// The resource by which a kind is served.
    pub(crate) fn resource(&self, kind: Kind) -> ApiResource {
        self.resources.get(&kind).cloned().unwrap_or_else(|| kind.builtin())
    }

    /// Takes in one event of a watch; answers with the releases that should be looked at.
    pub(crate) fn apply(&mut self, event: WatchEvent) -> Dirty {
        let WatchEvent { kind, scope, change } = event;
        match change {
            Change::Found(resource) => {
                self.resources.insert(kind, resource);
                if self.missing.remove(&kind).is_some() { self.all() } else { Dirty::new() }
            }
            Change::Missing(why) => {
                self.watches.entry((kind, scope)).or_default().synced = true;
                if kind.is_optional() && kind != Kind::Policy {
                    return Dirty::new();
                }
                if self.missing.insert(kind, why.clone()).is_none_or(|before| before != why) {
                    if kind != Kind::Policy {
                        tracing::warn!(?kind, "{why}");
                    }
                    return self.all();
                }
                Dirty::new()
            }
            Change::Init => {
                self.watches.entry((kind, scope)).or_default().listing = Some(HashSet::new());
                Dirty::new()
            }
            Change::Apply(object) => {
                let watched = self.watches.entry((kind, scope)).or_default();
                let listed = watched.listing.as_mut().map(|names| names.insert(project::name_of(&object))).is_some();
                self.put(kind, &object, listed)
            }
            Change::Delete(object) => self.remove(kind, &project::name_of(&object)),
            Change::InitDone => {
                let watched = self.watches.entry((kind, scope.clone())).or_default();
                watched.synced = true;
                let listed = watched.listing.take().unwrap_or_default();
                let gone: Vec<ObjectName> = self
                    .names(kind)
                    .into_iter()
                    .filter(|n| scope.as_ref().is_none_or(|s| *s == n.namespace) && !listed.contains(n))
                    .collect();
                gone.iter().flat_map(|name| self.remove(kind, name)).collect()
            }
        }
    }

    /// Takes in the answer to a write, which is newer than what the watch has told so far.
    pub(crate) fn learn(&mut self, kind: Kind, object: &DynamicObject) {
        self.put(kind, object, false);
    }

    /// Takes in that an object was deleted, before the watch tells.
    pub(crate) fn forget(&mut self, kind: Kind, name: &ObjectName) {
        self.remove(kind, name);
    }

    fn all(&self) -> Dirty {
        self.releases.keys().cloned().collect()
    }

    fn names(&self, kind: Kind) -> Vec<ObjectName> {
        match kind {
            Kind::Release => self.releases.keys().cloned().collect(),
            Kind::Policy => self.policies.keys().cloned().collect(),
            Kind::Deployment => {
                let of = |(ns, names): (&String, &BTreeMap<String, Arc<Deployment>>)| {
                    names.keys().map(|name| ObjectName { namespace: ns.clone(), name: name.clone() }).collect::<Vec<_>>()
                };
                self.deployments.iter().flat_map(of).collect()
            }
            Kind::Service => self.services.keys().cloned().collect(),
            Kind::EndpointSlice => self.slice_service.keys().cloned().collect(),
            Kind::VirtualService => self.routes.keys().cloned().collect(),
            Kind::DestinationRule => self.rules.keys().cloned().collect(),
            Kind::Autoscaler | Kind::ScaledObject => self.scales.keys().filter(|(k, _)| *k == kind).map(|(_, n)| n.clone()).collect(),
            Kind::Pod => self.proxies.keys().cloned().collect(),
        }
    }

    /// Stores an object. A listed one replaces whatever is stored; a watched one only what is not newer.
    fn put(&mut self, kind: Kind, object: &DynamicObject, listed: bool) -> Dirty {
        let name = project::name_of(object);
        match kind {
            Kind::Release => self.put_release(name, project::release(object), listed),
            Kind::Policy => {
                let new = Arc::new(project::policy(object));
                if self.policies.insert(name.clone(), new.clone()).is_some_and(|old| old == new) {
                    return Dirty::new();
                }
                self.of_policy(&name)
            }
            Kind::Deployment => self.put_deployment(&name, project::deployment(object)),
            Kind::Service => {
                let new = Arc::new(project::service(object));
                if self.services.get(&name).is_some_and(|old| *old == new) {
                    return Dirty::new();
                }
                self.services.insert(name.clone(), new);
                self.of_service(&name)
            }
            Kind::EndpointSlice => match project::slice(object) {
                Some(slice) => self.put_slice(name, slice),
                None => self.remove(kind, &name),
            },
            Kind::VirtualService => self.put_route(name, project::virtual_service(object), listed),
            Kind::DestinationRule => self.put_rule(name, project::rule(object), listed),
            Kind::Autoscaler | Kind::ScaledObject => match project::autoscaler(object) {
                Some(autoscaler) => self.put_autoscaler(kind, name, autoscaler),
                None => self.remove(kind, &name),
            },
            Kind::Pod => {
                match project::proxy_pod(object) {
                    Some(pod) => self.proxies.insert(name, pod),
                    None => self.proxies.remove(&name),
                };
                Dirty::new()
            }
        }
    }

    fn remove(&mut self, kind: Kind, name: &ObjectName) -> Dirty {
        match kind {
            Kind::Release => {
                let Some(old) = self.releases.remove(name) else { return Dirty::new() };
                let host = host_of(&old);
                unindex(&mut self.by_host, std::slice::from_ref(&host), name);
                // Itself too, so that whoever keeps anything for it lets it go.
                self.of_host(&host).into_iter().chain([name.clone()]).collect()
            }
            Kind::Policy => {
                self.policies.remove(name);
                self.of_policy(name)
            }
            Kind::Deployment => {
                let Some(old) = self.deployments.get_mut(&name.namespace).and_then(|d| d.remove(&name.name)) else { return Dirty::new() };
                self.of_pods(&name.namespace, &[&old.labels])
            }
            Kind::Service => {
                self.services.remove(name);
                self.of_service(name)
            }
            Kind::EndpointSlice => {
                let Some(service) = self.slice_service.remove(name) else { return Dirty::new() };
                if let Some(slices) = self.slices.get_mut(&service) {
                    slices.retain(|(slice, _)| **slice != *name.name);
                    if slices.is_empty() {
                        self.slices.remove(&service);
                    }
                }
                self.of_service(&service)
            }
            Kind::VirtualService => {
                let Some(old) = self.routes.remove(name) else { return Dirty::new() };
                self.forget_route(name, &old);
                self.of_route(name, &[&old])
            }
            Kind::DestinationRule => {
                let Some(old) = self.rules.remove(name) else { return Dirty::new() };
                unindex(self.rule_index(&old.host), std::slice::from_ref(&old.host), name);
                self.of_rule(&[&old.host])
            }
            Kind::Autoscaler | Kind::ScaledObject => {
                let Some(deployment) = self.scales.remove(&(kind, name.clone())) else { return Dirty::new() };
                if let Some(scalers) = self.autoscalers.get_mut(&deployment) {
                    scalers.remove(&(kind, name.name.clone()));
                    if scalers.is_empty() {
                        self.autoscalers.remove(&deployment);
                    }
                }
                self.of_deployment(&deployment)
            }
            Kind::Pod => {
                self.proxies.remove(name);
                Dirty::new()
            }
        }
    }

    fn put_release(&mut self, name: ObjectName, new: Release, listed: bool) -> Dirty {
        let old = self.releases.get(&name).cloned();
        if let Some(old) = &old {
            let same_object = old.uid == new.uid;
            if same_object
                && (old.resource_version == new.resource_version || (!listed && !not_older(&old.resource_version, &new.resource_version)))
            {
                return Dirty::new();
            }
            unindex(&mut self.by_host, &[host_of(old)], &name);
        }
        let mut dirty = Dirty::from([name.clone()]);
        // Who else wants the service has to learn of it; a mere status is nobody else's business.
        let moved = old.as_ref().is_none_or(|o| o.service != new.service || o.deleting != new.deleting || o.uid != new.uid);
        if moved {
            dirty.extend(old.as_ref().map(|o| self.of_host(&host_of(o))).unwrap_or_default());
            dirty.extend(self.of_host(&host_of(&new)));
        }
        index(&mut self.by_host, &[host_of(&new)], &name);
        self.releases.insert(name, Arc::new(new));
        dirty
    }

    fn put_deployment(&mut self, name: &ObjectName, new: Deployment) -> Dirty {
        let deployments = self.deployments.entry(name.namespace.clone()).or_default();
        let new = Arc::new(new);
        let old = deployments.insert(name.name.clone(), new.clone());
        match old {
            Some(old) if old == new => Dirty::new(),
            Some(old) => self.of_pods(&name.namespace, &[&old.labels, &new.labels]),
            None => self.of_pods(&name.namespace, &[&new.labels]),
        }
    }

    fn put_slice(&mut self, name: ObjectName, new: Slice) -> Dirty {
        let service = ObjectName { namespace: name.namespace.clone(), name: new.service.clone() };
        let moved = self.slice_service.get(&name).filter(|old| **old != service).cloned();
        let mut dirty = moved.map(|_| self.remove(Kind::EndpointSlice, &name)).unwrap_or_default();
        let new = Arc::new(new);
        let slices = self.slices.entry(service.clone()).or_default();
        let old = match slices.iter_mut().find(|(slice, _)| **slice == *name.name) {
            Some((_, slice)) => Some(std::mem::replace(slice, new.clone())),
            None => {
                slices.reserve_exact(1);
                slices.push((name.name.as_str().into(), new.clone()));
                None
            }
        };
        self.slice_service.insert(name, service.clone());
        if old.is_none_or(|old| old != new) {
            dirty.extend(self.of_service(&service));
        }
        dirty
    }

    fn put_route(&mut self, name: ObjectName, new: VirtualService, listed: bool) -> Dirty {
        let old = self.routes.get(&name).cloned();
        if let Some(old) = &old {
            if !listed && !not_older(&old.raw.version, &new.raw.version) || old.raw == new.raw {
                return Dirty::new();
            }
            self.forget_route(&name, old);
        }
        index(&mut self.routes_to, &new.destinations, &name);
        index(&mut self.routes_for, &new.hosts, &name);
        index(&mut self.roots_of, &new.delegates, &name);
        let new = Arc::new(new);
        self.routes.insert(name.clone(), new.clone());
        match &old {
            Some(old) => self.of_route(&name, &[old, &new]),
            None => self.of_route(&name, &[&new]),
        }
    }

    fn forget_route(&mut self, name: &ObjectName, old: &VirtualService) {
        unindex(&mut self.routes_to, &old.destinations, name);
        unindex(&mut self.routes_for, &old.hosts, name);
        unindex(&mut self.roots_of, &old.delegates, name);
    }

    fn put_rule(&mut self, name: ObjectName, new: Rule, listed: bool) -> Dirty {
        let old = self.rules.get(&name).cloned();
        if let Some(old) = &old {
            if !listed && !not_older(&old.raw.version, &new.raw.version) || old.raw == new.raw {
                return Dirty::new();
            }
            unindex(self.rule_index(&old.host), std::slice::from_ref(&old.host), &name);
        }
        index(self.rule_index(&new.host), std::slice::from_ref(&new.host), &name);
        let host = new.host.clone();
        self.rules.insert(name, Arc::new(new));
        match &old {
            Some(old) => self.of_rule(&[&old.host, &host]),
            None => self.of_rule(&[&host]),
        }
    }

    fn put_autoscaler(&mut self, kind: Kind, name: ObjectName, new: Autoscaler) -> Dirty {
        let deployment = ObjectName { namespace: name.namespace.clone(), name: new.deployment };
        let moved = self.scales.get(&(kind, name.clone())).is_some_and(|old| *old != deployment);
        let mut dirty = if moved { self.remove(kind, &name) } else { Dirty::new() };
        let known = self.scales.insert((kind, name.clone()), deployment.clone()).is_some();
        self.autoscalers.entry(deployment.clone()).or_default().insert((kind, name.name), new.label);
        if !known {
            dirty.extend(self.of_deployment(&deployment));
        }
        dirty
    }

    fn rule_index(&mut self, host: &str) -> &mut HashMap<String, Names> {
        if is_wildcard(host) { &mut self.patterns } else { &mut self.rules_for }
    }

    fn of_host(&self, host: &str) -> Dirty {
        self.by_host.get(host).into_iter().flatten().cloned().collect()
    }

    fn of_service(&self, service: &ObjectName) -> Dirty {
        self.of_host(&ServiceName::new(&service.name, &service.namespace).fqdn())
    }

    /// Releases that name a policy; for one that may be the usual one also those that name none.
    fn of_policy(&self, policy: &ObjectName) -> Dirty {
        let named = self.releases_in(&policy.namespace).filter(|r| r.policy.as_deref() == Some(&policy.name));
        let usual = (policy.name == serin_api::policy::DEFAULT_POLICY).then(|| self.releases.values().filter(|r| r.policy.is_none()));
        named.chain(usual.into_iter().flatten()).map(|r| r.name.clone()).collect()
    }

    /// Releases whose service selects pods with any of these sets of labels.
    fn of_pods(&self, namespace: &str, labels: &[&project::Labels]) -> Dirty {
        let selects = |(name, service): (&ObjectName, &Arc<Service>)| {
            let chosen = labels.iter().any(|l| selects(&service.selector, l));
            chosen.then(|| self.of_service(name))
        };
        // A namespace has few releases; its services are found through them.
        let hosts = self.releases_in(namespace);
        let services: BTreeSet<ObjectName> =
            hosts.map(|r| ObjectName { namespace: namespace.to_owned(), name: r.service.clone() }).collect();
        services.iter().filter_map(|name| self.services.get_key_value(name)).filter_map(selects).flatten().collect()
    }

    fn releases_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Release>> {
        let first = ObjectName { namespace: namespace.to_owned(), name: String::new() };
        self.releases.range(first..).take_while(move |(name, _)| name.namespace == namespace).map(|(_, release)| release)
    }

    fn of_deployment(&self, deployment: &ObjectName) -> Dirty {
        let found = self.deployments.get(&deployment.namespace).and_then(|d| d.get(&deployment.name));
        found.map(|d| self.of_pods(&deployment.namespace, &[&d.labels])).unwrap_or_default()
    }

    fn of_route(&self, name: &ObjectName, routes: &[&VirtualService]) -> Dirty {
        let hosts = routes.iter().flat_map(|r| r.hosts.iter().chain(&r.destinations));
        let named = self.releases_in(&name.namespace).filter(|r| r.named_routes.contains(&name.name)).map(|r| r.name.clone());
        let mut dirty: Dirty = hosts.flat_map(|host| self.of_host(host)).chain(named).collect();
        // Whoever works on a delegate wants to know of its roots.
        for delegate in routes.iter().flat_map(|r| &r.delegates).filter_map(|name| self.routes.get(name)) {
            dirty.extend(delegate.destinations.iter().flat_map(|host| self.of_host(host)));
        }
        // Two VirtualServices for one host concern whoever works on the other one.
        for other in
            routes.iter().flat_map(|r| &r.hosts).filter_map(|host| self.routes_for.get(host)).flatten().filter(|other| *other != name)
        {
            if let Some(other) = self.routes.get(other) {
                dirty.extend(other.destinations.iter().flat_map(|host| self.of_host(host)));
            }
        }
        dirty
    }

    fn of_rule(&self, hosts: &[&String]) -> Dirty {
        let mut dirty = Dirty::new();
        for host in hosts {
            if is_wildcard(host) {
                dirty.extend(self.by_host.iter().filter(|(fqdn, _)| covers(host, fqdn)).flat_map(|(_, names)| names.iter().cloned()));
            } else {
                dirty.extend(self.of_host(host));
            }
        }
        dirty
    }

    // What a look reads.

    pub(crate) fn release(&self, name: &ObjectName) -> Option<Arc<Release>> {
        self.releases.get(name).cloned()
    }

    pub(crate) fn policy(&self, name: &ObjectName) -> Option<&Arc<Policy>> {
        self.policies.get(name)
    }

    pub(crate) fn policies(&self) -> impl Iterator<Item = &ObjectName> {
        self.policies.keys()
    }

    pub(crate) fn release_names(&self) -> Vec<ObjectName> {
        self.releases.keys().cloned().collect()
    }

    pub(crate) fn release_count(&self) -> usize {
        self.releases.len()
    }

    /// All releases of one service.
    pub(crate) fn rivals(&self, host: &str) -> impl Iterator<Item = &Arc<Release>> {
        self.by_host.get(host).into_iter().flatten().filter_map(|name| self.releases.get(name))
    }

    pub(crate) fn service(&self, name: &ObjectName) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    pub(crate) fn deployments(&self, namespace: &str) -> impl Iterator<Item = (&String, &Arc<Deployment>)> {
        self.deployments.get(namespace).into_iter().flatten()
    }

    /// Names of the pods that receive the service's requests, each once: dual-stack services have two slices per pod.
    pub(crate) fn endpoints(&self, service: &ObjectName) -> BTreeSet<&str> {
        self.slices.get(service).into_iter().flatten().flat_map(|(_, s)| s.pods.iter().map(AsRef::as_ref)).collect()
    }

    /// The autoscaler of a Deployment, as a person calls it.
    pub(crate) fn autoscaler(&self, deployment: &ObjectName) -> Option<&str> {
        self.autoscalers.get(deployment).and_then(|a| a.values().next_back()).map(String::as_str)
    }

    /// VirtualServices that matter to a service: those that send to it (also by a name that Istio does not understand), those that
    /// are named, whoever delegates to them, and whoever shares a host with any of these.
    pub(crate) fn network_routes(&self, service: &ServiceName, named: &[Selection]) -> Vec<Arc<Value>> {
        let short = format!("{}.{}", service.name, service.namespace);
        let written = [service.fqdn(), format!("{short}.svc"), short];
        let mut names: BTreeSet<&ObjectName> = written.iter().filter_map(|host| self.routes_to.get(host)).flatten().collect();
        for selection in named {
            let name = ObjectName { namespace: service.namespace.clone(), name: selection.name.clone() };
            names.extend(self.routes.get_key_value(&name).map(|(name, _)| name));
        }
        let delegates: Vec<&ObjectName> =
            names.iter().filter(|n| self.routes.get(**n).is_some_and(|vs| vs.hosts.is_empty())).copied().collect();
        names.extend(delegates.iter().filter_map(|name| self.roots_of.get(*name)).flatten());
        let sharing: Vec<&ObjectName> = names
            .iter()
            .filter_map(|n| self.routes.get(*n))
            .flat_map(|vs| &vs.hosts)
            .filter_map(|host| self.routes_for.get(host))
            .flatten()
            .collect();
        names.extend(sharing);
        names.into_iter().filter_map(|name| self.routes.get(name)).map(|vs| vs.raw.value()).collect()
    }

    /// DestinationRules whose host is, or covers, this one.
    pub(crate) fn rules(&self, host: &str) -> Vec<&Arc<Rule>> {
        let exact = self.rules_for.get(host).into_iter().flatten();
        let patterns = self.patterns.iter().filter(|(pattern, _)| covers(pattern, host)).flat_map(|(_, names)| names);
        exact.chain(patterns).filter_map(|name| self.rules.get(name)).collect()
    }

    /// Pods whose proxy answers.
    pub(crate) fn proxies(&self) -> &HashMap<ObjectName, ProxyPod> {
        &self.proxies
    }
}

/// The service's full name.
pub(crate) fn host_of(release: &Release) -> String {
    ServiceName::new(&release.service, &release.name.namespace).fqdn()
}

/// Whether a Service's selector takes pods with these labels. An empty selector takes none: its endpoints are somebody's own.
pub(crate) fn selects(selector: &project::Labels, labels: &project::Labels) -> bool {
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Box<DynamicObject> {
        serde_json::from_value(value).expect("an object")
    }

    fn tell(cluster: &mut Cluster, kind: Kind, change: Change) -> Vec<String> {
        cluster.apply(WatchEvent { kind, scope: None, change }).into_iter().map(|n| n.to_string()).collect()
    }

    fn apply(cluster: &mut Cluster, kind: Kind, value: Value) -> Vec<String> {
        tell(cluster, kind, Change::Apply(object(value)))
    }

    fn release(name: &str, service: &str, version: u32) -> Value {
        json!({"metadata": {"name": name, "namespace": "shop", "uid": name, "resourceVersion": version.to_string()}, "spec": {"service": service}})
    }

    fn service(name: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"selector": {"app": name}}})
    }

    fn deployment(name: &str, app: &str, image: &str, ready: u32) -> Value {
        json!({"metadata": {"name": name, "namespace": "shop", "resourceVersion": "1"}, "status": {"readyReplicas": ready},
            "spec": {"template": {"metadata": {"labels": {"app": app, "version": "v1"}}, "spec": {"containers": [{"image": image}]}}}})
    }

    fn route(version: u32, hosts: &[&str], to: &str) -> Value {
        json!({"metadata": {"name": "vs", "namespace": "shop", "resourceVersion": version.to_string()},
            "spec": {"hosts": hosts, "http": [{"route": [{"destination": {"host": to, "subset": "v1"}}]}]}})
    }

    /// Two services with a release each.
    fn two() -> Cluster {
        let mut cluster = Cluster::default();
        for name in ["cart", "web"] {
            apply(&mut cluster, Kind::Release, release(name, name, 1));
            apply(&mut cluster, Kind::Service, service(name));
        }
        cluster
    }

    #[test]
    fn a_change_concerns_the_releases_of_its_service_alone() {
        let mut c = two();
        assert_eq!(apply(&mut c, Kind::Deployment, deployment("cart-v1", "cart", "a", 0)), ["shop/cart"]);
        assert_eq!(apply(&mut c, Kind::Deployment, deployment("else", "else", "a", 0)), [""; 0]);
        let slice =
            json!({"metadata": {"name": "s", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}}, "endpoints": []});
        assert_eq!(apply(&mut c, Kind::EndpointSlice, slice), ["shop/web"]);
        assert_eq!(apply(&mut c, Kind::VirtualService, route(1, &["cart"], "cart")), ["shop/cart"]);
        assert_eq!(
            apply(
                &mut c,
                Kind::DestinationRule,
                json!({"metadata": {"name": "d", "namespace": "shop"}, "spec": {"host": "web.shop.svc.cluster.local"}})
            ),
            ["shop/web"]
        );
        assert_eq!(
            apply(
                &mut c,
                Kind::DestinationRule,
                json!({"metadata": {"name": "all", "namespace": "istio-system"}, "spec": {"host": "*.local"}})
            ),
            ["shop/cart", "shop/web"]
        );
        let hpa = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h", "namespace": "shop"}, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "cart-v1"}}});
        assert_eq!(apply(&mut c, Kind::Autoscaler, hpa), ["shop/cart"]);
        let name = ObjectName { namespace: "shop".into(), name: "cart-v1".into() };
        assert_eq!(c.autoscaler(&name), Some("HorizontalPodAutoscaler h"));
    }

    #[test]
    fn what_serin_does_not_read_concerns_nobody() {
        let mut c = two();
        apply(&mut c, Kind::Deployment, deployment("cart-v1", "cart", "a", 1));
        assert_eq!(apply(&mut c, Kind::Deployment, deployment("cart-v1", "cart", "a", 1)), [""; 0]);
        assert_eq!(apply(&mut c, Kind::Deployment, deployment("cart-v1", "cart", "b", 1)), ["shop/cart"]);
        assert_eq!(apply(&mut c, Kind::Release, release("cart", "cart", 1)), [""; 0], "the very same");
    }

    #[test]
    fn labels_that_change_concern_both_services() {
        let mut c = two();
        apply(&mut c, Kind::Deployment, deployment("d", "cart", "a", 1));
        assert_eq!(apply(&mut c, Kind::Deployment, deployment("d", "web", "a", 1)), ["shop/cart", "shop/web"]);
    }

    #[test]
    fn a_watch_that_lags_behind_an_answer_changes_nothing() {
        let mut c = two();
        apply(&mut c, Kind::VirtualService, route(5, &["cart"], "cart"));
        c.learn(Kind::VirtualService, &object(route(9, &["cart"], "web")));
        assert_eq!(apply(&mut c, Kind::VirtualService, route(7, &["cart"], "cart")), [""; 0]);
        assert_eq!(apply(&mut c, Kind::VirtualService, route(10, &["cart"], "cart")), ["shop/cart", "shop/web"]);
    }

    #[test]
    fn a_new_list_forgets_what_it_does_not_name_and_believes_what_it_says() {
        let mut c = two();
        apply(&mut c, Kind::VirtualService, route(90, &["cart"], "cart"));
        assert_eq!(tell(&mut c, Kind::VirtualService, Change::Init), [""; 0]);
        // An API server that was restored counts from lower numbers.
        assert_eq!(apply(&mut c, Kind::VirtualService, route(3, &["cart"], "web")), ["shop/cart", "shop/web"]);
        tell(&mut c, Kind::VirtualService, Change::InitDone);
        tell(&mut c, Kind::VirtualService, Change::Init);
        assert_eq!(tell(&mut c, Kind::VirtualService, Change::InitDone), ["shop/cart", "shop/web"]);
    }

    #[test]
    fn rivals_learn_of_each_other() {
        let mut c = two();
        assert_eq!(apply(&mut c, Kind::Release, release("another", "cart", 1)), ["shop/another", "shop/cart"]);
        assert_eq!(apply(&mut c, Kind::Release, release("another", "web", 2)), ["shop/another", "shop/cart", "shop/web"]);
        assert_eq!(tell(&mut c, Kind::Release, Change::Delete(object(release("another", "web", 3)))), ["shop/another", "shop/web"]);
        let mut status = release("cart", "cart", 2);
        status["status"] = json!({"phase": "Idle"});
        assert_eq!(apply(&mut c, Kind::Release, status), ["shop/cart"], "a status is nobody else's business");
    }

    #[test]
    fn delegates_roots_and_whoever_shares_a_host_are_part_of_the_network() {
        let mut c = two();
        let vs = |name: &str, spec: Value| json!({"metadata": {"name": name, "namespace": "shop", "resourceVersion": "1"}, "spec": spec});
        apply(&mut c, Kind::VirtualService, vs("delegate", json!({"http": [{"route": [{"destination": {"host": "cart"}}]}]})));
        apply(&mut c, Kind::VirtualService, vs("root", json!({"hosts": ["shop.example"], "http": [{"delegate": {"name": "delegate"}}]})));
        apply(&mut c, Kind::VirtualService, vs("rival", json!({"hosts": ["shop.example"], "http": []})));
        apply(&mut c, Kind::VirtualService, vs("far", json!({"hosts": ["far.example"], "http": []})));
        apply(
            &mut c,
            Kind::VirtualService,
            vs("half", json!({"hosts": ["x.example"], "http": [{"route": [{"destination": {"host": "cart.shop"}}]}]})),
        );
        let names = |c: &Cluster| {
            let all = c.network_routes(&ServiceName::new("cart", "shop"), &[]);
            all.iter().filter_map(|vs| vs.pointer("/metadata/name")?.as_str().map(str::to_owned)).collect::<Vec<_>>()
        };
        assert_eq!(names(&c), ["delegate", "half", "rival", "root"]);
        assert_eq!(
            apply(&mut c, Kind::VirtualService, vs("root", json!({"hosts": ["shop.example"], "http": []}))),
            ["shop/cart"],
            "a root is its delegate's business"
        );
    }

    #[test]
    fn a_policy_concerns_those_that_name_it_and_the_usual_one_those_that_name_none() {
        let mut c = two();
        let mut named = release("named", "named", 1);
        named["spec"]["policy"] = json!("strict");
        apply(&mut c, Kind::Release, named);
        let policy = |name: &str, interval: &str| json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"analysis": {"interval": interval}}});
        assert_eq!(apply(&mut c, Kind::Policy, policy("strict", "10s")), ["shop/named"]);
        assert_eq!(apply(&mut c, Kind::Policy, policy("strict", "10s")), [""; 0], "the very same");
        assert_eq!(apply(&mut c, Kind::Policy, policy("default", "10s")), ["shop/cart", "shop/web"]);
        assert_eq!(tell(&mut c, Kind::Policy, Change::Delete(object(policy("strict", "10s")))), ["shop/named"]);
    }

    #[test]
    fn nothing_is_decided_before_every_list_is_there() {
        let mut c = Cluster::default();
        c.expect(Kind::Release, None);
        c.expect(Kind::VirtualService, None);
        tell(&mut c, Kind::Release, Change::Init);
        tell(&mut c, Kind::Release, Change::InitDone);
        assert!(!c.synced());
        apply(&mut c, Kind::Release, release("cart", "cart", 1));
        assert_eq!(tell(&mut c, Kind::VirtualService, Change::Missing("no Istio".into())), ["shop/cart"]);
        assert!(c.synced(), "a kind that is not served is waited for in the open");
        assert_eq!(c.missing(Kind::VirtualService), Some("no Istio"));
        let found = Kind::VirtualService.builtin();
        assert_eq!(tell(&mut c, Kind::VirtualService, Change::Found(found)), ["shop/cart"]);
        assert_eq!(c.missing(Kind::VirtualService), None);
    }
}
