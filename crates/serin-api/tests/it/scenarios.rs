//! Runs `tests/scenarios/*.toml` through the pure `decide`, in virtual time: as it is, and with a crash before and
//! after every single effect. An invariant checker looks at every action.
#![expect(clippy::print_stdout, reason = "what a run tells is for whoever reads its output")]

use std::fmt::Write as _;
use std::time::Duration;

use serin_core::action::{Action, Decision, Order};
use serin_core::decide::decide;
use serin_core::observe::Traffic;
use serin_core::plan::Plan;
use serin_core::simulate::edges;
use serin_core::state::{Phase, State};
use serin_core::units::{Timestamp, Weight};

use crate::world::{Asked, START, Source, Story, World, stories};

/// Where a run is cut: the effect of that number, counting from 0, does or does not happen, and all that was to follow is lost.
#[derive(Clone, Copy, Debug)]
enum Crash {
    Before(usize),
    After(usize),
}

/// What becomes of readings and of the clock on their way.
#[derive(Clone, Copy, Debug)]
enum Mangle {
    /// Each reading comes twice.
    Twice,
    /// Each comes when the next one is due.
    Late,
    /// Of two the second comes first.
    Swapped,
    /// In the middle of the story the clock jumps by so many seconds.
    Clock(i64),
}

/// Readings that were made and have not come yet.
#[derive(Default)]
struct OnTheWay {
    first: Option<Traffic>,
    later: Option<Traffic>,
}

impl OnTheWay {
    /// What comes in the place of what was read now.
    fn deliver(&mut self, mangle: Option<Mangle>, now: Traffic) -> Traffic {
        let read = matches!(now, Traffic::Read(_));
        match mangle {
            None | Some(Mangle::Clock(_)) => now,
            Some(Mangle::Twice) if read => {
                self.later = Some(now.clone());
                now
            }
            Some(Mangle::Late) if read => self.later.replace(now).unwrap_or(Traffic::NotAsked),
            Some(Mangle::Swapped) if read => match self.first.take() {
                Some(first) => {
                    self.later = Some(first);
                    now
                }
                None => {
                    self.first = Some(now);
                    Traffic::NotAsked
                }
            },
            Some(Mangle::Twice | Mangle::Swapped) if matches!(now, Traffic::NotAsked) => self.later.take().unwrap_or(now),
            Some(Mangle::Twice | Mangle::Late | Mangle::Swapped) => now,
        }
    }
}

struct Run {
    world: World,
    state: State,
    message: String,
    events: Vec<String>,
    journal: String,
    effects: usize,
}

fn plan_of(spec: &serde_json::Value) -> Plan {
    let spec: serin_api::CanaryReleaseSpec = serde_json::from_value(spec.clone()).expect("a spec of the CRD's shape");
    serin_api::plan_of(&spec).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// Lets a story happen. The loop is the controller's: observe, decide, write, act, sleep.
fn run(story: &Story, crash: Option<Crash>) -> Run {
    run_with(story, crash, None)
}

fn run_with(story: &Story, crash: Option<Crash>, mangle: Option<Mangle>) -> Run {
    let mut on_the_way = OnTheWay::default();
    let mut world = World::new(story);
    let mut state = State::new();
    let mut source = Source::default();
    let mut out =
        Run { world: world.clone(), state: state.clone(), message: String::new(), events: Vec::new(), journal: String::new(), effects: 0 };
    let end = START.plus(Duration::from_secs_f64(story.minutes * 60.0));
    let mut next_poll = START;
    let mut wants_traffic = false;
    let mut looks_now = 0;
    let mut planned = world.spec.clone();
    let mut plan = plan_of(&planned);
    let mut wake = Some(START);
    while world.now < end {
        let due = [wake, wants_traffic.then_some(next_poll), world.next_change(), world.next_ready()];
        let at = due.into_iter().flatten().min().unwrap_or(end).max(world.now).min(end);
        looks_now = if at > world.now { 0 } else { looks_now + 1 };
        assert!(looks_now < 100, "it never comes to rest at {:?}:\n{}", world.now, out.journal);
        world.advance(at);
        if world.spec != planned {
            planned = world.spec.clone();
            plan = plan_of(&planned);
        }
        let mut traffic = Traffic::NotAsked;
        if let Some(rollout) = state.rollout().filter(|_| wants_traffic && at >= next_poll) {
            let asked = Asked { queries: plan.spec().limits.len(), counters: plan.counters().len() };
            traffic = source.poll(&world, rollout.stable.name.as_str(), rollout.canary.name.as_str(), &edges(&plan), asked);
            next_poll = at.plus(plan.spec().interval);
        }
        let seen = world.observe(on_the_way.deliver(mangle, traffic));
        let jump = match mangle {
            Some(Mangle::Clock(seconds)) if at.since(START) * 2 > end.since(START) => seconds * 1000,
            Some(_) | None => 0,
        };
        let clock = Timestamp(world.now.0 + jump);
        let mut decision = decide(&plan, &state, &seen, clock);
        if crash.is_none() {
            assert_eq!(decision, decide(&plan, &state, &seen, clock), "the same arguments, another decision");
        }
        decision.wake_at = decision.wake_at.map(|at| Timestamp(at.0 - jump));
        check(&plan, &world, &state, &decision, &out.journal);
        if state.rollout().is_none() != decision.next.rollout().is_none() {
            source = Source::default();
            on_the_way = OnTheWay::default();
            next_poll = world.now;
        }
        wants_traffic = decision.wants_traffic;
        wake = decision.wake_at;
        let changed = decision.next != state;
        let message = decision.reasons.first().map(ToString::to_string).unwrap_or_default();
        if message != out.message {
            let _ = writeln!(out.journal, "{:>9.1} {:<12} {message}", at.since(START).as_secs_f64(), decision.next.phase.name());
        }
        out.message = message;
        if !carry_out(&mut world, &mut state, decision, changed, crash, &mut out) {
            // The process died and comes back with an empty memory but for the checkpoint.
            source = Source::default();
            wants_traffic = true;
            next_poll = world.now;
            wake = Some(world.now);
        } else if changed && wake.is_none() {
            // A write of the status or of an object wakes the controller, as in the cluster.
            wake = Some(world.now);
        }
        wake = wake.filter(|w| *w > world.now || changed || looks_now == 0);
    }
    out.world = world;
    out.state = state;
    out
}

/// The write and the actions in their order; `false` when the crash came.
fn carry_out(world: &mut World, state: &mut State, decision: Decision, changed: bool, crash: Option<Crash>, out: &mut Run) -> bool {
    enum Effect {
        Write,
        Act(Action),
    }
    let (first, later): (Vec<Action>, Vec<Action>) = match decision.order {
        Order::StateFirst => (Vec::new(), decision.actions),
        Order::RouteFirst => decision.actions.into_iter().partition(|a| matches!(a, Action::SetWeights { .. })),
    };
    let write = changed.then_some(Effect::Write);
    let effects = first.into_iter().map(Effect::Act).chain(write).chain(later.into_iter().map(Effect::Act));
    for effect in effects {
        let number = out.effects;
        out.effects += 1;
        if matches!(crash, Some(Crash::Before(n)) if n == number) {
            return false;
        }
        match effect {
            Effect::Write => {
                *state = decision.next.clone();
                if crash.is_none() {
                    // Through the checkpoint's own text, as a restart would read it.
                    *state = serin_api::state_from(&serin_api::checkpoint(&decision.next)).expect("our own checkpoint");
                    assert_eq!(*state, decision.next, "the checkpoint lost something");
                }
            }
            Effect::Act(action) => {
                if let Action::Event { reason, .. } = &action {
                    out.events.push(format!("{}: {reason}", reason.code()));
                }
                world.act(&action);
            }
        }
        if matches!(crash, Some(Crash::After(n)) if n == number) {
            return false;
        }
    }
    true
}

/// What must hold at every decision of every story.
fn check(plan: &Plan, world: &World, state: &State, decision: &Decision, journal: &str) {
    let braked = plan.spec().suspend || world.freeze.is_some();
    let serves = matches!(decision.reasons.first(), Some(serin_core::reason::Reason::Serving { .. }));
    assert!(!serves || !matches!(decision.next.phase, Phase::RolledBack { .. }), "a rollback that does not say why\n{journal}");
    for action in &decision.actions {
        match action {
            Action::SetWeights { route, canary, share, .. } => {
                let route = world.routes.iter().find(|r| r.name == route.name).expect("an existing route");
                let before = World::share(route, canary.as_str());
                if *share <= before {
                    continue;
                }
                let deployment = world.deployments.get(canary.as_str());
                let ready = deployment.map_or(0, |d| d.ready(world.now));
                let full = decision.next.rollout().map_or(1, |r| r.full_size);
                assert!(!braked, "a weight goes up under the brake\n{journal}");
                assert!(world.subsets.iter().any(|s| s == canary.as_str()), "a weight goes up without its subset\n{journal}");
                assert!(route.weights.contains_key(canary.as_str()), "a weight goes up without its destination\n{journal}");
                assert!(ready >= share.pods(full).max(1), "a weight goes up to {share} with {ready} of {full} pods\n{journal}");
                let most = plan.shares().into_iter().filter(|s| *s < Weight::ALL).max().unwrap_or(Weight::ZERO);
                assert!(*share <= most || matches!(decision.next.phase, Phase::Promoting(_)), "more weight than the plan has\n{journal}");
            }
            Action::Scale { workload, replicas } => {
                let d = world.deployments.iter().find(|(v, _)| format!("my-app-{v}") == *workload).expect("a Deployment").1;
                assert!(*replicas > d.replicas && d.scaled_by.is_none(), "scaled down, or somebody else's\n{journal}");
            }
            Action::Unscale { replicas, .. } => {
                let found = state.rollout().expect("a rollout that ends").found_replicas;
                assert!(*replicas >= found, "fewer pods than found\n{journal}");
            }
            Action::EnsureSubset { .. } => {
                assert!(world.observe(Traffic::NotAsked).rules.refusal.is_none(), "a subset that may not be written\n{journal}")
            }
            Action::Retire { workload } => {
                let version = workload.trim_start_matches("my-app-");
                assert!(!braked, "a version is deleted under the brake\n{journal}");
                assert!(
                    world.routes.iter().all(|r| World::share(r, version) == Weight::ZERO),
                    "a version with weight is deleted\n{journal}"
                );
                assert!(state.rollout().is_none(), "a version is deleted during a rollout\n{journal}");
                let stable = decision.next.stable.as_ref().and_then(|s| world.deployments.get(s.name.as_str()));
                assert!(stable.is_some_and(|d| d.ready(world.now) > 0), "a version is deleted while stable has no pod\n{journal}");
            }
            Action::RemoveDestination { version, .. } | Action::RemoveSubset { version } => {
                assert!(!braked, "something is taken off under the brake\n{journal}");
                assert!(!world.deployments.contains_key(version.as_str()), "a version with a Deployment is taken off\n{journal}");
                assert!(
                    world.routes.iter().all(|r| World::share(r, version.as_str()) == Weight::ZERO),
                    "a version with weight is taken off\n{journal}"
                );
                let named = || world.routes.iter().any(|r| r.weights.contains_key(version.as_str()));
                assert!(matches!(action, Action::RemoveDestination { .. }) || !named(), "a subset goes while a route names it\n{journal}");
            }
            Action::EnsureDestination { .. } | Action::Event { .. } | Action::Handle { .. } => {}
        }
    }
    assert!(!decision.reasons.is_empty(), "a decision without a reason\n{journal}");
    assert!(decision.next.seq == state.seq || decision.next.seq == state.seq + 1, "the sequence jumps\n{journal}");
    assert!(decision.actions.is_empty() || decision.next.seq > state.seq, "an action without a write before it\n{journal}");
    if let (Phase::RollingBack(rollout, _), Order::RouteFirst) = (&decision.next.phase, decision.order) {
        let mut after = world.clone();
        decision.actions.iter().for_each(|a| after.act(a));
        let canary = rollout.canary.name.as_str();
        assert!(after.routes.iter().all(|r| World::share(r, canary) == Weight::ZERO), "an abort leaves weight\n{journal}");
    }
}

/// How a run's end differs from what was told; empty: it does not.
fn differences(story: &Story, run: &Run) -> Vec<String> {
    let end = &story.end;
    let mut found = Vec::new();
    let mut expect = |what: String, right: bool| {
        if !right {
            found.push(what);
        }
    };
    let stable = run.state.stable.as_ref().map(|s| s.name.to_string()).unwrap_or_default();
    expect(format!("phase {}, told {}", run.state.phase.name(), end.phase), run.state.phase.name() == end.phase);
    expect(format!("stable {stable}, told {}", end.stable), stable == end.stable);
    for route in &run.world.routes {
        for (version, percent) in &end.weights {
            let share = World::share(route, version).fraction() * 100.0;
            expect(format!("{version} has {share} % on {}, told {percent}", route.name), (share - percent).abs() < 1e-6);
        }
    }
    for (version, pods) in &end.pods {
        let replicas = run.world.deployments.get(version).map(|d| d.replicas);
        expect(format!("{version} has {replicas:?} pods, told {pods}"), replicas == Some(*pods));
    }
    if let (Some(told), Some(route)) = (&end.destinations, run.world.routes.first()) {
        let named: Vec<&String> = route.weights.keys().collect();
        expect(format!("{named:?} named, told {told:?}"), named.iter().copied().eq(told));
    }
    if let Some(told) = &end.subsets {
        let mut there = run.world.subsets.clone();
        there.sort();
        expect(format!("subsets of {there:?}, told {told:?}"), there == *told);
    }
    expect(format!("message {:?}, told {:?}", run.message, end.message), run.message.contains(&end.message));
    expect(format!("requests left: {:?}", run.world.requests), run.world.requests.is_empty());
    found
}

fn as_told(happened: &[String], told: &[String]) -> bool {
    let fits = |(event, told): (&String, &String)| {
        let (code, part) = told.split_once(": ").unwrap_or((told, ""));
        event.split_once(": ").is_some_and(|(c, text)| c == code && text.contains(part))
    };
    happened.len() == told.len() && happened.iter().zip(told).all(fits)
}

#[test]
fn every_story_goes_as_told() {
    let stories = stories();
    assert!(!stories.is_empty());
    let mut findings = String::new();
    for (name, story) in &stories {
        let run = run(story, None);
        if std::env::var("SCENARIO").is_ok() {
            println!("{name}: {}\n{}", story.story, run.journal);
        }
        for difference in differences(story, &run) {
            let _ = writeln!(findings, "{name}: {difference}");
        }
        if !as_told(&run.events, &story.events) {
            let (told, happened) = (story.events.join("\n    "), run.events.join("\n    "));
            let _ = writeln!(findings, "{name}: events\n  told\n    {told}\n  happened\n    {happened}");
        }
    }
    assert!(findings.is_empty(), "\n{findings}");
    println!("{} stories", stories.len());
}

/// Everything that is checked at each decision holds; a reading that comes twice changes no end, and none of it promotes what is to be taken back.
#[test]
fn readings_that_come_twice_late_or_out_of_order_and_a_clock_that_jumps_break_nothing() {
    let mut findings = String::new();
    for (name, story) in stories() {
        for mangle in [Mangle::Twice, Mangle::Late, Mangle::Swapped, Mangle::Clock(3600), Mangle::Clock(-3600)] {
            let run = run_with(&story, None, Some(mangle));
            let mut found = if matches!(mangle, Mangle::Twice) { differences(&story, &run) } else { Vec::new() };
            let stable = run.state.stable.as_ref().map(|s| s.name.to_string()).unwrap_or_default();
            // By a clock that is an hour ahead every request is too old, and refused.
            let asked = matches!(mangle, Mangle::Clock(_)) && story.then.iter().any(|change| change.request.is_some());
            if !asked && story.end.phase == "RolledBack" && stable != story.end.stable {
                found.push(format!("stable is {stable}, and v2 was to be taken back"));
            }
            for what in found {
                let _ = writeln!(findings, "{name}, {mangle:?}: {what}");
            }
        }
    }
    assert!(findings.is_empty(), "\n{findings}");
}

/// Judged batches are writes too: the first effects are cut one by one, of the long row after them every 11th.
fn cuts(effects: usize) -> impl Iterator<Item = usize> {
    (0..effects).filter(|n| *n < 48 || n % 11 == 0)
}

#[test]
fn a_crash_at_any_effect_changes_no_end() {
    let stories = stories();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let crashes = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        while let Some((name, story)) = stories.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            for n in cuts(run(story, None).effects) {
                for crash in [Crash::Before(n), Crash::After(n)] {
                    let cut = run(story, Some(crash));
                    let found = differences(story, &cut);
                    assert!(found.is_empty(), "{name}, {crash:?}: {found:?}\n{}", cut.journal);
                    // Whoever was killed between an abort's patch and its status finds the reason beside the mark.
                    let unexplained = cut.state.history.iter().any(|p| p.why.starts_with("aborted on the route itself"));
                    assert!(!unexplained || name.contains("abort-on-the-route"), "{name}, {crash:?}: the reason is lost\n{}", cut.journal);
                    crashes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(work);
        }
    });
    println!("{} crashes", crashes.into_inner());
}
