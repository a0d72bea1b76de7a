//! One turn of the loop for one release: observe, decide, write, act.
//!
//! The state is written before anything is done, but for an abort, whose routes come first. Deliberately keeps nothing: what a
//! turn needs beside the caches is handed in, what it learnt is handed back.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use serin_api::spec::DeletionPolicySpec;
use serin_api::{CanaryReleaseSpec, CanaryReleaseStatus, Rendering, invalid_status, plan_of, state_of, status_of, status_patch};
use serin_core::action::{Action, Decision, Order, Severity};
use serin_core::decide::decide;
use serin_core::observe::{Request, RequestAction, Traffic};
use serin_core::plan::{Mode, Plan, Problem};
use serin_core::reason::Reason;
use serin_core::route::ServiceName;
use serin_core::state::{PauseCause, Phase, State};
use serin_core::units::{ObjectName, Timestamp};

use crate::act::{ActError, Hands, Haste, Work};
use crate::config::{Clock, now};
use crate::kinds::Kind;
use crate::observe::choose::{SourceChoice, Sources};
use crate::observe::policy::{Resolved, resolve};
use crate::observe::project::Release;
use crate::observe::seen::{Seen, Subject, look};
use crate::observe::source::{Arm, ArmQuery, CountersQuery};

/// What all looks share.
pub(crate) struct Context {
    pub(crate) hands: Hands,
    pub(crate) clock: Clock,
    pub(crate) root_namespace: String,
    /// Whose policy holds for releases that name none.
    pub(crate) home: Option<String>,
    pub(crate) sources: Arc<Sources>,
}

/// What a turn is given.
#[derive(Default)]
pub(crate) struct Given {
    /// What the source said since the last turn.
    pub(crate) traffic: Option<Traffic>,
    /// Why the turns before this one failed, if several did: it is shown to people.
    pub(crate) trouble: Option<String>,
    /// The watch has not told of what overtook the turn before: the release is read anew.
    pub(crate) refresh: bool,
}

/// What a turn learnt.
#[derive(Default)]
pub(crate) struct Turn {
    /// Ask again then, even if nothing happens.
    pub(crate) wake_at: Option<Timestamp>,
    /// Ask again at once.
    pub(crate) again: bool,
    /// Whether what the source said is written down, so that it need not be asked for again.
    pub(crate) counted: bool,
    /// What to ask the source, and how often.
    pub(crate) query: Option<(ArmQuery, Duration)>,
    /// The phase that it is in now; `None`: the release is gone.
    pub(crate) phase: Option<&'static str>,
    /// What went wrong.
    pub(crate) error: Option<ActError>,
}

impl Context {
    fn release(&self, name: &ObjectName) -> Option<Arc<Release>> {
        self.hands.cluster.read().unwrap_or_else(PoisonError::into_inner).release(name)
    }

    /// One turn.
    pub(crate) async fn turn(&self, name: &ObjectName, given: Given) -> Turn {
        if given.refresh
            && let Err(error) = self.hands.refresh(Kind::Release, name).await
        {
            return Turn { error: Some(error), ..Turn::default() };
        }
        let Some(release) = self.release(name) else { return Turn::default() };
        if release.deleting && !release.holds() {
            return Turn::default();
        }
        let status = read_status(&release);
        let read = match read_spec(&release) {
            Ok(spec) => match state_of(status.as_ref()) {
                Ok(state) => Ok((spec, state)),
                Err(error) => Err(vec![Problem { path: "status.checkpoint".into(), what: error.to_string() }]),
            },
            Err(problem) => Err(vec![problem]),
        };
        let (spec, state) = match read {
            Ok(read) => read,
            Err(problems) => return self.say_invalid(&release, status.as_ref(), &problems).await,
        };
        let now = now(&self.clock);
        let (resolved, planned) = self.plan(&release, now);
        let source = resolved.source;
        let (own, spec) = (spec, resolved.resolved.spec);
        let plan = match planned {
            Ok(plan) => plan,
            Err(problems) => match way_back(&release, &own, &state) {
                Some(plan) => plan,
                None => return self.say_invalid(&release, status.as_ref(), &problems).await,
            },
        };
        let returns = spec.deletion_policy == Some(DeletionPolicySpec::ReturnToStable) && plan.spec().mode == Mode::Act;
        if release.deleting && (!returns || !waits_for_return(&release, &state)) {
            return self.let_go(&release).await;
        }
        if !release.deleting && returns != release.holds() {
            let error = self.hands.set_finalizer(&release, returns).await.err();
            let again = error.is_none();
            return Turn { phase: Some(state.phase.name()), error, again, ..Turn::default() };
        }
        let traffic = given.traffic.unwrap_or(Traffic::NotAsked);
        let subject = Subject {
            release: &release,
            spec: &spec,
            plan: &plan,
            state: &state,
            root_namespace: &self.root_namespace,
            hold: resolved.resolved.hold.as_deref(),
            now,
        };
        let look = |traffic: Traffic| {
            let mut seen = self.look(&subject, traffic);
            if release.deleting {
                seen.observation.abort.get_or_insert_with(|| by_deletion(&release, now));
            }
            seen
        };
        let mut seen = look(traffic.clone());
        if release.deleting && seen.observation.routes.is_empty() {
            return self.let_go(&release).await;
        }
        let mut decision = decide(&plan, &state, &seen.observation, now);
        if says_drift(&state, &decision) {
            // A cache that lags behind looks like somebody's edit: before anybody is accused the routes are read anew.
            for route in &seen.observation.routes {
                if let Err(error) = self.hands.refresh(Kind::VirtualService, &route.object).await {
                    return Turn { phase: Some(state.phase.name()), error: Some(error), ..Turn::default() };
                }
            }
            seen = look(traffic);
            decision = decide(&plan, &state, &seen.observation, now);
        }
        if let Some(what) = given.trouble {
            decision.reasons.insert(0, Reason::Obstacle { code: "ActionFailed".into(), what });
        }
        let looked = Looked { release: &release, plan: &plan, state: &state, status: status.as_ref(), seen: &seen, source: &source, now };
        let mut turn = self.carry_out(&looked, &decision).await;
        // A window opens by the clock alone.
        turn.wake_at = turn.wake_at.into_iter().chain(resolved.resolved.until).min();
        turn
    }

    /// A deleted release may go.
    async fn let_go(&self, release: &Release) -> Turn {
        Turn { error: self.hands.set_finalizer(release, false).await.err(), ..Turn::default() }
    }

    /// The release with its policy and its source, and the plan that follows; or everything that is wrong with them.
    fn plan(&self, release: &Release, now: Timestamp) -> (Whole, Result<Plan, Vec<Problem>>) {
        let resolved = resolve(&self.hands.cluster.read().unwrap_or_else(PoisonError::into_inner), release, self.home.as_deref(), now);
        let resolved = match resolved {
            Ok(resolved) => resolved,
            Err(problems) => {
                let resolved = Resolved::alone(read_spec(release).unwrap_or_default());
                return (Whole { resolved, source: SourceChoice::Usual }, Err(problems));
            }
        };
        let source = self.sources.choose(resolved.spec.analysis.as_ref().and_then(|a| a.source.as_deref()), &resolved.sources);
        let planned = match (plan_of(&resolved.spec), &source) {
            (Ok(plan), Ok(_)) => Ok(plan),
            (Ok(_), Err(problem)) => Err(vec![problem.clone()]),
            (Err(problems), source) => Err(problems.into_iter().chain(source.as_ref().err().cloned()).collect()),
        };
        let planned = planned.map_err(|problems| problems.into_iter().map(|p| resolved.blame(p)).collect());
        (Whole { resolved, source: source.unwrap_or_default() }, planned)
    }

    fn look(&self, subject: &Subject<'_>, traffic: Traffic) -> Seen {
        look(&self.hands.cluster.read().unwrap_or_else(PoisonError::into_inner), subject, traffic)
    }

    async fn carry_out(&self, looked: &Looked<'_>, decision: &Decision) -> Turn {
        let mut turn =
            Turn { phase: Some(decision.next.phase.name()), wake_at: decision.wake_at, query: query(looked, decision), ..Turn::default() };
        let shares = looked.plan.shares();
        let work = Work {
            net: &looked.seen.net,
            requests: &looked.seen.requests,
            release: looked.release,
            seq: decision.next.seq,
            shares: &shares,
            now: (self.clock)(),
        };
        let routes_first = decision.order == Order::RouteFirst;
        let (first, later): (Vec<Action>, Vec<Action>) =
            decision.actions.iter().cloned().partition(|a| routes_first && matches!(a, Action::SetWeights { .. }));
        let mut done = self.hands.carry_out(&first, &work).await;
        match self.write(looked, decision, routes_first).await {
            Ok(()) => turn.counted = true,
            Err(error) => {
                turn.error = Some(error);
                return turn;
            }
        }
        let after = self.hands.carry_out(&later, &work).await;
        done.errors.extend(after.errors);
        for (index, (request, why)) in looked.seen.unreadable.iter().enumerate() {
            let told = format!("request refused: {why}");
            self.hands.event(&work, decision.actions.len() + index, Severity::Warning, "RequestRefused", &told).await;
            done.errors.extend(self.hands.take_off(looked.release, request).await.err());
        }
        turn.error = done.errors.into_iter().next();
        turn.again = turn.error.is_none() && (done.visible || after.visible) || decision.wake_at.is_some_and(|at| at <= looked.now);
        turn
    }

    /// Writes the status if there is something to say. At rest nothing is written.
    async fn write(&self, looked: &Looked<'_>, decision: &Decision, routes_first: bool) -> Result<(), ActError> {
        let Looked { release, plan, state, seen, status: previous, now, .. } = looked;
        let rendering =
            Rendering { plan, seen: &seen.observation, decision, generation: release.generation, previous: *previous, now: *now };
        let status = status_of(&rendering);
        let says_something = match previous {
            None => true,
            // While a rollout runs its sentences tell times that always change; they are written with each reading.
            Some(previous) if decision.next.rollout().is_some() => without_sentences(previous) != without_sentences(&status),
            Some(previous) => **previous != status,
        };
        if decision.next == **state && !says_something {
            return Ok(());
        }
        let patch = status_patch(&status);
        let mut version = release.resource_version.clone();
        let haste = if routes_first { Haste::Abort } else { Haste::None };
        for _ in 0..4 {
            match self.hands.write_status(&release.name, &version, patch.clone(), haste).await {
                // What was done to the routes must be written down, unless another controller wrote meanwhile.
                Err(ActError::Overtaken(_)) if routes_first => match self.hands.read(Kind::Release, &release.name).await? {
                    Some(now) if checkpoint(&now.data) == checkpoint(&json!({"status": previous})) => {
                        version = now.metadata.resource_version.unwrap_or_default();
                    }
                    Some(_) | None => break,
                },
                result => return result,
            }
        }
        Err(ActError::Overtaken(release.name.clone()))
    }

    async fn say_invalid(&self, release: &Release, previous: Option<&CanaryReleaseStatus>, problems: &[Problem]) -> Turn {
        if release.deleting {
            return self.let_go(release).await;
        }
        let status = invalid_status(problems, release.generation, previous, now(&self.clock));
        let mut turn = Turn { phase: Some("Invalid"), ..Turn::default() };
        if previous != Some(&status) {
            turn.error = self.hands.write_status(&release.name, &release.resource_version, status_patch(&status), Haste::None).await.err();
        }
        turn
    }
}

/// A release, completed.
struct Whole {
    resolved: Resolved,
    source: SourceChoice,
}

/// All that a decision was made of.
struct Looked<'a> {
    release: &'a Release,
    plan: &'a Plan,
    state: &'a State,
    status: Option<&'a CanaryReleaseStatus>,
    seen: &'a Seen,
    source: &'a SourceChoice,
    now: Timestamp,
}

fn read_spec(release: &Release) -> Result<CanaryReleaseSpec, Problem> {
    serde_json::from_str(&release.spec).map_err(|e| Problem { path: "spec".into(), what: format!("cannot be read: {e}") })
}

/// The status as it stands. Of one that a newer version wrote in another shape, the checkpoint, which says itself whether it
/// can be read.
fn read_status(release: &Release) -> Option<CanaryReleaseStatus> {
    let value: Value = serde_json::from_str(&release.status).ok()?;
    if value.is_null() {
        return None;
    }
    serde_json::from_value(value.clone()).ok().or_else(|| {
        let checkpoint = value.get("checkpoint").and_then(|c| serde_json::from_value(c.clone()).ok());
        Some(CanaryReleaseStatus { checkpoint, ..CanaryReleaseStatus::default() })
    })
}

fn checkpoint(object: &Value) -> Option<&Value> {
    object.pointer("/status/checkpoint")
}

/// Whether a pause because of somebody's edit begins with this decision.
fn says_drift(state: &State, decision: &Decision) -> bool {
    let drift = |phase: &Phase| matches!(phase, Phase::Paused(_, PauseCause::Drift { .. }));
    drift(&decision.next.phase) && !drift(&state.phase)
}

/// A spec that cannot be worked with must not stand in the way back: a plan for that alone, where somebody asks for it or it is
/// under way.
fn way_back(release: &Release, spec: &CanaryReleaseSpec, state: &State) -> Option<Plan> {
    let asked = release.abort.is_some() && state.rollout().is_some();
    if !asked && !matches!(state.phase, Phase::RollingBack(..)) {
        return None;
    }
    let traffic =
        spec.traffic.as_ref().map(|t| serin_api::spec::TrafficSpec { virtual_services: t.virtual_services.clone(), ..Default::default() });
    let label = spec.version.as_ref().map(|v| serin_api::spec::VersionSpec { label: v.label.clone(), desired: None });
    plan_of(&CanaryReleaseSpec {
        service: spec.service.clone(),
        version: label,
        suspend: Some(true),
        traffic,
        ..CanaryReleaseSpec::default()
    })
    .ok()
}

/// What to ask the source for the rollout that runs now.
fn query(looked: &Looked<'_>, decision: &Decision) -> Option<(ArmQuery, Duration)> {
    let rollout = decision.next.rollout().filter(|_| decision.wants_traffic)?;
    let namespace = &looked.release.name.namespace;
    let arm = |v: &serin_core::state::Version| Arm {
        version: v.name.clone(),
        workload: ObjectName { namespace: namespace.clone(), name: v.workload.clone() },
    };
    let (edges, all_edges) = rollout.edges(looked.plan);
    let interval = looked.plan.spec().interval;
    let value = |name: &str| match name {
        "namespace" => namespace.clone(),
        "service" => looked.release.service.clone(),
        "canary.version" => rollout.canary.name.to_string(),
        "canary.workload" => rollout.canary.workload.clone(),
        "stable.version" => rollout.stable.name.to_string(),
        "stable.workload" => rollout.stable.workload.clone(),
        "interval" => serin_api::values::duration_string(interval),
        "rollout" => rollout.uid.clone(),
        _ => String::new(),
    };
    // The plan was checked: what cannot be filled in is as it was written.
    let filled = |query: &str| serin_api::template::render(query, value).unwrap_or_else(|_| query.to_owned());
    let limits = looked.plan.spec().limits.iter().map(|l| (l.name.clone(), filled(&l.query))).collect();
    let counters = looked.plan.counters().iter().map(|(name, pair)| {
        let of = |arm: &Arm| {
            let of_arm = |name: &str| match name {
                "arm.version" => arm.version.to_string(),
                "arm.workload" => arm.workload.name.clone(),
                other => value(other),
            };
            let filled = |text: &str| serin_api::template::render_selector(text, of_arm).unwrap_or_else(|_| text.to_owned());
            (filled(&pair.bad), filled(&pair.total))
        };
        CountersQuery { name: name.clone(), stable: of(&arm(&rollout.stable)), canary: of(&arm(&rollout.canary)) }
    });
    let query = ArmQuery {
        counters: counters.collect(),
        rollout: rollout.uid.clone(),
        questions: looked.plan.questions().to_owned(),
        preparing: matches!(decision.next.phase, Phase::Preparing(_)),
        service: ServiceName::new(&looked.release.service, namespace),
        stable: arm(&rollout.stable),
        canary: arm(&rollout.canary),
        edges,
        all_edges,
        limits,
        interval,
        source: looked.source.clone(),
    };
    Some((query, interval))
}

/// The id of what a deletion asks for.
fn deletion_id(release: &Release) -> String {
    format!("deletion-{}", release.uid)
}

/// Whether a deleted release has something to be taken back. Not where that was refused, as stable has no pod: a release that cannot be
/// deleted would help nobody.
fn waits_for_return(release: &Release, state: &State) -> bool {
    let refused = || state.handled.iter().any(|h| h.id == deletion_id(release) && h.refused.is_some());
    state.rollout().is_some() && !refused()
}

/// A deletion asks for what an abort asks for.
fn by_deletion(release: &Release, now: Timestamp) -> Request {
    Request {
        id: deletion_id(release),
        action: RequestAction::Abort,
        rollout: String::new(),
        step: None,
        who: "the deletion of this release".into(),
        why: "spec.deletionPolicy is ReturnToStable".into(),
        at: now,
    }
}

/// A status without the words that tell times.
fn without_sentences(status: &CanaryReleaseStatus) -> CanaryReleaseStatus {
    let mut bare = status.clone();
    bare.message = None;
    if let Some(rollout) = &mut bare.rollout {
        rollout.remaining = None;
    }
    bare.reasons.iter_mut().for_each(|r| r.message.clear());
    bare.conditions.iter_mut().for_each(|c| c.message.clear());
    bare
}
