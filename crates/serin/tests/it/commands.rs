//! The commands against a cluster that answers: a lab with a controller, and nobody who calls.

use serde_json::Value;

use crate::support::{Lab, alone, article, example, said, until};

fn json(lab: &Lab, args: &[&str]) -> Value {
    let out = lab.serin(args);
    assert!(out.status.success(), "serin {}: {}", args.join(" "), said(&out));
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("serin {}: {e}: {}", args.join(" "), said(&out)))
}

fn text(lab: &Lab, args: &[&str], code: i32) -> String {
    let out = lab.serin(args);
    assert_eq!(out.status.code(), Some(code), "serin {}: {}", args.join(" "), said(&out));
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[test]
#[ignore = "needs envoy and kubectl"]
fn every_command_answers_a_person_and_a_machine() {
    let _alone = alone();
    let lab = Lab::up(&["--controller"]);
    assert!(text(&lab, &["get"], 0).contains("no CanaryRelease in namespace default"));
    assert!(text(&lab, &["status", "my-app"], 2).contains("no CanaryRelease my-app in namespace default; there is none\n  serin get -A"));
    lab.kubectl(&["apply", "-f", example("article").to_str().expect("a path")]);
    lab.kubectl(&["rollout", "status", "deployment/my-app-v1", "--timeout=60s"]);
    lab.kubectl(&["rollout", "status", "deployment/my-app-v2", "--timeout=60s"]);
    lab.kubectl(&["apply", "-f", example("demo/canary-release.yaml").to_str().expect("a path")]);
    lab.release("the split is found", |s| s["phase"] == "Paused");

    // kubectl and serin print the same columns.
    let (ours, theirs) = (text(&lab, &["get"], 0), lab.kubectl(&["get", "can"]));
    let heads = |text: &str| text.lines().next().unwrap_or_default().split_whitespace().map(str::to_string).collect::<Vec<_>>();
    assert_eq!(heads(&ours), heads(&theirs));
    assert_eq!(heads(&ours), ["NAME", "SERVICE", "STABLE", "CANARY", "WEIGHT", "PHASE", "MESSAGE", "AGE"]);
    assert!(ours.contains("my-app   my-app    v1       v2       10%      Paused"), "{ours}");
    assert!(lab.kubectl(&["get", "serin"]).contains("my-app"), "by its category");
    assert!(text(&lab, &["get", "-A", "-o", "wide"], 0).lines().nth(1).is_some_and(|l| l.starts_with("default ") && l.ends_with("1/3")));
    assert_eq!(text(&lab, &["get", "-o", "name"], 0), "canaryrelease.serin.dev/my-app\n");
    assert_eq!(json(&lab, &["get", "my-app", "-o", "json"])["kind"], "CanaryRelease");
    assert_eq!(json(&lab, &["get", "-o", "json"])["items"].as_array().map(Vec::len), Some(1));
    assert!(text(&lab, &["get", "my-ap"], 2).contains("no CanaryRelease my-ap in namespace default; there is my-app\n  serin get"));
    assert!(text(&lab, &["get", "-l", "team=shop"], 0).contains("no CanaryRelease"));

    let status = json(&lab, &["status", "my-app", "-o", "json"]);
    assert_eq!((status["phase"].as_str(), status["weight"].as_str()), (Some("Paused"), Some("10 % set · not measured yet")));
    assert!(text(&lab, &["status", "my-app"], 0).contains("serin resume my-app"));
    assert!(text(&lab, &["why", "my-app"], 0).starts_with("my-app  the split was there when Serin came"));
    assert_eq!(json(&lab, &["why", "my-app", "-o", "json"])["reason"], "Paused");

    // Requests: done, refused, and remembered.
    assert_eq!(json(&lab, &["resume", "my-app", "--reason", "go on", "-o", "json"])["refused"], Value::Null);
    lab.release("it goes on", |s| s["phase"] == "Progressing");
    assert!(text(&lab, &["retry", "my-app"], 1).contains("retry was refused: "));
    text(&lab, &["pause", "my-app", "--reason", "lunch"], 0);
    assert!(text(&lab, &["wait", "my-app", "--for", "paused", "--timeout", "30s"], 0).starts_with("my-app  paused: "));
    assert!(text(&lab, &["wait", "my-app", "--for", "promoted", "--timeout", "200ms"], 1).starts_with("my-app  not in time: "));
    text(&lab, &["abort", "my-app", "--reason", "enough"], 0);
    assert!(
        text(&lab, &["wait", "my-app", "--for", "rolledback", "--version", "v2", "--timeout", "60s"], 0)
            .starts_with("my-app  rolledback: ")
    );
    let history = json(&lab, &["history", "my-app", "-o", "json"]);
    assert_eq!(history["rollouts"][0]["outcome"], "RolledBack");
    let asked: Vec<&str> = history["requests"].as_array().expect("requests").iter().filter_map(|r| r["action"].as_str()).collect();
    assert_eq!(asked, ["resume", "retry", "pause", "abort"]);
    assert!(text(&lab, &["history", "my-app"], 0).contains("v1 → v2"));
    text(&lab, &["retry", "my-app"], 0);
    until("v2 is tried again", || {
        let phase = json(&lab, &["status", "my-app", "-o", "json"])["phase"].clone();
        if phase == "RolledBack" { Err(phase.to_string()) } else { Ok(()) }
    });
}

#[test]
#[ignore = "needs envoy and kubectl"]
fn a_person_sets_weights_freezes_promotes_and_rolls_back() {
    let _alone = alone();
    let lab = Lab::up(&["--controller"]);
    article(&lab);
    lab.release("the split is found", |s| s["phase"] == "Paused");
    let shows = |weights: [(&str, i64); 2]| {
        until("the route's weights", || {
            let seen = lab.weights();
            if weights.iter().all(|(v, w)| seen.get(*v) == Some(w)) { Ok(()) } else { Err(format!("{seen:?}")) }
        });
    };

    assert!(text(&lab, &["rollback", "my-app"], 1).contains("abort takes the canary back"));
    assert!(text(&lab, &["set-weight", "my-app", "30", "--reason", "a look"], 0).contains("v2 10 % → 30 %"));
    shows([("v1", 70), ("v2", 30)]);
    assert!(text(&lab, &["set-weight", "my-app", "80%"], 1).contains("the plan goes to 50 % at most"));
    assert!(text(&lab, &["set-weight", "my-app", "many"], 2).contains("is no weight"));
    assert!(text(&lab, &["freeze", "my-app", "none"], 2).contains("no CanaryRelease none"));
    assert!(text(&lab, &["freeze", "my-app", "--reason", "sale"], 0).contains("my-app  frozen by serin-lab: sale"));
    assert!(text(&lab, &["set-weight", "my-app", "40"], 1).contains("nothing moves forward: frozen: by serin-lab: sale"));
    assert!(text(&lab, &["set-weight", "my-app", "5"], 0).contains("v2 30 % → 5 %"));
    shows([("v1", 95), ("v2", 5)]);
    text(&lab, &["thaw", "--all"], 0);

    // Nobody calls, so only the word of a person goes on; bake needs traffic, too.
    text(&lab, &["promote", "my-app", "--full"], 0);
    let caller = lab.spawn(&["verify", "my-app", "--requests", "20000", "--rate", "200"]);
    lab.release("v2 is promoted", |s| s["phase"] == "Idle" && s["stable"]["version"] == "v2");
    drop(caller);
    assert!(text(&lab, &["rollback", "my-app", "--reason", "orders are lost"], 0).contains("my-app  "));
    lab.release("v1 serves again", |s| s["phase"] == "RolledBack" && s["stable"]["version"] == "v1");
    shows([("v1", 100), ("v2", 0)]);
    assert!(text(&lab, &["why", "my-app"], 0).contains("rolled back by serin-lab: orders are lost"));

    // Uninstalled: traffic stays where it is.
    let gone = text(&lab, &["uninstall", "--crds"], 0);
    let file = std::env::temp_dir().join(format!("serin-uninstall-{}.yaml", std::process::id()));
    std::fs::write(&file, gone).expect("a file");
    lab.kubectl(&["delete", "--ignore-not-found", "-f", file.to_str().expect("a path")]);
    let _ = std::fs::remove_file(&file);
    until("the kind is gone", || match lab.try_kubectl(&["get", "canaryreleases"]) {
        Err(e) if e.contains("the server doesn't have a resource type") || e.contains("could not find the requested resource") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    shows([("v1", 100), ("v2", 0)]);
}

#[test]
#[ignore = "needs envoy and kubectl"]
fn what_nothing_carries_out_is_refused_by_the_api_server_by_name() {
    let _alone = alone();
    let lab = Lab::up(&[]);
    let refused = |spec: &str| {
        let text = format!("apiVersion: serin.dev/v1alpha1\nkind: CanaryRelease\nmetadata: {{name: r}}\nspec: {spec}\n");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        lab.try_kubectl(&["apply", "-f", file.path().to_str().expect("a path")])
    };
    for (spec, said) in [
        ("{service: a, hooks: [{name: x}]}", "not supported yet: spec.hooks"),
        ("{service: a, traffic: {match: [{}]}}", "not supported yet: spec.traffic.match"),
        ("{service: a, traffic: {destinations: {}}}", "not supported yet: spec.traffic.destinations"),
        ("{service: a, scaling: {retireAfter: soon}}", "should match"),
        ("{service: a, traffic: {mirror: '10%'}}", "not supported yet: spec.traffic.mirror"),
        ("{service: a, analysis: {metrics: [{name: p, promql: {query: x}}]}}", "no limit: write min or max"),
        ("{service: a, analysis: {metrics: [{name: p, promql: {bad: b, margin: '1%'}}]}}", "or the counters bad and total with a margin"),
        ("{service: a, analysis: {metrics: [{name: p, promql: {query: x, min: '1', margin: '1%'}}]}}", "belong to two counters"),
        ("{service: a, analysis: {metrics: [{name: p, promql: {bad: b, total: t, margin: '1%', max: '2'}}]}}", "belong to a query"),
        ("{service: a, analysis: {metrics: [{name: p, latency: {quantile: '0.9', margin: '1%'}}]}}", "either a quantile that may grow"),
        (
            "{service: a, analysis: {metrics: [{name: p, latency: {slowerThan: 1s, margin: '1%', strict: true}}]}}",
            "mayGrow and strict belong",
        ),
        ("{service: a, steps: [{weight: 10, graded: true}]}", "a graded margin is for what a confirm step asks"),
        ("{service: a, steps: [{weight: 10, pause: {}}]}", "either a weight or a pause"),
        ("{service: a, steps: [{pause: {}}]}", "no step has a weight"),
        ("{service: a, steps: [{weight: 101}]}", "from 0 to 99 percent"),
        ("{service: a, steps: [{weight: 100}]}", "from 0 to 99 percent"),
        ("{service: a, steps: [{weight: -1}]}", "from 0 to 99 percent"),
        ("{service: a, steps: [{weight: '100%'}]}", "from 0 to 99 percent"),
        ("{service: a, steps: [{weight: '1.2345%'}]}", "should match"),
        ("{service: a, traffic: {settle: soon}}", "should match"),
        ("{service: a, analysis: {metrics: [{name: e, errorRate: {margin: '1%', max: '2%'}}]}}", "max is a limit of its own"),
        ("{service: a, stepps: []}", "unknown field"),
        ("{}", "service"),
    ] {
        let result = refused(spec);
        assert!(result.as_ref().is_err_and(|e| e.contains(said)), "{spec}: {result:?}");
    }
    assert!(refused("{service: a}").is_ok());
    let spec = lab.object("canaryrelease", "r")["spec"].clone();
    // What a policy may say must not be written into the release before it is asked.
    assert_eq!(spec, serde_json::json!({"service": "a"}), "{spec:#}");
    assert!(
        refused(
            "{service: a, steps: [{weight: 1, hold: 30s}, {weight: '0.5%'}, {pause: {for: 1h}}, {weight: 50, confirm: true, maxWait: 24h}]}"
        )
        .is_ok()
    );
}

#[test]
#[ignore = "needs envoy and kubectl"]
fn init_writes_a_release_for_the_traffic_that_there_is() {
    let _alone = alone();
    let lab = Lab::up(&["--controller"]);
    assert!(text(&lab, &["init", "my-app"], 2).contains("no Service my-app is in namespace default"));
    lab.kubectl(&["apply", "-f", example("article").to_str().expect("a path")]);
    lab.kubectl(&["rollout", "status", "deployment/my-app-v1", "--timeout=60s"]);
    lab.kubectl(&["rollout", "status", "deployment/my-app-v2", "--timeout=60s"]);

    let quiet = text(&lab, &["init", "my-app", "--measure", "500ms"], 2);
    assert!(quiet.contains("nobody called it within 0.5s") && quiet.contains("serin init my-app --rate 50"), "{quiet}");
    let slow = text(&lab, &["init", "my-app", "--rate", "0.02", "--error-rate", "0.1%"], 1);
    assert!(
        slow.contains("this plan is refused: no good canary would be promoted within a day")
            && slow.contains("requests a second, or send it some"),
        "{slow}"
    );

    let caller = lab.spawn(&["verify", "my-app", "--requests", "4000", "--rate", "100"]);
    let out = lab.serin(&["init", "my-app", "--measure", "3s"]);
    drop(caller);
    assert!(out.status.success(), "{}", said(&out));
    let (yaml, talk) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    for sight in [
        "found     v1: Deployment my-app-v1, 3 ready, 90 % of the requests",
        "the split stays as it is, paused, until serin resume",
        "a good canary is promoted within",
    ] {
        assert!(talk.contains(sight), "{sight:?}: {talk}");
    }
    // What it writes is taken, and nothing moves.
    lab.apply(&yaml);
    lab.release("the split is found", |s| s["phase"] == "Paused");
    assert_eq!(lab.weights(), [("v1".to_string(), 90), ("v2".to_string(), 10)].into());
    assert!(text(&lab, &["init", "my-app", "--rate", "5"], 2).contains("CanaryRelease my-app is there already"));
}

#[test]
fn a_lab_without_a_place_for_its_log_says_which() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let out = std::process::Command::new(crate::support::SERIN)
        .args(["lab", "up"])
        .env("XDG_STATE_HOME", file.path())
        .output()
        .expect("serin runs");
    assert_eq!(out.status.code(), Some(2), "{}", said(&out));
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(text.contains(&format!("its log {}/serin/", file.path().display())) && text.contains("XDG_STATE_HOME"), "{text}");
}
