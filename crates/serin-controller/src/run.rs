//! The loop around `decide`: one task per release, woken by changes, by `wake_at` and by the source's interval.
//!
//! Observe, decide, write the state, do the actions; an abort goes to the routes first. Deliberately holds no truth of its own:
//! the checkpoint in the status is what a restart reads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::Value;
use serin_api::names::FIELD_MANAGER;
use serin_api::{CanaryRelease, CanaryReleaseStatus, Rendering, invalid_status, plan_of, state_of, status_of, status_patch};
use serin_core::action::{Action, Decision, Order};
use serin_core::decide::decide;
use serin_core::observe::{SourceProblem, Traffic};
use serin_core::plan::{Bad, Plan, Problem};
use serin_core::state::State;
use serin_core::units::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::act::{ActError, Hands, Work};
use crate::observe::cluster::{Cluster, Key, Kind, resource};
use crate::observe::proxies::{ArmQuery, Cursor, Proxies, Target};
use crate::observe::view::{View, text};
use crate::{Clock, Source};

/// After a failed write or action the next look waits this long; doubled each time, up to 30 s.
const BACKOFF: Duration = Duration::from_millis(100);

pub(crate) struct Context {
    pub(crate) cluster: Cluster,
    pub(crate) hands: Hands,
    pub(crate) clock: Clock,
    pub(crate) source: Source,
    pub(crate) proxies: Proxies,
}

/// Runs until `stop`.
pub(crate) async fn run(context: Arc<Context>, stop: CancellationToken) {
    let mut changes = context.cluster.changes();
    let mut tended: HashMap<Key, Arc<Notify>> = HashMap::new();
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        for key in context.cluster.keys(Kind::Release) {
            tended.entry(key.clone()).or_insert_with(|| {
                let ping = Arc::new(Notify::new());
                ping.notify_one();
                tasks.spawn(tend(context.clone(), key, ping.clone(), stop.clone()));
                ping
            });
        }
        let change = tokio::select! {
            change = changes.recv() => change,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {
                let keys = context.cluster.keys(Kind::Release);
                tended.retain(|key, _| keys.contains(key));
                continue;
            }
            () = stop.cancelled() => break,
        };
        match change {
            // A reader that fell behind has missed something, so everyone looks.
            Ok(change) => {
                let near = |(key, _): &(&Key, &Arc<Notify>)| change.namespace.as_ref().is_none_or(|n| *n == key.0);
                tended.iter().filter(near).for_each(|(_, ping)| ping.notify_one());
            }
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => tended.values().for_each(|ping| ping.notify_one()),
            Err(tokio::sync::broadcast::error::RecvError::Closed) => break,
        }
    }
    // Looks that are under way end by themselves: none is cut between its write and its actions.
    while tasks.join_next().await.is_some() {}
}

/// What a release's task knows beside the caches.
#[derive(Default)]
struct Memory {
    /// The object as it was last written, until the cache has it.
    written: Option<Value>,
    cursor: Cursor,
    rollout: String,
    next_poll: Option<Timestamp>,
    wants_traffic: bool,
    wake_at: Option<Timestamp>,
    failures: u32,
}

async fn tend(context: Arc<Context>, key: Key, ping: Arc<Notify>, stop: CancellationToken) {
    let mut memory = Memory::default();
    loop {
        let now = context.now();
        let due = [memory.wake_at, memory.next_poll.filter(|_| memory.wants_traffic)].into_iter().flatten().min();
        let sleep = due.map(|at| at.since(now));
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = ping.notified() => {}
            () = sleep_for(sleep) => {}
        }
        let Some(release) = context.release(&key, &mut memory) else {
            if context.cluster.ready(Kind::Release) {
                return;
            }
            continue;
        };
        match context.look(&release, &mut memory).await {
            Ok(()) => memory.failures = 0,
            Err(error) => {
                memory.failures += 1;
                let pause = (BACKOFF * 2u32.saturating_pow(memory.failures - 1)).min(Duration::from_secs(30));
                tracing::info!(release = %format!("{}/{}", key.0, key.1), %error, ?pause, "looks again");
                memory.wake_at = Some(context.now().plus(pause));
            }
        }
    }
}

async fn sleep_for(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

impl Context {
    fn now(&self) -> Timestamp {
        Timestamp((self.clock)().as_millisecond())
    }

    /// The release as the cache has it, or as it was last written while the cache lags behind.
    fn release(&self, key: &Key, memory: &mut Memory) -> Option<Value> {
        let cached = self.cluster.get(Kind::Release, &key.0, &key.1)?;
        if let Some(written) = &memory.written {
            if sequence(written) > sequence(&cached) && text(written, "/metadata/uid") == text(&cached, "/metadata/uid") {
                return Some(written.clone());
            }
            memory.written = None;
        }
        Some((*cached).clone())
    }

    async fn look(&self, object: &Value, memory: &mut Memory) -> Result<(), ActError> {
        let now = self.now();
        let release: CanaryRelease = match serde_json::from_value(object.clone()) {
            Ok(release) => release,
            Err(error) => {
                let problem = Problem { path: "spec".into(), what: format!("cannot be read: {error}") };
                return self.say_invalid(object, &[problem], now, memory).await;
            }
        };
        let plan = match plan_of(&release.spec) {
            Ok(plan) => plan,
            Err(problems) => return self.say_invalid(object, &problems, now, memory).await,
        };
        let state = match state_of(release.status.as_ref()) {
            Ok(state) => state,
            Err(error) => {
                let problem = Problem { path: "status.checkpoint".into(), what: error.to_string() };
                return self.say_invalid(object, &[problem], now, memory).await;
            }
        };
        if !self.all_known() {
            memory.wake_at = Some(now.plus(BACKOFF));
            return Ok(());
        }
        let mut view = View::of(&self.cluster, object, &release.spec, state.stable.as_ref().map(|s| s.name.clone()), now);
        view.seen.traffic = self.traffic(&plan, &state, &view, now, memory).await;
        let now = self.now();
        view.seen.at = now;
        let decision = decide(&plan, &state, &view.seen, now);
        memory.wants_traffic = decision.wants_traffic;
        if decision.wants_traffic && memory.next_poll.is_none() {
            memory.next_poll = Some(now);
        }
        memory.wake_at = decision.wake_at;
        self.carry_out(object, &release, &plan, &state, &view, decision, memory).await
    }

    fn all_known(&self) -> bool {
        let needed = [Kind::Release, Kind::Service, Kind::Deployment, Kind::EndpointSlice, Kind::VirtualService, Kind::DestinationRule];
        needed.iter().all(|k| self.cluster.ready(*k))
    }

    #[expect(clippy::too_many_arguments, reason = "one decision and all that it was made of")]
    async fn carry_out(
        &self,
        object: &Value,
        release: &CanaryRelease,
        plan: &Plan,
        state: &State,
        view: &View,
        decision: Decision,
        memory: &mut Memory,
    ) -> Result<(), ActError> {
        let shares = plan.shares();
        let work = Work { view, release: object, shares: &shares, now: (self.clock)() };
        let is_route = |a: &&Action| matches!(a, Action::SetWeights { .. });
        let (first, later): (Vec<Action>, Vec<Action>) = match decision.order {
            Order::StateFirst => (Vec::new(), decision.actions.clone()),
            Order::RouteFirst => decision.actions.iter().cloned().partition(|a| is_route(&a)),
        };
        let mut errors = self.hands.carry_out(&first, &work).await;
        let generation = release.metadata.generation.unwrap_or(0);
        let status = status_of(&Rendering { plan, seen: &view.seen, decision: &decision, generation, previous: release.status.as_ref(), now: view.seen.at });
        let changed = decision.next != *state || release.status.as_ref() != Some(&status);
        if changed {
            let written = self.write(object, &status).await?;
            memory.written = Some(written);
        }
        errors.extend(self.hands.carry_out(&later, &work).await);
        if decision.next != *state && memory.wake_at.is_none() && !decision.actions.is_empty() {
            // Effects come back as changes; should one have been there already, nobody would wake us.
            memory.wake_at = Some(view.seen.at.plus(Duration::from_secs(1)));
        }
        errors.into_iter().next().map_or(Ok(()), Err)
    }

    async fn say_invalid(&self, object: &Value, problems: &[Problem], now: Timestamp, memory: &mut Memory) -> Result<(), ActError> {
        memory.wants_traffic = false;
        memory.wake_at = None;
        let previous: Option<CanaryReleaseStatus> = object.get("status").and_then(|s| serde_json::from_value(s.clone()).ok());
        let generation = object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
        let status = invalid_status(problems, generation, previous.as_ref(), now);
        if previous.as_ref() == Some(&status) {
            return Ok(());
        }
        memory.written = Some(self.write(object, &status).await?);
        Ok(())
    }

    /// Writes the status on the very object that was looked at.
    async fn write(&self, object: &Value, status: &CanaryReleaseStatus) -> Result<Value, ActError> {
        let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
        let mut patch = status_patch(status);
        patch["metadata"] = serde_json::json!({"resourceVersion": text(object, "/metadata/resourceVersion")});
        let api: Api<DynamicObject> = Api::namespaced_with(self.hands.client.clone(), namespace, &resource(Kind::Release, ""));
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        match api.patch_status(name, &params, &Patch::Merge(patch)).await {
            Ok(written) => Ok(serde_json::to_value(written).unwrap_or_default()),
            Err(kube::Error::Api(status)) if status.is_conflict() => Err(ActError::Changed(format!("CanaryRelease {namespace}/{name}"))),
            Err(error) => Err(ActError::Api { what: format!("write the status of CanaryRelease {namespace}/{name}"), error: Box::new(error) }),
        }
    }

    /// A reading, if one is due.
    async fn traffic(&self, plan: &Plan, state: &State, view: &View, now: Timestamp, memory: &mut Memory) -> Traffic {
        let Some(rollout) = state.rollout() else {
            memory.next_poll = None;
            memory.cursor = Cursor::default();
            return Traffic::NotAsked;
        };
        if memory.rollout != rollout.uid {
            memory.rollout.clone_from(&rollout.uid);
            memory.cursor = Cursor::default();
            memory.next_poll = None;
        }
        if memory.next_poll.is_some_and(|at| now < at) {
            return Traffic::NotAsked;
        }
        memory.next_poll = Some(now.plus(plan.spec().interval));
        let edges = plan.metrics().iter().filter_map(|m| if let Bad::SlowerThan { edge_ms } = m.bad { Some(edge_ms) } else { None });
        let query = ArmQuery {
            namespace: view.service.namespace.clone(),
            service: view.service.name.clone(),
            stable: rollout.stable.workload.clone(),
            canary: rollout.canary.workload.clone(),
            edges: edges.collect(),
        };
        let result = match &self.source {
            Source::Proxies { port } => self.proxies.poll(&self.targets(*port), &query, &mut memory.cursor, now).await,
            Source::Custom(source) => source.poll(&query, now).await,
        };
        match result {
            Ok(reading) => Traffic::Read(reading),
            Err(problem @ (SourceProblem::Unreachable { .. } | SourceProblem::Stale { .. } | SourceProblem::Missing { .. })) => Traffic::Problem(problem),
        }
    }

    fn targets(&self, port: u16) -> Vec<Target> {
        let pods = self.cluster.list(Kind::Pod, None);
        let running = pods.iter().filter(|p| p["proxy"] == Value::Bool(true) && p["phase"] == "Running");
        let target = |p: &Arc<Value>| {
            let ip = p["ip"].as_str()?;
            let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_string() };
            let started = text(p, "/started").parse::<jiff::Timestamp>().ok().map(|t| Timestamp(t.as_millisecond()));
            Some(Target {
                pod: format!("{}/{}", text(p, "/metadata/namespace"), text(p, "/metadata/name")),
                url: format!("http://{host}:{port}/stats/prometheus"),
                started,
            })
        };
        running.filter_map(target).collect()
    }
}

/// The number of the last write that the object carries.
fn sequence(object: &Value) -> u64 {
    let status: Option<CanaryReleaseStatus> = object.get("status").and_then(|s| serde_json::from_value(s.clone()).ok());
    state_of(status.as_ref()).map_or(0, |s| s.seq)
}
