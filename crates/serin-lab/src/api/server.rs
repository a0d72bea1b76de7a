//! The API over TCP: TLS with a certificate of its own authority, a bearer token, loopback only.
//!
//! Whoever may read the kubeconfig may do everything; nobody else may do anything but ask for health. Requests that come
//! through a browser (a foreign Host or Origin) are refused, token or not.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::response::IntoResponse;
use base64::Engine;
use http::{Request, Response, StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::Api;
use super::status::ApiError;

/// A client that does not finish its TLS handshake in this time is let go.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// What connections get to finish their requests when the server stops.
const DRAIN: Duration = Duration::from_secs(2);

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No port could be bound.
    #[error("listen on 127.0.0.1:{port}: {cause}")]
    Listen {
        /// The port asked for; 0 is any.
        port: u16,
        /// What the system says.
        cause: io::Error,
    },
    /// The certificates could not be made.
    #[error("make the certificates of the API: {0}")]
    Certificates(String),
    /// The kubeconfig could not be written.
    #[error("write {}: {cause}", path.display())]
    Write {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
}

/// Who may come in, and by what certificate they know the server.
#[derive(Clone)]
pub struct Credentials {
    /// The authority's certificate, PEM.
    pub ca: String,
    /// The bearer token.
    pub token: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// A served API: where it is, and the task that serves it.
#[derive(Debug)]
pub struct Serving {
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    /// Its address.
    pub address: SocketAddr,
    /// What a client needs.
    pub credentials: Credentials,
    /// Ends when the server has stopped and its connections are closed.
    pub task: tokio::task::JoinHandle<()>,
}

impl Serving {
    /// A kubeconfig with everything in it. `name` names cluster, user and context.
    pub fn kubeconfig(&self, name: &str) -> String {
        let ca = base64::engine::general_purpose::STANDARD.encode(&self.credentials.ca);
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: {name}\n  cluster:\n    server: {url}\n    certificate-authority-data: {ca}\n\
             users:\n- name: {name}\n  user:\n    token: {token}\n\
             contexts:\n- name: {name}\n  context:\n    cluster: {name}\n    user: {name}\n    namespace: default\n\
             current-context: {name}\npreferences: {{}}\n",
            url = self.url,
            token = self.credentials.token,
        )
    }

    /// Writes the kubeconfig, readable by its owner alone; a file that is there is replaced in one step.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_kubeconfig(&self, name: &str, path: &Path) -> Result<(), ServeError> {
        write_private(path, self.kubeconfig(name).as_bytes()).map_err(|cause| ServeError::Write { path: path.to_owned(), cause })
    }
}

/// Writes a file that only its owner may read, in one step.
///
/// # Errors
/// What the system says.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Temporary files are made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

impl Api {
    /// Serves the API on 127.0.0.1 until `stop`; port 0 takes any free one.
    ///
    /// # Errors
    /// No port, or no certificates.
    pub async fn serve(&self, port: u16, stop: CancellationToken) -> Result<Serving, ServeError> {
        let listen = |cause| ServeError::Listen { port, cause };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let (tls, ca) = certificates().map_err(ServeError::Certificates)?;
        let token = random_token().ok_or_else(|| ServeError::Certificates("no random numbers".into()))?;
        let door = Door { router: self.router(), token: Sha256::digest(&token).into() };
        let task = tokio::spawn(accept(self.clone(), listener, tls, door, stop));
        Ok(Serving { url: format!("https://127.0.0.1:{}", address.port()), address, credentials: Credentials { ca, token }, task })
    }
}

fn random_token() -> Option<String> {
    let mut bytes = [0_u8; 32];
    ring::default_provider().secure_random.fill(&mut bytes).ok()?;
    Some(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

/// The TLS side, and the certificate of the authority that clients are given.
fn certificates() -> Result<(TlsAcceptor, String), String> {
    let text = |e: rcgen::Error| e.to_string();
    let mut params = CertificateParams::new(Vec::<String>::new()).map_err(text)?;
    params.distinguished_name.push(DnType::CommonName, "serin-lab");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let ca_key = KeyPair::generate().map_err(text)?;
    let ca = params.self_signed(&ca_key).map_err(text)?;
    let issuer = Issuer::new(params, ca_key);
    let names = ["127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    let mut params = CertificateParams::new(names.map(String::from)).map_err(text)?;
    params.distinguished_name.push(DnType::CommonName, "serin-lab-apiserver");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(text)?;
    let certificate = params.signed_by(&key, &issuer).map_err(text)?;
    let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(str::to_owned)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|e: rustls::Error| e.to_string())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((TlsAcceptor::from(Arc::new(config)), ca.pem()))
}

async fn accept(api: Api, listener: TcpListener, tls: TlsAcceptor, door: Door, stop: CancellationToken) {
    let connections = TaskTracker::new();
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file handles, mostly: wait for some to come back.
                    tracing::warn!(%error, "accept a connection to the API");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (tls, door, stop) = (tls.clone(), door.clone(), stop.clone());
        connections.spawn(async move {
            // Small answers should not wait for the next one.
            let _ = stream.set_nodelay(true);
            let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await else { return };
            let service = hyper::service::service_fn(move |request| {
                let door = door.clone();
                async move { Ok::<_, std::convert::Infallible>(door.answer(request).await) }
            });
            let builder = auto::Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                // A client that goes away ends its connection; that is no error of ours.
                _ = connection.as_mut() => return,
                () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
            }
            let _ = tokio::time::timeout(DRAIN, connection).await;
        });
    }
    api.stop();
    connections.close();
    let _ = tokio::time::timeout(DRAIN, connections.wait()).await;
}

#[derive(Clone)]
struct Door {
    router: axum::Router,
    token: [u8; 32],
}

impl Door {
    async fn answer(&self, request: Request<hyper::body::Incoming>) -> Response<axum::body::Body> {
        if let Err(refusal) = self.check(&request) {
            return refusal.into_response();
        }
        match self.router.clone().oneshot(request.map(axum::body::Body::new)).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    fn check<B>(&self, request: &Request<B>) -> Result<(), ApiError> {
        let text = |name: header::HeaderName| request.headers().get(name).map(|v| v.to_str().unwrap_or("?"));
        let host = request.uri().authority().map(|a| a.as_str()).or(text(header::HOST));
        // A name that a page could have pointed at this machine is no name of ours.
        if host.is_some_and(|h| !is_local(h)) {
            return Err(foreign("Host"));
        }
        let origin = text(header::ORIGIN);
        if origin.is_some_and(|o| !o.strip_prefix("https://").is_some_and(is_local)) {
            return Err(foreign("Origin"));
        }
        if matches!(request.uri().path(), "/healthz" | "/livez" | "/readyz") {
            return Ok(());
        }
        let given = text(header::AUTHORIZATION).and_then(|v| v.strip_prefix("Bearer ")).unwrap_or_default();
        // Compared by digest: the time it takes tells nothing of the token.
        if <[u8; 32]>::from(Sha256::digest(given.trim())) == self.token { Ok(()) } else { Err(ApiError::unauthorized()) }
    }
}

fn is_local(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    matches!(host, "127.0.0.1" | "localhost" | "::1")
}

fn foreign(header: &str) -> ApiError {
    let message = format!("requests with a foreign {header} header are refused: the lab serves this machine only");
    ApiError::new(StatusCode::FORBIDDEN, "Forbidden", message)
}
