//! The environment of a container: the lab's own variables, then what the manifest says, in Kubernetes' order.
//!
//! Pure but for looking ConfigMaps and Secrets up in the store. What it names and is not there is an error, as
//! in Kubernetes, unless it is optional.

use base64::Engine;
use serde_json::Value;

use super::super::object::{annotation, flag, items, label, name, namespace, text, uid};
use crate::store::{Key, Object, Store};

/// Variables in the order in which they were set; a later one of the same name replaces the earlier.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Env(Vec<(String, String)>);

impl Env {
    /// Sets a variable.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            Some(slot) => slot.1 = value,
            None => self.0.push((name, value)),
        }
    }

    /// A variable's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// Fills `$(NAME)` in; `$$` is a dollar sign, and what is not set stays as it is written.
    pub fn expand(&self, text: &str) -> String {
        self.expand_with(text, false)
    }

    /// Fills `$(NAME)`, `$NAME` and `${NAME}` in, for commands that no shell reads.
    pub fn expand_words(&self, text: &str) -> String {
        self.expand_with(text, true)
    }

    fn expand_with(&self, text: &str, shell: bool) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let closed = |open: char, close: char| rest.strip_prefix(open).and_then(|r| r.split_once(close));
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let bare = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            let (found, after) = if let Some(after) = rest.strip_prefix('$') {
                (Some("$"), after)
            } else if let Some((name, after)) = closed('(', ')') {
                (self.get(name), after)
            } else if let Some((name, after)) = closed('{', '}').filter(|_| shell) {
                (self.get(name), after)
            } else if shell && bare > 0 {
                (self.get(&rest[..bare]), &rest[bare..])
            } else {
                (None, rest)
            };
            match found {
                Some(value) => {
                    out.push_str(value);
                    rest = after;
                }
                None => out.push('$'),
            }
        }
        out.push_str(rest);
        out
    }
}

/// What the environment of a container is made from.
pub struct Source<'a> {
    /// Where ConfigMaps and Secrets are.
    pub store: &'a Store,
    /// The pod.
    pub pod: &'a Value,
    /// The container.
    pub container: &'a Value,
    /// The pod's address.
    pub ip: &'a str,
    /// The port for `PORT`, if the container is to listen.
    pub port: Option<u16>,
}

/// The container's environment.
///
/// # Errors
/// Names what is missing.
pub fn resolve(source: &Source<'_>) -> Result<Env, String> {
    let Source { store, pod, container, ip, port } = *source;
    let mut env = Env::default();
    env.set("HOSTNAME", name(pod));
    env.set("POD_IP", ip);
    env.set("POD_NAME", name(pod));
    env.set("POD_NAMESPACE", namespace(pod));
    if let Some(port) = port {
        env.set("PORT", port.to_string());
    }
    env.set("VERSION", version(pod, container));

    for from in items(container, "/envFrom") {
        let prefix = text(from, "/prefix");
        let mut all = Vec::new();
        for (field, plural) in [("configMapRef", "configmaps"), ("secretRef", "secrets")] {
            if let Some(reference) = from.get(field)
                && let Some(found) = lookup(store, pod, plural, reference)?
            {
                all.extend(data(&found, plural));
            }
        }
        for (key, value) in all {
            env.set(format!("{prefix}{key}"), value);
        }
    }
    for variable in items(container, "/env") {
        let key = text(variable, "/name");
        if let Some(source) = variable.get("valueFrom").filter(|v| !v.is_null()) {
            if let Some(value) = value_from(store, pod, container, ip, source)? {
                env.set(key, value);
            }
        } else {
            let value = env.expand(text(variable, "/value"));
            env.set(key, value);
        }
    }
    Ok(env)
}

/// The pod's `version` label, else the image's tag.
pub fn version<'a>(pod: &'a Value, container: &'a Value) -> &'a str {
    label(pod, "version").filter(|v| !v.is_empty()).unwrap_or_else(|| super::images::tag(text(container, "/image")))
}

/// A ConfigMap or Secret; `None` when it is optional and not there.
fn lookup(store: &Store, pod: &Value, plural: &str, reference: &Value) -> Result<Option<Object>, String> {
    let wanted = text(reference, "/name");
    match store.get(&Key::namespaced("", plural, namespace(pod), wanted)) {
        Some(found) => Ok(Some(found)),
        None if flag(reference, "/optional") => Ok(None),
        None => Err(format!("{} \"{wanted}\" not found", plural.trim_end_matches('s'))),
    }
}

/// The keys and values of a ConfigMap or a Secret.
fn data(object: &Value, plural: &str) -> Vec<(String, String)> {
    let pairs = object.get("data").and_then(Value::as_object).into_iter().flatten();
    let decode = |value: &str| match plural {
        "secrets" => base64::engine::general_purpose::STANDARD
            .decode(value.trim())
            .map(|v| String::from_utf8_lossy(&v).into_owned())
            .unwrap_or_default(),
        _ => value.to_owned(),
    };
    let mut all: Vec<_> = pairs.filter_map(|(k, v)| Some((k.clone(), decode(v.as_str()?)))).collect();
    let plain = object.get("stringData").and_then(Value::as_object).into_iter().flatten();
    all.extend(plain.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))));
    all
}

fn value_from(store: &Store, pod: &Value, container: &Value, ip: &str, source: &Value) -> Result<Option<String>, String> {
    for (field, plural) in [("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")] {
        let Some(reference) = source.get(field) else { continue };
        let Some(found) = lookup(store, pod, plural, reference)? else { return Ok(None) };
        let key = text(reference, "/key");
        return match data(&found, plural).into_iter().find(|(k, _)| k == key) {
            Some((_, value)) => Ok(Some(value)),
            None if flag(reference, "/optional") => Ok(None),
            None => {
                let kind = if plural == "secrets" { "Secret" } else { "ConfigMap" };
                Err(format!("couldn't find key {key} in {kind} {}/{}", namespace(pod), text(reference, "/name")))
            }
        };
    }
    if let Some(reference) = source.get("fieldRef") {
        let path = text(reference, "/fieldPath");
        return field(pod, ip, path).map(Some).ok_or_else(|| format!("unsupported field path \"{path}\""));
    }
    if let Some(reference) = source.get("resourceFieldRef") {
        return Ok(Some(resource(pod, container, reference)));
    }
    Err("a variable has a valueFrom that the lab does not know".into())
}

/// The downward API's fields.
fn field(pod: &Value, ip: &str, path: &str) -> Option<String> {
    let subscript = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']");
    if let Some(key) = subscript("metadata.labels") {
        return Some(label(pod, key).unwrap_or_default().to_owned());
    }
    if let Some(key) = subscript("metadata.annotations") {
        return Some(annotation(pod, key).unwrap_or_default().to_owned());
    }
    let value = match path {
        "metadata.name" => name(pod),
        "metadata.namespace" => namespace(pod),
        "metadata.uid" => uid(pod),
        "spec.nodeName" => super::super::node::NAME,
        "spec.serviceAccountName" => match text(pod, "/spec/serviceAccountName") {
            "" => "default",
            account => account,
        },
        "status.hostIP" | "status.hostIPs" => super::super::node::ADDRESS,
        "status.podIP" | "status.podIPs" => ip,
        _ => return None,
    };
    Some(value.to_owned())
}

/// `limits.memory` and the like as a whole number of `divisor`, rounded up; without a limit, a generous one.
fn resource(pod: &Value, container: &Value, reference: &Value) -> String {
    let container = match text(reference, "/containerName") {
        "" => container,
        wanted => items(pod, "/spec/containers").iter().find(|c| text(c, "/name") == wanted).unwrap_or(container),
    };
    let (kind, what) = text(reference, "/resource").split_once('.').unwrap_or_default();
    let given = container.get("resources").and_then(|r| r.get(kind)).and_then(|r| r.get(what)).and_then(quantity);
    let default = if what == "cpu" { 1.0 } else { 0.0 };
    let divisor = reference.get("divisor").and_then(quantity).filter(|d| *d > 0.0).unwrap_or(1.0);
    format!("{:.0}", (given.unwrap_or(default) / divisor).ceil())
}

/// A Kubernetes quantity: `500m`, `128Mi`, `2`, `1e3`.
fn quantity(value: &Value) -> Option<f64> {
    let text = match value {
        Value::Number(n) => return n.as_f64(),
        Value::String(text) => text.trim(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    const UNITS: [(&str, f64); 13] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
    ];
    let unit = UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (digits, factor) = unit.unwrap_or((text, 1.0));
    digits.parse::<f64>().ok().map(|n| n * factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    fn world() -> Store {
        let store = Store::new(Arc::new(|| jiff::Timestamp::UNIX_EPOCH));
        store.create(&Key::namespaced("", "configmaps", "n", "c"), json!({"data": {"A": "1", "B": "2"}})).unwrap();
        store.create(&Key::namespaced("", "secrets", "n", "s"), json!({"data": {"P": "c2VjcmV0"}})).unwrap();
        store
    }

    fn env(container: Value) -> Result<Env, String> {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "labels": {"app": "a", "version": "v2"}}, "spec": {}});
        resolve(&Source { store: &world(), pod: &pod, container: &container, ip: "127.16.0.2", port: Some(8080) })
    }

    #[test]
    fn variables_come_from_everywhere_and_later_ones_win() {
        let env = env(json!({
            "image": "x:v9",
            "envFrom": [{"prefix": "C_", "configMapRef": {"name": "c"}}, {"secretRef": {"name": "s"}}],
            "env": [
                {"name": "C_A", "value": "one"},
                {"name": "URL", "value": "http://$(POD_IP):$(PORT)/$(C_B)/$(NOPE)/$$(PORT)"},
                {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "s", "key": "P"}}},
                {"name": "MAYBE", "valueFrom": {"configMapKeyRef": {"name": "gone", "key": "k", "optional": true}}},
                {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            ],
            "resources": {"limits": {"memory": "128Mi"}},
        }))
        .unwrap();
        let get = |name| env.get(name).unwrap_or("-");
        assert_eq!(get("C_A"), "one");
        assert_eq!(get("P"), "secret");
        assert_eq!(get("URL"), "http://127.16.0.2:8080/2/$(NOPE)/$(PORT)");
        assert_eq!((get("APP"), get("PW"), get("MAYBE"), get("MEM"), get("VERSION")), ("a", "secret", "-", "128", "v2"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = |variable: Value| env(json!({"env": [{"name": "X", "valueFrom": variable}]})).unwrap_err();
        assert_eq!(missing(json!({"configMapKeyRef": {"name": "gone", "key": "k"}})), "configmap \"gone\" not found");
        assert_eq!(missing(json!({"configMapKeyRef": {"name": "c", "key": "k"}})), "couldn't find key k in ConfigMap n/c");
        assert_eq!(missing(json!({"fieldRef": {"fieldPath": "spec.secret"}})), "unsupported field path \"spec.secret\"");
    }

    #[test]
    fn commands_know_the_shells_spelling_too() {
        let mut env = Env::default();
        env.set("PORT", "8080");
        assert_eq!(env.expand_words("--p=$PORT ${PORT}x $(PORT) $NOPE $$PORT $"), "--p=8080 8080x 8080 $NOPE $PORT $");
        assert_eq!(env.expand("$PORT"), "$PORT");
    }
}
