//! `serin simulate` and `replay`: whole rollouts without a cluster, by their outcomes and their complaints.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::{SERIN, example, said};

fn serin(args: &[&str]) -> Output {
    Command::new(SERIN).args(args).env_remove("KUBECONFIG").stdin(Stdio::null()).output().expect("serin runs")
}

fn json(args: &[&str]) -> Value {
    let out = serin(args);
    assert!(out.status.success(), "serin {}: {}", args.join(" "), said(&out));
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("serin {}: {e}: {}", args.join(" "), said(&out)))
}

fn refused(args: &[&str]) -> String {
    let out = serin(args);
    assert_eq!(out.status.code(), Some(2), "serin {}: {}", args.join(" "), said(&out));
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn a_healthy_canary_is_promoted_and_a_bad_one_taken_back() {
    let healthy = json(&["simulate", "--runs", "40", "-o", "json"]);
    assert_eq!((&healthy["outcome"]["runs"], &healthy["outcome"]["promoted"]["share"]), (&40.into(), &1.0.into()));
    let bad = json(&["simulate", "--runs", "40", "--rate", "200", "--fault", "errors=30%,from=step2", "-o", "json"]);
    assert_eq!(bad["outcome"]["rolledBack"]["share"], 1.0);
    assert!(bad["outcome"]["byStep"].as_object().is_some_and(|steps| steps.contains_key("2") && !steps.contains_key("1")), "{bad:#}");
    let again = json(&["simulate", "--runs", "40", "--rate", "200", "--fault", "errors=30%,from=step2", "-o", "json"]);
    assert_eq!(bad, again, "the same seed gives the same rollouts");
}

#[test]
fn a_world_of_a_file_is_simulated_and_drawn() {
    let folder = tempfile::tempdir().expect("a folder");
    let (world, plot) = (folder.path().join("world.yaml"), folder.path().join("runs.svg"));
    std::fs::write(&world, "requestsPerS: [100]\nfaults:\n- {from: {step: 3}, addedMs: 600}\n").expect("a file");
    let release = example("demo/canary-release.yaml");
    let args = [
        "simulate",
        release.to_str().expect("a path"),
        "--world",
        world.to_str().expect("a path"),
        "--runs",
        "20",
        "--plot",
        plot.to_str().expect("a path"),
    ];
    let out = serin(&args);
    assert!(out.status.success(), "{}", said(&out));
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(text.contains("the canary takes 600 ms more from step 3 on") && text.contains("rolled back  100 %"), "{text}");
    assert!(std::fs::read_to_string(&plot).is_ok_and(|svg| svg.starts_with("<svg") && svg.contains("600 ms")));
}

#[test]
fn what_cannot_be_simulated_is_told_with_what_to_do() {
    let article = example("article/my-app-v1.yaml");
    assert!(refused(&["simulate", article.to_str().expect("a path")]).contains("holds no CanaryRelease"));
    assert!(refused(&["simulate", "none.yaml"]).contains("cannot read none.yaml"));
    assert!(refused(&["simulate", "--rate", "-3"]).contains("requestsPerS: one number per hour"));
    assert!(refused(&["simulate", "--fault", "error=5%"]).contains("none of errors, slower, added, from"));
    let folder = tempfile::tempdir().expect("a folder");
    let world = folder.path().join("world.yaml");
    std::fs::write(&world, "requestPerS: [1]\n").expect("a file");
    assert!(refused(&["simulate", "--world", world.to_str().expect("a path")]).contains("unknown field `requestPerS`"));
}

fn record() -> String {
    example("replay/record.json").to_str().expect("a path").to_string()
}

/// The example is what a Prometheus recorded on the lab: v1 beside a v2 that fails every tenth request.
#[test]
fn a_record_of_prometheus_is_replayed() {
    let replayed = json(&["replay", &record(), "--release", example("demo/canary-release.yaml").to_str().expect("a path"), "-o", "json"]);
    assert_eq!(
        (replayed["stable"].as_str(), replayed["canary"].as_str()),
        (Some("default/my-app-v1"), Some("default/my-app-v2")),
        "{replayed:#}"
    );
    assert_eq!(replayed["end"], "RolledBack", "{replayed:#}");
    assert!(replayed["why"].as_str().is_some_and(|why| why.starts_with("v2 failed")), "{replayed:#}");
    let against_itself = json(&["replay", "--aa", &record(), "--stable", "my-app-v1", "--runs", "50", "-o", "json"]);
    assert_eq!(against_itself["falseAlarms"]["share"], 0.0, "{against_itself:#}");
    assert!(against_itself["requests"].as_f64().is_some_and(|n| n > 1000.0));
}

#[test]
fn what_is_no_record_is_told_with_the_query_to_ask() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("a path").to_string()
    };
    assert!(refused(&["replay", &write("a.json", "{")]).contains("no answer of a Prometheus"));
    assert!(refused(&["replay", &write("b.json", r#"{"status":"error","error":"query timed out"}"#)]).contains("it says query timed out"));
    assert!(
        refused(&["replay", &write("c.json", r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#)])
            .contains("it holds a vector: ask query_range")
    );
    let rates =
        r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"destination_workload":"a"},"values":[[1,"2"]]}]}}"#;
    assert!(refused(&["replay", &write("d.json", rates)]).contains("record the counters themselves"));
    assert!(refused(&["replay", &record(), "--stable", "my-app-v9"]).contains("there is\n  default/my-app-v1"));
    assert!(Path::new(&record()).exists());
}
