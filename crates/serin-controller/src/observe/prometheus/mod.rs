//! Prometheus as a source: raw range vectors, exact increases, a cursor that is a time.
//!
//! Reading order: `matrix` (samples → increments), `client` (how it is asked), and here what is asked and what lacks.
//! Deliberately no PromQL function touches a counter: see `matrix`.

mod client;
pub mod matrix;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serin_core::observe::{Reading, SourceProblem};
use serin_core::route::ServiceName;
use serin_core::stats::{Batch, Counts};
use serin_core::units::Timestamp;

use self::client::Asker;
pub use self::client::{OptionsError, PrometheusOptions, REPLICA_LABELS};
use self::matrix::{
    Scrapes, Series, Target, deduplicated, history, missing_edge, missing_label, newest, of_one_replica, reading, sum_of,
    targets_of_new_series, usual_gap,
};
use super::source::{ArmQuery, CountersQuery, Cursor, MetricSource, Polled, beginning};
use crate::config::{Clock, now};

/// A series whose last sample is older than this is over; Prometheus' own rule.
const LOOKBACK: Duration = Duration::from_secs(300);
/// How much of stable's past is read before a rollout.
const PAST: Duration = Duration::from_secs(1800);
/// A gap longer than this is not made up for: the reading begins anew.
const LONGEST_GAP: Duration = Duration::from_secs(6 * 3600);

/// What is counted of requests, as a regular expression: how many, how many were timed, and the buckets of their durations.
const COUNTED: &str = "istio_requests_total|istio_request_duration_milliseconds_count|istio_request_duration_milliseconds_bucket";
/// How much of a record is asked for at once.
const RECORD_PIECE: Duration = Duration::from_secs(1800);
/// The least time that an answer may take, whatever the interval.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(1);

/// See the module.
pub struct Prometheus {
    asker: Asker,
    clock: Clock,
    delay: Duration,
    replica_labels: Vec<String>,
}

impl Prometheus {
    /// Asks the one that the options name.
    ///
    /// # Errors
    /// What of the options cannot be used.
    pub fn new(options: &PrometheusOptions, clock: Clock) -> Result<Self, OptionsError> {
        Ok(Self { asker: Asker::new(options)?, clock, delay: options.delay, replica_labels: options.replica_labels.clone() })
    }

    async fn read(&self, query: &ArmQuery, cursor: Option<Timestamp>) -> Result<(Reading, Timestamp), SourceProblem> {
        let to = now(&self.clock).minus(self.delay);
        let cursor = cursor.filter(|from| to.since(*from) < LONGEST_GAP && *from <= to);
        let from = cursor.unwrap_or(to);
        let window = if cursor.is_some() { to.since(from) + LOOKBACK } else { PAST };
        let (of_arms, of_nobody) = (arms_selector(query), lost_selector(query));
        let (arms, lost) = futures::try_join!(self.samples(&of_arms, window, to), self.samples(&of_nobody, window, to))?;
        let [arms, lost] = [arms, lost].map(|series| of_one_replica(series, &self.replica_labels, from, to));
        self.check(query, &arms, to).await?;
        let Some(from) = cursor else {
            if query.preparing {
                for answer in self.answers(query, to).await {
                    answer?;
                }
                self.check_counters(query, to).await?;
            }
            return Ok((Reading { history: history(&arms, query, to.minus(PAST), to), ..beginning(to, &query.edges) }, to));
        };
        let scrapes = self.scrapes(&[&arms, &lost], window, from, to).await?;
        let counters = futures::future::join_all(query.counters.iter().map(|c| self.counted(c, window, from, to)));
        let (answers, counted) = futures::join!(self.answers(query, to), counters);
        let answers = answers.into_iter().map(|answer| answer.ok().flatten()).collect();
        let counted = counted.into_iter().map(Result::ok).collect();
        Ok((Reading { answers, counted, ..reading(&arms, &lost, &scrapes, query, from, to) }, to))
    }

    /// The scrapes of those targets that have a new series, by which that one's first value is read; nothing is asked where none is new.
    async fn scrapes(&self, series: &[&[Series]], window: Duration, from: Timestamp, to: Timestamp) -> Result<Scrapes, SourceProblem> {
        let new: BTreeSet<Target> = series.iter().flat_map(|series| targets_of_new_series(series, from)).collect();
        if new.is_empty() {
            return Ok(Scrapes::default());
        }
        Ok(Scrapes::of(&self.samples(&up_selector(&new), window, to).await?))
    }

    /// What a pair of counters counted of both arms.
    async fn counted(&self, query: &CountersQuery, window: Duration, from: Timestamp, to: Timestamp) -> Result<Batch, SourceProblem> {
        let sum = async |selector: &str| {
            let series = of_one_replica(self.samples(selector, window, to).await?, &self.replica_labels, from, to);
            let scrapes = self.scrapes(&[&series], window, from, to).await?;
            Ok::<f64, SourceProblem>(sum_of(&series, &scrapes, from, to))
        };
        let of = async |(bad, total): &(String, String)| {
            let (x, n) = futures::try_join!(sum(bad), sum(total))?;
            Ok::<Counts, SourceProblem>(Counts { n, x: x.min(n) })
        };
        let (canary, stable) = futures::try_join!(of(&query.canary), of(&query.stable))?;
        Ok(Batch { canary, stable })
    }

    /// That stable has the counters of which all are counted: a name that nobody exports would be waited for without end.
    async fn check_counters(&self, query: &ArmQuery, at: Timestamp) -> Result<(), SourceProblem> {
        for counters in &query.counters {
            let total = &counters.stable.1;
            if self.samples(total, LOOKBACK, at).await?.is_empty() {
                let what = format!(
                    "metric {}: {} has no series {total}: check its name and labels, and that it is scraped",
                    counters.name, self.asker.shown
                );
                return Err(SourceProblem::Missing { what });
            }
        }
        Ok(())
    }

    /// What the plan's queries answer now; no value, or one that is no number, is none.
    async fn answers(&self, query: &ArmQuery, at: Timestamp) -> Vec<Result<Option<f64>, SourceProblem>> {
        let one = async |(name, promql): &(String, String)| {
            let missing = |what: String| SourceProblem::Missing { what: format!("metric {name}: {what}") };
            let values = self.asker.values(promql, seconds(at)).await.map_err(|what| missing(format!("{}: {what}", self.asker.shown)))?;
            match values.as_slice() {
                [] => Ok(None),
                [value] => Ok(value.value.1.parse::<f64>().ok().filter(|v| !v.is_nan())),
                many => Err(missing(format!(
                    "its query has {} answers, and a limit is for one number: put sum(…) or max(…) about it",
                    many.len()
                ))),
            }
        };
        futures::future::join_all(query.limits.iter().map(one)).await
    }

    /// Everything that callers counted of a service in the time that is over, as raw samples: a record to replay.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn record(&self, service: &ServiceName, past: Duration) -> Result<Vec<Series>, SourceProblem> {
        let end = now(&self.clock).minus(self.delay);
        let selector = service_selector(service);
        let mut all: BTreeMap<BTreeMap<String, String>, Series> = BTreeMap::new();
        let (mut left, mut at) = (past, end.minus(past));
        // Piece by piece, or a day of a busy mesh would be one answer.
        while !left.is_zero() {
            let piece = left.min(RECORD_PIECE).max(Duration::from_secs(1));
            left = left.saturating_sub(piece);
            at = at.plus(piece);
            for series in self.samples(&selector, piece, at).await? {
                let known = all.entry(series.metric.clone()).or_insert_with(|| Series { metric: series.metric, values: Vec::new() });
                let last = known.values.last().map_or(f64::NEG_INFINITY, |(at, _)| *at);
                known.values.extend(series.values.into_iter().filter(|(at, _)| *at > last));
            }
        }
        Ok(deduplicated(all.into_values().collect(), &self.replica_labels))
    }

    async fn samples(&self, selector: &str, window: Duration, at: Timestamp) -> Result<Vec<Series>, SourceProblem> {
        let query = format!("{selector}[{}s]", window.as_secs().max(1));
        self.asker.samples(&query, seconds(at)).await.map_err(|what| self.unreachable(&what))
    }

    fn unreachable(&self, what: &str) -> SourceProblem {
        SourceProblem::Unreachable { what: format!("{}: {what}", self.asker.shown) }
    }

    /// That what was read is what is asked for: fresh, and with the edges.
    async fn check(&self, query: &ArmQuery, arms: &[Series], at: Timestamp) -> Result<(), SourceProblem> {
        let gap = Duration::from_millis(usual_gap(arms).and_then(|g| u64::try_from(g).ok()).unwrap_or(0));
        let oldest = query.interval.max(gap) * 3;
        let fresh = newest(arms).is_some_and(|n| at.since(n) <= oldest);
        if !fresh {
            self.check_all(query, arms.is_empty(), at, oldest).await?;
        }
        if let Some(label) = missing_label(arms) {
            return Err(SourceProblem::Missing {
                what: format!(
                    "istio_requests_total of {} has no label {label}, so failures would pass unseen: check the mesh's telemetry settings, and what {} drops by relabelling",
                    query.service, self.asker.shown
                ),
            });
        }
        let Some(edge) = missing_edge(arms, query) else { return Ok(()) };
        let edges = self.asker.values(&edges_query(query), seconds(at)).await.map_err(|what| self.unreachable(&what))?;
        let mut edges: Vec<f64> = edges.iter().filter_map(|v| v.metric.get("le")?.parse().ok()).filter(|e: &f64| e.is_finite()).collect();
        edges.sort_by(f64::total_cmp);
        let edges: Vec<String> = edges.iter().map(ToString::to_string).collect();
        Err(SourceProblem::Missing {
            what: format!(
                "the histogram has no edge at {edge} ms, so nobody can tell which requests were slower: write one of its edges in slowerThan ({} ms)",
                edges.join(", ")
            ),
        })
    }

    /// Nothing new of the arms: because nobody calls them, or because nobody counts?
    async fn check_all(&self, query: &ArmQuery, no_series: bool, at: Timestamp, oldest: Duration) -> Result<(), SourceProblem> {
        let newest = self
            .asker
            .values(r#"max(timestamp(istio_requests_total{reporter="source"}))"#, seconds(at))
            .await
            .map_err(|what| self.unreachable(&what))?;
        let Some(newest) = newest.first().and_then(|v| v.value.1.parse::<f64>().ok()) else {
            return Err(SourceProblem::Missing {
                what: format!(
                    "{} has no istio_requests_total with reporter=\"source\": check that it scrapes the proxies (port 15020 or 15090 of the callers' pods)",
                    self.asker.shown
                ),
            });
        };
        let age = Duration::from_secs_f64((seconds(at) - newest).clamp(0.0, 1e9));
        if age > oldest {
            return Err(SourceProblem::Stale { age_s: age.as_secs() });
        }
        if !no_series {
            return Ok(());
        }
        // The service is called, and nobody is told to have answered: the labels are not Istio's.
        let unlabelled = self.asker.values(&service_query(query), seconds(at)).await.map_err(|what| self.unreachable(&what))?;
        let calls = unlabelled.first().and_then(|v| v.value.1.parse::<f64>().ok()).unwrap_or(0.0);
        if calls > 0.0 {
            return Err(SourceProblem::Missing {
                what: format!(
                    "istio_requests_total of {} has no series with destination_workload {} or {}: check whether the mesh's telemetry settings drop that label",
                    query.service, query.stable.workload.name, query.canary.workload.name
                ),
            });
        }
        Ok(())
    }
}

impl MetricSource for Prometheus {
    fn poll(&self, query: ArmQuery, cursor: Option<Cursor>) -> BoxFuture<'_, Polled> {
        async move {
            let from = cursor.and_then(|c| c.get::<Timestamp>()).map(|t| *t);
            // A release that is read every second shall not wait ten for the news that nobody answers.
            let patience = (query.interval * 2).max(SHORTEST_PATIENCE);
            let read = tokio::time::timeout(patience, self.read(&query, from)).await;
            let (reading, to) =
                read.unwrap_or_else(|_| Err(self.unreachable(&format!("no answer within {} s", patience.as_secs_f64()))))?;
            Ok((reading, Cursor::new(to)))
        }
        .boxed()
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.0 as f64 / 1000.0
}

/// Everything of both arms: requests, how many were timed, and the buckets of the edges.
fn arms_selector(query: &ArmQuery) -> String {
    if query.all_edges {
        return format!(r#"{{__name__=~"{COUNTED}",{}}}"#, arms_labels(query));
    }
    let mut edges = String::new();
    for edge in &query.edges {
        // Prometheus 3 writes whole numbers with a decimal.
        let whole = if edge.fract() == 0.0 { format!("|{edge}.0") } else { String::new() };
        edges.push_str(&quoted(&format!("|{edge}{whole}")));
    }
    format!(r#"{{__name__=~"{COUNTED}",le=~"{edges}",{}}}"#, arms_labels(query))
}

/// Requests to a service, whoever answered.
fn service_selector(service: &ServiceName) -> String {
    format!(r#"{{__name__=~"{COUNTED}",reporter="source",destination_service=~"{}(\\..*)?"}}"#, host(service))
}

fn arms_labels(query: &ArmQuery) -> String {
    let mut workloads = [&query.stable, &query.canary].map(|arm| regex(&arm.workload.name)).to_vec();
    workloads.dedup();
    format!(
        r#"reporter="source",destination_workload=~"{}",destination_workload_namespace="{}",destination_service=~"|{}(\\..*)?""#,
        workloads.join("|"),
        quoted(&query.stable.workload.namespace),
        host(&query.service),
    )
}

/// Requests to the service that reached nobody.
fn lost_selector(query: &ArmQuery) -> String {
    format!(
        r#"istio_requests_total{{reporter="source",response_flags=~".*(UH|NC).*",destination_service=~"{}(\\..*)?|{}"}}"#,
        host(&query.service),
        regex(&query.service.name)
    )
}

fn service_query(query: &ArmQuery) -> String {
    format!(
        r#"sum(istio_requests_total{{reporter="source",response_flags!~".*(UH|NC).*",destination_service=~"{}(\\..*)?"}})"#,
        host(&query.service)
    )
}

fn edges_query(query: &ArmQuery) -> String {
    format!(r#"group by (le) (istio_request_duration_milliseconds_bucket{{{}}})"#, arms_labels(query))
}

fn up_selector(targets: &BTreeSet<Target>) -> String {
    let mut instances: Vec<String> = targets.iter().map(|t| regex(&t.instance)).collect();
    instances.sort_unstable();
    instances.dedup();
    format!(r#"up{{instance=~"{}"}}"#, instances.join("|"))
}

/// The service's name and namespace, as a regular expression inside quotes.
fn host(service: &ServiceName) -> String {
    regex(&format!("{}.{}", service.name, service.namespace))
}

/// A literal as a regular expression inside a quoted string: no text from an object means anything to PromQL.
fn regex(literal: &str) -> String {
    let mut escaped = String::new();
    for c in literal.chars() {
        if !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | ':') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    quoted(&escaped)
}

/// As PromQL's quoted strings want it.
fn quoted(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::source::Arm;
    use serin_core::units::{ObjectName, VersionName};

    #[test]
    fn no_name_means_anything_to_promql() {
        let arm = |name: &str| Arm {
            version: VersionName::new("v1").expect("a version"),
            workload: ObjectName { namespace: "shop".into(), name: name.into() },
        };
        let query = ArmQuery {
            rollout: "r".into(),
            questions: String::new(),
            preparing: true,
            service: ServiceName::new("cart", "shop"),
            stable: arm("cart.v1"),
            canary: arm("x\"} or vector(1)\n"),
            edges: vec![500.0, 0.5],
            all_edges: false,
            limits: Vec::new(),
            counters: Vec::new(),
            interval: Duration::from_secs(10),
            source: crate::SourceChoice::Usual,
        };
        assert_eq!(
            arms_labels(&query),
            r#"reporter="source",destination_workload=~"cart\\.v1|x\\\"\\}\\ or\\ vector\\(1\\)\\\n",destination_workload_namespace="shop",destination_service=~"|cart\\.shop(\\..*)?""#
        );
        assert!(arms_selector(&query).contains(r#"le=~"|500|500.0|0.5""#), "{}", arms_selector(&query));
    }
}
