//! Pods as real processes: the sample app, mapped commands, probes, restarts, logs, and the end of all of them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use serin_lab::store::{Key, Store, Write};
use serin_lab::workloads::{LogOptions, Logs, PodIps, WorkloadConfig, guarded, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::world::*;

/// Generous: the machine may be busy. Nothing waits this long unless it fails.
const LIMIT: Duration = Duration::from_secs(60);

fn self_exe() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lab-child"))
}

struct Lab {
    store: Store,
    logs: Logs,
    stop: CancellationToken,
    running: JoinHandle<()>,
    temporary: tempfile::TempDir,
}

impl Lab {
    fn start(exec: bool, images: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(clock());
        let stop = CancellationToken::new();
        let logs = Logs::new(dir.path().join("logs"));
        let config = WorkloadConfig {
            self_exe: self_exe().to_owned(),
            logs: logs.clone(),
            exec,
            ips: PodIps::claim().unwrap(),
            images: images.iter().map(|i| (*i).to_owned()).collect(),
        };
        let running = tokio::spawn(run(store.clone(), config, stop.clone()));
        Self { store, logs, stop, running, temporary: dir }
    }

    fn dir(&self) -> &Path {
        self.temporary.path()
    }

    async fn end(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }

    fn pod(&self, name: &str, spec: Value) -> Key {
        let key = Key::namespaced("", "pods", "default", name);
        self.store.create(&key, json!({"metadata": {"labels": {"app": "my-app", "version": "v1"}}, "spec": spec})).unwrap();
        key
    }

    async fn until_pod(&self, key: &Key, what: &str, mut look: impl FnMut(&Value) -> bool) -> Value {
        until(&self.store, what, LIMIT, || self.store.get(key).filter(|p| look(p)).map(|p| (*p).clone())).await
    }

    async fn log(&self, pod: &str, container: &str, previous: bool) -> String {
        let path = self.logs.path("default", pod, container, previous).unwrap();
        let mut reader = self.logs.read(&path, LogOptions::default()).unwrap();
        let mut text = Vec::new();
        while let Some(piece) = reader.next().await {
            text.extend(piece.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    fn said(&self, reason: &str) -> Vec<String> {
        let mut all = list(&self.store, "", "events");
        all.sort_by_key(|e| e["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok()));
        all.iter().filter(|e| e["reason"] == reason).map(|e| e["message"].as_str().unwrap().to_owned()).collect()
    }
}

fn address(pod: &Value, port: u16) -> SocketAddr {
    SocketAddr::new(pod["status"]["podIP"].as_str().unwrap().parse().unwrap(), port)
}

async fn get(at: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(at).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

fn waiting(pod: &Value) -> &str {
    pod.pointer("/status/containerStatuses/0/state/waiting/reason").and_then(Value::as_str).unwrap_or_default()
}

fn app(image: &str) -> Value {
    json!({"name": "app", "image": image, "ports": [{"containerPort": 8080}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_articles_deployment_serves_from_three_addresses_and_ends_with_the_lab() {
    let lab = Lab::start(false, &[]);
    lab.store.create(&deployments("d"), deployment("d", "v1", 3)).unwrap();
    lab.store.create(&service("my-app"), my_service()).unwrap();
    until(&lab.store, "three ready endpoints", LIMIT, || {
        let slices = list(&lab.store, "discovery.k8s.io", "endpointslices");
        let all = slices.iter().flat_map(|s| s["endpoints"].as_array().unwrap()).filter(|e| e["conditions"]["ready"] == true);
        (all.count() == 3).then_some(())
    })
    .await;
    let mut addresses = Vec::new();
    for pod in pods(&lab.store) {
        let answer = get(address(&pod, 8080), "/anything").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let body = format!("{{\"version\":\"v1\",\"pod\":{}}}\n", pod["metadata"]["name"]);
        assert!(answer.ends_with(&body) && answer.contains("x-version: v1"), "{answer}");
        assert_eq!(pod["status"]["phase"], "Running");
        assert_eq!(pod["status"]["qosClass"], "BestEffort");
        assert_eq!(pod["spec"]["nodeName"], "serin-lab");
        addresses.push(address(&pod, 8080));
    }
    assert!(lab.said("Pulled")[0].contains("played by the sample app"));
    assert_eq!(lab.said("Scheduled").len(), 3);
    lab.end().await;
    for at in addresses {
        assert!(TcpStream::connect(at).await.is_err(), "{at} still answers");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_deleted_finishes_what_it_has_begun() {
    let lab = Lab::start(false, &[]);
    let mut container = app("slow:v1");
    container["env"] = json!([{"name": "LATENCY", "value": "1500ms"}]);
    let key = lab.pod("p", json!({"containers": [container], "terminationGracePeriodSeconds": 20}));
    let pod = lab.until_pod(&key, "ready", is_ready).await;
    let request = tokio::spawn(get(address(&pod, 8080), "/"));
    // The request is on its way when the process is told to end.
    let mut probe = TcpStream::connect(address(&pod, 8080)).await.unwrap();
    probe.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    probe.read_to_end(&mut Vec::new()).await.unwrap();
    lab.store.delete(&key, None, 20).unwrap();
    assert!(request.await.unwrap().unwrap().starts_with("HTTP/1.1 200"));
    until(&lab.store, "gone", LIMIT, || lab.store.get(&key).is_none().then_some(())).await;
    assert_eq!(lab.said("Killing"), ["Stopping container app"]);
    assert!(TcpStream::connect(address(&pod, 8080)).await.is_err());
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_update_under_load_fails_no_request() {
    let lab = Lab::start(false, &[]);
    lab.store.create(&service("my-app"), my_service()).unwrap();
    lab.store.create(&deployments("d"), deployment("d", "v1", 2)).unwrap();
    let endpoints = {
        let store = lab.store.clone();
        move || -> Vec<SocketAddr> {
            let slices = list(&store, "discovery.k8s.io", "endpointslices");
            let all = slices.iter().flat_map(|s| s["endpoints"].as_array().unwrap()).filter(|e| e["conditions"]["ready"] == true);
            all.map(|e| SocketAddr::new(e["addresses"][0].as_str().unwrap().parse().unwrap(), 8080)).collect()
        }
    };
    until(&lab.store, "two ready endpoints", LIMIT, || (endpoints().len() == 2).then_some(())).await;
    let (done, load) = (CancellationToken::new(), endpoints.clone());
    let client = tokio::spawn({
        let done = done.clone();
        async move {
            let (mut n, mut failed) = (0usize, Vec::new());
            while !done.is_cancelled() {
                let all = load();
                match all.get(n % all.len().max(1)) {
                    Some(at) => match get(*at, "/").await {
                        Ok(answer) if answer.starts_with("HTTP/1.1 200") => {}
                        Ok(answer) => failed.push(format!("{at}: {answer}")),
                        Err(error) => failed.push(format!("{at}: {error}")),
                    },
                    None => failed.push("nobody is ready".into()),
                }
                n += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            (n, failed)
        }
    });
    let before = endpoints();
    change(&lab.store, &deployments("d"), Write::Spec, |d| d["spec"]["template"]["metadata"]["annotations"] = json!({"restarted": "1"}));
    until(&lab.store, "all new, and the old ones gone", LIMIT, || {
        let now = endpoints();
        (now.len() == 2 && now.iter().all(|e| !before.contains(e)) && pods(&lab.store).len() == 2).then_some(())
    })
    .await;
    done.cancel();
    let (n, failed) = client.await.unwrap();
    assert!(n > 100 && failed.is_empty(), "{} of {n}: {failed:?}", failed.len());
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_starts_first_and_ends_last() {
    let lab = Lab::start(true, &[]);
    let shell = |script: &str| json!(["sh", "-c", script]);
    let key = lab.pod(
        "p",
        json!({
            "restartPolicy": "Never",
            "initContainers": [{"name": "side", "image": "x", "restartPolicy": "Always",
                                "command": shell("trap 'echo side ends; exit 0' TERM; echo side; while :; do sleep 0.05; done")}],
            "containers": [{"name": "main", "image": "x", "command": shell("echo main; sleep 0.3; exit 5")}],
        }),
    );
    let pod = lab.until_pod(&key, "failed", |p| p["status"]["phase"] == "Failed").await;
    let finished = |list: &str| pod["status"][list][0]["state"]["terminated"]["exitCode"].clone();
    assert_eq!((finished("containerStatuses"), finished("initContainerStatuses")), (json!(5), json!(0)));
    assert_eq!(lab.log("p", "side", false).await, "side\nside ends\n");
    assert_eq!(lab.said("Started"), ["Started container side", "Started container main"]);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ignores_sigterm_is_killed_after_its_grace_and_pre_stop_comes_first() {
    let lab = Lab::start(true, &[]);
    let key = lab.pod(
        "p",
        json!({"containers": [{
            "name": "app", "image": "x", "command": ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done"],
            "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "kill -0 $PPID && echo $POD_NAME > \"$MARK\""]}}},
            "env": [{"name": "MARK", "value": lab.dir().join("mark").to_str().unwrap()}],
        }]}),
    );
    lab.until_pod(&key, "ready", is_ready).await;
    let mut watch = lab.store.watch(None, None, None).unwrap();
    lab.store.delete(&key, None, 1).unwrap();
    let last = loop {
        let event = watch.next().await.unwrap();
        if event.key == key && event.object["status"]["containerStatuses"][0]["state"].get("terminated").is_some() {
            break event.object;
        }
    };
    let end = &last["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&end["exitCode"], &end["signal"]), (&json!(137), &json!(9)));
    assert_eq!(std::fs::read_to_string(lab.dir().join("mark")).unwrap(), "p\n");
    until(&lab.store, "gone", LIMIT, || lab.store.get(&key).is_none().then_some(())).await;

    // By force: the object is gone first, the process soon after.
    let forced = lab.pod("q", json!({"containers": [app("x:v1")]}));
    let pod = lab.until_pod(&forced, "ready", is_ready).await;
    lab.store.delete(&forced, None, 0).unwrap();
    let wait = async {
        while TcpStream::connect(address(&pod, 8080)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap();
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_several_containers_is_ready_when_all_are() {
    let lab = Lab::start(false, &[]);
    let mut late = json!({"name": "late", "image": "y:v1", "ports": [{"containerPort": 9090, "name": "http"}]});
    late["env"] = json!([{"name": "NOT_READY", "value": "500ms"}]);
    // The third names no port and listens nowhere; it must not take the first one's.
    let key = lab.pod("p", json!({"containers": [app("x:v1"), late, {"name": "helper", "image": "z:v1"}]}));
    let pod = lab
        .until_pod(&key, "two of three", |p| {
            let ready: Vec<&Value> = p["status"]["containerStatuses"].as_array().into_iter().flatten().map(|c| &c["ready"]).collect();
            ready == [&json!(true), &json!(false), &json!(true)]
        })
        .await;
    assert!(!is_ready(&pod));
    let pod = lab.until_pod(&key, "all three", is_ready).await;
    assert!(get(address(&pod, 9090), "/").await.unwrap().starts_with("HTTP/1.1 200"));
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_image_in_a_running_pod_restarts_its_container() {
    let lab = Lab::start(false, &[]);
    let mut container = app("x:v1");
    container["env"] = json!([{"name": "DRAIN", "value": "0"}]);
    let key = Key::namespaced("", "pods", "default", "p");
    lab.store.create(&key, json!({"spec": {"containers": [container]}})).unwrap();
    lab.until_pod(&key, "ready", is_ready).await;
    change(&lab.store, &key, Write::Spec, |p| p["spec"]["containers"][0]["image"] = "x:v2".into());
    let pod = lab.until_pod(&key, "restarted", |p| p["status"]["containerStatuses"][0]["restartCount"] == 1 && is_ready(p)).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["image"], "x:v2");
    assert!(get(address(&pod, 8080), "/").await.unwrap().contains("x-version: v2"));
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_restarted_at_once_and_then_with_back_off() {
    let lab = Lab::start(false, &[]);
    let mut container = app("x:v1");
    container["env"] = json!([{"name": "CRASH_AFTER", "value": "100ms"}]);
    let key = lab.pod("p", json!({"containers": [container]}));
    let pod = lab.until_pod(&key, "crash loop", |p| waiting(p) == "CrashLoopBackOff").await;
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["restartCount"], 1);
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(status["lastState"]["terminated"]["reason"], "Error");
    assert!(status["state"]["waiting"]["message"].as_str().unwrap().starts_with("back-off 10s restarting failed container=app"));
    assert_eq!(pod["status"]["phase"], "Running");
    assert!(!is_ready(&pod));
    assert!(lab.log("p", "app", true).await.contains("CRASH_AFTER"));
    // It ends at once although it waits.
    lab.store.delete(&key, None, 30).unwrap();
    until(&lab.store, "gone", LIMIT, || lab.store.get(&key).is_none().then_some(())).await;
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_read_end_the_sample_app_with_one_line() {
    let lab = Lab::start(false, &[]);
    let mut container = app("x:v1");
    container["env"] = json!([{"name": "ERROR_RATE", "value": "lots"}]);
    let key = lab.pod("p", json!({"containers": [container], "restartPolicy": "Never"}));
    let pod = lab.until_pod(&key, "failed", |p| p["status"]["phase"] == "Failed").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 2);
    assert_eq!(lab.log("p", "app", false).await, "error: ERROR_RATE=\"lots\" is not a share such as 5%, 0.05 or 1\n");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn not_ready_means_running_and_outside_the_endpoints() {
    let lab = Lab::start(false, &[]);
    let mut container = app("x:v1");
    container["env"] = json!([{"name": "NOT_READY", "value": "true"}]);
    let never = lab.pod("never", json!({"containers": [container]}));
    container = app("x:v1");
    container["env"] = json!([{"name": "NOT_READY", "value": "700ms"}]);
    container["readinessProbe"] = json!({"httpGet": {"port": 8080, "path": "/"}, "periodSeconds": 1});
    let later = lab.pod("later", json!({"containers": [container]}));
    lab.until_pod(&later, "ready later", is_ready).await;
    assert!(
        lab.said("Unhealthy").iter().any(|m| m == "Readiness probe failed: HTTP probe failed with statuscode: 503"),
        "{:?}",
        lab.said("Unhealthy")
    );
    let pod = lab.until_pod(&never, "running", |p| p["status"]["phase"] == "Running").await;
    assert!(!is_ready(&pod));
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_liveness_probe_restarts_the_container() {
    let lab = Lab::start(false, &[]);
    let mut container = app("x:v1");
    container["env"] = json!([{"name": "NOT_READY", "value": "true"}, {"name": "DRAIN", "value": "0"}]);
    container["livenessProbe"] = json!({"httpGet": {"port": 8080, "path": "/readyz"}, "periodSeconds": 1, "failureThreshold": 2});
    let key = lab.pod("p", json!({"containers": [container]}));
    let pod = lab.until_pod(&key, "restarted", |p| p["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 0);
    assert_eq!(lab.said("Killing"), ["Container app failed liveness probe, will be restarted"]);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mapped_images_run_their_command_with_their_environment() {
    let lab = Lab::start(
        false,
        &[
            "worker=sh -c 'echo $GREETING from $POD_NAME at $POD_IP:$PORT as $VERSION; echo oops >&2; trap \"exit 3\" TERM; while :; do sleep 0.1; done'",
        ],
    );
    lab.store.create(&Key::namespaced("", "configmaps", "default", "c"), json!({"data": {"GREETING": "hello"}})).unwrap();
    let key =
        lab.pod("p", json!({"containers": [{"name": "app", "image": "registry/worker:v7", "envFrom": [{"configMapRef": {"name": "c"}}]}]}));
    // It declares no port, so it counts as ready though it listens nowhere.
    let pod = lab.until_pod(&key, "ready", is_ready).await;
    let ip = pod["status"]["podIP"].as_str().unwrap();
    let log = until(&lab.store, "log", LIMIT, || {
        lab.logs.path("default", "p", "app", false).filter(|p| std::fs::read_to_string(p).is_ok_and(|t| t.contains("oops")))
    })
    .await;
    assert!(std::fs::read_to_string(log).unwrap().contains(" stderr F oops\n"));
    assert!(lab.log("p", "app", false).await.contains(&format!("hello from p at {ip}:8080 as v1\n")));

    // Changed while the lab runs, it counts from the next start on.
    change(&lab.store, &Key::namespaced("", "configmaps", "kube-system", "lab-images"), Write::Whole, |c| {
        c["data"] = json!({"mine": "worker=sh -c 'echo second; exit 0'"});
    });
    let second = lab.pod("q", json!({"containers": [{"name": "app", "image": "worker"}], "restartPolicy": "Never"}));
    lab.until_pod(&second, "done", |p| p["status"]["phase"] == "Succeeded").await;
    assert_eq!(lab.log("q", "app", false).await, "second\n");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_waited_for() {
    let lab = Lab::start(false, &[]);
    let mut container = app("x:v1");
    container["env"] = json!([{"name": "SEED", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "seed"}}}]);
    let key = lab.pod("p", json!({"containers": [container]}));
    let pod = lab.until_pod(&key, "config error", |p| waiting(p) == "CreateContainerConfigError").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"], "configmap \"late\" not found");
    lab.store.create(&Key::namespaced("", "configmaps", "default", "late"), json!({"data": {"seed": "7"}})).unwrap();
    lab.until_pod(&key, "ready", is_ready).await;
    lab.end().await;
}

/// What was missing comes in the very moment in which its absence is being told: the pod must not wait for a second change.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_its_absence_is_told_is_not_overlooked() {
    const PODS: usize = 60;
    let lab = Lab::start(false, &[]);
    let store = lab.store.clone();
    let mut changes = store.watch(Some(serin_lab::store::Resource::new("", "pods")), None, None).unwrap();
    let giver = tokio::spawn(async move {
        let mut given = std::collections::BTreeSet::new();
        while given.len() < PODS {
            let pod = changes.next().await.unwrap().object;
            let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
            if waiting(&pod) == "CreateContainerConfigError" && given.insert(name.clone()) {
                store.create(&Key::namespaced("", "secrets", "default", &name), json!({"data": {"seed": "Nw=="}})).unwrap();
            }
        }
    });
    for i in 0..PODS {
        let name = format!("p{i}");
        let from = json!({"name": "SEED", "valueFrom": {"secretKeyRef": {"name": name, "key": "seed"}}});
        // One after the other, so that no secret but its own can wake a pod.
        let key = lab.pod(&name, json!({"containers": [{"name": "app", "image": "x:v1", "env": [from]}]}));
        lab.until_pod(&key, "ready", is_ready).await;
    }
    giver.await.unwrap();
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_manifests_run_only_when_allowed() {
    let job = json!({"spec": {"completions": 2, "parallelism": 2, "template": {"spec": {"restartPolicy": "Never", "containers": [
        {"name": "app", "image": "busybox", "command": ["sh", "-c", "echo done by $(POD_NAME)"]},
    ]}}}});
    let key = Key::namespaced("batch", "jobs", "default", "j");
    let lab = Lab::start(true, &[]);
    lab.store.create(&key, job.clone()).unwrap();
    let done = until(&lab.store, "complete", LIMIT, || {
        lab.store.get(&key).filter(|j| j["status"]["succeeded"] == 2 && j["status"]["completionTime"].is_string())
    })
    .await;
    assert_eq!(done["status"]["conditions"][1]["type"], "Complete");
    for pod in pods(&lab.store) {
        let name = pod["metadata"]["name"].as_str().unwrap();
        assert_eq!(lab.log(name, "app", false).await, format!("done by {name}\n"));
    }
    lab.end().await;

    let lab = Lab::start(false, &[]);
    lab.store.create(&key, job).unwrap();
    until(&lab.store, "refusal", LIMIT, || lab.said("Pulled").iter().any(|m| m.contains("--exec")).then_some(())).await;
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn init_containers_run_in_order_and_the_meshs_own_are_not_run() {
    let lab = Lab::start(true, &[]);
    let step = |name: &str, command: &str| json!({"name": name, "image": "x", "command": ["sh", "-c", command]});
    let key = lab.pod(
        "p",
        json!({
            "initContainers": [{"name": "istio-init", "image": "istio"}, step("one", "echo 1"), step("two", "echo 2")],
            "containers": [app("my-app:v1"), {"name": "istio-proxy", "image": "istio"}],
        }),
    );
    let pod = lab.until_pod(&key, "ready", is_ready).await;
    let init = pod["status"]["initContainerStatuses"].as_array().unwrap();
    assert!(init.iter().all(|c| c["state"]["terminated"]["exitCode"] == 0), "{init:?}");
    assert_eq!(pod["status"]["containerStatuses"][1]["ready"], true);
    assert_eq!(lab.said("Started").len(), 3, "{:?}", lab.said("Started"));
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_labs_run_side_by_side() {
    let (a, b) = (Lab::start(false, &[]), Lab::start(false, &[]));
    let spec = json!({"containers": [app("x:v1")]});
    let (pa, pb) = (a.pod("p", spec.clone()), b.pod("p", spec));
    let (pa, pb) = (a.until_pod(&pa, "a", is_ready).await, b.until_pod(&pb, "b", is_ready).await);
    assert_ne!(pa["status"]["podIP"], pb["status"]["podIP"]);
    a.end().await;
    assert!(get(address(&pb, 8080), "/").await.unwrap().starts_with("HTTP/1.1 200"));
    b.end().await;
}

/// Reads the first line that a child prints: the pid of the process under test.
async fn first_line(child: &mut tokio::process::Child) -> i32 {
    use tokio::io::AsyncBufReadExt;
    let mut lines = tokio::io::BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next_line().await.unwrap().unwrap().trim().parse().unwrap()
}

async fn until_dead(pid: i32) {
    let alive = || rustix::process::test_kill_process(rustix::process::Pid::from_raw(pid).unwrap()).is_ok();
    let wait = async {
        while alive() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("{pid} lives"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outlives_the_lab_or_its_guard() {
    // The inner shell prints its pid; a grandchild keeps it company.
    let script = "sleep 1000 & echo $!; wait";
    let start = || guarded(self_exe(), Path::new("sh"), ["-c", script]).stdout(std::process::Stdio::piped()).spawn().unwrap();

    // The pipe closes, as when the lab is killed: all goes, and the guard reports a kill.
    let mut child = start();
    let hold = child.stdin.take();
    let grandchild = first_line(&mut child).await;
    drop(hold);
    assert_eq!(child.wait().await.unwrap().code(), Some(137));
    until_dead(grandchild).await;

    // The guard itself is killed: the program goes with it.
    let mut child =
        guarded(self_exe(), Path::new("sh"), ["-c", "echo $$; exec sleep 1000"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let _hold = child.stdin.take();
    let program = first_line(&mut child).await;
    child.start_kill().unwrap();
    until_dead(program).await;

    // SIGTERM is passed on, and the exit code comes back.
    let mut child = guarded(self_exe(), Path::new("sh"), ["-c", "trap 'exit 42' TERM; echo $$; while :; do sleep 0.05; done"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let _hold = child.stdin.take();
    first_line(&mut child).await;
    let guard = rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(guard, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(42));
}
