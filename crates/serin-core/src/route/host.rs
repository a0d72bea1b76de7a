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
