//! What the owner asked for: a plan that is valid by construction, and the problems of one that is not.
//!
//! `serin-api` makes a `PlanSpec` of an object's fields; `Plan::new` checks it whole and names every problem at once.
//! Deliberately knows nothing of YAML: paths in problems are those of the object's spec.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use crate::stats::{Bursts, MetricTest, NumberLimit, Settings, Test, default_weights};
use crate::units::{VersionName, Weight, duration_text};

/// Whether Serin acts, or only decides and records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Weights are set.
    Act,
    /// Nothing is touched but the status.
    Observe,
}

/// What starts a rollout when no version is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// A Deployment that appears behind the service, or changes its template, while Serin watches.
    Automatic,
    /// Only `desired`.
    Manual,
}

/// How the canary gets the pods for its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scaling {
    /// Replicas are raised to what the next step needs, before it.
    ByWeight,
    /// Replicas are never written; a step waits for capacity.
    Wait,
    /// Replicas are raised to stable's number before the first step.
    Full,
}

/// Where a subset that lacks is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubsetHome {
    /// Into Serin's own DestinationRule for the same host.
    Companion,
    /// Nowhere: wait until somebody adds it.
    Existing,
}

/// What happens when a confirm step's `max_wait` is over without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnInconclusive {
    /// Stay and say so.
    Hold,
    /// Go on, without proof, if nothing speaks against it; the status says so.
    Promote,
    /// Back to stable.
    Rollback,
}

/// What happens when a step's hold is over and no request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnNoTraffic {
    /// Stay and say so.
    Hold,
    /// Go on after the hold, as nobody can be harmed.
    Proceed,
}

/// One step of the plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Give the canary this share and stay.
    Weight {
        /// The canary's share.
        weight: Weight,
        /// The least time at this share.
        hold: Duration,
        /// Leave only once the canary is shown fit by every metric.
        confirm: bool,
        /// For a confirm step with a `max_wait`: fitness may be shown by a coarser margin, the smallest that the forecast of the step's start fits
        /// into `max_wait` (specification, section 8). Never of the last confirm step.
        graded: bool,
        /// For a confirm step: after this long without an answer `OnInconclusive` applies.
        max_wait: Option<Duration>,
    },
    /// Stay at the share of the step before, until somebody promotes or the time is over.
    Pause {
        /// `None`: until a person goes on.
        time: Option<Duration>,
    },
}

/// Which requests of an arm count as bad for a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Bad {
    /// HTTP 5xx, and gRPC statuses other than 0, as the caller saw them.
    Errors,
    /// Slower than this bucket edge, in milliseconds. The edge must be one of the histogram's.
    SlowerThan {
        /// Milliseconds.
        edge_ms: f64,
    },
    /// Slower than one of the two edges about a quantile of stable, which a rollout learns at its begin (specification, section 6).
    Quantile {
        /// What is asked of it.
        asked: Quantile,
        /// Which of the two.
        side: Side,
    },
    /// What a pair of the source's own counters says: the pair's index in `Plan::counters` (specification, section 7).
    Counted {
        /// See above.
        index: usize,
    },
}

/// Two counters of which the smaller is a part of the larger, as selectors of the source's series with `{{ arm.workload }}` and the like in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// What counts the bad ones.
    pub bad: String,
    /// What counts all.
    pub total: String,
}

/// "This quantile may grow by so much."
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantile {
    /// From 0 to 1: 0.99.
    pub q: f64,
    /// By which part it may grow: 0.2 is a fifth.
    pub may_grow: f64,
    /// Only what needs no interpolation between edges: it can convict, and never acquit.
    pub strict: bool,
}

/// Which of the two edges about a quantile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one below it.
    Lower,
    /// The one at or above it.
    Upper,
}

/// What is asked of the traffic, as the owner says it.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// Share of requests that fail.
    Errors(Test),
    /// Share of requests slower than a bucket edge, in milliseconds.
    SlowerThan(f64, Test),
    /// See `Quantile`. It makes two metrics, `NAME-lower` and `NAME-upper`.
    Quantile(Quantile),
    /// Share of whatever two counters count.
    Counted(Counters, Test),
}

/// One metric before the error budget is split.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// Its name.
    pub name: String,
    /// What is asked.
    pub question: Question,
    /// So long after a new weight is seen, requests are left out (specification, section 9).
    pub warmup: Duration,
}

/// A query whose answer is one number of unknown distribution: a limit and not a test, outside the error budget (specification, section 7).
#[derive(Clone, Debug, PartialEq)]
pub struct QueryLimit {
    /// Its name.
    pub name: String,
    /// PromQL, with `{{ canary.workload }}` and the like in it.
    pub query: String,
    /// What is allowed.
    pub limit: NumberLimit,
}

/// One question asked of every batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Its name in the plan.
    pub name: String,
    /// What counts as bad.
    pub bad: Bad,
    /// The test and its part of the error budget. Of a quantile it stands for nothing until a rollout has learnt it (`Rollout::tests`).
    pub test: MetricTest,
    /// So long after a new weight is seen, requests are left out.
    pub warmup: Duration,
}

/// The fields of a plan before they are checked together.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanSpec {
    /// The version wanted; `None`: the trigger decides.
    pub desired: Option<VersionName>,
    /// See `Trigger`.
    pub trigger: Trigger,
    /// The owner's brake: nothing moves forward.
    pub suspend: bool,
    /// See `Mode`.
    pub mode: Mode,
    /// After a weight change, requests count for harm only, this long.
    pub settle: Duration,
    /// Structure of routes may be changed.
    pub manage_route: bool,
    /// See `SubsetHome`.
    pub subsets: SubsetHome,
    /// See `Scaling`.
    pub scaling: Scaling,
    /// So long after a promotion the version that was replaced is deleted; `None`: never.
    pub retire_after: Option<Duration>,
    /// In order; weights never go down.
    pub steps: Vec<Step>,
    /// How long the canary is watched at 100 % before it is the new stable.
    pub bake: Duration,
    /// How often the source is read.
    pub interval: Duration,
    /// Confidence of the whole rollout, from 0.5 to 0.9999.
    pub confidence: f64,
    /// See `OnInconclusive`.
    pub on_inconclusive: OnInconclusive,
    /// See `OnNoTraffic`.
    pub on_no_traffic: OnNoTraffic,
    /// Weights of the error budget are given to these by `Plan::new`.
    pub metrics: Vec<Asked>,
    /// See `QueryLimit`.
    pub limits: Vec<QueryLimit>,
}

/// A checked plan. Made by `Plan::new` only.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    spec: PlanSpec,
    metrics: Vec<Metric>,
    tests: Vec<MetricTest>,
    counters: Vec<(String, Counters)>,
    questions: String,
}

/// One thing wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field, as `spec.steps[1].weight`.
    pub path: String,
    /// What is wrong and what to write instead; a fragment.
    pub what: String,
}

impl core::fmt::Display for Problem {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: {}", self.path, self.what)
    }
}

impl Plan {
    /// Checks the fields together and splits the error budget: half to error rates, half to all else
    /// (`docs/statistics.md`), or all to the only kind there is.
    ///
    /// # Errors
    /// All problems at once.
    pub fn new(spec: PlanSpec) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut problem = |path: String, what: &str| problems.push(Problem { path, what: what.to_string() });
        if !spec.steps.iter().any(|s| matches!(s, Step::Weight { .. })) {
            problem("spec.steps".into(), "no step has a weight: write at least one, as {weight: 10, hold: 2m}");
        }
        let mut highest = Weight::ZERO;
        for (i, step) in spec.steps.iter().enumerate() {
            match step {
                Step::Weight { weight, confirm, max_wait, hold, graded: _ } => {
                    if *weight >= Weight::ALL {
                        problem(
                            format!("spec.steps[{i}].weight"),
                            "100 is no step: at 100 there is nothing to compare with; promotion sets it after the last step",
                        );
                    }
                    if *weight < highest {
                        problem(
                            format!("spec.steps[{i}].weight"),
                            "lower than a step before it: steps only go up; an abort goes down by itself",
                        );
                    }
                    if *weight == Weight::ZERO && *confirm {
                        problem(
                            format!("spec.steps[{i}].confirm"),
                            "at weight 0 no request reaches the canary, so nothing can be confirmed: leave confirm out",
                        );
                    }
                    highest = highest.max(*weight);
                    if let Some(longest) = max_wait {
                        if !confirm {
                            problem(
                                format!("spec.steps[{i}].maxWait"),
                                "only a confirm step waits for an answer: add confirm: true, or leave maxWait out",
                            );
                        } else if longest < hold {
                            let hold = duration_text(*hold);
                            problem(format!("spec.steps[{i}].maxWait"), &format!("shorter than the step's hold, which is {hold}"));
                        }
                    }
                }
                Step::Pause { .. } if i == 0 => problem(
                    "spec.steps[0].pause".into(),
                    "a pause keeps the share of the step before it, and there is none: write {weight: 0} first",
                ),
                Step::Pause { .. } => {}
            }
        }
        if highest == Weight::ZERO && spec.steps.iter().any(|s| matches!(s, Step::Weight { .. })) {
            problem(
                "spec.steps".into(),
                "no step gives the canary any request, so promotion would be the first: add a step with a weight above 0, as {weight: 10, hold: 2m}",
            );
        }
        if !(0.5..=0.9999).contains(&spec.confidence) {
            problem("spec.analysis.confidence".into(), "outside 50% to 99.99%");
        }
        if spec.interval < Duration::from_millis(100) {
            problem("spec.analysis.interval".into(), "below 100ms");
        }
        if spec.metrics.is_empty() {
            problem(
                "spec.analysis.metrics".into(),
                "no metric: nothing could ever take the canary back; leave the field out for the default",
            );
        }
        let confirms = spec.steps.iter().any(|s| matches!(s, Step::Weight { confirm: true, .. }));
        for (i, asked) in spec.metrics.iter().enumerate() {
            match &asked.question {
                Question::Errors(test) | Question::SlowerThan(_, test) | Question::Counted(_, test) if confirms && !test.can_pass() => {
                    let kind = match asked.question {
                        Question::Errors(_) => "errorRate",
                        Question::Counted(..) => "promql",
                        Question::SlowerThan(..) | Question::Quantile(_) => "latency",
                    };
                    problem(
                        format!("spec.analysis.metrics[{i}].{kind}.margin"),
                        "0: no number of requests can show that a canary is not worse by nothing; write a margin above 0, as 0.5%, or no confirm step",
                    )
                }
                Question::Quantile(Quantile { strict: true, .. }) if confirms => problem(
                    format!("spec.analysis.metrics[{i}].latency.strict"),
                    "a strict claim can convict and never acquit, so no confirm step would ever be left: leave strict out, or confirm",
                ),
                Question::Errors(_) | Question::SlowerThan(..) | Question::Quantile(_) | Question::Counted(..) => {}
            }
        }
        let last_confirm = spec.steps.iter().rposition(|s| matches!(s, Step::Weight { confirm: true, .. }));
        for (i, step) in spec.steps.iter().enumerate() {
            let Step::Weight { graded: true, confirm, max_wait, .. } = step else { continue };
            let path = format!("spec.steps[{i}].graded");
            match () {
                () if !confirm => problem(path, "a graded margin is for what a confirm step asks: add confirm: true, or leave graded out"),
                () if max_wait.is_none() => problem(path, "the margin is chosen to fit into the step's maxWait: add it, as maxWait: 1h"),
                () if last_confirm == Some(i) => {
                    problem(path, "the last confirm step has to ask for the margin itself, or nothing ever does: leave graded out here");
                }
                () => {}
            }
        }
        let mut metrics: Vec<Metric> = Vec::new();
        let mut counters: Vec<(String, Counters)> = Vec::new();
        for (i, asked) in spec.metrics.iter().enumerate() {
            let pairs = counters.len();
            if let Question::Counted(pair, _) = &asked.question {
                counters.push((asked.name.clone(), pair.clone()));
            }
            for (bad, test) in bads(&asked.question, pairs) {
                let name = match &bad {
                    Bad::Errors | Bad::SlowerThan { .. } | Bad::Counted { .. } => asked.name.clone(),
                    Bad::Quantile { side: Side::Lower, .. } => format!("{}-lower", asked.name),
                    Bad::Quantile { side: Side::Upper, .. } => format!("{}-upper", asked.name),
                };
                if metrics.iter().any(|m| m.name == name) {
                    problem(format!("spec.analysis.metrics[{i}].name"), "used twice: each metric needs a name of its own");
                }
                metrics.push(Metric { name, bad, test: MetricTest::new(test, 0.0), warmup: asked.warmup });
            }
        }
        let are_errors: Vec<bool> = metrics.iter().map(|m| m.bad == Bad::Errors).collect();
        for (metric, weight) in metrics.iter_mut().zip(default_weights(&are_errors)) {
            metric.test = MetricTest::new(metric.test.test.clone(), weight);
        }
        for (i, limit) in spec.limits.iter().enumerate() {
            if metrics.iter().any(|m| m.name == limit.name) || spec.limits[..i].iter().any(|l| l.name == limit.name) {
                problem("spec.analysis.metrics".into(), "two have one name: each metric needs a name of its own");
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let tests = metrics.iter().map(|m| m.test.clone()).collect();
        let questions = questions(&spec, &metrics, &counters);
        Ok(Self { spec, metrics, tests, counters, questions })
    }

    /// The fields as asked for.
    pub fn spec(&self) -> &PlanSpec {
        &self.spec
    }

    /// The metrics, with their parts of the error budget.
    pub fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    /// The metrics' tests, in the same order, as they are before a rollout has learnt anything: see `Rollout::tests`.
    pub fn tests(&self) -> &[MetricTest] {
        &self.tests
    }

    /// The bucket edges that the plan names, in milliseconds, ascending; and whether a quantile is asked for, which needs all that there are
    /// until a rollout has learnt its own.
    pub fn edges(&self) -> (Vec<f64>, bool) {
        let named = self.metrics.iter().filter_map(|m| if let Bad::SlowerThan { edge_ms } = m.bad { Some(edge_ms) } else { None });
        let mut edges: Vec<f64> = named.collect();
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        (edges, self.metrics.iter().any(|m| matches!(m.bad, Bad::Quantile { .. })))
    }

    /// The pairs of counters that metrics ask for, by the metric's name.
    pub fn counters(&self) -> &[(String, Counters)] {
        &self.counters
    }

    /// The step of that index, if the plan has it.
    pub fn step(&self, index: usize) -> Option<&Step> {
        self.spec.steps.get(index)
    }

    /// The canary's share in step `index`; a pause keeps the share of the step before it.
    pub fn weight_at(&self, index: usize) -> Weight {
        let upto = self.spec.steps.iter().take(index + 1).rev();
        upto.map(|s| if let Step::Weight { weight, .. } = s { Some(*weight) } else { None }).find_map(|w| w).unwrap_or(Weight::ZERO)
    }

    /// All shares of the plan, the whole one included: what the total of a route's weights must be able to express.
    pub fn shares(&self) -> Vec<Weight> {
        let steps = (0..self.spec.steps.len()).map(|i| self.weight_at(i));
        steps.chain([Weight::ALL]).collect()
    }

    /// Everything that the evidence answers, as one short text: where it changes, what was counted answers another question.
    pub fn questions(&self) -> &str {
        &self.questions
    }

    /// What the statistics need beside the tests.
    pub fn settings(&self) -> Settings {
        let error = 1.0 - self.spec.confidence;
        Settings { alpha: error, beta: error, bursts: Bursts::Auto, interval_s: self.spec.interval.as_secs_f64() }
    }
}

/// The metrics that a question makes, with their tests; `pairs` of counters come before its own.
fn bads(question: &Question, pairs: usize) -> Vec<(Bad, Test)> {
    match question {
        Question::Counted(_, test) => vec![(Bad::Counted { index: pairs }, test.clone())],
        Question::Errors(test) => vec![(Bad::Errors, test.clone())],
        Question::SlowerThan(edge_ms, test) => vec![(Bad::SlowerThan { edge_ms: *edge_ms }, test.clone())],
        // Nothing is worse than this: no batch is judged before the quantile is learnt.
        Question::Quantile(asked) => {
            [Side::Lower, Side::Upper].map(|side| (Bad::Quantile { asked: *asked, side }, Test::Compare { margin: 1.0, ratio: 1.0 })).into()
        }
    }
}

/// See `Plan::questions`. Made once, as every look compares it.
fn questions(spec: &PlanSpec, metrics: &[Metric], counters: &[(String, Counters)]) -> String {
    let mut text = format!("{}", spec.confidence);
    for m in metrics {
        let bad = match &m.bad {
            Bad::Errors => "errors".to_string(),
            Bad::SlowerThan { edge_ms } => format!("over {edge_ms}"),
            Bad::Quantile { asked, side } => format!("q{} +{} {side:?} {}", asked.q, asked.may_grow, asked.strict),
            Bad::Counted { index } => counters.get(*index).map_or_else(String::new, |(_, pair)| format!("{pair:?}")),
        };
        let test = match &m.test.test {
            Test::Compare { margin, ratio } => format!("{margin} {ratio}"),
            Test::Limit { max } => format!("max {max}"),
        };
        text += &format!("; {bad} {test}");
    }
    for l in &spec.limits {
        text += &format!("; {:?} {:?} {:?} {}", l.query, l.limit.min, l.limit.max, l.limit.in_a_row);
    }
    // FNV-1a: the text itself would fill the status.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}
