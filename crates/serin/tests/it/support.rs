//! What the end-to-end tests share: the binary, labs of their own, kubectl, conditions waited for, processes counted.
#![expect(clippy::print_stderr, reason = "what a run tells is for whoever reads its output")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The binary under test.
pub(crate) const SERIN: &str = env!("CARGO_BIN_EXE_serin");

/// Longer than anything takes on a starved machine; a test that waits this long has failed.
pub(crate) const GENEROUS: Duration = Duration::from_secs(120);

/// One heavy test at a time, over processes too: each runs a mesh under load.
pub(crate) fn alone() -> File {
    let file = File::create(std::env::temp_dir().join("serin-e2e.lock")).expect("a lock file");
    file.lock().expect("the lock");
    file
}

/// A file of the examples.
pub(crate) fn example(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(path)
}

/// kubectl, which `./test` fetches.
pub(crate) fn kubectl_path() -> PathBuf {
    let path = std::env::var_os("SERIN_TEST_KUBECTL").expect("SERIN_TEST_KUBECTL names a kubectl: run ./test, which fetches one");
    PathBuf::from(path)
}

/// What a command said, for failures.
pub(crate) fn said(out: &Output) -> String {
    format!("{}\nstdout:\n{}\nstderr:\n{}", out.status, String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Waits for a condition; panics with `what` and the last thing seen.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + GENEROUS;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if Instant::now() > end => panic!("{what} did not come about; seen last: {seen}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// A lab of a test's own; ends with it.
pub(crate) struct Lab {
    state: tempfile::TempDir,
    /// `callers` and whatever else it tells.
    pub(crate) info: Value,
}

impl Lab {
    /// Starts one.
    pub(crate) fn up(flags: &[&str]) -> Self {
        let state = tempfile::tempdir().expect("a folder");
        let out = Command::new(SERIN)
            .args(["lab", "up", "-o", "json"])
            .args(flags)
            .env("XDG_STATE_HOME", state.path())
            .env_remove("KUBECONFIG")
            .output()
            .expect("serin runs");
        assert!(out.status.success(), "serin lab up: {}", said(&out));
        let info = serde_json::from_slice(&out.stdout).expect("JSON");
        Self { state, info }
    }

    /// The file that leads to it.
    pub(crate) fn kubeconfig(&self) -> &str {
        self.info["kubeconfig"].as_str().expect("a kubeconfig")
    }

    /// Where callers inside the mesh send requests.
    pub(crate) fn callers(&self) -> String {
        self.info["addresses"]["callers"].as_str().expect("an address for callers").to_string()
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", self.kubeconfig()).env("XDG_STATE_HOME", self.state.path()).env("NO_COLOR", "1");
        command
    }

    /// Runs serin against it.
    pub(crate) fn serin(&self, args: &[&str]) -> Output {
        self.command(SERIN).args(args).output().expect("serin runs")
    }

    /// Starts serin against it, in the background.
    pub(crate) fn spawn(&self, args: &[&str]) -> Background {
        let child =
            self.command(SERIN).args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("serin runs");
        Background(child)
    }

    /// Runs kubectl against it; panics with what it said if it fails.
    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        let out = self.command(kubectl_path()).args(args).output().expect("kubectl runs");
        assert!(out.status.success(), "kubectl {}: {}", args.join(" "), said(&out));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Runs kubectl against it; what it said, whether it worked or not.
    pub(crate) fn try_kubectl(&self, args: &[&str]) -> Result<String, String> {
        let out = self.command(kubectl_path()).args(args).output().expect("kubectl runs");
        if out.status.success() { Ok(String::from_utf8_lossy(&out.stdout).into_owned()) } else { Err(said(&out)) }
    }

    /// Applies text.
    pub(crate) fn apply(&self, text: &str) {
        let file = self.state.path().join("applied.yaml");
        fs::write(&file, text).expect("a file");
        self.kubectl(&["apply", "-f", file.to_str().expect("a path")]);
    }

    /// An object as JSON.
    pub(crate) fn object(&self, kind: &str, name: &str) -> Value {
        serde_json::from_str(&self.kubectl(&["get", kind, name, "-o", "json"])).expect("JSON")
    }

    /// Waits until the release fits.
    pub(crate) fn release(&self, what: &str, mut fits: impl FnMut(&Value) -> bool) -> Value {
        until(what, || {
            let object = self.object("canaryrelease", "my-app");
            if fits(&object["status"]) {
                Ok(object["status"].clone())
            } else {
                Err(format!("phase {}, {}", object["status"]["phase"], object["status"]["message"]))
            }
        })
    }

    /// Weights of the article's route, by subset.
    pub(crate) fn weights(&self) -> BTreeMap<String, i64> {
        weights_of(&self.object("virtualservice", "my-app"))
    }
}

/// Weights of a VirtualService's first route, by subset.
pub(crate) fn weights_of(route: &Value) -> BTreeMap<String, i64> {
    let destinations = route["spec"]["http"][0]["route"].as_array().into_iter().flatten();
    destinations.map(|d| (d["destination"]["subset"].as_str().unwrap_or_default().to_string(), d["weight"].as_i64().unwrap_or(0))).collect()
}

/// The smallest mend of the article's route: callers inside the mesh are among those that it is for.
pub(crate) fn bind_to_mesh(lab: &Lab) {
    lab.kubectl(&[
        "patch",
        "virtualservice",
        "my-app",
        "--type",
        "json",
        "-p",
        r#"[{"op":"add","path":"/spec/gateways/-","value":"mesh"}]"#,
    ]);
}

/// The article's objects, mended, and the demo's release; `controller` runs or does not.
pub(crate) fn article(lab: &Lab) {
    for file in
        ["article/my-app-v1.yaml", "article/my-app-v2.yaml", "article/my-app-destination-rule.yaml", "article/my-app-virtual-service.yaml"]
    {
        lab.kubectl(&["apply", "-f", example(file).to_str().expect("a path")]);
    }
    bind_to_mesh(lab);
    lab.kubectl(&["rollout", "status", "deployment/my-app-v1", "--timeout=60s"]);
    lab.kubectl(&["rollout", "status", "deployment/my-app-v2", "--timeout=60s"]);
    lab.kubectl(&["apply", "-f", example("demo/canary-release.yaml").to_str().expect("a path")]);
    until("the first answer", || if call(&lab.callers()).status == 200 { Ok(()) } else { Err(String::new()) });
}

/// The article's split found and on trial, with so many callers.
pub(crate) fn on_trial(lab: &Lab, callers: usize) -> Callers {
    article(lab);
    lab.release("the split is found", |s| s["phase"] == "Paused");
    let callers = Callers::start(&lab.callers(), callers);
    assert_eq!(lab.serin(&["resume", "my-app"]).status.code(), Some(0));
    lab.release("it goes on", |s| s["phase"] == "Progressing");
    callers
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.state.path().join("serin/labs/lab/lab.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("the lab's log ends with:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        let out = Command::new(SERIN).args(["lab", "down"]).env("XDG_STATE_HOME", self.state.path()).output();
        assert!(out.as_ref().is_ok_and(|o| o.status.success()) || std::thread::panicking(), "serin lab down: {out:?}");
    }
}

/// A process that ends with the test.
pub(crate) struct Background(pub(crate) Child);

impl Background {
    /// SIGKILL, as the machine's memory police would.
    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a caller saw.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    /// HTTP status; 0: none.
    pub(crate) status: u16,
    /// `x-version`.
    pub(crate) version: String,
}

/// Steady calls of `my-app` from inside the mesh, until stopped; every answer is recorded.
pub(crate) struct Callers {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    threads: Vec<std::thread::JoinHandle<Vec<Seen>>>,
}

impl Callers {
    /// Starts `many` callers, each with a connection of its own and some 100 requests a second.
    pub(crate) fn start(address: &str, many: usize) -> Self {
        Self::of("my-app", address, many)
    }

    /// The same of another service.
    pub(crate) fn of(host: &str, address: &str, many: usize) -> Self {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let threads = (0..many)
            .map(|_| {
                let (host, address, stop) = (host.to_string(), address.to_string(), stop.clone());
                std::thread::spawn(move || {
                    let mut all = Vec::new();
                    let mut connection = None;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        all.push(call_on(&mut connection, &address, &host));
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    all
                })
            })
            .collect();
        Self { stop, threads }
    }

    /// Stops them, and gives all they saw.
    pub(crate) fn end(self) -> Vec<Seen> {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        self.threads.into_iter().flat_map(|t| t.join().expect("a caller")).collect()
    }
}

/// One call.
pub(crate) fn call(address: &str) -> Seen {
    call_on(&mut None, address, "my-app")
}

/// One call on a kept connection: plain HTTP/1.1, so that nothing stands between the test and the proxy.
fn call_on(connection: &mut Option<std::net::TcpStream>, address: &str, host: &str) -> Seen {
    use std::io::Write as _;
    let none = Seen { status: 0, version: String::new() };
    if connection.is_none() {
        *connection = std::net::TcpStream::connect(address).ok();
    }
    let Some(stream) = connection.as_mut() else { return none };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
    if stream.write_all(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).is_err() {
        *connection = None;
        return none;
    }
    let mut head = Vec::new();
    let mut byte = [0; 1];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => {
                *connection = None;
                return none;
            }
        }
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let field = |name: &str| head.lines().find_map(|l| l.strip_prefix(&format!("{name}: "))).map(str::to_string);
    let length = field("content-length").and_then(|l| l.parse().ok());
    match length {
        Some(length) => {
            let mut body = vec![0; length];
            if stream.read_exact(&mut body).is_err() {
                *connection = None;
            }
        }
        // An answer of another shape is read no further: the next call has a connection of its own.
        None => *connection = None,
    }
    if field("connection").is_some_and(|c| c == "close") {
        *connection = None;
    }
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    Seen { status, version: field("x-version").unwrap_or_default() }
}

/// Counts of answers by version and status.
pub(crate) fn tally(seen: &[Seen]) -> BTreeMap<(String, u16), usize> {
    let mut counts = BTreeMap::new();
    for s in seen {
        *counts.entry((s.version.clone(), s.status)).or_insert(0) += 1;
    }
    counts
}

/// A process, by its id and its start, which together are never used twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    started: String,
    name: String,
}

impl Process {
    /// Whether its program has this name, of which the kernel keeps 15 bytes.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.name == name
    }
}

fn stat(pid: u32) -> Option<(u32, Process)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    // A zombie has ended; only its parent has not asked yet.
    if fields.first() == Some(&"Z") {
        return None;
    }
    Some((
        fields.get(1)?.parse().ok()?,
        Process { pid, started: (*fields.get(19)?).to_string(), name: head.split_once('(')?.1.to_string() },
    ))
}

/// All processes below one.
pub(crate) fn descendants(of: u32) -> Vec<Process> {
    let pids = fs::read_dir("/proc").expect("/proc").flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let all: Vec<(u32, Process)> = pids.filter_map(stat).collect();
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![of];
    while let Some(parent) = parents.pop() {
        for (_, process) in all.iter().filter(|(p, _)| *p == parent) {
            parents.push(process.pid);
            found.push(process.clone());
        }
    }
    found
}

/// Those of them that live.
pub(crate) fn alive(processes: &[Process]) -> Vec<Process> {
    processes.iter().filter(|p| stat(p.pid).is_some_and(|(_, now)| now == **p)).cloned().collect()
}
