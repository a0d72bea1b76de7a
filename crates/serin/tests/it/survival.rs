//! What must hold when things die: the controller, at any moment; the canary, before it lives; and an abort with nobody there.
#![expect(clippy::print_stdout, reason = "what a run tells is for whoever reads its output")]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serin_core::stats::random::Random;

use crate::support::{Callers, Lab, alone, article, call, example, tally, until};

#[test]
#[ignore = "needs envoy and kubectl"]
fn an_abort_works_without_a_controller_and_is_found_by_the_next() {
    let _alone = alone();
    let lab = Lab::up(&[]);
    article(&lab);
    let mut controller = lab.spawn(&["controller"]);
    lab.release("the split is found", |s| s["phase"] == "Paused");
    controller.kill();
    let callers = Callers::start(&lab.callers(), 2);
    let out = lab.serin(&["abort", "my-app", "--reason", "errors on checkout"]);
    assert_eq!(out.status.code(), Some(0), "{}", crate::support::said(&out));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.contains("v2 10 % → 0 %") && text.contains("did not answer within 1 s"), "{text}");
    assert_eq!(lab.weights(), [("v1".to_string(), 100), ("v2".to_string(), 0)].into());
    let uid = lab.object("canaryrelease", "my-app")["status"]["rollout"]["uid"].clone();
    assert_eq!(lab.object("virtualservice", "my-app")["metadata"]["annotations"]["serin.dev/aborted"], uid);
    // The next controller finds it, and moves nothing.
    let _controller = lab.spawn(&["controller"]);
    lab.release("the abort is found", |s| s["phase"] == "RolledBack");
    assert_eq!(lab.weights(), [("v1".to_string(), 100), ("v2".to_string(), 0)].into());
    let seen = callers.end();
    assert!(seen.iter().all(|s| s.status == 200), "{:?}", tally(&seen));
    // Asked again, it is done already.
    let out = lab.serin(&["abort", "my-app"]);
    assert_eq!(out.status.code(), Some(0), "{}", crate::support::said(&out));
}

#[test]
#[ignore = "needs envoy and kubectl"]
fn an_abort_that_would_be_the_outage_wants_force() {
    let _alone = alone();
    let lab = Lab::up(&[]);
    article(&lab);
    // Its pods are ready, and the Service sends them nothing.
    let select = |selector: &str| lab.kubectl(&["patch", "service", "my-app", "--type=merge", "-p", selector]);
    select(r#"{"spec":{"selector":{"version":"v2"}}}"#);
    until("v1 has no endpoint", || {
        let slices = lab.kubectl(&["get", "endpointslices", "-l", "kubernetes.io/service-name=my-app", "-o", "yaml"]);
        if slices.contains("name: my-app-v1-") { Err(slices) } else { Ok(()) }
    });
    let out = lab.serin(&["abort", "my-app"]);
    assert_eq!(out.status.code(), Some(1), "{}", crate::support::said(&out));
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("no endpoint of Service my-app is a pod of v1"),
        "{}",
        crate::support::said(&out)
    );
    assert_eq!(lab.weights()["v2"], 10);
    select(r#"{"spec":{"selector":{"version":null}}}"#);
    lab.kubectl(&["scale", "deployment/my-app-v1", "--replicas=0"]);
    until("v1 has no pod", || {
        let ready = lab.object("deployment", "my-app-v1")["status"]["readyReplicas"].as_i64().unwrap_or(0);
        if ready == 0 { Ok(()) } else { Err(format!("{ready} ready")) }
    });
    let out = lab.serin(&["abort", "my-app"]);
    assert_eq!(out.status.code(), Some(1), "{}", crate::support::said(&out));
    assert!(String::from_utf8_lossy(&out.stderr).contains("serin abort my-app --force"), "{}", crate::support::said(&out));
    assert_eq!(lab.weights()["v2"], 10);
    let out = lab.serin(&["abort", "my-app", "--force"]);
    assert_eq!(out.status.code(), Some(0), "{}", crate::support::said(&out));
    assert_eq!(lab.weights()["v2"], 0);
}

#[test]
#[ignore = "needs envoy and kubectl"]
fn a_controller_killed_at_twenty_moments_comes_to_the_same_end() {
    let _alone = alone();
    let seed = std::env::var("SERIN_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_125);
    println!("SERIN_TEST_SEED={seed}");
    let lab = Lab::up(&[]);
    article(&lab);
    let callers = Callers::start(&lab.callers(), 4);
    let mut draws = Random::new(seed);
    let mut controller = lab.spawn(&["controller"]);
    lab.release("the split is found", |s| s["phase"] == "Paused");
    let out = lab.serin(&["resume", "my-app"]);
    assert_eq!(out.status.code(), Some(0), "{}", crate::support::said(&out));
    for _ in 0..20 {
        std::thread::sleep(Duration::from_secs_f64(0.05 + 0.95 * draws.unit()));
        controller.kill();
        controller = lab.spawn(&["controller"]);
    }
    lab.release("v2 is promoted", |s| s["phase"] == "Idle" && s["stable"]["version"] == "v2");
    assert_eq!(lab.weights(), [("v1".to_string(), 0), ("v2".to_string(), 100)].into());
    assert_eq!(lab.object("deployment", "my-app-v1")["spec"]["replicas"], 3);
    let seen = callers.end();
    assert!(seen.len() > 1000 && seen.iter().all(|s| s.status == 200), "seed {seed}: {:?}", tally(&seen));
}

#[test]
#[ignore = "needs envoy and kubectl"]
fn a_canary_that_is_never_ready_gets_no_request() {
    let _alone = alone();
    let lab = Lab::up(&["--controller"]);
    for file in ["article/my-app-v1.yaml", "article/my-app-destination-rule.yaml"] {
        lab.kubectl(&["apply", "-f", example(file).to_str().expect("a path")]);
    }
    let route = std::fs::read_to_string(example("article/my-app-virtual-service.yaml")).expect("an example");
    lab.apply(
        &route
            .replace("weight: 90", "weight: 100")
            .replace("weight: 10\n", "weight: 0\n")
            .replace("- my-gateway", "- my-gateway\n  - mesh"),
    );
    lab.kubectl(&["rollout", "status", "deployment/my-app-v1", "--timeout=60s"]);
    lab.kubectl(&["apply", "-f", example("demo/canary-release.yaml").to_str().expect("a path")]);
    lab.release("v1 is found", |s| s["stable"]["version"] == "v1");
    until("the first answer", || if call(&lab.callers()).status == 200 { Ok(()) } else { Err(String::new()) });
    let callers = Callers::start(&lab.callers(), 2);
    let v2 = std::fs::read_to_string(example("article/my-app-v2.yaml")).expect("an example");
    let never = format!(
        "{v2}        readinessProbe:\n          httpGet: {{path: /readyz, port: 8080}}\n          periodSeconds: 1\n        env:\n        - {{name: NOT_READY, value: \"true\"}}\n"
    );
    lab.apply(&never);
    lab.release("it waits for pods", |s| {
        s["phase"] == "Preparing" && s["message"].as_str().is_some_and(|m| m.starts_with("waits for pods"))
    });
    let why = lab.serin(&["why", "my-app"]);
    assert!(String::from_utf8_lossy(&why.stdout).contains("waits for pods: v2 has 0 ready, 1 needed"), "{}", crate::support::said(&why));
    assert_eq!(lab.weights().get("v2").copied().unwrap_or(0), 0);
    let seen = callers.end();
    assert!(seen.iter().all(|s| s.status == 200 && s.version == "v1"), "{:?}", tally(&seen));
}

/// A way to the API server that can be cut: connections are reset, and new ones refused by being closed.
struct Relay {
    port: u16,
    cut: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (cut, open) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let relay = Self { port, cut: cut.clone(), open: open.clone() };
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(far) = TcpStream::connect(&server) else { continue };
                for (mut from, mut to) in [
                    (near.try_clone().expect("a socket"), far.try_clone().expect("a socket")),
                    (far.try_clone().expect("a socket"), near.try_clone().expect("a socket")),
                ] {
                    std::thread::spawn(move || {
                        let mut buffer = [0; 16 * 1024];
                        while let Ok(n @ 1..) = from.read(&mut buffer) {
                            if to.write_all(&buffer[..n]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                open.lock().expect("sockets").extend([near, far]);
            }
        });
        relay
    }

    fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        for socket in self.open.lock().expect("sockets").drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.cut.store(false, Ordering::SeqCst);
    }
}

/// As when the API server is restarted, for longer than a lease lasts: nothing moves, nobody fails, and the same process goes on.
#[test]
#[ignore = "needs envoy and kubectl"]
fn an_api_server_that_goes_away_in_the_middle_moves_nothing_and_the_rollout_goes_on() {
    let _alone = alone();
    let lab = Lab::up(&[]);
    article(&lab);
    let config = std::fs::read_to_string(lab.kubeconfig()).expect("a kubeconfig");
    let server = config.lines().find_map(|l| l.trim().strip_prefix("server: https://")).expect("a server").trim_matches('"').to_string();
    let relay = Relay::to(server.clone());
    let through = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(through.path(), config.replace(&server, &format!("127.0.0.1:{}", relay.port))).expect("written");
    let mut controller = lab.spawn(&["controller", "--leader-elect", "--kubeconfig", through.path().to_str().expect("a path")]);
    lab.release("the split is found", |s| s["phase"] == "Paused");
    let steps = r#"{"spec":{"steps":[{"weight":10,"hold":"6s"},{"weight":50,"hold":"2s","confirm":true}]}}"#;
    lab.kubectl(&["patch", "canaryrelease", "my-app", "--type=merge", "-p", steps]);
    let callers = Callers::start(&lab.callers(), 4);
    assert_eq!(lab.serin(&["resume", "my-app"]).status.code(), Some(0));
    lab.release("it goes on", |s| s["phase"] == "Progressing");
    relay.cut();
    for _ in 0..40 {
        assert_eq!(lab.weights()["v2"], 10, "a weight moved though nobody could write it");
        std::thread::sleep(Duration::from_millis(500));
    }
    relay.mend();
    let status = lab.release("v2 is promoted", |s| s["phase"] == "Idle" && s["stable"]["version"] == "v2");
    assert_eq!(status["history"].as_array().map(Vec::len), Some(1), "{status}");
    assert!(controller.0.try_wait().expect("its status").is_none(), "the controller ended");
    let seen = callers.end();
    assert!(seen.iter().all(|s| s.status == 200), "{:?}", tally(&seen));
}
