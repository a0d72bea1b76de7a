//! Real kubectl against a whole lab: what people type, and what they get.

use std::path::Path;
use std::process::Command;

use serin_lab::lab::{Lab, LabConfig};

const APP: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web, version: v1}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: app, image: "web:1", ports: [{containerPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - route:
    - destination: {host: web, subset: v1}
      weight: 90
    - destination: {host: web, subset: v2}
      weight: 10
"#;

struct Kubectl<'a> {
    program: String,
    kubeconfig: &'a Path,
    dir: &'a Path,
}

impl Kubectl<'_> {
    fn run(&self, line: &str) -> (bool, String) {
        let mut command = Command::new(&self.program);
        // An empty home: no cache of another lab's discovery, no other configuration.
        command.env_clear().env("HOME", self.dir).env("PATH", "/usr/bin:/bin").env("KUBECONFIG", self.kubeconfig).current_dir(self.dir);
        command.env("KUBE_EDITOR", "sed -i s/minReadySeconds:.0/XX/;s/paused:.false/XX/;s/web:3/web:4/");
        command.args(words(line));
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    }

    /// It succeeds and says this.
    #[track_caller]
    fn says(&self, line: &str, wanted: &str) -> String {
        let (fine, text) = self.run(line);
        assert!(fine && text.contains(wanted), "kubectl {line}\nwanted: {wanted}\n{text}");
        text
    }

    /// It fails and says this.
    #[track_caller]
    fn refuses(&self, line: &str, wanted: &str) {
        let (fine, text) = self.run(line);
        assert!(!fine && text.contains(wanted), "kubectl {line}\nwanted: {wanted}\n{text}");
    }
}

/// Words parted by blanks; single quotes keep them together.
fn words(line: &str) -> Vec<String> {
    let mut all = Vec::new();
    for (i, part) in line.split('\'').enumerate() {
        if i % 2 == 1 {
            all.push(part.to_owned());
        } else {
            all.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kubectl, named by SERIN_TEST_KUBECTL"]
async fn what_people_type_works() {
    let root = tempfile::tempdir().unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut config = LabConfig::new(env!("CARGO_BIN_EXE_lab-child"), std::sync::Arc::new(jiff::Timestamp::now));
    config.root = Some(root.path().to_owned());
    let lab = Lab::start(config).await.unwrap();
    std::fs::write(home.path().join("app.yaml"), APP).unwrap();
    std::fs::write(home.path().join("more.yaml"), APP.replace("replicas: 2", "replicas: 3")).unwrap();
    std::fs::write(home.path().join("typo.yaml"), APP.replace("replicas: 2", "replica: 2")).unwrap();
    std::fs::write(home.path().join("zero.yaml"), APP.replace("weight: 90", "weight: 0").replace("weight: 10", "weight: 0")).unwrap();
    let kubeconfig = lab.kubeconfig().to_owned();
    let dir = home.path().to_owned();
    let program = std::env::var("SERIN_TEST_KUBECTL").expect("SERIN_TEST_KUBECTL names kubectl");
    tokio::task::spawn_blocking(move || {
        let k = Kubectl { program, kubeconfig: &kubeconfig, dir: &dir };
        asks(&k);
        applies(&k);
        changes(&k);
        looks(&k);
        deletes(&k);
    })
    .await
    .unwrap();
    lab.stop().await;
}

fn asks(k: &Kubectl<'_>) {
    k.says("version", "Server Version: v1.35");
    k.says("api-resources", "virtualservices");
    k.says("api-versions", "networking.istio.io/v1alpha3");
    k.says("explain deployment.spec.strategy", "DeploymentStrategy");
    k.says("explain virtualservice.spec.http.route.weight", "integer");
    k.says("auth can-i create pods", "yes");
    k.says("auth whoami", "serin-lab");
    k.says("cluster-info", "is running at https://127.0.0.1:");
    k.says("get ns", "kube-system");
    k.says("get nodes", "Ready");
    k.says("get --raw /readyz", "ok");
}

fn applies(k: &Kubectl<'_>) {
    k.refuses("apply -f typo.yaml", "unknown field \"spec.replica\"");
    k.says("apply -f typo.yaml --validate=warn --dry-run=server", "Warning: unknown field \"spec.replica\"");
    k.says("delete -f app.yaml --ignore-not-found", "");
    k.says("apply -f app.yaml", "deployment.apps/web created");
    k.says("apply -f app.yaml", "virtualservice.networking.istio.io/web unchanged");
    k.refuses("apply -f zero.yaml", "total destination weight = 0");
    k.says("rollout status deployment/web --timeout=60s", "successfully rolled out");
    k.says("wait --for=condition=Available deployment/web --timeout=60s", "condition met");
    k.refuses("diff -f more.yaml", "+  replicas: 3");
    k.says("apply -f more.yaml --dry-run=server", "configured (server dry run)");
    k.says("get deployment web -o jsonpath={.spec.replicas}", "2");
    // kubectl moves what it applied from the client to its server-side manager; then it may change it.
    k.refuses("apply --server-side -f more.yaml", "conflict with \"kubectl-client-side-apply\" using apps/v1");
    k.says("apply --server-side -f app.yaml", "deployment.apps/web serverside-applied");
    k.says("apply --server-side -f more.yaml", "deployment.apps/web serverside-applied");
    k.says("scale deployment web --replicas=1", "scaled");
    k.refuses("apply --server-side -f more.yaml", "Apply failed with 1 conflict");
    k.says("apply --server-side --force-conflicts -f app.yaml", "serverside-applied");
    k.says("get deployment web -o yaml --show-managed-fields", "operation: Apply");
}

fn changes(k: &Kubectl<'_>) {
    k.says("set image deployment/web app=web:2", "image updated");
    k.says("rollout status deployment/web --timeout=60s", "successfully rolled out");
    k.says("rollout history deployment/web", "2");
    k.says("rollout undo deployment/web", "rolled back");
    k.says("rollout restart deployment/web", "restarted");
    k.says("rollout status deployment/web --timeout=60s", "successfully rolled out");
    k.says("set env deployment/web COLOUR=blue", "env updated");
    k.says("label deployment web tier=front", "labeled");
    k.says("annotate deployment web note=hello", "annotated");
    k.says(
        "patch deployment web -p '{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"app\",\"image\":\"web:3\"}]}}}}'",
        "patched",
    );
    k.says("patch vs web --type=merge -p '{\"spec\":{\"hosts\":[\"web\",\"shop\"]}}'", "patched");
    k.says("patch vs web --type=json -p '[{\"op\":\"replace\",\"path\":\"/spec/http/0/route/0/weight\",\"value\":80}]'", "patched");
    k.refuses("patch vs web --type=json -p '[{\"op\":\"test\",\"path\":\"/spec/http/0/route/0/weight\",\"value\":90}]'", "test failed");
    k.refuses("patch vs web --type=strategic -p '{\"spec\":{}}'", "not supported");
    k.says("edit deployment web", "edited");
    k.says("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}", "web:4");
    std::fs::write(k.dir.join("service.yaml"), k.says("get service web -o yaml", "clusterIP")).unwrap();
    k.says("replace -f service.yaml", "service/web replaced");
    // A list is checked by kubectl itself, with the Swagger document in protobuf.
    let listed = k.says("get services,vs -o yaml", "kind: List");
    std::fs::write(k.dir.join("list.yaml"), &listed).unwrap();
    k.says("apply -f list.yaml", "service/web ");
    std::fs::write(k.dir.join("odd.yaml"), listed.replace("selector:", "selectr:")).unwrap();
    k.refuses("apply -f odd.yaml", "unknown field \"selectr\"");
    k.says("create configmap settings --from-literal=a=b", "created");
    k.says("create namespace team", "created");
    k.says("create deployment other --image=other:1 -n team", "created");
    k.says("create job once --image=job:1 -n team", "created");
    k.says("create secret generic token --from-literal=k=v", "created");
    k.says("run single --image=single:1", "created");
    k.says("expose deployment other -n team --port=80", "exposed");
    k.refuses("create token default", "makes no tokens");
}

fn looks(k: &Kubectl<'_>) {
    k.says("rollout status deployment/web --timeout=60s", "successfully rolled out");
    k.says("get pods -l app=web -o wide", "Running");
    k.says("get deployments -A", "team");
    k.says("get all", "service/web");
    k.says("get vs", "GATEWAYS");
    k.says("get pods --field-selector status.phase=Running", "web-");
    k.says("get events --field-selector involvedObject.kind=Deployment", "ScalingReplicaSet");
    k.says("events --for deployment/web", "ScalingReplicaSet");
    k.says("describe deployment web", "NewReplicaSet:");
    k.says("describe service web", "Endpoints:");
    k.says("describe pod -l app=web", "Container ID:");
    k.says("describe vs web", "Weight:");
    k.says("describe node serin-lab", "Addresses:");
    k.says("logs deployment/web --tail=1", "sample app");
    k.says("get configmap settings -o json", "\"a\": \"b\"");
    k.says("wait --for=jsonpath={.spec.replicas}=2 deployment/web --timeout=30s", "condition met");
    k.refuses("exec deployment/web -- ls", "the lab cannot exec");
    k.refuses("get nothing", "the server doesn't have a resource type");
    k.refuses("get deployment none", "NotFound");
}

fn deletes(k: &Kubectl<'_>) {
    k.says("delete pod single --now", "deleted");
    k.says("delete deployment web --cascade=orphan", "deleted");
    k.says("get rs -l app=web -o name", "replicaset.apps/web-");
    k.says("delete rs -l app=web --cascade=foreground --timeout=60s", "deleted");
    k.says("wait --for=delete pod -l app=web --timeout=60s", "");
    k.says("delete namespace team --timeout=90s", "deleted");
    k.refuses("get namespace team", "NotFound");
    k.refuses("delete namespace kube-system", "may not be deleted");
    k.says("delete -f app.yaml --ignore-not-found", "service \"web\" deleted");
}
