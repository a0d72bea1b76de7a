//! What needs no running pods, and so can be held against any cluster: a lab here, and with `SERIN_TEST_KUBECONFIG=FILE` whatever that leads to.
//!
//! Each scenario has a namespace of its own, and a controller that is limited to it. Of a cluster that is given it needs the right to define
//! kinds and to make namespaces; kinds that are there already are left as they are, and the namespaces go at the end. Its Deployments have no
//! replicas, so that it makes no difference whether anybody runs pods.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::{Background, Lab, SERIN, kubectl_path, said, until, weights_of};

/// Kinds of Istio for a cluster that has none: any fields, so that nothing is lost.
const ISTIO: [(&str, &str); 2] = [("VirtualService", "virtualservices"), ("DestinationRule", "destinationrules")];

struct Place {
    kubeconfig: PathBuf,
    namespace: String,
    /// Here, a lab that ends with the scenario.
    lab: Option<Lab>,
    dir: tempfile::TempDir,
}

impl Place {
    fn new(name: &str) -> Self {
        let given = std::env::var_os("SERIN_TEST_KUBECONFIG").map(PathBuf::from);
        let lab = given.is_none().then(|| Lab::up(&[]));
        let kubeconfig = given.unwrap_or_else(|| lab.as_ref().map(|l| l.kubeconfig().into()).unwrap_or_default());
        let namespace = format!("serin-{name}-{}", std::process::id());
        let place = Self { kubeconfig, namespace, lab, dir: tempfile::tempdir().expect("a folder") };
        place.define();
        place.kubectl(&["create", "namespace", &place.namespace]);
        place
    }

    /// The kinds that are not there yet.
    fn define(&self) {
        let known = |plural: &str, group: &str| self.try_kubectl(&["get", "crd", &format!("{plural}.{group}"), "-o", "name"]).is_ok();
        for (kind, plural) in ISTIO {
            // The lab plays them without a definition.
            if self.lab.is_none() && !known(plural, "networking.istio.io") {
                let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
                let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema}});
                self.apply(&[json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                    "metadata": {"name": format!("{plural}.networking.istio.io")},
                    "spec": {"group": "networking.istio.io", "scope": "Namespaced",
                        "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
                        "versions": [version("v1", false), version("v1beta1", true)]}})]);
            }
        }
        let crds = self.dir.path().join("crds.yaml");
        std::fs::write(&crds, Command::new(SERIN).args(["install", "--crds"]).output().expect("serin runs").stdout).expect("a file");
        // kubectl checks against what the server knows: one older than 1.25 has no word for CEL rules, and leaves them out.
        self.kubectl(&["apply", "--validate=warn", "-f", crds.to_str().expect("a path")]);
        for plural in ["canaryreleases", "canarypolicies"] {
            self.kubectl(&["wait", "--for=condition=Established", &format!("crd/{plural}.serin.dev"), "--timeout=60s"]);
        }
        until("kubectl finds the kinds", || self.try_kubectl(&["get", "can,virtualservices,destinationrules", "-A"]));
    }

    fn run(&self, program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(args).env("KUBECONFIG", &self.kubeconfig).env("HOME", self.dir.path()).env("NO_COLOR", "1").output().expect("runs")
    }

    fn try_kubectl(&self, args: &[&str]) -> Result<String, String> {
        let out = self.run(kubectl_path(), args);
        if out.status.success() { Ok(String::from_utf8_lossy(&out.stdout).into_owned()) } else { Err(said(&out)) }
    }

    fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args).unwrap_or_else(|e| panic!("kubectl {}: {e}", args.join(" ")))
    }

    /// `kubectl ARGS -n NAMESPACE`.
    fn here(&self, args: &[&str]) -> String {
        self.kubectl(&[args, &["-n", &self.namespace]].concat())
    }

    /// `serin ARGS -n NAMESPACE`, which must end with this code; what it said.
    fn serin(&self, args: &[&str], code: i32) -> String {
        let out = self.run(SERIN, &[args, &["-n", &self.namespace]].concat());
        assert_eq!(out.status.code(), Some(code), "serin {}: {}", args.join(" "), said(&out));
        format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
    }

    fn try_apply(&self, objects: &[Value]) -> Result<String, String> {
        let file = self.dir.path().join("applied.json");
        std::fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()).expect("a file");
        self.try_kubectl(&["apply", "-f", file.to_str().expect("a path")])
    }

    fn apply(&self, objects: &[Value]) {
        self.try_apply(objects).unwrap_or_else(|e| panic!("{e}"));
    }

    fn object(&self, kind: &str, name: &str) -> Value {
        serde_json::from_str(&self.here(&["get", kind, name, "-o", "json"])).expect("JSON")
    }

    fn made(&self, api: &str, kind: &str, name: &str, spec: Value) -> Value {
        json!({"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": self.namespace}, "spec": spec})
    }

    fn route(&self, v1: u32, v2: u32) -> Value {
        let to = |version: &str, weight: u32| json!({"destination": {"host": "my-app", "subset": version}, "weight": weight});
        self.made(
            "networking.istio.io/v1beta1",
            "VirtualService",
            "my-app",
            json!({"hosts": ["my-app"], "http": [{"name": "primary", "route": [to("v1", v1), to("v2", v2)]}]}),
        )
    }

    fn release_object(&self, name: &str, more: &Value) -> Value {
        let mut spec = json!({"service": "my-app", "steps": [{"weight": 10, "hold": "1m"}, {"weight": 50, "hold": "1m", "confirm": true}]});
        spec.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        self.made("serin.dev/v1alpha1", "CanaryRelease", name, spec)
    }

    /// The article's app without pods: the Service, both Deployments, the rule, and the route with these weights.
    fn app(&self, v1: u32, v2: u32) {
        let deployment = |version: &str| {
            let labels = json!({"app": "my-app", "version": version});
            let containers = json!([{"name": "my-app", "image": format!("my-app:{version}"), "ports": [{"containerPort": 8080}]}]);
            let template = json!({"metadata": {"labels": labels}, "spec": {"containers": containers}});
            let spec = json!({"replicas": 0, "selector": {"matchLabels": labels}, "template": template});
            self.made("apps/v1", "Deployment", &format!("my-app-{version}"), spec)
        };
        let subset = |version: &str| json!({"name": version, "labels": {"version": version}});
        self.apply(&[
            self.made(
                "v1",
                "Service",
                "my-app",
                json!({"selector": {"app": "my-app"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}),
            ),
            deployment("v1"),
            deployment("v2"),
            self.made(
                "networking.istio.io/v1beta1",
                "DestinationRule",
                "my-app",
                json!({"host": "my-app", "subsets": [subset("v1"), subset("v2")]}),
            ),
            self.route(v1, v2),
        ]);
    }

    fn controller(&self) -> Background {
        let log = File::create(self.dir.path().join("controller.log")).expect("a file");
        let mut command = Command::new(SERIN);
        command.args(["controller", "-n", &self.namespace]).env("KUBECONFIG", &self.kubeconfig).env("NO_COLOR", "1");
        Background(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("serin runs"))
    }

    /// Waits until a release's status fits.
    fn release(&self, name: &str, what: &str, mut fits: impl FnMut(&Value) -> bool) -> Value {
        until(what, || {
            let status = self.object("canaryrelease", name)["status"].clone();
            if fits(&status) { Ok(status) } else { Err(format!("{status:#}")) }
        })
    }

    fn weights(&self) -> BTreeMap<String, i64> {
        weights_of(&self.object("virtualservice", "my-app"))
    }

    /// A release for the app, and a controller that has found it to be in this phase.
    fn adopted(&self, phase: &str) -> (Background, Value) {
        self.apply(&[self.release_object("my-app", &json!({}))]);
        let controller = self.controller();
        let status = self.release("my-app", "it is adopted", |s| s["phase"] == phase);
        (controller, status)
    }

    /// Waits until an event of the release has this reason; its message.
    fn event(&self, reason: &str) -> String {
        until(&format!("an event {reason}"), || {
            let all: Value = serde_json::from_str(&self.here(&["get", "events", "-o", "json"])).expect("JSON");
            let events = all["items"].as_array().cloned().unwrap_or_default();
            let found = events.iter().find(|e| e["reason"] == reason && e["involvedObject"]["kind"] == "CanaryRelease");
            found
                .map(|e| e["message"].as_str().unwrap_or_default().to_string())
                .ok_or_else(|| events.iter().map(|e| format!("{} ", e["reason"])).collect())
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("controller.log")).unwrap_or_default();
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("the controller said:\n{log}\n").as_bytes());
        }
        if self.lab.is_none() {
            let _ = self.try_kubectl(&["delete", "namespace", &self.namespace, "--wait=false"]);
        }
    }
}

fn weights(v1: i64, v2: i64) -> BTreeMap<String, i64> {
    [("v1".to_string(), v1), ("v2".to_string(), v2)].into()
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

#[test]
#[ignore = "needs envoy and kubectl"]
fn what_is_there_is_adopted_and_nothing_is_moved() {
    let place = Place::new("adopt");
    place.app(90, 10);
    let before = text(&place.object("virtualservice", "my-app"), "/metadata/resourceVersion").to_string();
    let (mut controller, status) = place.adopted("Paused");
    assert_eq!((text(&status, "/stable/version"), text(&status, "/canary/version")), ("v1", "v2"));
    let told = place.event("Adopted");
    assert!(told.contains("found v2 at 10 % beside v1"), "{told}");
    // A restart adopts nothing anew and moves nothing.
    let rollout = status["rollout"]["uid"].clone();
    controller.kill();
    let _controller = place.controller();
    place.here(&["annotate", "canaryrelease", "my-app", "serin.dev/request={\"action\":\"pause\",\"id\":\"again\"}"]);
    until("the new controller answers", || {
        let object = place.object("canaryrelease", "my-app");
        if object["metadata"]["annotations"].get("serin.dev/request").is_none() { Ok(()) } else { Err(object.to_string()) }
    });
    assert_eq!(place.object("canaryrelease", "my-app")["status"]["rollout"]["uid"], rollout);
    let after = place.object("virtualservice", "my-app");
    assert_eq!((text(&after, "/metadata/resourceVersion"), place.weights()), (&*before, weights(90, 10)));
    // People and scripts: the columns, the category, the conditions, and the explanation out of the schema.
    assert!(place.here(&["get", "can"]).contains("Paused"));
    assert!(place.here(&["get", "serin"]).contains("my-app"));
    place.here(&["wait", "--for=condition=Progressing", "can/my-app", "--timeout=60s"]);
    assert!(place.kubectl(&["explain", "canaryrelease.spec.steps"]).contains("weight"));
    // Deleted, it leaves traffic where it is.
    place.here(&["delete", "can", "my-app", "--timeout=60s"]);
    assert_eq!(place.weights(), weights(90, 10));
}

#[test]
#[ignore = "needs envoy and kubectl"]
fn an_abort_from_the_desk_needs_no_controller_and_asks_before_it_is_the_outage() {
    let place = Place::new("abort");
    place.app(90, 10);
    drop(place.adopted("Paused"));
    // No pod stands behind stable: it is refused, and nothing has changed.
    let refused = place.serin(&["abort", "my-app", "--reason", "no pods"], 1);
    assert!(refused.contains("--force"), "{refused}");
    assert_eq!(place.weights(), weights(90, 10));
    place.serin(&["abort", "my-app", "--force", "--reason", "I know"], 0);
    assert_eq!(place.weights(), weights(100, 0));
    let route = place.object("virtualservice", "my-app");
    assert!(!text(&route, "/metadata/annotations/serin.dev~1aborted").is_empty(), "{route:#}");
    // The controller that comes back knows it from the route.
    let _controller = place.controller();
    let status = place.release("my-app", "it is rolled back", |s| s["phase"] == "RolledBack");
    assert_eq!(text(&status, "/history/0/outcome"), "RolledBack");
    assert_eq!(place.weights(), weights(100, 0));
}

#[test]
#[ignore = "needs envoy and kubectl"]
fn without_pods_nothing_moves_forward_and_every_request_is_answered() {
    let place = Place::new("forward");
    place.app(100, 0);
    let (_controller, _) = place.adopted("Idle");
    place.here(&["patch", "can", "my-app", "--type=merge", "-p", "{\"spec\":{\"version\":{\"desired\":\"v2\"}}}"]);
    let status = place.release("my-app", "a rollout begins and waits for pods", |s| s["phase"] == "Preparing");
    assert_eq!(text(&status, "/canary/version"), "v2");
    assert_eq!(place.weights(), weights(100, 0));
    // A request for another rollout is refused, and said.
    let annotate = |request: &Value| place.here(&["annotate", "can", "my-app", "--overwrite", &format!("serin.dev/request={request}")]);
    annotate(&json!({"action": "promote", "id": "one", "rollout": "another", "time": jiff::Timestamp::now().to_string()}));
    let told = place.event("RequestRefused");
    assert!(told.contains("promote"), "{told}");
    place.serin(&["freeze", "my-app", "--reason", "a holiday"], 0);
    assert!(place.serin(&["why", "my-app"], 0).contains("my-app"));
    place.release("my-app", "the freeze is told", |s| s.to_string().contains("frozen"));
    place.serin(&["thaw", "my-app"], 0);
    place.serin(&["abort", "my-app", "--force", "--reason", "enough"], 0);
    place.release("my-app", "it is taken back", |s| s["phase"] == "RolledBack");
    let history: Value = serde_json::from_str(&place.serin(&["history", "my-app", "-o", "json"], 0)).expect("JSON");
    assert_eq!(history["rollouts"][0]["outcome"], "RolledBack");
    assert_eq!(place.weights(), weights(100, 0));
}

#[test]
#[ignore = "needs envoy and kubectl"]
fn others_at_the_route_are_named_and_never_fought() {
    let place = Place::new("others");
    place.app(100, 0);
    let (_controller, _) = place.adopted("Idle");
    // A second release for the same service.
    place.apply(&[place.release_object("twin", &json!({}))]);
    let twin = place.release("twin", "the younger stands aside", |s| s["message"].as_str().is_some_and(|m| m.contains("my-app")));
    let stalled = twin["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == "Stalled" && c["status"] == "True");
    assert!(stalled, "{twin:#}");
    place.here(&["delete", "can", "twin", "--timeout=60s"]);
    // Somebody moves weights at rest. Stable has no pods either, so that taking them back would help nobody: he is named, and nothing more.
    let file = place.dir.path().join("theirs.json");
    std::fs::write(&file, place.route(60, 40).to_string()).expect("a file");
    place.kubectl(&["apply", "--server-side", "--force-conflicts", "--field-manager=their-sync", "-f", file.to_str().expect("a path")]);
    let status = place.release("my-app", "its manager is named", |s| s["message"].as_str().is_some_and(|m| m.contains("their-sync")));
    assert!(text(&status, "/message").contains("v2"), "{status:#}");
    assert_eq!(place.weights(), weights(60, 40));
}

#[test]
#[ignore = "needs envoy and kubectl"]
fn a_release_that_cannot_work_says_all_that_is_wrong_and_changes_nothing() {
    let place = Place::new("wrong");
    place.app(100, 0);
    let _controller = place.controller();
    // A server that knows CEL refuses it; an older one stores it, and the condition says the same.
    for (name, more, part) in [
        ("down", json!({"steps": [{"weight": 50, "hold": "1m"}, {"weight": 10, "hold": "1m"}]}), "steps"),
        ("hooks", json!({"hooks": [{"name": "h"}]}), "not supported yet: spec.hooks"),
        ("margin", json!({"analysis": {"metrics": [{"name": "errors", "errorRate": {}}]}}), "errorRate"),
    ] {
        let told = match place.try_apply(&[place.release_object(name, &more)]) {
            Err(refused) => refused,
            Ok(_) => {
                place.release(name, "the condition says it", |s| s["message"].as_str().is_some_and(|m| m.contains("spec."))).to_string()
            }
        };
        assert!(told.contains(part), "{name}: {told}");
    }
    // What no schema can know.
    place.apply(&[place.release_object("nowhere", &json!({"service": "nowhere"}))]);
    let status = place.release("nowhere", "the missing Service is named", |s| s["message"].as_str().is_some_and(|m| m.contains("nowhere")));
    assert!(text(&status, "/message").contains("Service"), "{status:#}");
    assert_eq!(place.weights(), weights(100, 0));
    // An unknown word where only some are possible is refused by any server.
    let refused = place.try_apply(&[place.release_object("bad", &json!({"mode": "Maybe"}))]).expect_err("an enum");
    assert!(refused.contains("spec.mode"), "{refused}");
}

#[test]
#[ignore = "needs envoy and kubectl"]
fn the_manifests_are_taken_by_the_server() {
    let place = Place::new("install");
    let out = place.run(SERIN, &["install", "--image", "registry.example/serin:1", "-n", &place.namespace]);
    let file = place.dir.path().join("install.yaml");
    std::fs::write(&file, &out.stdout).expect("a file");
    place.kubectl(&["apply", "--validate=warn", "--dry-run=server", "-f", file.to_str().expect("a path")]);
    let out = place
        .run(SERIN, &["install", "--image", "registry.example/serin:1", "--watch-namespace", &place.namespace, "-n", &place.namespace]);
    std::fs::write(&file, &out.stdout).expect("a file");
    let applied = place.kubectl(&["apply", "--validate=warn", "--dry-run=server", "-f", file.to_str().expect("a path")]);
    assert!(applied.contains("deployment"), "{applied}");
}
