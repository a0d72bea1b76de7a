//! The loop under all controllers: changes of objects become keys, keys wait once each, one task works them off.
//!
//! Level-triggered as in Kubernetes: a key says only "look at this again", never what changed. Since the store is in memory,
//! a reconciler is a plain function; one task runs them all, so that no two of them ever interleave. It polls nothing: a
//! reconciler that waits for time says for how long.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::events::Recorder;
use super::gc::Owners;
use super::object::{controller, deleting, items, labels, name, namespace, selects, selects_map, text};
use crate::store::{Event, EventKind, Key, Resource, Store, Watch};

/// What every reconciler is given.
pub struct Context {
    /// All objects.
    pub store: Store,
    /// Where events go.
    pub events: Recorder,
}

/// When to look at the same key again without a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeue {
    /// Only when something changes.
    No,
    /// After this time.
    After(std::time::Duration),
}

impl From<Option<jiff::SignedDuration>> for Requeue {
    fn from(after: Option<jiff::SignedDuration>) -> Self {
        match after {
            Some(time) => Self::After(std::time::Duration::try_from(time).unwrap_or_default()),
            None => Self::No,
        }
    }
}

/// What there is to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Work {
    Deployment(Key),
    ReplicaSet(Key),
    Service(Key),
    Job(Key),
    CronJob(Key),
    Autoscaler(Key),
    Namespace(String),
    Collect(Key),
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Work>,
    waiting: HashSet<Work>,
    later: BTreeMap<(Instant, u64), Work>,
    due: HashMap<Work, (Instant, u64)>,
    n: u64,
}

impl Queue {
    fn push(&mut self, work: Work) {
        if self.waiting.insert(work.clone()) {
            self.ready.push_back(work);
        }
    }

    fn pop(&mut self) -> Option<Work> {
        let work = self.ready.pop_front()?;
        self.waiting.remove(&work);
        Some(work)
    }

    /// One pending time per key: the newest answer is the one that counts.
    fn schedule(&mut self, work: Work, requeue: Requeue) {
        if let Some(slot) = self.due.remove(&work) {
            self.later.remove(&slot);
        }
        if let Requeue::After(time) = requeue {
            self.n += 1;
            let slot = (Instant::now() + time, self.n);
            self.later.insert(slot, work.clone());
            self.due.insert(work, slot);
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.later.first_key_value().map(|((at, _), _)| *at)
    }

    fn take_due(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.later.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let work = entry.remove();
            self.due.remove(&work);
            self.push(work);
        }
    }
}

/// Runs all controllers until told to stop.
pub async fn run(context: Context, stop: CancellationToken) {
    let mut queue = Queue::default();
    let mut owners = Owners::default();
    let mut watch = start(&context, &mut queue, &mut owners);
    while !stop.is_cancelled() {
        // Take in all that has happened before acting on any of it.
        loop {
            match next_now(&mut watch).await {
                Some(Ok(event)) => notice(&context, &mut queue, &mut owners, &event),
                Some(Err(_)) => watch = start(&context, &mut queue, &mut owners),
                None => break,
            }
        }
        queue.take_due();
        if let Some(work) = queue.pop() {
            let requeue = perform(&context, &mut owners, &work, watch.version());
            queue.schedule(work, requeue);
            // Others write too, and the next look should see it.
            tokio::task::yield_now().await;
            continue;
        }
        let due = queue.next_due();
        let timer = async {
            match due {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            event = watch.next() => match event {
                Ok(event) => notice(&context, &mut queue, &mut owners, &event),
                Err(_) => watch = start(&context, &mut queue, &mut owners),
            },
            () = timer => {}
        }
    }
}

/// The next event if one is there already.
async fn next_now(watch: &mut Watch) -> Option<Result<Event, crate::store::Gone>> {
    tokio::select! {
        biased;
        event = watch.next() => Some(event),
        () = std::future::ready(()) => None,
    }
}

/// Lists everything and watches from there: at the start, and when too much was missed.
fn start(context: &Context, queue: &mut Queue, owners: &mut Owners) -> Watch {
    loop {
        let from = context.store.version();
        *owners = Owners::default();
        for resource in context.store.resources() {
            for object in context.store.list(&resource, None).0 {
                let key = key_of(&resource, &object);
                owners.note(&key, &object);
                enqueue(context, queue, &key, &object);
                queue.push(Work::Collect(key));
            }
        }
        // What changed meanwhile is in the history, unless an implausible number of changes was.
        if let Ok(watch) = context.store.watch(None, None, Some(from)) {
            return watch;
        }
    }
}

/// The key of an object of a kind.
pub fn key_of(resource: &Resource, object: &Value) -> Key {
    let namespace = Some(namespace(object)).filter(|n| !n.is_empty()).map(str::to_owned);
    Key { resource: resource.clone(), namespace, name: name(object).to_owned() }
}

fn notice(context: &Context, queue: &mut Queue, owners: &mut Owners, event: &Event) {
    for dependent in match event.kind {
        EventKind::Added | EventKind::Modified => owners.note(&event.key, &event.object),
        EventKind::Deleted => owners.forget(&event.key, &event.object),
    } {
        queue.push(Work::Collect(dependent));
    }
    enqueue(context, queue, &event.key, &event.object);
    if let Some(before) = &event.before {
        // What it was before may concern others: the service that no longer selects it, the former owner.
        if labels(before) != labels(&event.object) || controller(before) != controller(&event.object) {
            enqueue(context, queue, &event.key, before);
        }
    }
}

/// Everything that may have to change because of this object.
fn enqueue(context: &Context, queue: &mut Queue, key: &Key, object: &Value) {
    let kind = (key.resource.group.as_str(), key.resource.plural.as_str());
    let place = key.namespace.as_deref().unwrap_or_default();
    match kind {
        ("apps", "deployments") => queue.push(Work::Deployment(key.clone())),
        ("apps", "replicasets") => {
            queue.push(Work::ReplicaSet(key.clone()));
            match controller(object) {
                Some(owner) if text(owner, "/kind") == "Deployment" => {
                    queue.push(Work::Deployment(Key::namespaced("apps", "deployments", place, text(owner, "/name"))));
                }
                Some(_) => {}
                None => for_fitting(context, object, "apps", "deployments", place, |key| queue.push(Work::Deployment(key))),
            }
        }
        ("", "pods") => {
            match controller(object) {
                Some(owner) if text(owner, "/kind") == "ReplicaSet" => {
                    let set = Key::namespaced("apps", "replicasets", place, text(owner, "/name"));
                    if let Some(owner) = context.store.get(&set).as_deref().and_then(controller) {
                        queue.push(Work::Deployment(Key::namespaced("apps", "deployments", place, text(owner, "/name"))));
                    }
                    queue.push(Work::ReplicaSet(set));
                }
                Some(owner) if text(owner, "/kind") == "Job" => {
                    queue.push(Work::Job(Key::namespaced("batch", "jobs", place, text(owner, "/name"))));
                }
                Some(_) => {}
                None => for_fitting(context, object, "apps", "replicasets", place, |key| queue.push(Work::ReplicaSet(key))),
            }
            for service in context.store.list(&Resource::new("", "services"), Some(place)).0 {
                if selects_map(service.pointer("/spec/selector"), labels(object)) {
                    queue.push(Work::Service(Key::namespaced("", "services", place, name(&service))));
                }
            }
        }
        ("", "services") => queue.push(Work::Service(key.clone())),
        ("discovery.k8s.io", "endpointslices") => {
            if let Some(service) = super::object::label(object, super::endpoints::SERVICE_NAME) {
                queue.push(Work::Service(Key::namespaced("", "services", place, service)));
            }
        }
        ("batch", "cronjobs") => queue.push(Work::CronJob(key.clone())),
        ("autoscaling", "horizontalpodautoscalers") => queue.push(Work::Autoscaler(key.clone())),
        ("batch", "jobs") => queue.push(Work::Job(key.clone())),
        ("", "namespaces") => queue.push(Work::Namespace(key.name.clone())),
        _ => {}
    }
    if !place.is_empty() && kind != ("", "events") && super::object::namespace_ending(&context.store, place) {
        queue.push(Work::Namespace(place.to_owned()));
    }
    if !items(object, "/metadata/ownerReferences").is_empty() || deleting(object) {
        queue.push(Work::Collect(key.clone()));
    }
}

/// The workloads of a kind whose selector fits an object without an owner.
fn for_fitting(context: &Context, object: &Value, group: &str, plural: &str, place: &str, mut found: impl FnMut(Key)) {
    for workload in context.store.list(&Resource::new(group, plural), Some(place)).0 {
        if selects(workload.pointer("/spec/selector"), labels(object)) {
            found(Key::namespaced(group, plural, place, name(&workload)));
        }
    }
}

fn perform(context: &Context, owners: &mut Owners, work: &Work, seen: u64) -> Requeue {
    tracing::trace!(?work, "reconcile");
    match work {
        Work::Deployment(key) => super::deployment::reconcile(context, key),
        Work::ReplicaSet(key) => super::replicaset::reconcile(context, key),
        Work::Service(key) => super::endpoints::reconcile(context, key),
        Work::Job(key) => super::job::reconcile(context, key),
        Work::CronJob(key) => {
            super::unsupported::cron_job(context, key);
            Requeue::No
        }
        Work::Autoscaler(key) => {
            super::unsupported::autoscaler(context, key);
            Requeue::No
        }
        Work::Namespace(name) => super::namespace::reconcile(context, name),
        Work::Collect(key) => super::gc::reconcile(context, owners, key, seen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_its_newest_time_counts() {
        let mut queue = Queue::default();
        let work = Work::Namespace("a".into());
        queue.push(work.clone());
        queue.push(work.clone());
        assert_eq!(queue.pop(), Some(work.clone()));
        assert_eq!(queue.pop(), None);
        queue.schedule(work.clone(), Requeue::After(std::time::Duration::from_secs(5)));
        queue.schedule(work.clone(), Requeue::After(std::time::Duration::from_secs(9)));
        tokio::time::advance(std::time::Duration::from_secs(6)).await;
        queue.take_due();
        assert_eq!(queue.pop(), None);
        tokio::time::advance(std::time::Duration::from_secs(4)).await;
        queue.take_due();
        assert_eq!(queue.pop(), Some(work));
        assert_eq!(queue.next_due(), None);
    }
}
