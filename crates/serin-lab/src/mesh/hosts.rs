//! Names of hosts as Istio reads them. Deliberately knows no object.

/// A host as written in a rule of `namespace`: short names expand, anything with a dot is taken literally.
pub(super) fn resolve(written: &str, namespace: &str) -> String {
    if written.contains('.') || written == "*" { written.to_string() } else { fqdn(written, namespace) }
}

/// The full name of a service.
pub(super) fn fqdn(name: &str, namespace: &str) -> String {
    format!("{name}.{namespace}.svc.cluster.local")
}

/// Whether `pattern` (exact, `*.suffix` or `*`) covers `host`.
pub(super) fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.ends_with(suffix) && host.len() > suffix.len(),
        None => pattern == host,
    }
}

/// The names by which callers in `caller` may call a host.
pub(super) fn domains(host: &str, caller: &str) -> Vec<String> {
    let Some((name, namespace)) = host.strip_suffix(".svc.cluster.local").and_then(|h| h.split_once('.')) else {
        return vec![host.to_string()];
    };
    let mut all = vec![host.to_string(), format!("{name}.{namespace}.svc"), format!("{name}.{namespace}")];
    if namespace == caller {
        all.push(name.to_string());
    }
    all
}
