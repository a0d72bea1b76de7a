//! Prometheus as a source, against a small one that stores what it is told and answers the questions that are asked of it.
//!
//! What a scrape would store is written by hand, so that every count is known exactly. A real one answers in `tests/e2e`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use regex::Regex;
use serde_json::{Value, json};
use serin_controller::{Clock, CountersQuery, Cursor, MetricSource, Prometheus, PrometheusOptions};
use serin_core::observe::{Reading, SourceProblem};
use serin_core::stats::Batch;

use crate::source::query;

type Labels = BTreeMap<String, String>;

/// Series with samples, in seconds.
#[derive(Default)]
struct Stored {
    series: BTreeMap<Labels, Vec<(f64, f64)>>,
    now: f64,
    /// An answer instead of all others: status and body.
    instead: Option<(u16, Value)>,
    /// Headers of the last question.
    headers: BTreeMap<String, String>,
    questions: Vec<String>,
    /// Takes questions and never answers.
    silent: bool,
}

#[derive(Clone)]
struct Fake {
    stored: Arc<Mutex<Stored>>,
    url: String,
}

const BEGIN: f64 = 1_700_000_000.0;

impl Fake {
    async fn start() -> Self {
        Self::serve("http", None).await
    }

    async fn serve(scheme: &str, tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("{scheme}://{}/prom", listener.local_addr().expect("an address"));
        let stored = Arc::new(Mutex::new(Stored { now: BEGIN, ..Stored::default() }));
        let fake = Self { stored: stored.clone(), url };
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (stored, tls) = (stored.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => stored_answers(stored, stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                stored_answers(stored, stream).await;
                            }
                        }
                    }
                });
            }
        });
        fake
    }

    fn source(&self, change: impl FnOnce(&mut PrometheusOptions)) -> Prometheus {
        let mut options =
            PrometheusOptions { delay: Duration::ZERO, timeout: Duration::from_secs(30), ..PrometheusOptions::new(&self.url) };
        change(&mut options);
        let stored = self.stored.clone();
        let clock: Clock =
            Arc::new(move || jiff::Timestamp::from_millisecond((stored.lock().expect("stored").now * 1000.0) as i64).expect("a time"));
        Prometheus::new(&options, clock).expect("options that can be used")
    }

    fn edit(&self, change: impl FnOnce(&mut Stored)) {
        change(&mut self.stored.lock().expect("stored"));
    }
}

/// Answers the questions of one connection.
async fn stored_answers(stored: Arc<Mutex<Stored>>, stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static) {
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let stored = stored.clone();
        async move {
            let headers = request.headers().iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap_or_default().to_owned())).collect();
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            let silent = stored.lock().expect("stored").silent;
            if silent {
                std::future::pending::<()>().await;
            }
            let mut stored = stored.lock().expect("stored");
            stored.headers = headers;
            let (status, answer) =
                if path == "/prom/api/v1/query" { stored.answer(&String::from_utf8_lossy(&body)) } else { (404, json!({})) };
            let response = http::Response::builder().status(status).body(Full::new(bytes::Bytes::from(answer.to_string())));
            Ok::<_, std::convert::Infallible>(response.expect("a response"))
        }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl Stored {
    /// Stores a value, at so many seconds after the beginning.
    fn put(&mut self, at: f64, metric: &str, labels: &[(&str, &str)], value: f64) {
        let mut all: Labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        all.insert("__name__".into(), metric.into());
        self.series.entry(all).or_default().push((BEGIN + at, value));
    }

    /// Stores what a scrape of one proxy finds: requests of each version and code.
    fn scrape(&mut self, at: f64, instance: &str, counts: &[(&str, &str, f64)]) {
        self.put(at, "up", &[("job", "envoy"), ("instance", instance)], 1.0);
        for (version, code, n) in counts {
            let workload = format!("cart-{version}");
            let labels = labels(instance, &workload, &[("response_code", code), ("response_flags", "-")]);
            let labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            self.put(at, "istio_requests_total", &labels, *n);
        }
        self.now = self.now.max(BEGIN + at);
    }

    fn answer(&mut self, form: &str) -> (u16, Value) {
        let form: BTreeMap<String, String> =
            form.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), decoded(v))).collect();
        let query = form.get("query").cloned().unwrap_or_default();
        self.questions.push(query.clone());
        if let Some(instead) = &self.instead {
            return instead.clone();
        }
        let at: f64 = form.get("time").and_then(|t| t.parse().ok()).expect("a time");
        let success = |kind: &str, result: Value| (200, json!({"status": "success", "data": {"resultType": kind, "result": result}}));
        if let Some((selector, window)) = query.strip_suffix("s]").and_then(|q| q.rsplit_once('[')) {
            let window: f64 = window.parse().expect("a window");
            let inside = |samples: &Vec<(f64, f64)>| -> Vec<Value> {
                samples.iter().filter(|(t, _)| *t > at - window && *t <= at).map(|(t, v)| json!([t, v.to_string()])).collect()
            };
            let found = self.select(selector).into_iter().map(|(labels, samples)| (labels, inside(samples))).filter(|(_, s)| !s.is_empty());
            return success("matrix", found.map(|(labels, values)| json!({"metric": labels, "values": values})).collect());
        }
        let inner = |prefix: &str| {
            query
                .strip_prefix(prefix)
                .and_then(|q| q.strip_suffix(')'))
                .map(|s| s.strip_suffix(')').filter(|_| prefix.ends_with("(timestamp(")).unwrap_or(s).to_owned())
        };
        let newest = |samples: &Vec<(f64, f64)>| samples.iter().rev().find(|(t, _)| *t <= at && *t > at - 300.0).copied();
        if let Some(selector) = inner("max(timestamp(") {
            let newest =
                self.select(&selector).into_iter().filter_map(|(_, s)| newest(s)).map(|(t, _)| t).fold(f64::NEG_INFINITY, f64::max);
            return success(
                "vector",
                if newest.is_finite() { json!([{"metric": {}, "value": [at, newest.to_string()]}]) } else { json!([]) },
            );
        }
        if let Some(selector) = inner("sum(") {
            let values: Vec<f64> = self.select(&selector).into_iter().filter_map(|(_, s)| newest(s)).map(|(_, v)| v).collect();
            return success(
                "vector",
                if values.is_empty() { json!([]) } else { json!([{"metric": {}, "value": [at, values.iter().sum::<f64>().to_string()]}]) },
            );
        }
        if let Some(selector) = inner("group by (le) (") {
            let les: std::collections::BTreeSet<String> =
                self.select(&selector).into_iter().filter_map(|(l, _)| l.get("le").cloned()).collect();
            return success("vector", les.iter().map(|le| json!({"metric": {"le": le}, "value": [at, "1"]})).collect());
        }
        (400, json!({"status": "error", "errorType": "bad_data", "error": format!("this one does not know {query}")}))
    }

    fn select(&self, selector: &str) -> Vec<(&Labels, &Vec<(f64, f64)>)> {
        let (name, matchers) = selector.split_once('{').expect("a selector");
        let matchers = matchers.strip_suffix('}').expect("a selector");
        let pattern = Regex::new(r#"([a-z_A-Z]+)(=~|!~|=)"((?:[^"\\]|\\.)*)",?"#).expect("a pattern");
        let mut tests: Vec<(String, String, String)> =
            pattern.captures_iter(matchers).map(|c| (c[1].to_owned(), c[2].to_owned(), unquoted(&c[3]))).collect();
        if !name.is_empty() {
            tests.push(("__name__".into(), "=".into(), name.into()));
        }
        let fits = |labels: &Labels| {
            tests.iter().all(|(name, op, wanted)| {
                let value = labels.get(name).map_or("", String::as_str);
                let matches = || Regex::new(&format!("^(?s:{wanted})$")).expect("a pattern").is_match(value);
                match op.as_str() {
                    "=" => value == wanted,
                    "=~" => matches(),
                    _ => !matches(),
                }
            })
        };
        self.series.iter().filter(|(labels, _)| fits(labels)).collect()
    }
}

fn labels(instance: &str, workload: &str, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let fixed = [
        ("job", "envoy"),
        ("instance", instance),
        ("reporter", "source"),
        ("request_protocol", "http"),
        ("destination_workload", workload),
        ("destination_workload_namespace", "shop"),
        ("destination_service", "cart.shop.svc.cluster.local"),
        ("destination_service_name", "cart"),
    ];
    fixed.iter().chain(more).map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

fn unquoted(text: &str) -> String {
    text.replace(r"\\", "\u{1}").replace("\\\"", "\"").replace(r"\n", "\n").replace('\u{1}', r"\")
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut i = 0;
    while i < bytes.len() {
        if bytes[i] == b'%' {
            out.push(u8::from_str_radix(&text[i + 1..i + 3], 16).expect("hexadecimal"));
            i += 3;
        } else {
            out.push(bytes[i]);
            i += 1;
        }
    }
    String::from_utf8(out).expect("text")
}

async fn poll(source: &Prometheus, cursor: &mut Option<Cursor>) -> Result<Reading, SourceProblem> {
    poll_edges(source, cursor, &[]).await
}

async fn poll_edges(source: &Prometheus, cursor: &mut Option<Cursor>, edges: &[f64]) -> Result<Reading, SourceProblem> {
    let (reading, next) = source.poll(query(edges), cursor.clone()).await?;
    *cursor = Some(next);
    Ok(reading)
}

fn missing(result: Result<Reading, SourceProblem>) -> String {
    match result {
        Err(SourceProblem::Missing { what }) => what,
        other => panic!("not missing: {other:?}"),
    }
}

fn unreachable(result: Result<Reading, SourceProblem>) -> String {
    match result {
        Err(SourceProblem::Unreachable { what }) => what,
        other => panic!("not unreachable: {other:?}"),
    }
}

#[tokio::test]
async fn readings_add_up_to_what_was_served_however_scrapes_and_polls_fall() {
    let fake = Fake::start().await;
    let source = fake.source(|_| {});
    // Scraped every 15 s and asked every 10 s: v1 serves 90 a scrape, v2 10 with one failure.
    let mut cursor = None;
    let (mut sums, mut histories) = ([0.0; 4], Vec::new());
    let mut scraped = 0;
    for second in (0..=600).step_by(5) {
        let at = f64::from(second);
        if second % 15 == 0 {
            scraped += 1;
            let k = f64::from(scraped);
            fake.edit(|s| s.scrape(at, "10.0.0.1:15020", &[("v1", "200", 90.0 * k), ("v2", "200", 9.0 * k), ("v2", "503", k)]));
        }
        fake.edit(|s| s.now = BEGIN + at);
        if second % 10 == 0 {
            let reading = poll(&source, &mut cursor).await.expect("a reading");
            if !reading.history.is_empty() {
                histories.push(reading.history.len());
            }
            for (sum, x) in sums.iter_mut().zip([reading.stable.n, reading.stable.errors, reading.canary.n, reading.canary.errors]) {
                *sum += x;
            }
        }
    }
    // All but the first scrape, which was there before the first reading.
    let k = f64::from(scraped - 1);
    assert_eq!(sums, [90.0 * k, 0.0, 10.0 * k, k]);
    assert!(histories.len() <= 1, "the past is told once");
}

#[tokio::test]
async fn the_past_of_stable_comes_with_the_first_reading() {
    let fake = Fake::start().await;
    for k in 0..40 {
        fake.edit(|s| s.scrape(10.0 * f64::from(k), "a", &[("v1", "200", 50.0 * f64::from(k)), ("v1", "500", f64::from(k))]));
    }
    let reading = poll(&fake.source(|_| {}), &mut None).await.expect("a reading");
    let (n, errors) = reading.history.iter().fold((0.0, 0.0), |(n, x), h| (n + h.n, x + h.errors));
    assert_eq!((n, errors), (39.0 * 51.0, 39.0));
    assert_eq!(reading.history.last().map(|h| h.n), Some(51.0));
    assert_eq!((reading.stable.n, reading.from), (0.0, reading.to));
}

#[tokio::test]
async fn restarts_new_pods_and_new_series_are_counted_once() {
    let fake = Fake::start().await;
    let source = fake.source(|_| {});
    fake.edit(|s| s.scrape(0.0, "a", &[("v1", "200", 1000.0), ("v2", "200", 100.0)]));
    let mut cursor = None;
    poll(&source, &mut cursor).await.expect("a reading");
    fake.edit(|s| {
        // `a` began anew; a failure shows for the first time; `b` is a new pod; `c` was there all along and is found only now.
        s.scrape(10.0, "a", &[("v1", "200", 40.0), ("v2", "200", 103.0), ("v2", "500", 2.0)]);
        s.scrape(10.0, "b", &[("v2", "200", 7.0)]);
        let labels = labels("c", "cart-v2", &[("response_code", "200")]);
        let labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        s.put(10.0, "istio_requests_total", &labels, 5000.0);
    });
    let reading = poll(&source, &mut cursor).await.expect("a reading");
    assert_eq!((reading.stable.n, reading.canary.n, reading.canary.errors), (40.0, 3.0 + 2.0 + 7.0, 2.0));
}

#[tokio::test]
async fn what_was_counted_while_nobody_could_read_comes_later_and_once() {
    let fake = Fake::start().await;
    let source = fake.source(|_| {});
    fake.edit(|s| s.scrape(0.0, "a", &[("v2", "200", 0.0)]));
    let mut cursor = None;
    poll(&source, &mut cursor).await.expect("a reading");
    fake.edit(|s| s.instead = Some((503, json!("gone"))));
    assert!(unreachable(poll(&source, &mut cursor).await).contains("503"));
    fake.edit(|s| {
        s.instead = None;
        s.scrape(10.0, "a", &[("v2", "200", 30.0)]);
        s.scrape(900.0, "a", &[("v2", "200", 80.0)]);
    });
    assert_eq!(poll(&source, &mut cursor).await.expect("a reading").canary.n, 80.0);
    assert_eq!(poll(&source, &mut cursor).await.expect("a reading").canary.n, 0.0);
}

#[tokio::test]
async fn replicas_of_one_prometheus_count_once() {
    let fake = Fake::start().await;
    let source = fake.source(|_| {});
    for (at, n) in [(0.0, 10.0), (10.0, 25.0)] {
        for replica in ["a", "b"] {
            fake.edit(|s| {
                let labels = labels("p", "cart-v2", &[("response_code", "200"), ("response_flags", "-"), ("prometheus_replica", replica)]);
                let labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                s.put(at, "istio_requests_total", &labels, n);
                s.now = BEGIN + at;
            });
        }
        if at == 0.0 {
            continue;
        }
    }
    fake.edit(|s| s.now = BEGIN);
    let mut cursor = None;
    poll(&source, &mut cursor).await.expect("a reading");
    fake.edit(|s| s.now = BEGIN + 10.0);
    assert_eq!(poll(&source, &mut cursor).await.expect("a reading").canary.n, 15.0);
}

#[tokio::test]
async fn data_that_nobody_renews_is_stale_and_no_data_is_missing() {
    let fake = Fake::start().await;
    let source = fake.source(|_| {});
    assert!(missing(poll(&source, &mut None).await).contains("has no istio_requests_total"));
    for k in 0..5 {
        fake.edit(|s| s.scrape(10.0 * f64::from(k), "a", &[("v1", "200", 10.0)]));
    }
    let mut cursor = None;
    poll(&source, &mut cursor).await.expect("a reading");
    fake.edit(|s| s.now = BEGIN + 40.0 + 31.0);
    assert_eq!(poll(&source, &mut cursor).await, Err(SourceProblem::Stale { age_s: 31 }));
}

#[tokio::test]
async fn a_service_that_nobody_calls_is_no_fault_of_the_source() {
    let fake = Fake::start().await;
    let source = fake.source(|_| {});
    fake.edit(|s| {
        let others: Vec<(String, String)> = labels("a", "web", &[]).into_iter().map(|(n, v)| (n, v.replace("cart", "web"))).collect();
        let others: Vec<(&str, &str)> = others.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        s.put(0.0, "istio_requests_total", &others, 10.0);
    });
    let mut cursor = None;
    poll(&source, &mut cursor).await.expect("a reading");
    fake.edit(|s| s.now = BEGIN + 5.0);
    let reading = poll(&source, &mut cursor).await.expect("a reading");
    assert_eq!((reading.stable.n, reading.canary.n), (0.0, 0.0));
}

#[tokio::test]
async fn labels_that_the_mesh_drops_are_said() {
    let fake = Fake::start().await;
    fake.edit(|s| {
        s.put(0.0, "istio_requests_total", &[("reporter", "source"), ("destination_service", "cart.shop.svc.cluster.local")], 10.0)
    });
    assert!(missing(poll(&fake.source(|_| {}), &mut None).await).contains("destination_workload"));
}

#[tokio::test]
async fn slow_requests_are_read_by_edge_and_a_missing_edge_is_said() {
    let fake = Fake::start().await;
    let source = fake.source(|_| {});
    let write = |at: f64, fast: f64, all: f64| {
        fake.edit(|s| {
            s.scrape(at, "a", &[("v2", "200", all)]);
            for (metric, le, n) in [("bucket", "250", fast / 2.0), ("bucket", "500.0", fast), ("bucket", "+Inf", all), ("count", "", all)] {
                let more: &[(&str, &str)] = if le.is_empty() { &[] } else { &[("le", le)] };
                let labels = labels("a", "cart-v2", more);
                let labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                s.put(at, &format!("istio_request_duration_milliseconds_{metric}"), &labels, n);
            }
        });
    };
    write(0.0, 90.0, 100.0);
    let mut cursor = None;
    poll_edges(&source, &mut cursor, &[500.0]).await.expect("a reading");
    write(10.0, 170.0, 200.0);
    let reading = poll_edges(&source, &mut cursor, &[500.0]).await.expect("a reading");
    assert_eq!((reading.canary.n, reading.canary.slower_than(500.0)), (100.0, Some(20.0)));
    let what = missing(poll_edges(&source, &mut cursor, &[300.0]).await);
    assert!(what.contains("no edge at 300 ms") && what.contains("250, 500"), "{what}");
}

/// Stores what one proxy timed: requests at or under each edge.
fn timed(fake: &Fake, at: f64, version: &str, within: &[(&str, f64)]) {
    fake.edit(|s| {
        for (le, n) in within {
            let labels = labels("a", &format!("cart-{version}"), &[("le", le)]);
            let labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            s.put(at, "istio_request_duration_milliseconds_bucket", &labels, *n);
        }
        let all = within.last().expect("+Inf").1;
        let labels = labels("a", &format!("cart-{version}"), &[]);
        let labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        s.put(at, "istio_request_duration_milliseconds_count", &labels, all);
        s.scrape(at, "a", &[(version, "200", all)]);
    });
}

#[tokio::test]
async fn a_quantile_is_learnt_from_every_edge_that_both_versions_have() {
    let fake = Fake::start().await;
    let source = fake.source(|_| {});
    for (at, n) in [(0.0, 100.0), (10.0, 200.0)] {
        timed(&fake, at, "v1", &[("100", n * 0.5), ("250", n * 0.9), ("500", n * 0.99), ("+Inf", n)]);
        timed(&fake, at, "v2", &[("100", n * 0.4), ("500", n * 0.9), ("+Inf", n)]);
    }
    let asked = || serin_controller::ArmQuery { all_edges: true, ..query(&[]) };
    let (first, cursor) = source.poll(asked(), None).await.expect("a reading");
    assert_eq!(first.history.iter().map(|a| a.slower.iter().map(|(e, _)| *e).collect::<Vec<_>>()).next(), Some(vec![100.0, 500.0]));
    timed(&fake, 20.0, "v1", &[("100", 150.0), ("250", 270.0), ("500", 297.0), ("+Inf", 300.0)]);
    timed(&fake, 20.0, "v2", &[("100", 120.0), ("500", 270.0), ("+Inf", 300.0)]);
    let (reading, _) = source.poll(asked(), Some(cursor)).await.expect("a reading");
    assert_eq!(reading.stable.slower, [(100.0, 50.0), (500.0, 1.0)], "250 ms is not among the canary's edges");
    assert_eq!(reading.canary.slower, [(100.0, 60.0), (500.0, 10.0)]);
}

#[tokio::test]
async fn queries_are_asked_with_each_reading_and_must_have_one_answer() {
    let fake = Fake::start().await;
    let source = fake.source(|_| {});
    let asked = |promql: &str| serin_controller::ArmQuery { limits: vec![("orders".into(), promql.into())], ..query(&[]) };
    fake.edit(|s| s.scrape(0.0, "a", &[("v1", "200", 100.0)]));
    // What cannot be answered is said before the first step.
    let what = missing(source.poll(asked("sm(orders{})"), None).await.map(|(r, _)| r));
    assert!(what.contains("metric orders") && what.contains("this one does not know sm(orders{})"), "{what}");
    let sum = r#"sum(orders{w="cart-v2"})"#;
    let (_, cursor) = source.poll(asked(sum), None).await.expect("no answer is no fault of the query");
    fake.edit(|s| {
        s.put(5.0, "orders", &[("w", "cart-v2"), ("pod", "a")], 3.0);
        s.put(5.0, "orders", &[("w", "cart-v2"), ("pod", "b")], 4.5);
        s.scrape(10.0, "a", &[("v1", "200", 150.0)]);
    });
    let (reading, cursor) = source.poll(asked(sum), Some(cursor)).await.expect("a reading");
    assert_eq!((reading.answers.as_slice(), reading.stable.n), ([Some(7.5)].as_slice(), 50.0));
    // Later, a query that fails is no answer, and the requests are counted all the same.
    fake.edit(|s| s.scrape(20.0, "a", &[("v1", "200", 180.0)]));
    let (reading, _) = source.poll(asked("sm(orders{})"), Some(cursor)).await.expect("a reading");
    assert_eq!((reading.answers.as_slice(), reading.stable.n), ([None].as_slice(), 30.0));
    // Many answers are not one number.
    fake.edit(|s| {
        for le in ["1", "5"] {
            s.put(20.0, "timed", &[("le", le)], 1.0);
        }
    });
    let what = missing(source.poll(asked("group by (le) (timed{})"), None).await.map(|(r, _)| r));
    assert!(what.contains("metric orders: its query has 2 answers") && what.contains("sum("), "{what}");
}

/// Counters of the service's own are read raw, of each arm: a pod that is new counts from zero, one that began anew loses nothing.
#[tokio::test]
async fn pairs_of_counters_are_read_of_both_arms_sample_by_sample() {
    let fake = Fake::start().await;
    let source = fake.source(|_| {});
    let of = |workload: &str, total: &str| (format!(r#"lost{{w="{workload}"}}"#), format!(r#"{total}{{w="{workload}"}}"#));
    let asked = |total: &str| {
        let counters = CountersQuery { name: "orders".into(), stable: of("cart-v1", total), canary: of("cart-v2", total) };
        serin_controller::ArmQuery { counters: vec![counters], ..query(&[]) }
    };
    let put = |at: f64, workload: &str, pod: &str, lost: f64, all: f64| {
        fake.edit(|s| {
            let labels = [("w", workload), ("job", "app"), ("instance", pod)];
            s.put(at, "lost", &labels, lost);
            s.put(at, "orders", &labels, all);
            s.put(at, "up", &[("job", "app"), ("instance", pod)], 1.0);
        });
    };
    fake.edit(|s| s.scrape(0.0, "a", &[("v1", "200", 100.0)]));
    put(0.0, "cart-v1", "one", 10.0, 1000.0);
    // What nobody exports is said before the first step.
    let what = missing(source.poll(asked("odrers"), None).await.map(|(r, _)| r));
    assert!(what.contains("metric orders") && what.contains(r#"no series odrers{w="cart-v1"}"#), "{what}");
    let (first, cursor) = source.poll(asked("orders"), None).await.expect("a reading");
    assert!(first.counted.iter().all(Option::is_none), "{:?}", first.counted);
    fake.edit(|s| s.scrape(10.0, "a", &[("v1", "200", 150.0)]));
    put(10.0, "cart-v1", "one", 12.0, 1100.0);
    put(10.0, "cart-v2", "two", 3.0, 20.0);
    let (reading, cursor) = source.poll(asked("orders"), Some(cursor)).await.expect("a reading");
    assert_eq!(reading.counted, [Some(Batch::new(20.0, 3.0, 100.0, 2.0))]);
    fake.edit(|s| s.scrape(20.0, "a", &[("v1", "200", 180.0)]));
    put(20.0, "cart-v1", "one", 1.0, 30.0);
    put(20.0, "cart-v2", "two", 4.0, 50.0);
    let (reading, _) = source.poll(asked("orders"), Some(cursor)).await.expect("a reading");
    assert_eq!(reading.counted, [Some(Batch::new(30.0, 1.0, 30.0, 1.0))]);
}

#[tokio::test]
async fn requests_that_reached_nobody_are_counted_by_their_flag() {
    let fake = Fake::start().await;
    let source = fake.source(|_| {});
    let lost = |at: f64, uh: f64, nc: f64| {
        fake.edit(|s| {
            s.scrape(at, "a", &[("v1", "200", 10.0)]);
            for (flag, n) in [("UH", uh), ("NC", nc)] {
                let labels = [
                    ("job", "envoy"),
                    ("instance", "a"),
                    ("reporter", "source"),
                    ("destination_workload", "unknown"),
                    ("destination_service", "cart.shop.svc.cluster.local"),
                    ("response_flags", flag),
                    ("response_code", "503"),
                ];
                s.put(at, "istio_requests_total", &labels, n);
            }
        });
    };
    lost(0.0, 1.0, 0.0);
    let mut cursor = None;
    poll(&source, &mut cursor).await.expect("a reading");
    lost(10.0, 6.0, 4.0);
    let reading = poll(&source, &mut cursor).await.expect("a reading");
    assert_eq!((reading.no_healthy_upstream, reading.no_cluster, reading.stable.n), (5.0, 4.0, 0.0));
}

#[tokio::test]
async fn token_and_tenant_are_shown_and_never_told() {
    let fake = Fake::start().await;
    let file = std::env::temp_dir().join(format!("serin-token-{}", std::process::id()));
    std::fs::write(&file, "s3cret\n").expect("a file");
    let source = fake.source(|o| {
        o.token_file = Some(file.clone());
        o.headers = vec![("X-Scope-OrgID".into(), "shop".into())];
    });
    fake.edit(|s| s.scrape(0.0, "a", &[("v1", "200", 1.0)]));
    poll(&source, &mut None).await.expect("a reading");
    fake.edit(|s| assert_eq!((s.headers["authorization"].as_str(), s.headers["x-scope-orgid"].as_str()), ("Bearer s3cret", "shop")));
    fake.edit(|s| s.instead = Some((401, json!({"status": "error", "errorType": "auth", "error": "who are you"}))));
    let what = unreachable(poll(&source, &mut None).await);
    assert!(what.contains("401") && what.contains("who are you") && !what.contains("s3cret"), "{what}");
    std::fs::remove_file(file).expect("removes");
}

#[tokio::test]
async fn half_an_answer_is_none() {
    let fake = Fake::start().await;
    fake.edit(|s| {
        s.instead = Some((
            200,
            json!({"status": "success", "warnings": ["1 store did not answer"], "data": {"resultType": "matrix", "result": []}}),
        ))
    });
    assert!(unreachable(poll(&fake.source(|_| {}), &mut None).await).contains("did not answer"));
    for odd in [
        json!("text"),
        json!({"status": "success"}),
        json!({"status": "success", "data": {"resultType": "scalar", "result": [1, "2"]}}),
        json!([]),
    ] {
        fake.edit(|s| s.instead = Some((200, odd.clone())));
        assert!(poll(&fake.source(|_| {}), &mut None).await.is_err(), "{odd}");
    }
}

#[test]
fn options_that_cannot_be_used_are_said() {
    let clock: Clock = Arc::new(|| jiff::Timestamp::UNIX_EPOCH);
    for url in ["", "prometheus:9090", "ftp://x", "http://"] {
        let error = Prometheus::new(&PrometheusOptions::new(url), clock.clone()).err().expect("an error").to_string();
        assert!(error.contains("http://prometheus.monitoring:9090"), "{error}");
    }
    let ca = PrometheusOptions { ca: Some(b"no certificate".to_vec()), ..PrometheusOptions::new("https://x") };
    assert!(Prometheus::new(&ca, clock).is_err());
}

/// Certificates of a server, a client, and whoever vouches for both.
struct Papers {
    ca: String,
    server: tokio_rustls::rustls::ServerConfig,
    client: (Vec<u8>, Vec<u8>),
}

/// A server that is asked by whoever shows a certificate of its CA, or by anybody.
fn papers(wants_client: bool) -> Papers {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio_rustls::rustls::server::WebPkiClientVerifier;
    use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto};

    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::<String>::new()).expect("parameters");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).expect("a certificate");
    let issuer = Issuer::new(ca, ca_key);
    let leaf = |name: &str, usage: ExtendedKeyUsagePurpose| {
        let key = KeyPair::generate().expect("a key");
        let mut leaf = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        leaf.extended_key_usages = vec![usage];
        let certificate = leaf.signed_by(&key, &issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    };
    let (certificate, key) = leaf("127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth);
    let client = leaf("serin", ExtendedKeyUsagePurpose::ClientAuth);
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().expect("versions");
    let builder = if wants_client {
        let mut roots = RootCertStore::empty();
        roots.add(ca_certificate.der().clone()).expect("a root");
        builder
            .with_client_cert_verifier(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().expect("a verifier"))
    } else {
        builder.with_no_client_auth()
    };
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate")];
    let server = builder.with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key")).expect("a server");
    Papers { ca: ca_certificate.pem(), server, client: (client.0.into_bytes(), client.1.into_bytes()) }
}

#[tokio::test]
async fn a_server_is_trusted_by_the_ca_that_is_given_and_by_no_other() {
    let papers = papers(false);
    let fake = Fake::serve("https", Some(Arc::new(papers.server).into())).await;
    fake.edit(|s| s.scrape(0.0, "a", &[("v1", "200", 1.0)]));
    poll(&fake.source(|o| o.ca = Some(papers.ca.clone().into_bytes())), &mut None).await.expect("a reading");
    let other = self::papers(false).ca.into_bytes();
    let what = unreachable(poll(&fake.source(|o| o.ca = Some(other)), &mut None).await);
    assert!(what.contains("certificate"), "{what}");
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_is_shown_one() {
    let papers = papers(true);
    let fake = Fake::serve("https", Some(Arc::new(papers.server).into())).await;
    fake.edit(|s| s.scrape(0.0, "a", &[("v1", "200", 1.0)]));
    let trusting = |o: &mut PrometheusOptions| o.ca = Some(papers.ca.clone().into_bytes());
    unreachable(poll(&fake.source(trusting), &mut None).await);
    let shown = fake.source(|o| {
        trusting(o);
        o.identity = Some(papers.client.clone());
    });
    poll(&shown, &mut None).await.expect("a reading");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_silent_is_given_up_after_two_intervals() {
    let fake = Fake::start().await;
    fake.edit(|s| s.silent = true);
    let begin = tokio::time::Instant::now();
    let what = unreachable(poll(&fake.source(|_| {}), &mut None).await);
    assert!(what.contains("no answer within 20 s") && what.contains(&fake.url), "{what}");
    assert_eq!(begin.elapsed().as_secs(), 20);
    unreachable(poll(&fake.source(|o| o.timeout = Duration::from_secs(3)), &mut None).await);
    assert_eq!(begin.elapsed().as_secs(), 23, "the configuration's own timeout is shorter");
}

#[tokio::test]
async fn labels_without_which_failures_pass_unseen_are_asked_for_before_anything_moves() {
    for lacking in ["response_code", "request_protocol", "response_flags"] {
        let fake = Fake::start().await;
        fake.edit(|s| {
            let all = labels("a", "cart-v1", &[("response_code", "200"), ("response_flags", "-")]);
            let rest: Vec<(&str, &str)> = all.iter().filter(|(n, _)| n != lacking).map(|(n, v)| (n.as_str(), v.as_str())).collect();
            s.put(0.0, "istio_requests_total", &rest, 10.0);
        });
        let what = missing(poll(&fake.source(|_| {}), &mut None).await);
        assert!(what.contains(&format!("no label {lacking}")), "{what}");
    }
}
