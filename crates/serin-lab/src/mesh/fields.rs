//! Which fields of Istio's objects the lab's mesh carries out. What is not listed here is named in an Event on the object: a field
//! that does nothing and says nothing would make the lab lie.
//!
//! Deliberately knows no meaning: only names.

use serde_json::Value;

/// Fields of `spec.http[]`.
pub(super) const HTTP: &[&str] = &[
    "name",
    "match",
    "route",
    "redirect",
    "directResponse",
    "delegate",
    "rewrite",
    "timeout",
    "retries",
    "fault",
    "mirror",
    "mirrorPercentage",
    "mirrorPercent",
    "mirrors",
    "corsPolicy",
    "headers",
];
/// Fields of `spec.http[].match[]`.
pub(super) const MATCH: &[&str] = &[
    "name",
    "uri",
    "scheme",
    "method",
    "authority",
    "headers",
    "port",
    "sourceLabels",
    "gateways",
    "queryParams",
    "ignoreUriCase",
    "withoutHeaders",
    "sourceNamespace",
    "statPrefix",
];
/// Fields of `spec.http[].route[]`.
pub(super) const ROUTE: &[&str] = &["destination", "weight", "headers"];
/// Fields of `spec.http[].retries`.
pub(super) const RETRIES: &[&str] = &["attempts", "perTryTimeout", "retryOn", "retryIgnorePreviousHosts", "backoff"];
/// Fields of `spec.http[].fault`.
pub(super) const FAULT: &[&str] = &["delay", "abort"];
/// Fields of `spec.http[].fault.delay`.
pub(super) const DELAY: &[&str] = &["fixedDelay", "percentage", "percent"];
/// Fields of `spec.http[].fault.abort`.
pub(super) const ABORT: &[&str] = &["httpStatus", "grpcStatus", "percentage"];
/// Fields of `spec.http[].corsPolicy`.
pub(super) const CORS: &[&str] =
    &["allowOrigin", "allowOrigins", "allowMethods", "allowHeaders", "exposeHeaders", "maxAge", "allowCredentials", "unmatchedPreflights"];

/// Fields of a traffic policy, of a host, a subset or a port.
pub(super) const POLICY: &[&str] = &["loadBalancer", "connectionPool", "outlierDetection", "tls", "portLevelSettings", "port"];
/// Fields of `trafficPolicy.loadBalancer`.
pub(super) const BALANCER: &[&str] = &["simple", "consistentHash"];
/// Fields of `trafficPolicy.loadBalancer.consistentHash`.
pub(super) const HASH: &[&str] =
    &["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName", "minimumRingSize", "ringHash", "maglev"];
/// Fields of `trafficPolicy.connectionPool.tcp`.
pub(super) const POOL_TCP: &[&str] = &["maxConnections", "connectTimeout"];
/// Fields of `trafficPolicy.connectionPool.http`.
pub(super) const POOL_HTTP: &[&str] = &[
    "http1MaxPendingRequests",
    "http2MaxRequests",
    "maxRequestsPerConnection",
    "maxRetries",
    "idleTimeout",
    "h2UpgradePolicy",
    "useClientProtocol",
    "maxConcurrentStreams",
];
/// Fields of `trafficPolicy.outlierDetection`.
pub(super) const OUTLIER: &[&str] = &[
    "consecutive5xxErrors",
    "consecutiveErrors",
    "consecutiveGatewayErrors",
    "interval",
    "baseEjectionTime",
    "maxEjectionPercent",
    "minHealthPercent",
    "splitExternalLocalOriginErrors",
    "consecutiveLocalOriginFailures",
];

/// The fields of `value` that are not among `known`.
pub(super) fn others<'v>(value: &'v Value, known: &[&str]) -> Vec<&'v str> {
    value.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).filter(|name| !known.contains(name)).collect()
}
