//! One release's view of the caches: from objects as they came to the one `Observation` that `decide` takes.
//!
//! Pure: values in, values out. Everything that makes work impossible is found here and told as one obstacle.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use serin_api::spec::CanaryReleaseSpec;
use serin_core::observe::{Observation, Obstacle, Request, Rules, Traffic, Workload};
use serin_core::route::ServiceName;
use serin_core::route::companion::Permission;
use serin_core::route::network::{Network, Selection, World};
use serin_core::route::rules::{Labels, ROOT_NAMESPACE};
use serin_core::units::{Timestamp, VersionName};

use super::cluster::{Cluster, Kind};

/// All that belongs to one release, as the caches hold it now.
#[derive(Clone)]
pub struct View {
    /// The service.
    pub service: ServiceName,
    label: String,
    selection: Vec<Selection>,
    routes: Vec<Arc<Value>>,
    rules: Vec<Arc<Value>>,
    permission: Permission,
    stable: Option<VersionName>,
    pods: Vec<(VersionName, Labels)>,
    /// What is seen, but for the traffic.
    pub seen: Observation,
}

impl View {
    /// Looks at everything that belongs to `release`; `stable` as the state remembers it.
    pub fn of(cluster: &Cluster, release: &Value, spec: &CanaryReleaseSpec, stable: Option<VersionName>, now: Timestamp) -> Self {
        let service = ServiceName::new(spec.service.clone(), text(release, "/metadata/namespace"));
        let label = serin_api::convert::version_label(spec).to_string();
        let traffic = spec.traffic.clone().unwrap_or_default();
        let named = traffic.virtual_services.unwrap_or_default();
        let selection = named.into_iter().map(|r| Selection { name: r.name, routes: r.routes.unwrap_or_default() }).collect();
        let permission = match (traffic.manage_route, traffic.destination_rule) {
            (_, Some(serin_api::spec::DestinationRuleSpec::Existing)) => Permission::Nothing,
            (Some(true), _) => Permission::First,
            _ => Permission::Join,
        };
        let mut view =
            Self { service, label, selection, routes: Vec::new(), rules: Vec::new(), permission, stable, pods: Vec::new(), seen: nothing(now) };
        view.requests(release, now);
        view.look(cluster, release);
        view
    }

    fn look(&mut self, cluster: &Cluster, release: &Value) {
        let namespace = self.service.namespace.clone();
        let obstacle = |code: &str, what: String| Some(Obstacle { code: code.into(), what });
        let service = cluster.get(Kind::Service, &namespace, &self.service.name);
        let Some(selector) = service.as_ref().and_then(|s| s.pointer("/spec/selector")).and_then(Value::as_object).filter(|s| !s.is_empty()) else {
            self.seen.obstacle = match &service {
                None => obstacle("NoService", format!("waits: there is no Service {namespace}/{}; kubectl get services -n {namespace}", self.service.name)),
                Some(_) => obstacle("NoSelector", format!("waits: Service {namespace}/{} selects no pods, so no version stands behind it; give it a selector", self.service.name)),
            };
            return;
        };
        if let Some(older) = self.older_release(cluster, release) {
            self.seen.obstacle = obstacle("OtherRelease", format!("stalled: CanaryRelease {older} is older and releases the same Service; delete one of the two"));
            return;
        }
        self.workloads(cluster, selector);
        self.routes(cluster);
    }

    fn older_release(&self, cluster: &Cluster, release: &Value) -> Option<String> {
        let age = |r: &Value| (text(r, "/metadata/creationTimestamp").to_string(), text(r, "/metadata/name").to_string());
        let mine = age(release);
        let others = cluster.list(Kind::Release, Some(&self.service.namespace));
        let same = others.iter().filter(|r| text(r, "/spec/service") == self.service.name && text(r, "/metadata/uid") != text(release, "/metadata/uid"));
        same.map(|r| age(r)).filter(|a| *a < mine).min().map(|(_, name)| name)
    }

    fn workloads(&mut self, cluster: &Cluster, selector: &serde_json::Map<String, Value>) {
        let namespace = &self.service.namespace;
        let endpoints = endpoints(cluster, &self.service);
        let autoscalers = cluster.list(Kind::Autoscaler, Some(namespace));
        for deployment in cluster.list(Kind::Deployment, Some(namespace)) {
            let labels = labels(deployment.pointer("/spec/template/metadata/labels"));
            let selected = selector.iter().all(|(k, v)| labels.get(k).map(String::as_str) == v.as_str());
            let version = labels.get(&self.label).and_then(|v| VersionName::new(v).ok());
            let (true, Some(version), true) = (selected, version, deployment.pointer("/metadata/deletionTimestamp").is_none()) else { continue };
            let name = text(&deployment, "/metadata/name").to_string();
            let number = |path: &str, absent: u32| deployment.pointer(path).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()).unwrap_or(absent);
            self.seen.workloads.push(Workload {
                version: version.clone(),
                hash: template_hash(deployment.pointer("/spec/template").unwrap_or(&Value::Null)),
                replicas: number("/spec/replicas", 1),
                ready: number("/status/readyReplicas", 0),
                endpoints: endpoints.get(&name).copied().unwrap_or(0),
                created: time(&deployment, "/metadata/creationTimestamp"),
                scaled_by: scaled_by(&deployment, &autoscalers),
                name,
            });
            self.pods.push((version, labels));
        }
        self.seen.workloads.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    }

    fn routes(&mut self, cluster: &Cluster) {
        self.routes = cluster.list(Kind::VirtualService, None);
        self.rules = cluster.list(Kind::DestinationRule, None);
        let network = self.network();
        let (obstacle, routes, rules) = (network.obstacle(), network.routes(), network.rules());
        self.seen.obstacle = obstacle;
        self.seen.routes = routes;
        self.seen.rules = rules;
    }

    /// Routes and rules, read anew: what a look sees, and what patches are cut from.
    pub fn network(&self) -> Network<'_> {
        let world = World {
            service: &self.service,
            version_label: &self.label,
            pods: &self.pods,
            virtual_services: &self.routes,
            destination_rules: &self.rules,
            root_namespace: ROOT_NAMESPACE,
            selection: &self.selection,
            stable: self.stable.as_ref(),
            manage_route: self.permission == Permission::First,
            permission: self.permission,
        };
        world.read()
    }

    /// The same view with one VirtualService as it stands now.
    pub fn with_route(mut self, fresh: Value) -> Self {
        let same = |vs: &Arc<Value>| text(vs, "/metadata/uid") == text(&fresh, "/metadata/uid");
        match self.routes.iter().position(same) {
            Some(i) => self.routes[i] = Arc::new(fresh),
            None => self.routes.push(Arc::new(fresh)),
        }
        self
    }

    fn requests(&mut self, release: &Value, now: Timestamp) {
        let annotation = |name: &str| release.pointer("/metadata/annotations").and_then(|a| a.get(name)).and_then(Value::as_str);
        self.seen.abort = annotation(serin_api::names::ABORT).map(|text| serin_api::abort_of(text, now));
        match annotation(serin_api::names::REQUEST).map(|text| serin_api::request_of(text, now)) {
            Some(Ok(request)) => self.seen.requests.push(request),
            Some(Err(why)) => tracing::warn!(%why, "request"),
            None => {}
        }
    }

    /// The requests that stand on the object, by id: what `Handle` takes off.
    pub fn asked(&self) -> impl Iterator<Item = &Request> {
        self.seen.abort.iter().chain(&self.seen.requests)
    }
}

fn nothing(now: Timestamp) -> Observation {
    Observation {
        at: now,
        workloads: Vec::new(),
        routes: Vec::new(),
        rules: Rules::default(),
        traffic: Traffic::NotAsked,
        requests: Vec::new(),
        abort: None,
        freeze: None,
        obstacle: None,
    }
}

/// Ready addresses per Deployment, read from EndpointSlices without reading pods: a pod of a Deployment is named
/// `DEPLOYMENT-HASH-SUFFIX`.
fn endpoints(cluster: &Cluster, service: &ServiceName) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for slice in cluster.list(Kind::EndpointSlice, Some(&service.namespace)) {
        let of = slice.pointer("/metadata/labels/kubernetes.io~1service-name").and_then(Value::as_str);
        if of != Some(&service.name) {
            continue;
        }
        for endpoint in slice.pointer("/endpoints").and_then(Value::as_array).into_iter().flatten() {
            let condition = |name: &str| endpoint.pointer(&format!("/conditions/{name}")).and_then(Value::as_bool);
            // Absent means ready (discovery/v1: "nil should be interpreted as true").
            if condition("ready") == Some(false) || condition("terminating") == Some(true) {
                continue;
            }
            let Some(pod) = endpoint.pointer("/targetRef/name").and_then(Value::as_str) else { continue };
            let deployment = pod.rsplitn(3, '-').nth(2).unwrap_or(pod);
            *counts.entry(deployment.to_string()).or_insert(0) += 1;
        }
    }
    counts
}

/// Who else sets a Deployment's replicas.
fn scaled_by(deployment: &Value, autoscalers: &[Arc<Value>]) -> Option<String> {
    let name = text(deployment, "/metadata/name");
    let targets = |a: &&Arc<Value>| text(a, "/spec/scaleTargetRef/kind") == "Deployment" && text(a, "/spec/scaleTargetRef/name") == name;
    if let Some(autoscaler) = autoscalers.iter().find(targets) {
        return Some(format!("HorizontalPodAutoscaler {}", text(autoscaler, "/metadata/name")));
    }
    let managers = deployment.pointer("/metadata/managedFields").and_then(Value::as_array).into_iter().flatten();
    let gitops = |m: &&Value| {
        let who = text(m, "/manager");
        let known = ["argocd", "kustomize-controller", "helm-controller", "flux"].iter().any(|g| who.contains(g));
        known && m.pointer("/fieldsV1/f:spec/f:replicas").is_some()
    };
    managers.filter(|m| text(m, "/operation") == "Apply" || gitops(m)).find(gitops).map(|m| text(m, "/manager").to_string())
}

/// A hash of a pod template that restarts do not change. Not the API's own: that one is made by the Deployment controller and
/// counts restarts as changes.
pub fn template_hash(template: &Value) -> String {
    let mut template = template.clone();
    if let Some(Value::Object(metadata)) = template.get_mut("metadata") {
        metadata.remove("creationTimestamp");
        let empty = match metadata.get_mut("annotations") {
            Some(Value::Object(annotations)) => {
                annotations.retain(|k, _| !k.ends_with("/restartedAt"));
                annotations.is_empty()
            }
            Some(other) => other.is_null(),
            None => false,
        };
        if empty {
            metadata.remove("annotations");
        }
    }
    // FNV-1a, 64 bits, over the text with sorted keys: stable over versions of the compiler, unlike std's hasher.
    let text = template.to_string();
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

pub(crate) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn time(value: &Value, path: &str) -> Timestamp {
    Timestamp(text(value, path).parse::<jiff::Timestamp>().map_or(0, |t| t.as_millisecond()))
}

fn labels(value: Option<&Value>) -> Labels {
    let all = value.and_then(Value::as_object).into_iter().flatten();
    all.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_string()))).collect()
}
