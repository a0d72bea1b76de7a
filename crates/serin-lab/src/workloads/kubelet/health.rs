//! Whether a running container has started, is ready and is alive: its probes, and what stands in for those it lacks.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::super::object::{items, text};
use super::super::sample::READY_PATH;
use super::container::{Container, Role};
use super::env::Env;
use super::images::Player;
use super::probe::{self, Probe, Streak, Unsupported};

impl Container {
    /// Runs the probes and keeps `started` and `ready`; returns when the container is to be restarted, and for which probe.
    pub(super) async fn health(&self, env: &Env, player: &Player) -> (&'static str, Option<Duration>) {
        let begun = Instant::now();
        let exec = self.kubelet.config.exec;
        let read = |field: &str| match probe::read(&self.spec, field, self.ip, exec) {
            Some(Ok(probe)) => Some(probe),
            Some(Err(Unsupported(why))) => {
                self.warn(&self.pod(), "ProbeNotRun", &why);
                None
            }
            None => None,
        };
        let (startup, readiness, liveness) = match self.role {
            Role::Init => (None, None, None),
            Role::Sidecar | Role::Main { .. } => (read("startupProbe"), read("readinessProbe"), read("livenessProbe")),
        };
        if let Some(startup) = startup {
            self.listening(startup.address()).await;
            let started = self.ask_until(&startup, env, begun, "Startup", |_| true).await;
            if !started {
                return ("startup", startup.grace);
            }
        }
        self.states.set(self.slot, |s| s.started = true);
        let ready = async {
            match &readiness {
                Some(probe) => {
                    self.listening(probe.address()).await;
                    self.ask_until(probe, env, begun, "Readiness", |ok| {
                        self.states.set(self.slot, |s| s.ready = ok);
                        false
                    })
                    .await;
                }
                None => {
                    self.stand_in(env, player).await;
                    self.states.set(self.slot, |s| s.ready = true);
                }
            }
            std::future::pending::<()>().await;
        };
        let alive = async {
            match &liveness {
                Some(probe) => {
                    self.ask_until(probe, env, begun, "Liveness", |ok| !ok).await;
                    ("liveness", probe.grace)
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = ready => std::future::pending().await,
            why = alive => why,
        }
    }

    /// Asks again and again, until an answer that counts is `last`; returns that answer.
    async fn ask_until(&self, probe: &Probe, env: &Env, begun: Instant, kind: &str, mut last: impl FnMut(bool) -> bool) -> bool {
        tokio::time::sleep_until(begun + probe.initial_delay).await;
        let mut tick = tokio::time::interval(probe.period);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut streak = Streak::default();
        loop {
            tick.tick().await;
            let answer = probe.ask(env, &self.kubelet.config.self_exe).await;
            if let Err(why) = &answer {
                self.warn(&self.pod(), "Unhealthy", &format!("{kind} probe failed: {why}"));
            }
            if let Some(counted) = streak.count(probe, answer.is_ok())
                && last(counted)
            {
                return counted;
            }
        }
    }

    /// Waits, for a second at most, until the process listens where a probe will ask. A kubelet sees a new container
    /// about that much later, so that its first probe rarely finds the door shut; here it would do so always.
    async fn listening(&self, at: Option<SocketAddr>) {
        let Some(at) = at else { return };
        let _ = tokio::time::timeout(Duration::from_secs(1), until_open(at)).await;
    }

    /// The readiness of a container without a readiness probe. In Kubernetes it is ready once it runs; a process of the
    /// lab has no start-up time in between, so it is ready once it listens on its port. One that declares
    /// no port may be no server at all, and counts as ready after two seconds even so.
    async fn stand_in(&self, env: &Env, player: &Player) {
        if self.role == Role::Init {
            return;
        }
        let port = match player {
            // It listens on its ports, unless the manifest has set another.
            Player::Sample(_) => env.get("PORTS").or_else(|| env.get("PORT")),
            Player::Command { .. } => env.get("PORT"),
        };
        let port = port.and_then(|list| list.split(',').next()?.trim().parse::<u16>().ok()).filter(|p| *p > 0);
        let Some(port) = port else { return };
        let at = SocketAddr::new(self.ip, port);
        let declared = items(&self.spec, "/ports").iter().any(|p| matches!(text(p, "/protocol"), "" | "TCP"));
        match player {
            Player::Sample(_) => until_ready(at).await,
            Player::Command { .. } if declared => until_open(at).await,
            Player::Command { .. } => {
                let _ = tokio::time::timeout(Duration::from_secs(2), until_open(at)).await;
            }
        }
    }
}

/// Pauses between two looks at a process that starts: short at first, since most take some ten milliseconds.
fn pauses() -> impl Iterator<Item = Duration> {
    (1u32..).map(|n| Duration::from_millis((2u64 << n.min(6)).min(100)))
}

/// Waits until something listens.
async fn until_open(at: SocketAddr) {
    for pause in pauses() {
        if tokio::net::TcpStream::connect(at).await.is_ok() {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

/// Waits until the sample app says that it is ready.
async fn until_ready(at: SocketAddr) {
    for pause in pauses() {
        if probe::get(at, READY_PATH, &[]).await == Ok(200) {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}
