//! Destinations that come and go, plain routes, the mesh, the mark.

use alloc::string::ToString;
use alloc::vec::Vec;

use serde_json::{Value, json};

use super::super::{
    Guard, Mark, RouteProblem, Target, aborted_because, aborted_mark, add_destination, bind_mesh, describe, look, mark, remove_destination,
    split_plain,
};
use super::{apply, arms, article, my_app, of, route};

fn codes(problems: &[RouteProblem]) -> Vec<&'static str> {
    problems.iter().map(RouteProblem::code).collect()
}

#[test]
fn v3_joins_a_route_that_names_v1_and_v2() {
    let mut vs = article();
    let entry = &mut vs["spec"]["http"][0]["route"][1];
    *entry = json!({"destination": {"host": "my-app", "subset": "v2", "port": {"number": 80}, "unknown": [1]}, "weight": 10, "headers": {"response": {"set": {"x-version": "v2"}}}});
    let patch = add_destination(&vs, &[0], &arms("v2", "v3"), Guard::Forward).expect("a patch");
    let after = apply(&vs, &patch).expect("it applies");
    assert_eq!(
        after["spec"]["http"][0]["route"][2],
        json!({"destination": {"host": "my-app", "subset": "v3", "port": {"number": 80}, "unknown": [1]}, "weight": 0})
    );
    assert_eq!(after["spec"]["http"][0]["route"][1], vs["spec"]["http"][0]["route"][1]);
    assert_eq!(describe(&patch), ["spec.http[0] route: with v3 at 0"]);
    let (before, now) = (look(&vs, &my_app(), None).splits, look(&after, &my_app(), None).splits);
    assert!(["v1", "v2", "v3"].iter().all(|s| before[0].share_of(s) == now[0].share_of(s)), "no request goes elsewhere");
    assert!(add_destination(&after, &[0], &arms("v2", "v3"), Guard::Forward).expect("a patch").is_noop());
}

#[test]
fn a_single_destination_keeps_everything_when_another_joins() {
    for weight in [Value::Null, json!(0), json!(100), json!(7)] {
        let vs = of(json!([route(&[("my-app", "v1", weight.clone())])]));
        let patch = add_destination(&vs, &[0], &arms("v1", "v2"), Guard::Forward).expect("a patch");
        let after = apply(&vs, &patch).expect("it applies");
        let split = look(&after, &my_app(), None).splits.remove(0);
        assert_eq!(
            (split.share_of("v1").to_string(), split.share_of("v2").to_string()),
            ("100 %".to_string(), "0 %".to_string()),
            "{weight}"
        );
    }
}

#[test]
fn a_destination_joins_several_routes_in_one_patch_or_none() {
    let h = "my-app";
    let vs = of(json!([
        route(&[(h, "v1", json!(1)), (h, "v2", json!(1))]),
        route(&[(h, "v2", json!(1)), (h, "v3", json!(0))]),
        route(&[(h, "v2", Value::Null)])
    ]));
    let after = apply(&vs, &add_destination(&vs, &[0, 1, 2], &arms("v2", "v3"), Guard::Forward).expect("a patch")).expect("it applies");
    assert!(look(&after, &my_app(), None).splits.iter().all(|split| split.subsets().contains(&"v3")));
    assert_eq!(after["spec"]["http"][1], vs["spec"]["http"][1]);
    let problems = add_destination(&vs, &[0, 1, 2, 9], &arms("v1", "v4"), Guard::Forward).expect_err("three routes without v1");
    assert_eq!(codes(&problems), ["StableMissing", "StableMissing", "NoSuchRoute"]);
}

#[test]
fn a_destination_goes_at_weight_0_only() {
    let h = "my-app";
    let vs = of(json!([route(&[(h, "v0", Value::Null), (h, "v1", json!(0)), (h, "v0", json!(0)), (h, "v2", json!(100))])]));
    let patch = remove_destination(&vs, &[0], &Target::subset(&my_app(), "v0"), Guard::Forward).expect("a patch");
    let after = apply(&vs, &patch).expect("it applies");
    assert_eq!(after["spec"]["http"][0], route(&[(h, "v1", json!(0)), (h, "v2", json!(100))]));
    assert_eq!(describe(&patch), ["spec.http[0] route: without v0, which has 0, without v0, which has no weight"]);
    let table = [("v2", "StillWeighted"), ("v7", "")];
    for (subset, code) in table {
        let outcome = remove_destination(&vs, &[0], &Target::subset(&my_app(), subset), Guard::Forward);
        match outcome {
            Ok(patch) => assert!(code.is_empty() && patch.is_noop(), "{subset}"),
            Err(problems) => assert_eq!(codes(&problems), [code], "{subset}"),
        }
    }
    let alone = of(json!([route(&[(h, "v1", json!(0))])]));
    let problems = remove_destination(&alone, &[0], &Target::subset(&my_app(), "v1"), Guard::Forward).expect_err("the only one");
    assert_eq!(codes(&problems), ["LastDestination"]);
}

#[test]
fn a_plain_route_becomes_a_split_that_sends_all_to_stable() {
    let vs = of(json!([{"timeout": "3s", "route": [{"destination": {"host": "my-app", "port": {"number": 80}}}]}]));
    let patch = split_plain(&vs, &[0], &arms("v1", "v2"), Guard::Forward).expect("a patch");
    let after = apply(&vs, &patch).expect("it applies");
    assert_eq!(
        after["spec"]["http"][0],
        json!({"timeout": "3s", "route": [
            {"destination": {"host": "my-app", "port": {"number": 80}, "subset": "v1"}, "weight": 100},
            {"destination": {"host": "my-app", "port": {"number": 80}, "subset": "v2"}, "weight": 0},
        ]})
    );
    assert_eq!(describe(&patch), ["spec.http[0] route: my-app becomes its subset v1, my-app no weight → 100, with v2 at 0"]);
    let beside = of(json!([route(&[("legacy", "", json!(30)), ("my-app", "", json!(70))])]));
    let after = apply(&beside, &split_plain(&beside, &[0], &arms("v1", "v2"), Guard::Forward).expect("a patch")).expect("it applies");
    assert_eq!(after["spec"]["http"][0], route(&[("legacy", "", json!(30)), ("my-app", "v1", json!(70)), ("my-app", "v2", json!(0))]));
    let twice = of(json!([route(&[("my-app", "", json!(30)), ("my-app", "", json!(70))]), route(&[("my-app", "v1", json!(1))])]));
    assert_eq!(codes(&split_plain(&twice, &[0, 1], &arms("v1", "v2"), Guard::Forward).expect_err("two")), ["NamedTwice", "NotOurRoute"]);
}

#[test]
fn the_mesh_is_bound_with_one_word() {
    let vs = article();
    let patch = bind_mesh(&vs, &my_app()).expect("a patch");
    let after = apply(&vs, &patch).expect("it applies");
    assert_eq!(after["spec"]["gateways"], json!(["my-gateway", "mesh"]));
    assert_eq!(describe(&patch), ["spec.gateways: with \"mesh\""]);
    assert!(bind_mesh(&after, &my_app()).expect("a patch").is_noop());
    let mut absent = vs.clone();
    absent["spec"].as_object_mut().expect("a spec").remove("gateways");
    assert!(bind_mesh(&absent, &my_app()).expect("a patch").is_noop());
    for (hosts, code) in
        [(json!(["*"]), "AnyHostInMesh"), (json!(["shop.example.com"]), "HostNotServed"), (json!(["my-app.default"]), "HostNotServed")]
    {
        let mut vs = vs.clone();
        vs["spec"]["hosts"] = hosts;
        assert_eq!(bind_mesh(&vs, &my_app()).expect_err(code).code(), code);
    }
}

#[test]
fn a_mark_is_put_beside_other_annotations() {
    let mut vs = article();
    vs["metadata"]["annotations"] = json!({"a/b~c": "1"});
    let after = apply(&vs, &mark(&vs, Mark { rollout: "r-1", why: "worse" })).expect("it applies");
    assert_eq!((aborted_mark(&after), &after["metadata"]["annotations"]["a/b~c"]), (Some("r-1"), &json!("1")));
    assert_eq!(aborted_because(&after), Some("worse"));
    assert!(mark(&after, Mark { rollout: "r-1", why: "later" }).is_noop(), "the first who aborted knows why");
    assert_eq!(aborted_mark(&article()), None);
}
