//! What the owner asked for: a plan that is valid by construction, and the problems of one that is not.
//!
//! `serin-api` makes a `PlanSpec` of an object's fields; `Plan::new` checks it whole and names every problem at once.
//! Deliberately knows nothing of YAML: paths in problems are those of the object's spec.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use crate::stats::{Bursts, MetricTest, Settings, Test};
use crate::units::{VersionName, Weight};

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
}

/// One question asked of every batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Its name in the plan.
    pub name: String,
    /// What counts as bad.
    pub bad: Bad,
    /// The test and its part of the error budget.
    pub test: MetricTest,
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
    /// Name, what is bad, and the test; weights of the error budget are given here by `Plan::new`.
    pub metrics: Vec<(String, Bad, Test)>,
}

/// A checked plan. Made by `Plan::new` only.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    spec: PlanSpec,
    metrics: Vec<Metric>,
    tests: Vec<MetricTest>,
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
                Step::Weight { weight, confirm, max_wait, hold } => {
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
                            problem(format!("spec.steps[{i}].maxWait"), "shorter than the step's hold");
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
        for (i, (name, _, test)) in spec.metrics.iter().enumerate() {
            if spec.metrics[..i].iter().any(|(other, ..)| other == name) {
                problem(format!("spec.analysis.metrics[{i}].name"), "used twice: each metric needs a name of its own");
            }
            if confirms && !test.can_pass() {
                problem(
                    format!("spec.analysis.metrics[{i}].margin"),
                    "0: no number of requests can show that a canary is not worse by nothing; write a margin above 0, as 0.5%, or no confirm step",
                );
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let errors = spec.metrics.iter().filter(|(_, bad, _)| *bad == Bad::Errors).count();
        let others = spec.metrics.len() - errors;
        // Section 5 of the specification: error rate one half, the rest shared equally.
        let part = |bad: &Bad| match (bad, errors, others) {
            (Bad::Errors, e, 0) => 1.0 / e as f64,
            (Bad::Errors, e, _) => 0.5 / e as f64,
            (Bad::SlowerThan { .. }, 0, o) => 1.0 / o as f64,
            (Bad::SlowerThan { .. }, _, o) => 0.5 / o as f64,
        };
        let metric = |(name, bad, test): &(String, Bad, Test)| Metric {
            name: name.clone(),
            bad: bad.clone(),
            test: MetricTest { test: test.clone(), weight: part(bad) },
        };
        let metrics: Vec<Metric> = spec.metrics.iter().map(metric).collect();
        let tests = metrics.iter().map(|m| m.test.clone()).collect();
        Ok(Self { spec, metrics, tests })
    }

    /// The fields as asked for.
    pub fn spec(&self) -> &PlanSpec {
        &self.spec
    }

    /// The metrics, with their parts of the error budget.
    pub fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    /// The metrics' tests, in the same order.
    pub fn tests(&self) -> &[MetricTest] {
        &self.tests
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

    /// What the statistics need beside the tests.
    pub fn settings(&self) -> Settings {
        let error = 1.0 - self.spec.confidence;
        Settings { alpha: error, beta: error, bursts: Bursts::Auto, interval_s: self.spec.interval.as_secs_f64() }
    }
}
