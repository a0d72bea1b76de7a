//! A world of chance: how fast requests come, how often they fail, how long they take, and what goes wrong with the canary.
//!
//! Every field has a default, so that a file names what matters. Deliberately no pods that die and no people: see `stage`.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::stage::{Keep, Run, Supply, edges, play, started};
use crate::observe::ArmCounts;
use crate::plan::Plan;
use crate::stats::random::Random;

/// The service, its callers, and the canary's faults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct World {
    /// Requests a second to both versions, hour by hour from the rollout's begin; after the last hour it begins anew.
    pub requests_per_s: Vec<f64>,
    /// Stable's share of failed requests, as a fraction.
    pub error_rate: f64,
    /// The error rate swings by this part of itself, up and down.
    pub swing: f64,
    /// Seconds of a swing.
    pub swing_s: f64,
    /// Inner correlation of failures: the rate that both versions share by nature is drawn anew for each, every ten seconds, from a beta law. 0: each
    /// request fails by itself. Faults come on top of it.
    pub bursts: f64,
    /// How long requests take.
    pub latency: Latency,
    /// What hits both versions.
    pub outages: Vec<Outage>,
    /// What is wrong with the canary.
    pub faults: Vec<Fault>,
    /// Stable's ready pods.
    pub pods: u32,
    /// Whether stable's last 30 minutes are known when the rollout begins.
    pub history: bool,
}

impl Default for World {
    fn default() -> Self {
        Self {
            requests_per_s: vec![50.0],
            error_rate: 0.001,
            swing: 0.0,
            swing_s: 3600.0,
            bursts: 0.0,
            latency: Latency { median_ms: 40.0, sigma: 0.8 },
            outages: Vec::new(),
            faults: Vec::new(),
            pods: 4,
            history: true,
        }
    }
}

/// A log-normal law.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Latency {
    /// Half of the requests are faster.
    pub median_ms: f64,
    /// Spread of the logarithm: at 0.8 one in a hundred takes over 6.4 medians.
    pub sigma: f64,
}

impl Latency {
    /// Share of requests slower than `edge_ms` when each takes `factor` times as long and `added_ms` more.
    pub fn slower_than(&self, edge_ms: f64, factor: f64, added_ms: f64) -> f64 {
        let left = (edge_ms - added_ms) / factor.max(1e-9);
        if left <= 0.0 {
            return 1.0;
        }
        let z = libm::log(left / self.median_ms.max(1e-9)) / self.sigma.max(1e-9);
        0.5 * libm::erfc(z * core::f64::consts::FRAC_1_SQRT_2)
    }
}

/// Both versions fail more for a while.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Outage {
    /// Begin, in seconds after the rollout's.
    pub from_s: f64,
    /// How long.
    pub seconds: f64,
    /// Added to both error rates, as a fraction.
    pub errors: f64,
}

/// When a fault begins.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Begin {
    /// So many seconds after the rollout.
    Seconds(f64),
    /// With this step, from 1.
    Step(usize),
}

/// Something wrong with the canary.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Fault {
    /// From when on.
    pub from: Begin,
    /// It is gone after so many seconds; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub for_s: Option<f64>,
    /// It grows evenly from nothing to its whole over so many seconds, as a leak does. 0: it is there at once.
    pub grows_s: f64,
    /// Added to its error rate, as a fraction.
    pub errors: f64,
    /// Inner correlation of these errors, which are the canary's alone: drawn anew every ten seconds from a beta law. 0: each request fails by itself.
    pub bursts: f64,
    /// Each request takes so many times as long.
    pub slower: f64,
    /// And so many milliseconds more.
    pub added_ms: f64,
}

impl Default for Fault {
    fn default() -> Self {
        Self { from: Begin::Seconds(0.0), for_s: None, grows_s: 0.0, errors: 0.0, bursts: 0.0, slower: 1.0, added_ms: 0.0 }
    }
}

impl World {
    /// What is wrong with it, all at once; empty: nothing.
    pub fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut check = |fine: bool, what: &str| {
            if !fine {
                found.push(String::from(what));
            }
        };
        let share = |v: f64| (0.0..=1.0).contains(&v);
        let positive = |v: f64| v > 0.0 && v.is_finite();
        let rates = &self.requests_per_s;
        check(
            !rates.is_empty() && rates.iter().all(|r| (0.0..=1e7).contains(r)),
            "requestsPerS: one number per hour, from 0 to 10 million",
        );
        check(share(self.error_rate), "errorRate: a fraction from 0 to 1, as 0.01 for 1 %");
        check(share(self.swing), "swing: a fraction from 0 to 1");
        check(positive(self.swing_s), "swingS: seconds above 0");
        check((0.0..1.0).contains(&self.bursts), "bursts: an inner correlation from 0 to below 1, as 0.01");
        check(positive(self.latency.median_ms) && positive(self.latency.sigma), "latency: medianMs and sigma above 0");
        check(
            self.outages.iter().all(|o| o.from_s.is_finite() && o.seconds.is_finite() && share(o.errors)),
            "outages: fromS, seconds, and errors from 0 to 1",
        );
        let sound = |f: &Fault| {
            let begins = match f.from {
                Begin::Seconds(s) => s >= 0.0 && s.is_finite(),
                Begin::Step(n) => n >= 1,
            };
            let lasts = f.for_s.is_none_or(positive) && f.grows_s >= 0.0 && f.grows_s.is_finite();
            begins
                && lasts
                && (-1.0..=1.0).contains(&f.errors)
                && (0.0..1.0).contains(&f.bursts)
                && positive(f.slower)
                && f.added_ms.is_finite()
        };
        check(
            self.faults.iter().all(sound),
            "faults: from a time or a step from 1 on, errors from -1 to 1, bursts from 0 to below 1, slower above 0, addedMs a number",
        );
        found
    }

    /// Requests a second so many seconds after the begin.
    pub fn rate_at(&self, at_s: f64) -> f64 {
        let hour = libm::floor(at_s.max(0.0) / 3600.0) as usize;
        self.requests_per_s.get(hour.checked_rem(self.requests_per_s.len()).unwrap_or(0)).copied().unwrap_or(0.0)
    }
}

/// Seconds for which a rate that comes in bursts stays what it was drawn.
const BURST_S: f64 = 10.0;

struct Chance<'a> {
    world: &'a World,
    edges: &'a [f64],
    random: Random,
    interval_s: f64,
    /// The draw of the running burst: how it stretches the means of canary and stable, and of each fault.
    drawn_until_s: f64,
    drawn: [f64; 2],
    faults_drawn: Vec<f64>,
    /// Since when each fault is there.
    since: Vec<Option<f64>>,
}

/// What is wrong with the canary at an instant.
#[derive(Clone, Copy)]
struct Wrong {
    errors: f64,
    slower: f64,
    added_ms: f64,
}

impl Chance<'_> {
    fn stable_errors(&self, at_s: f64) -> f64 {
        let w = self.world;
        let swing = if w.swing > 0.0 { w.swing * libm::sin(2.0 * core::f64::consts::PI * at_s / w.swing_s) } else { 0.0 };
        let on = w.outages.iter().filter(|o| at_s >= o.from_s && at_s < o.from_s + o.seconds);
        (w.error_rate * (1.0 + swing) + on.map(|o| o.errors).sum::<f64>()).clamp(0.0, 1.0)
    }

    /// How much of a fault is there: from 0 to 1.
    fn there(&self, number: usize, fault: &Fault, at_s: f64) -> f64 {
        let Some(age) = self.since.get(number).copied().flatten().map(|since| at_s - since) else { return 0.0 };
        if fault.for_s.is_some_and(|s| age >= s) {
            return 0.0;
        }
        if fault.grows_s > 0.0 { (age / fault.grows_s).clamp(0.0, 1.0) } else { 1.0 }
    }

    /// The canary's faults now.
    fn wrong(&mut self, at_s: f64, step: usize) -> Wrong {
        let world = self.world;
        for (since, fault) in self.since.iter_mut().zip(&world.faults) {
            let on = match fault.from {
                Begin::Seconds(s) => at_s >= s,
                Begin::Step(n) => step + 1 >= n,
            };
            if on && since.is_none() {
                *since = Some(at_s);
            }
        }
        let mut all = Wrong { errors: 0.0, slower: 1.0, added_ms: 0.0 };
        for (i, fault) in world.faults.iter().enumerate() {
            let part = self.there(i, fault, at_s);
            let stretch = if fault.bursts > 0.0 { self.faults_drawn.get(i).copied().unwrap_or(1.0) } else { 1.0 };
            all.errors += part * fault.errors * stretch;
            all.slower *= 1.0 + part * (fault.slower - 1.0);
            all.added_ms += part * fault.added_ms;
        }
        all
    }

    /// Draws what holds for the next ten seconds, where something comes in bursts.
    fn draw(&mut self, at_s: f64, stable: f64) {
        let world = self.world;
        let in_common = world.bursts > 0.0 && stable > 0.0;
        if at_s < self.drawn_until_s || !(in_common || world.faults.iter().any(|f| f.bursts > 0.0)) {
            return;
        }
        self.drawn_until_s = at_s + BURST_S;
        if in_common {
            self.drawn = [0, 1].map(|_| self.random.bursty_rate(stable, world.bursts) / stable);
        }
        for (drawn, fault) in self.faults_drawn.iter_mut().zip(&world.faults) {
            if fault.bursts > 0.0 && fault.errors > 0.0 {
                *drawn = self.random.bursty_rate(fault.errors, fault.bursts) / fault.errors;
            }
        }
    }

    fn arm(&mut self, mean: f64, errors: f64, factor: f64, added_ms: f64) -> ArmCounts {
        let n = self.random.poisson(mean);
        let errors = self.random.binomial(n, errors);
        // From the fastest edge to the slowest: who is slower than the next was slower than this one.
        let (mut slower, mut left, mut share) = (Vec::with_capacity(self.edges.len()), n, 1.0);
        for edge in self.edges {
            let here = self.world.latency.slower_than(*edge, factor, added_ms);
            left = self.random.binomial(left, if share > 0.0 { (here / share).min(1.0) } else { 0.0 });
            share = here;
            slower.push((*edge, left));
        }
        ArmCounts { n, errors, timed: n, slower }
    }
}

impl Supply for Chance<'_> {
    fn history(&mut self) -> Vec<ArmCounts> {
        if !self.world.history {
            return Vec::new();
        }
        let polls = libm::ceil(1800.0 / self.interval_s).min(10_000.0) as i32;
        let mean = self.world.rate_at(0.0) * self.interval_s;
        let poll = |i: i32| {
            let at_s = f64::from(i - polls) * self.interval_s;
            let errors = self.stable_errors(at_s);
            let errors = self.random.bursty_rate(errors, self.world.bursts);
            self.arm(mean, errors, 1.0, 0.0)
        };
        (0..polls).map(poll).collect()
    }

    fn flow(&mut self, at_s: f64, seconds: f64, share: f64, step: usize) -> (ArmCounts, ArmCounts) {
        let stable = self.stable_errors(at_s);
        self.draw(at_s, stable);
        let wrong = self.wrong(at_s, step);
        let [canary, stable] = if self.world.bursts > 0.0 { self.drawn.map(|stretch| (stable * stretch).min(1.0)) } else { [stable; 2] };
        let mean = self.world.rate_at(at_s) * seconds;
        let canary = self.arm(mean * share, (canary + wrong.errors).clamp(0.0, 1.0), wrong.slower, wrong.added_ms);
        (canary, self.arm(mean * (1.0 - share), stable, 1.0, 0.0))
    }

    fn ends_s(&self) -> f64 {
        f64::INFINITY
    }
}

/// One rollout of the plan in this world: the `number`-th of a seed, so that any of many can be told again alone. It ends undecided after `longest_s`.
pub fn run_once(plan: &Plan, world: &World, seed: u64, number: u64, longest_s: f64) -> Run {
    run(&started(plan), world, &edges(plan), seed, number, longest_s, Keep::Story)
}

pub(super) fn run(plan: &Plan, world: &World, edges: &[f64], seed: u64, number: u64, longest_s: f64, keep: Keep) -> Run {
    let interval_s = plan.spec().interval.as_secs_f64().max(1e-3);
    let random = Random::of_run(seed, number);
    let many = world.faults.len();
    let (faults_drawn, since) = (vec![1.0; many], vec![None; many]);
    let mut chance = Chance { world, edges, random, interval_s, drawn_until_s: f64::NEG_INFINITY, drawn: [1.0; 2], faults_drawn, since };
    play(plan, world.pods, &mut chance, longest_s, keep)
}
