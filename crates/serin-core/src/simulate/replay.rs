//! Recorded requests through today's plan: when it would have decided what.
//!
//! The record had its own weights. Each poll is thinned, request by request and by chance, to the share that the plan asks for: requests are left out and
//! never invented. Against itself (`--aa`), the canary's requests are drawn out of stable's own: what then ends in a rollback is a false alarm. Reading records from files
//! or sources, and making increments of counters, is the caller's.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::outcome::Outcome;
use super::stage::{End, Keep, Run, Supply, play, started};
use crate::observe::ArmCounts;
use crate::plan::Plan;
use crate::reason::Reason;
use crate::stats::random::Random;
use crate::units::duration_text;

/// One poll of a record: increments of both arms over a span.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recorded {
    /// How long the span was, in seconds.
    pub seconds: f64,
    /// Stable's requests.
    pub stable: ArmCounts,
    /// The canary's requests; none where there was no canary.
    pub canary: ArmCounts,
}

/// What was told, when.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Since the replay's begin.
    pub at_s: f64,
    /// What.
    pub reason: Reason,
}

/// A record, replayed.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed {
    /// The rollout.
    pub run: Run,
    /// The share of recorded requests that the plan would have seen: the rest was thinned out.
    pub used: f64,
}

/// Which requests are the canary's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arms {
    AsRecorded,
    OutOfStable,
}

struct Record<'a> {
    polls: &'a [Recorded],
    history: &'a [ArmCounts],
    arms: Arms,
    random: Random,
    /// The poll that is played, and how much of it, in seconds.
    at: usize,
    into_s: f64,
    given: f64,
    offered: f64,
}

/// Each request is kept with this chance.
fn thin(arm: &ArmCounts, keep: f64, random: &mut Random) -> ArmCounts {
    if keep >= 1.0 {
        return arm.clone();
    }
    let whole = |v: f64| libm::round(if v.is_finite() { v.max(0.0) } else { 0.0 });
    let errors = random.binomial(whole(arm.errors.min(arm.n)), keep);
    let n = errors + random.binomial(whole(arm.n - arm.errors.min(arm.n)), keep);
    let timed = random.binomial(whole(arm.timed), keep);
    let slower = arm.slower.iter().map(|(edge, slow)| (*edge, random.binomial(whole(slow.min(arm.timed)), keep).min(timed))).collect();
    ArmCounts { n, errors, timed, slower }
}

fn rest(arm: &ArmCounts, taken: &ArmCounts) -> ArmCounts {
    let slower = arm.slower.iter().zip(&taken.slower).map(|((edge, all), (_, gone))| (*edge, (all - gone).max(0.0))).collect();
    let left = |all: f64, gone: f64| (all - gone).max(0.0);
    ArmCounts { n: left(arm.n, taken.n), errors: left(arm.errors, taken.errors), timed: left(arm.timed, taken.timed), slower }
}

impl Record<'_> {
    /// One poll's requests at this share.
    fn split(&mut self, poll: &Recorded, share: f64) -> (ArmCounts, ArmCounts) {
        match self.arms {
            Arms::OutOfStable => {
                let canary = thin(&poll.stable, share, &mut self.random);
                let stable = rest(&poll.stable, &canary);
                (canary, stable)
            }
            Arms::AsRecorded => {
                let odds = if share < 1.0 { share / (1.0 - share) } else { f64::INFINITY };
                let there = if poll.stable.n > 0.0 { poll.canary.n / poll.stable.n } else { f64::INFINITY };
                let (keep_canary, keep_stable) =
                    if there > odds { (odds / there, 1.0) } else { (1.0, if odds > 0.0 { there / odds } else { 1.0 }) };
                let keep_canary = if keep_canary.is_nan() { 1.0 } else { keep_canary };
                (thin(&poll.canary, keep_canary, &mut self.random), thin(&poll.stable, keep_stable, &mut self.random))
            }
        }
    }
}

impl Supply for Record<'_> {
    fn history(&mut self) -> Vec<ArmCounts> {
        self.history.to_vec()
    }

    /// A poll is given whole, when the time that passes reaches its end.
    fn flow(&mut self, _at_s: f64, seconds: f64, share: f64, _step: usize) -> (ArmCounts, ArmCounts) {
        let (mut canary, mut stable) = (ArmCounts::default(), ArmCounts::default());
        self.into_s += seconds;
        let polls = self.polls;
        while let Some(poll) = polls.get(self.at).filter(|p| p.seconds <= self.into_s + 1e-6) {
            self.into_s -= poll.seconds.max(0.0);
            self.at += 1;
            let (c, s) = self.split(poll, share);
            self.offered += poll.stable.n + poll.canary.n;
            self.given += c.n + s.n;
            canary.add(&c);
            stable.add(&s);
        }
        (canary, stable)
    }

    fn ends_s(&self) -> f64 {
        record_s(self.polls)
    }
}

fn once(plan: &Plan, polls: &[Recorded], history: &[ArmCounts], arms: Arms, random: Random, keep: Keep) -> Replayed {
    let mut record = Record { polls, history, arms, random, at: 0, into_s: 0.0, given: 0.0, offered: 0.0 };
    let run = play(plan, 1, &mut record, f64::MAX, keep);
    Replayed { run, used: if record.offered > 0.0 { record.given / record.offered } else { 0.0 } }
}

/// Replays a record of both versions. `history` is stable before it, poll by poll. The seed chooses which requests are left out.
pub fn replay(plan: &Plan, polls: &[Recorded], history: &[ArmCounts], seed: u64) -> Replayed {
    once(&started(plan), polls, history, Arms::AsRecorded, Random::new(seed), Keep::Story)
}

/// Replays stable against itself `runs` times: each rollback is a false alarm that this service's own past would have caused.
pub fn replay_against_itself(plan: &Plan, polls: &[Recorded], history: &[ArmCounts], runs: u64, seed: u64) -> Outcome {
    Outcome::of(&replay_against_itself_part(plan, polls, history, 0..runs, seed), seed, record_s(polls))
}

/// Some of a seed's runs against itself, as `simulate_part`: a caller with several cores gives a part to each.
pub fn replay_against_itself_part(
    plan: &Plan,
    polls: &[Recorded],
    history: &[ArmCounts],
    numbers: core::ops::Range<u64>,
    seed: u64,
) -> Vec<Run> {
    let plan = started(plan);
    numbers.map(|i| once(&plan, polls, history, Arms::OutOfStable, Random::of_run(seed, i), Keep::End).run).collect()
}

/// One of them alone, with its story.
pub fn replay_against_itself_once(plan: &Plan, polls: &[Recorded], history: &[ArmCounts], number: u64, seed: u64) -> Replayed {
    once(&started(plan), polls, history, Arms::OutOfStable, Random::of_run(seed, number), Keep::Story)
}

/// How long a record is, in seconds.
pub fn record_s(polls: &[Recorded]) -> f64 {
    polls.iter().map(|p| p.seconds.max(0.0)).sum()
}

impl Replayed {
    /// What would have been told, in order.
    pub fn told(&self) -> impl Iterator<Item = Told> + '_ {
        self.run.told.iter().map(|(at_s, reason)| Told { at_s: *at_s, reason: reason.clone() })
    }
}

/// What would have happened, line by line.
impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for t in self.told() {
            let at = duration_text(Duration::from_secs_f64(t.at_s.clamp(0.0, 1e9)));
            writeln!(f, "{at:>8}  {}", t.reason)?;
        }
        let took = duration_text(Duration::from_secs_f64(self.run.took_s.clamp(0.0, 1e9)));
        let end = match &self.run.end {
            End::Promoted => "promoted".to_string(),
            End::RolledBack { why, .. } => alloc::format!("rolled back: {why}"),
            End::Undecided { why } => alloc::format!("undecided when the record ends: {why}"),
        };
        write!(f, "after {took} {end} ({:.0} % of the recorded requests fit the plan's shares)", 100.0 * self.used)
    }
}
