//! What happens to a rollout from outside while a real Envoy carries real requests: another version, the proxy's death.

use std::process::Command;

use crate::support::{Lab, alone, descendants, example, on_trial, tally, until};

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
