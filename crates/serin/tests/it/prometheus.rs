//! A whole rollout that takes its verdict from a real Prometheus, which scrapes the lab as it would a mesh; and what happens
//! while it is gone. The controller reads no proxy itself here.
#![expect(clippy::print_stderr, reason = "what Prometheus told is for whoever reads a failure")]

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Background, Callers, Lab, alone, call, example, said, tally, until};

/// A Prometheus of a test's own.
struct Prometheus {
    folder: tempfile::TempDir,
    port: u16,
    running: Option<Child>,
}

impl Prometheus {
    /// One that scrapes every proxy of the lab, each second.
    fn start(lab: &Lab) -> Self {
        Self::scraping(lab, "")
    }

    /// The same, with this added to how it scrapes.
    fn scraping(lab: &Lab, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let mut prometheus = Self { folder, port, running: None };
        prometheus.configure(lab, more);
        prometheus.run();
        prometheus
    }

    fn configure(&self, lab: &Lab, more: &str) {
        let proxies = lab.kubectl(&["get", "pods", "-A", "-l", "serin.dev/lab=proxy", "-o", "jsonpath={.items[*].status.podIP}"]);
        let targets: Vec<String> = proxies.split_whitespace().map(|ip| format!("'{ip}:15090'")).collect();
        assert!(!targets.is_empty(), "the lab shows no proxies");
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n- job_name: istio-proxies\n  metrics_path: /stats/prometheus\n  static_configs:\n  - targets: [{}]\n{more}",
            targets.join(", ")
        );
        std::fs::write(self.folder.path().join("prometheus.yml"), config).expect("a file");
    }

    fn run(&mut self) {
        let program =
            std::env::var_os("SERIN_TEST_PROMETHEUS").expect("SERIN_TEST_PROMETHEUS names a Prometheus: run ./test, which fetches one");
        let at = |name: &str| -> PathBuf { self.folder.path().join(name) };
        let log = File::create(at("log")).expect("a log");
        let child = Command::new(program)
            .arg(format!("--config.file={}", at("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", at("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{}", self.port))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus runs");
        self.running = Some(child);
        until("an answer of Prometheus", || std::net::TcpStream::connect(("127.0.0.1", self.port)).map(drop).map_err(|e| e.to_string()));
    }

    fn signal(&self, name: &str) {
        let pid = self.running.as_ref().expect("it runs").id();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("Prometheus said:\n{}", std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default());
        }
        self.kill();
    }
}

/// v1 with the whole weight, a release of the demo's plan read every second, and a controller that asks Prometheus alone.
fn adopted(lab: &Lab, url: &str) -> Background {
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
    let release = std::fs::read_to_string(example("demo/canary-release.yaml")).expect("an example");
    lab.apply(&release.replace("interval: 500ms", "interval: 1s\n    source: main"));
    let config = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(config.path(), format!("sources:\n- name: main\n  prometheus: {{url: '{url}', delay: 1s}}\n")).expect("a file");
    let controller = lab.spawn(&["controller", "--config", config.path().to_str().expect("a path")]);
    lab.release("v1 is found", |s| s["stable"]["version"] == "v1" && s["phase"] == "Idle");
    until("the first answer", || if call(&lab.callers()).status == 200 { Ok(()) } else { Err(String::new()) });
    controller
}

/// The release's policy names the source, the controller's own configuration none; and what it scrapes lacks a label.
#[test]
#[ignore = "needs envoy, kubectl and prometheus"]
fn a_policys_prometheus_that_lacks_a_label_holds_the_rollout_before_it_begins_and_says_which() {
    let _alone = alone();
    let lab = Lab::up(&[]);
    let lacks = "  metric_relabel_configs:\n  - {regex: destination_workload, action: labeldrop}\n";
    let prometheus = Prometheus::scraping(&lab, lacks);
    // Nobody answers where the controller itself would ask.
    let _controller = adopted(&lab, "http://127.0.0.1:9");
    lab.apply(&format!(
        "apiVersion: serin.dev/v1alpha1\nkind: CanaryPolicy\nmetadata: {{name: team}}\nspec:\n  sources:\n  - name: main\n    prometheus: {{url: '{}', delay: 1s}}\n",
        prometheus.url()
    ));
    lab.kubectl(&["patch", "canaryrelease", "my-app", "--type", "merge", "-p", r#"{"spec":{"policy":"team"}}"#]);
    let callers = Callers::start(&lab.callers(), 4);
    version(&lab, "v2", "");
    let status = lab.release("the label that lacks is said", |s| s["message"].as_str().is_some_and(|m| m.contains("destination_workload")));
    assert_eq!(status["phase"], "Preparing", "{status}");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(lab.weights().get("v2").copied().unwrap_or(0), 0);
    prometheus.configure(&lab, "");
    prometheus.signal("HUP");
    lab.release("v2 is promoted", |s| s["phase"] == "Idle" && s["stable"]["version"] == "v2");
    let seen = callers.end();
    assert!(seen.iter().all(|s| s.status == 200), "{:?}", tally(&seen));
}

fn version(lab: &Lab, name: &str, environment: &str) {
    let v2 = std::fs::read_to_string(example("article/my-app-v2.yaml")).expect("an example");
    let text = format!("{}{environment}", v2.replace("v2", name));
    lab.apply(&text);
}

#[test]
#[ignore = "needs envoy, kubectl and prometheus"]
fn a_real_prometheus_has_v2_promoted_and_v3_taken_back() {
    let _alone = alone();
    let lab = Lab::up(&[]);
    let prometheus = Prometheus::start(&lab);
    let _controller = adopted(&lab, &prometheus.url());
    let callers = Callers::start(&lab.callers(), 4);
    version(&lab, "v2", "");
    let status = lab.release("v2 is promoted", |s| s["phase"] == "Idle" && s["stable"]["version"] == "v2");
    assert_eq!(status["history"][0]["outcome"], "Promoted");
    let served = status["history"][0]["served"]["canary"]["requests"].as_u64().expect("a number");
    assert!(served > 100, "Prometheus' counts reached the verdict: {served}");
    version(&lab, "v3", "        env:\n        - {name: ERROR_RATE, value: \"50%\"}\n");
    let status = lab.release("v3 is taken back", |s| s["phase"] == "RolledBack");
    assert!(status["message"].as_str().is_some_and(|m| m.contains("v3")), "{status}");
    let weights = lab.weights();
    assert_eq!((weights.get("v3").copied().unwrap_or(0), weights["v2"]), (0, 100));
    let seen = callers.end();
    assert!(seen.iter().all(|s| s.status == 200 || s.version == "v3"), "a request failed that was not v3's: {:?}", tally(&seen));
    // What that Prometheus recorded goes through the plan again, without a cluster: every request that v3 answered, once, and no end but a just one.
    // (Whether so few requests convict it again is chance: they may all lie in one span of the record, and one reading alone convicts nobody.)
    let answered = seen.iter().filter(|s| s.version == "v3").count();
    let plan = example("demo/canary-release.yaml");
    let live = ["--prometheus-url", &prometheus.url(), "--service", "default/my-app", "--past", "5m"];
    let replay = |more: &[&str]| lab.serin(&[&["replay"], live.as_slice(), more].concat());
    let replayed = until("all of v3's requests are recorded", || {
        let out = replay(&["--stable", "my-app-v2", "--canary", "my-app-v3", "--release", plan.to_str().expect("a path"), "-o", "json"]);
        let replayed: Value = serde_json::from_slice(&out.stdout).map_err(|e| format!("{e}: {}", said(&out)))?;
        if replayed["requests"]["canary"].as_f64() == Some(answered as f64) { Ok(replayed) } else { Err(format!("{answered} {replayed}")) }
    });
    assert_ne!(replayed["end"], "Promoted", "{replayed:#}");
    let out = replay(&["--aa", "--stable", "my-app-v2", "--runs", "20", "-o", "json"]);
    let against_itself: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&out)));
    assert!(against_itself["requests"].as_f64().is_some_and(|n| n > 100.0), "{against_itself:#}");
    // A release for another name of the same service: its rate comes from there too.
    lab.kubectl(&["delete", "canaryrelease", "my-app"]);
    let out = lab.serin(&["init", "my-app", "--prometheus-url", &prometheus.url(), "--measure", "5m"]);
    let told = said(&out);
    assert!(out.status.success() && told.contains("requests a second") && told.contains("as counted over 5m"), "{told}");
    assert!(told.contains("step by step: 1 % 2m"), "{told}");
    let out = lab.serin(&["replay", "--aa", "--prometheus-url", &prometheus.url(), "--service", "nobody/nothing"]);
    assert!(out.status.code() == Some(2) && said(&out).contains("nobody called Service nobody/nothing"), "{}", said(&out));
}

#[test]
#[ignore = "needs envoy, kubectl and prometheus"]
fn a_quantile_and_a_query_are_asked_of_a_real_prometheus() {
    let _alone = alone();
    let lab = Lab::up(&[]);
    let prometheus = Prometheus::start(&lab);
    let _controller = adopted(&lab, &prometheus.url());
    let query = r#"sum(rate(istio_requests_total{reporter=\"source\",destination_workload=\"{{ canary.workload }}\"}[10s]))"#;
    let metrics = format!(
        r#"{{"spec":{{"analysis":{{"metrics":[{{"name":"errors","errorRate":{{"margin":"0.5%"}}}},{{"name":"p90","latency":{{"quantile":"0.9","mayGrow":"50%"}}}},{{"name":"served","promql":{{"query":"{query}","min":"0.5","failureLimit":4}}}}]}}}}}}"#
    );
    lab.kubectl(&["patch", "canaryrelease", "my-app", "--type", "merge", "-p", &metrics]);
    let callers = Callers::start(&lab.callers(), 4);
    version(&lab, "v2", "");
    lab.release("the query's answers and the forecast are shown", |s| {
        let limit = &s["analysis"]["limits"][0];
        let last = limit["last"].as_str().and_then(|v| v.parse::<f64>().ok());
        limit["verdict"] == "Pass" && last.is_some_and(|v| v > 0.5) && s["rollout"]["remaining"].as_str().is_some_and(|t| t.ends_with('s'))
    });
    let status = lab.release("v2 is promoted", |s| s["phase"] == "Idle" && s["stable"]["version"] == "v2");
    assert_eq!(status["history"][0]["outcome"], "Promoted");
    let told = lab.kubectl(&["get", "events", "-o", "jsonpath={range .items[*]}{.reason} {.message}{\"\\n\"}{end}"]);
    assert!(told.contains("LatencyLearnt p90: p90 of stable is "), "{told}");
    version(&lab, "v3", "        env:\n        - {name: LATENCY_MS, value: \"300\"}\n");
    let status = lab.release("v3 is taken back", |s| s["phase"] == "RolledBack");
    let message = status["message"].as_str().unwrap_or_default();
    assert!(message.contains("v3 took over ") && message.contains("points are allowed"), "{status}");
    let seen = callers.end();
    assert!(seen.iter().all(|s| s.status == 200), "slow is not failed: {:?}", tally(&seen));
}

/// Two counters by name, whatever they count: here the answers of Envoy by class, with no metric of Serin's own beside them.
#[test]
#[ignore = "needs envoy, kubectl and prometheus"]
fn two_counters_of_a_real_prometheus_promote_v2_and_take_v3_back() {
    let _alone = alone();
    let lab = Lab::up(&[]);
    let prometheus = Prometheus::start(&lab);
    let _controller = adopted(&lab, &prometheus.url());
    let all = r#"istio_requests_total{reporter=\"source\",destination_workload=\"{{ arm.workload }}\""#;
    let metrics = format!(
        r#"{{"spec":{{"analysis":{{"metrics":[{{"name":"answers","promql":{{"bad":"{all},response_code=~\"5..\"}}","total":"{all}}}","margin":"1%"}}}}]}}}}}}"#
    );
    lab.kubectl(&["patch", "canaryrelease", "my-app", "--type", "merge", "-p", &metrics]);
    let callers = Callers::start(&lab.callers(), 4);
    version(&lab, "v2", "");
    let status = lab.release("v2 is promoted", |s| s["phase"] == "Idle" && s["stable"]["version"] == "v2");
    assert_eq!(status["history"][0]["outcome"], "Promoted");
    version(&lab, "v3", "        env:\n        - {name: ERROR_RATE, value: \"50%\"}\n");
    let status = lab.release("v3 is taken back", |s| s["phase"] == "RolledBack");
    let message = status["message"].as_str().unwrap_or_default();
    assert!(message.contains("v3 failed ") && message.contains(" answers, v2 "), "{status}");
    let seen = callers.end();
    assert!(seen.iter().all(|s| s.status == 200 || s.version == "v3"), "{:?}", tally(&seen));
}

#[test]
#[ignore = "needs envoy, kubectl and prometheus"]
fn a_prometheus_that_stops_holds_the_step_and_one_that_comes_back_lets_it_go_on() {
    let _alone = alone();
    let lab = Lab::up(&[]);
    let mut prometheus = Prometheus::start(&lab);
    let _controller = adopted(&lab, &prometheus.url());
    let callers = Callers::start(&lab.callers(), 4);
    // A name that nobody configured is said with those that are, and nothing moves.
    lab.kubectl(&["patch", "canaryrelease", "my-app", "--type", "merge", "-p", r#"{"spec":{"analysis":{"source":"mian"}}}"#]);
    let status = lab.release("the wrong name is said", |s| s["message"].as_str().is_some_and(|m| m.contains("mian")));
    assert!(status["message"].as_str().is_some_and(|m| m.contains("they name main")), "{status}");
    lab.kubectl(&[
        "patch",
        "canaryrelease",
        "my-app",
        "--type",
        "merge",
        "-p",
        r#"{"spec":{"analysis":{"source":"main"},"steps":[{"weight":10,"hold":"6s"},{"weight":50,"hold":"6s","confirm":true}]}}"#,
    ]);
    lab.release("the right name works", |s| s["phase"] == "Idle" && !s["message"].as_str().is_some_and(|m| m.contains("mian")));
    version(&lab, "v2", "");
    let at = |weight: i64| move |s: &Value, now: i64| s["phase"] == "Progressing" && now == weight;
    lab.release("the first step", |s| at(10)(s, lab.weights().get("v2").copied().unwrap_or(0)));
    // Stopped, it takes questions and never answers.
    prometheus.signal("STOP");
    let status = lab.release("the silence is said", |s| s["message"].as_str().is_some_and(|m| m.contains("no answer within")));
    assert!(status["message"].as_str().is_some_and(|m| m.contains(&prometheus.url())), "{status}");
    // Longer than the step's hold.
    let held = |weight: i64| {
        let end = std::time::Instant::now() + Duration::from_secs(8);
        while std::time::Instant::now() < end {
            assert_eq!(lab.weights()["v2"], weight, "the step was left without an answer");
            std::thread::sleep(Duration::from_millis(500));
        }
    };
    held(10);
    prometheus.signal("CONT");
    lab.release("the second step", |s| at(50)(s, lab.weights()["v2"]));
    // Killed, nobody listens.
    prometheus.kill();
    lab.release("the refusal is said", |s| s["message"].as_str().is_some_and(|m| m.contains("refused")));
    held(50);
    prometheus.run();
    lab.release("v2 is promoted", |s| s["phase"] == "Idle" && s["stable"]["version"] == "v2");
    let seen = callers.end();
    assert!(seen.iter().all(|s| s.status == 200), "{:?}", tally(&seen));
}
