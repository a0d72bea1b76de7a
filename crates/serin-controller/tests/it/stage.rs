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

use crate::world::{Asked, START, Source, Story, World};

/// What goes wrong with one of the requests that change something, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The controller is killed before it takes effect.
    KilledBefore(usize),
    /// It takes effect, and the controller is killed before it hears of it.
    KilledAfter(usize),
    /// It takes effect, and its answer is lost.
    AnswerLost(usize),
    /// The server is too busy.
    Refused(usize),
    /// Somebody else wrote in between, as the server sees it.
    Conflict(usize),
}

/// How the play goes, beside its story.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Script {
    pub(crate) trouble: Option<Trouble>,
    /// Watches tell everything so much later.
    pub(crate) lag: Option<Duration>,
    /// From this second to that the server takes no write.
    pub(crate) refuses: Option<(f64, f64)>,
    /// Up to this second the controller lacks the right to change these.
    pub(crate) forbids: Option<(&'static str, f64)>,
    /// A second controller runs beside the first, and neither knows.
    pub(crate) twice: bool,
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
    script: Script,
    crashed: AtomicBool,
    /// What must never happen, and did.
    wrongs: Mutex<Vec<String>>,
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
    /// Of all DestinationRules, in order.
    pub(crate) subsets: Vec<String>,
    pub(crate) journal: String,
    pub(crate) requests: usize,
    pub(crate) wrongs: Vec<String>,
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

type Answer = http::Response<bodies::Body>;

/// A client that goes straight to the API; the controller's is watched and may meet trouble.
fn client(shared: &Arc<Shared>, watched: bool) -> kube::Client {
    let shared = shared.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let shared = shared.clone();
        async move { if watched { shared.watched(request).await } else { shared.pass(request).await } }
    });
    kube::Client::new(service, "default")
}

impl Shared {
    async fn pass(&self, request: http::Request<Body>) -> Result<Answer, std::io::Error> {
        let Ok(answer) = self.api.router().oneshot(request).await;
        let (parts, body) = answer.into_parts();
        Ok(http::Response::from_parts(parts, bodies::boxed(body)))
    }

    async fn watched(&self, request: http::Request<Body>) -> Result<Answer, std::io::Error> {
        // Whether KEDA is there is asked now and then, whatever the number of releases.
        if !request.uri().path().starts_with("/apis/keda.sh") {
            self.requests.fetch_add(1, Ordering::SeqCst);
        }
        if self.crashed.load(Ordering::SeqCst) {
            return pending().await;
        }
        if request.method() == http::Method::GET {
            let watch = request.uri().query().unwrap_or_default().contains("watch=true");
            let answer = self.pass(request).await?;
            return Ok(match self.script.lag.filter(|_| watch) {
                Some(lag) => answer.map(|body| bodies::late(body, lag)),
                None => answer,
            });
        }
        let at = self.begin.elapsed().as_secs_f64();
        if self.script.refuses.is_some_and(|(from, to)| from <= at && at < to) {
            let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
            self.calls.lock().expect("calls").push(Call { at, method, path, body: Value::Null, status: 422 });
            return Ok(refusal(422, "Invalid"));
        }
        if let Some((plural, to)) = self.script.forbids
            && at < to
            && request.uri().path().contains(plural)
        {
            let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
            self.calls.lock().expect("calls").push(Call { at, method, path, body: Value::Null, status: 403 });
            return Ok(forbidden(plural));
        }
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        let trouble = self.script.trouble;
        match trouble {
            Some(Trouble::KilledBefore(n)) if n == number => return self.die().await,
            Some(Trouble::Refused(n)) if n == number => return Ok(refusal(500, "InternalError")),
            Some(Trouble::Conflict(n)) if n == number => return Ok(refusal(409, "Conflict")),
            _ => {}
        }
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let call = (parts.method.to_string(), parts.uri.path().to_owned(), serde_json::from_slice(&bytes).unwrap_or(Value::Null));
        let before = self.shares();
        let answer = self.pass(http::Request::from_parts(parts, Body::from(bytes.to_vec()))).await?;
        self.watch_over(&before, &call.2);
        let at = self.begin.elapsed().as_secs_f64();
        self.calls.lock().expect("calls").push(Call { at, method: call.0, path: call.1, body: call.2, status: answer.status().as_u16() });
        self.changed.notify_one();
        match trouble {
            Some(Trouble::KilledAfter(n)) if n == number => self.die().await,
            Some(Trouble::AnswerLost(n)) if n == number => Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
            _ => Ok(answer),
        }
    }

    async fn die(&self) -> Result<Answer, std::io::Error> {
        self.crashed.store(true, Ordering::SeqCst);
        self.dead.notify_one();
        pending().await
    }

    fn list(&self, group: &str, plural: &str) -> Vec<Arc<Value>> {
        self.api.store().list(&serin_lab::store::Resource::new(group, plural), Some("default")).0
    }

    /// The share of each subset on each route.
    fn shares(&self) -> BTreeMap<(String, String), f64> {
        let routes = self.list("networking.istio.io", "virtualservices");
        let of = |r: &Arc<Value>| {
            let name = text(r, "/metadata/name").to_owned();
            let subsets = destinations(r).into_keys();
            subsets.map(|s| ((name.clone(), s.clone()), percent(r, &s))).collect::<Vec<_>>()
        };
        routes.iter().flat_map(of).collect()
    }

    /// What must hold after every write of the controller: nobody's share rises without a subset and without ready pods, and
    /// nobody but the canary's rises while the owner's brake is on.
    fn watch_over(&self, before: &BTreeMap<(String, String), f64>, body: &Value) {
        let subsets: Vec<String> = self
            .list("networking.istio.io", "destinationrules")
            .iter()
            .flat_map(|r| r.pointer("/spec/subsets").and_then(Value::as_array).cloned().unwrap_or_default())
            .map(|s| text(&s, "/labels/version").to_owned())
            .collect();
        let release = self.list("serin.dev", "canaryreleases").first().map(|r| (**r).clone()).unwrap_or_default();
        let braked = release.pointer("/spec/suspend") == Some(&Value::Bool(true))
            || release.pointer("/metadata/annotations/serin.dev~1freeze").is_some();
        let stable = text(&release, "/status/stable/version").to_owned();
        let forced = text(&release, "/metadata/annotations/serin.dev~1abort").contains("abortForced");
        for ((route, subset), share) in self.shares() {
            let was = before.get(&(route.clone(), subset.clone())).copied().unwrap_or(0.0);
            if subset.is_empty() || share <= was + 1e-9 {
                continue;
            }
            let ready = self
                .list("discovery.k8s.io", "endpointslices")
                .iter()
                .filter(|s| text(s, "/metadata/name") == format!("my-app-{subset}"))
                .map(|s| s["endpoints"].as_array().map_or(0, Vec::len))
                .sum::<usize>();
            let wrong =
                |what: &str| self.wrongs.lock().expect("wrongs").push(format!("{what}: {subset} {was} → {share} % on {route} by {body}"));
            if !subsets.contains(&subset) {
                wrong("a share rises without a subset");
            }
            if ready == 0 && !(forced && subset == stable) {
                wrong("a share rises without a ready pod");
            }
            if braked && subset != stable {
                wrong("a share rises under the brake");
            }
        }
    }
}

fn refusal(code: u16, reason: &str) -> Answer {
    answered(code, reason, "as the script says")
}

/// As an API server with RBAC says it.
fn forbidden(plural: &str) -> Answer {
    let who = "system:serviceaccount:serin-system:serin";
    let said = format!(
        "{plural}.networking.istio.io \"my-app\" is forbidden: User \"{who}\" cannot patch resource \"{plural}\" in API group \"networking.istio.io\" in the namespace \"default\""
    );
    answered(403, "Forbidden", &said)
}

fn answered(code: u16, reason: &str, message: &str) -> Answer {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason, "message": message});
    let body = http_body_util::Full::new(bytes::Bytes::from(status.to_string()));
    http::Response::builder().status(code).header("content-type", "application/json").body(bodies::boxed(body)).expect("an answer")
}

/// Bodies of answers: as they come, or late.
mod bodies {
    use std::time::Duration;

    use bytes::Bytes;
    use futures::stream;
    use http_body_util::BodyExt;
    use http_body_util::combinators::UnsyncBoxBody;
    use tokio::time::Instant;

    pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;
    pub(super) type Body = UnsyncBoxBody<Bytes, Error>;

    pub(super) fn boxed<B>(body: B) -> Body
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Error>,
    {
        body.map_err(Into::into).boxed_unsync()
    }

    /// Everything in its order, each part so much later than it came.
    pub(super) fn late(body: Body, lag: Duration) -> Body {
        let (send, receive) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut body = body;
            while let Some(frame) = body.frame().await {
                if send.send((Instant::now() + lag, frame)).is_err() {
                    return;
                }
            }
        });
        let frames = stream::unfold(receive, |mut receive| async move {
            let (at, frame) = receive.recv().await?;
            tokio::time::sleep_until(at).await;
            Some((frame, receive))
        });
        boxed(http_body_util::StreamBody::new(frames))
    }
}

impl Stage {
    /// Sets the stage for a story.
    pub(crate) async fn new(story: &Story, script: Script) -> Self {
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
            script,
            crashed: AtomicBool::new(false),
            wrongs: Mutex::default(),
            dead: Notify::new(),
            changed: Notify::new(),
            begin,
        });
        let kube = client(&shared, false);
        let actor = Actor {
            world: Mutex::new(World::new(story)),
            kube,
            shared: shared.clone(),
            written: tokio::sync::Mutex::default(),
            journal: Mutex::default(),
        };
        let actor = Arc::new(actor);
        actor.prepare(story).await;
        actor.push().await;
        Self { shared, actor, clock }
    }

    /// The controller's way to the API, until it is cut.
    pub(crate) fn client_until(&self, cut: CancellationToken) -> kube::Client {
        let shared = self.shared.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (shared, cut) = (shared.clone(), cut.clone());
            async move { if cut.is_cancelled() { pending().await } else { shared.watched(request).await } }
        });
        kube::Client::new(service, "default")
    }

    /// The controller's way to the API.
    pub(crate) fn client(&self) -> kube::Client {
        client(&self.shared, true)
    }

    /// Writes a policy, whole.
    pub(crate) async fn policy(&self, name: &str, spec: Value) {
        let api = self.actor.api("serin.dev", "v1alpha1", "CanaryPolicy", "canarypolicies");
        let policy = json!({"apiVersion": "serin.dev/v1alpha1", "kind": "CanaryPolicy", "metadata": {"name": name}, "spec": spec});
        let _ = api.delete(name, &DeleteParams::default()).await;
        api.create(&PostParams::default(), &object(&policy)).await.expect("the policy");
    }

    /// Writes one more release, for a service of that name.
    pub(crate) async fn another(&self, name: &str) {
        let release =
            json!({"apiVersion": "serin.dev/v1alpha1", "kind": "CanaryRelease", "metadata": {"name": name}, "spec": {"service": name}});
        self.actor.releases().create(&PostParams::default(), &object(&release)).await.expect("the release");
    }

    pub(crate) fn release(&self) -> Value {
        self.stored("serin.dev", "canaryreleases", "my-app").unwrap_or_default()
    }

    pub(crate) fn stored(&self, group: &str, plural: &str, name: &str) -> Option<Value> {
        self.actor.stored(group, plural, name)
    }

    pub(crate) fn percent(&self, version: &str) -> f64 {
        self.stored("networking.istio.io", "virtualservices", "my-app").map_or(0.0, |r| percent(&r, version))
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().expect("calls").clone()
    }

    pub(crate) async fn annotate(&self, annotation: &str, value: &str) {
        let patch = json!({"metadata": {"annotations": {annotation: value}}});
        self.actor.releases().patch("my-app", &PatchParams::default(), &Patch::Merge(patch)).await.expect("the annotation");
    }

    pub(crate) async fn patch_spec(&self, spec: Value) {
        self.actor.releases().patch("my-app", &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await.expect("the spec");
    }

    /// Asks for the release's deletion.
    pub(crate) async fn delete(&self) {
        self.actor.releases().delete("my-app", &DeleteParams::default()).await.expect("the deletion");
    }

    /// Lets the world go on, until it is aborted.
    pub(crate) fn act(&self) -> tokio::task::JoinHandle<()> {
        let actor = self.actor.clone();
        tokio::spawn(async move { actor.act().await })
    }

    pub(crate) fn config(&self) -> Config {
        let source = serin_controller::Source::Custom(Arc::new(WorldSource(self.actor.clone())));
        Config { source, ..Config::new(self.clock.clone()) }
    }

    /// Lets the story happen, with the controller restarted should it be killed.
    pub(crate) async fn play(self, story: &Story) -> Ended {
        let end = self.shared.begin + Duration::from_secs_f64(story.minutes * 60.0);
        let acting = self.act();
        loop {
            let stop = CancellationToken::new();
            let run = || serin_controller::run(client(&self.shared, true), self.config(), stop.clone());
            let second = async { if self.shared.script.twice { run().await } else { pending().await } };
            tokio::select! {
                ended = run() => panic!("the controller ended by itself: {ended:?}"),
                ended = second => panic!("the controller ended by itself: {ended:?}"),
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
        let list = |group: &str, plural: &str| self.shared.list(group, plural);
        let deployments = list("apps", "deployments");
        let deployments = deployments.iter().map(|d| {
            (
                text(d, "/metadata/name").trim_start_matches("my-app-").to_owned(),
                u32::try_from(d["spec"]["replicas"].as_u64().unwrap_or(1)).expect("replicas"),
            )
        });
        let routes = list("networking.istio.io", "virtualservices");
        let release = list("serin.dev", "canaryreleases");
        let rules = list("networking.istio.io", "destinationrules");
        let subsets = rules.iter().flat_map(|r| r.pointer("/spec/subsets").and_then(Value::as_array).cloned().unwrap_or_default());
        let mut subsets: Vec<String> = subsets.map(|s| text(&s, "/labels/version").to_owned()).collect();
        subsets.sort();
        Ended {
            calls: self.shared.calls.lock().expect("calls").clone(),
            release: release.first().map(|r| (**r).clone()).unwrap_or_default(),
            routes: routes.iter().filter(|r| text(r, "/metadata/name") != "obstacle").map(|r| (**r).clone()).collect(),
            deployments: deployments.collect(),
            subsets,
            journal: self.actor.journal.lock().expect("journal").join("\n"),
            requests: self.shared.requests.load(Ordering::SeqCst),
            wrongs: self.shared.wrongs.lock().expect("wrongs").clone(),
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
        let crds: Api<DynamicObject> = Api::all_with(
            self.kube.clone(),
            &resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions"),
        );
        for crd in serin_api::definitions() {
            let crd = serde_json::to_value(crd).expect("JSON");
            crds.create(&PostParams::default(), &object(&crd)).await.expect("the CRD");
        }
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
                world.act(&Action::SetWeights {
                    route,
                    stable: version(&stable),
                    canary: version(canary),
                    share: share(canary),
                    guard: Guard::Back,
                });
            }
            let route = &mut world.routes[i];
            route.weights = weights;
            let mark = text(&stored, "/metadata/annotations/serin.dev~1aborted");
            route.mark = (!mark.is_empty()).then(|| mark.to_owned());
            written.insert(format!("route {name} of the world"), json!(route.resource_version));
        }
        let versions: Vec<String> = world.deployments.keys().cloned().collect();
        for version in versions {
            let Some(stored) = self.stored("apps", "deployments", &format!("my-app-{version}")) else {
                if written.contains_key(&format!("deployment {version}")) {
                    world.act(&Action::Retire { workload: format!("my-app-{version}") });
                }
                continue;
            };
            let replicas = u32::try_from(stored["spec"]["replicas"].as_u64().unwrap_or(1)).expect("replicas");
            let key = format!("replicas {version}");
            if written.get(&key) != Some(&json!(replicas)) && written.contains_key(&key) {
                world.act(&Action::Scale { workload: format!("my-app-{version}"), replicas });
                written.insert(key, json!(replicas));
            }
        }
        let annotations =
            self.stored("serin.dev", "canaryreleases", "my-app").map(|r| r["metadata"]["annotations"].clone()).unwrap_or_default();
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
        let gone = |key: &String| {
            let name = key.strip_prefix("route ")?.strip_suffix(" of the world")?;
            (!world.routes.iter().any(|r| r.name == name)).then(|| name.to_owned())
        };
        for name in written.keys().filter_map(gone).collect::<Vec<String>>() {
            let routes = self.api("networking.istio.io", "v1", "VirtualService", "virtualservices");
            routes.delete(&name, &DeleteParams::default()).await.expect("deletes");
            written.retain(|key, _| *key != format!("route {name}") && *key != format!("route {name} of the world"));
        }
        for (i, route) in world.routes.iter().enumerate() {
            self.push_route(i, route, &mut written).await;
        }
        let merge = PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
        if written.get("spec") != Some(&world.spec) {
            self.releases().patch("my-app", &merge, &Patch::Merge(json!({"spec": world.spec}))).await.expect("the spec");
            written.insert("spec".into(), world.spec.clone());
        }
        let hidden = json!(world.hidden);
        if written.get("hidden").unwrap_or(&json!(false)) != &hidden {
            let selector = if world.hidden { "my-ap" } else { "my-app" };
            self.api("", "v1", "Service", "services")
                .patch("my-app", &merge, &Patch::Merge(json!({"spec": {"selector": {"app": selector}}})))
                .await
                .expect("the Service");
            written.insert("hidden".into(), hidden);
        }
        let freeze = json!(world.freeze);
        if written.get("freeze").unwrap_or(&Value::Null) != &freeze {
            self.releases()
                .patch("my-app", &merge, &Patch::Merge(json!({"metadata": {"annotations": {"serin.dev/freeze": freeze}}})))
                .await
                .expect("the freeze");
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
            self.releases()
                .patch("my-app", &merge, &Patch::Merge(json!({"metadata": {"annotations": {annotation: value}}})))
                .await
                .expect("the request");
            written.insert(annotation.into(), json!(request.id));
        }
    }

    async fn push_pods(&self, world: &World, written: &mut BTreeMap<String, Value>, now: Timestamp) {
        let (deployments, slices) =
            (self.api("apps", "v1", "Deployment", "deployments"), self.api("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"));
        let gone: Vec<String> = written
            .keys()
            .filter_map(|k| k.strip_prefix("deployment "))
            .filter(|v| !world.deployments.contains_key(*v))
            .map(str::to_owned)
            .collect();
        for version in gone {
            match deployments.delete(&format!("my-app-{version}"), &DeleteParams::default()).await {
                Ok(_) => {}
                // The controller did.
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => panic!("deletes: {error}"),
            }
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
                let by = PostParams { field_manager: d.kept_by.clone(), ..PostParams::default() };
                deployments.create(&by, &object(&deployment)).await.expect("the Deployment");
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
                self.api("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
                    .create(&PostParams::default(), &object(&hpa))
                    .await
                    .expect("the autoscaler");
            }
            let ready = d.ready(now);
            let key = format!("slice {version}");
            if written.get(&key) == Some(&json!(ready)) {
                continue;
            }
            let first = written.insert(key, json!(ready)).is_none();
            let status = json!({"status": {"replicas": d.replicas, "readyReplicas": ready, "availableReplicas": ready, "updatedReplicas": d.replicas}});
            deployments.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.expect("the status");
            let endpoint = |i: u32| {
                json!({"addresses": [format!("10.0.{}.{i}", version.len())], "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "namespace": "default", "name": format!("{name}-5d4f8c7b9-p{i:04}")}})
            };
            let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "my-app"}},
                "endpoints": (0..ready).map(endpoint).collect::<Vec<_>>(), "ports": [{"name": "http", "port": 8080}]});
            if first {
                slices.create(&PostParams::default(), &object(&slice)).await.expect("the slice");
            } else {
                slices
                    .patch(&name, &PatchParams::default(), &Patch::Merge(json!({"endpoints": slice["endpoints"]})))
                    .await
                    .expect("the slice");
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
            routes
                .create(&PostParams { field_manager: Some("kubectl-client-side-apply".into()), ..PostParams::default() }, &object(&vs))
                .await
        } else {
            let manager = route.manager.as_ref().map_or("kubectl-edit", |(m, _)| m);
            let mut patch = json!({"spec": {"http": http}});
            if let Some(mark) = &route.mark {
                patch["metadata"] = json!({"annotations": {"serin.dev/aborted": mark}});
            }
            routes
                .patch(&route.name, &PatchParams { field_manager: Some(manager.into()), ..PatchParams::default() }, &Patch::Merge(patch))
                .await
        };
        let answer = serde_json::to_value(answer.expect("the VirtualService")).expect("JSON");
        written.insert(format!("route {}", route.name), answer["metadata"]["resourceVersion"].clone());
    }
}

pub(crate) fn destinations(vs: &Value) -> BTreeMap<String, u32> {
    let list = vs.pointer("/spec/http/0/route").and_then(Value::as_array).cloned().unwrap_or_default();
    list.iter()
        .map(|d| (text(d, "/destination/subset").to_owned(), u32::try_from(d["weight"].as_u64().unwrap_or(0)).expect("a weight")))
        .collect()
}

/// The world as a source.
struct WorldSource(Arc<Actor>);

impl MetricSource for WorldSource {
    fn poll(&self, query: ArmQuery, cursor: Option<Cursor>) -> BoxFuture<'_, Polled> {
        async move {
            self.0.pull().await;
            let mut source = cursor.and_then(|c| c.get::<Source>()).map(|s| (*s).clone()).unwrap_or_default();
            let world = self.0.world.lock().expect("world");
            let edges = if query.all_edges { serin_core::simulate::ISTIO_EDGES.to_vec() } else { query.edges.clone() };
            let asked = Asked { queries: query.limits.len(), counters: query.counters.len() };
            match source.poll(&world, query.stable.version.as_str(), query.canary.version.as_str(), &edges, asked) {
                Traffic::Read(reading) => Ok((reading, Cursor::new(source))),
                Traffic::Problem(problem) => Err(problem),
                Traffic::NotAsked => unreachable!("a poll is an answer"),
            }
        }
        .boxed()
    }
}
