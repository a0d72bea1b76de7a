//! `serin simulate`: what a plan would do in a world, over the same `decide` as the controller.
//!
//! Reads the plan and the world, spreads the rollouts over the cores, prints what came of them. Deliberately computes nothing of its own: chances, times
//! and plots are the core's.

mod studies;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};
use serin_api::CanaryReleaseSpec;
use serin_api::policy::{CanaryPolicySpec, Merged};
use serin_core::plan::Plan;
use serin_core::reason::count;
use serin_core::simulate::{Begin, Fault, Outage, Outcome, World, plot, run_once, simulate_part};
use serin_core::units::duration_text;

use super::{Format, print};
use crate::exit::{Exit, Failure, Outcome as Ended};
use crate::out;

/// What a plan would do with a canary, many times over, in a world of chance
#[derive(Args, Debug)]
#[command(
    after_help = "Without a file the default plan is simulated. A world is given by flags, by a file, or by both, the flags coming last; its file has the fields\n\
        requestsPerS (one number per hour), errorRate, swing, swingS, bursts, latency {medianMs, sigma}, outages [{fromS, seconds, errors}],\n\
        faults [{from: {seconds: 600} or {step: 3}, errors, slower, addedMs}], pods, history.\n\
        Shares may be written as \"0.5%\" and times as \"10m\". The same seed gives the same rollouts.\n\n\
        Exit codes: 0 simulated; 2 wrong usage, or a plan or world that cannot be read.\n\n\
        Examples:\n  serin simulate --rate 50 --error-rate 0.1%                        a healthy canary of the default plan\n  \
        serin simulate release.yaml --rate 20 --fault errors=5%           every twentieth of its answers an error\n  \
        serin simulate release.yaml --fault from=step3,added=300ms        slower from the third step on\n  \
        serin simulate --world shop.yaml --runs 20000 --plot shop.svg     the evidence of a dozen of them, drawn\n  \
        serin simulate --study promises                                   how often the default plan errs, world by world"
)]
pub(crate) struct SimulateArgs {
    /// A CanaryRelease; - reads standard input
    #[arg(value_name = "FILE")]
    release: Option<PathBuf>,
    /// The world, as YAML or JSON
    #[arg(long, value_name = "FILE")]
    world: Option<PathBuf>,
    /// Requests a second to both versions; several numbers are hours, and begin anew after the last
    #[arg(long, value_name = "NUMBER,…", value_delimiter = ',', allow_negative_numbers = true)]
    rate: Vec<f64>,
    /// Stable's share of failed requests
    #[arg(long, value_name = "PERCENT", value_parser = serin_api::values::percent)]
    error_rate: Option<f64>,
    /// Inner correlation of failures, from 0: each by itself
    #[arg(long, value_name = "NUMBER")]
    bursts: Option<f64>,
    /// What is wrong with the canary: errors=PERCENT, slower=FACTOR, added=TIME, from=TIME or from=stepN; may be given several times
    #[arg(long, value_name = "FAULT", value_parser = fault)]
    fault: Vec<Fault>,
    /// What hits both versions: from=TIME,for=TIME,errors=PERCENT; may be given several times
    #[arg(long, value_name = "OUTAGE", value_parser = outage)]
    outage: Vec<Outage>,
    /// How many rollouts
    #[arg(long, value_name = "COUNT", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    runs: u64,
    /// Chance begins here
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// A rollout that takes longer ends undecided
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = super::duration)]
    longest: Duration,
    /// Draw the evidence of the first rollouts into this file, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Simulate what docs/statistics.md reports instead, beside the reference numbers
    #[arg(long, value_enum, value_name = "NAME", conflicts_with_all = ["release", "world", "rate", "error_rate", "bursts", "fault", "outage", "longest", "plot", "output"])]
    study: Option<Study>,
    /// How to print
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// What was studied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Study {
    /// Harm and fitness of single steps, beside the reference numbers of the specification
    Reference,
    /// Late faults, bursts, latency and the share that is seen, beside their reference numbers
    Cases,
    /// Whole rollouts of the default plan: false aborts and wrong promotions, world by world
    Promises,
}

/// How many rollouts a plot shows: more are a smear.
const DRAWN: u64 = 12;

/// Simulates.
pub(crate) fn run(args: &SimulateArgs) -> Ended {
    if let Some(study) = args.study {
        return studies::run(study, args.runs, args.seed);
    }
    let plan = plan(args.release.as_deref())?;
    let world = world(args)?;
    let steps = plan.spec().steps.len();
    if let Some(beyond) = world.faults.iter().find_map(|f| if let Begin::Step(n) = f.from { Some(n).filter(|n| *n > steps) } else { None })
    {
        return Err(Failure::new(format!("a fault begins with step {beyond}, and the plan has {steps}: it would never come"))
            .hint(format!("serin simulate --fault errors=5%,from=step{steps}")));
    }
    let longest_s = args.longest.as_secs_f64();
    let begun = Instant::now();
    let outcome = simulated(&plan, &world, args.runs, args.seed, longest_s);
    let took = begun.elapsed();
    match args.output {
        Some(format) => print(format, &json!({"world": world, "outcome": outcome}))?,
        None => out::answer(&format!("{}\n{outcome}\n", described(&plan, &world)))?,
    }
    if let Some(file) = &args.plot {
        let runs: Vec<_> = (0..args.runs.min(DRAWN)).map(|i| run_once(&plan, &world, args.seed, i, longest_s)).collect();
        let settings = plan.settings();
        let svg = plot(&described(&plan, &world), &runs, settings.alpha, settings.beta);
        fs::write(file, svg + "\n").map_err(|e| Failure::new(format!("cannot write {}: {e}", file.display())))?;
        out::talk(&format!("{} of them are drawn in {}", runs.len(), file.display()));
    }
    out::talk(&format!(
        "{} in {:.1} s, {} a second",
        count(args.runs as f64),
        took.as_secs_f64(),
        count(args.runs as f64 / took.as_secs_f64().max(1e-9))
    ));
    Ok(Exit::Done)
}

/// The same runs as on one core, a part on each.
pub(crate) fn simulated(plan: &Plan, world: &World, runs: u64, seed: u64, longest_s: f64) -> Outcome {
    let parts = u64::try_from(cores()).unwrap_or(1).min(runs);
    let border = |i: u64| runs * i / parts;
    let runs: Vec<_> = std::thread::scope(|scope| {
        let parts: Vec<_> =
            (0..parts).map(|i| scope.spawn(move || simulate_part(plan, world, border(i)..border(i + 1), seed, longest_s))).collect();
        parts.into_iter().filter_map(|part| part.join().ok()).flatten().collect()
    });
    Outcome::of(&runs, seed, longest_s)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// One line: how much comes, what goes wrong, how the plan goes up.
fn described(plan: &Plan, world: &World) -> String {
    let rates: Vec<String> = world.requests_per_s.iter().map(|r| format!("{r}")).collect();
    let mut line = format!("{} requests/s, stable fails {}", rates.join(", "), serin_core::reason::percent(world.error_rate));
    for fault in &world.faults {
        let mut what = Vec::new();
        if fault.errors != 0.0 {
            what.push(format!("fails {} more", serin_core::reason::percent(fault.errors)));
        }
        if fault.slower != 1.0 {
            what.push(format!("takes {} times as long", fault.slower));
        }
        if fault.added_ms != 0.0 {
            what.push(format!("takes {} ms more", fault.added_ms));
        }
        let from = match fault.from {
            Begin::Seconds(0.0) => String::new(),
            Begin::Seconds(s) => format!(" after {}", duration_text(Duration::from_secs_f64(s.max(0.0)))),
            Begin::Step(n) => format!(" from step {n} on"),
        };
        line += &format!(" · the canary {}{from}", if what.is_empty() { "is as stable".to_string() } else { what.join(" and ") });
    }
    let shares: Vec<String> = plan.shares().iter().map(ToString::to_string).collect();
    line + " · " + &shares.join(", ")
}

/// The plan of a CanaryRelease.
///
/// # Errors
/// The file cannot be read, is none, or holds a plan that is refused: all problems at once.
pub(crate) fn plan(file: Option<&Path>) -> Result<Plan, Failure> {
    match file {
        None => checked(&spec_of(&json!({"spec": {"service": "service"}}), "the default plan")?),
        Some(file) => {
            let (text, name) = (read(file)?, named(file));
            written_right(&text, &name)?;
            plan_of_text(&text, &name)
        }
    }
}

/// A misspelt field is refused, as an API server refuses it: the plan would not hear of it, and another one than was written be simulated.
fn written_right(text: &str, name: &str) -> Result<(), Failure> {
    let input = serin_check::Input { path: name.to_string(), bytes: text.as_bytes().to_vec(), live: false };
    let mut report = serin_check::check(vec![input], &serin_check::Options { select: vec!["SRN0".into()], ..Default::default() });
    report.findings.retain(|f| f.object.as_ref().is_none_or(|o| o.kind == serin_api::names::KIND));
    if !report.fails(serin_check::Deny::default()) {
        return Ok(());
    }
    let lines = serin_check::render::short(&report);
    Err(Failure::new(format!("the CanaryRelease is not written right:\n{}", lines.trim_end())).hint(format!("serin check {name}")))
}

/// The plan of the one CanaryRelease in a text.
///
/// # Errors
/// As `plan`.
pub(crate) fn plan_of_text(text: &str, name: &str) -> Result<Plan, Failure> {
    let objects: Vec<Value> = documents(text).map_err(|e| Failure::new(format!("{name} is no YAML: {e}")))?;
    let mut releases = objects.iter().filter(|o| o["kind"] == serin_api::names::KIND);
    let release = match (releases.next(), releases.next()) {
        (Some(one), None) => one,
        (None, _) => {
            return Err(Failure::new(format!("{name} holds no {}, whose plan could be simulated", serin_api::names::KIND))
                .hint("serin simulate               the default plan")
                .hint("serin init SERVICE           writes one"));
        }
        (Some(_), Some(_)) => return Err(Failure::new(format!("{name} holds several CanaryReleases: give one"))),
    };
    let own = &release["spec"];
    let spec = match own["policy"].as_str() {
        None => own.clone(),
        Some(policy) => {
            let found = objects.iter().find(|o| o["kind"] == serin_api::names::POLICY_KIND && o["metadata"]["name"] == policy);
            let Some(found) = found else {
                return Err(Failure::new(format!("{name} names CanaryPolicy {policy}, which is not in it, so the plan is not whole"))
                    .hint(format!("kubectl get canarypolicy {policy} -o yaml    put it into the same file, after a line of ---")));
            };
            let read: CanaryPolicySpec = CanaryPolicySpec::deserialize(&found["spec"])
                .map_err(|e| Failure::new(format!("{name}: CanaryPolicy {policy}: spec: {e}")).hint("serin check FILE"))?;
            Merged::new(own, Some(&read)).spec
        }
    };
    playable(checked(&spec_of(&json!({"spec": spec}), name)?)?)
}

/// Of a plan that asks in PromQL, what can be played: requests are simulated, and recorded, and nothing else is.
fn playable(plan: Plan) -> Result<Plan, Failure> {
    let counters = plan.counters().iter().map(|(name, _)| name.as_str());
    let left_out: Vec<&str> = counters.chain(plan.spec().limits.iter().map(|l| l.name.as_str())).collect();
    if left_out.is_empty() {
        return Ok(plan);
    }
    if plan.metrics().len() == plan.counters().len() {
        return Err(Failure::new(format!(
            "every metric of the plan asks in PromQL ({}), and only requests can be played",
            left_out.join(", ")
        ))
        .hint("add a metric of the requests themselves, as {name: errors, errorRate: {margin: 0.5%}}"));
    }
    out::talk(&format!("left out, as only requests can be played: {}", left_out.join(", ")));
    Ok(plan)
}

fn checked(spec: &CanaryReleaseSpec) -> Result<Plan, Failure> {
    serin_api::plan_of(spec).map_err(|problems| {
        let list: Vec<String> = problems.iter().map(|p| format!("  {p}")).collect();
        Failure::new(format!("the plan is refused:\n{}", list.join("\n")))
    })
}

fn spec_of(object: &Value, name: &str) -> Result<CanaryReleaseSpec, Failure> {
    CanaryReleaseSpec::deserialize(&object["spec"]).map_err(|e| Failure::new(format!("{name}: spec: {e}")).hint("serin check FILE"))
}

fn world(args: &SimulateArgs) -> Result<World, Failure> {
    let mut world = match &args.world {
        None => World::default(),
        Some(file) => {
            let text = read(file)?;
            let not =
                |e: String| Failure::new(format!("{} is no world: {e}", named(file))).hint("serin simulate --help    names its fields");
            let mut value: Value = serde_saphyr::from_str(&text).map_err(|e| not(e.to_string()))?;
            plain("", &mut value).map_err(not)?;
            World::deserialize(if value.is_null() { json!({}) } else { value }).map_err(|e| not(e.to_string()))?
        }
    };
    if !args.rate.is_empty() {
        world.requests_per_s.clone_from(&args.rate);
    }
    world.error_rate = args.error_rate.unwrap_or(world.error_rate);
    world.bursts = args.bursts.unwrap_or(world.bursts);
    world.faults.extend(&args.fault);
    world.outages.extend(&args.outage);
    let problems = world.problems();
    if problems.is_empty() {
        return Ok(world);
    }
    Err(Failure::new(format!("the world makes no sense:\n  {}", problems.join("\n  "))))
}

/// Shares and times as a release writes them (`0.5%`, `10m`) become the numbers that a world is made of: fractions, seconds, milliseconds.
///
/// # Errors
/// The field, and what it should be.
fn plain(at: &str, value: &mut Value) -> Result<(), String> {
    let number = |n: f64| serde_json::Number::from_f64(n).map(Value::Number).ok_or("not a number");
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                let Some(text) = value.as_str() else {
                    plain(&path, value)?;
                    continue;
                };
                let seconds = || super::duration(text).map(|d| d.as_secs_f64());
                let read = match key.as_str() {
                    "errorRate" | "errors" | "swing" => serin_api::values::percent(text),
                    "swingS" | "fromS" | "seconds" | "forS" | "growsS" => seconds(),
                    "medianMs" | "addedMs" => seconds().map(|s| s * 1000.0),
                    _ => continue,
                };
                *value = read.and_then(|n| Ok(number(n)?)).map_err(|why| format!("{path}: {why}"))?;
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                plain(&format!("{at}[{i}]"), item)?;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    Ok(())
}

fn named(file: &Path) -> String {
    if file.as_os_str() == "-" { "standard input".into() } else { file.display().to_string() }
}

fn read(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let result = if file.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text).map(|_| ())
    } else {
        fs::read_to_string(file).map(|t| text = t)
    };
    result.map_err(|e| Failure::new(format!("cannot read {}: {e}", named(file))))?;
    Ok(text)
}

fn documents(text: &str) -> Result<Vec<Value>, String> {
    serde_saphyr::from_multiple(text).map_err(|e| e.to_string())
}

/// `key=value,…`, each key at most once.
fn pairs<'a>(text: &'a str, known: &[&str]) -> Result<Vec<(&'a str, &'a str)>, String> {
    let mut found: Vec<(&str, &str)> = Vec::new();
    for part in text.split(',') {
        let (key, value) = part.split_once('=').ok_or_else(|| format!("{part:?}: write KEY=VALUE, the keys being {}", known.join(", ")))?;
        if !known.contains(&key) {
            return Err(format!("{key:?} is none of {}", known.join(", ")));
        }
        if found.iter().any(|(k, _)| *k == key) {
            return Err(format!("{key} is given twice"));
        }
        found.push((key, value));
    }
    Ok(found)
}

fn fault(text: &str) -> Result<Fault, String> {
    let mut fault = Fault::default();
    for (key, value) in pairs(text, &["errors", "slower", "added", "from"])? {
        match key {
            "errors" => fault.errors = serin_api::values::percent(value)?,
            "slower" => fault.slower = value.parse().map_err(|_| format!("slower: {value:?} is no number, as 1.5"))?,
            "added" => fault.added_ms = super::duration(value)?.as_secs_f64() * 1000.0,
            _ => {
                fault.from = match value.strip_prefix("step") {
                    Some(n) => {
                        Begin::Step(n.parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("from: {value:?} names no step, as step3"))?)
                    }
                    None => Begin::Seconds(super::duration(value)?.as_secs_f64()),
                }
            }
        }
    }
    Ok(fault)
}

fn outage(text: &str) -> Result<Outage, String> {
    let (mut from_s, mut seconds, mut errors) = (None, None, None);
    for (key, value) in pairs(text, &["from", "for", "errors"])? {
        match key {
            "from" => from_s = Some(super::duration(value)?.as_secs_f64()),
            "for" => seconds = Some(super::duration(value)?.as_secs_f64()),
            _ => errors = Some(serin_api::values::percent(value)?),
        }
    }
    let all = "an outage has all three: from=10m,for=5m,errors=10%";
    Ok(Outage { from_s: from_s.ok_or(all)?, seconds: seconds.ok_or(all)?, errors: errors.ok_or(all)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_and_outages_are_read_or_refused_with_what_to_write() {
        let read = fault("errors=5%,from=step3,added=300ms,slower=1.5").expect("a fault");
        assert_eq!(read, Fault { from: Begin::Step(3), errors: 0.05, slower: 1.5, added_ms: 300.0, ..Fault::default() });
        assert_eq!(fault("from=10m").map(|f| f.from), Ok(Begin::Seconds(600.0)));
        assert_eq!(outage("from=10m,for=5m,errors=10%"), Ok(Outage { from_s: 600.0, seconds: 300.0, errors: 0.1 }));
        for wrong in ["", "errors", "errors=many", "error=5%", "errors=1%,errors=2%", "from=step0", "slower=x", "added=3"] {
            assert!(fault(wrong).is_err(), "{wrong}");
        }
        for wrong in ["from=1m", "from=1m,for=1m", "from=x,for=1m,errors=1%"] {
            assert!(outage(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_world_is_written_in_shares_and_times_or_in_numbers() {
        let mut world = json!({"errorRate": "0.5%", "swingS": "10m", "latency": {"medianMs": "40ms", "sigma": 0.8},
            "faults": [{"from": {"seconds": "1h"}, "errors": 0.05, "addedMs": "1.5s"}], "outages": [{"fromS": 60, "seconds": "2m", "errors": "10%"}]});
        plain("", &mut world).expect("a world");
        assert_eq!(
            world,
            json!({"errorRate": 0.005, "swingS": 600.0, "latency": {"medianMs": 40.0, "sigma": 0.8},
                "faults": [{"from": {"seconds": 3600.0}, "errors": 0.05, "addedMs": 1500.0}], "outages": [{"fromS": 60, "seconds": 120.0, "errors": 0.1}]})
        );
        let mut wrong = json!({"faults": [{"errors": "many"}]});
        assert!(plain("", &mut wrong).expect_err("no share").starts_with("faults[0].errors: "));
    }

    #[test]
    fn a_misspelt_field_of_the_release_is_refused_with_its_place() {
        let text = "apiVersion: serin.dev/v1alpha1\nkind: CanaryRelease\nmetadata: {name: a}\nspec:\n  service: a\n  steps: [{weigth: 10, hold: 1m}]\n";
        let refused = written_right(text, "a.yaml").expect_err("misspelt").what;
        assert!(refused.contains("a.yaml:6:12") && refused.contains("weigth"), "{refused}");
        let mended = text.replace("weigth", "weight");
        assert!(written_right(&mended, "a.yaml").is_ok() && plan_of_text(&mended, "a.yaml").is_ok());
    }

    #[test]
    fn many_cores_simulate_what_one_does() {
        let plan = plan(None).expect("the default plan");
        let world = World { faults: vec![Fault { errors: 0.3, ..Fault::default() }], ..World::default() };
        let alone = Outcome::of(&simulate_part(&plan, &world, 0..20, 7, 3600.0), 7, 3600.0);
        assert_eq!(simulated(&plan, &world, 20, 7, 3600.0), alone);
        assert_eq!(alone.rolled_back.share, 1.0);
    }
}
