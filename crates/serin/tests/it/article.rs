//! The article's six steps by hand, on a lab, with kubectl: as the README tells them.

use crate::support::{Lab, alone, bind_to_mesh, call, example, until};

fn apply(lab: &Lab, file: &str) {
    lab.kubectl(&["apply", "-f", example(file).to_str().expect("a path")]);
}

fn share_of_v2(lab: &Lab, requests: usize) -> f64 {
    let callers = lab.callers();
    let seen: Vec<_> = (0..requests).map(|_| call(&callers)).collect();
    assert!(seen.iter().all(|s| s.status == 200), "{:?}", crate::support::tally(&seen));
    seen.iter().filter(|s| s.version == "v2").count() as f64 / requests as f64
}

#[test]
#[ignore = "needs envoy and kubectl"]
fn the_articles_six_steps_work_with_kubectl() {
    let _alone = alone();
    let lab = Lab::up(&[]);

    // 1: the stable version.
    apply(&lab, "article/my-app-v1.yaml");
    lab.kubectl(&["rollout", "status", "deployment/my-app-v1", "--timeout=60s"]);
    until("the first answer", || if call(&lab.callers()).version == "v1" { Ok(()) } else { Err(format!("{:?}", call(&lab.callers()))) });

    // 2: the canary version, behind the same Service: one pod of four.
    apply(&lab, "article/my-app-v2.yaml");
    lab.kubectl(&["rollout", "status", "deployment/my-app-v2", "--timeout=60s"]);
    assert_eq!(lab.kubectl(&["get", "pods", "-l", "app=my-app", "-o", "name"]).lines().count(), 4);
    until("v2 among the answers", || if share_of_v2(&lab, 50) > 0.0 { Ok(()) } else { Err("v1 alone".into()) });

    // 3: rule and route, as the article has them: callers in the mesh bypass them.
    apply(&lab, "article/my-app-destination-rule.yaml");
    apply(&lab, "article/my-app-virtual-service.yaml");
    let out = lab.serin(&["verify", "my-app", "--requests", "800", "-o", "json"]);
    assert_eq!(out.status.code(), Some(1), "{}", crate::support::said(&out));
    let verdict: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert!(verdict["because"].as_str().is_some_and(|b| b.contains("my-gateway only")), "{verdict:#}");

    // The smallest mend, by hand.
    bind_to_mesh(&lab);

    // 4: verify with traffic.
    until("the split as set", || {
        let out = lab.serin(&["verify", "my-app", "--requests", "800"]);
        if out.status.code() == Some(0) { Ok(()) } else { Err(crate::support::said(&out)) }
    });

    // 5: more traffic to the canary.
    let weights = |v1: u32, v2: u32| {
        lab.kubectl(&[
            "patch", "virtualservice", "my-app", "--type", "json", "-p",
            &format!(r#"[{{"op":"replace","path":"/spec/http/0/route/0/weight","value":{v1}}},{{"op":"replace","path":"/spec/http/0/route/1/weight","value":{v2}}}]"#),
        ]);
    };
    weights(50, 50);
    until("half and half", || {
        let share = share_of_v2(&lab, 400);
        if (0.35..0.65).contains(&share) { Ok(()) } else { Err(format!("{share}")) }
    });

    // 6: all of it, and back.
    weights(0, 100);
    until("v2 alone", || if share_of_v2(&lab, 100) == 1.0 { Ok(()) } else { Err("v1 still answers".into()) });
    weights(100, 0);
    until("v1 alone", || if share_of_v2(&lab, 100) == 0.0 { Ok(()) } else { Err("v2 still answers".into()) });

    // What a person looks at on the way.
    assert!(lab.kubectl(&["get", "deployments"]).contains("my-app-v1   3/3"));
    assert!(lab.kubectl(&["logs", "deployment/my-app-v1"]).lines().count() > 0);
    lab.kubectl(&["scale", "deployment/my-app-v2", "--replicas=2"]);
    lab.kubectl(&["rollout", "status", "deployment/my-app-v2", "--timeout=60s"]);
    lab.kubectl(&["delete", "-f", example("article/my-app-v2.yaml").to_str().expect("a path")]);
}
