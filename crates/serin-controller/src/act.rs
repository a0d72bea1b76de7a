//! One action → API calls, each safe to repeat. Patches are cut from the objects that the decision saw, or, on the way back, from
//! the objects as they stand now, until they show what was asked for.
//!
//! What a write answers goes into the caches at once, so that the next look does not ask for what is done already.
//! Deliberately decides nothing: what cannot be done is said, and the next look sees that it was not.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::future::join_all;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use serin_api::names::{self, FIELD_MANAGER};
use serin_core::action::{Action, Guard, Severity};
use serin_core::route::companion::{SubsetPlan, SubsetRemoval};
use serin_core::units::{ObjectName, VersionName, Weight};
use tokio::sync::Semaphore;

use crate::kinds::Kind;
use crate::observe::cluster::Cluster;
use crate::observe::project::{self, Release};
use crate::observe::seen::{Net, SeenRequest};

/// How often a way back is tried before the next look takes over, and how long it waits in between.
const TRIES: u32 = 8;
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(800);

/// Why an action was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActError {
    /// Something moved since the look: look again.
    #[error("{0} changed since it was looked at")]
    Changed(String),
    /// The release itself was written by somebody else: look again when the watch has told of it. To read it now would mix what
    /// is new of it with what is old of all else.
    #[error("CanaryRelease {0} was written by somebody else since it was looked at")]
    Overtaken(ObjectName),
    /// The routes or rules do not allow it.
    #[error("{0}")]
    Refused(String),
    /// The API server did not do it.
    #[error("{what}: {}", in_short(.error))]
    Api {
        /// What was tried, as `patch VirtualService shop/cart`.
        what: String,
        /// Its answer.
        error: Box<kube::Error>,
    },
}

/// The server's own sentence, without the client's dump of the whole answer; of a right that lacks, with what gives it.
fn in_short(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            format!("{}. `serin install --image IMAGE | kubectl apply -f -` gives the controller its rights", status.message)
        }
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => other.to_string(),
    }
}

/// Everything that actions need.
#[derive(Clone)]
pub(crate) struct Hands {
    pub(crate) client: kube::Client,
    pub(crate) cluster: Arc<RwLock<Cluster>>,
    pub(crate) identity: String,
    /// Writes of statuses that may be under way at once: after a start there are as many as releases, and an abort must not wait
    /// behind them.
    pub(crate) desk: Arc<Semaphore>,
}

/// How many that is.
pub(crate) const DESK: usize = 64;

/// Whether a write may wait its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Haste {
    /// It may.
    None,
    /// An abort is being written down.
    Abort,
}

/// One decision's actions, and what they were decided on.
pub(crate) struct Work<'a> {
    pub(crate) net: &'a Net,
    pub(crate) requests: &'a [SeenRequest],
    pub(crate) release: &'a Release,
    /// The number of the write that the actions belong to.
    pub(crate) seq: u64,
    /// All shares of the plan.
    pub(crate) shares: &'a [Weight],
    /// Now, for events.
    pub(crate) now: jiff::Timestamp,
}

/// What came of a row of actions.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) errors: Vec<ActError>,
    /// Whether a cache shows an effect already, so that another look is due.
    pub(crate) visible: bool,
}

impl Hands {
    fn api(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        let resource = self.cluster.read().unwrap_or_else(PoisonError::into_inner).resource(kind);
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    pub(crate) fn learn(&self, kind: Kind, object: &DynamicObject) {
        self.cluster.write().unwrap_or_else(PoisonError::into_inner).learn(kind, object);
    }

    fn forget(&self, kind: Kind, name: &ObjectName) {
        self.cluster.write().unwrap_or_else(PoisonError::into_inner).forget(kind, name);
    }

    /// Reads an object anew, past the caches.
    pub(crate) async fn read(&self, kind: Kind, name: &ObjectName) -> Result<Option<DynamicObject>, ActError> {
        self.api(kind, &name.namespace).get_opt(&name.name).await.map_err(|e| api_error(format!("read {kind:?} {name}"), e))
    }

    /// Reads an object anew, into the caches.
    pub(crate) async fn refresh(&self, kind: Kind, name: &ObjectName) -> Result<Option<DynamicObject>, ActError> {
        let object = self.read(kind, name).await?;
        if let Some(object) = &object {
            self.learn(kind, object);
        }
        Ok(object)
    }

    /// Does the actions in their order; weights of several VirtualServices that follow each other are set in parallel. A failure
    /// ends the row, as what follows may rest on it, but for events and requests, which are told all the same.
    pub(crate) async fn carry_out(&self, actions: &[Action], work: &Work<'_>) -> Done {
        let mut done = Done::default();
        let mut rest = actions;
        let mut index = 0;
        while let Some(action) = rest.first() {
            let together = rest.iter().take_while(|a| matches!(a, Action::SetWeights { .. })).count().max(1);
            let (now, later) = rest.split_at(together);
            rest = later;
            let first = index;
            index += together;
            let harmless = matches!(action, Action::Event { .. } | Action::Handle { .. });
            if !done.errors.is_empty() && !harmless {
                continue;
            }
            done.visible |= matches!(
                action,
                Action::SetWeights { .. }
                    | Action::EnsureSubset { .. }
                    | Action::EnsureDestination { .. }
                    | Action::RemoveDestination { .. }
                    | Action::RemoveSubset { .. }
            );
            let results = join_all(now.iter().enumerate().map(|(i, a)| self.act(a, first + i, work))).await;
            done.errors.extend(results.into_iter().filter_map(Result::err));
        }
        done
    }

    async fn act(&self, action: &Action, index: usize, work: &Work<'_>) -> Result<(), ActError> {
        match action {
            Action::SetWeights { route, stable, canary, share, guard } => match guard {
                Guard::Forward { .. } => self.raise(work, route, stable, canary, *share, guard).await,
                Guard::Back | Guard::Abort { .. } => self.lower(work, route, stable, canary, *share, guard).await,
            },
            Action::EnsureSubset { stable, canary } => self.ensure_subset(work, stable, canary).await,
            Action::EnsureDestination { route, stable, canary } => {
                let patch = work.net.read().ensure_destination(route, stable, canary).map_err(refused)?;
                self.patch_or_refresh(Kind::VirtualService, route, &patch).await
            }
            Action::Scale { workload, replicas } => self.scale(work, workload, *replicas, |now, then| now < then).await,
            Action::Unscale { workload, replicas } => self.scale(work, workload, *replicas, |now, then| now > then).await,
            Action::Retire { workload } => self.retire(work, workload).await,
            Action::RemoveDestination { route, version } => {
                let patch = work.net.read().remove_version(route, version).map_err(refused)?;
                self.patch_or_refresh(Kind::VirtualService, route, &patch).await
            }
            Action::RemoveSubset { version } => self.remove_subset(work, version).await,
            Action::Event { severity, reason } => {
                self.event(work, index, *severity, reason.code(), &reason.to_string()).await;
                Ok(())
            }
            Action::Handle { id } => match work.requests.iter().find(|r| r.id == *id) {
                Some(request) => self.take_off(work.release, request).await,
                None => Ok(()),
            },
        }
    }

    async fn raise(
        &self,
        work: &Work<'_>,
        route: &ObjectName,
        stable: &VersionName,
        canary: &VersionName,
        share: Weight,
        guard: &Guard,
    ) -> Result<(), ActError> {
        let change = work.net.read().set_weights(route, stable, canary, share, guard, work.shares).map_err(refused)?;
        self.patch_or_refresh(Kind::VirtualService, route, &change.patch).await
    }

    /// Tries again until the route shows it: from the cache first, as nothing may come before an abort; then from the server.
    async fn lower(
        &self,
        work: &Work<'_>,
        route: &ObjectName,
        stable: &VersionName,
        canary: &VersionName,
        share: Weight,
        guard: &Guard,
    ) -> Result<(), ActError> {
        let mut net = work.net.clone();
        let mut last = ActError::Changed(format!("VirtualService {route}"));
        let mut pause = PAUSE;
        for attempt in 0..TRIES {
            if attempt > 0 {
                match self.refresh(Kind::VirtualService, route).await {
                    Ok(Some(fresh)) => net = net.with_route(serde_json::to_value(fresh).unwrap_or_default()),
                    Ok(None) => return Ok(()),
                    Err(error) => last = error,
                }
            }
            let change = net.read().set_weights(route, stable, canary, share, guard, work.shares).map_err(refused)?;
            for left in &change.left {
                tracing::warn!(%route, %left, "the way back leaves something");
            }
            if change.patch.is_noop() {
                return Ok(());
            }
            match self.json_patch(Kind::VirtualService, route, change.patch.to_value()).await {
                Ok(()) => return Ok(()),
                // Somebody was faster: what stands there now is read at once.
                Err(ActError::Changed(_)) if attempt == 0 => {}
                Err(error) => {
                    last = error;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        Err(last)
    }

    /// Patches where the patch changes anything, and reads the object anew where it was not what the patch is pinned to.
    async fn patch_or_refresh(&self, kind: Kind, object: &ObjectName, patch: &serin_core::route::Patch) -> Result<(), ActError> {
        if patch.is_noop() {
            return Ok(());
        }
        let result = self.json_patch(kind, object, patch.to_value()).await;
        if let Err(ActError::Changed(_)) = &result {
            self.refresh(kind, object).await?;
        }
        result
    }

    async fn json_patch(&self, kind: Kind, object: &ObjectName, operations: Value) -> Result<(), ActError> {
        let what = || format!("patch {kind:?} {object}");
        let patch: json_patch::Patch = serde_json::from_value(operations).map_err(|e| ActError::Refused(format!("{}: {e}", what())))?;
        match self.api(kind, &object.namespace).patch(&object.name, &patch_params(), &Patch::Json::<()>(patch)).await {
            Ok(answer) => {
                self.learn(kind, &answer);
                Ok(())
            }
            // A failed `test` is 422, and 500 on servers before 1.27.
            Err(kube::Error::Api(status))
                if matches!(status.code, 409 | 422) && !is_invalid(&status) || (status.code == 500 && status.message.contains("test")) =>
            {
                Err(ActError::Changed(format!("{kind:?} {object}")))
            }
            Err(error) => Err(api_error(what(), error)),
        }
    }

    async fn ensure_subset(&self, work: &Work<'_>, stable: &VersionName, canary: &VersionName) -> Result<(), ActError> {
        let plan = work.net.read().ensure_subset(stable, canary).map_err(|p| ActError::Refused(p.to_string()))?;
        match plan {
            SubsetPlan::Present { .. } => Ok(()),
            SubsetPlan::Create { mut rule, .. } => {
                let resource = self.cluster.read().unwrap_or_else(PoisonError::into_inner).resource(Kind::DestinationRule);
                rule["apiVersion"] = resource.api_version.into();
                if let Some(metadata) = rule.get_mut("metadata").and_then(Value::as_object_mut) {
                    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
                    annotations[names::RELEASE] = work.release.name.name.as_str().into();
                }
                let object: DynamicObject = serde_json::from_value(rule).map_err(|e| ActError::Refused(e.to_string()))?;
                let name = crate::observe::project::name_of(&object);
                match self.api(Kind::DestinationRule, &name.namespace).create(&post_params(), &object).await {
                    Ok(answer) => {
                        self.learn(Kind::DestinationRule, &answer);
                        Ok(())
                    }
                    Err(kube::Error::Api(status)) if status.is_already_exists() => {
                        self.refresh(Kind::DestinationRule, &name).await?;
                        Err(ActError::Changed(format!("DestinationRule {name}")))
                    }
                    Err(error) => Err(api_error(format!("create DestinationRule {name}"), error)),
                }
            }
            SubsetPlan::Extend { rule, patch, .. } => self.patch_or_refresh(Kind::DestinationRule, &rule, &patch).await,
        }
    }

    /// Takes a subset out of Serin's own rule, as it was looked at.
    async fn remove_subset(&self, work: &Work<'_>, version: &VersionName) -> Result<(), ActError> {
        let removal = work.net.read().remove_subset(version).map_err(|p| ActError::Refused(p.to_string()))?;
        match removal {
            None | Some((_, SubsetRemoval::Absent)) => Ok(()),
            Some((rule, SubsetRemoval::Patch(patch))) => self.patch_or_refresh(Kind::DestinationRule, &rule, &patch).await,
            Some((rule, SubsetRemoval::Delete { resource_version })) => {
                let as_seen = Preconditions { uid: None, resource_version: Some(resource_version) };
                self.delete(Kind::DestinationRule, &rule, as_seen, "whose last subset is of no use").await
            }
        }
    }

    /// Deletes an object as it was looked at.
    async fn delete(&self, kind: Kind, object: &ObjectName, as_seen: Preconditions, why: &str) -> Result<(), ActError> {
        let params = DeleteParams { preconditions: Some(as_seen), ..DeleteParams::background() };
        match self.api(kind, &object.namespace).delete(&object.name, &params).await {
            Err(kube::Error::Api(status)) if status.is_conflict() => {
                self.refresh(kind, object).await?;
                return Err(ActError::Changed(format!("{kind:?} {object}")));
            }
            // Gone, by this call or before it.
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => return Err(api_error(format!("delete {kind:?} {object}, {why}"), error)),
            Ok(_) => {}
        }
        self.forget(kind, object);
        Ok(())
    }

    /// Sets replicas if `moves(now, then)`, pinned to the number that is there now.
    async fn scale(&self, work: &Work<'_>, workload: &str, replicas: u32, moves: impl Fn(u32, u32) -> bool) -> Result<(), ActError> {
        let object = ObjectName { namespace: work.release.name.namespace.clone(), name: workload.to_owned() };
        let api = self.api(Kind::Deployment, &object.namespace);
        let what = || format!("scale Deployment {object}");
        let scale = api.get_scale(workload).await.map_err(|e| api_error(what(), e))?;
        let now = scale.spec.as_ref().and_then(|s| s.replicas).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        if !moves(now, replicas) {
            return Ok(());
        }
        let patch = json!({"metadata": {"resourceVersion": scale.metadata.resource_version}, "spec": {"replicas": replicas}});
        match api.patch_scale(workload, &patch_params(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_conflict() => Err(ActError::Changed(format!("Deployment {object}"))),
            Err(error) => Err(api_error(what(), error)),
        }
    }

    /// Deletes a Deployment as it was decided upon: where it has another version's template by now, or was written since it was read, not.
    async fn retire(&self, work: &Work<'_>, workload: &str) -> Result<(), ActError> {
        let object = ObjectName { namespace: work.release.name.namespace.clone(), name: workload.to_owned() };
        let Some(now) = self.read(Kind::Deployment, &object).await? else { return Ok(()) };
        let known = {
            let cluster = self.cluster.read().unwrap_or_else(PoisonError::into_inner);
            cluster.deployments(&object.namespace).find(|(name, _)| *name == workload).map(|(_, d)| d.hash.clone())
        };
        if known.as_ref() != Some(&project::deployment(&now).hash) {
            return Err(ActError::Changed(format!("Deployment {object}")));
        }
        let as_seen = Preconditions { uid: now.metadata.uid, resource_version: now.metadata.resource_version };
        self.delete(Kind::Deployment, &object, as_seen, "which is replaced (spec.scaling.retireAfter)").await
    }

    /// Tells once: the name says which decision it belongs to, so that a repetition finds it there. Nothing waits for events:
    /// what cannot be told is logged.
    pub(crate) async fn event(&self, work: &Work<'_>, index: usize, severity: Severity, code: &str, message: &str) {
        let Release { name, uid, .. } = work.release;
        let kind = match severity {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        };
        tracing::info!(release = %name, reason = code, "{message}");
        // An event's note may have 1,024 bytes.
        let note = &message[..message.floor_char_boundary(1024)];
        let owner: String = uid.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
        let base: String = name.name.chars().take(200).collect();
        let event = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": format!("{base}.{owner}.{:x}.{index}", work.seq), "namespace": name.namespace},
            "eventTime": work.now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
            "reportingController": FIELD_MANAGER, "reportingInstance": self.identity,
            "action": code, "reason": code, "note": note, "type": kind,
            "regarding": {
                "apiVersion": format!("{}/{}", names::GROUP, names::VERSION), "kind": names::KIND,
                "namespace": name.namespace, "name": name.name, "uid": uid,
            },
        });
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("events.k8s.io", "v1", "Event"), "events");
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &name.namespace, &resource);
        let told = match serde_json::from_value::<DynamicObject>(event) {
            Ok(object) => api.create(&post_params(), &object).await.map(drop),
            Err(error) => Err(kube::Error::SerdeError(error)),
        };
        match told {
            Ok(()) => {}
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(error) => tracing::warn!(release = %name, error = %in_short(&error), "event not written"),
        }
    }

    /// Takes the annotation of a request off, if it still is that request.
    pub(crate) async fn take_off(&self, release: &Release, request: &SeenRequest) -> Result<(), ActError> {
        let path = format!("/metadata/annotations/{}", request.annotation.replace('~', "~0").replace('/', "~1"));
        let operations = json!([{"op": "test", "path": path, "value": request.text}, {"op": "remove", "path": path}]);
        match self.json_patch(Kind::Release, &release.name, operations).await {
            // Gone, or another request: either way this one is not there any more.
            Err(ActError::Changed(_)) => self.refresh(Kind::Release, &release.name).await.map(drop),
            result => result,
        }
    }

    /// Puts Serin's finalizer on the very release that was looked at, or takes it off.
    pub(crate) async fn set_finalizer(&self, release: &Release, wanted: bool) -> Result<(), ActError> {
        let mut all: Vec<&str> = release.finalizers.iter().map(String::as_str).filter(|f| *f != names::FINALIZER).collect();
        if wanted {
            all.push(names::FINALIZER);
        }
        let patch = json!({"metadata": {"resourceVersion": release.resource_version, "finalizers": all}});
        let api = self.api(Kind::Release, &release.name.namespace);
        let answer = match api.patch(&release.name.name, &patch_params(), &Patch::Merge(patch)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            answer => written("finalizers", &release.name, answer)?,
        };
        // Without its last finalizer a deleted object is gone, and the watch may have told so already.
        if !release.deleting {
            self.learn(Kind::Release, &answer);
        }
        Ok(())
    }

    /// Writes the status onto the very object that was looked at.
    pub(crate) async fn write_status(
        &self,
        name: &ObjectName,
        resource_version: &str,
        mut patch: Value,
        haste: Haste,
    ) -> Result<(), ActError> {
        // The semaphore is never closed: without a place it goes on all the same.
        let _place = if haste == Haste::None { self.desk.acquire().await.ok() } else { None };
        patch["metadata"] = json!({"resourceVersion": resource_version});
        let answer = self.api(Kind::Release, &name.namespace).patch_status(&name.name, &patch_params(), &Patch::Merge(patch)).await;
        self.learn(Kind::Release, &written("status", name, answer)?);
        Ok(())
    }
}

/// The release after a write that was pinned to its resource version.
fn written(what: &str, name: &ObjectName, answer: kube::Result<DynamicObject>) -> Result<DynamicObject, ActError> {
    answer.map_err(|error| match error {
        kube::Error::Api(status) if status.is_conflict() => ActError::Overtaken(name.clone()),
        error => api_error(format!("write the {what} of CanaryRelease {name}"), error),
    })
}

/// A 422 that names causes is the schema's refusal; a failed `test` names none.
fn is_invalid(status: &kube::core::Status) -> bool {
    status.code == 422 && status.details.as_ref().is_some_and(|d| !d.causes.is_empty())
}

fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() }
}

fn post_params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() }
}

fn refused(problems: Vec<serin_core::route::RouteProblem>) -> ActError {
    ActError::Refused(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

fn api_error(what: String, error: kube::Error) -> ActError {
    ActError::Api { what, error: Box::new(error) }
}
