//! Spec → `Plan`: defaults applied, text read, and every problem named at once.
//!
//! The API server has applied the schema's defaults already, unless the object never saw one (a file, an older schema):
//! so they are applied here again, from the same values. What nothing carries out yet is refused by name.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;
use serin_core::plan::{
    Asked, Counters, Mode, OnInconclusive, OnNoTraffic, Plan, PlanSpec, Problem, Quantile, QueryLimit, Question, Scaling, Step, SubsetHome,
    Trigger,
};
use serin_core::stats::{NumberLimit, Test};
use serin_core::units::{VersionName, Weight};
use std::time::Duration;

use crate::spec::{
    CanaryReleaseSpec, CanaryScalingSpec, DestinationRuleSpec, MetricSpec, ModeSpec, OnInconclusiveSpec, OnNoTrafficSpec, PromqlSpec,
    StepSpec, TriggerSpec,
};
use crate::{template, values};

/// What absent fields mean. The schema shows the same values.
pub mod defaults {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    use crate::spec::{ErrorRateSpec, LatencySpec, MetricSpec, StepSpec};

    /// `spec.version.label`: what Istio and the article use.
    pub const LABEL: &str = "version";
    /// `spec.traffic.settle`: some time for all proxies to have the new weights.
    pub const SETTLE: &str = "10s";
    /// `spec.steps[].hold` of a step that has a weight (`docs/statistics.md`, section 5, minDwell).
    pub const HOLD: &str = "1m";
    /// `spec.promotion.bake`.
    pub const BAKE: &str = "10m";
    /// `spec.analysis.interval`.
    pub const INTERVAL: &str = "10s";
    /// `spec.analysis.confidence`.
    pub const CONFIDENCE: &str = "95%";

    /// `spec.steps`.
    pub fn steps() -> Vec<StepSpec> {
        let weights = [1, 5, 10, 25, 50];
        let step = |w: &i32| StepSpec {
            weight: Some(IntOrString::Int(*w)),
            hold: Some("2m".into()),
            confirm: (*w == 50).then_some(true),
            ..StepSpec::default()
        };
        weights.iter().map(step).collect()
    }

    /// `spec.analysis.metrics`.
    pub fn metrics() -> Vec<MetricSpec> {
        let errors = ErrorRateSpec { margin: Some("0.5%".into()), ..ErrorRateSpec::default() };
        let slow = LatencySpec { slower_than: Some("500ms".into()), margin: Some("1%".into()), ..LatencySpec::default() };
        vec![
            MetricSpec { name: "errors".into(), error_rate: Some(errors), ..MetricSpec::default() },
            MetricSpec { name: "slow".into(), latency: Some(slow), ..MetricSpec::default() },
        ]
    }
}

/// The checked plan of a spec.
///
/// # Errors
/// Every problem at once, each with the path of its field.
pub fn plan_of(spec: &CanaryReleaseSpec) -> Result<Plan, Vec<Problem>> {
    let mut found = Problems(Vec::new());
    found.unsupported(spec);
    let plan = found.read(spec);
    // The plan's own check runs also when fields could not be read, so that a person sees all in one go. Where a
    // stand-in value took the place of what could not be read, its path is the one that is already named.
    match Plan::new(plan) {
        Ok(plan) if found.0.is_empty() => Ok(plan),
        Ok(_) => Err(found.0),
        Err(more) => {
            let Problems(mut all) = found;
            let new: Vec<Problem> =
                more.into_iter().filter(|p| !all.iter().any(|q| q.path == p.path || q.path.starts_with(&p.path))).collect();
            all.extend(new);
            Err(all)
        }
    }
}

/// The label that tells versions apart.
pub fn version_label(spec: &CanaryReleaseSpec) -> &str {
    spec.version.as_ref().and_then(|v| v.label.as_deref()).unwrap_or(defaults::LABEL)
}

/// The name by which `spec.analysis.source` asks for Istio's proxies themselves.
pub const PROXIES: &str = "Proxies";

/// Latency's `warmup`: caches, pools and just-in-time compilers make a pod's first seconds its slowest. Where the source is read more often
/// than every ten seconds it is three readings.
const WARMUP: Duration = Duration::from_secs(30);
/// `latency.mayGrow`.
const MAY_GROW: &str = "20%";
/// What a `promql` may be.
const COUNTERS: &str = "write a query with min or max, as {query: up, min: \"1\"}, or the counters bad and total with a margin, as {bad: 'orders_failed{workload=\"{{ arm.workload }}\"}', total: 'orders{workload=\"{{ arm.workload }}\"}', margin: 1%}";

/// `promql.failureLimit`.
const FAILURE_LIMIT: u32 = 3;

/// What a metric of the spec becomes.
enum Kind {
    Tested(Asked),
    Limited(QueryLimit),
}

struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, path: &str, what: impl Into<String>) {
        self.0.push(Problem { path: path.to_string(), what: what.into() });
    }

    fn unsupported(&mut self, spec: &CanaryReleaseSpec) {
        let mut not_yet = |path: &str, value: &Option<Value>| {
            if value.is_some() {
                self.add(path, format!("not supported yet: {path}"));
            }
        };
        not_yet("spec.hooks", &spec.hooks);
        not_yet("spec.notify", &spec.notify);
        if let Some(traffic) = &spec.traffic {
            not_yet("spec.traffic.match", &traffic.matches);
            not_yet("spec.traffic.mirror", &traffic.mirror);
            not_yet("spec.traffic.destinations", &traffic.destinations);
        }
    }

    fn read(&mut self, spec: &CanaryReleaseSpec) -> PlanSpec {
        let traffic = spec.traffic.clone().unwrap_or_default();
        let analysis = spec.analysis.clone().unwrap_or_default();
        let promotion = spec.promotion.clone().unwrap_or_default();
        if spec.service.is_empty() {
            self.add("spec.service", "empty: name the Service that both versions stand behind");
        }
        if version_label(spec).is_empty() {
            self.add("spec.version.label", "empty: name the label of the pods whose value is the version");
        }
        let desired = spec.version.as_ref().and_then(|v| v.desired.as_deref());
        let desired = desired.and_then(|text| self.value("spec.version.desired", VersionName::new(text)));
        let confidence = analysis.confidence.as_deref().unwrap_or(defaults::CONFIDENCE);
        let steps = spec.steps.clone().unwrap_or_else(defaults::steps);
        let metrics = analysis.metrics.clone().unwrap_or_else(defaults::metrics);
        let interval = self.duration("spec.analysis.interval", analysis.interval.as_deref(), defaults::INTERVAL);
        let (mut asked, mut limits) = (Vec::new(), Vec::new());
        for (i, metric) in metrics.iter().enumerate() {
            match self.metric(i, metric, interval) {
                Some(Kind::Tested(metric)) => asked.push(metric),
                Some(Kind::Limited(limit)) => limits.push(limit),
                None => {}
            }
        }
        // A limit promises nothing, so it never stands alone.
        if asked.is_empty() && !limits.is_empty() {
            self.add(
                "spec.analysis.metrics",
                "only queries with limits, and none that is a test: add {name: errors, errorRate: {margin: 0.5%}}",
            );
        }
        PlanSpec {
            desired,
            trigger: match spec.trigger {
                None | Some(TriggerSpec::Automatic) => Trigger::Automatic,
                Some(TriggerSpec::Manual) => Trigger::Manual,
            },
            suspend: spec.suspend.unwrap_or(false),
            mode: if spec.mode == Some(ModeSpec::Observe) { Mode::Observe } else { Mode::Act },
            settle: self.duration("spec.traffic.settle", traffic.settle.as_deref(), defaults::SETTLE),
            manage_route: traffic.manage_route.unwrap_or(false),
            subsets: match traffic.destination_rule {
                None | Some(DestinationRuleSpec::Companion) => SubsetHome::Companion,
                Some(DestinationRuleSpec::Existing) => SubsetHome::Existing,
            },
            scaling: match spec.scaling.as_ref().and_then(|s| s.canary) {
                None | Some(CanaryScalingSpec::ByWeight) => Scaling::ByWeight,
                Some(CanaryScalingSpec::Wait) => Scaling::Wait,
                Some(CanaryScalingSpec::Full) => Scaling::Full,
            },
            retire_after: spec
                .scaling
                .as_ref()
                .and_then(|s| s.retire_after.as_deref())
                .map(|text| self.duration("spec.scaling.retireAfter", Some(text), "")),
            steps: steps.iter().enumerate().filter_map(|(i, step)| self.step(i, step)).collect(),
            bake: self.duration("spec.promotion.bake", promotion.bake.as_deref(), defaults::BAKE),
            interval,
            confidence: self.value("spec.analysis.confidence", values::percent(confidence)).unwrap_or(0.95),
            on_inconclusive: match analysis.on_inconclusive {
                None | Some(OnInconclusiveSpec::Hold) => OnInconclusive::Hold,
                Some(OnInconclusiveSpec::Promote) => OnInconclusive::Promote,
                Some(OnInconclusiveSpec::Rollback) => OnInconclusive::Rollback,
            },
            on_no_traffic: match analysis.on_no_traffic {
                None | Some(OnNoTrafficSpec::Hold) => OnNoTraffic::Hold,
                Some(OnNoTrafficSpec::Proceed) => OnNoTraffic::Proceed,
            },
            metrics: asked,
            limits,
        }
    }

    fn value<T>(&mut self, path: &str, read: Result<T, String>) -> Option<T> {
        read.map_err(|what| self.add(path, what)).ok()
    }

    fn duration(&mut self, path: &str, text: Option<&str>, default: &str) -> Duration {
        let read = values::duration(text.unwrap_or(default));
        self.value(path, read).unwrap_or(Duration::from_secs(60))
    }

    fn step(&mut self, i: usize, step: &StepSpec) -> Option<Step> {
        let path = format!("spec.steps[{i}]");
        match (&step.weight, &step.pause) {
            (Some(weight), None) => {
                let weight = self.weight(&format!("{path}.weight"), weight);
                let hold = self.duration(&format!("{path}.hold"), step.hold.as_deref(), defaults::HOLD);
                let max_wait = step.max_wait.as_deref().map(|text| self.duration(&format!("{path}.maxWait"), Some(text), ""));
                let (confirm, graded) = (step.confirm.unwrap_or(false), step.graded.unwrap_or(false));
                weight.map(|weight| Step::Weight { weight, hold, confirm, graded, max_wait })
            }
            (None, Some(pause)) => {
                if step.hold.is_some() || step.confirm.is_some() || step.graded.is_some() || step.max_wait.is_some() {
                    self.add(&path, "hold, confirm, graded and maxWait belong to a step with a weight; a pause takes {for: 1h}");
                }
                let time = pause.time.as_deref().map(|text| self.duration(&format!("{path}.pause.for"), Some(text), ""));
                Some(Step::Pause { time })
            }
            (Some(_), Some(_)) | (None, None) => {
                self.add(&path, "a step is either a weight or a pause: write {weight: 10, hold: 2m} or {pause: {}}");
                None
            }
        }
    }

    fn weight(&mut self, path: &str, weight: &IntOrString) -> Option<Weight> {
        let text = match weight {
            IntOrString::Int(percent) => percent.to_string(),
            IntOrString::String(text) => text.clone(),
        };
        self.value(path, Weight::parse(&text))
    }

    fn metric(&mut self, i: usize, metric: &MetricSpec, interval: Duration) -> Option<Kind> {
        let path = format!("spec.analysis.metrics[{i}]");
        if metric.name.is_empty() {
            self.add(&format!("{path}.name"), "empty: each metric needs a name");
        }
        let kinds = [metric.error_rate.is_some(), metric.latency.is_some(), metric.promql.is_some()];
        if kinds.iter().filter(|k| **k).count() != 1 {
            self.add(&path, "a metric is exactly one of errorRate, latency, promql");
            return None;
        }
        if let Some(promql) = metric.promql.as_ref().filter(|p| p.query.is_some() || (p.bad.is_none() && p.total.is_none())) {
            if metric.warmup.is_some() {
                self.add(&format!("{path}.warmup"), "a query has none: it is asked for one number, and not for requests");
            }
            return self.promql(&format!("{path}.promql"), &metric.name, promql).map(Kind::Limited);
        }
        let warmup = match (&metric.warmup, &metric.latency) {
            (Some(text), _) => self.duration(&format!("{path}.warmup"), Some(text), ""),
            (None, Some(_)) => WARMUP.min(interval * 3),
            (None, None) => Duration::ZERO,
        };
        let question = if let Some(errors) = &metric.error_rate {
            let path = format!("{path}.errorRate");
            let test = match (&errors.margin, &errors.max) {
                (Some(_), Some(_)) => {
                    self.refuse(&path, "max is a limit of its own: write it as another metric beside the one with margin")
                }
                (None, None) => self.refuse(&path, "write margin (compared with stable) or max (a limit of its own)"),
                (None, Some(_)) if errors.ratio.is_some() => {
                    self.refuse(&path, "ratio belongs to margin: max is a limit whatever stable does")
                }
                (None, Some(max)) => self.limit(&format!("{path}.max"), max),
                (Some(margin), None) => self.compare(&path, margin, errors.ratio.as_deref()),
            };
            Question::Errors(test?)
        } else if let Some(latency) = &metric.latency {
            let path = format!("{path}.latency");
            if let Some(q) = &latency.quantile {
                if latency.slower_than.is_some() || latency.margin.is_some() {
                    self.add(&path, "either a quantile that may grow, or slowerThan with its margin: write two metrics for both");
                }
                let q = self.value(&format!("{path}.quantile"), values::number(q))?;
                let grow = latency.may_grow.as_deref().unwrap_or(MAY_GROW);
                let may_grow = self.value(&format!("{path}.mayGrow"), values::growth(grow))?;
                if !(0.01..=0.9999).contains(&q) {
                    return self.refuse(&format!("{path}.quantile"), "outside 0.01 to 0.9999: write it as 0.99");
                }
                if may_grow <= 0.0 {
                    return self.refuse(&format!("{path}.mayGrow"), "0%: no number of requests can show that nothing grew by nothing");
                }
                let strict = latency.strict.unwrap_or(false);
                let question = Question::Quantile(Quantile { q, may_grow, strict });
                return Some(Kind::Tested(Asked { name: metric.name.clone(), question, warmup }));
            }
            self.foreign(
                &path,
                &[("mayGrow", latency.may_grow.is_some()), ("strict", latency.strict.is_some())],
                "belongs to a quantile: write {quantile: \"0.99\", mayGrow: 20%}",
            );
            let (Some(edge), Some(margin)) = (&latency.slower_than, &latency.margin) else {
                return self.refuse(
                    &path,
                    "write both slowerThan and margin, as {slowerThan: 500ms, margin: 1%}, or a quantile, as {quantile: \"0.99\", mayGrow: 20%}",
                );
            };
            let edge_path = format!("{path}.slowerThan");
            let edge = self.value(&edge_path, values::duration(edge))?;
            if edge.is_zero() {
                self.add(&edge_path, "0: every request is slower than nothing; write a bucket edge, as 500ms");
            }
            Question::SlowerThan(edge.as_secs_f64() * 1000.0, self.compare(&path, margin, None)?)
        } else if let Some(promql) = &metric.promql {
            self.counters(&format!("{path}.promql"), promql)?
        } else {
            return None;
        };
        Some(Kind::Tested(Asked { name: metric.name.clone(), question, warmup }))
    }

    /// Two counters, of each arm.
    fn counters(&mut self, path: &str, promql: &PromqlSpec) -> Option<Question> {
        self.foreign(
            path,
            &[("min", promql.min.is_some()), ("max", promql.max.is_some()), ("failureLimit", promql.failure_limit.is_some())],
            "belongs to a query: counters are compared with stable's, by margin",
        );
        let (Some(bad), Some(total), Some(margin)) = (&promql.bad, &promql.total, &promql.margin) else {
            return self.refuse(path, COUNTERS);
        };
        for (field, selector) in [("bad", bad), ("total", total)] {
            if let Err(what) = template::check_selector(selector) {
                self.add(&format!("{path}.{field}"), what);
            }
        }
        let test = self.compare(path, margin, promql.ratio.as_deref())?;
        Some(Question::Counted(Counters { bad: bad.clone(), total: total.clone() }, test))
    }

    fn promql(&mut self, path: &str, name: &str, promql: &PromqlSpec) -> Option<QueryLimit> {
        let Some(query) = &promql.query else { return self.refuse(path, COUNTERS) };
        self.foreign(
            path,
            &[
                ("bad", promql.bad.is_some()),
                ("total", promql.total.is_some()),
                ("margin", promql.margin.is_some()),
                ("ratio", promql.ratio.is_some()),
            ],
            "belongs to two counters, and a query stands here: write two metrics for both",
        );
        if query.trim().is_empty() {
            self.add(&format!("{path}.query"), "empty: write a query whose answer is one number");
        }
        if let Err(what) = template::check(query) {
            self.add(&format!("{path}.query"), what);
        }
        let mut bound = |field: &str, text: &Option<String>| {
            text.as_deref().and_then(|text| self.value(&format!("{path}.{field}"), values::number(text)))
        };
        let (min, max) = (bound("min", &promql.min), bound("max", &promql.max));
        if promql.min.is_none() && promql.max.is_none() {
            return self.refuse(path, "no limit: write min or max, as max: \"100\"");
        }
        if min.zip(max).is_some_and(|(min, max)| min > max) {
            return self.refuse(path, "min is above max, so no answer would be good");
        }
        let in_a_row = promql.failure_limit.unwrap_or(FAILURE_LIMIT);
        if in_a_row == 0 {
            return self.refuse(&format!("{path}.failureLimit"), "0: at least one bad answer is needed to take a canary back");
        }
        Some(QueryLimit { name: name.to_owned(), query: query.clone(), limit: NumberLimit { min, max, in_a_row } })
    }

    /// Names those fields that are there and belong to another kind of metric.
    fn foreign(&mut self, path: &str, fields: &[(&str, bool)], what: &str) {
        for (field, _) in fields.iter().filter(|(_, there)| *there) {
            self.add(&format!("{path}.{field}"), what);
        }
    }

    fn refuse<T>(&mut self, path: &str, what: &str) -> Option<T> {
        self.add(path, what);
        None
    }

    fn compare(&mut self, path: &str, margin: &str, ratio: Option<&str>) -> Option<Test> {
        let margin = self.value(&format!("{path}.margin"), values::percent(margin));
        let ratio = match ratio {
            None => Some(1.0),
            Some(text) => self.value(&format!("{path}.ratio"), values::factor(text)),
        };
        if ratio.is_some_and(|r| r < 1.0) {
            return self.refuse(&format!("{path}.ratio"), "below 1: a canary as good as stable would be taken back");
        }
        if margin.is_some_and(|m| m >= 1.0) {
            return self.refuse(&format!("{path}.margin"), "100%: no canary could ever be worse than that");
        }
        Some(Test::Compare { margin: margin?, ratio: ratio? })
    }

    fn limit(&mut self, path: &str, max: &str) -> Option<Test> {
        let max = self.value(path, values::percent(max))?;
        if max <= 0.0 || max >= 1.0 {
            return self.refuse(path, "a limit lies above 0% and below 100%");
        }
        Some(Test::Limit { max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use serin_core::plan::{Bad, Side};

    fn spec(value: Value) -> CanaryReleaseSpec {
        serde_json::from_value(value).expect("a spec")
    }

    fn problems(value: Value) -> Vec<String> {
        plan_of(&spec(value)).err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_service_alone_is_a_whole_plan() {
        let plan = plan_of(&spec(json!({"service": "my-app"}))).expect("a plan");
        let shares: Vec<u32> = plan.shares().iter().map(|w| w.parts() / 1000).collect();
        assert_eq!(shares, [1, 5, 10, 25, 50, 100]);
        assert_eq!(plan.spec().settle, Duration::from_secs(10));
        assert_eq!(plan.spec().bake, Duration::from_secs(600));
        assert_eq!(plan.spec().confidence, 0.95);
        assert!(matches!(plan.step(4), Some(Step::Weight { confirm: true, hold, .. }) if *hold == Duration::from_secs(120)));
        assert_eq!(plan.metrics().iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["errors", "slow"]);
        assert_eq!(plan.metrics()[0].test.test, Test::Compare { margin: 0.005, ratio: 1.0 });
        assert_eq!(plan.metrics()[1].bad, Bad::SlowerThan { edge_ms: 500.0 });
    }

    #[test]
    fn fields_reach_the_plan() {
        let plan = plan_of(&spec(json!({
            "service": "my-app", "version": {"desired": "v2", "label": "rev"}, "trigger": "Manual", "suspend": true,
            "traffic": {"settle": "1s", "destinationRule": "Existing", "manageRoute": true},
            "scaling": {"canary": "Full", "retireAfter": "24h"},
            "steps": [{"weight": "0.5%", "hold": "500ms"}, {"pause": {"for": "1h"}}, {"weight": 50, "confirm": true, "maxWait": "24h"}, {"pause": {}}],
            "promotion": {"bake": "0s"},
            "analysis": {"interval": "500ms", "source": "Proxies", "confidence": "99%", "onInconclusive": "Rollback", "onNoTraffic": "Proceed",
                "metrics": [{"name": "e", "errorRate": {"margin": "1%", "ratio": "1.5"}}, {"name": "c", "errorRate": {"max": "2%"}}]},
        })))
        .expect("a plan");
        let seen = plan.spec();
        assert_eq!(seen.desired.as_ref().map(VersionName::as_str), Some("v2"));
        assert_eq!((seen.trigger, seen.suspend, seen.scaling, seen.subsets), (Trigger::Manual, true, Scaling::Full, SubsetHome::Existing));
        assert_eq!((seen.on_inconclusive, seen.on_no_traffic, seen.manage_route), (OnInconclusive::Rollback, OnNoTraffic::Proceed, true));
        assert_eq!(
            seen.steps[0],
            Step::Weight {
                weight: Weight::from_parts(500).expect("a weight"),
                hold: Duration::from_millis(500),
                confirm: false,
                graded: false,
                max_wait: None
            }
        );
        assert_eq!(seen.retire_after, Some(Duration::from_secs(86_400)));
        assert_eq!(seen.steps[1], Step::Pause { time: Some(Duration::from_secs(3600)) });
        assert!(matches!(seen.steps[2], Step::Weight { hold, max_wait: Some(_), .. } if hold == Duration::from_secs(60)));
        assert_eq!(plan.metrics()[0].test.test, Test::Compare { margin: 0.01, ratio: 1.5 });
        assert_eq!(plan.metrics()[1].test.test, Test::Limit { max: 0.02 });
    }

    #[test]
    fn what_nothing_carries_out_is_refused_by_name() {
        let found = problems(json!({
            "service": "my-app",
            "traffic": {"match": [{}], "mirror": "10%", "destinations": {}},
            "hooks": [], "notify": [],
        }));
        for path in ["spec.traffic.match", "spec.traffic.mirror", "spec.traffic.destinations", "spec.hooks", "spec.notify"] {
            let start = format!("{path}: not supported yet: {path}");
            assert_eq!(found.iter().filter(|p| p.starts_with(&start)).count(), 1, "{path} in {found:#?}");
        }
    }

    #[test]
    fn quantiles_queries_and_graded_steps_reach_the_plan() {
        let plan = plan_of(&spec(json!({
            "service": "my-app",
            "steps": [{"weight": 1, "confirm": true, "graded": true, "maxWait": "30m"}, {"weight": 50, "confirm": true}],
            "analysis": {"metrics": [
                {"name": "errors", "errorRate": {"margin": "0.5%"}},
                {"name": "p99", "latency": {"quantile": "0.99", "mayGrow": "150%"}, "warmup": "1m"},
                {"name": "orders", "promql": {"query": "sum(orders{w=\"{{ canary.workload }}\"})", "min": "10"}},
                {"name": "carts", "promql": {"bad": "lost{w=\"{{ arm.workload }}\"}", "total": "carts{w=\"{{ arm.workload }}\"}", "margin": "1%", "ratio": "2"}, "warmup": "20s"},
            ]},
        })))
        .expect("a plan");
        let names: Vec<&str> = plan.metrics().iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["errors", "p99-lower", "p99-upper", "carts"]);
        let third = 0.5 / 3.0;
        assert_eq!(plan.tests().iter().map(|t| t.weight).collect::<Vec<_>>(), [0.5, third, third, third]);
        assert_eq!((&plan.metrics()[3].bad, plan.metrics()[3].warmup), (&Bad::Counted { index: 0 }, Duration::from_secs(20)));
        assert_eq!(plan.tests()[3].test, Test::Compare { margin: 0.01, ratio: 2.0 });
        let [(name, pair)] = plan.counters() else { panic!("{:?}", plan.counters()) };
        assert_eq!(
            (name.as_str(), pair.bad.as_str(), pair.total.as_str()),
            ("carts", "lost{w=\"{{ arm.workload }}\"}", "carts{w=\"{{ arm.workload }}\"}")
        );
        let asked = Quantile { q: 0.99, may_grow: 1.5, strict: false };
        assert_eq!(plan.metrics()[1].bad, Bad::Quantile { asked, side: Side::Lower });
        assert_eq!((plan.metrics()[0].warmup, plan.metrics()[2].warmup), (Duration::ZERO, Duration::from_secs(60)));
        assert_eq!(plan.spec().limits[0].limit, NumberLimit { min: Some(10.0), max: None, in_a_row: 3 });
        assert!(matches!(plan.step(0), Some(Step::Weight { graded: true, .. })));
    }

    #[test]
    fn what_cannot_be_asked_is_said() {
        let metrics = |metric: Value| {
            problems(json!({"service": "a", "analysis": {"metrics": [{"name": "errors", "errorRate": {"margin": "1%"}}, metric]}}))
        };
        for (metric, start) in [
            (json!({"name": "m", "latency": {"quantile": "99"}}), "spec.analysis.metrics[1].latency.quantile: outside 0.01 to 0.9999"),
            (json!({"name": "m", "latency": {"quantile": "0.9", "margin": "1%"}}), "spec.analysis.metrics[1].latency: either a quantile"),
            (json!({"name": "m", "latency": {"quantile": "0.9", "mayGrow": "0%"}}), "spec.analysis.metrics[1].latency.mayGrow: 0%"),
            (
                json!({"name": "m", "latency": {"quantile": "0.9", "strict": true}}),
                "spec.analysis.metrics[1].latency.strict: a strict claim",
            ),
            (json!({"name": "m", "latency": {"mayGrow": "20%"}}), "spec.analysis.metrics[1].latency.mayGrow: belongs to a quantile"),
            (json!({"name": "m", "promql": {"query": "up"}}), "spec.analysis.metrics[1].promql: no limit"),
            (json!({"name": "m", "promql": {"query": "up", "min": "ten"}}), "spec.analysis.metrics[1].promql.min: "),
            (json!({"name": "m", "promql": {"query": "up", "min": "2", "max": "1"}}), "spec.analysis.metrics[1].promql: min is above max"),
            (json!({"name": "m", "promql": {}}), "spec.analysis.metrics[1].promql: write a query with min or max, as"),
            (
                json!({"name": "m", "promql": {"bad": "b{w=\"{{ arm.workload }}\"}", "margin": "1%"}}),
                "spec.analysis.metrics[1].promql: write a query",
            ),
            (
                json!({"name": "m", "promql": {"bad": "b", "total": "t", "margin": "1%"}}),
                "spec.analysis.metrics[1].promql.bad: names neither",
            ),
            (
                json!({"name": "m", "promql": {"bad": "b", "total": "t", "margin": "1%", "max": "2"}}),
                "spec.analysis.metrics[1].promql.max: belongs to a query",
            ),
            (
                json!({"name": "m", "promql": {"query": "up", "min": "1", "margin": "1%"}}),
                "spec.analysis.metrics[1].promql.margin: belongs to two",
            ),
            (json!({"name": "m", "promql": {"query": "", "min": "2"}}), "spec.analysis.metrics[1].promql.query: empty"),
            (json!({"name": "m", "promql": {"query": "x{a=\"{{ canary.pod }}\"}", "min": "2"}}), "spec.analysis.metrics[1].promql.query: "),
            (json!({"name": "errors", "promql": {"query": "up", "min": "2"}}), "spec.analysis.metrics: two have one name"),
        ] {
            let found = metrics(metric);
            assert!(found.iter().any(|p| p.starts_with(start)), "{start} in {found:#?}");
        }
        let steps = |steps: Value| problems(json!({"service": "a", "steps": steps}));
        for (wrong, start) in [
            (json!([{"weight": 1, "graded": true}, {"weight": 2, "confirm": true}]), "spec.steps[0].graded: a graded margin is for"),
            (
                json!([{"weight": 1, "confirm": true, "graded": true}, {"weight": 2, "confirm": true}]),
                "spec.steps[0].graded: the margin is chosen",
            ),
            (json!([{"weight": 1, "confirm": true, "graded": true, "maxWait": "1h"}]), "spec.steps[0].graded: the last confirm step"),
        ] {
            let found = steps(wrong);
            assert!(found.iter().any(|p| p.starts_with(start)), "{start} in {found:#?}");
        }
    }

    #[test]
    fn all_problems_are_named_at_once() {
        let found = problems(json!({
            "service": "my-app",
            "version": {"desired": "not a label"},
            "traffic": {"settle": "soon"},
            "steps": [{"weight": 50}, {"weight": "10%"}, {"weight": 100}, {"weight": "1.23456%"}, {}, {"weight": 1, "pause": {}}, {"weight": 60, "maxWait": "1h"}],
            "analysis": {"confidence": "1%", "metrics": [
                {"name": "a", "errorRate": {"margin": "0.5"}}, {"name": "b", "errorRate": {}}, {"name": "c"}, {"name": "d", "latency": {"slowerThan": "1s"}},
                {"name": "e", "errorRate": {"margin": "1%", "ratio": "0.5"}}]},
        }));
        for path in [
            "spec.version.desired",
            "spec.traffic.settle",
            "spec.steps[1].weight",
            "spec.steps[2].weight",
            "spec.steps[3].weight",
            "spec.steps[4]",
            "spec.steps[5]",
            "spec.analysis.confidence",
            "spec.analysis.metrics[0].errorRate.margin",
            "spec.analysis.metrics[1].errorRate",
            "spec.analysis.metrics[2]",
            "spec.analysis.metrics[3].latency",
            "spec.analysis.metrics[4].errorRate.ratio",
        ] {
            assert!(found.iter().any(|p| p.starts_with(&format!("{path}: "))), "{path} in {found:#?}");
        }
    }
}
