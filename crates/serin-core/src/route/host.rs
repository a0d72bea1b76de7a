//! Host names as Istio reads them.
//!
//! Deliberately no DNS and no registry: a name is resolved by its shape and by the namespace of the object that says it.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use core::fmt;
use core::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The cluster's domain. Istio takes it from its mesh configuration; every mainstream cluster leaves it at this value.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// A Kubernetes Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceName {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

impl ServiceName {
    /// From its parts.
    pub fn new(name: impl Into<String>, namespace: impl Into<String>) -> Self {
        Self { name: name.into(), namespace: namespace.into() }
    }

    /// The name by which the mesh knows it.
    pub fn fqdn(&self) -> String {
        format!("{}.{}.svc.{CLUSTER_DOMAIN}", self.name, self.namespace)
    }

    /// Whether `host`, written in an object of `namespace`, means this service.
    pub fn is(&self, host: &str, namespace: &str) -> bool {
        resolve(host, namespace) == self.fqdn()
    }

    /// Whether `host`, written in an object of `namespace`, is this service or a pattern that covers it. As [`covers`] of what
    /// [`resolve`] gives, without building either name: it is asked of every rule in the cluster.
    pub fn is_covered_by(&self, host: &str, namespace: &str) -> bool {
        match host.strip_prefix('*') {
            // No legal host, and Istio completes it as a short name.
            Some(rest) if !rest.is_empty() && !rest.contains('.') => covers(&resolve(host, namespace), &self.fqdn()),
            Some(rest) => {
                let full = self.full_len();
                full > rest.len() && self.bytes().skip(full - rest.len()).eq(rest.bytes().map(|b| b.to_ascii_lowercase()))
            }
            None if host.contains('.') => host.len() == self.full_len() && self.bytes().eq(host.bytes().map(|b| b.to_ascii_lowercase())),
            None => namespace == self.namespace && host.eq_ignore_ascii_case(&self.name),
        }
    }

    fn full_len(&self) -> usize {
        self.name.len() + self.namespace.len() + CLUSTER_DOMAIN.len() + ". .svc".len()
    }

    /// The bytes of the full name.
    fn bytes(&self) -> impl Iterator<Item = u8> {
        let parts = [&*self.name, ".", &*self.namespace, ".svc.", CLUSTER_DOMAIN];
        parts.into_iter().flat_map(str::bytes)
    }

    /// Whether somebody who wrote `host` is likely to have meant this service, although Istio reads it literally and finds
    /// nothing: `my-app.default`, `my-app.default.svc`.
    pub fn nearly_is(&self, host: &str) -> bool {
        let short = format!("{}.{}", self.name, self.namespace);
        host == short || host == format!("{short}.svc")
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The host that `written` in an object of `namespace` means: a name without a dot is a service of that namespace, anything
/// else is literal, `my-app.default` included (`ResolveShortnameToFQDN`, Istio 1.31). Case does not count in a host name.
pub fn resolve(written: &str, namespace: &str) -> String {
    let literal = written.is_empty() || written == "*" || written.contains('.') || written.parse::<IpAddr>().is_ok();
    let full = if literal { written.to_owned() } else { format!("{written}.{namespace}.svc.{CLUSTER_DOMAIN}") };
    full.to_ascii_lowercase()
}

/// Whether a resolved host is a pattern.
pub fn is_wildcard(host: &str) -> bool {
    host.starts_with('*')
}

/// Whether the resolved host or pattern `pattern` covers the resolved host `host`: equal, or a `*` in front stands for at
/// least one character.
pub fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(rest) => host.len() > rest.len() && host.ends_with(rest),
        None => pattern == host,
    }
}
