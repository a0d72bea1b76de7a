//! Caches → one `Observation` for one release, with the raw objects that its actions will need.
//!
//! Deliberately no I/O: a look at ten thousand pods' worth of caches is a few lookups. Everything that stands in the way is told
//! as the observation's one obstacle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use serin_api::names;
use serin_api::spec::CanaryReleaseSpec;
use serin_core::observe::{Observation, Obstacle, Request, Traffic, Workload};
use serin_core::plan::{Plan, SubsetHome};
use serin_core::route::companion::Permission;
use serin_core::route::rules::Labels;
use serin_core::route::{Network, RouteProblem, Selection, ServiceName, World};
use serin_core::state::State;
use serin_core::units::{ObjectName, Timestamp, VersionName};

use super::cluster::{Cluster, host_of, selects};
use super::project::Release;
use crate::kinds::Kind;

/// An observation, and what it was made of.
pub(crate) struct Seen {
    pub(crate) observation: Observation,
    pub(crate) net: Net,
    pub(crate) requests: Vec<SeenRequest>,
    /// Requests that cannot be read, with why.
    pub(crate) unreadable: Vec<(SeenRequest, String)>,
}

/// Routes and rules of one release as they were read: what patches are cut from.
#[derive(Clone)]
pub(crate) struct Net {
    pub(crate) service: ServiceName,
    label: String,
    pods: Vec<(VersionName, Labels)>,
    routes: Vec<Arc<Value>>,
    rules: Vec<Arc<Value>>,
    root_namespace: String,
    selection: Vec<Selection>,
    stable: Option<VersionName>,
    permission: Permission,
}

impl Net {
    /// Read, in the words of `decide`.
    pub(crate) fn read(&self) -> Network<'_> {
        let world = World {
            service: &self.service,
            version_label: &self.label,
            pods: &self.pods,
            virtual_services: &self.routes,
            destination_rules: &self.rules,
            root_namespace: &self.root_namespace,
            selection: &self.selection,
            stable: self.stable.as_ref(),
            manage_route: self.permission == Permission::First,
            permission: self.permission,
        };
        world.read()
    }

    /// The same with one VirtualService as it stands now.
    pub(crate) fn with_route(mut self, fresh: Value) -> Self {
        let is = |path: &str, vs: &Value| vs.pointer(path) == fresh.pointer(path);
        let same = |vs: &Arc<Value>| is("/metadata/name", vs) && is("/metadata/namespace", vs);
        match self.routes.iter().position(same) {
            Some(i) => self.routes[i] = Arc::new(fresh),
            None => self.routes.push(Arc::new(fresh)),
        }
        self
    }
}

/// A request's annotation, as it was read.
#[derive(Clone, Debug)]
pub(crate) struct SeenRequest {
    pub(crate) id: String,
    pub(crate) annotation: &'static str,
    pub(crate) text: String,
}

/// What a look is about.
pub(crate) struct Subject<'a> {
    pub(crate) release: &'a Release,
    pub(crate) spec: &'a CanaryReleaseSpec,
    pub(crate) plan: &'a Plan,
    pub(crate) state: &'a State,
    pub(crate) root_namespace: &'a str,
    /// Why nothing moves forward, as the policy says.
    pub(crate) hold: Option<&'a str>,
    pub(crate) now: Timestamp,
}

/// Looks at one release.
pub(crate) fn look(cluster: &Cluster, subject: &Subject<'_>, traffic: Traffic) -> Seen {
    let release = subject.release;
    let label = serin_api::convert::version_label(subject.spec);
    let (workloads, pods): (Vec<Workload>, Vec<(VersionName, Labels)>) = workloads(cluster, release, label).into_iter().unzip();
    let net = net(cluster, subject, label, pods);
    let network = net.read();
    let obstacle = nothing_to_work_on(cluster, release).or_else(|| forward_problem(&network, subject));
    let freeze = release
        .freeze
        .as_deref()
        .map(|why| if why.is_empty() { "frozen".to_owned() } else { format!("frozen: {why}") })
        .or_else(|| subject.hold.map(str::to_owned));
    let (routes, rules) = (network.routes(), network.rules());
    let mut seen = Seen {
        observation: Observation {
            at: subject.now,
            workloads,
            routes,
            rules,
            traffic,
            requests: Vec::new(),
            abort: None,
            freeze,
            obstacle,
        },
        net,
        requests: Vec::new(),
        unreadable: Vec::new(),
    };
    seen.read_requests(release, subject.now);
    seen
}

impl Seen {
    /// An abort has an annotation of its own, and wins.
    fn read_requests(&mut self, release: &Release, now: Timestamp) {
        if let Some(text) = release.abort.as_deref() {
            let abort = serin_api::abort_of(text, now);
            self.note(names::ABORT, &abort, text);
            self.observation.abort = Some(abort);
        }
        let Some(text) = release.request.as_deref() else { return };
        match serin_api::request_of(text, now) {
            Ok(request) => {
                self.note(names::REQUEST, &request, text);
                self.observation.requests.push(request);
            }
            Err(why) => self.unreadable.push((SeenRequest { id: String::new(), annotation: names::REQUEST, text: text.to_owned() }, why)),
        }
    }

    fn note(&mut self, annotation: &'static str, request: &Request, text: &str) {
        self.requests.push(SeenRequest { id: request.id.clone(), annotation, text: text.to_owned() });
    }
}

fn net(cluster: &Cluster, subject: &Subject<'_>, label: &str, pods: Vec<(VersionName, Labels)>) -> Net {
    let service = ServiceName::new(&subject.release.service, &subject.release.name.namespace);
    let named = subject.spec.traffic.as_ref().and_then(|t| t.virtual_services.clone()).unwrap_or_default();
    let selection: Vec<Selection> = named.into_iter().map(|r| Selection { name: r.name, routes: r.routes.unwrap_or_default() }).collect();
    let permission = match (subject.plan.spec().subsets, subject.plan.spec().manage_route) {
        (SubsetHome::Existing, _) => Permission::Nothing,
        (SubsetHome::Companion, false) => Permission::Join,
        (SubsetHome::Companion, true) => Permission::First,
    };
    Net {
        routes: cluster.network_routes(&service, &selection),
        rules: cluster.rules(&service.fqdn()).into_iter().map(|r| r.raw.value()).collect(),
        label: label.to_owned(),
        pods,
        root_namespace: subject.root_namespace.to_owned(),
        selection,
        stable: subject.state.stable.as_ref().map(|s| s.name.clone()),
        permission,
        service,
    }
}

/// Deployments whose pods the service selects and whose template carries the version label, oldest first, with the labels of
/// their pods.
fn workloads(cluster: &Cluster, release: &Release, label: &str) -> Vec<(Workload, (VersionName, Labels))> {
    let namespace = &release.name.namespace;
    let service = ObjectName { namespace: namespace.clone(), name: release.service.clone() };
    let Some(selector) = cluster.service(&service).map(|s| &s.selector) else { return Vec::new() };
    let all: BTreeSet<&str> = cluster.deployments(namespace).map(|(name, _)| name.as_str()).collect();
    let mut endpoints: BTreeMap<&str, u32> = BTreeMap::new();
    for owner in cluster.endpoints(&service).into_iter().filter_map(|pod| owner_of(pod, &all)) {
        *endpoints.entry(owner).or_default() += 1;
    }
    let mut found: Vec<(Workload, (VersionName, Labels))> = cluster
        .deployments(namespace)
        .filter(|(_, d)| selects(selector, &d.labels))
        .filter_map(|(name, d)| {
            let version = VersionName::new(d.labels.get(label)?).ok()?;
            let object = ObjectName { namespace: namespace.clone(), name: name.clone() };
            let workload = Workload {
                version: version.clone(),
                name: name.clone(),
                hash: d.hash.clone(),
                replicas: d.replicas,
                ready: d.ready,
                endpoints: endpoints.get(name.as_str()).copied().unwrap_or(0),
                created: d.created,
                scaled_by: cluster.autoscaler(&object).map(str::to_owned).or_else(|| d.replicas_owner.clone()),
                kept_by: d.keeper.as_deref().map(str::to_owned),
            };
            let labels = d.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            Some((workload, (version, labels)))
        })
        .collect();
    found.sort_by(|(a, _), (b, _)| (a.created, &a.name).cmp(&(b.created, &b.name)));
    found
}

/// The Deployment that a pod belongs to, by its name: `DEPLOYMENT-HASH-RANDOM`, with five characters at random. A name that was
/// cut to fit, or made otherwise, is given to the Deployment whose name it begins with, the longest one.
fn owner_of<'a>(pod: &str, deployments: &BTreeSet<&'a str>) -> Option<&'a str> {
    let random = pod.rsplit_once('-').filter(|(_, random)| random.len() == 5);
    let stem = random.and_then(|(rest, _)| rest.rsplit_once('-')).map(|(stem, _)| stem);
    if let Some(exact) = stem.and_then(|stem| deployments.get(stem)) {
        return Some(exact);
    }
    let begins = |d: &&&str| pod.strip_prefix(**d).is_some_and(|rest| rest.starts_with('-'));
    // The API server cuts at 58 characters before it adds what is random.
    let cut = (pod.len() == 63).then(|| pod.get(..58)).flatten();
    let was_cut = |d: &&&str| cut.is_some_and(|cut| d.starts_with(cut));
    deployments.iter().filter(begins).max_by_key(|d| d.len()).or_else(|| deployments.iter().find(was_cut)).copied()
}

/// Why there is nothing to see, or nothing that is this release's to touch.
fn nothing_to_work_on(cluster: &Cluster, release: &Release) -> Option<Obstacle> {
    let make = |code: &str, what: String| Some(Obstacle { code: code.into(), what });
    for kind in [Kind::VirtualService, Kind::DestinationRule] {
        if let Some(why) = cluster.missing(kind) {
            return make("NoIstio", why.to_owned());
        }
    }
    let name = ObjectName { namespace: release.name.namespace.clone(), name: release.service.clone() };
    match cluster.service(&name) {
        None => return make("NoService", format!("Service {name} does not exist: create it, or correct spec.service")),
        Some(service) if service.external => {
            return make(
                "NoService",
                format!("Service {name} is an ExternalName, without pods of its own to split among: name the Service that selects them"),
            );
        }
        Some(service) if service.selector.is_empty() => {
            return make(
                "NoSelector",
                format!("Service {name} has no selector, so its versions cannot be told: give it one, as {{app: {}}}", name.name),
            );
        }
        Some(_) => {}
    }
    // The older release works; among equals the name decides, so that both come to the same answer.
    let rank = |r: &Release| (r.created, r.name.name.clone());
    let host = host_of(release);
    let rivals = cluster.rivals(&host).filter(|r| r.name != release.name && !r.deleting);
    let older = rivals.filter(|r| rank(r) < rank(release)).min_by_key(|r| rank(r))?;
    make("OtherRelease", format!("CanaryRelease {} works on Service {name} and is older: delete one of the two", older.name))
}

/// What forbids going forward on these routes: all of it in one sentence.
fn forward_problem(network: &Network<'_>, subject: &Subject<'_>) -> Option<Obstacle> {
    if let Some(obstacle) = network.obstacle() {
        return Some(obstacle);
    }
    let rollout = subject.state.rollout()?;
    let (stable, canary) = (&rollout.stable.name, &rollout.canary.name);
    let unwritable = network.totals(stable, canary, &subject.plan.shares()).err().unwrap_or_default();
    // What the rollout itself will add is no problem of the route.
    let unwritable = unwritable
        .iter()
        .find(|p| matches!(p, RouteProblem::NoTotal { .. } | RouteProblem::NamedTwice { .. } | RouteProblem::NothingToShare { .. }));
    if let Some(problem) = unwritable {
        return Some(Obstacle { code: problem.code().to_owned(), what: problem.to_string() });
    }
    let without = network.callers_without(canary);
    (!without.is_empty()).then(|| Obstacle {
        code: "CallersWithout".into(),
        what: format!(
            "callers in namespace {} use a DestinationRule of their own for {}, which has no subset for {canary}: add it there, or remove that rule",
            without.join(", "),
            subject.release.service,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_belong_to_the_deployment_that_made_their_name() {
        let long = "a-deployment-whose-name-is-so-long-that-its-pods-names-are-cut";
        let all = BTreeSet::from(["my-app", "my-app-v1", "my-app-v1-extra", long]);
        for (pod, owner) in [
            ("my-app-v1-5d4f8c7b9-abcde", Some("my-app-v1")),
            ("my-app-v1-extra-5d4f8c7b9-abcde", Some("my-app-v1-extra")),
            ("my-app-5d4f8c7b9-abcde", Some("my-app")),
            ("my-app-v1-cutname", Some("my-app-v1")),
            (&format!("{}xk2z9", &long[..58]), Some(long)),
            ("other-5d4f8c7b9-abcde", None),
            ("my-application-5d4f8c7b9-abcde", None),
        ] {
            assert_eq!(owner_of(pod, &all), owner, "{pod}");
        }
    }
}
