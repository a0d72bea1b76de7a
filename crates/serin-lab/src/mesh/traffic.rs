//! Callers: a steady rate of requests through the lab's Envoy, every answer recorded.
//!
//! Open loop: a slow answer delays no other request. Bounded in rate, time and number, and stops by itself. Each request that
//! was begun has an outcome in the record, also when it was cut off.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// So many requests may be under way at once; above it callers wait, and the record shows the lower rate.
const MOST_UNDER_WAY: usize = 512;
/// No lab run needs more; a forgotten one ends by itself.
pub const LONGEST: Duration = Duration::from_secs(24 * 3600);
const TIMEOUT: Duration = Duration::from_secs(30);

/// What callers do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where they call.
    pub target: SocketAddr,
    /// The Host header: `my-app`.
    pub host: String,
    /// The path: `/`.
    pub path: String,
    /// Requests per second.
    pub rate: f64,
    /// How many users there are; each request is one user's, told by the header `x-user`.
    pub users: u32,
    /// Draws the users.
    pub seed: u64,
    /// Stops after so long.
    pub time: Duration,
    /// Stops after so many requests.
    pub requests: Option<u64>,
    /// Where each outcome is written as a line of JSON.
    pub log: Option<PathBuf>,
}

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An HTTP status.
    Status(u16),
    /// No answer: the connection failed, or nothing came within 30 s.
    None,
}

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// When it was begun, since the start.
    pub at: Duration,
    /// How long it took.
    pub took: Duration,
    /// What came.
    pub answer: Answer,
    /// The version that answered, by its header `x-version`; `None` where none said so.
    pub version: Option<Arc<str>>,
    /// Whose it was.
    pub user: u32,
}

impl Sample {
    /// Whether the caller got no good answer: none, or a 5xx.
    pub fn failed(&self) -> bool {
        match self.answer {
            Answer::Status(status) => status >= 500,
            Answer::None => true,
        }
    }
}

/// What became of every request that was begun.
#[derive(Default)]
struct Record {
    /// Those that ended, in that order.
    samples: Vec<Sample>,
    /// Those that did not yet, by their number: when they were begun.
    under_way: BTreeMap<u64, Duration>,
}

/// Callers at work; clones share the record.
#[derive(Clone)]
pub struct Traffic {
    record: Arc<Mutex<Record>>,
    rate: Arc<watch::Sender<f64>>,
    started: Instant,
    stop: CancellationToken,
    ended: watch::Receiver<bool>,
}

impl Traffic {
    /// Starts calling. Ends when the plan's time or number is over, or `stop` is called.
    pub fn start(plan: Plan) -> Self {
        let (ended_out, ended) = watch::channel(false);
        let traffic = Self {
            record: Arc::default(),
            rate: Arc::new(watch::channel(plan.rate).0),
            started: Instant::now(),
            stop: CancellationToken::new(),
            ended,
        };
        let callers = traffic.clone();
        tokio::spawn(async move {
            callers.call(plan).await;
            ended_out.send_replace(true);
        });
        traffic
    }

    /// Changes the rate, in requests per second, from now on.
    pub fn set_rate(&self, rate: f64) {
        self.rate.send_replace(rate);
    }

    /// Ends, after the requests that are under way.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.finished().await;
    }

    /// Waits for the plan's end.
    pub async fn finished(&self) {
        // The sender is gone only after it said so.
        let _ = self.ended.clone().wait_for(|e| *e).await;
    }

    /// Time since the start.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The outcomes so far of requests begun in `[from, to)`, in the order in which they ended.
    pub fn between(&self, from: Duration, to: Duration) -> Vec<Sample> {
        self.lock().samples.iter().filter(|s| s.at >= from && s.at < to).cloned().collect()
    }

    /// Waits until every request begun before `to` has ended, at most 30 s after it was begun. Whoever compares versions must: a
    /// version that answers slowly is under-counted among the answers that happen to be there.
    pub async fn settled(&self, to: Duration) {
        while self.lock().under_way.values().any(|at| *at < to) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All outcomes so far.
    pub fn all(&self) -> Vec<Sample> {
        self.between(Duration::ZERO, Duration::MAX)
    }

    async fn call(&self, plan: Plan) {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client: Client<HttpConnector, Empty<Bytes>> =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(MOST_UNDER_WAY).build(connector);
        let under_way = Arc::new(Semaphore::new(MOST_UNDER_WAY));
        let mut log = plan.log.as_ref().and_then(|p| std::fs::File::create(p).ok()).map(std::io::BufWriter::new);
        let mut requests = JoinSet::new();
        let mut rate = self.rate.subscribe();
        let mut random = plan.seed;
        let mut begun = 0u64;
        let mut next = Instant::now();
        let end = self.started + plan.time.min(LONGEST);
        loop {
            while let Some(done) = requests.try_join_next() {
                self.record(done, log.as_mut());
            }
            let per_second = *rate.borrow_and_update();
            if plan.requests.is_some_and(|most| begun >= most) {
                break;
            }
            let wait_until = if per_second > 0.0 { next } else { Instant::now() + Duration::from_millis(50) };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                () = tokio::time::sleep_until(end) => break,
                changed = rate.changed() => {
                    if changed.is_ok() {
                        next = Instant::now();
                    }
                    continue;
                }
                () = tokio::time::sleep_until(wait_until) => {}
            }
            if per_second <= 0.0 {
                next = Instant::now();
                continue;
            }
            // A machine that was asleep does not make up for it with a burst.
            next = next.max(Instant::now() - Duration::from_millis(200)) + Duration::from_secs_f64(1.0 / per_second);
            let Ok(permit) = under_way.clone().acquire_owned().await else { break };
            begun += 1;
            let user = if plan.users == 0 { 0 } else { u32::try_from(draw(&mut random) % u64::from(plan.users)).unwrap_or(0) };
            let (client, plan, at, number) = (client.clone(), plan.clone(), self.now(), begun);
            self.lock().under_way.insert(number, at);
            requests.spawn(async move {
                let sample = one(&client, &plan, at, user).await;
                drop(permit);
                (number, sample)
            });
        }
        while let Some(done) = requests.join_next().await {
            self.record(done, log.as_mut());
        }
        if let Some(mut log) = log
            && let Err(error) = log.flush()
        {
            tracing::warn!(%error, "the log of requests");
        }
    }

    fn record(&self, done: Result<(u64, Sample), tokio::task::JoinError>, log: Option<&mut std::io::BufWriter<std::fs::File>>) {
        let Ok((number, sample)) = done else { return };
        if let Some(log) = log {
            let status = match sample.answer {
                Answer::Status(status) => status,
                Answer::None => 0,
            };
            let line = serde_json::json!({
                "at_ms": sample.at.as_secs_f64() * 1e3, "took_ms": sample.took.as_secs_f64() * 1e3, "status": status,
                "version": sample.version.as_deref(), "user": sample.user,
            });
            if let Err(error) = writeln!(log, "{line}") {
                tracing::warn!(%error, "the log of requests");
            }
        }
        let mut record = self.lock();
        record.under_way.remove(&number);
        record.samples.push(sample);
    }
}

async fn one(client: &Client<HttpConnector, Empty<Bytes>>, plan: &Plan, at: Duration, user: u32) -> Sample {
    let begun = Instant::now();
    let uri = format!("http://{}{}", plan.target, plan.path);
    let request = http::Request::get(uri).header("host", &plan.host).header("x-user", user.to_string()).body(Empty::new());
    let mut sample = Sample { at, took: Duration::ZERO, answer: Answer::None, version: None, user };
    if let Ok(request) = request {
        let exchange = async {
            let response = client.request(request).await.ok()?;
            let status = response.status().as_u16();
            let version = response.headers().get("x-version").and_then(|v| v.to_str().ok()).map(Arc::from);
            response.into_body().collect().await.ok()?;
            Some((status, version))
        };
        if let Ok(Some((status, version))) = tokio::time::timeout(TIMEOUT, exchange).await {
            sample.answer = Answer::Status(status);
            sample.version = version;
        }
    }
    sample.took = begun.elapsed();
    sample
}

/// `SplitMix64` (Steele, Lea, Flood 2014): the same seed, the same users.
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
