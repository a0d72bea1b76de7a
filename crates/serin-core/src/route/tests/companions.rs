//! DestinationRules as callers see them, and Serin's own.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::RouteProblem;
use super::super::companion::{Permission, Reach, SubsetPlan, SubsetRemoval, Version, ensure_subset, remove_subset, uses};
use super::super::rules::{Labels, callers_without, effective};
use super::super::{Target, describe};
use super::{apply, article, my_app};

const ROOT: &str = "istio-system";

fn rule(name: &str, namespace: &str, host: &str, created: u32, subsets: &[&str]) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1beta1", "kind": "DestinationRule",
        "metadata": {"name": name, "namespace": namespace, "resourceVersion": "7", "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z")},
        "spec": {"host": host, "subsets": subsets.iter().map(|s| json!({"name": s, "labels": {"version": s}})).collect::<Vec<_>>()},
    })
}

fn with(mut rule: Value, field: &str, value: Value) -> Value {
    rule["spec"][field] = value;
    rule
}

fn names(rules: &[Value], caller: &str) -> Option<Vec<String>> {
    effective(rules, caller, ROOT, &my_app())
        .map(|rules| rules.used().map_or(Vec::new(), |group| group.subsets.iter().map(|s| s.name.clone()).collect()))
}

fn ensure(rules: &[Value], canary: &str, permission: Permission) -> Result<SubsetPlan, RouteProblem> {
    ensure_subset(rules, ROOT, &my_app(), &Version::new("version", "v1"), &Version::new("version", canary), Reach::Canary, permission)
}

#[test]
fn the_callers_namespace_comes_first_then_the_services_then_the_roots() {
    let full = my_app().fqdn();
    let mesh_wide = rule("all", ROOT, "*.local", 1, &["root"]);
    let own = rule("own", "default", "my-app", 2, &["v1", "v2"]);
    let callers = rule("theirs", "shop", &full, 3, &["theirs"]);
    let all = [mesh_wide.clone(), own.clone(), callers];
    assert_eq!(names(&all, "shop"), Some(["theirs".into()].into()));
    assert_eq!(names(&all, "default"), Some(["v1".into(), "v2".into()].into()));
    assert_eq!(names(&all, "elsewhere"), Some(["v1".into(), "v2".into()].into()));
    assert_eq!(names(&[mesh_wide], "elsewhere"), Some(["root".into()].into()));
    assert_eq!(names(&[rule("short", "shop", "my-app", 1, &["x"])], "shop"), None, "a short host is of the rule's own namespace");
    assert_eq!(callers_without(&all, ROOT, &my_app(), "v2"), ["shop"]);
}

#[test]
fn a_pattern_in_the_callers_namespace_beats_an_exact_host_elsewhere() {
    let all = [
        rule("own", "default", "my-app", 1, &["v1"]),
        rule("pattern", "shop", "*.default.svc.cluster.local", 2, &["p"]),
        rule("wider", "shop", "*", 3, &["w"]),
    ];
    assert_eq!(names(&all, "shop"), Some(["p".into()].into()));
    assert_eq!(names(&all, "default"), Some(["v1".into()].into()));
    // A pattern may be as long as the host that it covers.
    let all = [rule("own", "default", "my-app", 1, &["v1"]), rule("long", "default", "*y-app.default.svc.cluster.local", 2, &["l"])];
    assert_eq!(names(&all, "default"), Some(["v1".into()].into()));
}

#[test]
fn export_to_hides_rules() {
    let private = with(rule("own", "default", "my-app", 1, &["v1"]), "exportTo", json!(["."]));
    assert_eq!(names(core::slice::from_ref(&private), "default"), Some(["v1".into()].into()));
    assert_eq!(names(&[private], "shop"), None);
    let given = with(rule("own", "default", "my-app", 1, &["v1"]), "exportTo", json!(["shop"]));
    assert_eq!(names(core::slice::from_ref(&given), "shop"), Some(["v1".into()].into()));
    assert_eq!(names(&[given], "default"), None);
}

#[test]
fn rules_of_one_host_merge_oldest_first_and_a_name_keeps_its_first_meaning() {
    let mut second = rule("b", "default", &my_app().fqdn(), 2, &["v2", "v1"]);
    second["spec"]["subsets"][1]["labels"] = json!({"version": "other"});
    second["spec"]["trafficPolicy"] = json!({"loadBalancer": {"simple": "RANDOM"}});
    let all = [second, rule("a", "default", "my-app", 1, &["v1"])];
    let rules = effective(&all, "default", ROOT, &my_app()).expect("rules");
    let group = rules.used().expect("a group");
    assert_eq!(rules.find_subset("v1").map(|s| (s.labels["version"].as_str(), s.rule.name.as_str())), Some(("v1", "a")));
    assert_eq!(group.unheard.iter().map(|(subset, rule)| (subset.as_str(), rule.name.as_str())).collect::<Vec<_>>(), [("v1", "b")]);
    assert_eq!(group.traffic_policy, Some(json!({"loadBalancer": {"simple": "RANDOM"}})));
    assert_eq!(group.members.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn a_version_is_found_by_the_labels_of_its_pods() {
    let mut own = rule("own", "default", "my-app", 1, &[]);
    own["spec"]["subsets"] = json!([
        {"name": "narrow", "labels": {"version": "v1", "app": "my-app"}},
        {"name": "everything", "labels": {}},
        {"name": "pinned", "labels": {"version": "v2", "zone": "a"}},
        {"name": "current", "labels": {"version": "v2", "app": "my-app"}},
        {"name": "bare", "labels": {"version": "v1"}},
    ]);
    let rules = effective(&[own], "default", ROOT, &my_app()).expect("rules");
    let find = |pods: &[(&str, &str)]| {
        let pods: Labels = pods.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        rules.subset_for("version", &pods).map(|s| s.name.clone())
    };
    assert_eq!(find(&[("version", "v2"), ("app", "my-app")]).as_deref(), Some("current"));
    assert_eq!(find(&[("version", "v1"), ("app", "my-app")]).as_deref(), Some("bare"));
    assert_eq!(find(&[("version", "v2")]), None, "pods without app are not selected by it");
    assert_eq!(find(&[("app", "my-app")]), None);
}

#[test]
fn a_missing_subset_goes_into_a_rule_of_serins_own() {
    let mut own = rule("my-app", "default", "my-app", 1, &["v1", "v2"]);
    own["spec"]["trafficPolicy"] = json!({"connectionPool": {"http": {"http2MaxRequests": 9}}});
    own["spec"]["exportTo"] = json!(["default", "shop"]);
    own["spec"]["subsets"][0]["trafficPolicy"] = json!({"loadBalancer": {"simple": "ROUND_ROBIN"}, "unknown": 1.5});
    let plan = ensure(core::slice::from_ref(&own), "3.0", Permission::Join).expect("a plan");
    let SubsetPlan::Create { subset, rule: created } = plan else { panic!("{plan:?}") };
    assert_eq!(
        created,
        json!({
            "apiVersion": "networking.istio.io/v1beta1", "kind": "DestinationRule",
            "metadata": {"name": "my-app-serin", "namespace": "default", "labels": {"app.kubernetes.io/managed-by": "serin"}},
            "spec": {"host": "my-app", "exportTo": ["default", "shop"], "subsets": [
                {"name": subset, "labels": {"version": "3.0"}, "trafficPolicy": {"loadBalancer": {"simple": "ROUND_ROBIN"}, "unknown": 1.5}},
            ]},
        })
    );
    let mut created = created;
    created["metadata"]["resourceVersion"] = json!("8");
    created["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:30Z");
    let all = [own, created];
    assert_eq!(ensure(&all, "3.0", Permission::Nothing), Ok(SubsetPlan::Present { subset }), "once it is there, callers see it");
    assert_eq!(callers_without(&all, ROOT, &my_app(), "v2"), [""; 0]);
    let plan = ensure(&all, "v4", Permission::Join).expect("a plan");
    let SubsetPlan::Extend { rule: name, patch, .. } = &plan else { panic!("{plan:?}") };
    assert_eq!((name.name.as_str(), describe(patch)), ("my-app-serin", [r#"spec.subsets: with v4 {"version":"v4"}"#.to_string()].into()));
    let extended = apply(&all[1], patch).expect("it applies");
    assert_eq!(names(&[all[0].clone(), extended], "shop").map(|n| n.len()), Some(4));
}

#[test]
fn a_rule_is_not_written_where_it_would_change_more_than_it_says() {
    let own = || rule("my-app", "default", "my-app", 1, &["v1"]);
    let selected = with(rule("b", "default", "my-app", 2, &["v1"]), "workloadSelector", json!({"matchLabels": {"app": "front"}}));
    let mut foreign = rule("my-app-serin", "default", "my-app", 3, &["x"]);
    foreign["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "Helm"});
    let mut taken = own();
    taken["spec"]["subsets"].as_array_mut().expect("subsets").push(json!({"name": "v3", "labels": {"track": "beta"}}));
    let table: Vec<(Vec<Value>, Permission, &str)> = [
        (Vec::new(), Permission::Join, "NoRule"),
        (Vec::new(), Permission::Nothing, "NoSubset"),
        ([own()].into(), Permission::Nothing, "NoSubset"),
        ([rule("all", ROOT, "*.local", 1, &[])].into(), Permission::Join, "RuleElsewhere"),
        ([rule("pattern", "default", "*.default.svc.cluster.local", 1, &[])].into(), Permission::Join, "RuleElsewhere"),
        ([own(), with(rule("b", "default", "my-app", 2, &["v1"]), "exportTo", json!(["."]))].into(), Permission::First, "RulesDiffer"),
        ([own(), selected.clone()].into(), Permission::First, "RulesDiffer"),
        ([selected].into(), Permission::First, "RulesDiffer"),
        ([own(), foreign].into(), Permission::First, "NotOurs"),
        ([taken].into(), Permission::First, "SubsetTaken"),
    ]
    .into();
    for (rules, permission, code) in table {
        let problem = ensure(&rules, "v3", permission).expect_err(code);
        assert_eq!(problem.code(), code, "{problem}");
    }
    // Two rules that differ in nothing that matters are one to Istio.
    let twice = [own(), with(rule("b", "default", &my_app().fqdn(), 2, &["v2"]), "exportTo", json!(["*"]))];
    assert!(matches!(ensure(&twice, "v3", Permission::Join), Ok(SubsetPlan::Create { .. })));
}

#[test]
fn a_first_rule_keeps_what_a_wider_one_asked_for() {
    let mesh_wide = with(rule("all", ROOT, "*.local", 1, &[]), "trafficPolicy", json!({"tls": {"mode": "ISTIO_MUTUAL"}}));
    let plan = ensure(&[mesh_wide], "v2", Permission::First).expect("a plan");
    let SubsetPlan::Create { rule, .. } = plan else { panic!("{plan:?}") };
    assert_eq!(
        rule["spec"],
        json!({
            "host": "my-app.default.svc.cluster.local", "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}},
            "subsets": [{"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}],
        })
    );
}

#[test]
fn a_subset_goes_only_when_nothing_names_it() {
    let mut own = rule("my-app-serin", "default", "my-app", 1, &["v2", "v3"]);
    own["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "serin"});
    let vs = article();
    let problem = remove_subset(&own, &my_app(), "v2", core::slice::from_ref(&vs)).expect_err("the article's route names v2");
    assert_eq!(problem.code(), "SubsetInUse");
    let removal = remove_subset(&own, &my_app(), "v3", core::slice::from_ref(&vs)).expect("unused");
    let SubsetRemoval::Patch(patch) = removal else { panic!("{removal:?}") };
    let after = apply(&own, &patch).expect("it applies");
    assert_eq!(after["spec"]["subsets"].as_array().map(Vec::len), Some(1));
    assert_eq!(describe(&patch), ["spec.subsets: without v3"]);
    assert_eq!(remove_subset(&after, &my_app(), "v3", &[] as &[Value]), Ok(SubsetRemoval::Absent));
    let last = remove_subset(&after, &my_app(), "v2", &[] as &[Value]);
    assert!(
        matches!(&last, Ok(SubsetRemoval::Delete { resource_version }) if Some(resource_version.as_str()) == after["metadata"]["resourceVersion"].as_str()),
        "{last:?}"
    );
    let theirs = rule("my-app", "default", "my-app", 1, &["v3"]);
    assert_eq!(remove_subset(&theirs, &my_app(), "v3", &[] as &[Value]).expect_err("not ours").code(), "NotOurs");
}

#[test]
fn mirrors_and_lower_layers_use_subsets_too() {
    let mut vs = article();
    vs["spec"]["http"][0]["mirror"] = json!({"host": "my-app", "subset": "shadow"});
    vs["spec"]["tcp"] = json!([{"route": [{"destination": {"host": "my-app", "subset": "raw"}}]}]);
    let all = [vs];
    for (subset, place) in [("shadow", "spec.http[0]"), ("raw", "spec.tcp[0]"), ("v1", "spec.http[0]")] {
        let places: Vec<String> = uses(&all, &Target::subset(&my_app(), subset)).into_iter().map(|p| p.field).collect();
        assert_eq!(places, [place], "{subset}");
    }
    assert!(uses(&all, &Target::subset(&my_app(), "v9")).is_empty());
}

proptest! {
    #[test]
    fn what_is_created_is_seen_by_whoever_saw_stable(
        exports in prop::sample::select(alloc::vec![json!(null), json!(["*"]), json!(["."]), json!(["default", "shop"])]),
        policy in any::<bool>(), full in any::<bool>(), versions in prop::collection::btree_set("[a-zA-Z0-9]([a-zA-Z0-9._-]{0,20}[a-zA-Z0-9])?", 1..5),
    ) {
        let host = if full { my_app().fqdn() } else { "my-app".to_string() };
        let mut own = rule("my-app", "default", &host, 1, &["v1"]);
        if !exports.is_null() {
            own["spec"]["exportTo"] = exports;
        }
        if policy {
            own["spec"]["trafficPolicy"] = json!({"tls": {"mode": "DISABLE"}});
        }
        let mut all = alloc::vec![own];
        for version in versions.iter().filter(|v| *v != "v1") {
            match ensure(&all, version, Permission::Join).expect("a plan") {
                SubsetPlan::Present { .. } => prop_assert!(false, "{} cannot be there", version),
                SubsetPlan::Create { mut rule, .. } => {
                    prop_assert_eq!(all.len(), 1);
                    rule["metadata"]["resourceVersion"] = json!("9");
                    rule["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:59Z");
                    all.push(rule);
                }
                SubsetPlan::Extend { patch, .. } => all[1] = apply(&all[1], &patch).expect("it applies"),
            }
            let there = matches!(ensure(&all, version, Permission::Nothing), Ok(SubsetPlan::Present { .. }));
            prop_assert!(there);
        }
        for caller in ["default", "shop", "elsewhere"] {
            let (before, after) = (effective(&all[..1], caller, ROOT, &my_app()), effective(&all, caller, ROOT, &my_app()));
            prop_assert_eq!(before.is_some(), after.is_some());
            if let (Some(before), Some(after)) = (before, after) {
                prop_assert_eq!(after.groups.len(), 1);
                prop_assert_eq!(&after.groups[0].traffic_policy, &before.groups[0].traffic_policy);
                prop_assert_eq!(after.groups[0].subsets.len(), versions.iter().filter(|v| *v != "v1").count() + 1);
                prop_assert_eq!(after.find_subset("v1"), before.find_subset("v1"));
            }
        }
    }
}
