//! The lab's memory: untyped Kubernetes objects, with resource versions and watches.
//!
//! Holds what every writer needs to have in common: uid, creation time, resource version, generation,
//! finalizers, and the history that watches start from. It deliberately knows no schema, no kind by name and no HTTP:
//! those are the room of `api`.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Map, Value};
use tokio::sync::broadcast;

/// Reads the wall clock. Handed in, so that tests can run on a paused clock.
pub type Clock = Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>;

/// An object as clients see it, shared between readers.
pub type Object = Arc<Value>;

/// How many changes a watch may lag behind, or start from, before it must list again (410 Gone).
const HISTORY: usize = 16_384;

/// A kind of object, as the REST paths name it: group (empty for the core group) and plural, without a version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// API group, empty for `v1` objects.
    pub group: String,
    /// Plural, lower case: `deployments`.
    pub plural: String,
}

impl Resource {
    /// `Resource::new("apps", "deployments")`.
    pub fn new(group: impl Into<String>, plural: impl Into<String>) -> Self {
        Self { group: group.into(), plural: plural.into() }
    }
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.group.as_str() {
            "" => f.write_str(&self.plural),
            group => write!(f, "{}.{group}", self.plural),
        }
    }
}

/// Where one object lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The kind of object.
    pub resource: Resource,
    /// Its namespace; `None` for cluster-scoped objects.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl Key {
    /// A namespaced object's key.
    pub fn namespaced(group: &str, plural: &str, namespace: &str, name: &str) -> Self {
        Self { resource: Resource::new(group, plural), namespace: Some(namespace.into()), name: name.into() }
    }

    /// A cluster-scoped object's key.
    pub fn cluster(group: &str, plural: &str, name: &str) -> Self {
        Self { resource: Resource::new(group, plural), namespace: None, name: name.into() }
    }
}

/// Why the store refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StoreError {
    /// No such object.
    #[error("{0} {1:?} not found")]
    NotFound(Resource, String),
    /// An object of that name is there already.
    #[error("{0} {1:?} already exists")]
    AlreadyExists(Resource, String),
    /// The resource version given is not the stored one.
    #[error("the object {1:?} of {0} has been modified; please apply your changes to the latest version and try again")]
    Conflict(Resource, String),
    /// The uid given as a precondition is not the stored one.
    #[error("the object {1:?} of {0} has another uid than the one asked for")]
    UidMismatch(Resource, String),
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was created.
    Added,
    /// It was changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// One change, in the order of resource versions.
#[derive(Clone, Debug)]
pub struct Event {
    /// The resource version of this change.
    pub version: u64,
    /// What happened.
    pub kind: EventKind,
    /// Which object.
    pub key: Key,
    /// The object after the change; for `Deleted` as it last was, with the resource version of the deletion.
    pub object: Object,
    /// The object before the change, so that filtered watches can tell "entered" from "left".
    pub before: Option<Object>,
}

/// What a write leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Everything but `status` may change; `metadata.generation` counts changes of anything but metadata and status.
    Spec,
    /// Only `status` (and metadata) may change.
    Status,
    /// Kinds without a status subresource: everything may change, generation counts changes outside metadata and status.
    Whole,
}

/// Whether a kind's objects have a `metadata.generation`: kinds of Kubernetes' first years, whose spec no controller follows, have none.
pub(crate) fn counts_generations(resource: &Resource) -> bool {
    match resource.group.as_str() {
        "" => resource.plural == "pods",
        "rbac.authorization.k8s.io" | "coordination.k8s.io" | "events.k8s.io" | "autoscaling" => false,
        _ => true,
    }
}

struct Inner {
    objects: BTreeMap<Resource, BTreeMap<(Option<String>, String), Object>>,
    version: u64,
    history: VecDeque<Event>,
}

/// A handle on the objects; clones share them.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Mutex<Inner>>,
    events: broadcast::Sender<Event>,
    clock: Clock,
}

/// A watch cannot go on from where it was: list again.
#[derive(Debug, thiserror::Error)]
#[error("too old resource version")]
pub struct Gone;

/// The changes from some resource version on, without gaps.
pub struct Watch {
    backlog: VecDeque<Event>,
    live: broadcast::Receiver<Event>,
    resource: Option<Resource>,
    namespace: Option<String>,
    seen: u64,
}

impl Watch {
    /// The next change of the watched objects; waits for it. Dropping the future loses nothing.
    ///
    /// # Errors
    /// `Gone` when the reader fell too far behind, or the store is gone.
    pub async fn next(&mut self) -> Result<Event, Gone> {
        loop {
            let event = match self.backlog.pop_front() {
                Some(event) => event,
                None => self.live.recv().await.map_err(|_| Gone)?,
            };
            if event.version <= self.seen {
                continue;
            }
            self.seen = event.version;
            let fits = self.resource.as_ref().is_none_or(|r| *r == event.key.resource)
                && self.namespace.as_ref().is_none_or(|n| event.key.namespace.as_ref() == Some(n));
            if fits {
                return Ok(event);
            }
        }
    }

    /// The resource version up to which this watch has looked, whether or not something fitted.
    pub fn version(&self) -> u64 {
        self.seen
    }
}

impl Store {
    /// An empty store.
    pub fn new(clock: Clock) -> Self {
        let inner = Inner { objects: BTreeMap::new(), version: 1, history: VecDeque::new() };
        Self { inner: Arc::new(Mutex::new(inner)), events: broadcast::channel(HISTORY).0, clock }
    }

    /// The wall clock that stamps objects.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// One object, if it is there.
    pub fn get(&self, key: &Key) -> Option<Object> {
        self.lock().objects.get(&key.resource)?.get(&(key.namespace.clone(), key.name.clone())).cloned()
    }

    /// All objects of a kind (in one namespace, or in all), by namespace and name, and the resource version of the list.
    pub fn list(&self, resource: &Resource, namespace: Option<&str>) -> (Vec<Object>, u64) {
        self.list_after(resource, namespace, None)
    }

    /// The same without those up to a place: namespace and name.
    pub fn list_after(&self, resource: &Resource, namespace: Option<&str>, after: Option<&(Option<String>, String)>) -> (Vec<Object>, u64) {
        let inner = self.lock();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let all =
            inner.objects.get(resource).into_iter().flat_map(|all| all.range::<(Option<String>, String), _>((from, Bound::Unbounded)));
        let fits = |at: &Option<String>| namespace.is_none_or(|n| at.as_deref() == Some(n));
        (all.filter(|((ns, _), _)| fits(ns)).map(|(_, o)| o.clone()).collect(), inner.version)
    }

    /// The kinds of which at least one object is stored.
    pub fn resources(&self) -> Vec<Resource> {
        self.lock().objects.iter().filter(|(_, o)| !o.is_empty()).map(|(r, _)| r.clone()).collect()
    }

    /// Stores a new object: sets namespace, name, uid, creation time, generation 1 where the kind has one, and resource version.
    ///
    /// # Errors
    /// `AlreadyExists`.
    pub fn create(&self, key: &Key, mut object: Value) -> Result<Object, StoreError> {
        let now = (self.clock)();
        let mut inner = self.lock();
        let slot = (key.namespace.clone(), key.name.clone());
        if inner.objects.get(&key.resource).is_some_and(|all| all.contains_key(&slot)) {
            return Err(StoreError::AlreadyExists(key.resource.clone(), key.name.clone()));
        }
        let meta = metadata(&mut object);
        if let Some(namespace) = &key.namespace {
            meta.insert("namespace".into(), namespace.as_str().into());
        }
        meta.insert("name".into(), key.name.as_str().into());
        meta.insert("uid".into(), uid().into());
        meta.insert("creationTimestamp".into(), seconds(now).into());
        if counts_generations(&key.resource) {
            meta.insert("generation".into(), 1.into());
        } else {
            meta.remove("generation");
        }
        meta.remove("deletionTimestamp");
        Ok(self.put(&mut inner, key, object, EventKind::Added, None))
    }

    /// Replaces an object by what `change` makes of it, in one step that no other write can interleave.
    /// A change of nothing is no write and makes no event. An object that is being deleted goes when its last finalizer goes.
    ///
    /// # Errors
    /// `NotFound`, or what `change` returns.
    pub fn update<E: From<StoreError>>(
        &self,
        key: &Key,
        write: Write,
        change: impl FnOnce(&Value) -> Result<Value, E>,
    ) -> Result<Object, E> {
        let mut inner = self.lock();
        let slot = (key.namespace.clone(), key.name.clone());
        let Some(old) = inner.objects.get(&key.resource).and_then(|all| all.get(&slot)).cloned() else {
            return Err(StoreError::NotFound(key.resource.clone(), key.name.clone()).into());
        };
        let mut new = change(&old)?;
        let old_meta = old.get("metadata").cloned().unwrap_or_default();
        {
            // What a client may not change, whatever it sends.
            let meta = metadata(&mut new);
            keep(meta, &old_meta, &SERVERS_OWN);
        }
        match write {
            Write::Spec => copy_field(&old, &mut new, "status"),
            Write::Status => {
                let status = new.get("status").cloned();
                let meta = new.get("metadata").cloned();
                new = (*old).clone();
                set_field(&mut new, "metadata", meta);
                set_field(&mut new, "status", status);
            }
            Write::Whole => {}
        }
        if counts_generations(&key.resource) && without(&old, &["metadata", "status"]) != without(&new, &["metadata", "status"]) {
            let generation = old_meta.get("generation").and_then(Value::as_i64).unwrap_or(1) + 1;
            metadata(&mut new).insert("generation".into(), generation.into());
        }
        if new == *old {
            return Ok(old);
        }
        // Gone with the last finalizer, unless somebody still has the grace period to end (see `delete`).
        let dying = old_meta.get("deletionTimestamp").is_some();
        let grace = old_meta.get("deletionGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(0);
        if dying && grace == 0 && !finalizers(&old).is_empty() && finalizers(&new).is_empty() {
            return Ok(self.remove(&mut inner, key, new, old));
        }
        Ok(self.put(&mut inner, key, new, EventKind::Modified, Some(old)))
    }

    /// Deletes an object; one with finalizers is only marked, and goes when they are gone.
    /// `grace` (seconds) with a value above zero marks too: whoever ends the thing calls again with 0.
    ///
    /// # Errors
    /// `NotFound`, or `UidMismatch` when `uid` is given and is not the object's.
    pub fn delete(&self, key: &Key, uid: Option<&str>, grace: u64) -> Result<Object, StoreError> {
        let now = (self.clock)();
        let mut inner = self.lock();
        let slot = (key.namespace.clone(), key.name.clone());
        let Some(old) = inner.objects.get(&key.resource).and_then(|all| all.get(&slot)).cloned() else {
            return Err(StoreError::NotFound(key.resource.clone(), key.name.clone()));
        };
        if uid.is_some_and(|u| old["metadata"]["uid"].as_str() != Some(u)) {
            return Err(StoreError::UidMismatch(key.resource.clone(), key.name.clone()));
        }
        if finalizers(&old).is_empty() && grace == 0 {
            return Ok(self.remove(&mut inner, key, (*old).clone(), old));
        }
        self.mark(&mut inner, key, old, grace, now)
    }

    /// Marks an object as being deleted (`deletionTimestamp`) without removing it, finalizers or not:
    /// for what is emptied before it goes, as namespaces are. `delete` with a grace of 0 removes it.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn mark_deleted(&self, key: &Key) -> Result<Object, StoreError> {
        let now = (self.clock)();
        let mut inner = self.lock();
        let slot = (key.namespace.clone(), key.name.clone());
        let Some(old) = inner.objects.get(&key.resource).and_then(|all| all.get(&slot)).cloned() else {
            return Err(StoreError::NotFound(key.resource.clone(), key.name.clone()));
        };
        self.mark(&mut inner, key, old, 0, now)
    }

    fn mark(&self, inner: &mut Inner, key: &Key, old: Object, grace: u64, now: jiff::Timestamp) -> Result<Object, StoreError> {
        let before = old["metadata"]["deletionGracePeriodSeconds"].as_u64();
        // A second deletion may only shorten the first one's grace.
        if before.is_some_and(|b| b <= grace) {
            return Ok(old);
        }
        let mut new = (*old).clone();
        let meta = metadata(&mut new);
        if before.is_none() {
            meta.insert("deletionTimestamp".into(), seconds(now).into());
        }
        meta.insert("deletionGracePeriodSeconds".into(), grace.into());
        Ok(self.put(inner, key, new, EventKind::Modified, Some(old)))
    }

    /// Changes after `from` (as a list returned it); `None` means from now on.
    /// `resource` or `namespace` `None` means all.
    ///
    /// # Errors
    /// `Gone` when `from` is older than the history that is kept.
    pub fn watch(&self, resource: Option<Resource>, namespace: Option<&str>, from: Option<u64>) -> Result<Watch, Gone> {
        let inner = self.lock();
        let live = self.events.subscribe();
        let seen = from.unwrap_or(inner.version);
        let oldest = inner.history.front().map_or(inner.version, |e| e.version);
        if seen + 1 < oldest {
            return Err(Gone);
        }
        let backlog = inner.history.iter().filter(|e| e.version > seen).cloned().collect();
        Ok(Watch { backlog, live, resource, namespace: namespace.map(Into::into), seen })
    }

    /// The resource version of the latest change.
    pub fn version(&self) -> u64 {
        self.lock().version
    }

    fn put(&self, inner: &mut Inner, key: &Key, mut object: Value, kind: EventKind, before: Option<Object>) -> Object {
        inner.version += 1;
        metadata(&mut object).insert("resourceVersion".into(), inner.version.to_string().into());
        let object = Arc::new(object);
        let slot = (key.namespace.clone(), key.name.clone());
        inner.objects.entry(key.resource.clone()).or_default().insert(slot, object.clone());
        self.tell(inner, key, kind, object.clone(), before);
        object
    }

    fn remove(&self, inner: &mut Inner, key: &Key, mut last: Value, before: Object) -> Object {
        inner.version += 1;
        metadata(&mut last).insert("resourceVersion".into(), inner.version.to_string().into());
        if let Some(all) = inner.objects.get_mut(&key.resource) {
            all.remove(&(key.namespace.clone(), key.name.clone()));
        }
        let last = Arc::new(last);
        self.tell(inner, key, EventKind::Deleted, last.clone(), Some(before));
        last
    }

    fn tell(&self, inner: &mut Inner, key: &Key, kind: EventKind, object: Object, before: Option<Object>) {
        let event = Event { version: inner.version, kind, key: key.clone(), object, before };
        if inner.history.len() == HISTORY {
            inner.history.pop_front();
        }
        inner.history.push_back(event.clone());
        // No receiver is no error: nobody watches.
        let _ = self.events.send(event);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while holding the lock cannot leave half a write: each write is one insert.
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// `metadata` of an object, made if it lacks.
pub fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Value::Object(fields) = object else { unreachable!("made an object above") };
    let meta = fields.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if !meta.is_object() {
        *meta = Value::Object(Map::new());
    }
    match meta {
        Value::Object(meta) => meta,
        _ => unreachable!("made an object above"),
    }
}

/// Fields of metadata that are the server's: no write changes them.
pub const SERVERS_OWN: [&str; 8] =
    ["namespace", "name", "uid", "creationTimestamp", "generation", "resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds"];

/// Makes these fields of metadata what they were, absent ones absent.
pub fn keep(meta: &mut Map<String, Value>, was: &Value, fields: &[&str]) {
    for field in fields {
        match was.get(*field) {
            Some(value) => meta.insert((*field).into(), value.clone()),
            None => meta.remove(*field),
        };
    }
}

fn finalizers(object: &Value) -> &[Value] {
    object["metadata"]["finalizers"].as_array().map_or(&[], Vec::as_slice)
}

fn without<'a>(object: &'a Value, fields: &[&str]) -> Vec<(&'a String, &'a Value)> {
    object.as_object().into_iter().flatten().filter(|(k, _)| !fields.contains(&k.as_str())).collect()
}

fn copy_field(from: &Value, to: &mut Value, field: &str) {
    set_field(to, field, from.get(field).cloned());
}

fn set_field(object: &mut Value, field: &str, value: Option<Value>) {
    if let Value::Object(fields) = object {
        match value {
            Some(value) => fields.insert(field.into(), value),
            None => fields.remove(field),
        };
    }
}

/// Kubernetes writes times of objects in whole seconds.
pub fn seconds(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A random (version 4) uid. `RandomState` draws its keys from the system's generator.
pub(crate) fn uid() -> String {
    use std::hash::{BuildHasher, RandomState};
    let (a, b) = (RandomState::new().hash_one(0u8), RandomState::new().hash_one(1u8));
    let (hi, lo) = ((a & !0xf000) | 0x4000, (b & !(0b11 << 62)) | (0b10 << 62));
    format!("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", hi >> 32, (hi >> 16) & 0xffff, hi & 0xffff, lo >> 48, lo & 0xffff_ffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn store() -> (Store, Key) {
        (Store::new(Arc::new(|| jiff::Timestamp::UNIX_EPOCH)), Key::namespaced("", "pods", "n", "p"))
    }

    fn label(store: &Store, key: &Key) {
        let change = |old: &Value| {
            let mut new = old.clone();
            new["metadata"]["labels"] = json!({"a": "b"});
            Ok::<_, StoreError>(new)
        };
        store.update(key, Write::Spec, change).unwrap();
    }

    #[test]
    fn writes_to_what_is_ending_gracefully_do_not_end_it() {
        let (store, key) = store();
        store.create(&key, json!({})).unwrap();
        store.delete(&key, None, 30).unwrap();
        label(&store, &key);
        assert_eq!(store.get(&key).unwrap()["metadata"]["deletionTimestamp"], "1970-01-01T00:00:00Z");
        store.delete(&key, None, 5).unwrap();
        assert_eq!(store.get(&key).unwrap()["metadata"]["deletionGracePeriodSeconds"], 5);
        store.delete(&key, None, 0).unwrap();
        assert_eq!(store.get(&key), None);
    }

    #[test]
    fn the_last_finalizer_ends_it_only_after_the_grace_period() {
        let (store, key) = store();
        store.create(&key, json!({"metadata": {"finalizers": ["x"]}})).unwrap();
        store.delete(&key, None, 30).unwrap();
        store.delete(&key, None, 0).unwrap();
        label(&store, &key);
        assert!(store.get(&key).is_some());
        let free = |old: &Value| {
            let mut new = old.clone();
            new["metadata"]["finalizers"] = json!([]);
            Ok::<_, StoreError>(new)
        };
        store.update(&key, Write::Spec, free).unwrap();
        assert_eq!(store.get(&key), None);
    }
}
