//! One action → API calls, each safe to repeat. Patches are cut from the objects that the decision saw, or, on the way back, from
//! the objects as they stand now, until they show what was asked for.
//!
//! Deliberately decides nothing: what cannot be done is said, and the next look sees that it was not.

use std::time::Duration;

use futures::future::join_all;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use serin_api::names::{ABORT, FIELD_MANAGER, REQUEST};
use serin_core::action::{Action, Guard, Severity};
use serin_core::reason::Reason;
use serin_core::route::companion::SubsetPlan;
use serin_core::units::{ObjectName, VersionName, Weight};

use crate::observe::cluster::{Kind, resource};
use crate::observe::view::{View, text};

/// How often a way back is tried before the next look takes over.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Why an action was not done.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// Something moved since the look: look again.
    #[error("{0} changed since it was looked at")]
    Changed(String),
    /// The routes or rules do not allow it.
    #[error("{0}")]
    Refused(String),
    /// The API server did not do it.
    #[error("{what}: {error}")]
    Api {
        /// What was tried, as `patch VirtualService shop/cart`.
        what: String,
        /// Its answer.
        error: Box<kube::Error>,
    },
}

/// Everything that actions need.
#[derive(Clone)]
pub struct Hands {
    /// The cluster's client.
    pub client: kube::Client,
    /// The version in which Istio's kinds are served.
    pub istio: String,
}

/// One decision's actions, and what they were decided on.
pub struct Work<'a> {
    /// What the decision saw.
    pub view: &'a View,
    /// The release, as JSON.
    pub release: &'a Value,
    /// All shares of the plan.
    pub shares: &'a [Weight],
    /// Now, for events.
    pub now: jiff::Timestamp,
}

impl Hands {
    fn api(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &resource(kind, &self.istio))
    }

    /// Does the actions in their order; weights of several VirtualServices that follow each other are set in parallel. A failure
    /// ends the row, as what follows may rest on it, but for events and requests, which are told all the same.
    pub async fn carry_out(&self, actions: &[Action], work: &Work<'_>) -> Vec<ActError> {
        let mut errors = Vec::new();
        let mut rest = actions;
        while let Some(action) = rest.first() {
            let together = rest.iter().take_while(|a| matches!(a, Action::SetWeights { .. })).count().max(1);
            let (now, later) = rest.split_at(together);
            rest = later;
            let harmless = matches!(action, Action::Event { .. } | Action::Handle { .. });
            if !errors.is_empty() && !harmless {
                continue;
            }
            errors.extend(join_all(now.iter().map(|a| self.act(a, work))).await.into_iter().filter_map(Result::err));
        }
        errors
    }

    async fn act(&self, action: &Action, work: &Work<'_>) -> Result<(), ActError> {
        match action {
            Action::SetWeights { route, stable, canary, share, guard } => match guard {
                Guard::Forward { .. } => self.raise(work, route, stable, canary, *share, guard).await,
                Guard::Back | Guard::Abort { .. } => self.lower(work, route, stable, canary, *share, guard).await,
            },
            Action::EnsureSubset { stable, canary } => self.ensure_subset(work, stable, canary).await,
            Action::EnsureDestination { route, stable, canary } => {
                let patch = work.view.network().ensure_destination(route, stable, canary).map_err(refused)?;
                self.patch_route(route, patch.to_value()).await.map(drop)
            }
            Action::Scale { workload, replicas } => self.scale(work, workload, *replicas, |now, then| now < then).await,
            Action::Unscale { workload, replicas } => self.scale(work, workload, *replicas, |now, then| now > then).await,
            Action::Event { severity, reason } => self.event(work, *severity, reason).await,
            Action::Handle { id } => self.handle(work, id).await,
        }
    }

    async fn raise(&self, work: &Work<'_>, route: &ObjectName, stable: &VersionName, canary: &VersionName, share: Weight, guard: &Guard) -> Result<(), ActError> {
        let network = work.view.network();
        let change = network.set_weights(route, stable, canary, share, guard, work.shares).map_err(refused)?;
        if change.patch.is_noop() {
            return Ok(());
        }
        self.patch_route(route, change.patch.to_value()).await.map(drop)
    }

    /// Tries again until the route shows it: from the cache first, as nothing may come before an abort; then from the server.
    async fn lower(&self, work: &Work<'_>, route: &ObjectName, stable: &VersionName, canary: &VersionName, share: Weight, guard: &Guard) -> Result<(), ActError> {
        let mut view = work.view.clone();
        let mut last = ActError::Changed(format!("VirtualService {route}"));
        for _ in 0..TRIES {
            let change = view.network().set_weights(route, stable, canary, share, guard, work.shares).map_err(refused)?;
            for left in &change.left {
                tracing::warn!(%route, %left, "the way back leaves something");
            }
            if change.patch.is_noop() {
                return Ok(());
            }
            match self.patch_route(route, change.patch.to_value()).await {
                Ok(_) => return Ok(()),
                Err(error) => last = error,
            }
            tokio::time::sleep(PAUSE).await;
            match self.api(Kind::VirtualService, &route.namespace).get(&route.name).await {
                Ok(fresh) => view = view.with_route(serde_json::to_value(fresh).unwrap_or_default()),
                Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
                Err(error) => last = api_error(format!("read VirtualService {route}"), error),
            }
        }
        Err(last)
    }

    async fn patch_route(&self, route: &ObjectName, operations: Value) -> Result<DynamicObject, ActError> {
        self.json_patch(Kind::VirtualService, route, operations).await
    }

    async fn json_patch(&self, kind: Kind, object: &ObjectName, operations: Value) -> Result<DynamicObject, ActError> {
        let what = || format!("patch {kind:?} {object}");
        let patch: json_patch::Patch = serde_json::from_value(operations).map_err(|e| ActError::Refused(format!("{}: {e}", what())))?;
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let api = self.api(kind, &object.namespace);
        match api.patch(&object.name, &params, &Patch::Json::<()>(patch)).await {
            Ok(object) => Ok(object),
            // A failed `test` is 422, and 500 on servers before 1.27.
            Err(kube::Error::Api(status)) if matches!(status.code, 409 | 422) || (status.code == 500 && status.message.contains("test")) => {
                Err(ActError::Changed(format!("{kind:?} {object}")))
            }
            Err(error) => Err(api_error(what(), error)),
        }
    }

    async fn ensure_subset(&self, work: &Work<'_>, stable: &VersionName, canary: &VersionName) -> Result<(), ActError> {
        let plan = work.view.network().ensure_subset(stable, canary).map_err(|p| ActError::Refused(p.to_string()))?;
        match plan {
            SubsetPlan::Present { .. } => Ok(()),
            SubsetPlan::Create { mut rule, .. } => {
                if let Some(Value::Object(metadata)) = rule.get_mut("metadata") {
                    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
                    annotations[serin_api::names::RELEASE] = text(work.release, "/metadata/name").into();
                }
                let api_version = format!("networking.istio.io/{}", self.istio);
                rule["apiVersion"] = api_version.into();
                let namespace = text(&rule, "/metadata/namespace").to_string();
                let object: DynamicObject = serde_json::from_value(rule).map_err(|e| ActError::Refused(e.to_string()))?;
                let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
                match self.api(Kind::DestinationRule, &namespace).create(&params, &object).await {
                    Ok(_) => Ok(()),
                    Err(kube::Error::Api(status)) if status.is_already_exists() => Err(ActError::Changed("the DestinationRule".into())),
                    Err(error) => Err(api_error("create DestinationRule".into(), error)),
                }
            }
            SubsetPlan::Extend { rule, patch, .. } => self.json_patch(Kind::DestinationRule, &rule, patch.to_value()).await.map(drop),
        }
    }

    /// Sets replicas if `moves(now, then)`, pinned to the number that is there now.
    async fn scale(&self, work: &Work<'_>, workload: &str, replicas: u32, moves: impl Fn(u32, u32) -> bool) -> Result<(), ActError> {
        let object = ObjectName { namespace: work.view.service.namespace.clone(), name: workload.to_string() };
        let api = self.api(Kind::Deployment, &object.namespace);
        let what = || format!("scale Deployment {object}");
        let scale = api.get_scale(workload).await.map_err(|e| api_error(what(), e))?;
        let now = scale.spec.as_ref().and_then(|s| s.replicas).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        if !moves(now, replicas) {
            return Ok(());
        }
        let patch = json!({"metadata": {"resourceVersion": scale.metadata.resource_version}, "spec": {"replicas": replicas}});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        match api.patch_scale(workload, &params, &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_conflict() => Err(ActError::Changed(format!("Deployment {object}"))),
            Err(error) => Err(api_error(what(), error)),
        }
    }

    async fn event(&self, work: &Work<'_>, severity: Severity, reason: &Reason) -> Result<(), ActError> {
        let (namespace, name) = (text(work.release, "/metadata/namespace"), text(work.release, "/metadata/name"));
        let kind = match severity {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        };
        let message: String = reason.to_string().chars().take(1024).collect();
        let at = work.now.to_string();
        tracing::info!(release = %format!("{namespace}/{name}"), reason = reason.code(), %message);
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"generateName": format!("{name}."), "namespace": namespace},
            "involvedObject": {
                "apiVersion": format!("{}/{}", serin_api::names::GROUP, serin_api::names::VERSION), "kind": serin_api::names::KIND,
                "namespace": namespace, "name": name, "uid": text(work.release, "/metadata/uid"),
            },
            "reason": reason.code(), "message": message, "type": kind, "count": 1, "firstTimestamp": at, "lastTimestamp": at,
            "source": {"component": FIELD_MANAGER}, "reportingComponent": FIELD_MANAGER, "reportingInstance": FIELD_MANAGER,
        });
        let resource = kube::api::ApiResource { group: String::new(), version: "v1".into(), api_version: "v1".into(), kind: "Event".into(), plural: "events".into() };
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let object: DynamicObject = serde_json::from_value(event).map_err(|e| ActError::Refused(e.to_string()))?;
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        api.create(&params, &object).await.map(drop).map_err(|e| api_error("create Event".into(), e))
    }

    /// Takes the annotation of a request off, if it still is that request.
    async fn handle(&self, work: &Work<'_>, id: &str) -> Result<(), ActError> {
        let object = ObjectName { namespace: text(work.release, "/metadata/namespace").into(), name: text(work.release, "/metadata/name").into() };
        let annotation = if work.view.seen.abort.as_ref().is_some_and(|a| a.id == id) { ABORT } else { REQUEST };
        let Some(value) = work.release.pointer("/metadata/annotations").and_then(|a| a.get(annotation)) else { return Ok(()) };
        let path = format!("/metadata/annotations/{}", annotation.replace('~', "~0").replace('/', "~1"));
        let operations = json!([{"op": "test", "path": path, "value": value}, {"op": "remove", "path": path}]);
        match self.json_patch(Kind::Release, &object, operations).await {
            // Gone, or another request: either way this one is not there any more.
            Ok(_) | Err(ActError::Changed(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn refused(problems: Vec<serin_core::route::RouteProblem>) -> ActError {
    ActError::Refused(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

fn api_error(what: String, error: kube::Error) -> ActError {
    ActError::Api { what, error: Box::new(error) }
}
