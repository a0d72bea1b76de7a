//! What clients ask besides objects: which kinds there are, the version, health, and whether they may.
//!
//! The lab has one user who may do everything, so access reviews always say yes. Schemas are in `openapi`.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, Uri, header};
use serde_json::{Value, json};

use super::Api;
use super::kinds::{Kind, api_version};
use super::serve::query_of;
use super::status::{ApiError, ApiResult, respond};
use super::write::read_body;

/// The Kubernetes release whose behaviour and types are followed (k8s-openapi's `v1_35`).
const MAJOR: &str = "1";
const MINOR: &str = "35";

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Kinds that are never stored: a client posts one and gets it back answered.
const REVIEWS: &[(&str, &str, &str, &str, bool)] = &[
    ("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", false),
    ("authorization.k8s.io", "v1", "localsubjectaccessreviews", "LocalSubjectAccessReview", true),
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", false),
    ("authorization.k8s.io", "v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview", false),
    ("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", false),
];

/// Whether a group has reviews, which are answered and not stored.
pub(super) fn is_review_group(group: &str) -> bool {
    REVIEWS.iter().any(|(g, ..)| *g == group)
}

/// The user that the token stands for.
const USER: &str = "serin-lab";
const GROUPS: [&str; 2] = ["system:masters", "system:authenticated"];

/// Answers a request to a path that is none of objects.
///
/// # Errors
/// 404, 405.
pub(super) fn answer(api: &Api, method: &Method, uri: &Uri, headers: &HeaderMap) -> ApiResult<Response> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(ApiError::no_such_path());
    }
    let path = uri.path().trim_end_matches('/');
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let aggregated = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).any(|range| {
        range.contains("as=APIGroupDiscoveryList")
            && range.contains("v=v2")
            && !range.contains("v=v2beta1")
            && range.contains("application/json")
    });
    match segments.as_slice() {
        ["healthz" | "livez" | "readyz", ..] => Ok(health(uri)?),
        ["version"] => Ok(respond(StatusCode::OK, &version())),
        ["api"] if aggregated => Ok(discovery_list(api, true)),
        ["apis"] if aggregated => Ok(discovery_list(api, false)),
        ["api"] => Ok(respond(
            StatusCode::OK,
            &json!({"kind": "APIVersions", "apiVersion": "v1", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        )),
        ["apis"] => {
            let groups: Vec<Value> = groups(api).iter().filter(|g| !g.is_empty()).map(|g| group(api, g)).collect();
            Ok(respond(StatusCode::OK, &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})))
        }
        ["api", version] => resources(api, "", version),
        ["apis", name] if groups(api).iter().any(|g| g == name) => {
            let mut found = group(api, name);
            found["kind"] = "APIGroup".into();
            found["apiVersion"] = "v1".into();
            Ok(respond(StatusCode::OK, &found))
        }
        ["apis", group, version] => resources(api, group, version),
        ["openapi", "v3"] => Ok(super::openapi::index(api)),
        ["openapi", "v3", rest @ ..] => super::openapi::group_version(api, rest),
        ["openapi", "v2"] => Ok(super::openapi::v2(api, headers)),
        [] => Ok(respond(
            StatusCode::OK,
            &json!({"paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]}),
        )),
        _ => Err(ApiError::no_such_path()),
    }
}

fn health(uri: &Uri) -> ApiResult<Response> {
    let what = uri.path().trim_matches('/').to_owned();
    let text = if query_of(uri)?.flag("verbose") { format!("[+]ping ok\n[+]store ok\n{what} check passed\n") } else { "ok".into() };
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

fn version() -> Value {
    json!({
        "major": MAJOR, "minor": MINOR, "gitVersion": format!("v{MAJOR}.{MINOR}.0+serin-lab-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, if cfg!(target_arch = "x86_64") { "amd64" } else { std::env::consts::ARCH }),
    })
}

/// All groups, the core group (empty) first.
pub(super) fn groups(api: &Api) -> Vec<String> {
    let mut all: Vec<String> = api.kinds().all().iter().map(|k| k.resource.group.clone()).collect();
    all.extend(REVIEWS.iter().map(|r| r.0.to_owned()));
    all.sort();
    all.dedup();
    all
}

/// The versions of a group that are served, preferred first.
pub(super) fn versions(api: &Api, group: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let kinds = api.kinds().all();
    let served =
        kinds.iter().filter(|k| k.resource.group == group).flat_map(|k| k.versions.iter().filter(|v| v.served).map(|v| v.name.clone()));
    let reviews = REVIEWS.iter().filter(|r| r.0 == group).map(|r| r.1.to_owned());
    for version in served.chain(reviews) {
        if !all.contains(&version) {
            all.push(version);
        }
    }
    all.sort_by(|a, b| priority(b).cmp(&priority(a)).then_with(|| a.cmp(b)));
    all
}

/// Kubernetes' order of versions: stable above beta above alpha, then by number.
pub(super) fn priority(version: &str) -> (u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    let digits = rest.chars().take_while(char::is_ascii_digit).count();
    let Ok(major) = rest[..digits].parse() else { return (0, 0, 0) };
    match &rest[digits..] {
        "" => (3, major, 0),
        beta if beta.starts_with("beta") => (2, major, beta[4..].parse().unwrap_or(0)),
        alpha if alpha.starts_with("alpha") => (1, major, alpha[5..].parse().unwrap_or(0)),
        _ => (0, 0, 0),
    }
}

fn group(api: &Api, name: &str) -> Value {
    let versions: Vec<Value> = versions(api, name).iter().map(|v| json!({"groupVersion": api_version(name, v), "version": v})).collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

/// A subresource: name, kind, its group and version, verbs.
type Sub = (&'static str, String, &'static str, &'static str, &'static [&'static str]);

/// The subresources of a kind in one version.
fn subresources(kind: &Kind, version: usize) -> Vec<Sub> {
    let v = &kind.versions[version];
    let mut all = Vec::new();
    if v.status {
        all.push(("status", kind.kind.clone(), "", "", &["get", "patch", "update"] as &[_]));
    }
    if v.scale.is_some() {
        all.push(("scale", "Scale".to_owned(), "autoscaling", "v1", &["get", "patch", "update"] as &[_]));
    }
    if kind.is("", "pods") {
        all.push(("binding", "Binding".to_owned(), "", "", &["create"] as &[_]));
        all.push(("eviction", "Eviction".to_owned(), "policy", "v1", &["create"] as &[_]));
        all.push(("log", "Pod".to_owned(), "", "", &["get"] as &[_]));
    }
    if kind.is("", "namespaces") {
        all.push(("finalize", "Namespace".to_owned(), "", "", &["update"] as &[_]));
    }
    all
}

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

fn resources(api: &Api, group: &str, version: &str) -> ApiResult<Response> {
    let mut all = Vec::new();
    for kind in api.kinds().all().iter().filter(|k| k.resource.group == group) {
        let Some(index) = kind.version(version) else { continue };
        let mut resource = json!({
            "name": kind.resource.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind, "verbs": VERBS,
        });
        for (field, values) in [("shortNames", &kind.short), ("categories", &kind.categories)] {
            if !values.is_empty() {
                resource[field] = json!(values);
            }
        }
        all.push(resource);
        for (name, sub_kind, sub_group, sub_version, verbs) in subresources(kind, index) {
            let mut sub = json!({
                "name": format!("{}/{name}", kind.resource.plural), "singularName": "", "namespaced": kind.namespaced, "kind": sub_kind, "verbs": verbs,
            });
            if !sub_group.is_empty() {
                sub["group"] = sub_group.into();
                sub["version"] = sub_version.into();
            }
            all.push(sub);
        }
    }
    for (_, _, plural, kind, namespaced) in REVIEWS.iter().filter(|r| r.0 == group && r.1 == version) {
        all.push(json!({"name": plural, "singularName": kind.to_lowercase(), "namespaced": namespaced, "kind": kind, "verbs": ["create"]}));
    }
    if all.is_empty() {
        return Err(ApiError::no_such_path());
    }
    let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(group, version), "resources": all});
    Ok(respond(StatusCode::OK, &list))
}

fn discovery_list(api: &Api, core: bool) -> Response {
    let items: Vec<Value> = groups(api)
        .iter()
        .filter(|g| g.is_empty() == core)
        .map(|group| {
            let versions: Vec<Value> = versions(api, group)
                .iter()
                .map(|v| json!({"version": v, "resources": discovered(api, group, v), "freshness": "Current"}))
                .collect();
            json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": versions})
        })
        .collect();
    let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items});
    (StatusCode::OK, [(header::CONTENT_TYPE, AGGREGATED)], list.to_string()).into_response()
}

fn discovered(api: &Api, group: &str, version: &str) -> Vec<Value> {
    let scope = |namespaced: bool| if namespaced { "Namespaced" } else { "Cluster" };
    let mut all = Vec::new();
    for kind in api.kinds().all().iter().filter(|k| k.resource.group == group) {
        let Some(index) = kind.version(version) else { continue };
        let subs: Vec<Value> = subresources(kind, index)
            .into_iter()
            .map(|(name, sub_kind, sub_group, sub_version, verbs)| {
                let (g, v) = if sub_version.is_empty() { (group, version) } else { (sub_group, sub_version) };
                json!({"subresource": name, "responseKind": {"group": g, "version": v, "kind": sub_kind}, "verbs": verbs})
            })
            .collect();
        let mut resource = json!({
            "resource": kind.resource.plural, "responseKind": {"group": group, "version": version, "kind": kind.kind},
            "scope": scope(kind.namespaced), "singularResource": kind.singular, "verbs": VERBS,
        });
        for (field, values) in [("shortNames", &kind.short), ("categories", &kind.categories)] {
            if !values.is_empty() {
                resource[field] = json!(values);
            }
        }
        if !subs.is_empty() {
            resource["subresources"] = subs.into();
        }
        all.push(resource);
    }
    for (_, _, plural, kind, namespaced) in REVIEWS.iter().filter(|r| r.0 == group && r.1 == version) {
        all.push(json!({
            "resource": plural, "responseKind": {"group": group, "version": version, "kind": kind},
            "scope": scope(*namespaced), "singularResource": kind.to_lowercase(), "verbs": ["create"],
        }));
    }
    all
}

/// A kind that is posted and answered, never stored.
#[derive(Clone, Copy)]
pub(super) struct Review {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
}

/// The review that a path names, if it names one.
pub(super) fn review_of(path: &str) -> Option<Review> {
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let (group, version, plural) = match segments.as_slice() {
        ["apis", group, version, plural] | ["apis", group, version, "namespaces", _, plural] => (*group, *version, *plural),
        _ => return None,
    };
    let found = REVIEWS.iter().find(|r| r.0 == group && r.1 == version && r.2 == plural)?;
    Some(Review { group: found.0, version: found.1, kind: found.3 })
}

/// Answers a review.
///
/// # Errors
/// 400 for a body that cannot be read, 405 for anything but a post.
pub(super) fn review(review: Review, method: &Method, headers: &HeaderMap, bytes: &[u8]) -> ApiResult<Response> {
    if *method != Method::POST {
        return Err(ApiError::method_not_allowed());
    }
    let mut answer = read_body(headers, bytes)?.value;
    if !answer.is_object() {
        return Err(ApiError::bad_request("the object provided is unrecognized (must be of type Object)"));
    }
    answer["apiVersion"] = api_version(review.group, review.version).into();
    answer["kind"] = review.kind.into();
    if answer["metadata"].is_null() {
        answer["metadata"] = json!({});
    }
    answer["status"] = match review.kind {
        "SelfSubjectReview" => json!({"userInfo": {"username": USER, "groups": GROUPS}}),
        "SelfSubjectRulesReview" => json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}], "incomplete": false,
        }),
        _ => json!({"allowed": true, "reason": "the lab's user may do everything"}),
    };
    Ok(respond(StatusCode::CREATED, &answer))
}
