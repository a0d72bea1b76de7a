//! What is read from VirtualServices, the odd ones included.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::host::{covers, resolve};
use super::super::{Role, RouteProblem, ServiceName, Share, look, survey};
use super::{arms, article, my_app, of, route};

fn codes(vs: &Value, only: Option<&[String]>) -> Vec<&'static str> {
    look(vs, &my_app(), only).problems.iter().map(RouteProblem::code).collect()
}

fn named(mut route: Value, name: &str, matched: bool) -> Value {
    route["name"] = json!(name);
    if matched {
        route["match"] = json!([{"uri": {"prefix": "/api"}}]);
    }
    route
}

#[test]
fn the_articles_split_is_read() {
    let splits = survey(&article(), &my_app(), None).expect("a split");
    assert_eq!(splits.len(), 1);
    let split = &splits[0];
    assert_eq!((split.index, split.total, split.matched, split.shadowed_by), (0, 100, false, None));
    assert_eq!(
        (split.share_of("v1"), split.share_of("v2"), split.share_of("v3")),
        (Share::new(9, 10).expect("a share"), Share::new(1, 10).expect("a share"), Share::NONE)
    );
    assert_eq!((split.role(&arms("v1", "v2")), split.role(&arms("v2", "v3"))), (Role::Both, Role::StableOnly));
    assert_eq!((split.role(&arms("v3", "v1")), split.role(&arms("v3", "v4"))), (Role::CanaryOnly, Role::Neither));
    assert_eq!(split.subsets(), ["v1", "v2"]);
    assert_eq!(split.destinations[1].host, "my-app.default.svc.cluster.local");
}

#[test]
fn hosts_are_read_as_istio_reads_them() {
    let table = [
        ("my-app", "shop", "my-app.shop.svc.cluster.local"),
        ("My-App", "shop", "my-app.shop.svc.cluster.local"),
        ("my-app.default", "shop", "my-app.default"),
        ("my-app.default.svc.cluster.local", "shop", "my-app.default.svc.cluster.local"),
        ("*", "shop", "*"),
        ("*.example.com", "shop", "*.example.com"),
        ("10.0.0.1", "shop", "10.0.0.1"),
        ("::1", "shop", "::1"),
        ("", "shop", ""),
    ];
    for (written, namespace, host) in table {
        assert_eq!(resolve(written, namespace), host, "{written}");
    }
    let table = [
        ("*", "a.b", true),
        ("*.b", "a.b", true),
        ("*.b", ".b", false),
        ("*.b", "b", false),
        ("a.b", "a.b", true),
        ("a.b", "c.b", false),
        ("*.b", "a.c", false),
    ];
    for (pattern, host, covered) in table {
        assert_eq!(covers(pattern, host), covered, "{pattern} {host}");
    }
}

#[test]
fn a_delegates_short_names_are_of_its_own_namespace() {
    let mut vs = article();
    vs["metadata"]["namespace"] = json!("other");
    vs["spec"].as_object_mut().expect("a spec").remove("hosts");
    assert_eq!(codes(&vs, None), ["NoRoute"]);
    assert!(survey(&vs, &ServiceName::new("my-app", "other"), None).is_ok());
}

#[test]
fn routes_without_destinations_are_passed_over() {
    let h = "my-app";
    let vs = of(json!([
        {"name": "old", "match": [{"uri": {"exact": "/old"}}], "redirect": {"uri": "/new"}},
        {"name": "ping", "match": [{"uri": {"exact": "/ping"}}], "directResponse": {"status": 200}},
        {"name": "cart", "match": [{"uri": {"prefix": "/cart"}}], "delegate": {"name": "cart", "namespace": "shop"}},
        named(route(&[("other", "v1", json!(1))]), "other", true),
        named(route(&[(h, "v1", json!(90)), (h, "v2", json!(10))]), "primary", false),
    ]));
    assert_eq!(
        survey(&vs, &my_app(), None).map(|splits| splits.iter().map(|s| s.label()).collect::<Vec<_>>()),
        Ok(["spec.http[4] \"primary\"".to_string()].into())
    );
    let only = ["old", "ping", "cart", "other", "primary", "nope"].map(String::from);
    let problems = survey(&vs, &my_app(), Some(&only)).expect_err("five names that cannot be meant");
    let texts: Vec<String> = problems.iter().map(RouteProblem::to_string).collect();
    for part in [
        "it redirects",
        "it answers directly",
        "it delegates to shop/cart",
        "it sends to other",
        "no http route named \"nope\" (it has \"old\", \"ping\"",
    ] {
        assert!(texts.iter().any(|text| text.contains(part)), "{part}: {texts:?}");
    }
    assert_eq!(texts.len(), 5);
}

#[test]
fn plain_routes_are_refused_by_name() {
    let h = "my-app";
    assert_eq!(codes(&of(json!([route(&[(h, "", Value::Null)])])), None), ["PlainRoute"]);
    assert_eq!(codes(&of(json!([route(&[(h, "", json!(50)), ("legacy", "", json!(50))])])), None), ["PlainRoute"]);
    assert_eq!(codes(&of(json!([route(&[(h, "", json!(1)), (h, "v1", json!(1))])])), None), ["MixedRoute"]);
    assert_eq!(codes(&of(json!([route(&[(h, "", json!(0)), (h, "v1", json!(1))])])), None), [""; 0]);
    let mixed = of(json!([
        named(route(&[(h, "", Value::Null)]), "health", true),
        named(route(&[(h, "v1", json!(1)), (h, "v2", json!(1))]), "primary", false)
    ]));
    let found = look(&mixed, &my_app(), None);
    assert_eq!((found.splits.len(), found.problems.len()), (1, 1), "the split is found beside the problem");
    assert_eq!(
        found.problems[0].to_string(),
        "VirtualService default/my-app spec.http[0] \"health\" sends to my-app.default.svc.cluster.local without a subset, so callers get every version by number of pods and no weight applies: give the destination a subset, or set spec.traffic.manageRoute: true"
    );
    assert!(survey(&mixed, &my_app(), Some(&["primary".to_string()])).is_ok());
}

#[test]
fn layers_below_http_are_refused_unless_routes_are_named() {
    let mut vs = of(json!([named(route(&[("my-app", "v1", json!(1)), ("my-app", "v2", json!(1))]), "primary", false)]));
    vs["spec"]["tcp"] =
        json!([{"route": [{"destination": {"host": "other"}}]}, {"route": [{"destination": {"host": "my-app", "subset": "v1"}}]}]);
    vs["spec"]["tls"] = json!([{"match": [{"sniHosts": ["a"]}], "route": [{"destination": {"host": "my-app"}}]}]);
    let problems = survey(&vs, &my_app(), None).expect_err("tcp and tls");
    let places: Vec<String> = problems.iter().map(|p| p.to_string().split(" sends").next().unwrap_or_default().to_string()).collect();
    assert_eq!(places, ["VirtualService default/my-app spec.tcp[1]", "VirtualService default/my-app spec.tls[0]"]);
    assert!(survey(&vs, &my_app(), Some(&["primary".to_string()])).is_ok());
}

#[test]
fn a_half_written_host_is_told_from_none() {
    let half = of(json!([route(&[("my-app.default", "v1", json!(1)), ("my-app.default", "v2", json!(1))])]));
    let problems = survey(&half, &my_app(), None).expect_err("literal");
    assert!(problems.iter().all(|p| p.code() == "HalfHost"), "{problems:?}");
    assert_eq!(codes(&of(json!([route(&[("legacy", "", Value::Null)])])), None), ["NoRoute"]);
    for http in [
        json!([]),
        json!(null),
        json!({}),
        json!("x"),
        json!([null, 7, "x", [], {"route": null}, {"route": [null, 7, {"destination": 3}]}]),
    ] {
        assert_eq!(codes(&of(http), None), ["NoRoute"]);
    }
    assert_eq!(codes(&json!(null), None), ["NoRoute"]);
}

#[test]
fn a_single_destination_has_everything_whatever_it_says() {
    for weight in [Value::Null, json!(0), json!(7), json!(100)] {
        let splits = survey(&of(json!([route(&[("my-app", "v1", weight)])])), &my_app(), None).expect("a split");
        assert_eq!((splits[0].share_of("v1"), splits[0].canary_share(&arms("v1", "v2"))), (Share::WHOLE, Some(Share::NONE)));
    }
}

#[test]
fn a_route_behind_one_that_takes_everything_is_seen_as_such() {
    let h = "my-app";
    let split = || route(&[(h, "v1", json!(1)), (h, "v2", json!(1))]);
    let with = |condition: Value| {
        let mut first = split();
        first["match"] = condition;
        survey(&of(json!([first, split(), split()])), &my_app(), None).expect("splits").iter().map(|s| s.shadowed_by).collect::<Vec<_>>()
    };
    for condition in [
        json!([]),
        json!([{}]),
        json!([{"uri": {"prefix": "/"}}]),
        json!([{"uri": {"prefix": "/a"}}, {"name": "all"}]),
        json!([{"uri": {"regex": ".*"}}]),
    ] {
        assert_eq!(with(condition), [None, Some(0), Some(0)]);
    }
    for condition in [
        json!([{"uri": {"prefix": "/api"}}]),
        json!([{"uri": {"prefix": "/"}, "headers": {"x": {"exact": "1"}}}]),
        json!([{"port": 80}]),
        json!([null]),
    ] {
        assert_eq!(with(condition), [None, None, Some(1)]);
    }
}

#[test]
fn mirrors_are_seen_and_left() {
    let mut mirrored = route(&[("my-app", "v1", json!(1)), ("my-app", "v2", json!(0))]);
    mirrored["mirror"] = json!({"host": "my-app", "subset": "v2"});
    mirrored["mirrors"] = json!([{"destination": {"host": "shadow"}, "percentage": {"value": 10}}]);
    let splits = survey(&of(json!([mirrored])), &my_app(), None).expect("a split");
    assert_eq!(
        splits[0].mirrors,
        [("my-app.default.svc.cluster.local".to_string(), Some("v2".to_string())), ("shadow.default.svc.cluster.local".to_string(), None)]
    );
}

#[test]
fn a_weight_that_is_none_is_a_problem_of_its_route_alone() {
    let h = "my-app";
    let vs = of(json!([route(&[("legacy", "", json!("a lot"))]), route(&[(h, "v1", json!("90")), (h, "v2", json!(10))])]));
    let problems = survey(&vs, &my_app(), None).expect_err("a weight");
    assert_eq!(problems.len(), 1);
    assert_eq!(
        problems[0].to_string(),
        "VirtualService default/my-app spec.http[1].route[0] has the weight \"90\", which is no whole number from 0 to 2147483647: correct it"
    );
}

/// JSON of any shape, with the field names that the module reads.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(alloc::vec!["my-app", "v1", "v2", "mesh", "*", "", ".", "my-app.default", "~1", "a/b"]).prop_map(Value::from),
        "[a-z./*]{0,12}".prop_map(Value::from),
    ];
    let key = prop::sample::select(alloc::vec![
        "metadata",
        "spec",
        "http",
        "tcp",
        "tls",
        "route",
        "destination",
        "host",
        "hosts",
        "subset",
        "subsets",
        "weight",
        "name",
        "namespace",
        "match",
        "uri",
        "prefix",
        "gateways",
        "exportTo",
        "labels",
        "annotations",
        "resourceVersion",
        "managedFields",
        "fieldsV1",
        "f:spec",
        "delegate",
        "mirror",
        "mirrors",
        "port",
        "number",
        "trafficPolicy",
        "workloadSelector",
        "matchLabels",
        "ownerReferences",
        "version",
        "apiVersion",
        "kind",
    ]);
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|fields| fields.into_iter().map(|(k, v)| (k.to_string(), v)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn a_host_is_covered_as_its_resolved_name_is(host in r"\*?([a-cA-C]{0,3}\.?){0,3}(\.svc\.cluster\.local|local|svc)?", name in "[a-c]{1,2}", namespace in "[a-c]{1,2}", of in "[a-c]{1,2}") {
        let service = ServiceName::new(name, namespace);
        for host in [host.as_str(), &service.fqdn(), &service.name, &alloc::format!("*{}", &service.fqdn()[1..]), "*"] {
            prop_assert_eq!(service.is_covered_by(host, &of), covers(&resolve(host, &of), &service.fqdn()), "{} in {}", host, of);
        }
    }

    #[test]
    fn no_json_makes_anything_panic(mut object in any_json(), http in any_json(), other in any_json()) {
        use super::super::{Guard, abort, add_destination, bind_mesh, companion, conflict, mark, owner, remove_destination, rules, set_share, split_plain};
        use crate::units::Weight;
        if let Some(fields) = object.as_object_mut() {
            fields.insert("spec".into(), json!({"http": [http.clone(), {"route": http}], "hosts": ["my-app"], "host": "my-app"}));
        }
        let arms = arms("v1", "v2");
        let found = look(&object, &my_app(), None);
        prop_assert!(!(found.splits.is_empty() && found.problems.is_empty()));
        for index in 0..3 {
            for guard in [Guard::Forward, Guard::Back] {
                let _ = set_share(&object, index, &arms, Weight::ALL, 100, guard);
                let _ = add_destination(&object, &[index], &arms, guard);
                let _ = split_plain(&object, &[index], &arms, guard);
                let _ = remove_destination(&object, &[index], &arms.canary, guard);
            }
        }
        let _ = abort(&object, None, &arms, Some(crate::route::Mark { rollout: "r", why: "worse" }));
        let _ = mark(&object, crate::route::Mark { rollout: "r", why: "worse" });
        let _ = bind_mesh(&object, &my_app());
        let both = [object, other];
        let _ = conflict::same_host(&both, &[]);
        let _ = both.iter().map(|vs| conflict::roots_of(&both, vs).len()).sum::<usize>();
        for vs in &both {
            let _ = owner::other_controller(vs);
            let _ = owner::last_weight_manager(vs);
            let _ = companion::remove_subset(vs, &my_app(), "v1", &both);
        }
        let service = my_app();
        let pods = [(crate::units::VersionName::new("v1").expect("a version"), companion::Version::new("version", "v1").pod_labels)];
        let world = super::super::World {
            service: &service,
            version_label: "version",
            pods: &pods,
            virtual_services: &both,
            destination_rules: &both,
            root_namespace: "istio-system",
            selection: &[],
            stable: None,
            manage_route: true,
            permission: companion::Permission::First,
        };
        let network = world.read();
        let (version, other) = (&pods[0].0, crate::units::VersionName::new("v2").expect("a version"));
        for route in network.routes() {
            let guard = crate::action::Guard::Forward { resource_version: route.resource_version.clone() };
            let _ = network.set_weights(&route.object, version, &other, Weight::ALL, &guard, &[]);
            let done = network.set_weights(&route.object, version, &other, Weight::ZERO, &crate::action::Guard::Abort { rollout: "r".into(), why: "worse".into() }, &[]);
            prop_assert!(done.is_ok());
            let _ = network.ensure_destination(&route.object, version, &other);
            let _ = network.remove_version(&route.object, version);
        }
        let _ = (network.rules(), network.obstacle(), network.callers_without(version), network.totals(version, &other, &[Weight::ALL]));
        let _ = rules::callers_without(&both, "istio-system", &my_app(), "v1");
        let (stable, canary) = (companion::Version::new("version", "v1"), companion::Version::new("version", "v2"));
        for permission in [companion::Permission::Nothing, companion::Permission::Join, companion::Permission::First] {
            let _ = companion::ensure_subset(&both, "istio-system", &my_app(), &stable, &canary, companion::Reach::Both, permission);
        }
    }
}
