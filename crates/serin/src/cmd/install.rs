//! `serin install`: what a cluster needs, as YAML for `kubectl apply -f -`.
//!
//! Prints and never applies: whoever installs something that may change routes should see it first.

use clap::Args;
use serde_json::{Value, json};

use crate::exit::{Exit, Failure, Outcome};
use crate::out;

/// Print the manifests that a cluster needs
#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 printed; 2 wrong usage.\n\nExamples:\n  serin install --crds | kubectl apply -f -\n  serin install --image registry.example/serin:0.1.0 | kubectl apply -f -\n  serin install --image registry.example/serin:0.1.0 --watch-namespace shop -n shop | kubectl apply -f -"
)]
pub(crate) struct InstallArgs {
    /// Only the definitions of Serin's kinds
    #[arg(long)]
    crds: bool,
    /// The controller's image
    #[arg(long, value_name = "IMAGE", required_unless_present = "crds")]
    image: Option<String>,
    /// Where the controller lives
    #[arg(short = 'n', long, value_name = "NAME", default_value = "serin-system")]
    namespace: String,
    /// Releases of this namespace only: a Role there, and no ClusterRole
    #[arg(long, value_name = "NAME")]
    watch_namespace: Option<String>,
}

/// Prints them.
pub(crate) fn run(args: &InstallArgs) -> Outcome {
    out::answer(&serin_api::crds())?;
    if args.crds {
        return Ok(Exit::Done);
    }
    let image = args.image.as_deref().unwrap_or_default();
    let namespace = args.namespace.as_str();
    for object in manifests(image, namespace, args.watch_namespace.as_deref()) {
        let yaml = serde_saphyr::to_string(&object).map_err(|e| Failure::new(format!("cannot write YAML: {e}")))?;
        out::answer(&format!("---\n{yaml}"))?;
    }
    Ok(Exit::Done)
}

/// What the controller may do: no Secrets, no wildcard. Kinds and verbs are those that its code uses.
pub(crate) fn rules() -> Value {
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    const READ: [&str; 3] = ["get", "list", "watch"];
    json!([
        rule("serin.dev", &["canaryreleases"], &["get", "list", "watch", "patch"]),
        rule("serin.dev", &["canaryreleases/status"], &["get", "patch", "update"]),
        rule("networking.istio.io", &["virtualservices"], &["get", "list", "watch", "patch"]),
        rule("networking.istio.io", &["destinationrules"], &["get", "list", "watch", "create", "patch", "delete"]),
        rule("apps", &["deployments"], &READ),
        rule("apps", &["deployments/scale"], &["get", "patch"]),
        rule("", &["services", "pods"], &READ),
        rule("discovery.k8s.io", &["endpointslices"], &READ),
        rule("autoscaling", &["horizontalpodautoscalers"], &READ),
        rule("coordination.k8s.io", &["leases"], &["get", "create", "update", "patch"]),
        rule("events.k8s.io", &["events"], &["create", "patch"]),
        rule("", &["events"], &["create", "patch"]),
    ])
}

fn manifests(image: &str, namespace: &str, only: Option<&str>) -> Vec<Value> {
    let labels = json!({"app.kubernetes.io/name": "serin", "app.kubernetes.io/managed-by": "serin"});
    let named = |kind: &str, group: &str, ns: Option<&str>| {
        let mut object = json!({"apiVersion": group, "kind": kind, "metadata": {"name": "serin", "labels": labels}});
        if let Some(ns) = ns {
            object["metadata"]["namespace"] = ns.into();
        }
        object
    };
    const RBAC: &str = "rbac.authorization.k8s.io/v1";
    let (role_kind, binding_kind) = if only.is_some() { ("Role", "RoleBinding") } else { ("ClusterRole", "ClusterRoleBinding") };
    let mut role = named(role_kind, RBAC, only);
    role["rules"] = rules();
    let mut binding = named(binding_kind, RBAC, only);
    binding["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": "serin"});
    binding["subjects"] = json!([{"kind": "ServiceAccount", "name": "serin", "namespace": namespace}]);
    let mut arguments = vec!["controller".to_string(), "--leader-elect".into(), "--listen".into(), "0.0.0.0:8081".into()];
    if let Some(only) = only {
        arguments.extend(["--namespace".into(), only.into()]);
    }
    let mut deployment = named("Deployment", "apps/v1", Some(namespace));
    deployment["spec"] = json!({
        "replicas": 1,
        "selector": {"matchLabels": {"app.kubernetes.io/name": "serin"}},
        "template": {
            "metadata": {"labels": labels, "annotations": {"sidecar.istio.io/inject": "false"}},
            "spec": {
                "serviceAccountName": "serin",
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "serin", "image": image, "args": arguments,
                    "ports": [{"name": "http", "containerPort": 8081}],
                    "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
                    "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}},
                    "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
                    "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
                }],
            },
        },
    });
    let mut space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}});
    space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "restricted".into();
    let mut objects = vec![named("ServiceAccount", "v1", Some(namespace)), role, binding, deployment];
    if only != Some(namespace) {
        objects.insert(0, space);
    }
    objects
}
