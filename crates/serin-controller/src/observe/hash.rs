//! The hash of a pod template: the same as long as the version is the same.
//!
//! `pod-template-hash` will not do: a `kubectl rollout restart` changes it. What counts is a closed list of fields, read from
//! the raw JSON: a cluster that learns new fields, and fills in their defaults, must not make every version look new, nor
//! must a Serin that learns of them. Deliberately no cryptography: it tells versions apart and protects nothing.

use serde_json::Value;

/// Annotations that a restart, or a tool that restarts, writes.
const RESTARTS: [&str; 4] = [
    "kubectl.kubernetes.io/restartedAt",
    "reloader.stakater.com/last-reloaded-from",
    "fluentbit.io/restartedAt",
    "kubernetes.io/change-cause",
];

/// Fields of a pod's spec that make a version, as of Kubernetes 1.35.
const POD: [&str; 34] = [
    "activeDeadlineSeconds",
    "affinity",
    "automountServiceAccountToken",
    "dnsConfig",
    "dnsPolicy",
    "enableServiceLinks",
    "hostAliases",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostUsers",
    "hostname",
    "imagePullSecrets",
    "nodeName",
    "nodeSelector",
    "os",
    "overhead",
    "preemptionPolicy",
    "priorityClassName",
    "readinessGates",
    "resourceClaims",
    "resources",
    "restartPolicy",
    "runtimeClassName",
    "schedulerName",
    "securityContext",
    "serviceAccountName",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "subdomain",
    "terminationGracePeriodSeconds",
    "tolerations",
    "topologySpreadConstraints",
    "volumes",
];

/// Fields of a container that make a version, as of Kubernetes 1.35.
const CONTAINER: [&str; 24] = [
    "args",
    "command",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "lifecycle",
    "livenessProbe",
    "name",
    "ports",
    "readinessProbe",
    "resizePolicy",
    "resources",
    "restartPolicy",
    "restartPolicyRules",
    "securityContext",
    "startupProbe",
    "stdin",
    "stdinOnce",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tty",
    "volumeDevices",
    "volumeMounts",
];

/// The hash of a Deployment's `spec.template`.
pub(crate) fn template_hash(template: &Value) -> String {
    let mut hash = Fnv::new();
    if let Some(labels) = template.pointer("/metadata/labels") {
        hash.value(labels);
    }
    for (key, value) in template.pointer("/metadata/annotations").and_then(Value::as_object).into_iter().flatten() {
        if !RESTARTS.contains(&key.as_str()) {
            hash.text(key);
            hash.value(value);
        }
    }
    let spec = template.get("spec").unwrap_or(&Value::Null);
    hash.fields(spec, &POD);
    for list in ["initContainers", "containers"] {
        hash.text(list);
        for container in spec.get(list).and_then(Value::as_array).into_iter().flatten() {
            hash.fields(container, &CONTAINER);
            if let Some(directory) = container.get("workingDir") {
                hash.value(directory);
            }
            hash.byte(b';');
        }
    }
    format!("{:016x}", hash.0)
}

/// FNV-1a over a text that no two different values share.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }

    fn text(&mut self, text: &str) {
        text.bytes().for_each(|b| self.byte(b));
        self.byte(0);
    }

    fn fields(&mut self, object: &Value, names: &[&str]) {
        for name in names {
            if let Some(value) = object.get(name) {
                self.text(name);
                self.value(value);
            }
        }
    }

    /// Keys in their order, which is the sorted one: serde_json's map is a tree here, whatever the server sent.
    fn value(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                self.byte(b'{');
                let mut sorted: Vec<(&String, &Value)> = fields.iter().collect();
                sorted.sort_by_key(|(key, _)| *key);
                for (key, value) in sorted {
                    self.text(key);
                    self.value(value);
                }
                self.byte(b'}');
            }
            Value::Array(items) => {
                self.byte(b'[');
                items.iter().for_each(|item| self.value(item));
                self.byte(b']');
            }
            Value::String(text) => {
                self.byte(b'"');
                self.text(text);
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => self.text(&value.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::template_hash;

    fn template() -> serde_json::Value {
        json!({"metadata": {"labels": {"app": "a", "version": "v1"}}, "spec": {"containers": [{"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]}]}})
    }

    #[test]
    fn a_restart_is_no_new_version() {
        let mut restarted = template();
        restarted["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"});
        assert_eq!(template_hash(&template()), template_hash(&restarted));
    }

    #[test]
    fn what_runs_differently_is_a_new_version() {
        let changes = [
            ("/spec/containers/0/image", json!("a:2")),
            ("/spec/containers/0/env/0/value", json!("2")),
            ("/spec/containers", json!([])),
            ("/metadata/labels/version", json!("v2")),
        ];
        for (path, value) in changes {
            let mut changed = template();
            *changed.pointer_mut(path).expect("the field") = value;
            assert_ne!(template_hash(&template()), template_hash(&changed), "{path}");
        }
        let mut annotated = template();
        annotated["metadata"]["annotations"] = json!({"checksum/config": "1"});
        assert_ne!(template_hash(&template()), template_hash(&annotated));
    }

    #[test]
    fn the_hash_is_the_same_in_every_release() {
        assert_eq!(template_hash(&template()), "94303b14b06d6dd4");
    }

    #[test]
    fn a_field_that_a_later_kubernetes_fills_in_is_no_new_version() {
        let mut later = template();
        later["spec"]["inventedLater"] = json!(true);
        later["spec"]["containers"][0]["inventedLater"] = json!(1);
        assert_eq!(template_hash(&template()), template_hash(&later));
    }

    #[test]
    fn the_order_of_keys_does_not_count() {
        let a: serde_json::Value = serde_json::from_str(r#"{"spec":{"containers":[{"name":"a","image":"b"}]}}"#).expect("JSON");
        let b: serde_json::Value = serde_json::from_str(r#"{"spec":{"containers":[{"image":"b","name":"a"}]}}"#).expect("JSON");
        assert_eq!(template_hash(&a), template_hash(&b));
    }
}
