//! Raw samples → increments, exactly.
//!
//! PromQL's `rate` and `increase` extrapolate to the edges of their window, and see no increase in a series' first sample: with few
//! requests that is most of them. So the samples themselves are read, and what is added up are differences of whole numbers.
//! Deliberately no I/O and no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;
use serin_core::observe::{ArmCounts, Reading};
use serin_core::units::{ObjectName, Timestamp};

use crate::observe::increments::{DURATION_BUCKET, DURATION_COUNT, REQUESTS, failed};
use crate::observe::source::{Arm, ArmQuery, common_edges, edges_read};

/// One series with its samples, as the HTTP API answers.
#[derive(Clone, Debug, Deserialize)]
pub struct Series {
    /// Its labels, the metric's name as `__name__` among them.
    pub metric: BTreeMap<String, String>,
    /// Times in seconds, and values as text.
    #[serde(default)]
    pub values: Vec<(f64, String)>,
}

impl Series {
    fn label(&self, name: &str) -> &str {
        self.metric.get(name).map_or("", String::as_str)
    }

    /// Samples as numbers, in the order of time; what is no finite number is none.
    fn samples(&self) -> Vec<(Timestamp, f64)> {
        let number = |(at, value): &(f64, String)| {
            let value: f64 = value.parse().ok()?;
            value.is_finite().then_some((Timestamp((at * 1000.0).round() as i64), value))
        };
        let mut samples: Vec<(Timestamp, f64)> = self.values.iter().filter_map(number).collect();
        samples.sort_by_key(|(at, _)| *at);
        samples
    }

    /// What tells the scraped target of this series from others.
    pub fn target(&self) -> Target {
        let of = |name: &str| self.metric.get(name).cloned().unwrap_or_default();
        Target { job: of("job"), instance: of("instance") }
    }
}

/// A scraped target.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The scrape configuration's name.
    pub job: String,
    /// Address and port.
    pub instance: String,
}

/// When each target was scraped: the times of its `up` that say 1.
#[derive(Clone, Debug, Default)]
pub struct Scrapes(BTreeMap<Target, Vec<Timestamp>>);

impl Scrapes {
    /// From the series of `up`.
    pub fn of(up: &[Series]) -> Self {
        let mut scrapes: BTreeMap<Target, Vec<Timestamp>> = BTreeMap::new();
        for series in up {
            let times = scrapes.entry(series.target()).or_default();
            times.extend(series.samples().into_iter().filter(|(_, up)| *up > 0.0).map(|(at, _)| at));
        }
        Self(scrapes)
    }

    /// Whether a series of this target that first shows after `from` began at 0 since then: the target was scraped before
    /// without it, or is itself new. A target of which nothing is known may have counted for days.
    fn counts_from_zero(&self, target: &Target, from: Timestamp) -> bool {
        self.0
            .get(target)
            .is_some_and(|times| !times.is_empty() && (times.iter().any(|at| *at <= from) || times.iter().all(|at| *at > from)))
    }
}

/// Series of one replica of a Prometheus where several scrape the same: which one follows from the moment alone, so that each poll counts on where
/// the one before it ended. Replicas scrape at different moments: whoever took now this one, now that, would count twice what lies between. That is
/// the first, by its labels, that was scraped lately; where it is another than at `from`, counting goes on with its first sample after that, as dropping
/// is valid and counting twice is not.
pub fn of_one_replica(all: Vec<Series>, replica_labels: &[String], from: Timestamp, to: Timestamp) -> Vec<Series> {
    let lately = usual_gap(&all).unwrap_or(0).max(1000) * 3;
    let mut same: BTreeMap<BTreeMap<String, String>, BTreeMap<Vec<String>, Series>> = BTreeMap::new();
    for mut series in all {
        let replica = replica_labels.iter().map(|name| series.metric.remove(name).unwrap_or_default()).collect();
        same.entry(series.metric.clone()).or_default().insert(replica, series);
    }
    let one = |mut replicas: BTreeMap<Vec<String>, Series>| {
        let scraped = |s: &Series, at: Timestamp| s.samples().iter().any(|(t, _)| *t <= at && at.0 - t.0 <= lately);
        let at = |moment| replicas.iter().find(|(_, s)| scraped(s, moment)).map(|(replica, _)| replica.clone());
        let (before, now) = (at(from), at(to));
        let chosen = now.or_else(|| before.clone()).or_else(|| replicas.keys().next().cloned())?;
        let mut series = replicas.remove(&chosen)?;
        if before.is_some_and(|before| before != chosen) {
            series.values.retain(|(at, _)| *at * 1000.0 > from.0 as f64);
            let first = series.values.iter().min_by(|a, b| a.0.total_cmp(&b.0)).cloned();
            series.values.extend(first.map(|(_, value)| (from.0 as f64 / 1000.0, value)));
        }
        Some(series)
    };
    same.into_values().filter_map(one).collect()
}

/// A record's series without what tells replicas of one Prometheus apart: of several that mean the same, the one that knows most. Only of the whole
/// record: see `of_one_replica`.
pub fn deduplicated(all: Vec<Series>, replica_labels: &[String]) -> Vec<Series> {
    let mut chosen: BTreeMap<BTreeMap<String, String>, Series> = BTreeMap::new();
    for mut series in all {
        series.metric.retain(|name, _| !replica_labels.contains(name));
        let newest = |s: &Series| s.values.iter().map(|(at, _)| *at).fold(f64::NEG_INFINITY, f64::max);
        match chosen.get(&series.metric) {
            Some(other)
                if other.values.len() > series.values.len()
                    || (other.values.len() == series.values.len() && newest(other) >= newest(&series)) => {}
            Some(_) | None => {
                chosen.insert(series.metric.clone(), series);
            }
        }
    }
    chosen.into_values().collect()
}

/// Increments of one series between two times, sample by sample: `add(time of the sample, increment)`.
fn increments(series: &Series, from: Timestamp, to: Timestamp, counts_from_zero: bool, mut add: impl FnMut(Timestamp, f64)) {
    let mut last: Option<f64> = None;
    for (at, value) in series.samples() {
        if at > to {
            break;
        }
        if at > from {
            let increase = match last {
                Some(last) if value >= last => value - last,
                // It began anew.
                Some(_) => value,
                None if counts_from_zero => value,
                None => 0.0,
            };
            if increase > 0.0 {
                add(at, increase);
            }
        }
        last = Some(value);
    }
}

/// Targets of the series that have no sample up to `from`: whether they began at 0 must be asked.
pub fn targets_of_new_series(all: &[Series], from: Timestamp) -> BTreeSet<Target> {
    let is_new = |s: &&Series| s.samples().first().is_some_and(|(at, _)| *at > from);
    all.iter().filter(is_new).map(Series::target).collect()
}

/// The newest sample of all.
pub fn newest(all: &[Series]) -> Option<Timestamp> {
    all.iter().filter_map(|s| s.samples().last().map(|(at, _)| *at)).max()
}

/// How far apart samples usually are, in milliseconds: what a reading must at least wait for.
pub fn usual_gap(all: &[Series]) -> Option<i64> {
    let mut gaps: Vec<i64> = all.iter().flat_map(|s| s.samples().windows(2).map(|w| w[1].0.0 - w[0].0.0).collect::<Vec<_>>()).collect();
    gaps.sort_unstable();
    gaps.get(gaps.len() / 2).copied()
}

fn is_of(series: &Series, arm: &Arm) -> bool {
    series.label("destination_workload") == arm.workload.name && series.label("destination_workload_namespace") == arm.workload.namespace
}

/// Sums of one arm.
#[derive(Clone, Debug)]
struct Sum {
    n: f64,
    errors: f64,
    timed: f64,
    within: Vec<f64>,
}

impl Sum {
    fn new(edges: &[f64]) -> Self {
        Self { n: 0.0, errors: 0.0, timed: 0.0, within: vec![0.0; edges.len()] }
    }

    fn add(&mut self, series: &Series, edges: &[f64], increase: f64) {
        match series.label("__name__") {
            REQUESTS => {
                self.n += increase;
                self.errors += if failed(|name| series.label(name)) { increase } else { 0.0 };
            }
            DURATION_COUNT => self.timed += increase,
            DURATION_BUCKET => {
                let le: f64 = series.label("le").parse().unwrap_or(f64::NAN);
                for (edge, within) in edges.iter().zip(&mut self.within) {
                    *within += if le == *edge { increase } else { 0.0 };
                }
            }
            _ => {}
        }
    }

    fn counts(&self, edges: &[f64]) -> ArmCounts {
        let slower = edges.iter().zip(&self.within).map(|(edge, within)| (*edge, (self.timed - within).clamp(0.0, self.timed)));
        ArmCounts { n: self.n, errors: self.errors.min(self.n), timed: self.timed, slower: slower.collect() }
    }
}

/// The edges that are read of these series.
fn edges_of(arms: &[Series], query: &ArmQuery) -> Vec<f64> {
    let buckets = || {
        let of_arms = |s: &&Series| s.label("__name__") == DURATION_BUCKET && (is_of(s, &query.stable) || is_of(s, &query.canary));
        let histogram =
            |s: &Series| s.metric.iter().filter(|(name, _)| *name != "le").map(|(name, value)| format!("{name}={value},")).collect();
        common_edges(arms.iter().filter(of_arms).filter_map(|s| Some((histogram(s), s.label("le").parse().ok()?))))
    };
    edges_read(query, buckets)
}

/// What was counted between two times.
pub fn reading(arms: &[Series], lost: &[Series], scrapes: &Scrapes, query: &ArmQuery, from: Timestamp, to: Timestamp) -> Reading {
    let edges = edges_of(arms, query);
    let mut sums = [Sum::new(&edges), Sum::new(&edges)];
    for series in arms {
        let sum = match () {
            () if is_of(series, &query.stable) => &mut sums[0],
            () if is_of(series, &query.canary) => &mut sums[1],
            () => continue,
        };
        let from_zero = scrapes.counts_from_zero(&series.target(), from);
        increments(series, from, to, from_zero, |_, increase| sum.add(series, &edges, increase));
    }
    let (mut no_healthy_upstream, mut no_cluster) = (0.0, 0.0);
    // A short host means this service only from callers of its namespace.
    let ours = |s: &&Series| {
        s.label("destination_service") != query.service.name || s.label("source_workload_namespace") == query.service.namespace
    };
    for series in lost.iter().filter(|s| !is_of(s, &query.stable) && !is_of(s, &query.canary)).filter(ours) {
        let has = |flag: &str| series.label("response_flags").split(',').any(|f| f == flag);
        let from_zero = scrapes.counts_from_zero(&series.target(), from);
        increments(series, from, to, from_zero, |_, increase| {
            no_healthy_upstream += if has("UH") { increase } else { 0.0 };
            no_cluster += if has("NC") { increase } else { 0.0 };
        });
    }
    let [stable, canary] = sums.map(|s| s.counts(&edges));
    Reading { from, to, stable, canary, history: Vec::new(), no_healthy_upstream, no_cluster, answers: Vec::new(), counted: Vec::new() }
}

/// What series counted together between two times.
pub fn sum_of(all: &[Series], scrapes: &Scrapes, from: Timestamp, to: Timestamp) -> f64 {
    let mut sum = 0.0;
    for series in all {
        increments(series, from, to, scrapes.counts_from_zero(&series.target(), from), |_, increase| sum += increase);
    }
    sum
}

/// Stable's increments before `to`, interval by interval, oldest first: the first guess of a rollout that begins.
pub fn history(arms: &[Series], query: &ArmQuery, from: Timestamp, to: Timestamp) -> Vec<ArmCounts> {
    let step = i64::try_from(query.interval.as_millis()).unwrap_or(i64::MAX).max(1);
    let count = usize::try_from((to.0 - from.0) / step).unwrap_or(0);
    let edges = edges_of(arms, query);
    let mut sums = vec![Sum::new(&edges); count];
    // Before the first sample nothing is known: those intervals are none, not empty ones.
    let first = arms.iter().filter(|s| is_of(s, &query.stable)).filter_map(|s| s.samples().first().map(|(at, _)| *at)).min();
    let Some(first) = first else { return Vec::new() };
    let begin = to.0 - i64::try_from(count).unwrap_or(0) * step;
    for series in arms.iter().filter(|s| is_of(s, &query.stable)) {
        increments(series, Timestamp(begin), to, false, |at, increase| {
            let index = usize::try_from((at.0 - begin - 1) / step).unwrap_or(0);
            if let Some(sum) = sums.get_mut(index) {
                sum.add(series, &edges, increase);
            }
        });
    }
    let known = usize::try_from((first.0 - begin).max(0) / step).unwrap_or(0);
    sums.iter().skip(known).map(|s| s.counts(&edges)).collect()
}

/// An edge that is asked for and that the histogram of an arm with requests lacks.
pub fn missing_edge(arms: &[Series], query: &ArmQuery) -> Option<f64> {
    let timed = arms.iter().any(|s| s.label("__name__") == DURATION_COUNT);
    let has = |edge: &f64| {
        arms.iter().any(|s| s.label("__name__") == DURATION_BUCKET && s.label("le").parse::<f64>().is_ok_and(|le| le == *edge))
    };
    query.edges.iter().copied().find(|edge| timed && !has(edge))
}

/// A label without which failures cannot be told from answers, and which no series of the arms has.
pub fn missing_label(arms: &[Series]) -> Option<&'static str> {
    let requests: Vec<&Series> = arms.iter().filter(|s| s.label("__name__") == REQUESTS).collect();
    let lacks = |label: &&str| !requests.is_empty() && requests.iter().all(|s| s.label(label).is_empty());
    ["response_code", "request_protocol", "response_flags"].into_iter().find(lacks)
}

/// All requests of a record, those that failed, and how many seconds lie between its first sample and its last.
pub fn totals(all: &[Series]) -> (f64, f64, f64) {
    let requests = || all.iter().filter(|s| s.label("__name__") == REQUESTS);
    let times: Vec<Timestamp> = requests().flat_map(|s| s.samples()).map(|(at, _)| at).collect();
    let (Some(from), Some(to)) = (times.iter().min(), times.iter().max()) else { return (0.0, 0.0, 0.0) };
    let (mut n, mut errors) = (0.0, 0.0);
    for series in requests() {
        let bad = failed(|name| series.label(name));
        increments(series, Timestamp(from.0 - 1), *to, false, |_, increase| {
            n += increase;
            errors += if bad { increase } else { 0.0 };
        });
    }
    (n, errors, to.since(*from).as_secs_f64())
}

/// The workloads that answered requests in a record, with how many requests each, the busiest first.
pub fn workloads(all: &[Series]) -> Vec<(ObjectName, f64)> {
    let mut found: BTreeMap<ObjectName, f64> = BTreeMap::new();
    let ends = |s: &Series| s.samples().first().zip(s.samples().last()).map(|((from, _), (to, _))| (*from, *to));
    for series in all.iter().filter(|s| s.label("__name__") == REQUESTS && !s.label("destination_workload").is_empty()) {
        let name = ObjectName {
            namespace: series.label("destination_workload_namespace").into(),
            name: series.label("destination_workload").into(),
        };
        let sum = found.entry(name).or_default();
        if let Some((from, to)) = ends(series) {
            increments(series, Timestamp(from.0 - 1), to, false, |_, increase| *sum += increase);
        }
    }
    let mut found: Vec<(ObjectName, f64)> = found.into_iter().filter(|(name, _)| name.name != "unknown").collect();
    found.sort_by(|a, b| b.1.total_cmp(&a.1));
    found
}

/// A record cut into spans of `step` from its first sample to its last: what stable and canary were asked in each.
///
/// A series that begins within the record counts from 0 where another series of its target is older: the target was scraped without it.
pub fn spans(all: &[Series], query: &ArmQuery, step: Duration) -> Vec<(ArmCounts, ArmCounts)> {
    let firsts = all.iter().filter_map(|s| s.samples().first().map(|(at, _)| (s.target(), *at)));
    let mut since: BTreeMap<Target, Timestamp> = BTreeMap::new();
    for (target, at) in firsts {
        let first = since.entry(target).or_insert(at);
        *first = (*first).min(at);
    }
    let (Some(begin), Some(end)) = (since.values().min().copied(), newest(all)) else { return Vec::new() };
    let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
    let count = usize::try_from((end.0 - begin.0).max(0) / step).unwrap_or(0);
    let edges = edges_of(all, query);
    let empty = || Sum::new(&edges);
    let mut sums: Vec<[Sum; 2]> = (0..count).map(|_| [empty(), empty()]).collect();
    for series in all {
        let arm = match () {
            () if is_of(series, &query.stable) => 0,
            () if is_of(series, &query.canary) => 1,
            () => continue,
        };
        let from_zero = series.samples().first().zip(since.get(&series.target())).is_some_and(|((at, _), first)| at > first);
        increments(series, Timestamp(begin.0 - 1), end, from_zero, |at, increase| {
            let index = usize::try_from((at.0 - begin.0 - 1).max(0) / step).unwrap_or(0);
            if let Some(sum) = sums.get_mut(index) {
                sum[arm].add(series, &edges, increase);
            }
        });
    }
    sums.iter().map(|[stable, canary]| (stable.counts(&edges), canary.counts(&edges))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A counter that grows by a request each 100 ms, as a replica saw it that scrapes every `gap` seconds, `late` after the full one, until `dies`.
    fn scraped(replica: &str, gap: f64, late: f64, until: f64, dies: f64) -> Series {
        let times = (0..).map(|i| late + gap * f64::from(i)).take_while(|t| *t <= until && *t < dies);
        Series {
            metric: [("__name__", "n"), ("job", "a"), ("instance", "b"), ("replica", replica)]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            values: times.map(|t| (t, format!("{}", (t * 10.0).floor()))).collect(),
        }
    }

    /// Poll by poll over ten minutes: never more than there was, and no less than what one scrape of one replica hides.
    #[test]
    fn replicas_that_scrape_at_other_moments_are_counted_once_whichever_lives() {
        for (gap, late, poll) in
            [(15.0, 7.0, 10.0), (15.0, 8.0, 10.0), (30.0, 13.0, 10.0), (60.0, 35.0, 10.0), (10.0, 4.0, 10.0), (5.0, 2.5, 7.0)]
        {
            for dies in [f64::INFINITY, 300.0] {
                for first in ["a", "c"] {
                    let (mut sum, mut at, mut first_at) = (0.0, 100.0, None);
                    while at + poll <= 600.0 {
                        let (from, to) = (at, at + poll);
                        let window = |s: Series| Series { values: s.values.into_iter().filter(|(t, _)| *t > to - 310.0).collect(), ..s };
                        let all = vec![window(scraped(first, gap, 0.0, to, dies)), window(scraped("b", gap, late, to, f64::INFINITY))];
                        let stamp = |t: f64| Timestamp((t * 1000.0) as i64);
                        let one = of_one_replica(all, &["replica".to_owned()], stamp(from), stamp(to));
                        assert_eq!(one.len(), 1);
                        first_at.get_or_insert(from);
                        sum += sum_of(&one, &Scrapes::default(), stamp(from), stamp(to));
                        at = to;
                    }
                    let grown = (at - first_at.expect("a poll")) * 10.0;
                    // What was scraped before the first poll and not counted yet comes with it: at most one gap more.
                    assert!(sum <= grown + gap * 10.0, "gap {gap} late {late} poll {poll} dies {dies} {first}: {sum} of {grown}");
                    let hidden = if dies.is_finite() { 5.0 } else { 1.0 } * gap * 10.0;
                    assert!(sum >= grown - hidden, "gap {gap} late {late} poll {poll} dies {dies} {first}: {sum} of {grown}");
                }
            }
        }
    }
}
