//! The app that plays every image the lab has no command for: it answers with its version, and fails as told.
//!
//! It is a process of its own, started as `SELF_EXE lab-sample-app` with its settings in the environment (`settings`).
//! It speaks HTTP/1.1 and HTTP/2 without TLS, and answers gRPC calls with a status in the trailers. It holds the lab's
//! pipe as its standard input and ends when that closes. It deliberately has no thread pool, no state and no logs per
//! request: a lab runs dozens of it on a laptop.

pub mod draw;
pub mod settings;

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use draw::Draws;
use settings::{Faults, NotReady, Settings};

/// The hidden subcommand of the product's binary that runs [`main`].
pub const SUBCOMMAND: &str = "lab-sample-app";

/// The path where the app says whether it is ready.
pub const READY_PATH: &str = "/readyz";

/// Reads the environment and serves until it is told to end. Exit code 0 after SIGTERM, 1 for a planned crash,
/// 2 for settings that cannot be read or an address that cannot be bound.
pub fn main() -> ExitCode {
    let settings = match Settings::read(|name| std::env::var(name).ok()) {
        Ok(settings) => settings,
        Err(message) => {
            say(&format!("error: {message}"));
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(serve(settings))) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::from(2)
        }
    }
}

struct App {
    settings: Settings,
    faults: Mutex<Faults>,
    draws: Draws,
    started: Instant,
    draining: AtomicBool,
    n_requests: AtomicU64,
    n_errors: AtomicU64,
    version: HeaderValue,
    pod: HeaderValue,
}

async fn serve(settings: Settings) -> std::io::Result<ExitCode> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    std::thread::Builder::new().stack_size(64 * 1024).spawn(|| {
        super::guard::wait_for_end_of_input();
        // The lab is gone: nobody is left to be answered.
        std::process::exit(0);
    })?;

    let mut listeners = Vec::new();
    for port in &settings.ports {
        let at = SocketAddr::new(settings.ip, *port);
        let listener = TcpListener::bind(at).await;
        listeners.push(listener.map_err(|error| std::io::Error::new(error.kind(), format!("listen on {at}: {error}")))?);
    }
    let faults = if settings.faults == Faults::default() { "no faults".into() } else { format!("{:?}", settings.faults) };
    say(&format!("sample app {} as {} on {} ports {:?}, {faults}", settings.version, settings.pod, settings.ip, settings.ports));
    let header = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unprintable"));
    let app = Arc::new(App {
        faults: Mutex::new(settings.faults.clone()),
        draws: Draws::new(settings.seed),
        started: Instant::now(),
        draining: AtomicBool::new(false),
        n_requests: AtomicU64::new(0),
        n_errors: AtomicU64::new(0),
        version: header(&settings.version),
        pod: header(&settings.pod),
        settings,
    });

    // Closing: connections finish their request and end. `open` counts them by its receivers.
    let (close, open) = watch::channel(false);
    for listener in listeners {
        tokio::spawn(accept(app.clone(), listener, open.clone()));
    }
    drop(open);

    let crash = async {
        match app.settings.crash_after {
            Some(time) => tokio::time::sleep_until(app.started + time).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = crash => {
            say("crashing as told by CRASH_AFTER");
            return Ok(ExitCode::from(1));
        }
        _ = term.recv() => {}
        _ = int.recv() => {}
    }

    app.draining.store(true, Ordering::Relaxed);
    say(&format!("told to end: accepting for {:?} more, then finishing what is open", app.settings.drain));
    tokio::time::sleep(app.settings.drain).await;
    // From here on idle connections close, and each busy one closes after its answer; the listeners end too.
    let _ = close.send(true);
    close.closed().await;
    say(&format!(
        "ended after {} requests, {} of them answered with an error",
        app.n_requests.load(Ordering::Relaxed),
        app.n_errors.load(Ordering::Relaxed)
    ));
    Ok(ExitCode::SUCCESS)
}

/// Takes connections until told to close.
async fn accept(app: Arc<App>, listener: TcpListener, mut closing: watch::Receiver<bool>) {
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closing.wait_for(|closing| *closing) => return,
        };
        match stream {
            Ok((stream, _)) => {
                tokio::spawn(converse(app.clone(), stream, closing.clone()));
            }
            // Too many open files, most likely: the next moment may be better.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Answers on one connection until the peer or the end of the app closes it.
async fn converse(app: Arc<App>, stream: TcpStream, mut closing: watch::Receiver<bool>) {
    // Answers are small: waiting for more to send would add 40 ms to them.
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request| {
        let app = app.clone();
        async move { Ok::<_, Infallible>(answer(&app, request).await) }
    });
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None);
    builder.http2().timer(TokioTimer::new());
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // A peer that goes away is no news.
        _ = connection.as_mut() => return,
        _ = closing.wait_for(|closing| *closing) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

type Answer = Response<http_body_util::Either<Full<Bytes>, WithTrailers>>;
type WithTrailers = http_body_util::combinators::WithTrailers<Full<Bytes>, std::future::Ready<Option<Result<HeaderMap, Infallible>>>>;

async fn answer(app: &App, request: Request<Incoming>) -> Answer {
    let (head, mut body) = request.into_parts();
    if head.method == Method::POST && head.uri.path() == "/fault" {
        return change_faults(app, head.uri.query(), body).await;
    }
    // Whatever is sent is taken, so that the connection can be used again.
    while let Some(Ok(_)) = body.frame().await {}

    let grpc = head.headers.get(header::CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"));
    let path = head.uri.path();
    let status = match path {
        "/healthz" | "/livez" => StatusCode::OK,
        _ if !ready(app) => StatusCode::SERVICE_UNAVAILABLE,
        READY_PATH if app.draining.load(Ordering::Relaxed) => StatusCode::SERVICE_UNAVAILABLE,
        READY_PATH => StatusCode::OK,
        _ => work(app).await,
    };
    let mut response = if grpc { grpc_answer(status) } else { http_answer(app, status) };
    let headers = response.headers_mut();
    headers.insert("x-version", app.version.clone());
    headers.insert("x-pod", app.pod.clone());
    if app.draining.load(Ordering::Relaxed) && head.version < Version::HTTP_2 {
        // Moves a proxy's pooled connection elsewhere before this process ends.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if head.method == Method::HEAD {
        *response.body_mut() = http_body_util::Either::Left(Full::default());
    }
    response
}

/// One request that counts: draws its faults and takes its time.
async fn work(app: &App) -> StatusCode {
    app.n_requests.fetch_add(1, Ordering::Relaxed);
    let faults = app.faults.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // Always four draws, so that one fault's setting does not shift another's sequence.
    let [error, latency, slow, slow_by] = std::array::from_fn(|_| app.draws.next());
    if app.started.elapsed() < faults.after {
        return StatusCode::OK;
    }
    let mut time = faults.latency.draw(latency);
    if faults.slow_rate.hits(slow) {
        time += faults.slow_by.draw(slow_by);
    }
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
    if !faults.error_rate.hits(error) {
        return StatusCode::OK;
    }
    app.n_errors.fetch_add(1, Ordering::Relaxed);
    StatusCode::from_u16(faults.error_status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn ready(app: &App) -> bool {
    match app.settings.not_ready {
        None => true,
        Some(NotReady::Always) => false,
        Some(NotReady::For(time)) => app.started.elapsed() >= time,
    }
}

fn http_answer(app: &App, status: StatusCode) -> Answer {
    // Written by hand for the order that a reader expects; a JSON value as `Display` is quoted and escaped.
    let [version, pod] = [&app.settings.version, &app.settings.pod].map(|text| serde_json::Value::from(text.as_str()));
    let error = match status.is_success() {
        true => String::new(),
        false => format!(r#","error":"{}""#, status.canonical_reason().unwrap_or("error")),
    };
    let body = format!("{{\"version\":{version},\"pod\":{pod}{error}}}\n");
    let mut response = Response::new(http_body_util::Either::Left(Full::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An empty message with a status in the trailers. HTTP statuses become gRPC's by its own table
/// (grpc/doc/http-grpc-status-mapping.md), and 500 INTERNAL.
fn grpc_answer(status: StatusCode) -> Answer {
    let code = match status.as_u16() {
        200 => "0",
        400 | 500 => "13",
        401 => "16",
        403 => "7",
        404 => "12",
        429 | 502 | 503 | 504 => "14",
        _ => "2",
    };
    let trailers = HeaderMap::from_iter([(header::HeaderName::from_static("grpc-status"), HeaderValue::from_static(code))]);
    // One empty message: no compression, length 0.
    let message = if status.is_success() { Bytes::from_static(&[0; 5]) } else { Bytes::new() };
    let body = Full::new(message).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(http_body_util::Either::Right(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// `POST /fault?ERROR_RATE=50%25` or the same as lines of the body; all are taken, or none and the reason is told.
async fn change_faults(app: &App, query: Option<&str>, body: Incoming) -> Answer {
    let limited = http_body_util::Limited::new(body, 16 * 1024);
    let text = match limited.collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(error) => return told(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let query = query.unwrap_or_default().replace("%25", "%");
    let mut faults = app.faults.lock().unwrap_or_else(PoisonError::into_inner);
    let mut next = faults.clone();
    for pair in text.split(['\n', '&']).chain(query.split('&')).map(str::trim).filter(|p| !p.is_empty()) {
        let changed = match pair.split_once('=') {
            Some((name, value)) => next.set(name.trim(), value.trim()),
            None => Err(format!("{pair:?} is not NAME=VALUE")),
        };
        if let Err(message) = changed {
            return told(StatusCode::BAD_REQUEST, message);
        }
    }
    say(&format!("faults changed: {next:?}"));
    *faults = next;
    told(StatusCode::OK, format!("{:?}", *faults))
}

fn told(status: StatusCode, text: String) -> Answer {
    let mut response = Response::new(http_body_util::Either::Left(Full::from(text + "\n")));
    *response.status_mut() = status;
    response
}

/// One line for `kubectl logs`.
fn say(line: &str) {
    // A closed pipe must not end the app.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
