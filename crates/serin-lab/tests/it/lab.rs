//! A whole lab over TLS: who gets in, what it runs, and that it leaves nothing behind.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use serin_lab::lab::{Lab, LabConfig, LabError, running};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use crate::world::deployment;

fn config(root: &std::path::Path) -> LabConfig {
    let mut config = LabConfig::new(env!("CARGO_BIN_EXE_lab-child"), std::sync::Arc::new(jiff::Timestamp::now));
    config.root = Some(root.to_owned());
    config
}

/// What a kubeconfig holds, as any client reads it.
struct Client {
    tls: tokio_rustls::TlsConnector,
    address: String,
    token: String,
}

impl Client {
    fn of(lab: &Lab) -> Self {
        let text = std::fs::read_to_string(lab.kubeconfig()).unwrap();
        let field = |name: &str| {
            let line = text.lines().find_map(|l| l.trim().strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in the kubeconfig"));
            line.trim().to_owned()
        };
        let pem = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, field("certificate-authority-data:")).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let address = field("server:").strip_prefix("https://").unwrap().to_owned();
        Self { tls: Arc::new(tls).into(), address, token: field("token:") }
    }

    async fn send(&self, request: http::request::Builder, body: String) -> (u16, String) {
        let stream = tokio::net::TcpStream::connect(&self.address).await.unwrap();
        let stream = self.tls.connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let response = sender.send_request(request.body(Full::new(bytes::Bytes::from(body))).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        (code, String::from_utf8_lossy(&response.into_body().collect().await.unwrap().to_bytes()).into_owned())
    }

    fn request(&self, method: &str, path: &str) -> http::request::Builder {
        let builder = http::Request::builder().method(method).uri(path);
        builder
            .header("host", &self.address)
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let (code, text) = self.send(self.request("GET", path), String::new()).await;
        (code, serde_json::from_str(&text).unwrap_or_else(|_| text.into()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lab_runs_deployments_and_lets_in_who_has_its_kubeconfig() {
    let root = tempfile::tempdir().unwrap();
    let lab = Lab::start(config(root.path())).await.unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(lab.kubeconfig()).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let client = Client::of(&lab);
    let bare = http::Request::get("/api").header("host", &client.address);
    assert_eq!(client.send(bare, String::new()).await.0, 401);
    let wrong = http::Request::get("/api").header("host", &client.address).header("authorization", "Bearer nonsense");
    assert_eq!(client.send(wrong, String::new()).await.0, 401);
    let foreign = http::Request::get("/api").header("host", "evil.example").header("authorization", format!("Bearer {}", client.token));
    assert_eq!(client.send(foreign, String::new()).await.0, 403);
    assert_eq!(client.send(client.request("GET", "/api").header("origin", "https://evil.example"), String::new()).await.0, 403);
    assert_eq!(client.send(http::Request::get("/readyz").header("host", &client.address), String::new()).await, (200, "ok".into()));

    let path = "/apis/apps/v1/namespaces/default/deployments";
    assert_eq!(client.send(client.request("POST", path), deployment("web").to_string()).await.0, 201);
    let pods = "/api/v1/namespaces/default/pods?labelSelector=app%3Dweb";
    let name = loop {
        let (_, list) = client.get(pods).await;
        let ready = list["items"][0]["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|c| c["type"] == "Ready" && c["status"] == "True");
        if ready {
            break list["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let (code, log) =
        client.send(client.request("GET", &format!("/api/v1/namespaces/default/pods/{name}/log?tailLines=1")), String::new()).await;
    assert!(code == 200 && log.contains("sample app"), "{code} {log}");
    let (code, _) = client.get(&format!("/api/v1/namespaces/default/pods/{name}/log?container=other")).await;
    assert_eq!(code, 400);
    let (code, answer) = client.send(client.request("POST", &format!("/api/v1/namespaces/default/pods/{name}/exec")), String::new()).await;
    assert_eq!(code, 501, "{answer}");

    // A namespace goes with everything in it.
    let namespace = json!({"metadata": {"name": "team"}}).to_string();
    assert_eq!(client.send(client.request("POST", "/api/v1/namespaces"), namespace).await.0, 201);
    assert_eq!(
        client.send(client.request("POST", "/apis/apps/v1/namespaces/team/deployments"), deployment("web").to_string()).await.0,
        201
    );
    assert_eq!(client.send(client.request("DELETE", "/api/v1/namespaces/team"), String::new()).await.0, 200);
    while client.get("/api/v1/namespaces/team").await.0 != 404 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(client.get("/apis/apps/v1/namespaces/team/deployments").await.1["items"], json!([]));
    lab.stop().await;
    assert!(tokio::net::TcpStream::connect(&client.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_labs_are_side_by_side_and_told_apart() {
    let root = tempfile::tempdir().unwrap();
    let first = Lab::start(config(root.path())).await.unwrap();
    let second = Lab::start(config(root.path())).await.unwrap();
    let names: Vec<String> = running(root.path()).into_iter().map(|l| l.name).collect();
    assert_eq!(names, ["lab", "lab-2"]);
    assert_ne!(first.info().api, second.info().api);
    let mut same = config(root.path());
    same.name = Some("lab".into());
    assert!(matches!(Lab::start(same).await, Err(LabError::Running(name)) if name == "lab"));
    first.stop().await;
    assert_eq!(running(root.path()).len(), 1);
    second.stop().await;
    assert_eq!(running(root.path()), []);
    let mut wrong = config(root.path());
    wrong.name = Some("../x".into());
    assert!(matches!(Lab::start(wrong).await, Err(LabError::Name(_))));
    let mut refused = config(root.path());
    refused.manifests.push("apiVersion: v1\nkind: Nothing\nmetadata: {name: x}\n".into());
    assert!(matches!(Lab::start(refused).await, Err(LabError::Manifest(_))));
    // What fails to start leaves no lock.
    assert_eq!(running(root.path()), []);
}
