//! All releases side by side: watches in, turns out, each release by itself and never two turns of one at once.
//!
//! A release is looked at when something of its own changed, when its time has come, or when the source has answered. The source
//! is asked beside the turns, so that no abort waits for a reading. Deliberately holds no truth: what is kept here may be lost.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serin_core::observe::Traffic;
use serin_core::units::ObjectName;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::act::{ActError, DESK, Hands};
use crate::config::{Config, Options, now};
use crate::kinds::Kind;
use crate::lease::Candidate;
use crate::look::{Context, Given, Turn};
use crate::metrics::{Metrics, TurnResult};
use crate::observe::choose::Sources;
use crate::observe::cluster::Cluster;
use crate::observe::source::{ArmQuery, Cursor, MetricSource, Polled};
use crate::serve::{bind, serve};
use crate::watch::{WatchEvent, watch};

/// Changes that wait to be taken in. They are whole objects: what is queued is memory.
const QUEUE: usize = 128;
/// After a failed turn the next one waits this long; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The watch tells of what overtook a turn in no time; after this long the release is read instead.
const WATCH_IS_LATE: Duration = Duration::from_secs(5);
/// Turns in a row that were asked for by nothing but the turn before. More than this is a circle, and is slowed down.
const TURNS_IN_A_ROW: u32 = 50;
/// Turns of releases at rest begin only while fewer than this are under way, since each holds memory while it waits for the API: after a start
/// ten thousand would begin at once. A release with a rollout, a request or an abort waits for nobody.
const TURNS_AT_ONCE: usize = 128;
/// Turns that failed in a row before people are told.
const FAILURES_UNTIL_TOLD: u32 = 3;
/// A shutdown waits so long for turns that are under way.
const LAST_TURNS: Duration = Duration::from_secs(25);

/// Why the controller ended, other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Every watch ended.
    #[error("the watches ended by themselves")]
    WatchesEnded,
    /// Somebody else listens there.
    #[error("listen on {address}: {error}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
}

/// Runs until `stop`: turns that are under way end first, so that no step is left half done.
///
/// # Errors
/// Only what should not happen: an API server that does not answer is waited for.
pub async fn run(client: kube::Client, config: Config, stop: CancellationToken) -> Result<(), StartError> {
    run_with(client, config, Options::default(), stop).await
}

/// As `run`, with all that a controller in a cluster is told.
///
/// # Errors
/// As `run`.
pub async fn run_with(client: kube::Client, config: Config, options: Options, stop: CancellationToken) -> Result<(), StartError> {
    let metrics = Arc::new(Metrics::default());
    // Whatever runs beside the turns ends with them.
    let aside = CancellationToken::new();
    let _ends = aside.clone().drop_guard();
    if let Some(address) = options.serve {
        let listener = bind(address).await.map_err(|error| StartError::Listen { address, error })?;
        tokio::spawn(serve(listener, metrics.clone(), aside.clone()));
    }
    let (says, leading) = tokio::sync::watch::channel(options.lease.is_none());
    let candidate = options.lease.clone().map(|lease| {
        let candidate = Candidate::new(client.clone(), lease, options.identity.clone(), config.clock.clone());
        tokio::spawn(candidate.run(says, aside.clone()))
    });
    let mut cluster = Cluster::default();
    let (out, events) = mpsc::channel(QUEUE);
    let pods = config.reads_proxies().then_some(Kind::Pod);
    let mut watches = JoinSet::new();
    for kind in Kind::ALWAYS.into_iter().chain(pods) {
        let scope = config.namespace.clone();
        cluster.expect(kind, scope.clone());
        watches.spawn(watch(client.clone(), kind, scope, out.clone()));
    }
    // One that is limited to a namespace reads the policies of its own beside.
    if let Some(home) = options.home.as_ref().filter(|home| config.namespace.as_ref().is_some_and(|only| only != *home)) {
        cluster.expect(Kind::Policy, Some(home.clone()));
        watches.spawn(watch(client.clone(), Kind::Policy, Some(home.clone()), out.clone()));
    }
    drop(out);
    let cluster = Arc::new(RwLock::new(cluster));
    let sources = Arc::new(Sources::new(&config, &cluster));
    let source: Arc<dyn MetricSource> = sources.clone();
    let context = Context {
        hands: Hands { client, cluster: cluster.clone(), identity: options.identity, desk: Arc::new(Semaphore::new(DESK)) },
        clock: config.clock.clone(),
        root_namespace: options.root_namespace,
        home: options.home,
        sources,
    };
    let mut engine = Engine {
        context: Arc::new(context),
        cluster,
        source,
        slots: HashMap::new(),
        timers: BTreeSet::new(),
        tasks: JoinSet::new(),
        names: HashMap::new(),
        waiting: BTreeSet::new(),
        synced: false,
        leads: false,
        metrics,
    };
    let result = engine.go(events, leading, &stop).await;
    engine.end().await;
    watches.abort_all();
    aside.cancel();
    if let Some(candidate) = candidate {
        // The lease is given back only when nothing is under way any more.
        let _ = candidate.await;
    }
    result
}

/// What is kept of one release between turns.
#[derive(Default)]
struct Slot {
    /// A turn is under way.
    turning: bool,
    /// Something happened since it began.
    dirty: bool,
    wake: Option<Instant>,
    /// What to ask the source, and how often.
    query: Option<Box<(ArmQuery, Duration)>>,
    next_poll: Option<Instant>,
    polling: bool,
    /// Where the source stood after the last reading that was written down.
    cursor: Option<Cursor>,
    /// What the source said, and where it stood then.
    answer: Option<Box<(Traffic, Option<Cursor>)>>,
    /// The same, while the turn that counts it is under way.
    counting: Option<Option<Cursor>>,
    /// Readings in a row that could not be written down.
    uncounted: u32,
    failures: u32,
    trouble: Option<String>,
    /// Somebody else wrote the release, and the watch has not told of it yet.
    overtaken: bool,
    in_a_row: u32,
    timer: Option<Instant>,
    phase: Option<&'static str>,
}

/// What a task did.
enum Did {
    Turn(Box<Turn>),
    Poll { rollout: String, questions: String, polled: Box<Polled> },
}

struct Engine {
    context: Arc<Context>,
    cluster: Arc<RwLock<Cluster>>,
    source: Arc<dyn MetricSource>,
    slots: HashMap<ObjectName, Slot>,
    timers: BTreeSet<(Instant, ObjectName)>,
    tasks: JoinSet<Did>,
    names: HashMap<Id, (ObjectName, bool)>,
    /// Releases that are to be looked at: when all caches are filled and this controller acts, and those at rest when it is their turn.
    waiting: BTreeSet<ObjectName>,
    synced: bool,
    leads: bool,
    metrics: Arc<Metrics>,
}

impl Engine {
    async fn go(
        &mut self,
        mut events: mpsc::Receiver<WatchEvent>,
        mut leading: tokio::sync::watch::Receiver<bool>,
        stop: &CancellationToken,
    ) -> Result<(), StartError> {
        let mut batch = Vec::new();
        let mut elects = true;
        self.lead(*leading.borrow_and_update());
        loop {
            let due = self.timers.first().map(|(at, _)| *at);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                changed = leading.changed(), if elects => match changed {
                    Ok(()) => {
                        let leads = *leading.borrow_and_update();
                        self.lead(leads);
                    }
                    // Without a lease nobody will ever say otherwise.
                    Err(_) => elects = false,
                },
                Some(done) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => self.done(done),
                count = events.recv_many(&mut batch, QUEUE) => {
                    if count == 0 {
                        return Err(StartError::WatchesEnded);
                    }
                    self.happened(&mut batch);
                }
                () = sleep_until(due) => self.due(),
            }
        }
    }

    /// Waits for what is under way.
    async fn end(&mut self) {
        let last = async {
            while let Some(done) = self.tasks.join_next_with_id().await {
                if let Ok((id, _)) = done {
                    self.names.remove(&id);
                }
            }
        };
        if tokio::time::timeout(LAST_TURNS, last).await.is_err() {
            tracing::warn!("turns were still under way when the controller had to end; the next one finds what they left");
        }
    }

    fn happened(&mut self, batch: &mut Vec<WatchEvent>) {
        let (mut dirty, synced) = {
            let mut cluster = self.cluster.write().unwrap_or_else(PoisonError::into_inner);
            let dirty: BTreeSet<ObjectName> = batch.drain(..).flat_map(|event| cluster.apply(event)).collect();
            (dirty, self.synced || cluster.synced())
        };
        let begins = synced && !self.synced;
        if begins {
            let count = self.cluster.read().unwrap_or_else(PoisonError::into_inner).release_count();
            tracing::info!(releases = count, "caches are filled");
        }
        self.synced = synced;
        self.metrics.set_synced(synced);
        // What waited for the caches is looked at with what filled them.
        if begins {
            dirty.append(&mut self.waiting);
        }
        self.look_at(dirty);
    }

    /// Whether this controller acts from now on. One that does not keeps its caches, and forgets all else.
    fn lead(&mut self, leads: bool) {
        if self.leads == leads {
            return;
        }
        tracing::info!(leads, "lease");
        self.leads = leads;
        self.metrics.set_leading(leads);
        if leads {
            let all = self.cluster.read().unwrap_or_else(PoisonError::into_inner).release_names().into_iter().collect();
            self.look_at(all);
            return;
        }
        for (_, slot) in self.slots.drain() {
            self.metrics.phase(slot.phase, None);
        }
        self.timers.clear();
        self.names.clear();
    }

    /// Looks at releases: those with work in hand now, those at rest as turns end.
    fn look_at(&mut self, mut releases: BTreeSet<ObjectName>) {
        if !self.synced || !self.leads {
            self.waiting.append(&mut releases);
            return;
        }
        let (busy, mut rest) = {
            let cluster = self.cluster.read().unwrap_or_else(PoisonError::into_inner);
            releases.into_iter().partition::<BTreeSet<_>, _>(|name| cluster.release(name).is_none_or(|release| release.busy()))
        };
        self.waiting.append(&mut rest);
        for name in busy {
            self.waiting.remove(&name);
            self.kick(name);
        }
        self.go_on();
    }

    /// Begins turns of releases that wait, as far as there is room.
    fn go_on(&mut self) {
        if self.waiting.is_empty() || !self.synced || !self.leads {
            return;
        }
        let under_way = self.names.values().filter(|(_, polling)| !polling).count();
        for _ in under_way..TURNS_AT_ONCE {
            let Some(name) = self.waiting.pop_first() else { return };
            self.kick(name);
        }
    }

    /// Looks at a release, now or as soon as the turn that runs is over.
    fn kick(&mut self, name: ObjectName) {
        let slot = self.slots.entry(name.clone()).or_default();
        slot.in_a_row = 0;
        slot.overtaken = false;
        if slot.turning {
            slot.dirty = true;
        } else {
            self.begin(name);
        }
    }

    fn begin(&mut self, name: ObjectName) {
        let Some(slot) = self.slots.get_mut(&name) else { return };
        slot.turning = true;
        slot.dirty = false;
        slot.wake = None;
        let traffic = slot.answer.take().map(|answer| {
            let (traffic, cursor) = *answer;
            slot.counting = Some(cursor);
            traffic
        });
        let trouble = slot.trouble.clone();
        let refresh = std::mem::take(&mut slot.overtaken);
        let (context, of) = (self.context.clone(), name.clone());
        let metrics = self.metrics.clone();
        let task = self.tasks.spawn(async move {
            let begun = Instant::now();
            let turn = context.turn(&of, Given { traffic, trouble, refresh }).await;
            let result = match &turn.error {
                None => TurnResult::Done,
                Some(ActError::Changed(_) | ActError::Overtaken(_)) => TurnResult::Changed,
                Some(ActError::Refused(_) | ActError::Api { .. }) => TurnResult::Failed,
            };
            metrics.turn(result, begun.elapsed());
            Did::Turn(Box::new(turn))
        });
        self.names.insert(task.id(), (name, false));
    }

    fn done(&mut self, done: Result<(Id, Did), JoinError>) {
        let id = done.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some((name, polling)) = self.names.remove(&id) else { return };
        match done {
            Ok((_, Did::Turn(turn))) => self.turned(&name, *turn),
            Ok((_, Did::Poll { rollout, questions, polled })) => self.polled(&name, &rollout, &questions, *polled),
            Err(error) => {
                // A defect in one release's turn is no reason to leave the others alone.
                tracing::error!(release = %name, %error, "a turn was broken off");
                if let Some(slot) = self.slots.get_mut(&name) {
                    if polling {
                        slot.polling = false;
                    } else {
                        slot.turning = false;
                        slot.counting = None;
                        slot.failures += 1;
                        slot.wake = Some(Instant::now() + pause(slot.failures));
                    }
                }
            }
        }
        self.arm(&name);
        self.go_on();
    }

    fn turned(&mut self, name: &ObjectName, turn: Turn) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        slot.turning = false;
        self.metrics.phase(slot.phase, turn.phase);
        slot.phase = turn.phase;
        let now_wall = now(&self.context.clock);
        let instant = Instant::now();
        if turn.phase.is_none() && turn.error.is_none() && !slot.dirty {
            // It is gone; should it come back, its watch says so.
            let timer = slot.timer.take();
            if !slot.polling {
                self.slots.remove(name);
            }
            timer.map(|at| self.timers.remove(&(at, name.clone())));
            return;
        }
        if let Some(cursor) = slot.counting.take() {
            if turn.counted {
                slot.uncounted = 0;
                slot.cursor = cursor.or(slot.cursor.take());
            } else {
                // What was read could not be written down: the same cursor reads it again, and what came since. No sooner than after a pause
                // that grows: each answer brings a turn, and a server that refuses would be asked without end.
                slot.uncounted += 1;
                slot.next_poll = Some(instant + pause(slot.uncounted));
            }
        }
        match turn.query {
            Some((query, interval)) => {
                let same = slot.query.as_deref().is_some_and(|(old, _)| {
                    old.rollout == query.rollout && old.stable == query.stable && old.canary == query.canary && old.source == query.source
                });
                if !same {
                    slot.cursor = None;
                    slot.answer = None;
                    slot.next_poll = Some(instant);
                }
                slot.query = Some(Box::new((query, interval)));
            }
            // A turn that failed before it could ask keeps what it asked before.
            None if turn.error.is_none() => {
                slot.query = None;
                slot.next_poll = None;
                slot.cursor = None;
                slot.answer = None;
            }
            None => {}
        }
        slot.wake = turn.wake_at.map(|at| instant + at.since(now_wall));
        match turn.error {
            None => {
                slot.failures = 0;
                slot.trouble = None;
                if turn.again {
                    slot.in_a_row += 1;
                    let circle = slot.in_a_row > TURNS_IN_A_ROW;
                    slot.wake = Some(if circle { instant + Duration::from_secs(1) } else { instant });
                    if circle {
                        tracing::warn!(release = %name, "turns follow each other without anything happening; slowed down");
                    }
                }
            }
            Some(error @ ActError::Overtaken(_)) => {
                tracing::debug!(release = %name, %error, "waits for the watch");
                slot.overtaken = !slot.dirty;
                slot.wake = Some(instant + WATCH_IS_LATE);
            }
            Some(error) => {
                slot.failures += 1;
                let pause = if matches!(error, ActError::Changed(_)) && slot.failures == 1 { Duration::ZERO } else { pause(slot.failures) };
                tracing::info!(release = %name, %error, ?pause, "looks again");
                if slot.failures >= FAILURES_UNTIL_TOLD {
                    slot.trouble = Some(format!("waits, and tries again: {error}"));
                }
                slot.wake = Some(instant + pause);
            }
        }
        // What the source says may wait for the watch; what happened may not.
        if slot.dirty || (slot.answer.is_some() && !slot.overtaken) {
            self.begin(name.clone());
        }
    }

    fn polled(&mut self, name: &ObjectName, rollout: &str, questions: &str, polled: Polled) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        slot.polling = false;
        // Another rollout asks now, or none.
        if slot.query.as_deref().is_none_or(|(query, _)| query.rollout != rollout) {
            if slot.phase.is_none() && !slot.turning {
                self.slots.remove(name);
            }
            return;
        }
        // The plan was changed meanwhile: what was asked for comes with the next answer, from where the last one ended.
        if slot.query.as_deref().is_some_and(|(query, _)| query.questions != questions) {
            return;
        }
        slot.answer = Some(Box::new(match polled {
            Ok((reading, cursor)) => (Traffic::Read(reading), Some(cursor)),
            Err(problem) => (Traffic::Problem(problem), None),
        }));
        if !slot.turning && !slot.overtaken {
            self.begin(name.clone());
        }
    }

    /// Timers that are due.
    fn due(&mut self) {
        let instant = Instant::now();
        while let Some((at, name)) = self.timers.first().cloned() {
            if at > instant {
                return;
            }
            self.timers.remove(&(at, name.clone()));
            let Some(slot) = self.slots.get_mut(&name) else { continue };
            slot.timer = None;
            if slot.next_poll.is_some_and(|at| at <= instant) {
                self.poll(&name, instant);
            }
            let Some(slot) = self.slots.get_mut(&name) else { continue };
            if slot.wake.is_some_and(|at| at <= instant) && !slot.turning {
                self.begin(name.clone());
            }
            self.arm(&name);
        }
    }

    /// Asks the source, unless it still thinks about the last question, or its last answer waits to be counted.
    fn poll(&mut self, name: &ObjectName, instant: Instant) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        let Some((query, interval)) = slot.query.as_deref().cloned() else {
            slot.next_poll = None;
            return;
        };
        slot.next_poll = Some(instant + interval);
        if slot.polling || slot.answer.is_some() || slot.counting.is_some() {
            return;
        }
        slot.polling = true;
        let (source, cursor) = (self.source.clone(), slot.cursor.clone());
        let (rollout, questions) = (query.rollout.clone(), query.questions.clone());
        let metrics = self.metrics.clone();
        let task = self.tasks.spawn(async move {
            let begun = Instant::now();
            let polled = source.poll(query, cursor).await;
            metrics.poll(polled.is_ok(), begun.elapsed());
            Did::Poll { rollout, questions, polled: Box::new(polled) }
        });
        self.names.insert(task.id(), (name.clone(), true));
    }

    /// Sets the release's one timer to whatever comes first.
    fn arm(&mut self, name: &ObjectName) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        let wake = slot.wake.filter(|_| !slot.turning);
        let next = [wake, slot.next_poll].into_iter().flatten().min();
        if slot.timer == next {
            return;
        }
        let old = std::mem::replace(&mut slot.timer, next);
        if let Some(old) = old {
            self.timers.remove(&(old, name.clone()));
        }
        if let Some(next) = next {
            self.timers.insert((next, name.clone()));
        }
    }
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST_PAUSE)
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
