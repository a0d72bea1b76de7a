//! Git's tools beside Serin: an actor that applies the article's manifests again and again, as Flux does and as Argo CD does.
//!
//! First Git holds the weights too: Serin stops, names the manager, and never fights. Then it is set up as `docs/operations.md` says, and the
//! same rollout goes to its end beside it. Every answer that callers get is counted.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Callers, Lab, alone, example, on_trial, tally, until};

/// The article's objects as files in Git: with as many pods of v2 as of v1, and for callers inside the mesh.
struct Repository {
    folder: tempfile::TempDir,
}

impl Repository {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["my-app-v1", "my-app-v2", "my-app-destination-rule", "my-app-virtual-service"] {
            let text = std::fs::read_to_string(example(&format!("article/{name}.yaml"))).expect("the article's file");
            let lines = text.lines().map(|l| match l.trim_start() {
                t if t.starts_with("replicas:") => l.replace(t, "replicas: 2"),
                "- my-gateway" => format!("{l}\n  - mesh"),
                _ => l.to_string(),
            });
            std::fs::write(folder.path().join(format!("{name}.yaml")), lines.collect::<Vec<_>>().join("\n")).expect("a file");
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn files(&self) -> Vec<PathBuf> {
        ["my-app-v1.yaml", "my-app-v2.yaml", "my-app-destination-rule.yaml", "my-app-virtual-service.yaml"].map(|f| self.path(f)).into()
    }
}

fn is_route(file: &Path) -> bool {
    file.ends_with("my-app-virtual-service.yaml")
}

fn text(file: &Path) -> &str {
    file.to_str().expect("a path")
}

/// One reconciliation of Flux: server-side apply, by force. Of a route that is annotated `ssa: IfNotPresent` it leaves what is there.
fn flux(lab: &Lab, git: &Repository, settled: bool) {
    for file in git.files() {
        if settled && is_route(&file) && lab.try_kubectl(&["get", "virtualservice", "my-app"]).is_ok() {
            continue;
        }
        lab.kubectl(&["apply", "--server-side", "--force-conflicts", "--field-manager=kustomize-controller", "-f", text(&file)]);
    }
}

/// The spec of a route without the weights, which Argo CD is told to ignore.
fn without_weights(mut route: Value) -> Value {
    for http in route["spec"]["http"].as_array_mut().into_iter().flatten() {
        for destination in http["route"].as_array_mut().into_iter().flatten() {
            if let Some(fields) = destination.as_object_mut() {
                fields.remove("weight");
            }
        }
    }
    route["spec"].take()
}

/// One reconciliation of Argo CD: what differs from Git is applied with a three-way merge. With the weights ignored a route that differs in
/// nothing else is in sync, and left alone.
fn argo(lab: &Lab, git: &Repository, settled: bool) {
    for file in git.files() {
        if settled && is_route(&file) {
            let wanted: Value = serde_saphyr::from_str(&std::fs::read_to_string(&file).expect("a file")).expect("YAML");
            if without_weights(lab.object("virtualservice", "my-app")) == without_weights(wanted) {
                continue;
            }
        }
        lab.kubectl(&["apply", "--field-manager=argocd-controller", "-f", text(&file)]);
    }
}

fn beside(manager: &str, sync: fn(&Lab, &Repository, bool)) {
    let _alone = alone();
    let lab = Lab::up(&["--controller"]);
    let git = Repository::new();
    sync(&lab, &git, false);
    for version in ["v1", "v2"] {
        lab.kubectl(&["rollout", "status", &format!("deployment/my-app-{version}"), "--timeout=60s"]);
    }
    lab.kubectl(&["apply", "-f", text(&example("demo/canary-release.yaml"))]);
    lab.release("the split is found", |s| s["phase"] == "Paused");
    let callers = Callers::start(&lab.callers(), 4);
    let (settled, over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                sync(&lab, &git, settled.load(Ordering::Relaxed));
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        assert_eq!(lab.serin(&["resume", "my-app"]).status.code(), Some(0));
        let named = |s: &Value| s["phase"] == "Paused" && s["message"].as_str().is_some_and(|m| m.contains(manager));
        lab.release("the manager is named", named);
        until("Git's weights are there", || if lab.weights()["v2"] == 10 { Ok(()) } else { Err(format!("{:?}", lab.weights())) });
        // It never fights: what Git wrote stays.
        for _ in 0..20 {
            assert_eq!(lab.weights()["v2"], 10);
            std::thread::sleep(Duration::from_millis(200));
        }
        settled.store(true, Ordering::Relaxed);
        // A sync that was under way still had the weights.
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(lab.serin(&["resume", "my-app"]).status.code(), Some(0));
        lab.release("v2 is promoted beside it", |s| s["phase"] == "Idle" && s["stable"]["version"] == "v2");
        assert_eq!(lab.weights()["v2"], 100);
        std::thread::sleep(Duration::from_secs(2));
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(lab.weights()["v2"], 100, "Git took it back");
    let seen = callers.end();
    assert!(seen.iter().all(|s| s.status == 200), "{:?}", tally(&seen));
}

#[test]
#[ignore = "needs envoy and kubectl"]
fn flux_with_the_weights_in_git_is_named_and_never_fought_and_without_them_the_rollout_ends() {
    beside("kustomize-controller", flux);
}

#[test]
#[ignore = "needs envoy and kubectl"]
fn argo_cd_with_the_weights_in_git_is_named_and_never_fought_and_without_them_the_rollout_ends() {
    beside("argocd-controller", argo);
}

/// Argo CD with prune: what it applied and Git has no more is deleted.
fn pruned(lab: &Lab, git: &Repository, kind: &str, name: &str, file: &str) {
    if !git.path(file).exists() {
        let _ = lab.try_kubectl(&["delete", kind, name, "--ignore-not-found"]);
    }
}

#[test]
#[ignore = "needs envoy and kubectl"]
fn a_canary_that_git_prunes_in_the_middle_gives_its_weight_back_and_starts_over_when_git_has_it_again() {
    let _alone = alone();
    let lab = Lab::up(&["--controller"]);
    let callers = on_trial(&lab, 4);
    let git = Repository::new();
    // Held where it is, so that the prune meets it.
    assert_eq!(lab.serin(&["pause", "my-app"]).status.code(), Some(0));
    // As many pods as v1 has: Git owns the number, so Serin would wait for more.
    let kept = std::fs::read_to_string(git.path("my-app-v2.yaml")).expect("a file").replace("replicas: 2", "replicas: 3");
    std::fs::remove_file(git.path("my-app-v2.yaml")).expect("a file");
    pruned(&lab, &git, "deployment", "my-app-v2", "my-app-v2.yaml");
    let status = lab.release("v1 has it all again", |s| s["phase"] == "Idle" && s["stable"]["version"] == "v1");
    assert_eq!(status["history"][0]["outcome"], "Superseded", "nobody blames a version that was deleted: {status}");
    assert_eq!(lab.weights()["v1"], 100);
    std::fs::write(git.path("my-app-v2.yaml"), kept).expect("a file");
    lab.kubectl(&["apply", "--field-manager=argocd-controller", "-f", text(&git.path("my-app-v2.yaml"))]);
    lab.release("v2 is promoted after all", |s| s["phase"] == "Idle" && s["stable"]["version"] == "v2");
    // And v1, which the promotion left to its owner, is Git's to delete: nobody calls it.
    std::fs::remove_file(git.path("my-app-v1.yaml")).expect("a file");
    pruned(&lab, &git, "deployment", "my-app-v1", "my-app-v1.yaml");
    let status = lab.release("nothing is left to retire", |s| s["retirable"].as_array().is_none_or(Vec::is_empty));
    assert_eq!((&status["phase"], &status["stable"]["version"]), (&"Idle".into(), &"v2".into()));
    std::thread::sleep(Duration::from_secs(2));
    let seen = callers.end();
    // Between the deletion and the patch the proxy has nobody for the canary's share: no pod ever failed.
    let by_pods: Vec<_> = seen.iter().filter(|s| !s.version.is_empty()).collect();
    assert!(by_pods.iter().all(|s| s.status == 200), "{:?}", tally(&seen));
}
