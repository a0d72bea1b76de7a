//! Steady traffic, and a log of every response.
//!
//! Requests go out on a schedule, whatever becomes of those before them, as users do. Each belongs to a user, drawn by a
//! seed. Deliberately no retries: what the log says is what a caller saw.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Uri;
use tokio::time::{Instant, MissedTickBehavior};

use crate::web::Web;

/// One response, or what became of a request that got none.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// When it was sent, since the traffic began.
    pub(crate) sent: Duration,
    /// When the answer was there, since the traffic began.
    pub(crate) done: Duration,
    /// HTTP status; 0: none came.
    pub(crate) status: u16,
    /// The version that answered, as the answer's header says.
    pub(crate) version: Option<String>,
    /// Who asked.
    pub(crate) user: u32,
    /// What went wrong below HTTP.
    pub(crate) error: Option<String>,
}

impl Entry {
    /// Whether the caller got what it asked for.
    pub(crate) fn failed(&self) -> bool {
        self.status == 0 || self.status >= 500 || self.status == 404
    }
}

/// Users among whom requests are drawn.
const USERS: u64 = 10_000;
/// Requests are sent in small groups: a timer cannot do finer.
const TICK: Duration = Duration::from_millis(2);
/// More than this under way at once, and the generator waits: an answer that never comes must not eat the machine.
const MOST_AT_ONCE: u64 = 2_000;

/// The generator and its log.
#[derive(Clone)]
pub(crate) struct Traffic {
    inner: Arc<Inner>,
}

struct Inner {
    begin: Instant,
    stop: AtomicBool,
    under_way: AtomicU64,
    late: AtomicU64,
    log: Mutex<Vec<Entry>>,
}

impl Traffic {
    /// Begins to send `rate` requests a second to `url` under a Host header.
    pub(crate) fn start(web: Web, url: Uri, host: String, rate: u32, seed: u64) -> Self {
        let inner = Inner { begin: Instant::now(), stop: AtomicBool::new(false), under_way: AtomicU64::new(0), late: AtomicU64::new(0), log: Mutex::new(Vec::new()) };
        let traffic = Self { inner: Arc::new(inner) };
        tokio::spawn(traffic.clone().send(web, url, host, rate, seed));
        traffic
    }

    async fn send(self, web: Web, url: Uri, host: String, rate: u32, seed: u64) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut sent, mut draws) = (0_u64, seed);
        while !self.inner.stop.load(Ordering::Relaxed) {
            ticks.tick().await;
            let due = (self.inner.begin.elapsed().as_secs_f64() * f64::from(rate)) as u64;
            // After a pause of the machine the schedule goes on; what was missed is not sent in a burst that no users would make.
            let most = u64::from(rate).div_ceil(20);
            if due.saturating_sub(sent) > most {
                self.inner.late.fetch_add(due - sent - most, Ordering::Relaxed);
                sent = due - most;
            }
            while sent < due && self.inner.under_way.load(Ordering::Relaxed) < MOST_AT_ONCE {
                sent += 1;
                let user = (draw(&mut draws) % USERS) as u32;
                self.inner.under_way.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(self.clone().one(web.clone(), url.clone(), host.clone(), user));
            }
        }
    }

    async fn one(self, web: Web, url: Uri, host: String, user: u32) {
        let sent = self.inner.begin.elapsed();
        let answer = web.get(&url, Some(&host)).await;
        let done = self.inner.begin.elapsed();
        let entry = match answer {
            Ok(answer) => {
                let version = answer.headers.get("x-version").and_then(|v| v.to_str().ok()).map(ToString::to_string);
                Entry { sent, done, status: answer.status.as_u16(), version, user, error: None }
            }
            Err(error) => Entry { sent, done, status: 0, version: None, user, error: Some(error) },
        };
        self.inner.log.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        self.inner.under_way.fetch_sub(1, Ordering::Relaxed);
    }

    /// Since the traffic began.
    pub(crate) fn now(&self) -> Duration {
        self.inner.begin.elapsed()
    }

    /// Requests that the machine was too slow to send.
    pub(crate) fn not_sent(&self) -> u64 {
        self.inner.late.load(Ordering::Relaxed)
    }

    /// Sends no more, and waits for the answers that are still due.
    pub(crate) async fn end(&self) {
        self.inner.stop.store(true, Ordering::Relaxed);
        while self.inner.under_way.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The log so far.
    pub(crate) fn log(&self) -> Vec<Entry> {
        self.inner.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers by version of requests sent from `from` on.
    pub(crate) fn counts_since(&self, from: Duration) -> BTreeMap<String, u64> {
        let log = self.inner.log.lock().unwrap_or_else(PoisonError::into_inner);
        count(log.iter().filter(|e| e.sent >= from))
    }

    /// Waits until `many` requests that were sent from `from` on are answered by some version.
    pub(crate) async fn measure(&self, from: Duration, many: u64) -> BTreeMap<String, u64> {
        loop {
            let counts = self.counts_since(from);
            if counts.values().sum::<u64>() >= many {
                return counts;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Answers by version.
pub(crate) fn count<'a>(entries: impl Iterator<Item = &'a Entry>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for version in entries.filter_map(|e| e.version.clone()) {
        *counts.entry(version).or_insert(0) += 1;
    }
    counts
}

/// Different users among entries.
pub(crate) fn users<'a>(entries: impl Iterator<Item = &'a Entry>) -> u64 {
    entries.map(|e| e.user).collect::<BTreeSet<u32>>().len() as u64
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
