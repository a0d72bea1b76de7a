//! `serin replay`: recorded requests through today's plan: when it would have decided what.
//!
//! Reads range queries as Prometheus answers them from files, so that the same one can be replayed tomorrow; or asks one for a past window.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use serin_controller::observe::prometheus::REPLICA_LABELS;
use serin_controller::observe::prometheus::matrix::{Series, deduplicated, missing_edge, spans, usual_gap, workloads};
use serin_controller::{Arm, ArmQuery, SourceChoice};
use serin_core::observe::ArmCounts;
use serin_core::reason::count;
use serin_core::route::ServiceName;
use serin_core::simulate::{End, Recorded, replay, replay_against_itself};
use serin_core::units::{ObjectName, VersionName, duration_text};

use super::{Format, print};
use crate::exit::{Exit, Failure, Outcome};
use crate::out;
use crate::sources::PrometheusArgs;

/// Recorded requests through a plan: when it would have decided what
#[derive(Args, Debug)]
#[command(
    after_help = "A record is the answer of a range query for raw counters, saved as JSON:\n\n  curl -G http://PROMETHEUS:9090/api/v1/query_range -d start=… -d end=… -d step=10 --data-urlencode \\\n    'query={__name__=~\"istio_requests_total|istio_request_duration_milliseconds_(bucket|count)\",reporter=\"source\",destination_service_name=\"my-app\"}'\n\n\
        The record had its own weights: each span is thinned, by chance, to the share that the plan asks for. Requests are left out and never invented.\n\
        With --aa the canary's requests are drawn out of stable's own: every rollback then is a false alarm.\n\n\
        Exit codes: 0 replayed; 1 with --aa, more false alarms than the plan's confidence allows; 2 wrong usage, or a record that cannot be read.\n\n\
        Examples:\n  serin replay record.json --release release.yaml\n  serin replay record.json --stable my-app-v1 --canary my-app-v2\n  serin replay --aa record.json --stable my-app-v1 --runs 1000\n  serin replay --aa --prometheus-url http://localhost:9090 --service shop/my-app --past 24h"
)]
pub(crate) struct ReplayArgs {
    /// Answers of Prometheus, several for one record too
    #[arg(required_unless_present = "prometheus_url", value_name = "FILE")]
    records: Vec<PathBuf>,
    #[command(flatten)]
    prometheus: PrometheusArgs,
    /// With a Prometheus: the Service, as NAME or NAMESPACE/NAME
    #[arg(long, value_name = "SERVICE", requires = "prometheus_url")]
    service: Option<String>,
    /// With a Prometheus: so much of the past, until now
    #[arg(long, value_name = "TIME", default_value = "6h", value_parser = super::duration)]
    past: Duration,
    /// A CanaryRelease, whose plan is used [default: the default plan]
    #[arg(long, value_name = "FILE")]
    release: Option<PathBuf>,
    /// The workload that was stable, as NAME or NAMESPACE/NAME [default: the busiest of the record]
    #[arg(long, value_name = "WORKLOAD")]
    stable: Option<String>,
    /// The workload that was the canary [default: the other one of the record]
    #[arg(long, value_name = "WORKLOAD", conflicts_with = "aa")]
    canary: Option<String>,
    /// Stable against itself: the false alarms that this service's own past would have caused
    #[arg(long)]
    aa: bool,
    /// With --aa: how often
    #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    runs: u64,
    /// The record's first part that is stable's history, and no rollout yet
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = super::duration)]
    history: Duration,
    /// Chance begins here
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// How to print
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// Replays.
pub(crate) async fn run(args: &ReplayArgs) -> Outcome {
    let recorded = live(args).await?;
    tokio::task::block_in_place(|| play(args, recorded))
}

/// What a Prometheus recorded, where one is asked.
async fn live(args: &ReplayArgs) -> Result<Vec<Series>, Failure> {
    let Some(described) = args.prometheus.described() else { return Ok(Vec::new()) };
    let hint = "serin replay --aa --prometheus-url http://localhost:9090 --service shop/my-app --past 24h";
    if args.past.is_zero() {
        return Err(Failure::new("--past 0s: nothing was recorded in no time").hint(hint));
    }
    let service = args.service.as_deref().ok_or_else(|| Failure::new("of which Service? --service NAMESPACE/NAME says it").hint(hint))?;
    let (namespace, name) = service.split_once('/').unwrap_or(("default", service));
    let series = described.record(&ServiceName::new(name, namespace), args.past).await?;
    if series.is_empty() {
        let past = duration_text(args.past);
        return Err(Failure::new(format!("nobody called Service {namespace}/{name} in the last {past}, as far as that Prometheus knows"))
            .hint(hint));
    }
    Ok(series)
}

fn play(args: &ReplayArgs, mut series: Vec<Series>) -> Outcome {
    let plan = super::simulate::plan(args.release.as_deref())?;
    for file in &args.records {
        series.extend(read(file)?);
    }
    // Who asked a Prometheus of several replicas has each series twice.
    let series = deduplicated(series, &REPLICA_LABELS.map(str::to_owned));
    let (stable, canary) = arms(args, &series)?;
    let step = usual_gap(&series).and_then(|ms| u64::try_from(ms).ok()).map_or(plan.spec().interval, Duration::from_millis);
    let arm = |workload: &ObjectName| -> Result<Arm, Failure> {
        let version = VersionName::new(&workload.name).map_err(|e| Failure::new(format!("workload {workload}: {e}")))?;
        Ok(Arm { version, workload: workload.clone() })
    };
    let (named, all_edges) = plan.edges();
    let query = ArmQuery {
        rollout: "replay".into(),
        questions: plan.questions().to_owned(),
        preparing: false,
        service: ServiceName::new("replay", &stable.namespace),
        stable: arm(&stable)?,
        canary: arm(&canary)?,
        edges: named,
        all_edges,
        limits: Vec::new(),
        counters: Vec::new(),
        interval: step,
        source: SourceChoice::default(),
    };
    if let Some(edge) = missing_edge(&series, &query) {
        return Err(Failure::new(format!(
            "the record has no bucket of {edge} ms, which a metric of the plan asks for: record istio_request_duration_milliseconds_bucket, or choose an edge that the histogram has"
        )));
    }
    let mut all = spans(&series, &query, step);
    let past = usize::try_from(args.history.as_millis() / step.as_millis().max(1)).unwrap_or(usize::MAX).min(all.len());
    let history: Vec<ArmCounts> = all.drain(..past).map(|(stable, _)| stable).collect();
    let polls: Vec<Recorded> = all.into_iter().map(|(stable, canary)| Recorded { seconds: step.as_secs_f64(), stable, canary }).collect();
    if polls.is_empty() {
        return Err(Failure::new(
            "the record is empty, or all of it is history: two samples of a series are the least that can be replayed",
        ));
    }
    let length = duration_text(step * u32::try_from(polls.len()).unwrap_or(u32::MAX));
    let total = |of: fn(&Recorded) -> f64| polls.iter().map(of).sum::<f64>();
    let asked = [total(|p| p.stable.n), total(|p| p.canary.n)];
    if args.aa {
        let outcome = replay_against_itself(&plan, &polls, &history, args.runs, args.seed);
        match args.output {
            Some(format) => print(
                format,
                &json!({"stable": stable.to_string(), "requests": asked[0], "falseAlarms": outcome.rolled_back, "outcome": outcome}),
            )?,
            None => out::answer(&format!(
                "{stable} against itself over {length}, {} requests: every rollback is a false alarm\n{outcome}\n",
                count(asked[0])
            ))?,
        }
        let allowed = 1.0 - plan.spec().confidence;
        return Ok(if outcome.rolled_back.share > allowed + 3.0 * outcome.rolled_back.error { Exit::No } else { Exit::Done });
    }
    let replayed = replay(&plan, &polls, &history, args.seed);
    match args.output {
        Some(format) => {
            let told: Vec<Value> =
                replayed.told().map(|t| json!({"seconds": t.at_s, "reason": t.reason.code(), "message": t.reason.to_string()})).collect();
            let (end, why) = match &replayed.run.end {
                End::Promoted => ("Promoted", None),
                End::RolledBack { why, .. } => ("RolledBack", Some(why)),
                End::Undecided { why } => ("Undecided", Some(why)),
            };
            print(
                format,
                &json!({"stable": stable.to_string(), "canary": canary.to_string(), "requests": {"stable": asked[0], "canary": asked[1]}, "told": told, "end": end, "why": why, "seconds": replayed.run.took_s, "used": replayed.used}),
            )?;
        }
        None => out::answer(&format!(
            "{stable} and {canary} over {length}: {} and {} requests\n{replayed}\n",
            count(asked[0]),
            count(asked[1])
        ))?,
    }
    Ok(Exit::Done)
}

/// Series of one answer of Prometheus.
fn read(file: &Path) -> Result<Vec<Series>, Failure> {
    #[derive(Deserialize)]
    struct Data {
        #[serde(rename = "resultType")]
        kind: String,
        result: Vec<Value>,
    }
    let name = file.display();
    let text = fs::read_to_string(file).map_err(|e| Failure::new(format!("cannot read {name}: {e}")))?;
    let not = |what: String| {
        Failure::new(format!("{name} is no answer of a Prometheus to a range query: {what}")).hint("serin replay --help    shows the query")
    };
    let answer: Value = serde_json::from_str(&text).map_err(|e| not(e.to_string()))?;
    if answer["status"] == "error" {
        return Err(not(format!("it says {}", answer["error"].as_str().unwrap_or("error"))));
    }
    let data = answer.get("data").unwrap_or(&answer);
    let data = Data::deserialize(data).map_err(|e| not(e.to_string()))?;
    if data.kind != "matrix" {
        return Err(not(format!("it holds a {}: ask query_range, or a range as [1h], for a matrix", data.kind)));
    }
    let series: Result<Vec<Series>, _> = data.result.iter().map(Series::deserialize).collect();
    let mut series = series.map_err(|e| not(e.to_string()))?;
    if let Some(nameless) = series.iter().find(|s| !s.metric.contains_key("__name__")) {
        return Err(not(format!(
            "series {:?} has no name, as results of rate() or sum() have none: record the counters themselves",
            nameless.metric
        )));
    }
    // What both sides reported is counted once: as the callers saw it.
    series.retain(|s| s.metric.get("reporter").is_none_or(|r| r == "source"));
    Ok(series)
}

/// The two workloads: as told, or as the record leaves no doubt.
fn arms(args: &ReplayArgs, series: &[Series]) -> Result<(ObjectName, ObjectName), Failure> {
    let found = workloads(series);
    let seen = || {
        let list: Vec<String> = found.iter().map(|(name, n)| format!("  {name}    {} requests", count(*n))).collect();
        if list.is_empty() {
            "  none: is it istio_requests_total that was recorded, by reporter=\"source\"?".to_string()
        } else {
            list.join("\n")
        }
    };
    let named = |text: &str| {
        let fits = |name: &ObjectName| name.to_string() == *text || name.name == *text;
        let fitting: Vec<&ObjectName> = found.iter().map(|(name, _)| name).filter(|name| fits(name)).collect();
        match fitting.as_slice() {
            [one] => Ok((*one).clone()),
            [] => Err(Failure::new(format!("no request to workload {text} is in the record; there is\n{}", seen()))),
            _ => Err(Failure::new(format!("several namespaces have a workload {text}: write NAMESPACE/NAME of\n{}", seen()))),
        }
    };
    let stable = match (&args.stable, found.as_slice()) {
        (Some(text), _) => named(text)?,
        (None, [(only, _)]) => only.clone(),
        (None, [(busiest, _), _]) => busiest.clone(),
        (None, _) => {
            return Err(Failure::new(format!("which workload is stable? The record has\n{}", seen()))
                .hint("serin replay FILE --stable WORKLOAD --canary WORKLOAD"));
        }
    };
    if args.aa {
        // Nobody's requests: the canary's are drawn out of stable's.
        return Ok((stable.clone(), ObjectName { namespace: stable.namespace, name: format!("{}-again", stable.name) }));
    }
    let others: Vec<&ObjectName> = found.iter().map(|(name, _)| name).filter(|name| **name != stable).collect();
    let canary = match (&args.canary, others.as_slice()) {
        (Some(text), _) => named(text)?,
        (None, [one]) => (*one).clone(),
        (None, _) => {
            return Err(Failure::new(format!("which workload is the canary? The record has\n{}", seen()))
                .hint("serin replay FILE --stable WORKLOAD --canary WORKLOAD")
                .hint("serin replay --aa FILE --stable WORKLOAD    stable against itself"));
        }
    };
    if canary == stable {
        return Err(Failure::new(format!("stable and canary are both {stable}: --aa replays a version against itself")));
    }
    Ok((stable, canary))
}
