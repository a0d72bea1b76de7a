//! Shares asked for are shares obtained, exactly; nothing else moves; an abort always ends at zero.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{
    Guard, Mark, RouteProblem, RouteTotal, Share, Target, abort, aborted_mark, describe, look, set_share, set_shares, total_for,
    total_for_route,
};
use super::{apply, arms, article, my_app, of, route, without_weights};
use crate::units::Weight;

fn percent(text: &str) -> Weight {
    Weight::parse(text).expect("a weight")
}

/// All weights of a route, absent as null.
fn weights(vs: &Value, index: usize) -> Vec<Value> {
    let entries = vs["spec"]["http"][index]["route"].as_array().expect("a route");
    entries.iter().map(|entry| entry.get("weight").cloned().unwrap_or(Value::Null)).collect()
}

fn set(vs: &Value, share: &str) -> Result<Value, RouteProblem> {
    let (arms, share) = (arms("v1", "v2"), percent(share));
    let total = total_for_route(vs, 0, &arms, &[share])?;
    let patch = set_share(vs, 0, &arms, share, total, Guard::Forward)?;
    Ok(apply(vs, &patch).expect("the patch applies to what was read"))
}

#[test]
fn the_articles_route_takes_a_new_share() {
    let vs = article();
    let patch = set_share(&vs, 0, &arms("v1", "v2"), percent("25"), 100, Guard::Forward).expect("a patch");
    assert_eq!(
        patch.to_value(),
        json!([
            {"op": "test", "path": "/metadata/resourceVersion", "value": "41"},
            {"op": "test", "path": "/spec/http/0", "value": vs["spec"]["http"][0]},
            {"op": "replace", "path": "/spec/http/0/route/0/weight", "value": 75},
            {"op": "replace", "path": "/spec/http/0/route/1/weight", "value": 25},
        ])
    );
    assert_eq!(describe(&patch), ["spec.http[0] route: v1 90 → 75, v2 10 → 25"]);
}

#[test]
fn weights_come_in_all_forms() {
    let h = "my-app";
    let table: &[(&str, Value, &str, Value)] = &[
        ("relative, not percent", route(&[(h, "v1", json!(9)), (h, "v2", json!(1))]), "25", json!([75, 25])),
        ("more than a hundred", route(&[(h, "v1", json!(900)), (h, "v2", json!(100))]), "50", json!([50, 50])),
        ("canary first", route(&[(h, "v2", json!(10)), (h, "v1", json!(90))]), "1", json!([1, 99])),
        ("canary's absent", route(&[(h, "v1", json!(100)), (h, "v2", Value::Null)]), "5", json!([95, 5])),
        ("stable's absent", route(&[(h, "v1", Value::Null), (h, "v2", json!(100))]), "50", json!([50, 50])),
        (
            "null is absent",
            json!({"route": [{"destination": {"host": h, "subset": "v1"}, "weight": 100}, {"destination": {"host": h, "subset": "v2"}, "weight": null}]}),
            "5",
            json!([95, 5]),
        ),
        ("floats that are whole", route(&[(h, "v1", json!(90.0)), (h, "v2", json!(10.0))]), "20", json!([80, 20])),
        ("sub-percent", route(&[(h, "v1", json!(100)), (h, "v2", json!(0))]), "0.5%", json!([995, 5])),
        ("a thousandth of a percent", route(&[(h, "v1", json!(100)), (h, "v2", json!(0))]), "0.001%", json!([99_999, 1])),
        (
            "another host keeps a fifth",
            route(&[(h, "v1", json!(80)), (h, "v2", json!(0)), ("legacy", "", json!(20))]),
            "10",
            json!([72, 8, 20]),
        ),
        (
            "which needs a finer total",
            route(&[(h, "v1", json!(80)), (h, "v2", json!(0)), ("legacy", "", json!(20))]),
            "1",
            json!([792, 8, 200]),
        ),
        ("a third, kept exactly", route(&[(h, "v1", json!(2)), (h, "v2", json!(0)), ("legacy", "", json!(1))]), "50", json!([34, 34, 34])),
        ("an older subset at 0", route(&[(h, "v0", json!(0)), (h, "v1", json!(90)), (h, "v2", json!(10))]), "30", json!([0, 70, 30])),
        (
            "an older subset, absent",
            route(&[(h, "v0", Value::Null), (h, "v1", json!(90)), (h, "v2", json!(10))]),
            "30",
            json!([null, 70, 30]),
        ),
        ("an older subset with some", route(&[(h, "v0", json!(50)), (h, "v1", json!(50)), (h, "v2", json!(0))]), "10", json!([50, 45, 5])),
        ("the host in full", route(&[("my-app.default.svc.cluster.local", "v1", json!(90)), (h, "v2", json!(10))]), "25", json!([75, 25])),
        ("the host as a whole, at 0", route(&[(h, "", json!(0)), (h, "v1", json!(90)), (h, "v2", json!(10))]), "25", json!([0, 75, 25])),
    ];
    for (what, http, share, expected) in table {
        let after = set(&of(json!([http])), share).unwrap_or_else(|problem| panic!("{what}: {problem}"));
        assert_eq!(json!(weights(&after, 0)), *expected, "{what}");
    }
}

#[test]
fn what_cannot_be_kept_exactly_is_refused_by_name() {
    let h = "my-app";
    let table: &[(&str, Value)] = &[
        ("NoWeight", route(&[(h, "v1", json!(0)), (h, "v2", Value::Null)])),
        ("NothingToShare", route(&[(h, "v1", json!(0)), (h, "v2", json!(0)), ("legacy", "", json!(1))])),
        ("NamedTwice", route(&[(h, "v1", json!(1)), (h, "v2", json!(1)), (h, "v2", json!(1))])),
        ("StableMissing", route(&[(h, "v2", json!(1)), (h, "v3", json!(1))])),
        ("CanaryMissing", route(&[(h, "v1", json!(1)), (h, "v3", json!(1))])),
        ("CanaryMissing", route(&[(h, "v1", json!(1)), (h, "", json!(0))])),
        ("MixedRoute", route(&[(h, "v1", json!(1)), (h, "v2", json!(1)), (h, "", json!(1))])),
        ("BadWeight", route(&[(h, "v1", json!("90")), (h, "v2", json!(1))])),
        ("BadWeight", route(&[(h, "v1", json!(1.5)), (h, "v2", json!(1))])),
        ("BadWeight", route(&[(h, "v1", json!(-1)), (h, "v2", json!(1))])),
        ("BadWeight", route(&[(h, "v1", json!(4_294_967_296_u64)), (h, "v2", json!(1))])),
        ("BadWeight", route(&[(h, "v1", json!([])), (h, "v2", json!(1))])),
        ("NoTotal", route(&[(h, "v1", json!(1_000_003)), (h, "v2", json!(0)), ("legacy", "", json!(1))])),
    ];
    for (code, http) in table {
        let problem = set(&of(json!([http])), "10").expect_err(code);
        assert_eq!(problem.code(), *code, "{problem}");
        assert!(problem.to_string().contains("default/my-app spec.http[0]"), "{problem}");
    }
}

#[test]
fn a_total_that_does_not_fit_names_the_one_that_does() {
    let vs = of(json!([route(&[("my-app", "v1", json!(80)), ("my-app", "v2", json!(0)), ("legacy", "", json!(20))])]));
    let problem = set_share(&vs, 0, &arms("v1", "v2"), percent("1"), 100, Guard::Forward).expect_err("0.8 is no weight");
    assert_eq!(
        problem.to_string(),
        "VirtualService default/my-app spec.http[0]: 1 % for the canary is no whole number of a total of 100 beside other destinations with 20 %: a total of 1000 expresses it"
    );
    for total in [0, u32::MAX] {
        let problem = set_share(&vs, 0, &arms("v1", "v2"), percent("1"), total, Guard::Forward).expect_err("no total");
        assert_eq!(problem.code(), "BadTotal");
    }
}

#[test]
fn the_total_is_the_smallest_in_which_all_shares_are_whole() {
    let table: &[(&[&str], u32)] =
        &[(&[], 100), (&["1", "5", "50", "100"], 100), (&["0.5%", "50"], 1_000), (&["0.25%"], 10_000), (&["0.001%", "1"], 100_000)];
    for (shares, total) in table {
        let shares: Vec<Weight> = shares.iter().map(|s| percent(s)).collect();
        assert_eq!(total_for(&shares), *total, "{shares:?}");
    }
}

#[test]
fn the_total_stays_the_same_through_a_rollout() {
    let plan: Vec<Weight> = ["0.5%", "5", "33.3", "100"].map(percent).into();
    let arms = arms("v1", "v2");
    let mut vs = of(json!([route(&[("my-app", "v1", json!(2)), ("my-app", "v2", json!(0)), ("legacy", "", json!(1))])]));
    let total = total_for_route(&vs, 0, &arms, &plan).expect("a total");
    for share in &plan {
        assert_eq!(total_for_route(&vs, 0, &arms, &plan), Ok(total));
        vs = apply(&vs, &set_share(&vs, 0, &arms, *share, total, Guard::Forward).expect("a patch")).expect("it applies");
        let split = look(&vs, &my_app(), None).splits.remove(0);
        assert_eq!(split.canary_share(&arms), Some(Share::from(*share)));
        assert_eq!(split.total, u64::from(total));
    }
}

#[test]
fn routes_of_one_virtual_service_change_in_one_patch() {
    let h = "my-app";
    let mut api = route(&[(h, "v1", json!(100)), (h, "v2", json!(0))]);
    api["name"] = json!("api");
    api["match"] = json!([{"uri": {"prefix": "/api"}}]);
    let vs = of(
        json!([api, {"name": "old", "redirect": {"uri": "/"}, "match": [{"uri": {"exact": "/old"}}]}, route(&[(h, "v1", json!(9)), (h, "v2", json!(1))])]),
    );
    let routes = [RouteTotal { index: 0, total: 100 }, RouteTotal { index: 2, total: 1000 }];
    let patch = set_shares(&vs, &routes, &arms("v1", "v2"), percent("20"), Guard::Forward).expect("a patch");
    let after = apply(&vs, &patch).expect("it applies");
    assert_eq!((weights(&after, 0), weights(&after, 2)), (vec![json!(80), json!(20)], vec![json!(800), json!(200)]));
    assert_eq!(describe(&patch), ["spec.http[0] \"api\" route: v1 100 → 80, v2 0 → 20", "spec.http[2] route: v1 9 → 800, v2 1 → 200"]);
    let problems = set_shares(
        &vs,
        &[RouteTotal { index: 1, total: 100 }, RouteTotal { index: 7, total: 100 }],
        &arms("v1", "v2"),
        percent("20"),
        Guard::Forward,
    );
    let codes: Vec<&str> = problems.expect_err("two problems").iter().map(RouteProblem::code).collect();
    assert_eq!(codes, ["StableMissing", "NoSuchRoute"]);
}

#[test]
fn forward_is_pinned_to_the_resource_version_and_back_is_not() {
    let vs = article();
    let mut newer = vs.clone();
    newer["metadata"]["resourceVersion"] = json!("42");
    newer["spec"]["hosts"] = json!(["my-app", "other"]);
    let forward = set_share(&vs, 0, &arms("v1", "v2"), percent("20"), 100, Guard::Forward).expect("a patch");
    let back = set_share(&vs, 0, &arms("v1", "v2"), percent("5"), 100, Guard::Back).expect("a patch");
    assert!(apply(&newer, &forward).is_err());
    assert_eq!(weights(&apply(&newer, &back).expect("it applies"), 0), [json!(95), json!(5)]);
    let mut from_a_file = vs;
    from_a_file["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
    let problem = set_share(&from_a_file, 0, &arms("v1", "v2"), percent("20"), 100, Guard::Forward).expect_err("not read from a server");
    assert_eq!(problem.code(), "NoResourceVersion");
}

#[test]
fn a_share_that_stands_already_changes_nothing() {
    let patch = set_share(&article(), 0, &arms("v1", "v2"), percent("10"), 100, Guard::Forward).expect("a patch");
    assert!(patch.is_noop() && describe(&patch).is_empty());
}

#[test]
fn an_abort_works_from_every_state() {
    let h = "my-app";
    let table: &[(&str, Value, Value)] = &[
        ("in the middle", route(&[(h, "v1", json!(90)), (h, "v2", json!(10))]), json!([100, 0])),
        ("of another total, which stays", route(&[(h, "v1", json!(7)), (h, "v2", json!(4))]), json!([11, 0])),
        ("all on the canary", route(&[(h, "v1", json!(0)), (h, "v2", json!(100))]), json!([100, 0])),
        ("stable's weight absent", route(&[(h, "v1", Value::Null), (h, "v2", json!(100))]), json!([100, 0])),
        ("both absent", route(&[(h, "v1", Value::Null), (h, "v2", Value::Null)]), json!([100, null])),
        ("both zero", route(&[(h, "v1", json!(0)), (h, "v2", json!(0))]), json!([100, 0])),
        ("canary first", route(&[(h, "v2", json!(10)), (h, "v1", json!(90))]), json!([0, 100])),
        ("done already", route(&[(h, "v1", json!(100)), (h, "v2", json!(0))]), json!([100, 0])),
        ("others have it all", route(&[(h, "v1", json!(0)), (h, "v2", json!(0)), ("legacy", "", json!(5))]), json!([0, 0, 5])),
        ("others keep theirs", route(&[(h, "v1", json!(50)), (h, "v2", json!(30)), ("legacy", "", json!(20))]), json!([80, 0, 20])),
        (
            "thirds, which have no whole total",
            route(&[(h, "v1", json!(1)), (h, "v2", json!(1)), ("legacy", "", json!(1))]),
            json!([2, 0, 1]),
        ),
        ("the canary named twice", route(&[(h, "v1", json!(80)), (h, "v2", json!(15)), (h, "v2", json!(5))]), json!([100, 0, 0])),
        ("stable named twice", route(&[(h, "v1", json!(40)), (h, "v1", json!(40)), (h, "v2", json!(20))]), json!([60, 40, 0])),
        ("the canary's weight is no weight", route(&[(h, "v1", json!(90)), (h, "v2", json!("10"))]), json!([90, 0])),
        ("neither is one", route(&[(h, "v1", json!("x")), (h, "v2", json!("10"))]), json!([100, 0])),
        ("as large as they get", route(&[(h, "v1", json!(i32::MAX)), (h, "v2", json!(i32::MAX))]), json!([i32::MAX, 0])),
    ];
    for (what, http, expected) in table {
        let vs = of(json!([http]));
        let done = abort(&vs, None, &arms("v1", "v2"), Some(Mark { rollout: "r-1", why: "worse" }));
        assert_eq!(done.left, [], "{what}");
        let after = apply(&vs, &done.patch).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(json!(weights(&after, 0)), *expected, "{what}");
        assert_eq!(aborted_mark(&after), Some("r-1"), "{what}");
        let again = abort(&after, None, &arms("v1", "v2"), Some(Mark { rollout: "r-1", why: "worse" }));
        assert!(again.patch.is_noop(), "{what}: a second abort has nothing to do");
    }
}

#[test]
fn an_abort_says_what_it_leaves_and_does_the_rest() {
    let h = "my-app";
    let mut testers = route(&[(h, "v2", Value::Null)]);
    testers["match"] = json!([{"headers": {"x-beta": {"exact": "true"}}}]);
    let vs = of(json!([
        testers,
        route(&[(h, "v2", json!(1)), ("legacy", "", json!(1))]),
        route(&[(h, "v1", json!(1)), (h, "v2", json!(1))]),
        route(&[(h, "v2", json!(7))])
    ]));
    let done = abort(&vs, None, &arms("v1", "v2"), None);
    let codes: Vec<&str> = done.left.iter().map(RouteProblem::code).collect();
    assert_eq!(codes, ["CanaryAlone", "StableMissing", "CanaryAlone"]);
    assert!(done.left[0].to_string().contains("alone for requests that match"));
    let after = apply(&vs, &done.patch).expect("it applies");
    assert_eq!(weights(&after, 2), [json!(2), json!(0)]);
    assert_eq!(without_weights(&after), without_weights(&vs));
}

#[test]
fn an_abort_keeps_to_the_routes_that_are_named() {
    let h = "my-app";
    let mut primary = route(&[(h, "v1", json!(1)), (h, "v2", json!(1))]);
    primary["name"] = json!("primary");
    let vs = of(json!([primary, route(&[(h, "v1", json!(1)), (h, "v2", json!(1))])]));
    let done = abort(&vs, Some(&["primary".to_string()]), &arms("v1", "v2"), None);
    let after = apply(&vs, &done.patch).expect("it applies");
    assert_eq!((weights(&after, 0), weights(&after, 1)), (vec![json!(2), json!(0)], vec![json!(1), json!(1)]));
}

#[test]
fn the_mark_never_overwrites_annotations() {
    let vs = article();
    let done = abort(&vs, None, &arms("v1", "v2"), Some(Mark { rollout: "r-1", why: "worse" }));
    let mut annotated = vs.clone();
    annotated["metadata"]["annotations"] = json!({"team": "shop"});
    annotated["metadata"]["resourceVersion"] = json!("42");
    assert!(apply(&annotated, &done.patch).is_err(), "annotations came meanwhile: read again");
    let done = abort(&annotated, None, &arms("v1", "v2"), Some(Mark { rollout: "r-1", why: "worse" }));
    annotated["metadata"]["resourceVersion"] = json!("43");
    let after = apply(&annotated, &done.patch).expect("pinned to the route alone");
    assert_eq!(after["metadata"]["annotations"], json!({"team": "shop", "serin.dev/aborted": "r-1", "serin.dev/aborted-because": "worse"}));
    let again = abort(&after, None, &arms("v1", "v2"), Some(Mark { rollout: "r-2", why: "worse" }));
    assert_eq!(describe(&again.patch), ["metadata.annotations: serin.dev/aborted = r-2, serin.dev/aborted-because = worse"]);
}

fn weight_of_anything() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        (0_u32..=120).prop_map(|w| json!(w)),
        (0_u32..=5000).prop_map(|w| json!(w)),
        (0_u32..=20).prop_map(|w| json!(f64::from(w)))
    ]
}

/// A destination that is neither arm: another host, or a third subset; with fields that Serin does not know.
fn bystander() -> impl Strategy<Value = Value> {
    let host = prop_oneof![Just("legacy"), Just("my-app"), Just("example.com"), Just("my-app.other.svc.cluster.local")];
    (host, weight_of_anything(), any::<bool>()).prop_map(|(host, weight, extra)| {
        let mut entry = json!({"destination": {"host": host, "subset": "v0", "port": {"number": 8080}}});
        if !weight.is_null() {
            entry["weight"] = weight;
        }
        if extra {
            entry["headers"] = json!({"request": {"set": {"x-weight": "1"}}});
            entry["somethingNew"] = json!({"weights": [1, 2.5, null]});
        }
        entry
    })
}

/// A route with both arms once, in any order, among bystanders.
fn a_route() -> impl Strategy<Value = Value> {
    (weight_of_anything(), weight_of_anything(), prop::collection::vec(bystander(), 0..4), any::<u64>()).prop_map(
        |(stable, canary, others, order)| {
            let arms = route(&[("my-app", "v1", stable), ("my-app.default.svc.cluster.local", "v2", canary)]);
            let mut entries: Vec<Value> = arms["route"].as_array().expect("a list").clone();
            entries.extend(others);
            let turn = usize::try_from(order % entries.len() as u64).expect("small");
            entries.rotate_left(turn);
            json!({"name": "r", "timeout": "3s", "retries": {"attempts": 0}, "route": entries})
        },
    )
}

fn a_share() -> impl Strategy<Value = Weight> {
    prop_oneof![0_u32..=100, Just(100)]
        .prop_map(|p| Weight::percent(p).expect("a weight"))
        .boxed()
        .prop_union((0_u32..=100_000).prop_map(|p| Weight::from_parts(p).expect("a weight")).boxed())
}

/// The share of every destination that is no arm, in order.
fn bystanders(vs: &Value, index: usize) -> Vec<Option<Share>> {
    let split = look(vs, &my_app(), None).splits.into_iter().find(|s| s.index == index).expect("a split");
    let arms = arms("v1", "v2");
    let others = split.destinations.iter().filter(|d| !d.is(&arms.stable) && !d.is(&arms.canary));
    others.map(|d| Share::new(split.weight_of(d), split.total)).collect()
}

fn share_of_canary(vs: &Value, index: usize) -> Option<Share> {
    look(vs, &my_app(), None).splits.into_iter().find(|s| s.index == index).expect("a split").canary_share(&arms("v1", "v2"))
}

proptest! {
    #[test]
    fn the_asked_share_results_and_nothing_else_changes(routes in prop::collection::vec(a_route(), 1..4), share in a_share(), pick in any::<prop::sample::Index>()) {
        let vs = of(json!(routes));
        let index = pick.index(routes.len());
        let arms = arms("v1", "v2");
        let total = match total_for_route(&vs, index, &arms, &[share]) {
            Ok(total) => total,
            Err(problem) => {
                // Refused: only for the reasons that there are, and true ones.
                let splits = look(&vs, &my_app(), None).splits;
                let split = splits.iter().find(|s| s.index == index).expect("a split");
                let pool = split.share_of("v1").parts() + split.share_of("v2").parts();
                match problem.code() {
                    "NoWeight" => prop_assert_eq!(split.total, 0),
                    "NothingToShare" => prop_assert!(pool == 0 && split.total > 0),
                    "NoTotal" => prop_assert!(set_share(&vs, index, &arms, share, 100_000, Guard::Forward).is_err()),
                    other => prop_assert!(false, "{}", other),
                }
                return Ok(());
            }
        };
        let patch = set_share(&vs, index, &arms, share, total, Guard::Forward).expect("the total fits");
        let after = apply(&vs, &patch).expect("it applies to what was read");
        prop_assert_eq!(share_of_canary(&after, index), Some(Share::from(share)));
        prop_assert_eq!(bystanders(&after, index), bystanders(&vs, index));
        prop_assert_eq!(look(&after, &my_app(), None).splits.iter().find(|s| s.index == index).expect("a split").total, u64::from(total));
        prop_assert_eq!(without_weights(&after), without_weights(&vs));
        for other in (0..routes.len()).filter(|other| *other != index) {
            prop_assert_eq!(&after["spec"]["http"][other], &vs["spec"]["http"][other]);
        }
        prop_assert!(set_share(&after, index, &arms, share, total, Guard::Forward).expect("again").is_noop());
    }

    #[test]
    fn no_smaller_power_of_ten_would_do(http in a_route(), share in a_share()) {
        let vs = of(json!([http]));
        let arms = arms("v1", "v2");
        if let Ok(total) = total_for_route(&vs, 0, &arms, &[share]) {
            for smaller in [100, 1_000, 10_000, 100_000].into_iter().filter(|t| *t < total) {
                let refused = set_share(&vs, 0, &arms, share, smaller, Guard::Forward);
                let fits = matches!(refused, Err(RouteProblem::NotWhole { needs: Some(needs), .. }) if needs == total);
                prop_assert!(fits, "{:?}", refused);
            }
        }
    }

    #[test]
    fn a_route_that_was_changed_in_between_stays_as_it_is(http in a_route(), share in a_share(), how in 0_usize..4, guard in prop_oneof![Just(Guard::Forward), Just(Guard::Back)]) {
        let vs = of(json!([http]));
        let arms = arms("v1", "v2");
        let Ok(total) = total_for_route(&vs, 0, &arms, &[share]) else { return Ok(()) };
        let patch = set_share(&vs, 0, &arms, share, total, guard).expect("a patch");
        prop_assume!(!patch.is_noop());
        let mut changed = vs.clone();
        let route = &mut changed["spec"]["http"][0];
        match how {
            0 => route["timeout"] = json!("4s"),
            1 => route["route"][0]["weight"] = json!(77_777),
            2 => route["match"] = json!([{"uri": {"prefix": "/"}}]),
            _ => route["route"].as_array_mut().expect("a list").push(json!({"destination": {"host": "new"}, "weight": 1})),
        }
        prop_assert!(apply(&changed, &patch).is_err());
    }

    #[test]
    fn an_abort_always_leads_to_zero(routes in prop::collection::vec(a_route(), 1..4), twice in any::<bool>(), rollout in "[a-z0-9-]{1,36}") {
        let mut vs = of(json!(routes));
        if twice {
            let entry = vs["spec"]["http"][0]["route"][0].clone();
            vs["spec"]["http"][0]["route"].as_array_mut().expect("a list").push(entry);
        }
        let done = abort(&vs, None, &arms("v1", "v2"), Some(Mark { rollout: &rollout, why: "worse" }));
        prop_assert_eq!(&done.left, &[]);
        let mut meanwhile = vs.clone();
        meanwhile["spec"]["hosts"] = json!(["elsewhere"]);
        let after = apply(&meanwhile, &done.patch).expect("changes outside of the routes do not delay it");
        let canary = Target::subset(&my_app(), "v2");
        for split in look(&after, &my_app(), None).splits {
            prop_assert!(split.share_of_target(&canary).is_none());
            prop_assert!(split.total > 0, "{:?}", split);
            if look(&vs, &my_app(), None).splits.iter().any(|s| s.index == split.index && s.total > 0) {
                prop_assert_eq!(bystanders(&after, split.index), bystanders(&vs, split.index));
            }
        }
        prop_assert_eq!(aborted_mark(&after), Some(rollout.as_str()));
        let mut unmarked = after;
        unmarked["metadata"].as_object_mut().expect("metadata").remove("annotations");
        prop_assert_eq!(without_weights(&unmarked), without_weights(&meanwhile));
        let mark = Some(Mark { rollout: &rollout, why: "later" });
        let again = abort(&apply(&vs, &done.patch).expect("it applies"), None, &arms("v1", "v2"), mark);
        prop_assert!(again.patch.is_noop());
    }

    #[test]
    fn shares_compare_as_fractions(a in 0_u64..1000, b in 1_u64..1000, c in 0_u64..1000, d in 1_u64..1000) {
        if let (Some(x), Some(y)) = (Share::new(a, b), Share::new(c, d)) {
            prop_assert_eq!(x.cmp(&y), (a * d).cmp(&(c * b)));
            prop_assert_eq!(x == y, a * d == c * b);
        }
        prop_assert_eq!(Share::new(a, b).is_none(), a > b);
    }
}

#[test]
fn shares_show_as_percent_or_as_they_are() {
    let shown = |parts, of| Share::new(parts, of).map(|share| share.to_string());
    let table = [(1, 10, "10 %"), (1, 200, "0.5 %"), (0, 7, "0 %"), (7, 7, "100 %"), (1, 3, "1/3"), (1, 1_000_000, "1/1000000")];
    for (parts, of, text) in table {
        assert_eq!(shown(parts, of), Some(String::from(text)), "{parts}/{of}");
    }
    assert_eq!((shown(1, 0), shown(2, 1)), (None, None));
}
