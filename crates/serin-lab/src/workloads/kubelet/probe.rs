//! Probes: what is asked, how often, and what counts as an answer. Events and consequences are `container`'s.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::super::guard::guarded;
use super::super::object::{items, number, text};
use super::env::Env;

/// One probe of a container.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// What is asked.
    pub action: Action,
    /// From the start of the container.
    pub initial_delay: Duration,
    /// Between two tries.
    pub period: Duration,
    /// For one try.
    pub timeout: Duration,
    /// Successes in a row that it takes.
    pub success_threshold: u32,
    /// Failures in a row that it takes.
    pub failure_threshold: u32,
    /// The grace period of a restart that this probe causes, if not the pod's.
    pub grace: Option<Duration>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// An HTTP request; 200 to 399 is a success.
    Http {
        /// Where to.
        at: SocketAddr,
        /// With a leading slash.
        path: String,
        /// Extra headers.
        headers: Vec<(String, String)>,
    },
    /// A connection.
    Tcp(SocketAddr),
    /// A command; code 0 is a success.
    Exec(Vec<String>),
}

/// A probe that is not run, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsupported(pub String);

/// Reads a probe; `None` when the container has none of this name.
pub fn read(container: &Value, field: &str, ip: IpAddr, exec: bool) -> Option<Result<Probe, Unsupported>> {
    let spec = container.get(field).filter(|p| p.is_object())?;
    let seconds =
        |name: &str, default: i64, least: i64| Duration::from_secs(u64::try_from(number(spec, name, default).max(least)).unwrap_or(0));
    let times = |name: &str, default: i64| u32::try_from(number(spec, name, default).max(1)).unwrap_or(1);
    let action = match action(spec, container, ip, exec) {
        Ok(action) => action,
        Err(why) => return Some(Err(Unsupported(format!("{field} of container {}: {why}", text(container, "/name"))))),
    };
    Some(Ok(Probe {
        action,
        initial_delay: seconds("/initialDelaySeconds", 0, 0),
        period: seconds("/periodSeconds", 10, 1),
        timeout: seconds("/timeoutSeconds", 1, 1),
        success_threshold: times("/successThreshold", 1),
        failure_threshold: times("/failureThreshold", 3),
        grace: spec.get("terminationGracePeriodSeconds").and_then(Value::as_u64).map(Duration::from_secs),
    }))
}

/// Reads what is asked, of a probe or of a lifecycle hook.
pub fn action(spec: &Value, container: &Value, ip: IpAddr, exec: bool) -> Result<Action, String> {
    let at = |action: &Value| -> Result<SocketAddr, String> {
        let host = match text(action, "/host") {
            "" => ip,
            "localhost" => ip,
            host => host.parse().map_err(|_| format!("host {host:?} is no address; the lab resolves no names for probes"))?,
        };
        let port = port(action.get("port"), container).ok_or_else(|| format!("port {} is none of the container's", action["port"]))?;
        Ok(SocketAddr::new(host, port))
    };
    if let Some(get) = spec.get("httpGet") {
        if text(get, "/scheme").eq_ignore_ascii_case("https") {
            return Err("HTTPS probes are not run by the lab".into());
        }
        let path = match text(get, "/path") {
            "" => "/".to_owned(),
            path if path.starts_with('/') => path.to_owned(),
            path => format!("/{path}"),
        };
        let headers = items(get, "/httpHeaders").iter().map(|h| (text(h, "/name").to_owned(), text(h, "/value").to_owned()));
        return Ok(Action::Http { at: at(get)?, path, headers: headers.collect() });
    }
    if let Some(tcp) = spec.get("tcpSocket") {
        return Ok(Action::Tcp(at(tcp)?));
    }
    if let Some(command) = spec.get("exec") {
        if !exec {
            return Err("commands of manifests are not run; `serin lab up --exec` allows them".into());
        }
        let words: Vec<String> = items(command, "/command").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        return if words.is_empty() { Err("exec without a command".into()) } else { Ok(Action::Exec(words)) };
    }
    if spec.get("grpc").is_some() {
        return Err("gRPC probes are not run by the lab".into());
    }
    Err("it asks for nothing".into())
}

/// A port by number or by the name of a container port.
fn port(wanted: Option<&Value>, container: &Value) -> Option<u16> {
    let by_name = |name: &str| {
        let port = items(container, "/ports").iter().find(|p| text(p, "/name") == name)?;
        u16::try_from(number(port, "/containerPort", 0)).ok()
    };
    match wanted? {
        Value::Number(n) => u16::try_from(n.as_u64()?).ok(),
        Value::String(name) => name.parse().ok().or_else(|| by_name(name)),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
    .filter(|port| *port > 0)
}

impl Probe {
    /// Asks once.
    ///
    /// # Errors
    /// What a kubelet would say of the failure.
    pub async fn ask(&self, env: &Env, self_exe: &Path) -> Result<(), String> {
        match tokio::time::timeout(self.timeout, self.action.perform(env, self_exe)).await {
            Ok(answer) => answer,
            Err(_) => Err(match &self.action {
                Action::Http { at, path, .. } => {
                    format!("Get \"http://{at}{path}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)")
                }
                Action::Tcp(at) => format!("dial tcp {at}: i/o timeout"),
                Action::Exec(_) => format!("command timed out after {:?}", self.timeout),
            }),
        }
    }

    /// The address that is asked, if it is one.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.action {
            Action::Http { at, .. } | Action::Tcp(at) => Some(*at),
            Action::Exec(_) => None,
        }
    }
}

impl Action {
    /// Does it, without a time limit.
    ///
    /// # Errors
    /// What a kubelet would say of the failure.
    pub async fn perform(&self, env: &Env, self_exe: &Path) -> Result<(), String> {
        match self {
            Self::Http { at, path, headers } => {
                let status = get(*at, path, headers).await.map_err(|error| format!("Get \"http://{at}{path}\": {error}"))?;
                if (200..400).contains(&status) { Ok(()) } else { Err(format!("HTTP probe failed with statuscode: {status}")) }
            }
            Self::Tcp(at) => connect(*at).await.map(|_| ()),
            Self::Exec(words) => run(words, env, self_exe).await,
        }
    }
}

async fn connect(at: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(at).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => format!("dial tcp {at}: connect: connection refused"),
        _ => format!("dial tcp {at}: {error}"),
    })
}

/// One GET over a connection of its own; the status.
pub async fn get(at: SocketAddr, path: &str, headers: &[(String, String)]) -> Result<u16, String> {
    let stream = connect(at).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let mut request = Request::get(path).body(Empty::<bytes::Bytes>::new()).map_err(|e| e.to_string())?;
    let own = request.headers_mut();
    own.insert(http::header::USER_AGENT, HeaderValue::from_static("kube-probe/1.35"));
    own.insert(http::header::ACCEPT, HeaderValue::from_static("*/*"));
    own.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    own.insert(http::header::HOST, HeaderValue::from_str(&at.to_string()).map_err(|e| e.to_string())?);
    for (name, value) in headers {
        let name: HeaderName = name.parse().map_err(|_| format!("header name {name:?} is not legal"))?;
        let value = HeaderValue::from_str(value).map_err(|_| format!("header value {value:?} is not legal"))?;
        own.insert(name, value);
    }
    let exchange = async {
        let mut response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        // Ten kilobytes, as the kubelet reads; whoever sends more has answered all the same.
        let mut left = 10 << 10;
        while left > 0 {
            match response.body_mut().frame().await {
                Some(Ok(frame)) => left -= frame.data_ref().map_or(0, |data| i64::try_from(data.len()).unwrap_or(left)),
                Some(Err(_)) | None => break,
            }
        }
        Ok(status)
    };
    tokio::pin!(exchange);
    let mut connection = std::pin::pin!(connection);
    let mut open = true;
    loop {
        tokio::select! {
            status = &mut exchange => return status,
            // When the connection ends, the answer (or its lack) is there.
            _ = &mut connection, if open => open = false,
        }
    }
}

/// Runs a command of a probe or hook under the guard. It is killed when the time is up: the future is dropped then,
/// and with it the pipe.
async fn run(words: &[String], env: &Env, self_exe: &Path) -> Result<(), String> {
    let (program, args) = words.split_first().ok_or("exec without a command")?;
    let mut command = guarded(self_exe, Path::new(program), args);
    command.envs(env.iter()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("exec {program:?}: {error}"))?;
    let _hold = child.stdin.take();
    let output = child.wait_with_output().await.map_err(|error| format!("exec {program:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said: String = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).chars().take(1_024).collect();
    Err(said.trim_end().to_owned())
}

/// Counts answers in a row.
#[derive(Debug, Default)]
pub struct Streak {
    ok: Option<bool>,
    n: u32,
}

impl Streak {
    /// Takes in an answer; `Some` when enough of its kind came in a row.
    pub fn count(&mut self, probe: &Probe, ok: bool) -> Option<bool> {
        if self.ok == Some(ok) {
            self.n = self.n.saturating_add(1);
        } else {
            *self = Self { ok: Some(ok), n: 1 };
        }
        let enough = if ok { probe.success_threshold } else { probe.failure_threshold };
        (self.n >= enough).then_some(ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 16, 0, 2));

    fn container(probe: Value) -> Value {
        json!({"name": "app", "ports": [{"name": "http", "containerPort": 8080}], "readinessProbe": probe})
    }

    #[test]
    fn ports_are_found_by_number_and_by_name() {
        let at = |port: Value| {
            let container = container(json!({"httpGet": {"port": port, "path": "ready"}}));
            match read(&container, "readinessProbe", IP, false) {
                Some(Ok(Probe { action: Action::Http { at, path, .. }, .. })) => {
                    assert_eq!(path, "/ready");
                    Some(at.port())
                }
                _ => None,
            }
        };
        assert_eq!((at(json!(81)), at(json!("82")), at(json!("http")), at(json!("nope"))), (Some(81), Some(82), Some(8080), None));
    }

    #[test]
    fn what_is_not_run_says_so() {
        let why = |probe: Value| match read(&container(probe), "readinessProbe", IP, false) {
            Some(Err(Unsupported(why))) => why,
            other => panic!("{other:?}"),
        };
        assert!(why(json!({"grpc": {"port": 1}})).contains("gRPC probes are not run"));
        assert!(why(json!({"exec": {"command": ["true"]}})).contains("--exec"));
        assert!(why(json!({"httpGet": {"port": "http", "scheme": "HTTPS"}})).contains("HTTPS"));
        assert_eq!(read(&json!({"name": "x"}), "readinessProbe", IP, false), None);
    }

    #[test]
    fn thresholds_count_answers_in_a_row() {
        let spec = json!({"tcpSocket": {"port": "http"}, "failureThreshold": 2, "successThreshold": 2});
        let Some(Ok(probe)) = read(&container(spec), "readinessProbe", IP, false) else { panic!() };
        let mut streak = Streak::default();
        let answers = [true, true, false, true, false, false, false].map(|ok| streak.count(&probe, ok));
        assert_eq!(answers, [None, Some(true), None, None, None, Some(false), Some(false)]);
    }
}
