//! Deployments: which ReplicaSets exist, and how large each is.
//!
//! Follows `pkg/controller/deployment` of Kubernetes in structure, so that its behaviour can be compared line by line: `plan` is the
//! arithmetic, `revision` the history, `status` what clients read. It never touches a pod: that is `replicaset`.

pub mod plan;
pub mod revision;
pub mod status;

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::events::About;
use super::object::{
    POD_TEMPLATE_HASH, add_owner, controlled_by, controller, deleting, edit, flag, int_or_percent, labels, map, name, namespace,
    namespace_ending, number, owner_reference, pod_active, pod_available, pod_ready, remove_owner, selects, text, uid,
};
use super::queue::{Context, Requeue};
use crate::store::{Key, Object, Resource, StoreError, Write};
use plan::{Limits, Set, Share};

const COMPONENT: &str = "deployment-controller";

/// A ReplicaSet with what its pods are doing now. Counted from the pods, since the set's own status may lag.
#[derive(Clone, Debug)]
pub struct SetInUse {
    /// The ReplicaSet.
    pub object: Object,
    /// `spec.replicas`.
    pub asked: i64,
    /// Pods that count.
    pub living: i64,
    /// Of these, the ready ones.
    pub ready: i64,
    /// Of these, those ready for `minReadySeconds`.
    pub available: i64,
    /// Pods that have not ended, those that are ending included.
    pub not_ended: i64,
}

impl SetInUse {
    fn set(&self) -> Set {
        Set { asked: self.asked, living: self.living, available: self.available }
    }
}

/// How a Deployment replaces pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// All old ones first.
    Recreate,
    /// Some at a time.
    Rolling,
}

/// `spec.strategy`.
pub fn strategy(deployment: &Value) -> Strategy {
    match text(deployment, "/spec/strategy/type") {
        "Recreate" => Strategy::Recreate,
        _ => Strategy::Rolling,
    }
}

/// The limits of a Deployment in pods, rounded as Kubernetes rounds: surge up, unavailable down.
pub fn limits(deployment: &Value) -> Limits {
    let replicas = number(deployment, "/spec/replicas", 1);
    match strategy(deployment) {
        Strategy::Recreate => Limits { replicas, max_surge: 0, max_unavailable: 0 },
        Strategy::Rolling => {
            let field = |name| deployment.pointer("/spec/strategy/rollingUpdate").and_then(|r| r.get(name));
            Limits::new(
                replicas,
                int_or_percent(field("maxSurge"), "25%", replicas, true),
                int_or_percent(field("maxUnavailable"), "25%", replicas, false),
            )
        }
    }
}

fn sets_resource() -> Resource {
    Resource::new("apps", "replicasets")
}

fn set_key(set: &Value) -> Key {
    Key::namespaced("apps", "replicasets", namespace(set), name(set))
}

/// Brings one Deployment's ReplicaSets a step nearer to what it asks for.
pub fn reconcile(context: &Context, key: &Key) -> Requeue {
    let Some(deployment) = context.store.get(key) else { return Requeue::No };
    let now = (context.store.clock())();
    if deployment.pointer("/spec/selector").is_none_or(|s| s.as_object().is_none_or(serde_json::Map::is_empty)) {
        context.events.warning(
            COMPONENT,
            about(&deployment),
            "SelectingAll",
            "this deployment is selecting all pods, a non-empty selector is required",
        );
        return Requeue::No;
    }
    if !deleting(&deployment) {
        claim(context, &deployment);
    }
    let view = View::read(context, deployment, now);
    let again = |view: &View| status::write(context, key, view, now);
    if deleting(&view.deployment) {
        return again(&view);
    }
    if flag(&view.deployment, "/spec/paused") {
        let view = find_new_set(context, view, now, Create::No);
        scale(context, &view);
        return again(&View::read(context, view.deployment, now));
    }
    if view.is_scaling() {
        let view = find_new_set(context, view, now, Create::No);
        scale(context, &view);
        return again(&View::read(context, view.deployment, now));
    }
    let view = match strategy(&view.deployment) {
        Strategy::Rolling => {
            let view = find_new_set(context, view, now, Create::Yes);
            roll(context, &view);
            view
        }
        Strategy::Recreate => recreate(context, view, now),
    };
    let view = View::read(context, view.deployment, now);
    if status::complete(&view, &status::counts(&view)) {
        clean_up(context, &view);
    }
    again(&view)
}

fn about(deployment: &Value) -> About<'_> {
    About::whole("apps/v1", "Deployment", deployment)
}

/// Takes in ReplicaSets that fit and have no owner, and lets go of those that no longer fit.
fn claim(context: &Context, deployment: &Value) {
    let selector = deployment.pointer("/spec/selector");
    for set in context.store.list(&sets_resource(), Some(namespace(deployment))).0 {
        let fits = selects(selector, labels(&set));
        if controlled_by(&set, deployment) && !fits {
            edit(&context.store, &set_key(&set), uid(&set), Write::Spec, |set| remove_owner(set, uid(deployment)));
        } else if controller(&set).is_none() && fits && !deleting(&set) {
            edit(&context.store, &set_key(&set), uid(&set), Write::Spec, |set| {
                add_owner(set, owner_reference("apps/v1", "Deployment", deployment));
            });
        }
    }
}

/// A Deployment with its ReplicaSets, oldest first, as they are now.
pub struct View {
    /// The Deployment.
    pub deployment: Object,
    /// Its sets.
    pub sets: Vec<SetInUse>,
    /// Which of them has the present template.
    pub new: Option<usize>,
    /// When a ready pod will be available, if one is waited for.
    pub next_available: Option<jiff::SignedDuration>,
}

impl View {
    fn read(context: &Context, deployment: Object, now: Timestamp) -> Self {
        let deployment = context
            .store
            .get(&Key::namespaced("apps", "deployments", namespace(&deployment), name(&deployment)))
            .filter(|d| uid(d) == uid(&deployment))
            .unwrap_or(deployment);
        let mut sets = context.store.list(&sets_resource(), Some(namespace(&deployment))).0;
        sets.retain(|set| controlled_by(set, &deployment));
        revision::by_age(&mut sets);
        let min_ready = number(&deployment, "/spec/minReadySeconds", 0);
        let mut pods: HashMap<String, Vec<Object>> = HashMap::new();
        for pod in super::object::pods(&context.store, namespace(&deployment)) {
            if let Some(owner) = controller(&pod) {
                pods.entry(text(owner, "/uid").to_owned()).or_default().push(pod);
            }
        }
        let mut next_available: Option<jiff::SignedDuration> = None;
        let new = revision::find_new(&deployment["spec"]["template"], &sets).map(|set| uid(set).to_owned());
        let sets: Vec<SetInUse> = sets
            .into_iter()
            .map(|object| {
                let mine = pods.get(uid(&object)).map_or(&[][..], Vec::as_slice);
                let active: Vec<&Object> = mine.iter().filter(|p| pod_active(p)).collect();
                for pod in &active {
                    if let Some(left) = super::object::until_available(pod, min_ready, now).filter(|l| !l.is_zero()) {
                        next_available = Some(next_available.map_or(left, |n| n.min(left)));
                    }
                }
                let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
                SetInUse {
                    asked: number(&object, "/spec/replicas", 1),
                    living: count(active.len()),
                    ready: count(active.iter().filter(|p| pod_ready(p)).count()),
                    available: count(active.iter().filter(|p| pod_available(p, min_ready, now)).count()),
                    not_ended: count(mine.iter().filter(|p| !super::object::pod_finished(p)).count()),
                    object,
                }
            })
            .collect();
        let new = new.and_then(|new| sets.iter().position(|s| uid(&s.object) == new));
        Self { deployment, sets, new, next_available }
    }

    /// The set of the present template.
    pub fn new_set(&self) -> Option<&SetInUse> {
        self.new.and_then(|n| self.sets.get(n))
    }

    /// All others, oldest first.
    pub fn old_sets(&self) -> impl Iterator<Item = &SetInUse> {
        self.sets.iter().enumerate().filter(|(n, _)| Some(*n) != self.new).map(|(_, s)| s)
    }

    /// Whether `spec.replicas` differs from what a set in use was sized for.
    fn is_scaling(&self) -> bool {
        let replicas = number(&self.deployment, "/spec/replicas", 1);
        let sized_for = |s: &SetInUse| revision::size(&s.object, revision::DESIRED_REPLICAS);
        self.sets.iter().filter(|s| s.asked > 0).any(|s| sized_for(s).is_some_and(|n| n != replicas))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Create {
    Yes,
    No,
}

/// Finds the set of the present template and gives it the newest revision; makes it if it lacks.
fn find_new_set(context: &Context, view: View, now: Timestamp, create: Create) -> View {
    let deployment = view.deployment.clone();
    let next = view.old_sets().map(|s| revision::revision(&s.object)).max().unwrap_or(0) + 1;
    if let Some(new) = view.new_set() {
        let min_ready = deployment.pointer("/spec/minReadySeconds").cloned();
        let set = edit(&context.store, &set_key(&new.object), uid(&new.object), Write::Spec, |set| {
            revision::annotate(&deployment, set, next, true);
            if let Some(min_ready) = &min_ready {
                set["spec"]["minReadySeconds"] = min_ready.clone();
            }
        });
        if let Some(set) = set {
            remember_revision(context, &deployment, revision::revision(&set));
            if status::progress_deadline(&deployment).is_some() && super::object::condition(&deployment["status"], "Progressing").is_none()
            {
                let message = format!("Found new replica set \"{}\"", name(&set));
                status::set_progressing(context, &deployment, "True", "FoundNewReplicaSet", &message, now);
            }
        }
        return View::read(context, deployment, now);
    }
    if create == Create::No || namespace_ending(&context.store, namespace(&deployment)) {
        return view;
    }
    make_set(context, &view, next, now);
    View::read(context, deployment, now)
}

fn make_set(context: &Context, view: &View, next_revision: i64, now: Timestamp) {
    let deployment = &view.deployment;
    let template = &deployment["spec"]["template"];
    let limits = limits(deployment);
    let replicas = match strategy(deployment) {
        Strategy::Recreate => limits.replicas,
        Strategy::Rolling => {
            let old: Vec<Set> = view.sets.iter().map(SetInUse::set).collect();
            plan::new_size(limits, Set { asked: 0, living: 0, available: 0 }, &old)
        }
    };
    let mut collisions = number(deployment, "/status/collisionCount", 0);
    loop {
        let hash = revision::template_hash(template, collisions);
        let key = Key::namespaced("apps", "replicasets", namespace(deployment), &format!("{}-{hash}", name(deployment)));
        let mut template = template.clone();
        crate::store::metadata(&mut template);
        map(&mut template["metadata"], "labels").insert(POD_TEMPLATE_HASH.into(), hash.as_str().into());
        let mut selector = deployment["spec"]["selector"].clone();
        map(&mut selector, "matchLabels").insert(POD_TEMPLATE_HASH.into(), hash.as_str().into());
        let mut set = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"labels": template["metadata"]["labels"]},
            "spec": {"replicas": replicas, "selector": selector, "template": template},
            "status": {"replicas": 0},
        });
        if let Some(min_ready) = deployment.pointer("/spec/minReadySeconds") {
            set["spec"]["minReadySeconds"] = min_ready.clone();
        }
        add_owner(&mut set, owner_reference("apps/v1", "Deployment", deployment));
        revision::annotate(deployment, &mut set, next_revision, false);
        revision::annotate_sizes(&mut set, limits.replicas, limits.replicas + limits.max_surge);
        match context.store.create(&key, set) {
            Ok(set) => {
                if replicas > 0 {
                    let message = format!("Scaled up replica set {} from 0 to {replicas}", name(&set));
                    context.events.normal(COMPONENT, about(deployment), "ScalingReplicaSet", &message);
                }
                remember_revision(context, deployment, next_revision);
                if status::progress_deadline(deployment).is_some() {
                    let message = format!("Created new replica set \"{}\"", name(&set));
                    status::set_progressing(context, deployment, "True", "NewReplicaSetCreated", &message, now);
                }
                return;
            }
            // Another template has this hash: count the collision into the next one, as Kubernetes does.
            Err(StoreError::AlreadyExists(..)) => {
                collisions += 1;
                edit(&context.store, &deployment_key(deployment), uid(deployment), Write::Status, |d| {
                    map(d, "status").insert("collisionCount".into(), collisions.into());
                });
            }
            Err(error) => {
                tracing::warn!(deployment = name(deployment), %error, "create ReplicaSet");
                return;
            }
        }
    }
}

fn deployment_key(deployment: &Value) -> Key {
    Key::namespaced("apps", "deployments", namespace(deployment), name(deployment))
}

/// The Deployment shows the revision of its newest set.
fn remember_revision(context: &Context, deployment: &Value, revision: i64) {
    edit(&context.store, &deployment_key(deployment), uid(deployment), Write::Spec, |deployment| {
        crate::store::metadata(deployment);
        map(&mut deployment["metadata"], "annotations").insert(revision::REVISION.into(), revision.to_string().into());
    });
}

/// Sets a ReplicaSet's size, tells of it, and notes what it was sized for.
fn resize(context: &Context, deployment: &Value, set: &SetInUse, size: i64) {
    let limits = limits(deployment);
    edit(&context.store, &set_key(&set.object), uid(&set.object), Write::Spec, |object| {
        object["spec"]["replicas"] = size.into();
        revision::annotate_sizes(object, limits.replicas, limits.replicas + limits.max_surge);
    });
    if size != set.asked {
        let direction = if size > set.asked { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {} from {} to {size}", name(&set.object), set.asked);
        context.events.normal(COMPONENT, about(deployment), "ScalingReplicaSet", &message);
    }
}

/// One step of a rolling update: the new set grows, or the old ones shrink.
fn roll(context: &Context, view: &View) {
    let Some(new) = view.new_set() else { return };
    let limits = limits(&view.deployment);
    let old: Vec<&SetInUse> = view.old_sets().collect();
    let old_plan: Vec<Set> = old.iter().map(|s| s.set()).collect();
    let size = plan::new_size(limits, new.set(), &old_plan);
    if size != new.asked {
        resize(context, &view.deployment, new, size);
        return;
    }
    for (set, size) in old.iter().zip(plan::old_sizes(limits, new.set(), &old_plan)) {
        if size != set.asked {
            resize(context, &view.deployment, set, size);
        }
    }
}

/// All old pods first, then all new ones.
fn recreate(context: &Context, view: View, now: Timestamp) -> View {
    let view = if view.new.is_some() { find_new_set(context, view, now, Create::No) } else { view };
    let mut waiting = false;
    for set in view.old_sets() {
        if set.asked > 0 {
            resize(context, &view.deployment, set, 0);
        }
        waiting |= set.asked > 0 || set.not_ended > 0;
    }
    if waiting {
        return view;
    }
    let view = find_new_set(context, view, now, Create::Yes);
    if let Some(new) = view.new_set() {
        let replicas = number(&view.deployment, "/spec/replicas", 1);
        if new.asked != replicas {
            resize(context, &view.deployment, new, replicas);
        }
    }
    view
}

/// Carries a change of `spec.replicas` into the sets.
fn scale(context: &Context, view: &View) {
    let deployment = &view.deployment;
    let limits = limits(deployment);
    let active: Vec<&SetInUse> = view.sets.iter().filter(|s| s.asked > 0).collect();
    let only = match active.as_slice() {
        [] => view.new_set().or(view.sets.last()),
        [one] => Some(*one),
        _ => None,
    };
    if let Some(only) = only {
        let sized_for = revision::size(&only.object, revision::DESIRED_REPLICAS);
        if only.asked != limits.replicas || sized_for != Some(limits.replicas) {
            resize(context, deployment, only, limits.replicas);
        }
        return;
    }
    let saturated = view.new_set().is_some_and(|new| {
        new.asked == limits.replicas
            && new.available == limits.replicas
            && revision::size(&new.object, revision::DESIRED_REPLICAS) == Some(limits.replicas)
    });
    if saturated {
        for set in view.old_sets().filter(|s| s.asked > 0) {
            resize(context, deployment, set, 0);
        }
        return;
    }
    if strategy(deployment) == Strategy::Recreate {
        return;
    }
    let total: i64 = active.iter().map(|s| s.asked).sum();
    let growing = limits.replicas > 0 && limits.replicas + limits.max_surge > total;
    let mut ordered = active;
    if growing {
        // Of equally large ones the newest first.
        ordered.reverse();
    }
    ordered.sort_by_key(|s| std::cmp::Reverse(s.asked));
    let shares: Vec<Share> =
        ordered.iter().map(|s| Share { asked: s.asked, of: revision::size(&s.object, revision::MAX_REPLICAS).unwrap_or(0) }).collect();
    for (set, size) in ordered.iter().zip(plan::spread(limits, &shares)) {
        resize(context, deployment, set, size);
    }
}

/// Removes sets of revisions beyond the history that is kept.
fn clean_up(context: &Context, view: &View) {
    let limit = number(&view.deployment, "/spec/revisionHistoryLimit", 10);
    let old: Vec<Object> = view.old_sets().map(|s| s.object.clone()).collect();
    for set in revision::surplus(&old, limit) {
        // Gone already is as good.
        let _ = context.store.delete(&set_key(set), Some(uid(set)), 0);
    }
}
