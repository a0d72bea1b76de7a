//! Who is in charge, among several controllers: the holder of one Lease.
//!
//! A courtesy, not a guard: two that both believe it do no harm, as no action happens before a write that only one of them can
//! make. Whether a holder still lives is told by its lease changing, seen from here, so that clocks need not agree.

use std::time::Duration;

use jiff::Timestamp;
use kube::Api;
use kube::api::{DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use serin_api::names::FIELD_MANAGER;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Clock;

/// Where the lease is, and how long it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseOptions {
    /// Its namespace: the controller's.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Unchanged for so long, it is free.
    pub holds: Duration,
}

impl LeaseOptions {
    /// The usual one: `serin` in this namespace, free after 15 seconds.
    pub fn new(namespace: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: "serin".into(), holds: Duration::from_secs(15) }
    }
}

/// Tries to be in charge until `stop`, and says so; gives the lease back at the end.
pub(crate) struct Candidate {
    api: Api<DynamicObject>,
    options: LeaseOptions,
    identity: String,
    clock: Clock,
    /// The lease as it was last seen, and since when it has been so.
    seen: Option<(Value, Instant)>,
}

impl Candidate {
    pub(crate) fn new(client: kube::Client, options: LeaseOptions, identity: String, clock: Clock) -> Self {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("coordination.k8s.io", "v1", "Lease"), "leases");
        Self { api: Api::namespaced_with(client, &options.namespace, &resource), options, identity, clock, seen: None }
    }

    pub(crate) async fn run(mut self, leading: watch::Sender<bool>, stop: CancellationToken) {
        let beat = self.options.holds / 5;
        let mut renewed: Option<Instant> = None;
        loop {
            // An answer that comes later than the next beat is none.
            let held = tokio::time::timeout(beat, self.try_hold()).await;
            match held {
                Ok(Ok(true)) => renewed = Some(Instant::now()),
                Ok(Ok(false)) => renewed = None,
                Ok(Err(error)) => tracing::warn!(%error, "the lease was not read or written; trying again"),
                Err(_) => tracing::warn!("the API server did not answer about the lease in time"),
            }
            // Whoever cannot renew steps back before another may step in.
            let leads = renewed.is_some_and(|at| at.elapsed() < self.options.holds * 2 / 3);
            leading.send_if_modified(|now| std::mem::replace(now, leads) != leads);
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(beat) => {}
            }
        }
        leading.send_replace(false);
        if renewed.is_some() {
            // Others need not wait for it to run out.
            let _ = tokio::time::timeout(beat, self.give_back()).await;
        }
    }

    /// Takes or renews the lease, if it is free or ours.
    async fn try_hold(&mut self) -> Result<bool, kube::Error> {
        let Some(lease) = self.api.get_opt(&self.options.name).await? else {
            return taken(self.api.create(&params(), &self.lease(None, 0)).await);
        };
        let holder = lease.data.pointer("/spec/holderIdentity").and_then(Value::as_str).unwrap_or_default();
        let spec = lease.data.get("spec").cloned().unwrap_or_default();
        let unchanged = match &self.seen {
            Some((before, since)) if *before == spec => since.elapsed(),
            _ => {
                self.seen = Some((spec.clone(), Instant::now()));
                Duration::ZERO
            }
        };
        let promised = spec.get("leaseDurationSeconds").and_then(Value::as_u64).map_or(self.options.holds, Duration::from_secs);
        if holder != self.identity && !holder.is_empty() && unchanged < promised {
            return Ok(false);
        }
        let changes = spec.get("leaseTransitions").and_then(Value::as_u64).unwrap_or(0) + u64::from(holder != self.identity);
        taken(self.api.replace(&self.options.name, &params(), &self.lease(Some(&lease), changes)).await)
    }

    fn lease(&self, now: Option<&DynamicObject>, changes: u64) -> DynamicObject {
        let micro = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let at = micro((self.clock)());
        let ours = |lease: &DynamicObject| lease.data.pointer("/spec/holderIdentity").and_then(Value::as_str) == Some(&self.identity);
        let since = now.filter(|l| ours(l)).and_then(|l| l.data.pointer("/spec/acquireTime")).cloned().unwrap_or_else(|| json!(at));
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("coordination.k8s.io", "v1", "Lease"), "leases");
        let mut lease = DynamicObject::new(&self.options.name, &resource).within(&self.options.namespace);
        lease.metadata.resource_version = now.and_then(|l| l.metadata.resource_version.clone());
        lease.data = json!({"spec": {
            "holderIdentity": self.identity, "leaseDurationSeconds": self.options.holds.as_secs().max(1), "acquireTime": since, "renewTime": at,
            "leaseTransitions": changes,
        }});
        lease
    }

    async fn give_back(&self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.options.name).await? else { return Ok(()) };
        if lease.data.pointer("/spec/holderIdentity").and_then(Value::as_str) != Some(&self.identity) {
            return Ok(());
        }
        if let Some(spec) = lease.data.get_mut("spec").and_then(Value::as_object_mut) {
            spec.remove("holderIdentity");
            spec.insert("leaseDurationSeconds".into(), json!(1));
        }
        taken(self.api.replace(&self.options.name, &params(), &lease).await).map(drop)
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() }
}

/// Whoever was faster has it.
fn taken(result: Result<DynamicObject, kube::Error>) -> Result<bool, kube::Error> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
        Err(error) => Err(error),
    }
}
