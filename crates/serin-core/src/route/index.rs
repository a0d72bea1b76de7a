//! Which of a cluster's VirtualServices and DestinationRules matter to one service, without asking each of them.
//!
//! A [`World`](super::World) made from what an index gives reads the same as one made from everything; a test holds that. A
//! look then costs what the service's own objects cost, however many others there are.
//!
//! Deliberately holds objects as they are handed in (`Arc<Value>` in the controller), and watches nothing.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::borrow::Borrow;

use serde_json::Value;

use super::companion::companion_name;
use super::conflict::delegate_of;
use super::host::{ServiceName, covers, is_wildcard, resolve};
use super::json::{list, namespace, object_name, text, texts};
use super::network::Selection;
use crate::units::ObjectName;

/// Objects of one kind by name, and by what they are about.
#[derive(Clone, Debug)]
struct Index<R> {
    objects: BTreeMap<ObjectName, (R, BTreeSet<Key>)>,
    by_key: BTreeMap<Key, BTreeSet<ObjectName>>,
    /// Patterns, and who has them: these are asked one by one.
    patterns: BTreeMap<String, BTreeSet<ObjectName>>,
}

/// What an object is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// It routes, or rules over, this resolved host.
    Host(String),
    /// As `Host`, a pattern.
    Pattern(String),
    /// It sends to this resolved host.
    Sends(String),
    /// It delegates to this VirtualService.
    Delegates(ObjectName),
}

impl<R: Borrow<Value> + Clone> Index<R> {
    const fn new() -> Self {
        Self { objects: BTreeMap::new(), by_key: BTreeMap::new(), patterns: BTreeMap::new() }
    }

    fn apply(&mut self, object: R, keys: BTreeSet<Key>) {
        let name = object_name(object.borrow());
        self.remove(&name);
        for key in &keys {
            self.holders(key).insert(name.clone());
        }
        self.objects.insert(name, (object, keys));
    }

    fn remove(&mut self, name: &ObjectName) {
        let Some((_, keys)) = self.objects.remove(name) else { return };
        for key in &keys {
            let holders = self.holders(key);
            holders.remove(name);
            if holders.is_empty() {
                match key {
                    Key::Pattern(pattern) => self.patterns.remove(pattern),
                    Key::Host(_) | Key::Sends(_) | Key::Delegates(_) => self.by_key.remove(key),
                };
            }
        }
    }

    fn holders(&mut self, key: &Key) -> &mut BTreeSet<ObjectName> {
        match key {
            Key::Pattern(pattern) => self.patterns.entry(pattern.clone()).or_default(),
            Key::Host(_) | Key::Sends(_) | Key::Delegates(_) => self.by_key.entry(key.clone()).or_default(),
        }
    }

    /// Adds all that have the key.
    fn gather(&self, into: &mut BTreeSet<ObjectName>, key: &Key) {
        let found = match key {
            Key::Pattern(pattern) => self.patterns.get(pattern),
            Key::Host(_) | Key::Sends(_) | Key::Delegates(_) => self.by_key.get(key),
        };
        into.extend(found.into_iter().flatten().cloned());
    }

    /// Adds all that route, or rule over, the host or a pattern that covers it.
    fn gather_covering(&self, into: &mut BTreeSet<ObjectName>, host: &str) {
        self.gather(into, &Key::Host(host.to_owned()));
        for (_, names) in self.patterns.iter().filter(|(pattern, _)| covers(pattern, host)) {
            into.extend(names.iter().cloned());
        }
    }

    fn objects(&self, names: &BTreeSet<ObjectName>) -> Vec<R> {
        names.iter().filter_map(|name| self.objects.get(name)).map(|(object, _)| object.clone()).collect()
    }
}

/// All VirtualServices that are known.
#[derive(Clone, Debug)]
pub struct VirtualServices<R>(Index<R>);

impl<R: Borrow<Value> + Clone> VirtualServices<R> {
    /// None yet.
    pub const fn new() -> Self {
        Self(Index::new())
    }

    /// A new object, or a newer state of one.
    pub fn apply(&mut self, object: R) {
        let keys = keys_of_virtual_service(object.borrow());
        self.0.apply(object, keys);
    }

    /// An object that is gone.
    pub fn remove(&mut self, name: &ObjectName) {
        self.0.remove(name);
    }

    /// By name.
    pub fn get(&self, name: &ObjectName) -> Option<&R> {
        self.0.objects.get(name).map(|(object, _)| object)
    }

    /// Those that matter to a release of `service`, in order of namespace and name: what sends to it or nearly does, what it
    /// names, who delegates to these, and everything that routes one of their hosts, or the service's own.
    pub fn of(&self, service: &ServiceName, selection: &[Selection]) -> Vec<R> {
        let index = &self.0;
        let fqdn = service.fqdn();
        let short = format!("{}.{}", service.name, service.namespace);
        let mut names = BTreeSet::new();
        for host in [format!("{short}.svc"), short, fqdn.clone()] {
            index.gather(&mut names, &Key::Sends(host));
        }
        names.extend(selection.iter().map(|s| ObjectName { namespace: service.namespace.clone(), name: s.name.clone() }));
        let mut rivals = names.clone();
        for name in names.iter().filter(|name| name.namespace == service.namespace) {
            index.gather(&mut rivals, &Key::Delegates(name.clone()));
        }
        let hosts: BTreeSet<&Key> = rivals.iter().filter_map(|name| index.objects.get(name)).flat_map(|(_, keys)| keys).collect();
        let mut all = rivals.clone();
        for key in hosts.into_iter().filter(|key| matches!(key, Key::Host(_) | Key::Pattern(_))) {
            index.gather(&mut all, key);
        }
        index.gather_covering(&mut all, &fqdn);
        index.objects(&all)
    }
}

impl<R: Borrow<Value> + Clone> Default for VirtualServices<R> {
    fn default() -> Self {
        Self::new()
    }
}

/// All DestinationRules that are known.
#[derive(Clone, Debug)]
pub struct DestinationRules<R>(Index<R>);

impl<R: Borrow<Value> + Clone> DestinationRules<R> {
    /// None yet.
    pub const fn new() -> Self {
        Self(Index::new())
    }

    /// A new object, or a newer state of one.
    pub fn apply(&mut self, object: R) {
        let host = text(object.borrow(), "/spec/host").map(|host| host_key(host, namespace(object.borrow())));
        self.0.apply(object, host.into_iter().collect());
    }

    /// An object that is gone.
    pub fn remove(&mut self, name: &ObjectName) {
        self.0.remove(name);
    }

    /// By name.
    pub fn get(&self, name: &ObjectName) -> Option<&R> {
        self.0.objects.get(name).map(|(object, _)| object)
    }

    /// Those whose host is the service or covers it, and whatever stands under the name of Serin's own rule for it; in order
    /// of namespace and name.
    pub fn of(&self, service: &ServiceName) -> Vec<R> {
        let mut names = BTreeSet::from([ObjectName { namespace: service.namespace.clone(), name: companion_name(service) }]);
        self.0.gather_covering(&mut names, &service.fqdn());
        self.0.objects(&names)
    }
}

impl<R: Borrow<Value> + Clone> Default for DestinationRules<R> {
    fn default() -> Self {
        Self::new()
    }
}

fn host_key(host: &str, namespace: &str) -> Key {
    let host = resolve(host, namespace);
    if is_wildcard(&host) { Key::Pattern(host) } else { Key::Host(host) }
}

fn keys_of_virtual_service(vs: &Value) -> BTreeSet<Key> {
    let mut keys: BTreeSet<Key> = texts(vs, "/spec/hosts").map(|host| host_key(host, namespace(vs))).collect();
    for layer in ["/spec/http", "/spec/tcp", "/spec/tls"] {
        for route in list(vs, layer) {
            let entries = list(route, "/route").iter().chain(list(route, "/mirrors")).filter_map(|entry| entry.get("destination"));
            let hosts = entries.chain(route.get("mirror")).filter_map(|destination| text(destination, "/host"));
            keys.extend(hosts.map(|host| Key::Sends(resolve(host, namespace(vs)))));
            keys.extend(delegate_of(vs, route).map(Key::Delegates));
        }
    }
    keys
}
