//! Names of hosts as Istio reads them. Deliberately knows no object.

/// A host as written in a rule of `namespace`: short names expand, anything with a dot is taken literally.
pub(super) fn resolve(written: &str, namespace: &str) -> String {
    let written = written.to_ascii_lowercase();
    if written.contains('.') || written == "*" { written } else { fqdn(&written, namespace) }
}

/// The full name of a service.
pub(super) fn fqdn(name: &str, namespace: &str) -> String {
    format!("{name}.{namespace}.svc.cluster.local")
}

/// Name and namespace of a service's full name; `None` for a host that is no Kubernetes Service.
pub(super) fn service(host: &str) -> Option<(&str, &str)> {
    host.strip_suffix(".svc.cluster.local").and_then(|h| h.split_once('.')).filter(|(_, namespace)| !namespace.contains('.'))
}

/// How closely a host that covers a name means it: an exact host more than a pattern, a longer pattern more than a shorter one.
pub(super) fn closeness(host: &str) -> (bool, usize) {
    (!host.starts_with('*'), host.len())
}

/// Whether `pattern` (exact, `*.suffix` or `*`) covers `host`.
pub(super) fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.ends_with(suffix) && host.len() > suffix.len(),
        None => pattern == host,
    }
}

/// What both cover, as one of the two: the narrower. `None` where they have nothing in common.
pub(super) fn common<'h>(a: &'h str, b: &'h str) -> Option<&'h str> {
    if a == b || covers(b, a) {
        return Some(a);
    }
    covers(a, b).then_some(b)
}

/// The names by which callers in namespace `caller` may call a host.
pub(super) fn domains(host: &str, caller: &str) -> Vec<String> {
    let Some((name, namespace)) = service(host) else {
        return vec![host.to_string()];
    };
    let mut all = vec![host.to_string(), format!("{name}.{namespace}.svc"), format!("{name}.{namespace}")];
    if namespace == caller {
        all.push(name.to_string());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_expand_and_dotted_ones_are_taken_as_they_are() {
        assert_eq!(resolve("my-app", "shop"), "my-app.shop.svc.cluster.local");
        assert_eq!(resolve("my-app.shop", "shop"), "my-app.shop");
        assert_eq!(resolve("*", "shop"), "*");
        assert_eq!(resolve("My-App", "shop"), "my-app.shop.svc.cluster.local");
    }

    #[test]
    fn patterns_cover_what_is_longer_than_their_suffix() {
        for (pattern, host, covered) in [
            ("*", "a", true),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("a.example.com", "a.example.com", true),
            ("a.example.com", "b.example.com", false),
        ] {
            assert_eq!(covers(pattern, host), covered, "{pattern} {host}");
        }
    }

    #[test]
    fn the_common_host_is_the_narrower_one() {
        assert_eq!(common("*", "a.com"), Some("a.com"));
        assert_eq!(common("a.com", "*.com"), Some("a.com"));
        assert_eq!(common("*.b.com", "*.com"), Some("*.b.com"));
        assert_eq!(common("a.com", "b.com"), None);
    }

    #[test]
    fn the_bare_name_is_for_callers_of_the_same_namespace() {
        assert_eq!(domains("my-app.shop.svc.cluster.local", "shop").last().map(String::as_str), Some("my-app"));
        assert_eq!(domains("my-app.shop.svc.cluster.local", "other").last().map(String::as_str), Some("my-app.shop"));
        assert_eq!(domains("api.example.com", "shop"), ["api.example.com"]);
    }
}
