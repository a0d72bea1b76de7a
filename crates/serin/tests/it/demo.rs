//! `serin demo`, end to end: its exit code and its summary, and that nothing is left of it.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{SERIN, alive, alone, descendants, said, until};

fn demo(flags: &[&str]) -> (Option<i32>, Value, String) {
    let out = Command::new(SERIN).args(["demo", "-o", "json"]).args(flags).output().expect("serin runs");
    let summary = serde_json::from_slice(&out.stdout).unwrap_or(Value::Null);
    (out.status.code(), summary, said(&out))
}

/// What must hold whatever the fault.
fn adds_up(summary: &Value, told: &str) {
    assert_eq!(summary["found"]["verdict"]["agrees"], false, "{told}");
    assert!(summary["found"]["because"].as_str().is_some_and(|b| b.contains("bypass")), "{told}");
    let judged: String = told.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        judged.contains(
            "check my-app-virtual-service.yaml:10:3: error[SRN301]: callers inside the mesh bypass this route; serin check: 4 files"
        ),
        "{told}"
    );
    assert_eq!(summary["mended"][0], "spec.gateways: [my-gateway] → [my-gateway, mesh]", "{told}");
    assert_eq!(summary["verified"]["verdict"]["agrees"], true, "{told}");
    let totals = &summary["totals"];
    assert_eq!(totals["failed"], totals["failedByFault"], "a request failed that was not the fault's: {told}");
    assert_eq!(totals["answered"].as_u64().zip(totals["failed"].as_u64()).map(|(a, f)| a + f), totals["requests"].as_u64(), "{told}");
    let counters = summary["envoy"].as_array().expect("counters");
    assert!(!counters.is_empty() && counters.iter().all(|c| c["envoy"] == c["log"]), "{told}");
    assert_eq!(counters.iter().filter_map(|c| c["log"].as_u64()).sum::<u64>(), totals["requests"].as_u64().expect("a number"), "{told}");
    let good = &summary["rollouts"][0];
    assert_eq!((good["canary"].as_str(), good["outcome"].as_str()), (Some("v2"), Some("Promoted")), "{told}");
    let set: Vec<f64> = good["steps"].as_array().expect("steps").iter().filter_map(|s| s["set"].as_f64()).collect();
    assert_eq!(set, [0.1, 0.25, 0.5, 1.0], "{told}");
    assert_eq!(good["canaryFailed"], 0, "{told}");
}

#[test]
#[ignore = "needs envoy"]
fn the_demo_promotes_v2_and_takes_v3_back() {
    let _alone = alone();
    let (code, summary, told) = demo(&["--seed", "7"]);
    assert_eq!(code, Some(0), "{told}");
    adds_up(&summary, &told);
    assert_eq!(summary["differences"], serde_json::json!([]), "{told}");
    let bad = &summary["rollouts"][1];
    assert_eq!((bad["canary"].as_str(), bad["outcome"].as_str()), (Some("v3"), Some("RolledBack")), "{told}");
    assert!(bad["usersHit"].as_u64().is_some_and(|n| n > 0), "{told}");
    assert_eq!(summary["totals"]["failedByFault"].as_u64(), bad["canaryFailed"].as_u64(), "{told}");
    assert!(bad["why"].as_str().is_some_and(|w| w.starts_with("v3 failed ")), "{told}");
    let reasons: Vec<&str> = bad["decisions"].as_array().expect("decisions").iter().filter_map(|d| d["reason"].as_str()).collect();
    assert!(reasons.contains(&"GoesBack"), "{told}");
}

#[test]
#[ignore = "needs envoy"]
fn a_v3_without_a_fault_is_promoted_and_differs() {
    let _alone = alone();
    let (code, summary, told) = demo(&["--fault", "0"]);
    assert_eq!(code, Some(1), "{told}");
    adds_up(&summary, &told);
    assert_eq!(summary["rollouts"][1]["outcome"], "Promoted", "{told}");
    assert_eq!(summary["totals"]["failed"], 0, "{told}");
}

#[test]
#[ignore = "needs envoy"]
fn a_small_fault_is_found_too() {
    let _alone = alone();
    let (code, summary, told) = demo(&["--fault", "5%", "--seed", "3"]);
    assert_eq!(code, Some(0), "{told}");
    adds_up(&summary, &told);
    assert_eq!(summary["rollouts"][1]["outcome"], "RolledBack", "{told}");
}

#[test]
#[ignore = "needs envoy"]
fn it_ends_the_same_with_the_controller_in_a_process_of_its_own() {
    let _alone = alone();
    let (code, summary, told) = demo(&["--external-controller"]);
    assert_eq!(code, Some(0), "{told}");
    adds_up(&summary, &told);
}

#[test]
#[ignore = "needs envoy"]
fn no_process_outlives_a_demo_however_it_ends() {
    let _alone = alone();
    for signal in ["KILL", "INT", "HUP", "TERM"] {
        let mut child = Command::new(SERIN)
            .args(["demo", "--external-controller"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("serin runs");
        // Envoy and the controller, each under its guard, and the pods of v1 and v2.
        let below = until("the demo's processes", || {
            let below = descendants(child.id());
            if below.len() >= 8 { Ok(below) } else { Err(format!("{below:?}")) }
        });
        let sent = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
        let status = child.wait().expect("it ends");
        if signal != "KILL" {
            assert_eq!(status.code(), Some(130), "after SIG{signal}");
        }
        until(&format!("the end of all processes after SIG{signal}"), || {
            let left = alive(&below);
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
    }
}
