//! Manifests into the API from within the process: what `kubectl apply --server-side` would do with a file.

use http::{Method, Request, header};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use super::{Api, body};

impl Api {
    /// Applies all objects of a YAML text, in their order, as `manager`, forced; those without a namespace go to `default`.
    ///
    /// # Errors
    /// The first object that is refused, and why.
    pub async fn apply(&self, text: &str, manager: &str) -> Result<(), String> {
        for object in body::documents(text)? {
            let items = if object["kind"] == "List" { object["items"].as_array().cloned().unwrap_or_default() } else { vec![object] };
            for object in items {
                self.apply_one(&object, manager).await?;
            }
        }
        Ok(())
    }

    async fn apply_one(&self, object: &Value, manager: &str) -> Result<(), String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (api_version, kind, name) = (text(&object["apiVersion"]), text(&object["kind"]), text(&object["metadata"]["name"]));
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", &api_version));
        let who = format!("{kind} {name} ({api_version})");
        let found = self.kinds().by_kind(group, &kind).filter(|k| k.version(version).is_some());
        let kind = found.ok_or_else(|| format!("{who}: the API serves no such kind"))?;
        let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let namespace = match (kind.namespaced, object["metadata"]["namespace"].as_str()) {
            (false, _) => String::new(),
            (true, namespace) => format!("/namespaces/{}", namespace.unwrap_or("default")),
        };
        let path = format!("{root}{namespace}/{}/{name}?fieldManager={manager}&force=true&fieldValidation=Strict", kind.resource.plural);
        let request = Request::builder()
            .method(Method::PATCH)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/apply-patch+yaml")
            .body(axum::body::Body::from(object.to_string()))
            .map_err(|e| format!("{who}: {e}"))?;
        let Ok(response) = self.router().oneshot(request).await;
        if response.status().is_success() {
            return Ok(());
        }
        let bytes = response.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
        let status: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        Err(format!("{who}: {}", status["message"].as_str().unwrap_or("refused")))
    }
}
