//! The CustomResourceDefinitions: schema, CEL rules and printed columns, in place of a webhook.
//!
//! Written out, not derived, because Kubernetes' structural schemas say more than Rust types do; a test holds the two
//! together. Bounds stand everywhere, as the API server estimates the cost of CEL rules from them, and patterns come
//! before CEL. Fields that nothing carries out yet stand in the schema so that they are refused by name, not pruned in
//! silence. What absence means stands in the descriptions, with the values of `convert`: defaults of a schema would be written
//! into each release, and no policy could ever say anything.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Map, Value, json};

use crate::convert::defaults;
use crate::names::{GROUP, KIND, PLURAL, POLICY_KIND, POLICY_PLURAL, VERSION};
use crate::values::{DURATION_PATTERN, FACTOR_PATTERN, GROWTH_PATTERN, NUMBER_PATTERN, PERCENT_PATTERN, WEIGHT_PATTERN};

/// A definition, as Kubernetes has it.
pub type Definition = CustomResourceDefinition;

fn column(name: &str, path: &str, kind: &str, about: &str) -> Value {
    json!({"name": name, "jsonPath": path, "type": kind, "priority": 0, "description": about})
}

/// The definition of CanaryRelease.
///
/// # Panics
/// Never, as a test builds it: the JSON below is the shape of a definition.
pub fn crd() -> CustomResourceDefinition {
    let columns = json!([
        column("Service", ".spec.service", "string", "The Service that both versions stand behind."),
        column("Stable", ".status.stable.version", "string", "The version that serves."),
        column("Canary", ".status.canary.version", "string", "The version on trial."),
        column("Weight", ".status.weight.set", "string", "The canary's share."),
        column("Phase", ".status.phase", "string", "Where the release stands."),
        column("Message", ".status.message", "string", "What it does, or waits for."),
        column("Age", ".metadata.creationTimestamp", "date", "Since the object was made."),
    ]);
    let names = json!({
        "kind": KIND, "listKind": format!("{KIND}List"), "plural": PLURAL, "singular": "canaryrelease",
        "shortNames": ["can"], "categories": ["serin"],
    });
    definition(PLURAL, &names, &columns, root(), true)
}

/// The definition of CanaryPolicy.
///
/// # Panics
/// Never, as a test builds it.
pub fn policy_crd() -> CustomResourceDefinition {
    let columns = json!([
        column("Freeze", ".spec.freeze", "string", "Why nothing moves forward."),
        column("Interval", ".spec.analysis.interval", "string", "How often metrics are read."),
        column("Confidence", ".spec.analysis.confidence", "string", "Of the whole rollout."),
        column("Age", ".metadata.creationTimestamp", "date", "Since the object was made."),
    ]);
    let names = json!({
        "kind": POLICY_KIND, "listKind": format!("{POLICY_KIND}List"), "plural": POLICY_PLURAL, "singular": "canarypolicy",
        "shortNames": ["canpol"], "categories": ["serin"],
    });
    definition(POLICY_PLURAL, &names, &columns, policy_root(), false)
}

fn definition(plural: &str, names: &Value, columns: &Value, schema: Value, status: bool) -> CustomResourceDefinition {
    let mut version = json!({
        "name": VERSION,
        "served": true,
        "storage": true,
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": schema},
    });
    if status {
        version["subresources"] = json!({"status": {}});
    }
    let value = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{GROUP}")},
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    });
    serde_json::from_value(value).expect("the definition has the shape of a definition")
}

/// All definitions.
pub fn definitions() -> [CustomResourceDefinition; 2] {
    [crd(), policy_crd()]
}

/// One definition as YAML, ready for `kubectl apply -f -`.
pub fn yaml(definition: &CustomResourceDefinition) -> String {
    let value = serde_json::to_value(definition).unwrap_or_default();
    let yaml = serde_saphyr::to_string(&value).unwrap_or_default();
    format!("# Made by `serin install --crds`; `UPDATE=1 cargo test -p serin-api` writes it anew.\n{yaml}")
}

/// All definitions as YAML, ready for `kubectl apply -f -`.
pub fn crds() -> String {
    definitions().map(|d| yaml(&d)).join("---\n")
}

fn root() -> Value {
    about(
        "A canary release of one Service: which versions, in which steps, and how it is decided.",
        json!({
            "type": "object",
            "required": ["spec"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object"},
                "spec": spec(),
                "status": status(),
            },
        }),
    )
}

// Building blocks.

fn about(text: &str, mut schema: Value) -> Value {
    if let Some(object) = schema.as_object_mut() {
        let more = object.get("description").and_then(Value::as_str).map(|more| format!(" {more}")).unwrap_or_default();
        object.insert("description".into(), format!("{text}{more}").into());
    }
    schema
}

/// Says what absence means. It is no default of the schema: the API server would write that into each release, where it would win
/// over the policy.
fn with_default(default: impl Into<Value>, mut schema: Value) -> Value {
    let default = default.into();
    if let Some(object) = schema.as_object_mut().filter(|_| !default.as_object().is_some_and(Map::is_empty)) {
        let before = object.get("description").and_then(Value::as_str).map(|before| format!("{before} ")).unwrap_or_default();
        let shown = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
        object.insert("description".into(), format!("{before}Absent: what the policy says, else {shown}.").into());
    }
    schema
}

fn object<const N: usize>(properties: [(&str, Value); N]) -> Value {
    let properties: Map<String, Value> = properties.into_iter().map(|(name, schema)| (name.to_string(), schema)).collect();
    json!({"type": "object", "properties": properties})
}

fn required(names: &[&str], mut schema: Value) -> Value {
    schema["required"] = json!(names);
    schema
}

fn rules(rules: &[(&str, &str, Option<&str>)], mut schema: Value) -> Value {
    let rules = rules.iter().map(|(rule, message, path)| {
        let mut value = json!({"rule": rule, "message": message});
        if let Some(path) = path {
            value["fieldPath"] = json!(path);
        }
        value
    });
    schema["x-kubernetes-validations"] = rules.collect();
    schema
}

fn string(max: u32) -> Value {
    json!({"type": "string", "maxLength": max})
}

fn name(max: u32) -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": max, "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"})
}

fn label_value() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"})
}

fn one_of(words: &[&str]) -> Value {
    json!({"type": "string", "enum": words})
}

fn duration() -> Value {
    json!({"type": "string", "minLength": 2, "maxLength": 32, "pattern": DURATION_PATTERN})
}

fn percent() -> Value {
    json!({"type": "string", "maxLength": 9, "pattern": PERCENT_PATTERN})
}

fn factor() -> Value {
    json!({"type": "string", "maxLength": 8, "pattern": FACTOR_PATTERN})
}

fn selector() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 2048})
}

fn int_or_string(pattern: &str) -> Value {
    json!({
        "x-kubernetes-int-or-string": true,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "minimum": 0, "maximum": 100, "maxLength": 9, "pattern": pattern,
    })
}

fn anything() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

fn anythings() -> Value {
    json!({"type": "array", "maxItems": 32, "items": anything()})
}

fn list(max: u32, items: Value) -> Value {
    json!({"type": "array", "maxItems": max, "items": items})
}

fn map_by_name(max: u32, items: Value) -> Value {
    json!({"type": "array", "maxItems": max, "items": items, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]})
}

fn not_yet(schema: Value) -> Value {
    about("Not supported yet: refused by name.", schema)
}

// The spec.

fn spec() -> Value {
    let spec = object([
        ("service", about("The Service that both versions stand behind.", name(63))),
        ("version", with_default(json!({}), version())),
        (
            "trigger",
            about(
                "What starts a rollout while version.desired is absent: a Deployment that appears behind the Service or changes its template (Automatic), or nothing (Manual).",
                with_default("Automatic", one_of(&["Automatic", "Manual"])),
            ),
        ),
        (
            "suspend",
            about(
                "The owner's brake: nothing moves forward, and no request overrides it.",
                with_default(false, json!({"type": "boolean"})),
            ),
        ),
        (
            "mode",
            about(
                "Act sets weights. Observe decides and records, and touches nothing: whoever moves the weights goes on doing so.",
                with_default("Act", one_of(&["Act", "Observe"])),
            ),
        ),
        (
            "deletionPolicy",
            about(
                "Leave: when this object is deleted, traffic stays exactly where it is. ReturnToStable: a rollout that runs is taken back first, for which the object carries a finalizer.",
                with_default("Leave", one_of(&["Leave", "ReturnToStable"])),
            ),
        ),
        ("traffic", with_default(json!({}), traffic())),
        ("scaling", with_default(json!({}), scaling())),
        ("steps", with_default(serde_json::to_value(defaults::steps()).unwrap_or_default(), steps())),
        ("promotion", with_default(json!({}), promotion())),
        ("analysis", with_default(json!({}), analysis())),
        (
            "policy",
            about(
                "The CanaryPolicy of this namespace that says what this release does not. Absent: the one named default in the controller's namespace, if there is one.",
                name(253),
            ),
        ),
        ("hooks", not_yet(anythings())),
        ("notify", not_yet(anythings())),
    ]);
    let no = |field: &str| (format!("!has(self.{field})"), format!("not supported yet: spec.{field}"), format!(".{field}"));
    let refusals: Vec<_> = ["hooks", "notify"].map(no).to_vec();
    let all: Vec<(&str, &str, Option<&str>)> = refusals.iter().map(|(r, m, p)| (r.as_str(), m.as_str(), Some(p.as_str()))).collect();
    required(&["service"], rules(&all, about("What the owner of the Service asks for.", spec)))
}

fn version() -> Value {
    let label = json!({"type": "string", "minLength": 1, "maxLength": 317, "pattern": "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"});
    about(
        "How versions are told apart, and which one is wanted.",
        object([
            ("label", about("The label of the pods whose value is the version.", with_default(defaults::LABEL, label))),
            ("desired", about("The version wanted. Absent: the trigger decides.", label_value())),
        ]),
    )
}

fn traffic() -> Value {
    let virtual_service = required(
        &["name"],
        object([
            ("name", about("Name of the VirtualService, in this namespace.", name(253))),
            (
                "routes",
                about(
                    "Names of its http routes. Absent: all that send to the Service.",
                    json!({"type": "array", "maxItems": 32, "items": {"type": "string", "minLength": 1, "maxLength": 253}, "x-kubernetes-list-type": "set"}),
                ),
            ),
        ]),
    );
    let schema = object([
        ("settle", about("After a weight change, requests count for harm only, this long.", with_default(defaults::SETTLE, duration()))),
        (
            "virtualServices",
            about(
                "The VirtualServices to edit. Absent: all routes in the namespace that send to the Service.",
                map_by_name(16, virtual_service),
            ),
        ),
        (
            "destinationRule",
            about(
                "Where a subset that lacks is written: into Serin's own DestinationRule for the same host (Companion), or nowhere (Existing).",
                with_default("Companion", one_of(&["Companion", "Existing"])),
            ),
        ),
        (
            "manageRoute",
            about(
                "Whether Serin may change the structure of routes: add mesh, or turn a plain route into a split.",
                with_default(false, json!({"type": "boolean"})),
            ),
        ),
        ("match", not_yet(anythings())),
        ("mirror", not_yet(int_or_string(WEIGHT_PATTERN))),
        ("destinations", not_yet(anything())),
    ]);
    about(
        "Where and how weights are set.",
        rules(
            &[
                ("!has(self.match)", "not supported yet: spec.traffic.match", Some(".match")),
                ("!has(self.mirror)", "not supported yet: spec.traffic.mirror", Some(".mirror")),
                ("!has(self.destinations)", "not supported yet: spec.traffic.destinations", Some(".destinations")),
            ],
            schema,
        ),
    )
}

fn scaling() -> Value {
    let schema = object([
        (
            "canary",
            about(
                "How the canary gets pods for its share: raised before each step (ByWeight), never written (Wait), raised to stable's number at once (Full).",
                with_default("ByWeight", one_of(&["ByWeight", "Wait", "Full"])),
            ),
        ),
        (
            "retireAfter",
            about(
                "So long after a promotion the Deployment that was replaced is deleted, unless a GitOps tool applies it. Absent: never.",
                duration(),
            ),
        ),
    ]);
    about("How the canary gets its pods.", schema)
}

fn steps() -> Value {
    let step = object([
        (
            "weight",
            about("The canary's share of the requests: a whole number of percent, or a string as \"0.5%\".", int_or_string(WEIGHT_PATTERN)),
        ),
        ("hold", about("The least time at this weight. Absent: 1m.", duration())),
        ("confirm", about("Leave only once the canary is shown fit by every metric.", json!({"type": "boolean"}))),
        (
            "graded",
            about(
                "For a confirm step with maxWait, but not the last: a coarser margin may do, the smallest of 1, 2, 5, 10, 20 times the plan's (none above 5 points) that can be shown in that time.",
                json!({"type": "boolean"}),
            ),
        ),
        ("maxWait", about("For a confirm step: after this long without an answer, analysis.onInconclusive applies.", duration())),
        (
            "pause",
            about(
                "Stay at the weight of the step before, until someone promotes, or for a time.",
                object([("for", about("Absent: until someone promotes.", duration()))]),
            ),
        ),
    ]);
    let step = rules(
        &[
            (
                "has(self.weight) != has(self.pause)",
                "a step is either a weight or a pause: write {weight: 10, hold: 2m} or {pause: {}}",
                None,
            ),
            (
                "!has(self.pause) || !(has(self.hold) || has(self.confirm) || has(self.graded) || has(self.maxWait))",
                "hold, confirm, graded and maxWait belong to a step with a weight; a pause takes {for: 1h}",
                None,
            ),
            (
                "!has(self.weight) || string(self.weight).matches('^[0-9]{1,2}([.][0-9]{1,3})?%?$')",
                "a weight is from 0 to 99 percent: at 100 there is nothing to compare with, and promotion sets it after the last step",
                Some(".weight"),
            ),
            (
                "!has(self.graded) || !self.graded || (has(self.confirm) && self.confirm && has(self.maxWait))",
                "a graded margin is for what a confirm step asks, and is chosen to fit into its maxWait: add confirm: true and maxWait, or leave graded out",
                Some(".graded"),
            ),
            (
                "!has(self.maxWait) || (has(self.confirm) && self.confirm)",
                "only a confirm step waits for an answer: add confirm: true, or leave maxWait out",
                Some(".maxWait"),
            ),
        ],
        step,
    );
    let mut steps = list(32, step);
    steps["minItems"] = json!(1);
    steps["x-kubernetes-list-type"] = json!("atomic");
    about(
        "The way from no weight to the whole; weights never go down, and 100 comes by itself after the last step.",
        rules(&[("self.exists(s, has(s.weight))", "no step has a weight: write at least one, as {weight: 10, hold: 2m}", None)], steps),
    )
}

fn promotion() -> Value {
    about(
        "The last stretch.",
        object([(
            "bake",
            about(
                "How long the canary is watched with the whole weight before it is the new stable.",
                with_default(defaults::BAKE, duration()),
            ),
        )]),
    )
}

fn analysis() -> Value {
    let error_rate = rules(
        &[
            ("has(self.margin) || has(self.max)", "write margin (compared with stable) or max (a limit of its own)", None),
            (
                "!(has(self.max) && (has(self.margin) || has(self.ratio)))",
                "max is a limit of its own: write it as another metric beside the one with margin",
                None,
            ),
        ],
        object([
            ("margin", about("Points by which the canary may be worse than ratio times stable.", percent())),
            ("ratio", about("Factor on stable's share, at least 1. Absent: 1.", factor())),
            ("max", about("The highest share allowed, whatever stable does.", percent())),
        ]),
    );
    let latency = rules(
        &[
            (
                "has(self.quantile) || (has(self.slowerThan) && has(self.margin))",
                "write both slowerThan and margin, as {slowerThan: 500ms, margin: 1%}, or a quantile, as {quantile: \"0.99\", mayGrow: 20%}",
                None,
            ),
            (
                "!(has(self.quantile) && (has(self.slowerThan) || has(self.margin)))",
                "either a quantile that may grow, or slowerThan with its margin: write two metrics for both",
                None,
            ),
            (
                "has(self.quantile) || !(has(self.mayGrow) || has(self.strict))",
                "mayGrow and strict belong to a quantile: write {quantile: \"0.99\", mayGrow: 20%}",
                None,
            ),
        ],
        object([
            ("slowerThan", about("A bucket edge of Istio's histogram: requests that took longer are slow.", duration())),
            ("margin", about("Points by which the canary's share of slow requests may exceed stable's.", percent())),
            (
                "quantile",
                about(
                    "From 0 to 1, as 0.99: edges and margins are chosen by stable's own latency before the rollout, or in its first readings.",
                    json!({"type": "string", "maxLength": 8, "pattern": FACTOR_PATTERN}),
                ),
            ),
            (
                "mayGrow",
                about(
                    "By how much that quantile may grow. Absent: 20%.",
                    json!({"type": "string", "maxLength": 10, "pattern": GROWTH_PATTERN}),
                ),
            ),
            (
                "strict",
                about(
                    "Only claims that need no interpolation between bucket edges: it can take a canary back, and never show it fit. Absent: false.",
                    json!({"type": "boolean"}),
                ),
            ),
        ]),
    );
    let number = json!({"type": "string", "maxLength": 32, "pattern": NUMBER_PATTERN});
    let promql = rules(
        &[
            (
                "has(self.query) || (has(self.bad) && has(self.total) && has(self.margin))",
                "write a query with min or max, or the counters bad and total with a margin",
                None,
            ),
            ("!has(self.query) || has(self.min) || has(self.max)", "no limit: write min or max, as max: \"100\"", None),
            (
                "!has(self.query) || !(has(self.bad) || has(self.total) || has(self.margin) || has(self.ratio))",
                "bad, total, margin and ratio belong to two counters, and a query stands here: write two metrics for both",
                None,
            ),
            (
                "has(self.query) || !(has(self.min) || has(self.max) || has(self.failureLimit))",
                "min, max and failureLimit belong to a query: counters are compared with stable's, by margin",
                None,
            ),
        ],
        object([
            (
                "query",
                about(
                    "A query of Prometheus whose answer is one number; {{ canary.workload }}, {{ stable.workload }}, {{ canary.version }}, {{ stable.version }}, {{ namespace }}, {{ service }}, {{ interval }} and {{ rollout }} are put in.",
                    json!({"type": "string", "minLength": 1, "maxLength": 4096}),
                ),
            ),
            (
                "bad",
                about(
                    "Instead of a query: a counter of bad ones, as orders_failed_total{workload=\"{{ arm.workload }}\"}; it is read of each version, raw, and compared as requests are.",
                    selector(),
                ),
            ),
            ("total", about("The counter of all of them.", selector())),
            ("margin", about("With counters: points by which the canary may be worse than ratio times stable.", percent())),
            ("ratio", about("With counters: factor on stable's share, at least 1. Absent: 1.", factor())),
            ("min", about("Answers below are bad.", number.clone())),
            ("max", about("Answers above are bad.", number)),
            (
                "failureLimit",
                about(
                    "So many bad answers in a row take the canary back, and a step needs so many good ones. Absent: 3.",
                    json!({"type": "integer", "minimum": 1, "maximum": 1000}),
                ),
            ),
        ]),
    );
    let metric = rules(
        &[
            (
                "[has(self.errorRate), has(self.latency), has(self.promql)].filter(x, x).size() == 1",
                "a metric is exactly one of errorRate, latency, promql",
                None,
            ),
            (
                "!(has(self.promql) && has(self.promql.query) && has(self.warmup))",
                "a query has no warmup: it is asked for one number, and not for requests",
                None,
            ),
        ],
        required(
            &["name"],
            object([
                ("name", about("Its name, unique in the list.", name(63))),
                (
                    "errorRate",
                    about("Share of requests that fail: HTTP 5xx, and gRPC statuses other than 0, as callers see them.", error_rate),
                ),
                ("latency", about("Share of requests that are slow.", latency)),
                (
                    "promql",
                    about(
                        "A number that a query answers, with a limit: no test, and no promise about errors. Or two counters, which are tested as requests are.",
                        promql,
                    ),
                ),
                (
                    "warmup",
                    about(
                        "Requests are left out this long after a new weight is seen. Absent: nothing for error rates; for latency 30s, or three intervals where these are shorter.",
                        duration(),
                    ),
                ),
            ]),
        ),
    );
    let mut metrics = map_by_name(16, metric);
    metrics["minItems"] = json!(1);
    about(
        "How it is decided.",
        object([
            (
                "interval",
                about("How often the source is read. A gross fault takes two readings.", with_default(defaults::INTERVAL, duration())),
            ),
            ("source", about("Which source of metrics. Absent: the controller's only one.", string(63))),
            (
                "confidence",
                about(
                    "One number for the whole rollout: all metrics, steps and looks together.",
                    with_default(defaults::CONFIDENCE, percent()),
                ),
            ),
            ("onInconclusive", about("At a confirm step's maxWait.", with_default("Hold", one_of(&["Hold", "Promote", "Rollback"])))),
            ("onNoTraffic", about("When a step's hold is over and no request came.", with_default("Hold", one_of(&["Hold", "Proceed"])))),
            (
                "metrics",
                about(
                    "The questions asked of the traffic.",
                    with_default(serde_json::to_value(defaults::metrics()).unwrap_or_default(), metrics),
                ),
            ),
        ]),
    )
}

// The policy: what a release may say, but for what speaks of one release alone, and when nothing moves.

fn policy_root() -> Value {
    let window = required(
        &["from", "to"],
        object([
            (
                "days",
                about(
                    "Days on which it opens. Absent: every day.",
                    json!({"type": "array", "maxItems": 7, "items": one_of(&["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]), "x-kubernetes-list-type": "set"}),
                ),
            ),
            ("from", about("Opens, as 09:00.", time_of_day())),
            ("to", about("Closes, as 16:30. Not later than from: on the day after.", time_of_day())),
            (
                "timeZone",
                about(
                    "A name of the time zone database, as Europe/Berlin. Absent: UTC.",
                    json!({"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$"}),
                ),
            ),
        ]),
    );
    let mut windows = list(32, window);
    windows["x-kubernetes-list-type"] = json!("atomic");
    let source = required(
        &["name", "prometheus"],
        object([("name", about("As releases write it in analysis.source.", name(63))), ("prometheus", prometheus())]),
    );
    let mut spec = spec();
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("required");
        spec.insert(
            "description".into(),
            "Fields of a release, for all that do not write them themselves; and when nothing moves forward.".into(),
        );
    }
    for (at, field) in [
        ("", "service"),
        ("", "policy"),
        ("/properties/version", "desired"),
        ("/properties/traffic", "virtualServices"),
        ("/properties/traffic", "destinations"),
    ] {
        if let Some(fields) = spec.pointer_mut(&format!("{at}/properties")).and_then(Value::as_object_mut) {
            fields.remove(field);
        }
        let speaks = |rule: &Value| rule["rule"].as_str().is_some_and(|r| r.contains(&format!("self.{field})")));
        if let Some(rules) = spec.pointer_mut(&format!("{at}/x-kubernetes-validations")).and_then(Value::as_array_mut) {
            rules.retain(|rule| !speaks(rule));
        }
    }
    spec["properties"]["windows"] = about("When releases may move forward; going back is always allowed. Absent: at any time.", windows);
    spec["properties"]["sources"] = about(
        "What releases may name in analysis.source, besides what the controller's configuration has. The first is the one of those that name none.",
        map_by_name(16, source),
    );
    spec["properties"]["freeze"] =
        about("While set, nothing moves forward; the text says why.", json!({"type": "string", "minLength": 1, "maxLength": 1024}));
    about(
        "What releases take where they say nothing themselves, and when nothing may move forward.",
        json!({
            "type": "object",
            "required": ["spec"],
            "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}, "spec": spec},
        }),
    )
}

fn prometheus() -> Value {
    let headers = json!({"type": "object", "maxProperties": 16, "additionalProperties": string(1024)});
    required(
        &["url"],
        object([
            (
                "url",
                about(
                    "As http://prometheus.monitoring:9090, with the path below which its API is.",
                    json!({"type": "string", "maxLength": 1024, "pattern": "^https?://[^@/?#\\s]+(/[^?#\\s]*)?$"}),
                ),
            ),
            ("headers", about("Headers to send, as X-Scope-OrgID with the tenant. No token: this object may be read by many.", headers)),
            ("timeout", about("The longest that an answer may take. Absent: 10s.", duration())),
            (
                "delay",
                about("How far behind the clock it is asked, as a scrape is stored some time after its moment. Absent: 2s.", duration()),
            ),
            (
                "replicaLabels",
                about(
                    "Labels that tell copies of one Prometheus apart: each sample counts once.",
                    json!({"type": "array", "maxItems": 8, "items": string(128), "x-kubernetes-list-type": "set"}),
                ),
            ),
        ]),
    )
}

fn time_of_day() -> Value {
    json!({"type": "string", "minLength": 5, "maxLength": 5, "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"})
}

// The status: known fields for `kubectl explain`, and room for what a newer version writes.

fn open(mut schema: Value) -> Value {
    schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
    schema
}

fn status() -> Value {
    let whole = || json!({"type": "integer", "format": "int64"});
    let counts = || open(object([("requests", whole()), ("bad", whole())]));
    let version = || {
        open(object([("version", string(63)), ("workload", string(253)), ("hash", string(64)), ("ready", whole()), ("needed", whole())]))
    };
    let interval = || list(2, string(16));
    let metric = open(object([
        ("name", string(63)),
        ("verdict", string(32)),
        ("canary", counts()),
        ("stable", counts()),
        ("canaryInterval", interval()),
        ("stableInterval", interval()),
        ("moreRequests", whole()),
        ("timeNeeded", string(40)),
    ]));
    let limit = open(object([("name", string(63)), ("verdict", string(32)), ("last", string(40)), ("good", whole()), ("needed", whole())]));
    let handled =
        open(object([("id", string(253)), ("action", string(32)), ("who", string(253)), ("at", string(40)), ("refused", string(1024))]));
    let past = open(object([
        ("uid", string(253)),
        ("stable", string(63)),
        ("canary", string(63)),
        ("outcome", string(32)),
        ("why", string(4096)),
        ("started", string(40)),
        ("took", string(40)),
        ("served", open(object([("canary", counts()), ("stable", counts())]))),
        ("highest", string(16)),
    ]));
    let condition = required(
        &["type", "status", "lastTransitionTime", "reason", "message"],
        object([
            ("type", string(316)),
            ("status", one_of(&["True", "False", "Unknown"])),
            ("observedGeneration", whole()),
            ("lastTransitionTime", json!({"type": "string", "format": "date-time"})),
            ("reason", string(1024)),
            ("message", string(32768)),
        ]),
    );
    let mut conditions = list(16, condition);
    conditions["x-kubernetes-list-type"] = json!("map");
    conditions["x-kubernetes-list-map-keys"] = json!(["type"]);
    about(
        "What was measured, what was decided, and why.",
        open(object([
            ("observedGeneration", about("The generation of the spec that this status speaks of.", whole())),
            ("phase", about("Idle, Preparing, Progressing, Paused, Promoting, RollingBack or RolledBack.", string(32))),
            ("message", about("What it does, or waits for, in a sentence.", string(4096))),
            (
                "reasons",
                about("Every reason of the last decision.", list(64, open(object([("reason", string(63)), ("message", string(4096))])))),
            ),
            (
                "rollout",
                about(
                    "The rollout that runs.",
                    open(object([
                        ("uid", string(253)),
                        ("step", whole()),
                        ("steps", whole()),
                        ("since", string(40)),
                        ("started", string(40)),
                        ("remaining", string(40)),
                    ])),
                ),
            ),
            ("stable", about("The version that serves.", version())),
            ("canary", about("The version on trial.", version())),
            (
                "weight",
                about(
                    "The canary's share, as set and as seen.",
                    open(object([
                        ("set", string(16)),
                        ("seen", string(16)),
                        ("text", string(128)),
                        ("requests", open(object([("canary", whole()), ("stable", whole())]))),
                    ])),
                ),
            ),
            (
                "analysis",
                about(
                    "What the metrics show.",
                    open(object([("pValue", string(16)), ("metrics", list(16, metric)), ("limits", list(16, limit))])),
                ),
            ),
            (
                "checkpoint",
                about(
                    "What the controller remembers. Opaque; the only part of the status that it reads back.",
                    open(object([("format", whole()), ("data", string(262_144))])),
                ),
            ),
            ("handled", about("The last ten requests.", list(16, handled))),
            ("history", about("The last ten rollouts, newest last.", list(16, past))),
            (
                "retirable",
                about(
                    "Old versions that serve nobody and may be deleted.",
                    list(64, open(object([("version", string(63)), ("since", string(40))]))),
                ),
            ),
            ("conditions", about("Ready, Progressing, Stalled, Promoted.", conditions)),
        ])),
    )
}
