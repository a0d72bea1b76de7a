//! Many metrics, one verdict: what `decide` asks at every look.
//!
//! Section 5. Harm is one question to the whole rollout: the weighted mean of the metrics' evidence, which needs no correction for
//! metrics, steps or looks (Vovk and Wang 2021). Fitness is a question to each metric in each step. A batch is judged on its own, so a
//! rate that drifts, or an outage of both arms, is nobody's fault. Deliberately knows no time, no weight, and not what a metric counts.

use alloc::string::String;
use alloc::vec::Vec;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bet::{bets, limit_ln_s};
use super::bursts::Burstiness;
use super::codec::{CheckpointError, Reader, Writer};
use super::counts::{Batch, Counts};
use super::fitness::{FRACTIONS, GROSS_MARGIN, LIMIT_PARTS, PassEvidence};
use super::harm::{Money, ODDS, at_odds, cap};

/// The checkpoint's format. Another order or number of values is another format.
const FORMAT: u8 = 1;
/// Half of what is known of stable's rate is forgotten after this many seconds.
const HALF_LIFE_S: f64 = 1800.0;
/// From here on stable is down too, and nothing can be told apart.
const BOTH_DOWN: f64 = 0.98;
/// The least limit that is tested: none at all would make of one bad request a certainty.
const LEAST_LIMIT: f64 = 1e-9;

/// What is asked of one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Test {
    /// The canary's rate against stable's: worse means above `margin + ratio * stable` (sections 2 to 5).
    Compare {
        /// Points, as a fraction: 0.005 are 0.5 points.
        margin: f64,
        /// At least 1.
        ratio: f64,
    },
    /// The canary's rate against a limit of its own, whatever stable does (section 7).
    Limit {
        /// The highest share of bad requests, as a fraction.
        max: f64,
    },
}

impl Test {
    /// Whether any number of requests could show a healthy canary fit. Not if it has to be better than "not worse by nothing".
    pub fn can_pass(&self) -> bool {
        match self.clean() {
            Self::Compare { margin, ratio } => margin > 0.0 || ratio > 1.0,
            Self::Limit { max } => max > LEAST_LIMIT,
        }
    }

    /// The same question with stable's rate given: a limit in stable's place. A drift of stable is then no longer cancelled; say "baseline
    /// frozen" with the verdict.
    #[must_use]
    pub fn over(&self, stable: f64) -> Self {
        match self.clean() {
            Self::Compare { margin, ratio } => Self::Limit { max: (margin + ratio * stable).clamp(0.0, 1.0) },
            limit @ Self::Limit { .. } => limit,
        }
    }

    /// The same within the bounds of the formulas. What is no number asks for nothing: no verdict follows.
    pub(crate) fn clean(&self) -> Self {
        match *self {
            Self::Compare { margin, ratio } => Self::Compare {
                margin: if margin.is_nan() { 1.0 } else { margin.clamp(0.0, 1.0) },
                ratio: if ratio.is_nan() { 1.0 } else { ratio.clamp(1.0, 1e6) },
            },
            Self::Limit { max } => Self::Limit { max: if max.is_nan() { 1.0 } else { max.clamp(LEAST_LIMIT, 1.0) } },
        }
    }
}

/// A test and its part of the error budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricTest {
    /// The question.
    pub test: Test,
    /// The weights of a rollout's metrics sum to 1.
    pub weight: f64,
    /// The margin by which fitness is shown in this step, where that is a coarser one than the test's own (section 8). Harm never asks for it.
    #[serde(default)]
    pub graded: Option<f64>,
}

impl MetricTest {
    /// Not graded.
    pub fn new(test: Test, weight: f64) -> Self {
        Self { test, weight, graded: None }
    }

    /// What fitness asks.
    pub fn of_fitness(&self) -> Test {
        match (self.test.clean(), self.graded) {
            (Test::Compare { margin, ratio }, Some(graded)) => Test::Compare { margin: graded.max(margin), ratio }.clean(),
            (test, _) => test,
        }
    }
}

/// Section 5's weights: one half to the error rates, the other shared equally by all others; all to the only kind there is.
/// `is_error_rate` has an entry per metric (a latency quantile has two).
pub fn default_weights(is_error_rate: &[bool]) -> Vec<f64> {
    let errors = is_error_rate.iter().filter(|e| **e).count();
    let others = is_error_rate.len() - errors;
    let part = |alone: usize, other: usize| if other == 0 { 1.0 / alone as f64 } else { 0.5 / alone as f64 };
    is_error_rate.iter().map(|e| if *e { part(errors, others) } else { part(others, errors) }).collect()
}

/// Whether errors that come in clumps are looked for, and make every verdict that much slower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bursts {
    /// They are, and an outage of both arms is not taken for one.
    Auto,
    /// They are, by section 5 to the letter: an outage slows every later verdict down. For comparison with the reference.
    Plain,
    /// Every request is taken to fail by itself.
    Off,
}

/// The numbers that hold for the whole rollout. Changing one in flight breaks the promise: start a new `Analysis` and say so.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Highest chance that a canary which is not worse is ever taken back.
    pub alpha: f64,
    /// Highest chance that a canary which is worse passes.
    pub beta: f64,
    /// See `Bursts`.
    pub bursts: Bursts,
    /// Seconds between polls, where a poll does not say itself.
    pub interval_s: f64,
}

impl Settings {
    /// Both chances of error at one minus this confidence (0.95: one in twenty), bursts looked for.
    pub fn with_confidence(confidence: f64, interval_s: f64) -> Self {
        Self { alpha: 1.0 - confidence, beta: 1.0 - confidence, bursts: Bursts::Auto, interval_s }
    }

    fn clean(&self) -> Self {
        let chance = |c: f64| if c.is_nan() { 1e-12 } else { c.clamp(1e-12, 0.999) };
        Self { alpha: chance(self.alpha), beta: chance(self.beta), ..*self }
    }
}

/// What the counts of a poll may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Counting {
    /// The settle time after a weight change: harm, and nothing else.
    HarmOnly,
    /// Harm and fitness.
    Full,
}

/// Stable before the rollout, at best its last 30 minutes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Requests.
    pub n: f64,
    /// Bad ones.
    pub x: f64,
    /// The same poll by poll, from which bursts are learnt. Without it the first ten windows are not protected from them.
    pub polls: Vec<Counts>,
}

/// Whether the canary is worse.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Harm {
    /// It is. Stays true.
    pub failed: bool,
    /// The evidence is a quarter of what convicts, or more: no step is left under suspicion.
    pub suspected: bool,
    /// Logarithm of the evidence now; it convicts at `ln(1/alpha)`.
    pub ln_e: f64,
    /// An always valid p-value: 1 over the most evidence there ever was.
    pub p: f64,
    /// The metric that speaks loudest; once failed, the one that did. None while there is nothing to explain.
    pub cause: Option<usize>,
}

/// Whether one metric shows the canary fit in this step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fitness {
    /// It does. Stays true for the step.
    pub fit: bool,
    /// A gross fault (20 points) is excluded. Stays true for the step.
    pub gross_excluded: bool,
    /// Logarithm of the evidence; it acquits at `ln(1/beta)`.
    pub ln_e: f64,
    /// The same for the gross fault.
    pub ln_e_gross: f64,
}

/// The evidence of a rollout. Serialised as its checkpoint: one text, which reads back to the same bits.
#[derive(Clone, Debug, PartialEq)]
pub struct Analysis {
    metrics: Vec<Metric>,
    /// The metric that convicted.
    failed: Option<usize>,
    /// The most evidence of harm there ever was, as a logarithm.
    most_ln_e: f64,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Metric {
    money: Money,
    pass: PassEvidence,
    gross: PassEvidence,
    fit: bool,
    gross_excluded: bool,
    /// Decayed counts of stable, from earlier batches.
    known: Counts,
    /// Not judged yet, as one arm has no request in it.
    pool: Batch,
    /// The part of it that may count for fitness.
    fit_pool: Batch,
    bursts: Burstiness,
    /// The canary's own, and what is known of its rate: for fitness only.
    canary_bursts: Burstiness,
    canary_known: Counts,
    stretch: Stretch,
    total: Batch,
    step_total: Batch,
}

/// Stable's worst five minutes or more: what a limit that stands in for stable has to allow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Stretch {
    now: Counts,
    seconds: f64,
    worst: Counts,
}

/// Shorter stretches would let a single burst speak for stable.
const STRETCH_S: f64 = 300.0;

impl Stretch {
    fn add(&mut self, stable: Counts, seconds: f64) {
        self.now = self.now.plus(stable);
        self.seconds += seconds;
        if self.seconds >= STRETCH_S {
            if self.worst.n <= 0.0 || self.now.rate() > self.worst.rate() {
                self.worst = self.now;
            }
            (self.now, self.seconds) = (Counts::default(), 0.0);
        }
    }
}

impl Analysis {
    /// A rollout's start: all money in reserve. `history` has an entry per test, or is shorter.
    pub fn new(tests: &[MetricTest], history: &[Option<History>]) -> Self {
        let metric = |i: usize| Metric::new(history.get(i).and_then(Option::as_ref));
        Self { metrics: (0..tests.len()).map(metric).collect(), failed: None, most_ln_e: 0.0 }
    }

    /// A step's start: fitness begins afresh, as a fault may need load; harm goes on with new stakes.
    pub fn start_step(&mut self) {
        for m in &mut self.metrics {
            m.money.start_step();
            m.pass = PassEvidence::default();
            m.gross = PassEvidence::default();
            (m.fit, m.gross_excluded) = (false, false);
            m.step_total = Batch::default();
        }
    }

    /// One poll. `batches` has the increments per metric, `None` where it had no data; `dt_s` is the time they span, in seconds (0: the
    /// settings' interval). Polls are added up until both arms have a request, which looks at numbers of requests only and so is no peeking.
    pub fn judge(&mut self, tests: &[MetricTest], s: &Settings, batches: &[Option<Batch>], dt_s: f64, counting: Counting) {
        let s = s.clean();
        let seconds = [dt_s, s.interval_s].into_iter().find(|t| t.is_finite() && *t > 0.0).unwrap_or(0.0);
        let keep = libm::exp2(-seconds / HALF_LIFE_S);
        for ((metric, test), batch) in self.metrics.iter_mut().zip(tests).zip(batches) {
            if let Some(batch) = batch {
                metric.stretch.add(batch.clean().stable, seconds);
                metric.judge(&test.test.clean(), &test.of_fitness(), &s, batch.clean(), keep, counting);
            }
        }
        let ln_e = self.ln_e(tests);
        self.most_ln_e = self.most_ln_e.max(ln_e);
        if self.failed.is_none() && ln_e >= -libm::log(s.alpha) {
            self.failed = self.loudest(tests);
        }
    }

    /// Is the canary worse?
    pub fn harm(&self, tests: &[MetricTest], s: &Settings) -> Harm {
        let s = s.clean();
        let ln_e = self.ln_e(tests);
        let failed = self.failed.is_some();
        let suspected = ln_e >= -libm::log(4.0 * s.alpha);
        let cause = self.failed.or_else(|| if suspected { self.loudest(tests) } else { None });
        Harm { failed, suspected: suspected || failed, ln_e, p: libm::exp(-self.most_ln_e.max(0.0)), cause }
    }

    /// Does this metric show the canary fit? A metric that does not exist shows nothing.
    pub fn fitness(&self, metric: usize, _s: &Settings) -> Fitness {
        match self.metrics.get(metric) {
            Some(m) => Fitness { fit: m.fit, gross_excluded: m.gross_excluded, ln_e: m.pass.ln_e(), ln_e_gross: m.gross.ln_e() },
            None => Fitness { fit: false, gross_excluded: false, ln_e: 0.0, ln_e_gross: 0.0 },
        }
    }

    /// Requests given to this metric since the rollout began, the settle times' included.
    pub fn totals(&self, metric: usize) -> Batch {
        self.metrics.get(metric).map_or_else(Batch::default, |m| m.total)
    }

    /// Requests given to this metric since the step began, without the settle times'.
    pub fn step_totals(&self, metric: usize) -> Batch {
        self.metrics.get(metric).map_or_else(Batch::default, |m| m.step_total)
    }

    /// Errors of stable come in clumps of about this size (1: they do not). Every verdict is that many times slower.
    pub fn burst_factor(&self, metric: usize) -> f64 {
        self.metrics.get(metric).map_or(1.0, |m| m.bursts.robust())
    }

    /// Section 7, for when stable has no requests any more: the limit that stands in its place, so that what stable itself did in this rollout
    /// would not break it. That is the margin on top of the upper limit of stable's rate, or of the rate of its worst five minutes, where those
    /// were certainly worse than the rest: a rate that swings has no single level. `None`: no such metric.
    pub fn frozen(&self, metric: usize, test: &Test, alpha: f64) -> Option<Test> {
        let m = self.metrics.get(metric)?;
        let (all, worst) = (m.total.stable, m.stretch.worst);
        let certainly = worst.n > 0.0 && super::interval::rate(worst, alpha).0 > all.rate();
        let overall = super::interval::rate(all, alpha).1;
        Some(test.over(if certainly { overall.max(worst.rate()) } else { overall }))
    }

    /// The same for fitness, which heeds the canary's own clumps too.
    pub(super) fn pass_burst_factor(&self, metric: usize, bursts: Bursts) -> f64 {
        self.metrics.get(metric).map_or(1.0, |m| m.pass_factor(bursts))
    }

    /// What is known of this metric's bursts.
    pub fn bursts(&self, metric: usize) -> Option<&Burstiness> {
        self.metrics.get(metric).map(|m| &m.bursts)
    }

    /// What is taken for stable's rate at the next look.
    pub fn stable_rate(&self, metric: usize) -> f64 {
        self.metrics.get(metric).map_or(0.0, Metric::theta)
    }

    /// This metric's evidence of harm, before weights.
    pub fn money(&self, metric: usize) -> Option<&Money> {
        self.metrics.get(metric).map(|m| &m.money)
    }

    /// This metric's evidence of fitness in this step.
    pub fn pass_evidence(&self, metric: usize) -> Option<&PassEvidence> {
        self.metrics.get(metric).map(|m| &m.pass)
    }

    /// This metric's evidence against a gross fault in this step.
    pub fn gross_evidence(&self, metric: usize) -> Option<&PassEvidence> {
        self.metrics.get(metric).map(|m| &m.gross)
    }

    /// How many metrics it was made for.
    pub fn metrics(&self) -> usize {
        self.metrics.len()
    }

    /// The whole of it as one text: a format number and opaque data, under 600 bytes a metric.
    pub fn to_checkpoint(&self) -> String {
        let mut w = Writer::new();
        w.number(self.metrics.len() as f64);
        w.number(self.failed.map_or(0.0, |i| i as f64 + 1.0));
        w.number(self.most_ln_e);
        for m in &self.metrics {
            m.clone()
                .each(&mut |n| {
                    w.number(*n);
                    Ok(())
                })
                // Writing has no way to fail.
                .unwrap_or_default();
        }
        w.finish(FORMAT)
    }

    /// Reads `to_checkpoint`'s text.
    ///
    /// # Errors
    /// Another format, or a text that was not written so. The evidence then has to start anew.
    pub fn from_checkpoint(text: &str) -> Result<Self, CheckpointError> {
        let mut r = Reader::new(text, FORMAT)?;
        let many = r.number()? as usize;
        let failed = r.number()? as usize;
        let most_ln_e = r.number()?;
        let mut metrics = Vec::new();
        for _ in 0..many {
            let mut m = Metric::default();
            m.each(&mut |n| {
                *n = r.number()?;
                Ok(())
            })?;
            metrics.push(m);
        }
        r.end()?;
        Ok(Self { metrics, failed: failed.checked_sub(1), most_ln_e })
    }

    fn ln_e(&self, tests: &[MetricTest]) -> f64 {
        // Weights above 1 in sum would break the promise; below 1 they only waste money.
        let sum: f64 = tests.iter().map(share).sum();
        let e: f64 = self.parts(tests).sum();
        libm::log((e / sum.max(1.0)).max(1e-300))
    }

    fn parts<'a>(&'a self, tests: &'a [MetricTest]) -> impl Iterator<Item = f64> + 'a {
        self.metrics.iter().zip(tests).map(|(m, t)| share(t) * m.money.e())
    }

    fn loudest(&self, tests: &[MetricTest]) -> Option<usize> {
        self.parts(tests).enumerate().reduce(|a, b| if b.1 > a.1 { b } else { a }).map(|(i, _)| i)
    }
}

fn share(t: &MetricTest) -> f64 {
    if t.weight.is_nan() { 0.0 } else { t.weight.clamp(0.0, 1.0) }
}

impl Serialize for Analysis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_checkpoint())
    }
}

impl<'de> Deserialize<'de> for Analysis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_checkpoint(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// What a batch says to each bet: harm's eight, fitness' three, the gross fault's three.
struct Outcomes {
    harm: [f64; 8],
    pass: [f64; 3],
    gross: [f64; 3],
}

impl Metric {
    fn new(history: Option<&History>) -> Self {
        let mut m = Self::default();
        if let Some(h) = history {
            let polls = h.polls.iter().fold(Counts::default(), |sum, c| sum.plus(c.clean()));
            m.known = Counts::new(h.n, h.x).clean();
            if m.known.n <= 0.0 {
                m.known = polls;
            }
            let theta = m.known.rate().clamp(1e-6, 0.9);
            for poll in &h.polls {
                m.bursts.observe(poll.clean(), theta);
            }
        }
        m
    }

    /// Stable's rate as earlier batches tell it. A bad guess costs speed only.
    fn theta(&self) -> f64 {
        guess(self.known)
    }

    /// `of_fitness` is what fitness asks: `test`, or the same with a coarser margin.
    fn judge(&mut self, test: &Test, of_fitness: &Test, s: &Settings, batch: Batch, keep: f64, counting: Counting) {
        self.total = self.total.plus(batch);
        self.pool = self.pool.plus(batch);
        if counting == Counting::Full {
            self.step_total = self.step_total.plus(batch);
            self.fit_pool = self.fit_pool.plus(batch);
        }
        if !ready(test, &self.pool) {
            return;
        }
        let pool = core::mem::take(&mut self.pool);
        // What the settle time left over is one-armed; dropping it is valid (it was chosen by numbers of requests alone), while keeping it
        // would let the guess of stable's rate see a request before it is bet on.
        let fit_pool = core::mem::take(&mut self.fit_pool);
        let theta = self.theta();
        let d = self.factor(s.bursts);
        let all = outcomes(test, of_fitness, theta, &pool);
        self.money.play(&all.harm.map(|ln| ln / d), cap(s.alpha));
        if counting == Counting::Full && ready(test, &fit_pool) {
            let fit = if fit_pool == pool { all } else { outcomes(test, of_fitness, theta, &fit_pool) };
            self.pass.play(&fit.pass.map(|ln| ln / self.pass_factor(s.bursts)));
            self.gross.play(&fit.gross.map(|ln| ln / d));
            let enough = -libm::log(s.beta);
            self.fit |= self.pass.ln_e() >= enough;
            self.gross_excluded |= self.gross.ln_e() >= enough;
        }
        self.bursts.observe(pool.stable, theta);
        self.canary_bursts.observe(pool.canary, guess(self.canary_known));
        let add = |known: Counts, new: Counts| Counts::new(keep * known.n + new.n, keep * known.x + new.x);
        (self.known, self.canary_known) = (add(self.known, pool.stable), add(self.canary_known, pool.canary));
    }

    fn factor(&self, bursts: Bursts) -> f64 {
        match bursts {
            Bursts::Auto => self.bursts.robust(),
            Bursts::Plain => self.bursts.factor(),
            Bursts::Off => 1.0,
        }
    }

    /// Fitness heeds the canary's own bursts too: a fault that comes in bursts on a service without any of its own would else look fit between them.
    /// Harm does not: there, a canary that begins to fail would blunt the test that is to find it.
    fn pass_factor(&self, bursts: Bursts) -> f64 {
        match bursts {
            Bursts::Auto => self.bursts.robust().max(self.canary_bursts.robust()),
            Bursts::Plain | Bursts::Off => self.factor(bursts),
        }
    }

    /// Visits every number of the state in the checkpoint's order: the one list that writing and reading share.
    fn each(&mut self, f: &mut impl FnMut(&mut f64) -> Result<(), CheckpointError>) -> Result<(), CheckpointError> {
        self.money.bets.iter_mut().try_for_each(&mut *f)?;
        for n in [&mut self.money.bank, &mut self.money.reserve, &mut self.money.k] {
            f(n)?;
        }
        self.pass.ln.iter_mut().chain(&mut self.gross.ln).try_for_each(&mut *f)?;
        let mut latched = f64::from(u8::from(self.fit) + 2 * u8::from(self.gross_excluded));
        f(&mut latched)?;
        (self.fit, self.gross_excluded) = (latched as u8 & 1 != 0, latched as u8 & 2 != 0);
        self.bursts.each(f)?;
        self.canary_bursts.each(f)?;
        f(&mut self.stretch.seconds)?;
        let known = [&mut self.known, &mut self.canary_known, &mut self.stretch.now, &mut self.stretch.worst].into_iter();
        let batches = [&mut self.pool, &mut self.fit_pool, &mut self.total, &mut self.step_total];
        known.chain(batches.into_iter().flat_map(|b| [&mut b.canary, &mut b.stable])).flat_map(|c| [&mut c.n, &mut c.x]).try_for_each(f)
    }
}

/// A rate from counts, with half a bad request in a hundred added: one that was never seen to fail is not taken to be perfect.
fn guess(known: Counts) -> f64 {
    ((known.x + 0.5) / (known.n + 100.0)).clamp(1e-6, 0.9)
}

/// Whether a pool can be judged.
fn ready(test: &Test, pool: &Batch) -> bool {
    match test {
        Test::Compare { .. } => pool.canary.n >= 1.0 && pool.stable.n >= 1.0,
        Test::Limit { .. } => pool.canary.n >= 1.0,
    }
}

fn outcomes(test: &Test, of_fitness: &Test, theta: f64, batch: &Batch) -> Outcomes {
    match (test, of_fitness) {
        (Test::Compare { margin, ratio }, Test::Compare { margin: fit_margin, .. }) => compare(*margin, *fit_margin, *ratio, theta, batch),
        (Test::Compare { margin, ratio }, Test::Limit { .. }) => compare(*margin, *margin, *ratio, theta, batch),
        (Test::Limit { max }, _) => limit(*max, batch),
    }
}

fn compare(margin: f64, fit_margin: f64, ratio: f64, theta: f64, batch: &Batch) -> Outcomes {
    let mut out = Outcomes { harm: [0.0; 8], pass: [0.0; 3], gross: [0.0; 3] };
    // A metric that allows more than the gross fault is content with what it allows.
    let gross_margin = GROSS_MARGIN.max(margin);
    let (b, fit_b, gross_b) = (margin + ratio * theta, fit_margin + ratio * theta, gross_margin + theta);
    let mut alternative = [theta; 14];
    let mut margins = [margin; 14];
    let mut ratios = [ratio; 14];
    for i in 0..14 {
        match i {
            0..8 if b < BOTH_DOWN => alternative[i] = at_odds(ODDS[i], b),
            8..11 => (alternative[i], margins[i]) = (theta + FRACTIONS[i - 8] * (fit_b - theta), fit_margin),
            11..14 => {
                (alternative[i], margins[i], ratios[i]) = (theta + FRACTIONS[i - 11] * gross_margin, gross_margin, 1.0);
            }
            _ => {}
        }
    }
    let bets = bets(batch.canary.n, batch.stable.n, margins, ratios, theta, alternative);
    for (i, bet) in bets.iter().enumerate() {
        match i {
            0..8 if b < BOTH_DOWN => out.harm[i] = bet.ln_s(batch),
            8..11 if fit_b < BOTH_DOWN => out.pass[i - 8] = bet.ln_s(batch),
            11..14 if gross_b < BOTH_DOWN => out.gross[i - 11] = bet.ln_s(batch),
            _ => {}
        }
    }
    out
}

fn limit(max: f64, batch: &Batch) -> Outcomes {
    let mut out = Outcomes { harm: [0.0; 8], pass: [0.0; 3], gross: [0.0; 3] };
    let Counts { n, x } = batch.canary;
    if max < BOTH_DOWN {
        out.harm = ODDS.map(|odds| limit_ln_s(n, x, at_odds(odds, max), max));
        out.pass = LIMIT_PARTS.map(|part| limit_ln_s(n, x, part * max, max));
    }
    let gross = GROSS_MARGIN.max(max);
    if gross < BOTH_DOWN {
        out.gross = LIMIT_PARTS.map(|part| limit_ln_s(n, x, part * gross, gross));
    }
    out
}
