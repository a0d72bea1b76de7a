//! VirtualServices that meet at one host, and those that delegate.

use alloc::string::ToString;
use alloc::vec::Vec;

use serde_json::{Value, json};

use super::super::RouteProblem;
use super::super::conflict::{gateways, roots_of, same_host, unused_delegate};
use super::{article, my_app};
use crate::units::ObjectName;

fn vs(name: &str, created: u32, namespace: &str, hosts: Value, gateways: Value) -> Value {
    let mut vs = article();
    vs["metadata"]["name"] = json!(name);
    vs["metadata"]["namespace"] = json!(namespace);
    vs["metadata"]["creationTimestamp"] = json!(alloc::format!("2026-01-01T00:00:{created:02}Z"));
    vs["spec"]["hosts"] = hosts;
    if gateways.is_null() {
        vs["spec"].as_object_mut().expect("a spec").remove("gateways");
    } else {
        vs["spec"]["gateways"] = gateways;
    }
    vs
}

fn name(name: &str) -> ObjectName {
    ObjectName { namespace: "default".into(), name: name.into() }
}

#[test]
fn a_gateway_and_mesh_pair_is_no_conflict() {
    let all =
        [vs("front", 1, "default", json!(["my-app"]), json!(["my-gateway"])), vs("inner", 2, "default", json!(["my-app"]), Value::Null)];
    assert_eq!(same_host(&all, &[name("front"), name("inner")]), []);
}

#[test]
fn two_for_the_same_callers_are_named_with_the_winner_first() {
    let full = my_app().fqdn();
    let table = [
        (json!(["my-app"]), Value::Null, json!([full]), json!(["mesh"]), Some("the mesh, where the older one wins entirely")),
        (
            json!(["my-app"]),
            json!(["my-gateway"]),
            json!(["my-app"]),
            json!(["default/my-gateway"]),
            Some("gateway default/my-gateway, where their routes are merged, and of two for every request only the older one's is reached"),
        ),
        (
            json!(["my-app"]),
            json!(["./my-gateway"]),
            json!(["my-app"]),
            json!(["my-gateway.default.svc.cluster.local"]),
            Some("gateway default/my-gateway"),
        ),
        (json!(["my-app"]), json!(["my-gateway", "mesh"]), json!(["my-app"]), json!(["other"]), None),
        (json!(["my-app"]), Value::Null, json!(["*.default.svc.cluster.local"]), Value::Null, None),
        (json!(["my-app", "a.example.com"]), Value::Null, json!(["a.example.com"]), Value::Null, Some("a.example.com for the mesh")),
        (json!(["my-app"]), Value::Null, json!(["other"]), Value::Null, None),
    ];
    for (hosts, gates, other_hosts, other_gates, expected) in table {
        let all = [vs("young", 9, "default", other_hosts, other_gates), vs("old", 1, "default", hosts, gates)];
        let problems = same_host(&all, &[name("young")]);
        assert_eq!(problems.len(), usize::from(expected.is_some()), "{problems:?}");
        if let (Some(expected), Some(problem)) = (expected, problems.first()) {
            let text = problem.to_string();
            assert!(
                text.starts_with("VirtualService default/old and VirtualService default/young both route") && text.contains(expected),
                "{text}"
            );
        }
        assert_eq!(same_host(&all, &[name("neither")]), [], "only pairs of which one is ours");
    }
}

#[test]
fn teams_share_a_gateways_host_by_path() {
    let paths = |name: &str, created: u32, path: &str| {
        let mut vs = vs(name, created, "default", json!(["shop.example.com"]), json!(["front"]));
        vs["spec"]["http"][0]["match"] = json!([{"uri": {"prefix": path}}]);
        vs
    };
    let count = |all: &[Value]| same_host(all, &[name("a"), name("b")]).len();
    assert_eq!(count(&[paths("a", 1, "/cart"), paths("b", 2, "/pay")]), 0);
    assert_eq!(count(&[paths("a", 1, "/"), paths("b", 2, "/pay")]), 0, "the one for every request comes last, whoever is older");
    assert_eq!(count(&[paths("a", 1, "/"), paths("b", 2, "/")]), 1);
}

#[test]
fn rules_that_nobody_sees_together_are_no_conflict() {
    let full = json!([my_app().fqdn()]);
    let pair = |first: Value, second: Value| {
        let mut all = [vs("a", 1, "default", full.clone(), Value::Null), vs("b", 2, "shop", full.clone(), Value::Null)];
        for (vs, exports) in all.iter_mut().zip([first, second]) {
            if !exports.is_null() {
                vs["spec"]["exportTo"] = exports;
            }
        }
        same_host(&all, &[name("a")]).iter().map(RouteProblem::code).collect::<Vec<_>>()
    };
    assert_eq!(pair(json!(["."]), json!(["."])), [""; 0]);
    assert_eq!(pair(json!(["."]), Value::Null), ["SameHost"]);
    assert_eq!(pair(json!(["shop"]), json!(["."])), ["SameHost"]);
    assert_eq!(pair(json!(["a", "b"]), json!(["c"])), [""; 0]);
}

#[test]
fn delegates_belong_to_their_roots() {
    let mut root = vs("root", 1, "default", json!(["shop.example.com"]), json!(["my-gateway"]));
    root["spec"]["http"] = json!([{"match": [{"uri": {"prefix": "/cart"}}], "delegate": {"name": "cart"}}, {"delegate": {"name": "pay", "namespace": "bank"}}]);
    let cart = vs("cart", 2, "default", json!([]), Value::Null);
    let mut pay = vs("pay", 2, "bank", json!([]), Value::Null);
    let lost = vs("lost", 3, "default", json!([]), Value::Null);
    let all = [root.clone(), cart.clone(), pay.clone(), lost.clone()];
    assert_eq!(roots_of(&all, &cart), [&root]);
    assert_eq!(roots_of(&all, &pay), [&root]);
    pay["spec"]["exportTo"] = json!(["."]);
    assert!(roots_of(&all, &pay).is_empty(), "not exported to the root's namespace");
    assert_eq!((unused_delegate(&all, &cart), unused_delegate(&all, &root)), (None, None));
    assert_eq!(unused_delegate(&all, &lost).map(|p| p.code()), Some("UnusedDelegate"));
    assert_eq!(same_host(&all, &[name("cart"), name("lost")]), [], "delegates have no hosts to meet at");
}

#[test]
fn gateways_are_read_in_all_their_forms() {
    let table = [
        (Value::Null, json!(["mesh"])),
        (json!([]), json!(["mesh"])),
        (
            json!(["mesh", "front", "./front", "edge/front", "front.edge", "front.edge.svc.cluster.local"]),
            json!(["default/front", "edge/front", "mesh"]),
        ),
    ];
    for (written, read) in table {
        assert_eq!(json!(gateways(&vs("a", 1, "default", json!(["my-app"]), written))), read);
    }
}
