//! The proxies' text and the increments made of it: tables of what happened to a counter, and properties that hold for all.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;
use serin_controller::observe::exposition::{Sample, samples};
use serin_controller::observe::increments::{Page, Snapshot, difference};
use serin_controller::{Arm, ArmQuery};
use serin_core::observe::{Reading, SourceProblem};
use serin_core::route::ServiceName;
use serin_core::units::{ObjectName, Timestamp, VersionName};

fn arm(version: &str) -> Arm {
    let workload = ObjectName { namespace: "shop".into(), name: format!("cart-{version}") };
    Arm { version: VersionName::new(version).expect("a version"), workload }
}

/// Stable `cart-v1` and canary `cart-v2` of Service `cart` in namespace `shop`.
pub(crate) fn query(edges: &[f64]) -> ArmQuery {
    ArmQuery {
        rollout: "r".into(),
        questions: String::new(),
        preparing: true,
        service: ServiceName::new("cart", "shop"),
        stable: arm("v1"),
        canary: arm("v2"),
        edges: edges.to_vec(),
        all_edges: false,
        limits: Vec::new(),
        counters: Vec::new(),
        interval: std::time::Duration::from_secs(10),
        source: serin_controller::SourceChoice::Usual,
    }
}

/// A line of a request counter, for a version of the service.
fn requests(version: &str, code: &str, n: f64) -> String {
    line("istio_requests_total", version, &format!(r#"response_code="{code}",response_flags="-""#), n)
}

fn line(metric: &str, version: &str, more: &str, n: f64) -> String {
    format!(
        r#"{metric}{{reporter="source",source_workload="web",destination_workload="cart-{version}",destination_workload_namespace="shop",destination_service="cart.shop.svc.cluster.local",destination_service_name="cart",destination_service_namespace="shop",{more}}} {n}"#
    )
}

/// Snapshots of one proxy, `a`, ten seconds apart, from its texts.
fn snapshots(texts: &[Vec<String>]) -> Vec<Snapshot> {
    let mut all: Vec<Snapshot> = Vec::new();
    for (i, lines) in texts.iter().enumerate() {
        let before = all.last().and_then(|s| s.pages.get("a")).cloned();
        let page = Page::read(&lines.join("\n"), None, before.as_deref());
        all.push(Snapshot { at: Timestamp(10_000 * i as i64), pages: HashMap::from([("a".to_owned(), Arc::new(page))]) });
    }
    all
}

fn between(before: Vec<String>, after: Vec<String>) -> Reading {
    let all = snapshots(&[before, after]);
    difference(&all[0], &all[1], &query(&[])).expect("a reading")
}

/// Requests and errors of stable and canary.
fn counts(r: &Reading) -> [f64; 4] {
    [r.stable.n, r.stable.errors, r.canary.n, r.canary.errors]
}

#[test]
fn increments_are_taken_series_by_series_before_they_are_summed() {
    let before = vec![requests("v1", "200", 1000.0), requests("v1", "503", 10.0), requests("v2", "200", 50.0)];
    let after = vec![requests("v1", "200", 1090.0), requests("v1", "503", 11.0), requests("v2", "200", 59.0), requests("v2", "500", 1.0)];
    assert_eq!(counts(&between(before, after)), [91.0, 1.0, 10.0, 1.0]);
}

#[test]
fn a_counter_that_begins_anew_counts_from_zero() {
    assert_eq!(counts(&between(vec![requests("v2", "200", 100.0)], vec![requests("v2", "200", 30.0)])), [0.0, 0.0, 30.0, 0.0]);
}

#[test]
fn a_series_that_vanished_adds_nothing() {
    let before = vec![requests("v1", "200", 100.0), requests("v2", "200", 100.0)];
    assert_eq!(counts(&between(before, vec![requests("v1", "200", 105.0)])), [5.0, 0.0, 0.0, 0.0]);
}

#[test]
fn only_the_callers_side_counts() {
    let destination = requests("v2", "200", 500.0).replace(r#"reporter="source""#, r#"reporter="destination""#);
    assert_eq!(counts(&between(vec![], vec![requests("v2", "200", 5.0), destination])), [0.0, 0.0, 5.0, 0.0]);
}

#[test]
fn a_proxy_that_is_new_counts_only_if_it_began_since() {
    let read = |started: Option<i64>| {
        let text = requests("v2", "200", 40.0);
        let before = Snapshot { at: Timestamp(10_000), pages: HashMap::new() };
        let page = Page::read(&text, started.map(Timestamp), None);
        let after = Snapshot { at: Timestamp(20_000), pages: HashMap::from([("b".to_owned(), Arc::new(page))]) };
        difference(&before, &after, &query(&[])).expect("a reading").canary.n
    };
    assert_eq!([read(Some(12_000)), read(Some(3_000)), read(None)], [40.0, 0.0, 0.0]);
}

#[test]
fn a_proxy_that_was_silent_once_brings_its_requests_later() {
    let all = snapshots(&[vec![requests("v2", "200", 10.0)], vec![requests("v2", "200", 35.0)]]);
    // In between it did not answer, and kept its page.
    let silent = Snapshot { at: Timestamp(5_000), pages: all[0].pages.clone() };
    let q = query(&[]);
    assert_eq!(difference(&all[0], &silent, &q).expect("a reading").canary.n, 0.0);
    assert_eq!(difference(&silent, &all[1], &q).expect("a reading").canary.n, 25.0);
}

#[test]
fn a_failed_grpc_call_is_an_error_though_its_http_is_200() {
    let grpc = |status: &str, n: f64| {
        line(
            "istio_requests_total",
            "v2",
            &format!(r#"request_protocol="grpc",grpc_response_status="{status}",response_code="200",response_flags="-""#),
            n,
        )
    };
    assert_eq!(counts(&between(vec![], vec![grpc("0", 90.0), grpc("14", 7.0), grpc("2", 3.0)])), [0.0, 0.0, 100.0, 10.0]);
}

#[test]
fn requests_that_reached_nobody_are_told_apart_by_their_flag() {
    let lost = |flag: &str, service: &str, n: f64| {
        format!(
            r#"istio_requests_total{{reporter="source",destination_workload="unknown",destination_workload_namespace="unknown",destination_service="{service}.shop.svc.cluster.local",destination_service_name="{service}",destination_service_namespace="unknown",response_code="503",response_flags="{flag}"}} {n}"#
        )
    };
    let reading =
        between(vec![], vec![lost("UH", "cart", 4.0), lost("NC", "cart", 3.0), lost("UH", "cartoon", 9.0), lost("URX,UF", "cart", 5.0)]);
    assert_eq!((reading.no_healthy_upstream, reading.no_cluster), (4.0, 3.0));
    assert_eq!(counts(&reading), [0.0; 4]);

    // Without a cluster Istio knows the Host header alone, which callers of the namespace may write short.
    let short = |from: &str, n: f64| {
        format!(
            r#"istio_requests_total{{reporter="source",source_workload_namespace="{from}",destination_workload="unknown",destination_workload_namespace="unknown",destination_service="cart",destination_service_name="cart",destination_service_namespace="unknown",response_code="503",response_flags="NC"}} {n}"#
        )
    };
    assert_eq!(between(vec![], vec![short("shop", 2.0), short("elsewhere", 5.0)]).no_cluster, 2.0);
}

#[test]
fn calls_to_a_version_through_another_service_are_not_this_services_requests() {
    let other = requests("v2", "200", 70.0).replace(
        r#"destination_service="cart.shop.svc.cluster.local",destination_service_name="cart""#,
        r#"destination_service="admin.shop.svc.cluster.local",destination_service_name="admin""#,
    );
    assert_eq!(counts(&between(vec![], vec![other, requests("v2", "200", 2.0)])), [0.0, 0.0, 2.0, 0.0]);
}

#[test]
fn slower_than_an_edge_is_what_was_timed_less_what_its_bucket_holds() {
    let timed = |edge_500: f64, all: f64| {
        vec![
            requests("v2", "200", all),
            line("istio_request_duration_milliseconds_bucket", "v2", r#"le="250""#, edge_500 / 2.0),
            line("istio_request_duration_milliseconds_bucket", "v2", r#"le="500""#, edge_500),
            line("istio_request_duration_milliseconds_bucket", "v2", r#"le="+Inf""#, all),
            line("istio_request_duration_milliseconds_count", "v2", r#"x="""#, all),
        ]
    };
    let all = snapshots(&[timed(90.0, 100.0), timed(170.0, 200.0)]);
    let reading = difference(&all[0], &all[1], &query(&[500.0])).expect("a reading");
    assert_eq!(reading.canary.slower_than(500.0), Some(20.0));
    let missing = difference(&all[0], &all[1], &query(&[300.0]));
    let Err(SourceProblem::Missing { what }) = missing else { panic!("{missing:?}") };
    assert!(what.contains("300") && what.contains("250, 500"), "{what}");
}

#[test]
fn bad_ones_never_exceed_those_that_were_timed() {
    // Requests were timed and not yet counted: their share is one of the timed ones.
    let after = vec![line("istio_request_duration_milliseconds_count", "v2", r#"x="""#, 5.0), requests("v2", "200", 3.0)];
    let all = snapshots(&[vec![], after]);
    let reading = difference(&all[0], &all[1], &query(&[500.0])).expect("a reading");
    assert_eq!((reading.canary.n, reading.canary.timed, reading.canary.slower_than(500.0)), (3.0, 5.0, Some(5.0)));
}

#[test]
fn a_torn_page_hides_nothing_but_its_torn_lines() {
    let text = "# HELP a\nistio_requests_total{reporter=\"source\n\n  x{a=\"b\"} 7 1700000000000 # {t=\"1\"} 1\ny NaN\nz{} +Inf\nw{le=\"0.5\",} 1e3\nv{a=b} 1\nu{a=\"b\"}\n";
    let all: Vec<(String, f64)> = samples(text, |_| true).map(|s| (s.name, s.value)).collect();
    assert_eq!(all.len(), 4, "{all:?}");
    assert_eq!((all[0].clone(), all[3].clone()), (("x".into(), 7.0), ("w".into(), 1000.0)));
    assert!(all[1].1.is_nan() && all[2].1.is_infinite());
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        name in "[a-zA-Z_:][a-zA-Z0-9_:]{0,12}",
        labels in proptest::collection::btree_map("[a-zA-Z_][a-zA-Z0-9_]{0,8}", any::<String>().prop_filter("one line", |s| !s.contains('\r')), 0..5),
        value in any::<f64>().prop_filter("a number", |v| v.is_finite()),
        comma in any::<bool>(),
    ) {
        let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{}\"", escaped(v))).collect();
        let text = format!("{name}{{{}{}}} {value}\n", pairs.join(","), if comma && !pairs.is_empty() { "," } else { "" });
        let read: Vec<Sample> = samples(&text, |_| true).collect();
        prop_assert_eq!(read.len(), 1);
        prop_assert_eq!(&read[0].name, &name);
        prop_assert_eq!(read[0].value, value);
        for (key, wanted) in &labels {
            prop_assert_eq!(read[0].label(key), wanted.as_str());
        }
    }

    #[test]
    fn no_text_breaks_the_reader(text in any::<String>()) {
        let _ = samples(&text, |_| true).count();
    }

    /// However often it is read, and whenever the proxy begins anew, nothing is counted twice; without restarts nothing is lost.
    #[test]
    fn reading_more_often_counts_the_same(steps in proptest::collection::vec((0_u32..500, 0_u32..50, proptest::bool::weighted(0.2)), 1..12)) {
        let (mut ok, mut bad) = (0.0, 0.0);
        let (mut all_ok, mut all_bad, mut restarts) = (0.0, 0.0, false);
        let mut texts = vec![vec![requests("v2", "200", 0.0), requests("v2", "500", 0.0)]];
        for (good, failed, restart) in &steps {
            if *restart {
                (ok, bad) = (0.0, 0.0);
                restarts = true;
            }
            ok += f64::from(*good);
            bad += f64::from(*failed);
            all_ok += f64::from(*good);
            all_bad += f64::from(*failed);
            texts.push(vec![requests("v2", "200", ok), requests("v2", "500", bad)]);
        }
        let all = snapshots(&texts);
        let (mut n, mut errors) = (0.0, 0.0);
        for pair in all.windows(2) {
            let reading = difference(&pair[0], &pair[1], &query(&[])).expect("a reading");
            n += reading.canary.n;
            errors += reading.canary.errors;
        }
        let whole = difference(&all[0], &all[all.len() - 1], &query(&[])).expect("a reading");
        prop_assert!(n <= all_ok + all_bad && errors <= all_bad && whole.canary.n <= n);
        if !restarts {
            prop_assert_eq!((n, errors, whole.canary.n), (all_ok + all_bad, all_bad, all_ok + all_bad));
        }
    }
}

/// Proxies merge their histograms every few seconds and count requests at once: a reading may have requests without durations, and the next one
/// durations of both.
#[test]
fn durations_that_come_later_than_their_requests_are_all_counted() {
    let page = |n: f64, timed: f64| {
        let mut lines = vec![requests("v1", "200", n), line("istio_request_duration_milliseconds_count", "v1", "", timed)];
        let within = [("25", 0.3), ("50", 0.9), ("+Inf", 1.0)];
        lines.extend(within.map(|(le, share)| {
            line("istio_request_duration_milliseconds_bucket", "v1", &format!(r#"le="{le}""#), (timed * share).round())
        }));
        lines
    };
    let all = snapshots(&[page(0.0, 0.0), page(100.0, 0.0), page(200.0, 200.0)]);
    let query = query(&[25.0, 50.0]);
    let first = difference(&all[0], &all[1], &query).expect("a reading");
    assert_eq!((first.stable.n, first.stable.timed, first.stable.slower_than(25.0)), (100.0, 0.0, Some(0.0)));
    let second = difference(&all[1], &all[2], &query).expect("a reading");
    assert_eq!((second.stable.n, second.stable.timed), (100.0, 200.0));
    assert_eq!(
        (second.stable.slower_than(25.0), second.stable.slower_than(50.0)),
        (Some(140.0), Some(20.0)),
        "more than the reading's requests"
    );
}
