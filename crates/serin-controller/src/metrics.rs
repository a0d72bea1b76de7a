//! What the controller tells of itself, in Prometheus' text format.
//!
//! Labels are few and bounded: phases, results, kinds of calls; never a name of an object, which would grow with the cluster.
//! Deliberately no library: a handful of counters needs none.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Phases of releases, as the status names them, and `Invalid`.
const PHASES: [&str; 8] = ["Idle", "Preparing", "Progressing", "Paused", "Promoting", "RollingBack", "RolledBack", "Invalid"];

/// Upper edges of the buckets for durations, in seconds.
const EDGES: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Durations, in buckets.
#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; EDGES.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

impl Histogram {
    fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        for (edge, bucket) in EDGES.iter().zip(&self.buckets) {
            if seconds <= *edge {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn write(&self, out: &mut String, name: &str, about: &str) {
        let _ = writeln!(out, "# HELP {name} {about}\n# TYPE {name} histogram");
        for (edge, bucket) in EDGES.iter().zip(&self.buckets) {
            let _ = writeln!(out, "{name}_bucket{{le=\"{edge}\"}} {}", bucket.load(Ordering::Relaxed));
        }
        let count = self.count.load(Ordering::Relaxed);
        let sum = self.micros.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}");
    }
}

/// What became of a turn.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TurnResult {
    /// It went well.
    Done,
    /// Something had moved, and it is done again.
    Changed,
    /// It failed, and is tried again later.
    Failed,
}

/// All of it; shared, and never locked.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    phases: [AtomicI64; PHASES.len()],
    turns: [AtomicU64; 3],
    turn_time: Histogram,
    polls: [AtomicU64; 2],
    poll_time: Histogram,
    aborts: AtomicU64,
    synced: AtomicBool,
    leading: AtomicBool,
}

impl Metrics {
    /// A release went from one phase to another; `None`: it was not there, or is not any more.
    pub(crate) fn phase(&self, from: Option<&str>, to: Option<&str>) {
        let at = |name: Option<&str>| name.and_then(|n| PHASES.iter().position(|p| *p == n)).and_then(|i| self.phases.get(i));
        at(from).map(|n| n.fetch_sub(1, Ordering::Relaxed));
        at(to).map(|n| n.fetch_add(1, Ordering::Relaxed));
        if to == Some("RollingBack") && from != to {
            self.aborts.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn turn(&self, result: TurnResult, time: Duration) {
        if let Some(n) = self.turns.get(result as usize) {
            n.fetch_add(1, Ordering::Relaxed);
        }
        self.turn_time.observe(time);
    }

    pub(crate) fn poll(&self, answered: bool, time: Duration) {
        if let Some(n) = self.polls.get(usize::from(!answered)) {
            n.fetch_add(1, Ordering::Relaxed);
        }
        self.poll_time.observe(time);
    }

    pub(crate) fn set_synced(&self, synced: bool) {
        self.synced.store(synced, Ordering::Relaxed);
    }

    pub(crate) fn set_leading(&self, leading: bool) {
        self.leading.store(leading, Ordering::Relaxed);
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Relaxed)
    }

    /// The text.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        let version = env!("CARGO_PKG_VERSION");
        let _ = writeln!(
            out,
            "# HELP serin_build_info The version that runs.\n# TYPE serin_build_info gauge\nserin_build_info{{version=\"{version}\"}} 1"
        );
        let _ = writeln!(out, "# HELP serin_releases CanaryReleases by phase.\n# TYPE serin_releases gauge");
        for (phase, n) in PHASES.iter().zip(&self.phases) {
            let _ = writeln!(out, "serin_releases{{phase=\"{phase}\"}} {}", n.load(Ordering::Relaxed));
        }
        let _ = writeln!(out, "# HELP serin_turns_total Looks at a release, by what became of them.\n# TYPE serin_turns_total counter");
        for (result, n) in ["done", "changed", "failed"].iter().zip(&self.turns) {
            let _ = writeln!(out, "serin_turns_total{{result=\"{result}\"}} {}", n.load(Ordering::Relaxed));
        }
        self.turn_time.write(&mut out, "serin_turn_duration_seconds", "How long a look took, its writes included.");
        let _ = writeln!(out, "# HELP serin_polls_total Questions to the source of metrics.\n# TYPE serin_polls_total counter");
        for (result, n) in ["answered", "failed"].iter().zip(&self.polls) {
            let _ = writeln!(out, "serin_polls_total{{result=\"{result}\"}} {}", n.load(Ordering::Relaxed));
        }
        self.poll_time.write(&mut out, "serin_poll_duration_seconds", "How long the source took to answer.");
        let aborts = self.aborts.load(Ordering::Relaxed);
        let _ = writeln!(
            out,
            "# HELP serin_rollbacks_total Rollouts that went back.\n# TYPE serin_rollbacks_total counter\nserin_rollbacks_total {aborts}"
        );
        for (name, about, value) in
            [("serin_synced", "Whether the caches are filled.", &self.synced), ("serin_leading", "Whether this one acts.", &self.leading)]
        {
            let _ = writeln!(out, "# HELP {name} {about}\n# TYPE {name} gauge\n{name} {}", u8::from(value.load(Ordering::Relaxed)));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::exposition::samples;

    #[test]
    fn what_is_told_can_be_read() {
        let metrics = Metrics::default();
        metrics.phase(None, Some("Idle"));
        metrics.phase(Some("Idle"), Some("Preparing"));
        metrics.turn(TurnResult::Done, Duration::from_millis(3));
        metrics.poll(false, Duration::from_secs(2));
        let text = metrics.text();
        let all: Vec<_> = samples(&text, |_| true).collect();
        assert_eq!(all.len(), text.lines().filter(|l| !l.starts_with('#')).count());
        let value =
            |name: &str, label: &str, wanted: &str| all.iter().find(|s| s.name == name && s.label(label) == wanted).map(|s| s.value);
        assert_eq!(value("serin_releases", "phase", "Preparing"), Some(1.0));
        assert_eq!(value("serin_releases", "phase", "Idle"), Some(0.0));
        assert_eq!(value("serin_turn_duration_seconds_bucket", "le", "0.005"), Some(1.0));
        assert_eq!(value("serin_polls_total", "result", "failed"), Some(1.0));
    }
}
