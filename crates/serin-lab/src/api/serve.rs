//! Requests to answers: which verb it is, who handles it, in what form the answer goes out.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::Value;

use super::call::{Call, Query};
use super::status::{ApiError, ApiResult, respond};
use super::{Api, delete, discovery, kinds, logs, read, watch, write};

/// Larger bodies are refused, as by Kubernetes.
const MAX_BODY: usize = 3 * 1024 * 1024;

/// Answers any request.
pub(super) async fn handle(State(api): State<Api>, request: Request) -> Response {
    let custom = is_custom(request.uri().path());
    match answer(&api, request).await {
        Ok(response) => response,
        // Kinds defined by CRDs are another server's behind the real one, and where that serves nothing it says so in plain text:
        // clients have to go by the code alone.
        Err(error) if custom && error.is_no_such_path() => {
            (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))], "404 page not found\n")
                .into_response()
        }
        Err(error) => error.into_response(),
    }
}

/// Whether a path is below a group that Kubernetes itself does not bring.
fn is_custom(path: &str) -> bool {
    let mut segments = path.split('/').filter(|s| !s.is_empty());
    segments.next() == Some("apis") && segments.next().is_some_and(|group| !kinds::is_built_in_group(group))
}

async fn answer(api: &Api, request: Request) -> ApiResult<Response> {
    let (parts, body) = request.into_parts();
    if let Some(review) = discovery::review_of(parts.uri.path()) {
        return discovery::review(review, &parts.method, &parts.headers, &take(body).await?);
    }
    let Some(call) = Call::parse(api, &parts.uri, parts.headers.clone())? else {
        return discovery::answer(api, &parts.method, &parts.uri, &parts.headers);
    };
    let sub = call.sub.as_deref();
    check_subresource(&call)?;
    match (&parts.method, call.name.is_some()) {
        (&Method::GET | &Method::HEAD, named) => {
            if sub == Some("log") {
                return read::log(api, &call);
            }
            if call.query.flag("watch") {
                return watch::watch(api, &call);
            }
            if named { read::get(api, &call) } else { read::list(api, &call) }
        }
        (&Method::POST, false) => write::create(api, &call, &take(body).await?),
        (&Method::POST, true) if matches!(sub, Some("eviction" | "binding")) => write::pod_action(api, &call, &take(body).await?),
        (&Method::PUT, true) => write::update(api, &call, &take(body).await?),
        (&Method::PATCH, true) => write::patch(api, &call, &take(body).await?),
        (&Method::DELETE, true) if sub.is_none() => delete::delete(api, &call, &take(body).await?),
        (&Method::DELETE, false) => delete::delete_collection(api, &call, &take(body).await?),
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// Whether the kind has the subresource that the path names.
fn check_subresource(call: &Call) -> ApiResult<()> {
    let Some(sub) = call.sub.as_deref() else { return Ok(()) };
    let version = call.kind_version();
    match sub {
        "status" if version.status => Ok(()),
        "scale" if version.scale.is_some() => Ok(()),
        "log" | "eviction" | "binding" if call.kind.is("", "pods") => Ok(()),
        "exec" | "attach" | "portforward" if call.kind.is("", "pods") => Err(ApiError::not_implemented(format!(
            "the lab cannot {sub}: its pods are processes on this machine; read their logs with `kubectl logs`, \
             and reach them at their pod IP"
        ))),
        "proxy" if call.kind.resource.group.is_empty() => {
            Err(ApiError::not_implemented("the lab does not proxy to pods, services or nodes; reach them at their address"))
        }
        "ephemeralcontainers" | "resize" if call.kind.is("", "pods") => {
            Err(ApiError::not_implemented(format!("the lab does not change running pods ({sub})")))
        }
        "finalize" if call.kind.is("", "namespaces") => Ok(()),
        "token" if call.kind.is("", "serviceaccounts") => Err(ApiError::not_implemented(
            "the lab has one user and one token, which its kubeconfig holds; it makes no tokens for service accounts",
        )),
        // The kinds of CRDs are another server's, which looks for the object and not for the path.
        _ if call.kind.is_custom() => Err(ApiError::not_found(&call.kind.resource, call.name.as_deref().unwrap_or_default())),
        _ => Err(ApiError::no_such_path()),
    }
}

/// The whole body.
///
/// # Errors
/// 413 when it is too large.
pub(super) async fn take(body: axum::body::Body) -> ApiResult<bytes::Bytes> {
    axum::body::to_bytes(body, MAX_BODY).await.map_err(|e| {
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", format!("the request's body cannot be read: {e}"))
    })
}

/// In what form the client wants objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The object itself.
    Whole,
    /// A table of columns for people.
    Table,
    /// Only its metadata.
    Metadata,
}

/// An answer's form and whether it is YAML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// What of the object.
    pub form: Form,
    /// YAML instead of JSON.
    pub yaml: bool,
}

/// Reads `Accept`; the first form that can be given wins.
///
/// # Errors
/// 406 when none can be given.
pub(super) fn accepted(headers: &HeaderMap) -> ApiResult<Accepted> {
    let text = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("*/*");
    for range in text.split(',').map(str::trim).filter(|r| !r.is_empty()) {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let yaml = match media {
            "application/json" | "*/*" | "application/*" => false,
            "application/yaml" => true,
            _ => continue,
        };
        let parameter = |name: &str| range.split(';').filter_map(|p| p.trim().split_once('=')).find(|(n, _)| *n == name).map(|(_, v)| v);
        let form = match (parameter("as"), parameter("g"), parameter("v")) {
            (None, ..) => Form::Whole,
            (Some("Table"), Some("meta.k8s.io"), Some("v1" | "v1beta1")) => Form::Table,
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("meta.k8s.io"), Some("v1" | "v1beta1")) => Form::Metadata,
            _ => continue,
        };
        return Ok(Accepted { form, yaml });
    }
    Err(ApiError::not_acceptable(
        "only the following media types are accepted: application/json, application/yaml, and as=Table or as=PartialObjectMetadata;g=meta.k8s.io;v=v1 of them",
    ))
}

/// An answer in the accepted encoding.
pub(super) fn encode(accepted: Accepted, code: StatusCode, value: &Value) -> ApiResult<Response> {
    if !accepted.yaml {
        return Ok(respond(code, value));
    }
    let text = serde_saphyr::to_string(value)
        .map_err(|e| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", format!("encode as YAML: {e}")))?;
    Ok((code, [(header::CONTENT_TYPE, "application/yaml")], text).into_response())
}

/// Adds `Warning` headers, as kubectl prints them.
pub(super) fn warn(response: &mut Response, warnings: &[String]) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

/// A streamed answer.
pub(super) fn stream(content_type: &'static str, chunks: logs::LogStream) -> Response {
    use futures::StreamExt;
    let body = axum::body::Body::from_stream(chunks.map(Ok::<_, std::convert::Infallible>));
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}

/// The query of a request that is none of objects.
///
/// # Errors
/// 400 when it is not well formed.
pub(super) fn query_of(uri: &http::Uri) -> ApiResult<Query> {
    Query::of(uri)
}
