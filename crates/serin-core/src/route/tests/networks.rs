//! Whole releases over routes and rules: what `decide` is told, and what becomes of its actions.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::companion::{Permission, SubsetPlan};
use super::super::rules::Labels;
use super::super::{Network, Selection, ServiceName, World, describe};
use super::{apply, article, my_app, of, route};
use crate::action::Guard;
use crate::observe::Split;
use crate::units::{ObjectName, VersionName, Weight};

fn version(name: &str) -> VersionName {
    VersionName::new(name).expect("a version")
}

fn weight(text: &str) -> Weight {
    Weight::parse(text).expect("a weight")
}

fn object(name: &str) -> ObjectName {
    ObjectName { namespace: "default".into(), name: name.into() }
}

fn article_rule() -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1alpha3", "kind": "DestinationRule",
        "metadata": {"name": "my-app", "namespace": "default", "resourceVersion": "5", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"host": "my-app", "subsets": [{"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}]},
    })
}

/// A cluster in which patches are applied, as small as can be.
struct Cluster {
    service: ServiceName,
    routes: Vec<Value>,
    rules: Vec<Value>,
    pods: Vec<(VersionName, Labels)>,
    selection: Vec<Selection>,
    stable: Option<VersionName>,
    manage_route: bool,
    permission: Permission,
    writes: u32,
}

impl Cluster {
    fn new(routes: &[Value], rules: &[Value], versions: &[&str]) -> Self {
        let pods = |v: &&str| (version(v), Labels::from([("app".into(), "my-app".into()), ("version".into(), v.to_string())]));
        Self {
            service: my_app(),
            routes: routes.to_vec(),
            rules: rules.to_vec(),
            pods: versions.iter().map(pods).collect(),
            selection: Vec::new(),
            stable: None,
            manage_route: false,
            permission: Permission::Join,
            writes: 100,
        }
    }

    fn see<T>(&self, look: impl FnOnce(Network<'_>) -> T) -> T {
        let world = World {
            service: &self.service,
            version_label: "version",
            pods: &self.pods,
            virtual_services: &self.routes,
            destination_rules: &self.rules,
            root_namespace: "istio-system",
            selection: &self.selection,
            stable: self.stable.as_ref(),
            manage_route: self.manage_route,
            permission: self.permission,
        };
        look(world.read())
    }

    fn codes(&self) -> Vec<&'static str> {
        self.see(|network| network.problems().iter().map(|p| p.code()).collect())
    }

    fn patch(&mut self, name: &str, patch: &super::super::Patch) {
        let vs = self.routes.iter_mut().find(|vs| vs["metadata"]["name"] == name).expect("the object");
        *vs = apply(vs, patch).expect("it applies");
        self.writes += 1;
        vs["metadata"]["resourceVersion"] = json!(self.writes.to_string());
    }

    fn ensure_subset(&mut self, stable: &str, canary: &str) {
        match self.see(|network| network.ensure_subset(&version(stable), &version(canary))).expect("a plan") {
            SubsetPlan::Present { .. } => {}
            SubsetPlan::Create { mut rule, .. } => {
                self.writes += 1;
                rule["metadata"]["resourceVersion"] = json!(self.writes.to_string());
                rule["metadata"]["creationTimestamp"] = json!(alloc::format!("2026-01-02T00:{:02}:00Z", self.writes % 60));
                self.rules.push(rule);
            }
            SubsetPlan::Extend { rule, patch, .. } => {
                let own = self.rules.iter_mut().find(|r| r["metadata"]["name"] == rule.name.as_str()).expect("the rule");
                *own = apply(own, &patch).expect("it applies");
            }
        }
    }

    fn ensure_destination(&mut self, name: &str, stable: &str, canary: &str) {
        let patch = self.see(|network| network.ensure_destination(&object(name), &version(stable), &version(canary))).expect("a patch");
        self.patch(name, &patch);
    }

    fn set(&mut self, name: &str, stable: &str, canary: &str, share: &str, plan: &[Weight]) {
        let change = self.see(|network| {
            let resource_version = network.routes().into_iter().find(|r| r.object.name == name).expect("the route").resource_version;
            network.set_weights(
                &object(name),
                &version(stable),
                &version(canary),
                weight(share),
                &Guard::Forward { resource_version },
                plan,
            )
        });
        self.patch(name, &change.expect("a patch").patch);
    }

    fn abort(&mut self, name: &str, stable: &str, canary: &str) -> Vec<&'static str> {
        let guard = Guard::Abort { rollout: "r-1".into(), why: "worse".into() };
        let change = self.see(|network| network.set_weights(&object(name), &version(stable), &version(canary), Weight::ZERO, &guard, &[]));
        let change = change.expect("an abort always has a patch");
        self.patch(name, &change.patch);
        change.left.iter().map(|p| p.code()).collect()
    }

    /// Shares per split of a VirtualService: `v1 90 %, v2 10 %`.
    fn shares(&self, name: &str) -> Vec<String> {
        let text = |split: &Split| split.shares.iter().map(|(v, w)| alloc::format!("{v} {w}")).collect::<Vec<_>>().join(", ");
        self.see(|network| network.routes().iter().filter(|r| r.object.name == name).flat_map(|r| &r.splits).map(text).collect())
    }
}

fn plan() -> Vec<Weight> {
    ["1", "5", "50", "100"].map(weight).into()
}

#[test]
fn the_article_goes_from_v1_to_v3() {
    let mut cluster = Cluster::new(&[article()], &[article_rule()], &["v1", "v2"]);
    assert_eq!(cluster.shares("my-app"), ["v1 90 %, v2 10 %"]);
    assert_eq!(cluster.see(|n| n.rules()).subsets, [version("v1"), version("v2")]);
    for share in ["50", "100"] {
        cluster.set("my-app", "v1", "v2", share, &plan());
    }
    assert_eq!(cluster.shares("my-app"), ["v1 0 %, v2 100 %"]);
    cluster.stable = Some(version("v2"));
    cluster.pods.push((version("v3"), Labels::from([("version".into(), "v3".into())])));
    let rules = cluster.see(|n| n.rules());
    assert_eq!((rules.subsets.len(), rules.refusal), (2, None));
    cluster.ensure_subset("v2", "v3");
    assert_eq!(cluster.rules[1]["metadata"]["name"], "my-app-serin");
    assert_eq!(cluster.see(|n| n.rules()).subsets.len(), 3);
    cluster.ensure_destination("my-app", "v2", "v3");
    assert_eq!(cluster.shares("my-app"), ["v1 0 %, v2 100 %, v3 0 %"]);
    cluster.set("my-app", "v2", "v3", "5", &plan());
    assert_eq!(cluster.shares("my-app"), ["v1 0 %, v2 95 %, v3 5 %"]);
    assert_eq!(cluster.abort("my-app", "v2", "v3"), [""; 0]);
    assert_eq!(cluster.shares("my-app"), ["v1 0 %, v2 100 %, v3 0 %"]);
    assert_eq!(cluster.see(|n| n.routes()[0].mark.clone()).as_deref(), Some("r-1"));
    let patch = cluster.see(|n| n.remove_version(&object("my-app"), &version("v1"))).expect("v1 retires");
    cluster.patch("my-app", &patch);
    assert_eq!(cluster.shares("my-app"), ["v2 100 %, v3 0 %"]);
    assert_eq!(cluster.codes(), [""; 0]);
}

#[test]
fn versions_are_found_by_labels_and_new_subsets_get_slugs() {
    let rule = {
        let mut rule = article_rule();
        rule["spec"]["subsets"] = json!([{"name": "blue", "labels": {"version": "1.9.0"}}]);
        rule
    };
    let mut cluster = Cluster::new(&[of(json!([route(&[("my-app", "blue", Value::Null)])]))], &[rule], &["1.9.0", "2.0.0"]);
    assert_eq!(cluster.shares("my-app"), ["1.9.0 100 %"]);
    cluster.ensure_subset("1.9.0", "2.0.0");
    cluster.ensure_destination("my-app", "1.9.0", "2.0.0");
    cluster.set("my-app", "1.9.0", "2.0.0", "0.5%", &plan());
    assert_eq!(cluster.shares("my-app"), ["1.9.0 99.5 %, 2.0.0 0.5 %"]);
    assert_eq!(cluster.routes[0]["spec"]["http"][0]["route"][1]["destination"]["subset"], "2-0-0-xc402547fad");
}

#[test]
fn a_subset_told_apart_by_another_label_is_known_by_its_pods() {
    let mut rule = article_rule();
    rule["spec"]["subsets"] = json!([{"name": "old", "labels": {"track": "stable"}}, {"name": "v2", "labels": {"version": "v2"}}]);
    let mut cluster =
        Cluster::new(&[of(json!([route(&[("my-app", "old", json!(90)), ("my-app", "v2", json!(10))])]))], &[rule], &["v1", "v2"]);
    cluster.pods[0].1.insert("track".into(), "stable".into());
    assert_eq!(cluster.shares("my-app"), ["v1 90 %, v2 10 %"]);
    assert_eq!(cluster.see(|n| n.rules()).subsets, [version("v1"), version("v2")]);
    cluster.set("my-app", "v1", "v2", "25", &plan());
    assert_eq!(cluster.shares("my-app"), ["v1 75 %, v2 25 %"]);
}

#[test]
fn a_gateway_and_mesh_pair_is_one_release_in_order_of_age() {
    let named = |name: &str, created: &str, gateways: Value| {
        let mut vs = article();
        vs["metadata"]["name"] = json!(name);
        vs["metadata"]["creationTimestamp"] = json!(created);
        vs["spec"]["gateways"] = gateways;
        vs
    };
    let (front, inner) =
        (named("front", "2026-01-02T00:00:00Z", json!(["my-gateway"])), named("inner", "2026-01-01T00:00:00Z", json!(["mesh"])));
    let mut cluster = Cluster::new(&[front.clone(), inner.clone()], &[article_rule()], &["v1", "v2"]);
    assert_eq!(cluster.codes(), [""; 0]);
    assert_eq!(cluster.see(|n| n.routes().into_iter().map(|r| r.object.name).collect::<Vec<_>>()), ["inner", "front"]);
    cluster.set("front", "v1", "v2", "50", &plan());
    assert_eq!(
        (cluster.shares("front"), cluster.shares("inner")),
        (["v1 50 %, v2 50 %".to_string()].into(), ["v1 90 %, v2 10 %".to_string()].into())
    );
    let clash =
        Cluster::new(&[named("front", "2026-01-02T00:00:00Z", json!(["my-gateway", "mesh"])), inner], &[article_rule()], &["v1", "v2"]);
    assert_eq!(clash.codes(), ["SameHost"]);
    assert!(clash.see(|n| n.obstacle()).is_some_and(|o| o.code == "SameHost" && o.what.contains("the older one wins entirely")));
}

#[test]
fn delegates_are_managed_and_their_roots_watched() {
    let mut root = article();
    root["metadata"]["name"] = json!("root");
    root["spec"] = json!({"hosts": ["shop.example.com"], "gateways": ["front"], "http": [{"match": [{"uri": {"prefix": "/app"}}], "delegate": {"name": "part"}}, {"route": [{"destination": {"host": "web"}}]}]});
    let mut part = article();
    part["metadata"]["name"] = json!("part");
    part["spec"].as_object_mut().expect("a spec").remove("hosts");
    let mut lost = part.clone();
    lost["metadata"]["name"] = json!("lost");
    let mut rival = root.clone();
    rival["metadata"]["name"] = json!("rival");
    let mut cluster = Cluster::new(&[root.clone(), part.clone(), lost.clone()], &[article_rule()], &["v1", "v2"]);
    assert_eq!(cluster.codes(), [""; 0]);
    assert_eq!(
        cluster.see(|n| n.routes().into_iter().map(|r| r.object.name).collect::<Vec<_>>()),
        ["part"],
        "what nobody delegates to is left alone"
    );
    cluster.set("part", "v1", "v2", "50", &plan());
    assert_eq!(cluster.shares("part"), ["v1 50 %, v2 50 %"]);
    cluster.selection = [Selection { name: "lost".into(), routes: Vec::new() }].into();
    assert_eq!(cluster.codes(), ["UnusedDelegate"]);
    assert_eq!(Cluster::new(&[lost], &[article_rule()], &["v1"]).codes(), ["UnusedDelegate"]);
    assert_eq!(Cluster::new(&[root, part, rival], &[article_rule()], &["v1"]).codes(), ["SameHost"], "the root has a rival");
}

#[test]
fn testers_keep_their_header_route_and_callers_of_stable_come_along() {
    let h = "my-app";
    let matched = |subset: &str, header: &str| {
        let mut pin = route(&[(h, subset, Value::Null)]);
        pin["match"] = json!([{"headers": {header: {"exact": "true"}}}]);
        pin
    };
    let vs = of(json!([matched("v2", "x-beta"), matched("v1", "x-api"), route(&[(h, "v1", json!(100)), (h, "v2", json!(0))])]));
    for stable in [None, Some(version("v1"))] {
        let mut cluster = Cluster::new(core::slice::from_ref(&vs), &[article_rule()], &["v1", "v2"]);
        cluster.stable = stable;
        assert_eq!(cluster.shares("my-app"), ["v1 100 %", "v1 100 %, v2 0 %"]);
        cluster.ensure_destination("my-app", "v1", "v2");
        cluster.stable = Some(version("v1"));
        cluster.set("my-app", "v1", "v2", "100", &plan());
        assert_eq!(cluster.shares("my-app"), ["v1 0 %, v2 100 %", "v1 0 %, v2 100 %"]);
        assert_eq!(cluster.abort("my-app", "v1", "v2"), [""; 0], "the pin is no failure of the abort");
        assert_eq!(cluster.routes[0]["spec"]["http"][0], vs["spec"]["http"][0]);
    }
}

#[test]
fn a_delegate_for_testers_is_a_pin_too() {
    let h = "my-app";
    let delegate = |name: &str, route: Value| {
        let mut vs = of(json!([route]));
        vs["metadata"]["name"] = json!(name);
        vs["spec"].as_object_mut().expect("a spec").remove("hosts");
        vs
    };
    let mut root = article();
    root["metadata"]["name"] = json!("root");
    root["spec"]["http"] = json!([
        {"match": [{"headers": {"x-beta": {"exact": "true"}}}], "delegate": {"name": "beta"}},
        {"delegate": {"name": "all"}},
    ]);
    let all = delegate("all", route(&[(h, "v1", json!(90)), (h, "v2", json!(10))]));
    let cluster = Cluster::new(&[root, delegate("beta", route(&[(h, "v2", Value::Null)])), all], &[article_rule()], &["v1", "v2"]);
    assert_eq!((cluster.shares("beta"), cluster.shares("all")), ([].into(), ["v1 90 %, v2 10 %".to_string()].into()));
    assert_eq!(cluster.see(|n| n.routes().len()), 1);
}

#[test]
fn calls_inside_the_mesh_are_known_to_bypass_a_gateways_route() {
    let route_of =
        |routes: &[Value]| Cluster::new(routes, &[article_rule()], &["v1", "v2"]).see(|n| n.mesh_route().map(|name| name.name.clone()));
    assert_eq!(route_of(&[article()]), None, "the article's trap");
    let mut mended = article();
    mended["spec"]["gateways"] = json!(["my-gateway", "mesh"]);
    assert_eq!(route_of(core::slice::from_ref(&mended)).as_deref(), Some("my-app"));
    let mut wide = article();
    wide["metadata"]["name"] = json!("wide");
    wide["spec"]["hosts"] = json!(["*.default.svc.cluster.local"]);
    wide["spec"].as_object_mut().expect("a spec").remove("gateways");
    assert_eq!(route_of(&[wide.clone(), article()]).as_deref(), Some("wide"));
    assert_eq!(route_of(&[wide.clone(), mended]).as_deref(), Some("my-app"), "the more specific host wins");
    wide["spec"]["exportTo"] = json!(["elsewhere"]);
    assert_eq!(route_of(&[wide]), None);
}

#[test]
fn a_plain_route_is_a_problem_or_a_split_to_be_made() {
    let vs = of(json!([route(&[("my-app", "", Value::Null)])]));
    let mut cluster = Cluster::new(core::slice::from_ref(&vs), &[], &["v1", "v2"]);
    assert_eq!(cluster.codes(), ["PlainRoute"]);
    cluster.manage_route = true;
    cluster.permission = Permission::First;
    assert_eq!((cluster.codes(), cluster.shares("my-app")), ([].into(), [String::new()].into()));
    assert!(cluster.see(|n| n.ensure_destination(&object("my-app"), &version("v1"), &version("v2"))).is_err(), "subsets first");
    cluster.ensure_subset("v1", "v2");
    cluster.ensure_destination("my-app", "v1", "v2");
    assert_eq!(cluster.shares("my-app"), ["v1 100 %, v2 0 %"]);
    let mut joined =
        Cluster::new(&[vs], &[json!({"metadata": {"name": "r", "namespace": "default"}, "spec": {"host": "my-app"}})], &["v1", "v2"]);
    joined.manage_route = true;
    joined.ensure_subset("v1", "v2");
    assert_eq!(joined.see(|n| n.rules()).subsets.len(), 2, "stable needs one too");
}

#[test]
fn problems_of_all_kinds_are_told_at_once() {
    let mut vs = article();
    vs["spec"]["tcp"] = json!([{"route": [{"destination": {"host": "my-app"}}]}]);
    vs["metadata"]["ownerReferences"] = json!([{"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": "my-app"}]);
    let mut cluster = Cluster::new(&[vs], &[article_rule()], &["v1", "v2"]);
    assert_eq!(cluster.codes(), ["NotHttp", "OtherController"]);
    assert_eq!(cluster.abort("my-app", "v1", "v2"), [""; 0], "an abort goes on in spite of them");
    assert_eq!(cluster.shares("my-app"), ["v1 100 %, v2 0 %"]);
    cluster.selection =
        [Selection { name: "gone".into(), routes: Vec::new() }, Selection { name: "my-app".into(), routes: ["primary".into()].into() }]
            .into();
    assert_eq!(cluster.codes(), ["NoVirtualService", "UnknownRoute", "OtherController"]);
}

#[test]
fn what_nearly_sends_to_the_service_is_said_only_if_nothing_does() {
    let mut near = of(json!([route(&[("my-app.default", "v1", Value::Null)])]));
    near["metadata"]["name"] = json!("near");
    near["spec"]["hosts"] = json!(["near"]);
    assert_eq!(Cluster::new(core::slice::from_ref(&near), &[], &["v1"]).codes(), ["HalfHost"]);
    assert_eq!(Cluster::new(&[near, article()], &[article_rule()], &["v1"]).codes(), [""; 0]);
    assert_eq!(Cluster::new(&[], &[], &["v1"]).codes(), [""; 0], "none at all is for decide to say");
}

#[test]
fn senders_and_callers_in_other_namespaces_are_named() {
    let mut vs = of(json!([route(&[("my-app.default.svc.cluster.local", "v1", Value::Null)])]));
    vs["metadata"]["namespace"] = json!("edge");
    vs["spec"]["hosts"] = json!(["shop.example.com"]);
    let mut blind = article_rule();
    blind["metadata"]["namespace"] = json!("shop");
    blind["spec"]["host"] = json!("my-app.default.svc.cluster.local");
    blind["spec"]["subsets"] = json!([{"name": "v1", "labels": {"version": "v1"}}]);
    let cluster = Cluster::new(&[article(), vs], &[article_rule(), blind], &["v1", "v2"]);
    cluster.see(|network| {
        assert_eq!(network.elsewhere(), [ObjectName { namespace: "edge".into(), name: "my-app".into() }]);
        assert_eq!((network.callers_without(&version("v2")), network.callers_without(&version("v1"))), (["shop"].into(), [].into()));
    });
}

#[test]
fn a_decision_on_an_older_object_moves_nothing() {
    let cluster = Cluster::new(&[article()], &[article_rule()], &["v1", "v2"]);
    let guard = Guard::Forward { resource_version: "40".into() };
    let problems =
        cluster.see(|n| n.set_weights(&object("my-app"), &version("v1"), &version("v2"), weight("50"), &guard, &[])).expect_err("stale");
    assert_eq!(problems.iter().map(|p| p.code()).collect::<Vec<_>>(), ["Changed"]);
    let problems =
        cluster.see(|n| n.set_weights(&object("gone"), &version("v1"), &version("v2"), weight("50"), &guard, &[])).expect_err("gone");
    assert_eq!(problems.iter().map(|p| p.code()).collect::<Vec<_>>(), ["NoVirtualService"]);
}

#[test]
fn an_abort_works_without_any_rule() {
    let mut cluster = Cluster::new(&[article()], &[], &["v1", "v2"]);
    assert_eq!(cluster.abort("my-app", "v1", "v2"), [""; 0]);
    assert_eq!(cluster.shares("my-app"), ["v1 100 %, v2 0 %"]);
}

#[test]
fn a_version_of_several_subsets_loses_them_all() {
    let mut rule = article_rule();
    rule["spec"]["subsets"].as_array_mut().expect("subsets").push(json!({"name": "v2-b", "labels": {"version": "v2", "app": "my-app"}}));
    let h = "my-app";
    let mut cluster =
        Cluster::new(&[of(json!([route(&[(h, "v1", json!(80)), (h, "v2", json!(15)), (h, "v2-b", json!(5))])]))], &[rule], &["v1", "v2"]);
    assert_eq!(cluster.shares("my-app"), ["v1 80 %, v2 20 %"]);
    let guard = Guard::Forward { resource_version: "41".into() };
    let problems = cluster
        .see(|n| n.set_weights(&object("my-app"), &version("v1"), &version("v2"), weight("50"), &guard, &[]))
        .expect_err("which of them?");
    assert_eq!(problems[0].code(), "NamedTwice");
    assert_eq!(cluster.abort("my-app", "v1", "v2"), [""; 0]);
    assert_eq!(cluster.shares("my-app"), ["v1 100 %, v2 0 %"]);
}

#[test]
fn totals_are_stated_before_the_first_step() {
    let vs = of(json!([
        route(&[("my-app", "v1", json!(80)), ("my-app", "v2", json!(0)), ("legacy", "", json!(20))]),
        route(&[("my-app", "v1", json!(1)), ("my-app", "v2", json!(0))])
    ]));
    let cluster = Cluster::new(&[vs], &[article_rule()], &["v1", "v2"]);
    let totals = cluster.see(|n| n.totals(&version("v1"), &version("v2"), &["1", "0.5%", "100"].map(weight))).expect("totals");
    assert_eq!(
        totals.iter().map(|(place, total)| (place.field.as_str(), *total)).collect::<Vec<_>>(),
        [("spec.http[0]", 1000), ("spec.http[1]", 1000)]
    );
}

proptest! {
    #[test]
    fn shares_sum_to_the_whole_or_are_all_zero(weights in prop::collection::vec(0_u32..5000, 2..6)) {
        let names: Vec<String> = (1..=weights.len()).map(|n| alloc::format!("v{n}")).collect();
        let entries: Vec<(&str, &str, Value)> = names.iter().zip(&weights).map(|(n, w)| ("my-app", n.as_str(), json!(w))).collect();
        let versions: Vec<&str> = names.iter().map(String::as_str).collect();
        let cluster = Cluster::new(&[of(json!([route(&entries)]))], &[], &versions);
        let sum: u32 = cluster.see(|n| n.routes()[0].splits[0].shares.iter().map(|(_, w)| w.parts()).sum());
        prop_assert_eq!(sum, if weights.iter().all(|w| *w == 0) { 0 } else { Weight::WHOLE });
    }

    #[test]
    fn every_step_of_a_rollout_shows_the_share_that_was_asked_for(
        steps in prop::collection::vec(0_u32..=100_000, 1..6),
        start in (1_u32..2000, 0_u32..2000, 0_u32..50),
        abort in any::<bool>(),
    ) {
        let h = "my-app";
        let vs = of(json!([route(&[(h, "v1", json!(start.0)), (h, "v2", json!(start.1)), ("legacy", "", json!(start.2))])]));
        let mut cluster = Cluster::new(&[vs], &[article_rule()], &["v1", "v2"]);
        let steps: Vec<Weight> = steps.into_iter().map(|p| Weight::from_parts(p).expect("a weight")).collect();
        if cluster.see(|n| n.totals(&version("v1"), &version("v2"), &steps)).is_err() {
            return Ok(());
        }
        for step in &steps {
            cluster.set("my-app", "v1", "v2", &step.to_string().replace(' ', ""), &steps);
            let seen = cluster.see(|n| n.routes()[0].splits[0].share(&version("v2")));
            prop_assert_eq!(seen, Some(*step));
        }
        if abort {
            cluster.abort("my-app", "v1", "v2");
            prop_assert_eq!(cluster.see(|n| n.routes()[0].splits[0].share(&version("v2"))), Some(Weight::ZERO));
        }
    }
}

#[test]
fn a_destination_is_shown_as_a_diff_first() {
    let mut cluster = Cluster::new(&[article()], &[article_rule()], &["v1", "v2", "v3"]);
    cluster.ensure_subset("v2", "v3");
    let patch = cluster.see(|n| n.ensure_destination(&object("my-app"), &version("v2"), &version("v3"))).expect("a patch");
    assert_eq!(describe(&patch), ["spec.http[0] route: with v3 at 0"]);
}
