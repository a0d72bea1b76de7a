//! What happens to a rollout from outside while a real Envoy carries real requests: another version, the proxy's death.

use std::process::Command;

use crate::support::{Callers, Lab, alone, article, descendants, example, on_trial, tally, until, weights_of};

#[test]
#[ignore = "needs envoy and kubectl"]
fn a_third_version_in_the_middle_ends_the_rollout_of_the_second_and_has_its_own() {
    let _alone = alone();
    let lab = Lab::up(&["--controller"]);
    let callers = on_trial(&lab, 4);
    let v2 = std::fs::read_to_string(example("article/my-app-v2.yaml")).expect("the article's file");
    lab.apply(&v2.replace("v2", "v3"));
    lab.release("v3 is on trial, and v2 has nothing", |s| s["canary"]["version"] == "v3");
    lab.release("v3 is promoted", |s| s["phase"] == "Idle" && s["stable"]["version"] == "v3");
    let weights = lab.weights();
    assert_eq!((weights["v3"], weights["v2"], weights["v1"]), (100, 0, 0));
    let outcomes: Vec<(String, String)> = lab.object("canaryrelease", "my-app")["status"]["history"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|past| (past["canary"].as_str().unwrap_or_default().to_string(), past["outcome"].as_str().unwrap_or_default().to_string()))
        .collect();
    assert_eq!(outcomes, [("v2".to_string(), "Superseded".to_string()), ("v3".to_string(), "Promoted".to_string())]);
    let seen = callers.end();
    assert!(seen.iter().all(|s| s.status == 200), "{:?}", tally(&seen));
}

#[test]
#[ignore = "needs envoy and kubectl"]
fn an_envoy_that_dies_in_the_middle_is_nobodys_fault_and_the_rollout_ends() {
    let _alone = alone();
    let lab = Lab::up(&["--controller"]);
    let callers = on_trial(&lab, 4);
    let lab_process = u32::try_from(lab.info["pid"].as_u64().expect("a pid")).expect("a pid");
    let envoy = until("Envoy runs", || {
        let all = descendants(lab_process);
        all.into_iter().find(|p| p.is_called("envoy")).ok_or_else(|| "no envoy among its processes".to_string())
    });
    assert!(Command::new("kill").args(["-KILL", &envoy.pid.to_string()]).status().expect("kill runs").success());
    let status = lab.release("v2 is promoted", |s| s["phase"] == "Idle" && s["stable"]["version"] == "v2");
    assert_eq!(lab.weights()["v2"], 100, "{status:#}");
    // Between its death and its return nobody is answered; every answer that came was a good one.
    let seen = callers.end();
    assert!(seen.iter().all(|s| s.status == 200 || s.status == 0), "{:?}", tally(&seen));
    assert!(seen.iter().any(|s| s.status == 0), "nobody noticed");
}

#[test]
#[ignore = "needs envoy and kubectl"]
fn a_replaced_version_is_deleted_when_its_time_is_over() {
    let _alone = alone();
    let lab = Lab::up(&["--controller"]);
    let callers = on_trial(&lab, 4);
    lab.kubectl(&["patch", "canaryrelease", "my-app", "--type=merge", "-p", r#"{"spec":{"scaling":{"retireAfter":"4s"}}}"#]);
    lab.release("v2 is promoted", |s| s["phase"] == "Idle" && s["stable"]["version"] == "v2");
    assert!(lab.try_kubectl(&["get", "deployment", "my-app-v1"]).is_ok(), "it has its time");
    until("v1 is gone", || match lab.try_kubectl(&["get", "deployment", "my-app-v1"]) {
        Ok(_) => Err("there".into()),
        Err(said) => {
            if said.contains("NotFound") {
                Ok(())
            } else {
                Err(said)
            }
        }
    });
    let status = lab.release("nothing may be deleted any more", |s| s["retirable"].as_array().is_none_or(Vec::is_empty));
    assert_eq!((&status["phase"], &status["stable"]["version"]), (&"Idle".into(), &"v2".into()));
    let seen = callers.end();
    assert!(seen.iter().all(|s| s.status == 200), "{:?}", tally(&seen));
}

/// The article's objects for a service of another name, with one pod each.
fn named(name: &str, file: &str) -> String {
    let text = std::fs::read_to_string(example(file)).expect("an example");
    text.replace("my-app", name).replace("replicas: 3", "replicas: 1").replace("my-gateway", "mesh")
}

#[test]
#[ignore = "needs envoy and kubectl"]
fn ten_releases_at_once_come_each_to_its_own_end() {
    let _alone = alone();
    let lab = Lab::up(&["--controller"]);
    let names: Vec<String> = (0..10).map(|i| format!("shop-{i}")).collect();
    let plan = r#"{"service":"NAME","traffic":{"settle":"1s"},"steps":[{"weight":50,"hold":"4s"}],"promotion":{"bake":"2s"},"analysis":{"interval":"1s","metrics":[{"name":"errors","errorRate":{"margin":"5%"}}]}}"#;
    let mut all = String::new();
    for name in &names {
        for file in ["article/my-app-v1.yaml", "article/my-app-destination-rule.yaml"] {
            all += &format!("---\n{}", named(name, file));
        }
        all += &format!(
            "---\n{}",
            named(name, "article/my-app-virtual-service.yaml").replace("weight: 90", "weight: 100").replace("weight: 10\n", "weight: 0\n")
        );
        all += &format!(
            "---\napiVersion: serin.dev/v1alpha1\nkind: CanaryRelease\nmetadata: {{name: {name}}}\nspec: {}\n",
            plan.replace("NAME", name)
        );
    }
    lab.apply(&all);
    let status = |name: &str| lab.object("canaryrelease", name)["status"].clone();
    for name in &names {
        until("it is adopted", || {
            let s = status(name);
            if s["phase"] == "Idle" && s["stable"]["version"] == "v1" { Ok(()) } else { Err(s["message"].to_string()) }
        });
        lab.kubectl(&["rollout", "status", &format!("deployment/{name}-v1"), "--timeout=60s"]);
    }
    // The last pods' addresses may still be on their way to the proxy.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let callers: Vec<Callers> = names.iter().map(|name| Callers::of(name, &lab.callers(), 1)).collect();
    let bad = |i: usize| i.is_multiple_of(3);
    let mut second = String::new();
    for (i, name) in names.iter().enumerate() {
        let fault = if bad(i) { "        env:\n        - {name: ERROR_RATE, value: \"100%\"}\n" } else { "" };
        second += &format!("---\n{}{fault}", named(name, "article/my-app-v2.yaml"));
    }
    lab.apply(&second);
    for (i, name) in names.iter().enumerate() {
        let (phase, stable) = if bad(i) { ("RolledBack", "v1") } else { ("Idle", "v2") };
        until(&format!("{name} is {phase} on {stable}"), || {
            let s = status(name);
            let ended = !s["history"].as_array().is_none_or(Vec::is_empty);
            if ended && s["phase"] == phase && s["stable"]["version"] == stable {
                Ok(())
            } else {
                Err(format!("{} {}", s["phase"], s["message"]))
            }
        });
        assert_eq!(weights_of(&lab.object("virtualservice", name))[stable], 100);
    }
    for (i, callers) in callers.into_iter().enumerate() {
        let seen = callers.end();
        assert!(seen.iter().all(|s| s.status == 200 || (bad(i) && s.version == "v2")), "{}: {:?}", names[i], tally(&seen));
    }
}

#[test]
#[ignore = "needs envoy and kubectl"]
fn a_route_and_rules_that_are_deleted_and_restored_hold_the_rollout_and_let_it_go_on() {
    let _alone = alone();
    let lab = Lab::up(&["--controller"]);
    article(&lab);
    lab.release("the split is found", |s| s["phase"] == "Paused");
    let steps = r#"{"spec":{"steps":[{"weight":10,"hold":"8s"},{"weight":50,"hold":"2s","confirm":true}]}}"#;
    lab.kubectl(&["patch", "canaryrelease", "my-app", "--type=merge", "-p", steps]);
    let callers = Callers::start(&lab.callers(), 4);
    assert_eq!(lab.serin(&["resume", "my-app"]).status.code(), Some(0));
    lab.release("it goes on", |s| s["phase"] == "Progressing");
    let kept = |kind: &str| {
        let mut object = lab.object(kind, "my-app");
        let meta = object["metadata"].as_object_mut().expect("metadata");
        meta.retain(|field, _| matches!(field.as_str(), "name" | "namespace" | "annotations"));
        object.to_string()
    };
    let route = kept("virtualservice");
    lab.kubectl(&["delete", "virtualservice", "my-app"]);
    // Without a route there is no share to set: it is said, and no step is left.
    lab.release("the missing route is said", |s| s["message"].as_str().is_some_and(|m| m.contains("no VirtualService")));
    std::thread::sleep(std::time::Duration::from_secs(3));
    let phase = lab.object("canaryrelease", "my-app")["status"]["phase"].clone();
    assert!(phase == "Progressing" || phase == "Paused", "{phase}");
    lab.apply(&route);
    // Whoever restored it wrote its weights: where they are those that were, nothing has changed.
    lab.release("it goes on with the route", |s| {
        s["phase"] == "Progressing" && !s["message"].as_str().is_some_and(|m| m.contains("no VirtualService"))
    });
    let rules = kept("destinationrule");
    lab.kubectl(&["delete", "destinationrule", "my-app"]);
    lab.apply(&rules);
    let status = until("it comes to an end", || {
        let s = lab.object("canaryrelease", "my-app")["status"].clone();
        match s["phase"].as_str() {
            Some("Idle" | "Paused") => Ok(s),
            _ => Err(format!("{} {}", s["phase"], s["message"])),
        }
    });
    // Callers that found no cluster just after a weight went up make it pause; nobody is blamed for what was deleted.
    if status["phase"] == "Paused" {
        assert_eq!(lab.serin(&["resume", "my-app"]).status.code(), Some(0));
    }
    lab.release("v2 is promoted", |s| s["phase"] == "Idle" && s["stable"]["version"] == "v2");
    let seen = callers.end();
    // While the rules were gone Envoy had no cluster for the subsets; no pod ever failed.
    let by_versions: Vec<_> = seen.iter().filter(|s| !s.version.is_empty()).collect();
    assert!(by_versions.iter().all(|s| s.status == 200), "{:?}", tally(&seen));
}

/// An autoscaler owns the canary's replicas: Serin asks for none, says what lacks, and goes on when the autoscaler has made them.
#[test]
#[ignore = "needs envoy and kubectl"]
fn an_autoscaler_that_owns_the_replicas_is_waited_for_and_never_overruled() {
    let _alone = alone();
    let lab = Lab::up(&["--controller"]);
    article(&lab);
    lab.release("the split is found", |s| s["phase"] == "Paused");
    lab.kubectl(&["scale", "deployment/my-app-v2", "--replicas=1"]);
    lab.kubectl(&["autoscale", "deployment/my-app-v2", "--min=1", "--max=5", "--cpu-percent=70"]);
    until("one pod is left", || {
        let ready = lab.object("deployment", "my-app-v2")["status"]["readyReplicas"].clone();
        if ready == 1 { Ok(()) } else { Err(ready.to_string()) }
    });
    let callers = Callers::start(&lab.callers(), 4);
    assert_eq!(lab.serin(&["resume", "my-app"]).status.code(), Some(0));
    let status = lab.release("it waits for the autoscaler", |s| {
        s["message"].as_str().is_some_and(|m| m.contains("HorizontalPodAutoscaler") && m.contains("my-app-v2"))
    });
    let waits_at = lab.weights()["v2"];
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(lab.object("deployment", "my-app-v2")["spec"]["replicas"], 1, "Serin scaled what an autoscaler owns: {status}");
    assert_eq!(lab.weights()["v2"], waits_at);
    // The autoscaler follows the load, through the scale subresource as it always does.
    lab.kubectl(&["scale", "deployment/my-app-v2", "--replicas=3"]);
    lab.release("v2 is promoted", |s| s["phase"] == "Idle" && s["stable"]["version"] == "v2");
    assert_eq!(lab.object("deployment", "my-app-v2")["spec"]["replicas"], 3);
    let seen = callers.end();
    assert!(seen.iter().all(|s| s.status == 200), "{:?}", tally(&seen));
}
