//! `serin install`: what a cluster needs, as YAML for `kubectl apply -f -`; `serin uninstall`: the same, for `kubectl delete -f -`.
//!
//! Prints and never applies: whoever installs something that may change routes should see it first.

use clap::Args;
use serde_json::{Value, json};

use crate::exit::{Exit, Failure, Outcome};
use crate::out;

/// Where the controller lives, unless it is told otherwise.
pub(crate) const NAMESPACE: &str = "serin-system";

/// glibc's allocator keeps an arena for each thread, and what was freed in one serves no other: a tenth of the memory, and the controller's threads are
/// few. Other allocators do not know the name.
pub(crate) const FEW_ARENAS: (&str, &str) = ("MALLOC_ARENA_MAX", "1");

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
    #[arg(short = 'n', long, value_name = "NAME", default_value = NAMESPACE)]
    namespace: String,
    /// Releases of this namespace only: a Role there, and no ClusterRole
    #[arg(long, value_name = "NAME")]
    watch_namespace: Option<String>,
    /// The right to delete Deployments too, which spec.scaling.retireAfter needs
    #[arg(long)]
    retire: bool,
}

/// Prints them.
pub(crate) fn run(args: &InstallArgs) -> Outcome {
    out::answer(&serin_api::crds())?;
    if args.crds {
        return Ok(Exit::Done);
    }
    let image = args.image.as_deref().unwrap_or_default();
    let namespace = args.namespace.as_str();
    for object in manifests(image, namespace, args.watch_namespace.as_deref(), args.retire) {
        let yaml = serde_saphyr::to_string(&object).map_err(|e| Failure::new(format!("cannot write YAML: {e}")))?;
        out::answer(&format!("---\n{yaml}"))?;
    }
    Ok(Exit::Done)
}

/// Print the manifests that a cluster needs no more
#[derive(Args, Debug)]
#[command(
    after_help = "Traffic stays exactly where it is: routes, rules and Deployments are not touched. The namespace is left, as others may use it.\n\nExit codes: 0 printed; 2 wrong usage.\n\nExamples:\n  serin uninstall | kubectl delete -f -\n  serin uninstall --crds | kubectl delete -f -    the releases and their history too"
)]
pub(crate) struct UninstallArgs {
    /// The definitions of Serin's kinds too, and with them every release
    #[arg(long)]
    crds: bool,
    /// Where the controller lives
    #[arg(short = 'n', long, value_name = "NAME", default_value = "serin-system")]
    namespace: String,
    /// It was installed for releases of this namespace only
    #[arg(long, value_name = "NAME")]
    watch_namespace: Option<String>,
}

/// Prints what `serin install` had printed, last first: the controller goes before its rights, and both before the kinds.
pub(crate) fn uninstall(args: &UninstallArgs) -> Outcome {
    let mut objects = manifests("", &args.namespace, args.watch_namespace.as_deref(), false);
    objects.retain(|o| o["kind"] != "Namespace");
    for object in objects.iter().rev() {
        let mut which =
            json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": {"name": object["metadata"]["name"]}});
        if let Some(namespace) = object["metadata"].get("namespace") {
            which["metadata"]["namespace"] = namespace.clone();
        }
        let yaml = serde_saphyr::to_string(&which).map_err(|e| Failure::new(format!("cannot write YAML: {e}")))?;
        out::answer(&format!("---\n{yaml}"))?;
    }
    if args.crds {
        out::answer(&format!("---\n{}", serin_api::crds().trim_start_matches("---\n")))?;
    }
    Ok(Exit::Done)
}

/// What the controller may do: no Secrets, no wildcard. Kinds and verbs are those that its code uses.
pub(crate) fn rules(retire: bool) -> Value {
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    const READ: [&str; 3] = ["get", "list", "watch"];
    json!([
        rule("serin.dev", &["canaryreleases"], &["get", "list", "watch", "patch"]),
        rule("serin.dev", &["canaryreleases/status"], &["get", "patch", "update"]),
        rule("serin.dev", &["canarypolicies"], &READ),
        rule("networking.istio.io", &["virtualservices"], &["get", "list", "watch", "patch"]),
        rule("networking.istio.io", &["destinationrules"], &["get", "list", "watch", "create", "patch", "delete"]),
        rule("apps", &["deployments"], if retire { &["get", "list", "watch", "delete"] } else { &READ }),
        rule("apps", &["deployments/scale"], &["get", "patch"]),
        rule("", &["services", "pods"], &READ),
        rule("discovery.k8s.io", &["endpointslices"], &READ),
        rule("autoscaling", &["horizontalpodautoscalers"], &READ),
        rule("keda.sh", &["scaledobjects"], &READ),
        rule("events.k8s.io", &["events"], &["create", "patch"]),
    ])
}

fn manifests(image: &str, namespace: &str, only: Option<&str>, retire: bool) -> Vec<Value> {
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
    role["rules"] = rules(retire);
    let mut binding = named(binding_kind, RBAC, only);
    binding["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": "serin"});
    binding["subjects"] = json!([{"kind": "ServiceAccount", "name": "serin", "namespace": namespace}]);
    // Who is in charge is a matter of the controller's own namespace.
    let mut lease_role = named("Role", RBAC, Some(namespace));
    lease_role["metadata"]["name"] = "serin-lease".into();
    lease_role["rules"] = json!([
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update", "patch"]},
        // The policy that holds for releases that name none lies here too.
        {"apiGroups": ["serin.dev"], "resources": ["canarypolicies"], "verbs": ["get", "list", "watch"]},
    ]);
    let mut lease_binding = named("RoleBinding", RBAC, Some(namespace));
    lease_binding["metadata"]["name"] = "serin-lease".into();
    lease_binding["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "serin-lease"});
    lease_binding["subjects"] = binding["subjects"].clone();
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
                    "env": [
                        {"name": FEW_ARENAS.0, "value": FEW_ARENAS.1},
                        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                        {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
                    ],
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
    let mut objects = vec![named("ServiceAccount", "v1", Some(namespace)), role, binding, lease_role, lease_binding, deployment];
    if only != Some(namespace) {
        objects.insert(0, space);
    }
    objects
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn the_controllers_arguments_are_those_that_it_knows() {
        for only in [None, Some("shop")] {
            let objects = manifests("serin:test", "serin-system", only, false);
            let deployment = objects.iter().find(|o| o["kind"] == "Deployment").expect("a Deployment");
            let arguments = deployment.pointer("/spec/template/spec/containers/0/args").and_then(Value::as_array).expect("arguments");
            let arguments = std::iter::once("serin").chain(arguments.iter().filter_map(Value::as_str));
            crate::cli::Cli::try_parse_from(arguments).unwrap_or_else(|e| panic!("{e}"));
        }
    }

    #[test]
    fn a_namespaced_install_has_no_cluster_role() {
        let kinds: Vec<String> =
            manifests("i", "shop", Some("shop"), false).iter().map(|o| o["kind"].as_str().unwrap_or_default().to_string()).collect();
        assert!(!kinds.iter().any(|k| k.starts_with("Cluster") || k == "Namespace"), "{kinds:?}");
    }

    #[test]
    fn rights_are_few_and_named() {
        let rules = rules(false);
        let all: Vec<&str> = rules
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|r| ["resources", "verbs", "apiGroups"].map(|f| &r[f]))
            .filter_map(Value::as_array)
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        assert!(!all.contains(&"*") && !all.contains(&"secrets"));
        // Every kind that is watched may be read.
        let readable = |group: &str, plural: &str| {
            let mut fits = rules.as_array().into_iter().flatten();
            fits.any(|r| {
                r["apiGroups"][0] == group
                    && r["resources"].as_array().is_some_and(|a| a.iter().any(|p| p == plural))
                    && r["verbs"].as_array().is_some_and(|v| v.iter().any(|v| v == "watch"))
            })
        };
        for kind in serin_controller::kinds::Kind::ALWAYS.into_iter().chain([serin_controller::kinds::Kind::Pod]) {
            let resource = kind.builtin();
            assert!(readable(&resource.group, &resource.plural), "{} of {:?}", resource.plural, resource.group);
        }
    }
}
