//! An index gives what matters and leaves out what does not.

use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::companion::{Permission, Version};
use super::super::index::{DestinationRules, VirtualServices};
use super::super::rules::Labels;
use super::super::{Selection, ServiceName, World};
use super::{article, my_app};
use crate::units::{ObjectName, VersionName};

fn host() -> impl Strategy<Value = &'static str> {
    prop::sample::select(alloc::vec![
        "my-app",
        "my-app.default",
        "my-app.default.svc",
        "my-app.default.svc.cluster.local",
        "other",
        "*",
        "*.default.svc.cluster.local",
        "shop.example.com",
        "*.example.com",
        "My-App",
    ])
}

fn some_namespace() -> impl Strategy<Value = &'static str> {
    prop::sample::select(alloc::vec!["default", "default", "shop", "istio-system"])
}

fn a_virtual_service() -> impl Strategy<Value = Value> {
    let hosts = prop::collection::vec(host(), 0..3);
    let routes = prop::collection::vec(
        (prop::option::of(host()), prop::option::of(prop::sample::select(alloc::vec!["v1", "v2"])), any::<bool>()),
        0..3,
    );
    let gateways = prop::sample::select(alloc::vec![json!(null), json!(["front"]), json!(["mesh", "shop/front"]), json!(["mesh"])]);
    (0..6_u8, some_namespace(), hosts, routes, gateways, 0..60_u8).prop_map(|(name, namespace, hosts, routes, gateways, age)| {
        let route = |(to, subset, matched): &(Option<&str>, Option<&str>, bool)| {
            let mut route = match to {
                Some(host) => json!({"route": [{"destination": {"host": host, "subset": subset}, "weight": 3}, {"destination": {"host": host, "subset": "v2"}, "weight": 1}]}),
                None => json!({"delegate": {"name": format!("vs-{}", (name + 1) % 6)}}),
            };
            if *matched {
                route["match"] = json!([{"uri": {"prefix": "/a"}}]);
            }
            route
        };
        json!({
            "metadata": {"name": format!("vs-{name}"), "namespace": namespace, "resourceVersion": "1", "creationTimestamp": format!("2026-01-01T00:00:{age:02}Z")},
            "spec": {"hosts": hosts, "gateways": gateways, "http": routes.iter().map(route).collect::<Vec<_>>()},
        })
    })
}

fn a_rule() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(alloc::vec!["a", "b", "my-app-serin"]);
    let exports = prop::sample::select(alloc::vec![json!(null), json!(["."]), json!(["*"])]);
    (name, some_namespace(), host(), exports, prop::sample::select(alloc::vec!["v1", "v2"]), 0..60_u8).prop_map(
        |(name, namespace, host, exports, subset, age)| {
            json!({
                "metadata": {"name": name, "namespace": namespace, "creationTimestamp": format!("2026-01-01T00:00:{age:02}Z")},
                "spec": {"host": host, "exportTo": exports, "subsets": [{"name": subset, "labels": {"version": subset}}]},
            })
        },
    )
}

/// Everything that a network tells, as text.
fn told(
    service: &ServiceName,
    routes: &[Arc<Value>],
    rules: &[Arc<Value>],
    selection: &[Selection],
    manage_route: bool,
) -> alloc::string::String {
    let version = |name: &str| (VersionName::new(name).expect("a version"), Version::new("version", name).pod_labels);
    let pods: [(VersionName, Labels); 2] = [version("v1"), version("v2")];
    let world = World {
        service,
        version_label: "version",
        pods: &pods,
        virtual_services: routes,
        destination_rules: rules,
        root_namespace: "istio-system",
        selection,
        stable: None,
        manage_route,
        permission: Permission::Join,
    };
    let network = world.read();
    let problems: Vec<_> = network.problems().iter().map(ToString::to_string).collect();
    let plan = network.ensure_subset(&pods[0].0, &pods[1].0);
    format!(
        "{:#?}",
        (network.routes(), network.rules(), problems, network.elsewhere(), network.mesh_route(), network.callers_without(&pods[1].0), plan)
    )
}

proptest! {
    #[test]
    fn what_an_index_gives_reads_as_everything_does(
        routes in prop::collection::vec(a_virtual_service(), 0..10),
        rules in prop::collection::vec(a_rule(), 0..8),
        gone in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        selected in prop::option::of(0..6_u8),
        manage_route in any::<bool>(),
    ) {
        let mut routes: Vec<Arc<Value>> = routes.into_iter().map(Arc::new).collect();
        let mut rules: Vec<Arc<Value>> = rules.into_iter().map(Arc::new).collect();
        let (mut virtual_services, mut destination_rules) = (VirtualServices::new(), DestinationRules::new());
        routes.iter().for_each(|vs| virtual_services.apply(vs.clone()));
        rules.iter().for_each(|rule| destination_rules.apply(rule.clone()));
        // Of several states of one object the last counts.
        let key = |object: &Arc<Value>| (object["metadata"]["namespace"].to_string(), object["metadata"]["name"].to_string());
        for objects in [&mut routes, &mut rules] {
            let all = objects.clone();
            let mut place = 0;
            objects.retain(|object| {
                place += 1;
                !all[place..].iter().any(|later| key(later) == key(object))
            });
        }
        for index in gone.iter().filter(|_| !routes.is_empty()).map(|index| index.index(routes.len())).collect::<Vec<_>>() {
            if index < routes.len() {
                let vs = routes.remove(index);
                let text = |field: &str| vs["metadata"][field].as_str().unwrap_or_default().to_string();
                virtual_services.remove(&ObjectName { namespace: text("namespace"), name: text("name") });
            }
        }
        let selection: Vec<Selection> = selected.iter().map(|n| Selection { name: format!("vs-{n}"), routes: Vec::new() }).collect();
        let service = my_app();
        let indexed = told(&service, &virtual_services.of(&service, &selection), &destination_rules.of(&service), &selection, manage_route);
        prop_assert_eq!(indexed, told(&service, &routes, &rules, &selection, manage_route));
    }
}

#[test]
fn what_does_not_matter_is_left_out() {
    let (mut virtual_services, mut destination_rules) = (VirtualServices::new(), DestinationRules::new());
    for n in 0..50 {
        let mut vs = article();
        vs["metadata"]["name"] = json!(format!("app-{n}"));
        vs["spec"]["hosts"] = json!([format!("app-{n}")]);
        for entry in vs["spec"]["http"][0]["route"].as_array_mut().expect("a route") {
            entry["destination"]["host"] = json!(format!("app-{n}"));
        }
        virtual_services.apply(Arc::new(vs));
        destination_rules.apply(Arc::new(
            json!({"metadata": {"name": format!("app-{n}"), "namespace": "default"}, "spec": {"host": format!("app-{n}")}}),
        ));
    }
    let service = ServiceName::new("app-7", "default");
    assert_eq!((virtual_services.of(&service, &[]).len(), destination_rules.of(&service).len()), (1, 1));
    let name = ObjectName { namespace: "default".into(), name: "app-7".into() };
    assert!(virtual_services.get(&name).is_some() && destination_rules.get(&name).is_some());
    virtual_services.remove(&name);
    destination_rules.remove(&name);
    assert_eq!((virtual_services.of(&service, &[]).len(), destination_rules.of(&service).len()), (0, 0));
}
