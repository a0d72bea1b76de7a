//! What requests to the API cost, in-process, with many objects: prints medians and worst of each kind of request.
//!
//! `cargo run --release -p serin-lab --example api_speed -- 1000`

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use futures::StreamExt;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use serin_lab::api::Api;
use serin_lab::store::Store;
use tower::ServiceExt;

type Failure = Box<dyn std::error::Error>;

async fn send(api: &Api, method: Method, path: &str, kind: &str, body: Value) -> Result<Vec<u8>, Failure> {
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let request = Request::builder().method(method).uri(path).header("content-type", kind).body(body)?;
    let Ok(response) = api.router().oneshot(request).await;
    let code = response.status();
    let bytes = response.into_body().collect().await?.to_bytes().to_vec();
    if code.is_success() || code == StatusCode::NOT_FOUND { Ok(bytes) } else { Err(String::from_utf8_lossy(&bytes).into()) }
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("{what:<44} {:>10.1?} median {:>10.1?} p99 {:>10.1?} worst", at(0.5), at(0.99), at(1.0));
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let n: usize = std::env::args().nth(1).map_or(Ok(1000), |a| a.parse())?;
    let api = Api::new(Store::new(Arc::new(jiff::Timestamp::now)));
    let json = "application/json";
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let object = |name: &str| {
        json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "app", "image": "app:1", "ports": [{"containerPort": 8080}]}]}}}})
    };
    // The first request builds the schemas.
    let begin = Instant::now();
    send(&api, Method::GET, &format!("{deployments}/none"), json, Value::Null).await?;
    send(&api, Method::POST, deployments, json, object("first")).await?;
    println!("first request, schemas built: {:.1?}", begin.elapsed());
    let mut times = Vec::new();
    for i in 0..n {
        let begin = Instant::now();
        send(&api, Method::POST, deployments, json, object(&format!("app-{i}"))).await?;
        times.push(begin.elapsed());
    }
    show(&format!("create a Deployment, {n} there at the end"), times);
    let watch = Request::get(format!("{deployments}?watch=true&resourceVersion={}", api.store().version())).body(Body::empty())?;
    let Ok(response) = api.router().oneshot(watch).await;
    let mut events = response.into_body().into_data_stream();
    let (mut patch, mut seen) = (Vec::new(), Vec::new());
    for i in 0..n.min(1000) {
        let begin = Instant::now();
        let path = format!("{deployments}/app-{i}");
        send(&api, Method::PATCH, &path, "application/merge-patch+json", json!({"spec": {"replicas": 3}})).await?;
        patch.push(begin.elapsed());
        events.next().await.ok_or("the watch ended")??;
        seen.push(begin.elapsed());
    }
    show("merge patch", patch);
    show("merge patch, until a watcher has it", seen);
    let mut times = Vec::new();
    for i in 0..n.min(1000) {
        let begin = Instant::now();
        let path = format!("{deployments}/app-{i}?fieldManager=x&force=true");
        let mut config = object(&format!("app-{i}"));
        config["apiVersion"] = "apps/v1".into();
        config["kind"] = "Deployment".into();
        send(&api, Method::PATCH, &path, "application/apply-patch+yaml", config).await?;
        times.push(begin.elapsed());
    }
    show("server-side apply", times);
    let (mut get, mut list) = (Vec::new(), Vec::new());
    for i in 0..20 {
        let begin = Instant::now();
        send(&api, Method::GET, &format!("{deployments}/app-{i}"), json, Value::Null).await?;
        get.push(begin.elapsed());
        let begin = Instant::now();
        let bytes = send(&api, Method::GET, deployments, json, Value::Null).await?;
        list.push(begin.elapsed());
        if i == 0 {
            println!("a list of all is {} kB", bytes.len() / 1000);
        }
    }
    show("get", get);
    show("list all", list);
    Ok(())
}
