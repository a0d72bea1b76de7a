//! An API server without a port, and requests to it as one-liners.

use std::sync::Arc;

use http_body_util::BodyExt;
use serde_json::Value;
use serin_lab::api::Api;
use serin_lab::store::Store;
use tower::ServiceExt;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Value,
    pub(crate) warnings: Vec<String>,
}

impl Answer {
    /// The body, if the code is this one.
    #[track_caller]
    pub(crate) fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{:#}", self.body);
        self.body
    }

    /// The message of a refusal with this code and reason.
    #[track_caller]
    pub(crate) fn refused(self, code: u16, reason: &str) -> String {
        assert_eq!((self.code, self.body["reason"].as_str().unwrap_or_default()), (code, reason), "{:#}", self.body);
        assert_eq!((&self.body["kind"], &self.body["status"]), (&"Status".into(), &"Failure".into()));
        self.body["message"].as_str().unwrap_or_default().to_owned()
    }
}

pub(crate) struct World {
    pub(crate) api: Api,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { api: Api::new(Store::new(Arc::new(jiff::Timestamp::now))) }
    }

    pub(crate) async fn raw(&self, request: http::Request<axum::body::Body>) -> http::Response<axum::body::Body> {
        self.api.router().oneshot(request).await.unwrap()
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: String) -> Answer {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.raw(request.body(body.into()).unwrap()).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let warnings = parts.headers.get_all("warning").iter().map(|w| w.to_str().unwrap().to_owned()).collect();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into());
        Answer { code: parts.status.as_u16(), body, warnings }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], String::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.send("PUT", path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], String::new()).await
    }

    /// `json`, `merge`, `strategic`, `apply`.
    pub(crate) async fn patch(&self, how: &str, path: &str, body: Value) -> Answer {
        let kind = match how {
            "json" => "application/json-patch+json",
            "merge" => "application/merge-patch+json",
            "strategic" => "application/strategic-merge-patch+json",
            _ => "application/apply-patch+yaml",
        };
        self.send("PATCH", path, &[("content-type", kind), ("user-agent", "tester/1")], body.to_string()).await
    }

    /// The lines of a watch so far, until `n` have come.
    pub(crate) async fn watch(&self, path: &str, n: usize) -> Vec<Value> {
        let request = http::Request::get(path).body(axum::body::Body::empty()).unwrap();
        let response = self.raw(request).await;
        assert_eq!(response.status(), 200);
        let mut stream = response.into_body().into_data_stream();
        read_lines(&mut stream, n).await
    }
}

/// The next `n` lines of a stream of JSON lines.
pub(crate) async fn read_lines(stream: &mut axum::body::BodyDataStream, n: usize) -> Vec<Value> {
    use futures::StreamExt;
    let mut lines = Vec::new();
    while lines.len() < n {
        let Some(chunk) = stream.next().await else { break };
        let chunk = chunk.unwrap();
        lines.extend(chunk.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice::<Value>(l).unwrap()));
    }
    lines
}

/// A Deployment as people write it.
pub(crate) fn deployment(name: &str) -> Value {
    serde_json::json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "app", "image": "app:1", "ports": [{"containerPort": 8080}]}]}},
        },
    })
}
