//! The stage: a story's world written to the lab's API as objects, and the real controller over them.
//!
//! There are no processes and no Envoy: pods are EndpointSlices, callers are arithmetic, and the world is the source of metrics.
//! Every request that changes something is recorded, and the controller can be killed before or after any of them.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http_body_util::BodyExt;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::client::Body;
use serde_json::{Value, json};
use serin_controller::{ArmQuery, Clock, Config, Cursor, MetricSource, Polled};
use serin_core::action::{Action, Guard};
use serin_core::observe::{RequestAction, Traffic};
use serin_core::units::{ObjectName, Timestamp, VersionName, Weight};
use serin_lab::store::{Key, Store};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::world::{START, Source, Story, World};

/// Where the controller is killed: the changing request of that number, counting from 0, does or does not take effect.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Crash {
    Before(usize),
    After(usize),
}

/// One request that changed something.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Seconds since the beginning.
    pub(crate) at: f64,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Value,
    pub(crate) status: u16,
}

impl Call {
    pub(crate) fn is_event(&self) -> bool {
        self.path.contains("/events")
    }
}

struct Shared {
    api: serin_lab::api::Api,
    calls: Mutex<Vec<Call>>,
    count: AtomicUsize,
    /// How many requests of any kind the controller made.
    requests: AtomicUsize,
    crash: Option<Crash>,
    crashed: AtomicBool,
    dead: Notify,
    changed: Notify,
    begin: Instant,
}

/// One story on stage.
pub(crate) struct Stage {
    shared: Arc<Shared>,
    actor: Arc<Actor>,
    pub(crate) clock: Clock,
}

/// How it went.
pub(crate) struct Ended {
    pub(crate) calls: Vec<Call>,
    pub(crate) release: Value,
    pub(crate) routes: Vec<Value>,
    pub(crate) deployments: BTreeMap<String, u32>,
    pub(crate) journal: String,
    pub(crate) requests: usize,
}

struct Actor {
    world: Mutex<World>,
    kube: kube::Client,
    shared: Arc<Shared>,
    /// What was last written of each object.
    written: tokio::sync::Mutex<BTreeMap<String, Value>>,
    journal: Mutex<Vec<String>>,
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

fn object(value: &Value) -> DynamicObject {
    serde_json::from_value(value.clone()).expect("an object")
}

/// A client that goes straight to the API; the controller's is watched and may be killed.
fn client(shared: &Arc<Shared>, watched: bool) -> kube::Client {
    let shared = shared.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let shared = shared.clone();
        async move {
            if !watched {
                return shared.api.router().oneshot(request).await.map_err(|never| match never {});
            }
            // Whether KEDA is there is asked now and then, whatever the number of releases.
            if !request.uri().path().starts_with("/apis/keda.sh") {
                shared.requests.fetch_add(1, Ordering::SeqCst);
            }
            if shared.crashed.load(Ordering::SeqCst) {
                return pending().await;
            }
            if request.method() == http::Method::GET {
                return shared.api.router().oneshot(request).await.map_err(|never| match never {});
            }
            let number = shared.count.fetch_add(1, Ordering::SeqCst);
            let die = async || {
                shared.crashed.store(true, Ordering::SeqCst);
                shared.dead.notify_one();
                pending::<()>().await;
            };
            if matches!(shared.crash, Some(Crash::Before(n)) if n == number) {
                die().await;
            }
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.expect("a body").to_bytes();
            let call = (parts.method.to_string(), parts.uri.path().to_owned(), serde_json::from_slice(&bytes).unwrap_or(Value::Null));
            let answer = shared.api.router().oneshot(http::Request::from_parts(parts, Body::from(bytes.to_vec()))).await.map_err(|never: std::convert::Infallible| match never {});
            let status = answer.as_ref().map_or(0, |a: &http::Response<_>| a.status().as_u16());
            let at = shared.begin.elapsed().as_secs_f64();
            shared.calls.lock().expect("calls").push(Call { at, method: call.0, path: call.1, body: call.2, status });
            shared.changed.notify_one();
            if matches!(shared.crash, Some(Crash::After(n)) if n == number) {
                die().await;
            }
            answer
        }
    });
    kube::Client::new(tower::ServiceBuilder::new().map_err(|e: std::io::Error| e).service(service), "default")
}

impl Stage {
    /// Sets the stage for a story.
    pub(crate) async fn new(story: &Story, crash: Option<Crash>) -> Self {
        let begin = Instant::now();
        let clock: Clock = Arc::new(move || {
            let ms = START.0 + i64::try_from(begin.elapsed().as_millis()).expect("a short story");
            jiff::Timestamp::from_millisecond(ms).expect("a time")
        });
        let api = serin_lab::api::Api::new(Store::new(clock.clone()));
        let shared = Arc::new(Shared {
            api,
            calls: Mutex::default(),
            count: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            crash,
            crashed: AtomicBool::new(false),
            dead: Notify::new(),
            changed: Notify::new(),
            begin,
        });
        let kube = client(&shared, false);
        let actor = Actor { world: Mutex::new(World::new(story)), kube, shared: shared.clone(), written: tokio::sync::Mutex::default(), journal: Mutex::default() };
        let actor = Arc::new(actor);
        actor.prepare(story).await;
        actor.push().await;
        Self { shared, actor, clock }
    }

    /// Lets the story happen, with the controller restarted should it be killed.
    pub(crate) async fn play(self, story: &Story) -> Ended {
        let end = self.shared.begin + Duration::from_secs_f64(story.minutes * 60.0);
        let acting = tokio::spawn({
            let actor = self.actor.clone();
            async move { actor.act().await }
        });
        loop {
            let stop = CancellationToken::new();
            let source = serin_controller::Source::Custom(Arc::new(WorldSource(self.actor.clone())));
            let config = Config { clock: self.clock.clone(), namespace: None, source };
            let run = serin_controller::run(client(&self.shared, true), config, stop.clone());
            tokio::select! {
                ended = run => panic!("the controller ended by itself: {ended:?}"),
                () = self.shared.dead.notified() => {
                    self.shared.crashed.store(false, Ordering::SeqCst);
                    self.actor.note("killed");
                    // A new process needs a moment.
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                () = tokio::time::sleep_until(end) => break,
            }
        }
        acting.abort();
        self.actor.pull().await;
        let list = |group: &str, plural: &str| self.shared.api.store().list(&serin_lab::store::Resource::new(group, plural), Some("default")).0;
        let deployments = list("apps", "deployments");
        let deployments = deployments.iter().map(|d| {
            (text(d, "/metadata/name").trim_start_matches("my-app-").to_owned(), u32::try_from(d["spec"]["replicas"].as_u64().unwrap_or(1)).expect("replicas"))
        });
        let routes = list("networking.istio.io", "virtualservices");
        let release = list("serin.dev", "canaryreleases");
        Ended {
            calls: self.shared.calls.lock().expect("calls").clone(),
            release: release.first().map(|r| (**r).clone()).unwrap_or_default(),
            routes: routes.iter().filter(|r| text(r, "/metadata/name") != "obstacle").map(|r| (**r).clone()).collect(),
            deployments: deployments.collect(),
            journal: self.actor.journal.lock().expect("journal").join("\n"),
            requests: self.shared.requests.load(Ordering::SeqCst),
        }
    }
}

pub(crate) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// The share of a version on a VirtualService, in percent.
pub(crate) fn percent(route: &Value, version: &str) -> f64 {
    let destinations = route.pointer("/spec/http/0/route").and_then(Value::as_array).cloned().unwrap_or_default();
    let weight = |d: &Value| d["weight"].as_f64().unwrap_or(0.0);
    let total: f64 = destinations.iter().map(weight).sum();
    let own: f64 = destinations.iter().filter(|d| text(d, "/destination/subset") == version).map(weight).sum();
    own * 100.0 / total
}

impl Actor {
    fn now(&self) -> Timestamp {
        START.plus(self.shared.begin.elapsed())
    }

    fn note(&self, what: &str) {
        self.journal.lock().expect("journal").push(format!("{:>9.1} {what}", self.shared.begin.elapsed().as_secs_f64()));
    }

    fn api(&self, group: &str, version: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.kube.clone(), "default", &resource(group, version, kind, plural))
    }

    fn releases(&self) -> Api<DynamicObject> {
        self.api("serin.dev", "v1alpha1", "CanaryRelease", "canaryreleases")
    }

    fn stored(&self, group: &str, plural: &str, name: &str) -> Option<Value> {
        self.shared.api.store().get(&Key::namespaced(group, plural, "default", name)).map(|o| (*o).clone())
    }

    /// The CRD, the Service and the rule.
    async fn prepare(&self, story: &Story) {
        let crd = serde_json::to_value(serin_api::crd()).expect("JSON");
        let crds: Api<DynamicObject> = Api::all_with(self.kube.clone(), &resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions"));
        crds.create(&PostParams::default(), &object(&crd)).await.expect("the CRD");
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "my-app"}, "spec": {"selector": {"app": "my-app"}, "ports": [{"name": "http", "port": 80}]}});
        self.api("", "v1", "Service", "services").create(&PostParams::default(), &object(&service)).await.expect("the Service");
        let (subsets, refused) = {
            let world = self.world.lock().expect("world");
            (world.subsets.clone(), story.no_subsets.is_some())
        };
        let subset = |v: &String| json!({"name": v, "labels": {"version": v}});
        let rule = |name: &str, extra: Value| {
            let mut spec = json!({"host": "my-app", "subsets": subsets.iter().map(subset).collect::<Vec<_>>()});
            if let (Some(spec), Value::Object(extra)) = (spec.as_object_mut(), extra) {
                spec.extend(extra);
            }
            json!({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": name}, "spec": spec})
        };
        let rules = self.api("networking.istio.io", "v1", "DestinationRule", "destinationrules");
        rules.create(&PostParams::default(), &object(&rule("my-app", json!({})))).await.expect("the rule");
        if refused {
            // "Several rules differ": one more, for some callers only.
            rules.create(&PostParams::default(), &object(&rule("my-app-more", json!({"exportTo": ["."]})))).await.expect("another rule");
        }
        let spec = self.world.lock().expect("world").spec.clone();
        let release = json!({"apiVersion": "serin.dev/v1alpha1", "kind": "CanaryRelease", "metadata": {"name": "my-app"}, "spec": spec});
        self.releases().create(&PostParams::default(), &object(&release)).await.expect("the release");
        self.written.lock().await.insert("spec".into(), spec);
    }

    /// Acts: whatever is due in the story, whenever it is, and whenever the controller wrote something.
    async fn act(&self) {
        loop {
            let due = {
                let world = self.world.lock().expect("world");
                [world.next_change(), world.next_ready()].into_iter().flatten().min()
            };
            let sleep = due.map(|at| at.since(self.now()));
            tokio::select! {
                () = self.shared.changed.notified() => {}
                () = async { match sleep { Some(time) => tokio::time::sleep(time).await, None => pending().await } } => {}
            }
            self.pull().await;
            self.world.lock().expect("world").advance(self.now());
            self.push().await;
        }
    }

    /// What the controller wrote, into the world.
    async fn pull(&self) {
        let mut written = self.written.lock().await;
        let mut world = self.world.lock().expect("world");
        // Callers call until now, as the routes were. What is due in the story comes after what is there already.
        let now = self.now();
        if world.next_change().is_none_or(|at| at > now) {
            world.advance(now);
        }
        for i in 0..world.routes.len() {
            let name = world.routes[i].name.clone();
            let Some(stored) = self.stored("networking.istio.io", "virtualservices", &name) else { continue };
            let key = format!("route {name}");
            if written.get(&key) == stored.pointer("/metadata/resourceVersion") {
                continue;
            }
            written.insert(key, stored["metadata"]["resourceVersion"].clone());
            let weights: BTreeMap<String, u32> = destinations(&stored);
            let before = world.routes[i].weights.clone();
            let total: u32 = weights.values().sum();
            let share = |v: &str| Weight::of(u64::from(weights.get(v).copied().unwrap_or(0)), u64::from(total));
            let risen = weights.keys().find(|v| share(v) > World::share(&world.routes[i], v) && v.as_str() != "v1").cloned();
            let stable = before.iter().filter(|(v, _)| Some(*v) != risen.as_ref()).max_by_key(|(_, w)| **w).map(|(v, _)| v.clone());
            if let (Some(canary), Some(stable)) = (&risen, stable) {
                // The world has its own way to make callers of a risen share lack the cluster.
                let version = |v: &str| VersionName::new(v).expect("a version");
                let route = ObjectName { namespace: "default".into(), name: name.clone() };
                world.act(&Action::SetWeights { route, stable: version(&stable), canary: version(canary), share: share(canary), guard: Guard::Back });
            }
            let route = &mut world.routes[i];
            route.weights = weights;
            let mark = text(&stored, "/metadata/annotations/serin.dev~1aborted");
            route.mark = (!mark.is_empty()).then(|| mark.to_owned());
            written.insert(format!("route {name} of the world"), json!(route.resource_version));
        }
        let versions: Vec<String> = world.deployments.keys().cloned().collect();
        for version in versions {
            let Some(stored) = self.stored("apps", "deployments", &format!("my-app-{version}")) else { continue };
            let replicas = u32::try_from(stored["spec"]["replicas"].as_u64().unwrap_or(1)).expect("replicas");
            let key = format!("replicas {version}");
            if written.get(&key) != Some(&json!(replicas)) && written.contains_key(&key) {
                world.act(&Action::Scale { workload: format!("my-app-{version}"), replicas });
                written.insert(key, json!(replicas));
            }
        }
        let annotations = self.stored("serin.dev", "canaryreleases", "my-app").map(|r| r["metadata"]["annotations"].clone()).unwrap_or_default();
        for annotation in ["serin.dev/request", "serin.dev/abort"] {
            if let Some(id) = written.get(annotation).and_then(Value::as_str).map(str::to_owned)
                && annotations.get(annotation).is_none()
            {
                world.act(&Action::Handle { id });
                written.remove(annotation);
            }
        }
    }

    /// What changed in the world, into the API.
    async fn push(&self) {
        let mut written = self.written.lock().await;
        let world = self.world.lock().expect("world").clone();
        let now = self.now();
        self.push_pods(&world, &mut written, now).await;
        for (i, route) in world.routes.iter().enumerate() {
            self.push_route(i, route, &mut written).await;
        }
        let merge = PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
        if written.get("spec") != Some(&world.spec) {
            self.releases().patch("my-app", &merge, &Patch::Merge(json!({"spec": world.spec}))).await.expect("the spec");
            written.insert("spec".into(), world.spec.clone());
        }
        let freeze = json!(world.freeze);
        if written.get("freeze").unwrap_or(&Value::Null) != &freeze {
            self.releases().patch("my-app", &merge, &Patch::Merge(json!({"metadata": {"annotations": {"serin.dev/freeze": freeze}}}))).await.expect("the freeze");
            written.insert("freeze".into(), freeze);
        }
        let obstacle = json!(world.obstacle.is_some());
        if written.insert("obstacle".into(), obstacle.clone()).unwrap_or(json!(false)) != obstacle {
            // A route that no weight applies to: it sends to every version.
            let routes = self.api("networking.istio.io", "v1", "VirtualService", "virtualservices");
            let vs = json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "obstacle"},
                "spec": {"hosts": ["elsewhere.example"], "gateways": ["another"], "http": [{"route": [{"destination": {"host": "my-app"}}]}]}});
            if world.obstacle.is_some() {
                routes.create(&PostParams::default(), &object(&vs)).await.expect("the obstacle");
            } else {
                routes.delete("obstacle", &DeleteParams::default()).await.expect("deletes");
            }
        }
        for request in &world.requests {
            let abort = matches!(request.action, RequestAction::Abort | RequestAction::AbortForced);
            let annotation = if abort { "serin.dev/abort" } else { "serin.dev/request" };
            if written.contains_key(annotation) {
                continue;
            }
            let value = serin_api::request_annotation(request);
            self.releases().patch("my-app", &merge, &Patch::Merge(json!({"metadata": {"annotations": {annotation: value}}}))).await.expect("the request");
            written.insert(annotation.into(), json!(request.id));
        }
    }

    async fn push_pods(&self, world: &World, written: &mut BTreeMap<String, Value>, now: Timestamp) {
        let (deployments, slices) = (self.api("apps", "v1", "Deployment", "deployments"), self.api("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"));
        let gone: Vec<String> = written.keys().filter_map(|k| k.strip_prefix("deployment ")).filter(|v| !world.deployments.contains_key(*v)).map(str::to_owned).collect();
        for version in gone {
            deployments.delete(&format!("my-app-{version}"), &DeleteParams::default()).await.expect("deletes");
            slices.delete(&format!("my-app-{version}"), &DeleteParams::default()).await.expect("deletes");
            for key in ["deployment", "replicas", "slice"] {
                written.remove(&format!("{key} {version}"));
            }
        }
        for (version, d) in &world.deployments {
            let name = format!("my-app-{version}");
            let labels = json!({"app": "my-app", "version": version});
            let deployment = json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
                "spec": {"replicas": d.replicas, "selector": {"matchLabels": labels}, "template": {
                    "metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": format!("my-app:{version}{}", d.hash)}]}}},
            });
            let key = format!("deployment {version}");
            if !written.contains_key(&key) {
                deployments.create(&PostParams::default(), &object(&deployment)).await.expect("the Deployment");
            } else if written.get(&key) != Some(&deployment) {
                let merge = PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
                deployments.patch(&name, &merge, &Patch::Merge(json!({"spec": deployment["spec"]}))).await.expect("the Deployment");
            }
            written.insert(format!("replicas {version}"), json!(d.replicas));
            written.insert(key, deployment);
            if let Some(scaler) = &d.scaled_by
                && written.insert(format!("scaler {version}"), json!(scaler)).is_none()
            {
                let scaler_name = scaler.rsplit(' ').next().unwrap_or(scaler);
                let hpa = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": scaler_name},
                    "spec": {"maxReplicas": 9, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}}});
                self.api("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers").create(&PostParams::default(), &object(&hpa)).await.expect("the autoscaler");
            }
            let ready = d.ready(now);
            let key = format!("slice {version}");
            if written.get(&key) == Some(&json!(ready)) {
                continue;
            }
            let first = written.insert(key, json!(ready)).is_none();
            let status = json!({"status": {"replicas": d.replicas, "readyReplicas": ready, "availableReplicas": ready, "updatedReplicas": d.replicas}});
            deployments.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.expect("the status");
            let endpoint = |i: u32| json!({"addresses": [format!("10.0.{}.{i}", version.len())], "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "namespace": "default", "name": format!("{name}-5d4f8c7b9-p{i:04}")}});
            let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "my-app"}},
                "endpoints": (0..ready).map(endpoint).collect::<Vec<_>>(), "ports": [{"name": "http", "port": 8080}]});
            if first {
                slices.create(&PostParams::default(), &object(&slice)).await.expect("the slice");
            } else {
                slices.patch(&name, &PatchParams::default(), &Patch::Merge(json!({"endpoints": slice["endpoints"]}))).await.expect("the slice");
            }
        }
    }

    async fn push_route(&self, index: usize, route: &crate::world::WorldRoute, written: &mut BTreeMap<String, Value>) {
        let key = format!("route {} of the world", route.name);
        let version = json!(route.resource_version);
        if written.get(&key) == Some(&version) {
            return;
        }
        let fresh = written.insert(key, version).is_none();
        let routes = self.api("networking.istio.io", "v1", "VirtualService", "virtualservices");
        let destination = |(v, w): (&String, &u32)| json!({"destination": {"host": "my-app", "subset": v}, "weight": w});
        let http = json!([{"name": "primary", "route": route.weights.iter().map(destination).collect::<Vec<_>>(), "timeout": "3s"}]);
        let answer = if fresh {
            let gateways = if index == 0 { json!(["mesh"]) } else { json!([format!("gateway-{index}")]) };
            let vs = json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": route.name},
                "spec": {"hosts": ["my-app"], "gateways": gateways, "http": http}});
            routes.create(&PostParams { field_manager: Some("kubectl-client-side-apply".into()), ..PostParams::default() }, &object(&vs)).await
        } else {
            let manager = route.manager.as_ref().map_or("kubectl-edit", |(m, _)| m);
            let mut patch = json!({"spec": {"http": http}});
            if let Some(mark) = &route.mark {
                patch["metadata"] = json!({"annotations": {"serin.dev/aborted": mark}});
            }
            routes.patch(&route.name, &PatchParams { field_manager: Some(manager.into()), ..PatchParams::default() }, &Patch::Merge(patch)).await
        };
        let answer = serde_json::to_value(answer.expect("the VirtualService")).expect("JSON");
        written.insert(format!("route {}", route.name), answer["metadata"]["resourceVersion"].clone());
    }
}

fn destinations(vs: &Value) -> BTreeMap<String, u32> {
    let list = vs.pointer("/spec/http/0/route").and_then(Value::as_array).cloned().unwrap_or_default();
    list.iter().map(|d| (text(d, "/destination/subset").to_owned(), u32::try_from(d["weight"].as_u64().unwrap_or(0)).expect("a weight"))).collect()
}

/// The world as a source.
struct WorldSource(Arc<Actor>);

impl MetricSource for WorldSource {
    fn poll(&self, query: ArmQuery, cursor: Option<Cursor>) -> BoxFuture<'_, Polled> {
        async move {
            self.0.pull().await;
            let mut source = cursor.and_then(|c| c.get::<Source>()).map(|s| (*s).clone()).unwrap_or_default();
            let world = self.0.world.lock().expect("world");
            match source.poll(&world, query.stable.version.as_str(), query.canary.version.as_str(), &query.edges) {
                Traffic::Read(reading) => Ok((reading, Cursor::new(source))),
                Traffic::Problem(problem) => Err(problem),
                Traffic::NotAsked => unreachable!("a poll is an answer"),
            }
        }
        .boxed()
    }
}
