//! One container of a pod: started, watched, started again, stopped. Its state is written where `pod` reads it.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::events::About;
use super::super::object::{items, name, namespace, number, text, uid};
use super::backoff::Backoff;
use super::env::{self, Env};
use super::images::{self, Player, Why};
use super::probe;
use super::process::{Exit, Process, Program};
use super::status::{ContainerState, End, State, restart_policy};
use super::{COMPONENT, Kubelet};
use crate::store::Object;

/// What a pod tells its containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Go on.
    Run,
    /// End in order, until then.
    End {
        /// When the grace period is over.
        by: Instant,
    },
    /// End now: the lab stops.
    Kill,
}

/// Waits until the order is to end, in whatever way.
pub async fn until_ending(order: &mut watch::Receiver<Order>) {
    // The sender is gone: so is the pod.
    let _ = order.wait_for(|order| *order != Order::Run).await;
}

/// Waits until the order is to end now.
pub async fn until_killed(order: &mut watch::Receiver<Order>) {
    let _ = order.wait_for(|order| *order == Order::Kill).await;
}

/// The part that a container plays in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the others.
    Init,
    /// An init container that keeps running.
    Sidecar,
    /// One of `spec.containers`; the first one listens on 8080 if it names no port.
    Main {
        /// Whether it is the first.
        first: bool,
    },
}

/// Where the containers of a pod write what they do.
#[derive(Clone)]
pub struct States {
    all: Arc<Mutex<Vec<ContainerState>>>,
    changed: watch::Sender<u64>,
}

impl States {
    /// The states of containers that have not started.
    pub fn new(states: Vec<ContainerState>) -> Self {
        Self { all: Arc::new(Mutex::new(states)), changed: watch::Sender::new(0) }
    }

    /// All states as they are now.
    pub fn get(&self) -> Vec<ContainerState> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes one and tells the pod.
    pub fn set(&self, which: usize, change: impl FnOnce(&mut ContainerState)) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(state) = all.get_mut(which) else { return };
        let before = state.clone();
        change(state);
        if *state != before {
            self.changed.send_modify(|n| *n += 1);
        }
    }

    /// Says when any of them has changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// One container to run.
pub struct Container {
    /// The node's means.
    pub kubelet: Arc<Kubelet>,
    /// The pod as it is now.
    pub pod: watch::Receiver<Object>,
    /// The container as the manifest has it.
    pub spec: Value,
    /// Its part.
    pub role: Role,
    /// The pod's address.
    pub ip: IpAddr,
    /// Where its state is written, and at which place.
    pub states: States,
    /// Its place there.
    pub slot: usize,
    /// What the pod wants of it.
    pub order: watch::Receiver<Order>,
}

/// Why a running container stops.
enum Stop {
    Exited(Exit),
    Ordered,
    Failed {
        which: &'static str,
        grace: Option<Duration>,
    },
    /// The pod names another image for it now.
    Changed,
}

struct Running {
    process: Process,
    env: Env,
    player: Player,
    started: jiff::Timestamp,
}

impl Container {
    /// Runs the container until it has ended for good; its last exit code, or `None` when it never ran.
    pub async fn run(mut self) -> Option<i32> {
        let mut backoff = Backoff::default();
        loop {
            if *self.order.borrow() != Order::Run {
                return self.never_started();
            }
            let mut changed = false;
            let before = self.kubelet.store.version();
            let end = match self.start().await {
                Ok(mut running) => {
                    let stop = self.watch(&mut running).await;
                    changed = matches!(stop, Stop::Changed);
                    self.finish(running, stop).await
                }
                Err(Refused::Config { reason, message }) => {
                    let about_pod = self.pod();
                    self.warn(&about_pod, "Failed", &format!("Error: {message}"));
                    self.states.set(self.slot, |s| s.state = State::Waiting { reason: reason.into(), message });
                    self.until_configured(before).await;
                    continue;
                }
                Err(Refused::Start(message)) => {
                    let pod = self.pod();
                    self.warn(&pod, "Failed", &format!("Error: {message}"));
                    let now = self.kubelet.now();
                    End { code: 128, signal: None, reason: "StartError".into(), message, started: now, finished: now }
                }
            };
            let finished = Instant::now();
            let code = end.code;
            if *self.order.borrow() != Order::Run || !(changed || self.restarts_after(code)) {
                self.states.set(self.slot, |s| {
                    s.state = State::Terminated(end);
                    (s.ready, s.started) = (false, false);
                });
                return Some(code);
            }
            self.states.set(self.slot, |s| {
                s.state = State::Terminated(end.clone());
                (s.ready, s.started) = (false, false);
            });
            let wait = if changed { Duration::ZERO } else { backoff.after(finished) };
            if !wait.is_zero() && !self.back_off(end.clone(), finished + wait, wait).await {
                return Some(code);
            }
            self.states.set(self.slot, |s| {
                s.restarts += 1;
                s.last = Some(end);
            });
        }
    }

    pub(super) fn pod(&self) -> Object {
        self.pod.borrow().clone()
    }

    fn name(&self) -> &str {
        text(&self.spec, "/name")
    }

    fn never_started(&self) -> Option<i32> {
        let now = self.kubelet.now();
        self.states.set(self.slot, |s| {
            // One that had run before keeps how it ended.
            if let Some(end) = s.last.take() {
                s.state = State::Terminated(end);
            } else if matches!(s.state, State::Waiting { .. }) {
                let message = "the pod ended before the container was started".into();
                let end = End { code: 137, signal: None, reason: "ContainerStatusUnknown".into(), message, started: now, finished: now };
                s.state = State::Terminated(end);
            }
            (s.ready, s.started) = (false, false);
        });
        None
    }

    fn restarts_after(&self, code: i32) -> bool {
        let pod = self.pod();
        match (self.role, restart_policy(&pod)) {
            (Role::Sidecar, _) => true,
            (Role::Init, policy) => code != 0 && policy != "Never",
            (Role::Main { .. }, "Always") => true,
            (Role::Main { .. }, "OnFailure") => code != 0,
            (Role::Main { .. }, _) => false,
        }
    }

    /// Waits until it may start again; false when the pod is to end.
    async fn back_off(&mut self, end: End, until: Instant, wait: Duration) -> bool {
        let pod = self.pod();
        let message = format!(
            "back-off {} restarting failed container={} pod={}_{}({})",
            spell(wait),
            self.name(),
            name(&pod),
            namespace(&pod),
            uid(&pod)
        );
        let said = format!("Back-off restarting failed container {} in pod {}_{}({})", self.name(), name(&pod), namespace(&pod), uid(&pod));
        self.warn(&pod, "BackOff", &said);
        self.states.set(self.slot, |s| {
            s.state = State::Waiting { reason: "CrashLoopBackOff".into(), message };
            s.last = Some(end);
        });
        tokio::select! {
            () = tokio::time::sleep_until(until) => return true,
            () = until_ending(&mut self.order) => {}
        }
        self.never_started();
        false
    }

    /// Waits for something that may mend a configuration: any change of a ConfigMap, a Secret or the pod after version `seen` of the
    /// store, which was read before the configuration was: what came in between must not be waited for.
    async fn until_configured(&mut self, seen: u64) {
        let place = namespace(&self.pod()).to_owned();
        let watch = self.kubelet.store.watch(None, Some(&place), Some(seen));
        let changed = async {
            let Ok(mut watch) = watch else { return };
            while let Ok(event) = watch.next().await {
                if matches!(event.key.resource.plural.as_str(), "configmaps" | "secrets") {
                    return;
                }
            }
        };
        tokio::select! {
            () = changed => {}
            _ = self.pod.changed() => {}
            () = until_ending(&mut self.order) => {}
        }
    }

    /// The ports on which the sample app plays this container, the first one first: those the container declares, those its probes
    /// ask, and for the first container those that Services send to without its declaring them.
    fn ports(&self, pod: &Value) -> Vec<u16> {
        let tcp = |port: &&Value| matches!(text(port, "/protocol"), "" | "TCP");
        let number = |n: i64| u16::try_from(n).ok().filter(|n| *n > 0);
        let mut ports: Vec<u16> = items(&self.spec, "/ports").iter().filter(tcp).filter_map(|p| number(number_of(p))).collect();
        let mut add = |port: Option<u16>| ports.extend(port);
        for field in ["readinessProbe", "livenessProbe", "startupProbe"] {
            if let Some(Ok(probe)) = probe::read(&self.spec, field, self.ip, false) {
                add(probe.address().filter(|a| a.ip() == self.ip).map(|a| a.port()));
            }
        }
        if self.role == (Role::Main { first: true }) {
            let declared: Vec<u16> =
                items(pod, "/spec/containers").iter().flat_map(|c| items(c, "/ports")).filter_map(|p| number(number_of(p))).collect();
            for port in self.kubelet.service_targets(pod).into_iter().filter(|p| !declared.contains(p)) {
                add(Some(port));
            }
            if ports.is_empty() {
                ports.push(DEFAULT_PORT);
            }
        }
        let mut seen = Vec::new();
        ports.retain(|p| {
            !seen.contains(p) && {
                seen.push(*p);
                true
            }
        });
        ports
    }

    async fn start(&mut self) -> Result<Running, Refused> {
        let pod = self.pod();
        let ports = self.ports(&pod);
        let ip = self.ip.to_string();
        let source = env::Source { store: &self.kubelet.store, pod: &pod, container: &self.spec, ip: &ip, port: ports.first().copied() };
        let mut env = env::resolve(&source).map_err(|message| Refused::Config { reason: "CreateContainerConfigError", message })?;
        let images = self.kubelet.store.get(&images::key());
        let player = images::player(images.as_deref(), &self.spec, self.kubelet.config.exec);
        let image = text(&self.spec, "/image");
        let run = self.states.get().get(self.slot).map_or(0, |s| s.restarts);
        let log = self
            .kubelet
            .config
            .logs
            .start(namespace(&pod), name(&pod), self.name(), run)
            .map_err(|error| Refused::Start(format!("open the log of {}: {error}", self.name())))?;
        let (program, played_by, said): (Vec<String>, &str, String) = match &player {
            Player::Sample(why) => {
                let set_by_manifest = items(&self.spec, "/env").iter().any(|v| text(v, "/name") == "PORT");
                if !set_by_manifest {
                    let list = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
                    // Zero is no port: a helper container that listens nowhere.
                    env.set("PORTS", if list.is_empty() { "0".into() } else { list });
                }
                let said = match why {
                    Why::UnknownImage => format!(
                        "image \"{image}\" is played by the sample app: no command is mapped to it (`serin lab up --image 'GLOB=COMMAND ARGS'`, or ConfigMap kube-system/lab-images)"
                    ),
                    Why::CommandRefused => format!(
                        "image \"{image}\" is played by the sample app, and the command in the manifest is not run; `serin lab up --exec` would run it"
                    ),
                    Why::BadMapping(problem) => {
                        format!(
                            "image \"{image}\" is played by the sample app: its mapping in ConfigMap kube-system/lab-images is wrong: {problem}"
                        )
                    }
                };
                (Vec::new(), "serin://sample-app", said)
            }
            Player::Command { words, from } => {
                let words: Vec<String> = match from {
                    images::From::Images => words.iter().map(|w| env.expand_words(w)).collect(),
                    images::From::Manifest => words.iter().map(|w| env.expand(w)).collect(),
                };
                let said = format!("image \"{image}\" is played by the command: {}", words.join(" "));
                (words, "serin://command", said)
            }
        };
        match &player {
            Player::Sample(Why::BadMapping(_) | Why::CommandRefused) => self.warn(&pod, "Pulled", &said),
            Player::Sample(Why::UnknownImage) | Player::Command { .. } => self.tell(&pod, "Pulled", &said),
        }
        if run == 0 && !matches!(player, Player::Sample(_)) {
            self.warn_of_volumes(&pod);
        }
        let program = if program.is_empty() { Program::Sample } else { Program::Command(&program) };
        let process = Process::start(&self.kubelet.config.self_exe, &program, &env, &log, self.kubelet.store.clock())
            .map_err(|error| Refused::Start(format!("start the process of {}: {error}", self.name())))?;
        self.tell(&pod, "Created", &format!("Created container: {}", self.name()));
        self.tell(&pod, "Started", &format!("Started container {}", self.name()));
        let started = self.kubelet.now();
        self.states.set(self.slot, |s| {
            s.state = State::Running { since: started };
            s.played_by = played_by.into();
        });
        Ok(Running { process, env, player, started })
    }

    /// Volumes need a file system of one's own, which a plain process has not.
    fn warn_of_volumes(&self, pod: &Value) {
        let mounts = items(&self.spec, "/volumeMounts").iter().map(|m| text(m, "/mountPath"));
        let mounts: Vec<&str> = mounts.filter(|path| !path.starts_with("/var/run/secrets/kubernetes.io")).collect();
        if !mounts.is_empty() {
            let message = format!("volumes are not mounted in the lab: the process of {} does not find {}", self.name(), mounts.join(", "));
            self.warn(pod, "NotMounted", &message);
        }
    }

    /// Watches the running container until it ends or is to end.
    async fn watch(&mut self, running: &mut Running) -> Stop {
        let (mut order, mut pod) = (self.order.clone(), self.pod.clone());
        let this = &*self;
        let another = async {
            // The sender is gone: so is the pod, and the order says it.
            let _ = pod.wait_for(|pod| this.image_in(pod) != text(&this.spec, "/image")).await;
        };
        tokio::select! {
            biased;
            exit = running.process.wait() => Stop::Exited(exit),
            () = until_ending(&mut order) => Stop::Ordered,
            () = another => Stop::Changed,
            (which, grace) = this.health(&running.env, &running.player) => Stop::Failed { which, grace },
        }
    }

    /// The image that a pod names for this container.
    fn image_in<'a>(&'a self, pod: &'a Value) -> &'a str {
        let all = items(pod, "/spec/containers").iter().chain(items(pod, "/spec/initContainers"));
        all.into_iter().find(|c| text(c, "/name") == self.name()).map_or(text(&self.spec, "/image"), |c| text(c, "/image"))
    }

    /// Brings a container that stops to its end, and says how it ended.
    async fn finish(&mut self, mut running: Running, stop: Stop) -> End {
        let exit = match stop {
            Stop::Exited(exit) => exit,
            Stop::Ordered => {
                let order = *self.order.borrow();
                match order {
                    Order::Kill => running.process.kill().await,
                    Order::Run | Order::End { .. } => {
                        let pod = self.pod();
                        self.tell(&pod, "Killing", &format!("Stopping container {}", self.name()));
                        self.end_in_order(&mut running, None).await
                    }
                }
            }
            Stop::Changed => {
                let pod = self.pod();
                self.tell(&pod, "Killing", &format!("Container {} definition changed, will be restarted", self.name()));
                self.states.set(self.slot, |s| s.ready = false);
                let grace = Duration::from_secs(super::super::object::grace_seconds(&pod));
                let exit = self.end_in_order(&mut running, Some(Instant::now() + grace)).await;
                let image = self.image_in(&pod).to_owned();
                self.states.set(self.slot, |s| s.image.clone_from(&image));
                self.spec["image"] = image.into();
                exit
            }
            Stop::Failed { which, grace } => {
                let pod = self.pod();
                let message = format!("Container {} failed {which} probe, will be restarted", self.name());
                self.tell(&pod, "Killing", &message);
                let grace = grace.unwrap_or(Duration::from_secs(super::super::object::grace_seconds(&pod)));
                self.states.set(self.slot, |s| s.ready = false);
                self.end_in_order(&mut running, Some(Instant::now() + grace)).await
            }
        };
        let reason = if exit.code == 0 { "Completed" } else { "Error" };
        End {
            code: exit.code,
            signal: exit.signal,
            reason: reason.into(),
            message: String::new(),
            started: running.started,
            finished: self.kubelet.now(),
        }
    }

    /// preStop, SIGTERM, and SIGKILL when the grace period is over. `by` stands until the pod itself is to end.
    async fn end_in_order(&mut self, running: &mut Running, by: Option<Instant>) -> Exit {
        let mut order = self.order.clone();
        let now = *order.borrow_and_update();
        let mut by = match (now, by) {
            (Order::End { by }, None) => by,
            (Order::End { by: pod }, Some(own)) => pod.min(own),
            (Order::Kill, _) => return running.process.kill().await,
            (Order::Run, Some(own)) => own,
            (Order::Run, None) => Instant::now(),
        };
        let hook = self.before_stop(&running.env);
        tokio::select! {
            exit = running.process.wait() => return exit,
            () = hook => {}
            () = tokio::time::sleep_until(by) => {}
            () = until_killed(&mut order) => return running.process.kill().await,
        }
        running.process.terminate();
        // A hook that used the time up leaves two seconds, as in Kubernetes; no time at all was then the wish.
        let least = Instant::now() + Duration::from_secs(if by <= Instant::now() && self.has_hook() { 2 } else { 0 });
        by = by.max(least);
        loop {
            tokio::select! {
                exit = running.process.wait() => return exit,
                () = tokio::time::sleep_until(by) => return running.process.kill().await,
                changed = order.changed() => {
                    let now = *order.borrow_and_update();
                    match now {
                        Order::Run if changed.is_ok() => {}
                        // Shortened, or the container was on its way out already.
                        Order::End { by: new } if changed.is_ok() => by = by.min(new),
                        Order::Kill | Order::Run | Order::End { .. } => return running.process.kill().await,
                    }
                }
            }
        }
    }

    fn has_hook(&self) -> bool {
        self.spec.pointer("/lifecycle/preStop").is_some_and(Value::is_object)
    }

    async fn before_stop(&self, env: &Env) {
        let Some(hook) = self.spec.pointer("/lifecycle/preStop").filter(|h| h.is_object()) else { return };
        if let Some(seconds) = hook.pointer("/sleep/seconds").and_then(Value::as_u64) {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            return;
        }
        let done = match probe::action(hook, &self.spec, self.ip, self.kubelet.config.exec) {
            Ok(action) => action.perform(env, &self.kubelet.config.self_exe).await,
            Err(why) => Err(why),
        };
        if let Err(why) = done {
            self.warn(&self.pod(), "FailedPreStopHook", &format!("PreStopHook failed: {why}"));
        }
    }

    fn tell(&self, pod: &Value, reason: &str, message: &str) {
        self.kubelet.events.normal(COMPONENT, self.about(pod, &self.field()), reason, message);
    }

    pub(super) fn warn(&self, pod: &Value, reason: &str, message: &str) {
        self.kubelet.events.warning(COMPONENT, self.about(pod, &self.field()), reason, message);
    }

    fn field(&self) -> String {
        let list = match self.role {
            Role::Init | Role::Sidecar => "initContainers",
            Role::Main { .. } => "containers",
        };
        format!("spec.{list}{{{}}}", self.name())
    }

    fn about<'a>(&self, pod: &'a Value, field: &'a str) -> About<'a> {
        About { field, ..About::whole("v1", "Pod", pod) }
    }
}

/// The port of a container that declares none, if it is the first of its pod.
const DEFAULT_PORT: u16 = 8080;

/// Why a container was not started.
enum Refused {
    /// Something it names is not there; it is looked at again when that may have changed.
    Config { reason: &'static str, message: String },
    /// The system refused; counts as an end, with back-off.
    Start(String),
}

fn number_of(port: &Value) -> i64 {
    number(port, "/containerPort", 0)
}

/// `10s`, `1m20s`, `5m0s`, as Go prints durations.
fn spell(time: Duration) -> String {
    match time.as_secs() {
        s if s < 60 => format!("{s}s"),
        s => format!("{}m{}s", s / 60, s % 60),
    }
}
