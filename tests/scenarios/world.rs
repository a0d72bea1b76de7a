//! A small world for scenarios: versions with pods, routes, callers and a source of metrics, in virtual time.
//!
//! Included by the pure runner (`crates/serin-api/tests`) and by the controller's (`crates/serin-controller/tests`).
//! Traffic is exact, without chance: 50 requests a second at 10 % are 5 a second, and 1 % of errors is one in a hundred.
//! Deliberately knows nothing of how Serin decides.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serin_core::action::{Action, Guard};
use serin_core::observe::{
    ArmCounts, Observation, Obstacle, Reading, Request, RequestAction, Route, Rules, SourceProblem, Split, Traffic, Workload,
};
use serin_core::simulate::{ISTIO_EDGES, Latency};
use serin_core::stats::{Batch, Counts};
use serin_core::units::{ObjectName, Timestamp, VersionName, Weight};

/// One file of this folder.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Story {
    /// What happens, as one sentence.
    pub(crate) story: String,
    /// How long it lasts, in minutes.
    pub(crate) minutes: f64,
    /// Requests per second to the service.
    pub(crate) rate: f64,
    /// The CanaryRelease's spec.
    pub(crate) spec: serde_json::Value,
    /// What is there at the beginning.
    pub(crate) versions: BTreeMap<String, Version>,
    /// VirtualServices by name; by default one, `my-app`.
    #[serde(default = "one_route")]
    pub(crate) routes: Vec<String>,
    /// Which versions have a subset at the beginning; by default all that are there.
    pub(crate) subsets: Option<Vec<String>>,
    /// Why no subset may be written, if so.
    pub(crate) no_subsets: Option<String>,
    /// What happens later.
    #[serde(default)]
    pub(crate) then: Vec<Change>,
    /// All events, in order: `Code: a part of the sentence`.
    pub(crate) events: Vec<String>,
    /// What must be so at the end.
    pub(crate) end: End,
}

/// All stories by their files' names; those whose name contains `SCENARIO`, where that is set.
pub(crate) fn stories() -> Vec<(String, Story)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenarios");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).expect("the scenarios' folder").map(|e| e.expect("an entry").path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "toml"));
    files.sort();
    let only = std::env::var("SCENARIO").ok();
    let name = |f: &PathBuf| f.file_stem().expect("a name").to_string_lossy().into_owned();
    files.retain(|f| only.as_ref().is_none_or(|o| name(f).contains(o.as_str())));
    let read = |f: &PathBuf| {
        toml::from_str(&std::fs::read_to_string(f).expect("a readable file")).unwrap_or_else(|e| panic!("{}: {e}", f.display()))
    };
    files.iter().map(|f| (name(f), read(f))).collect()
}

fn one_route() -> Vec<String> {
    vec!["my-app".into()]
}

/// A version and its Deployment `my-app-VERSION`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Version {
    /// Replicas asked for.
    pub(crate) pods: Option<u32>,
    /// Pods that can become ready at most.
    pub(crate) ready: Option<u32>,
    /// Weight on every route at the beginning.
    pub(crate) weight: Option<u32>,
    /// Share of requests that fail, as `0.5%`.
    pub(crate) errors: Option<String>,
    /// Share of requests slower than any edge.
    pub(crate) slow: Option<String>,
    /// Share of requests that are counted as bad by a counter of the version's own, though they are answered well.
    pub(crate) lost: Option<String>,
    /// Median of the others in milliseconds; log-normal. Absent: they take no time.
    pub(crate) latency: Option<f64>,
    /// Changes the pod template.
    pub(crate) template: Option<String>,
    /// Who else sets the replicas.
    pub(crate) scaled_by: Option<String>,
    /// Who applies it from Git.
    pub(crate) kept_by: Option<String>,
}

/// Something that happens.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    /// When, in seconds from the beginning.
    pub(crate) at: f64,
    /// A Deployment appears, or changes in the fields given.
    #[serde(default)]
    pub(crate) versions: BTreeMap<String, Version>,
    /// A Deployment goes.
    pub(crate) gone: Option<String>,
    /// Somebody writes weights.
    pub(crate) weights: Option<BTreeMap<String, u32>>,
    /// Who writes them.
    pub(crate) by: Option<String>,
    /// A person's request: `resume`, `promote`, `promote --full`, `pause`, `retry`, `abort`, `abort --force`,
    /// `set-weight 30%`, `rollback`, `rollback --now`.
    pub(crate) request: Option<String>,
    /// The request's id, if not one of its own.
    pub(crate) id: Option<String>,
    /// Whether the Service selects none of the pods, as its selector is written wrong.
    pub(crate) hidden: Option<bool>,
    /// The rollout the request means, if not whatever runs.
    pub(crate) rollout: Option<String>,
    /// The step the request means, from 1, if not whatever runs.
    pub(crate) step: Option<usize>,
    /// How many seconds ago it was made.
    #[serde(default)]
    pub(crate) age: f64,
    /// `down`, `stale`, `missing`, `ok`.
    pub(crate) source: Option<String>,
    /// The VirtualServices are deleted (`gone`), or made again as they were (`back`).
    pub(crate) routes: Option<String>,
    /// What the plan's queries answer from now on: a number, or `none`.
    pub(crate) answer: Option<String>,
    /// Requests per second from now on.
    pub(crate) rate: Option<f64>,
    /// Fields of the spec that change.
    pub(crate) spec: Option<serde_json::Value>,
    /// Something about the routes that Serin may not work with; empty: gone again.
    pub(crate) obstacle: Option<String>,
    /// A freeze by its reason; empty: thawed.
    pub(crate) freeze: Option<String>,
    /// An abort made on the routes themselves, as `serin abort` does without a controller.
    #[serde(default)]
    pub(crate) abort_on_route: bool,
    /// From now on callers find no cluster for this version for so many seconds after its weight rose.
    pub(crate) no_cluster: Option<f64>,
}

/// What must be so at the end.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct End {
    /// The phase.
    pub(crate) phase: String,
    /// The stable version.
    pub(crate) stable: String,
    /// Weights of the first route, as percent shares.
    pub(crate) weights: BTreeMap<String, f64>,
    /// A part of the message.
    #[serde(default)]
    pub(crate) message: String,
    /// Replicas of Deployments.
    #[serde(default)]
    pub(crate) pods: BTreeMap<String, u32>,
    /// The versions that the first route names, where that is asked.
    pub(crate) destinations: Option<Vec<String>>,
    /// The versions that have a subset, where that is asked.
    pub(crate) subsets: Option<Vec<String>>,
}

/// A Deployment of the world.
#[derive(Clone, Debug)]
pub(crate) struct Deployment {
    /// Replicas asked for.
    pub(crate) replicas: u32,
    /// How many can be ready.
    pub(crate) ready_limit: u32,
    /// When each change of replicas becomes real.
    pub(crate) ready_at: Timestamp,
    /// Ready before that.
    pub(crate) ready_before: u32,
    /// Share of errors.
    pub(crate) errors: f64,
    /// Share of slow requests.
    pub(crate) slow: f64,
    /// Share of what its own counter counts as bad.
    pub(crate) lost: f64,
    /// How long the others take.
    pub(crate) latency: Option<Latency>,
    /// Hash of the template.
    pub(crate) hash: String,
    /// When it appeared.
    pub(crate) created: Timestamp,
    /// Who else sets its replicas.
    pub(crate) scaled_by: Option<String>,
    /// Who applies it from Git.
    pub(crate) kept_by: Option<String>,
}

impl Deployment {
    /// Ready pods at `now`.
    pub(crate) fn ready(&self, now: Timestamp) -> u32 {
        let now_ready = if now >= self.ready_at { self.replicas } else { self.ready_before.min(self.replicas) };
        now_ready.min(self.ready_limit)
    }
}

/// A VirtualService of the world: weights by version.
#[derive(Clone, Debug)]
pub(crate) struct WorldRoute {
    /// Its name.
    pub(crate) name: String,
    /// Weights by version; a version that is not named has no destination.
    pub(crate) weights: BTreeMap<String, u32>,
    /// Changes with each write.
    pub(crate) resource_version: u64,
    /// Who wrote last.
    pub(crate) manager: Option<(String, Timestamp)>,
    /// The abort mark.
    pub(crate) mark: Option<String>,
    /// Why, as the mark says.
    pub(crate) because: Option<String>,
}

/// Everything that Serin can see or touch.
#[derive(Clone, Debug)]
pub(crate) struct World {
    /// The virtual time.
    pub(crate) now: Timestamp,
    /// Deployments by version.
    pub(crate) deployments: BTreeMap<String, Deployment>,
    /// VirtualServices.
    pub(crate) routes: Vec<WorldRoute>,
    /// Versions that have a subset.
    pub(crate) subsets: Vec<String>,
    /// Those of which Serin's own rule has it.
    own: Vec<String>,
    /// The CanaryRelease's spec.
    pub(crate) spec: serde_json::Value,
    /// Requests that are not handled.
    pub(crate) requests: Vec<Request>,
    /// A freeze.
    pub(crate) freeze: Option<String>,
    /// What is wrong with the routes.
    pub(crate) obstacle: Option<String>,
    /// The source's trouble.
    pub(crate) source: Option<SourceProblem>,
    answer: Option<f64>,
    deleted: Vec<WorldRoute>,
    no_subsets: Option<String>,
    rate: f64,
    no_cluster: Option<f64>,
    no_cluster_until: Timestamp,
    totals: BTreeMap<String, ArmCounts>,
    lost: BTreeMap<String, f64>,
    nc_total: f64,
    uh_total: f64,
    next_request: u32,
    /// Whether the Service selects nobody.
    pub(crate) hidden: bool,
    then: Vec<Change>,
}

/// The beginning of every story.
pub(crate) const START: Timestamp = Timestamp(1_700_000_000_000);
const POD_START: Duration = Duration::from_secs(2);

fn share(text: Option<&String>) -> Option<f64> {
    text.map(|t| t.trim_end_matches('%').parse::<f64>().expect("a share such as 0.5%") / 100.0)
}

impl World {
    /// The world at the beginning of a story.
    pub(crate) fn new(story: &Story) -> Self {
        let mut world = Self {
            now: START,
            deployments: BTreeMap::new(),
            routes: Vec::new(),
            subsets: story.subsets.clone().unwrap_or_else(|| story.versions.keys().cloned().collect()),
            own: Vec::new(),
            spec: story.spec.clone(),
            requests: Vec::new(),
            freeze: None,
            obstacle: None,
            source: None,
            answer: None,
            deleted: Vec::new(),
            no_subsets: story.no_subsets.clone(),
            rate: story.rate,
            no_cluster: None,
            no_cluster_until: START,
            lost: BTreeMap::new(),
            totals: BTreeMap::new(),
            nc_total: 0.0,
            uh_total: 0.0,
            next_request: 1,
            hidden: false,
            then: story.then.clone(),
        };
        let weights: BTreeMap<String, u32> = story.versions.iter().filter_map(|(v, d)| Some((v.clone(), d.weight?))).collect();
        for name in &story.routes {
            world.routes.push(WorldRoute {
                name: name.clone(),
                weights: weights.clone(),
                resource_version: 1,
                manager: None,
                mark: None,
                because: None,
            });
        }
        for (name, version) in &story.versions {
            world.upsert(name, version);
            if let Some(d) = world.deployments.get_mut(name) {
                d.ready_at = START;
            }
        }
        world.then.sort_by(|a, b| a.at.total_cmp(&b.at));
        world
    }

    fn upsert(&mut self, name: &str, v: &Version) {
        let now = self.now;
        let fresh = || Deployment {
            replicas: 1,
            ready_limit: u32::MAX,
            ready_at: now.plus(POD_START),
            ready_before: 0,
            errors: 0.0,
            slow: 0.0,
            lost: 0.0,
            latency: None,
            hash: "a".into(),
            created: now,
            scaled_by: None,
            kept_by: None,
        };
        let d = self.deployments.entry(name.into()).or_insert_with(fresh);
        if let Some(pods) = v.pods {
            d.ready_before = d.ready(now);
            d.replicas = pods;
            d.ready_at = now.plus(POD_START);
        }
        d.ready_limit = v.ready.unwrap_or(d.ready_limit);
        d.errors = share(v.errors.as_ref()).unwrap_or(d.errors);
        d.slow = share(v.slow.as_ref()).unwrap_or(d.slow);
        d.lost = share(v.lost.as_ref()).unwrap_or(d.lost);
        d.latency = v.latency.map(|median_ms| Latency { median_ms, sigma: 0.5 }).or(d.latency);
        d.hash = v.template.clone().unwrap_or_else(|| d.hash.clone());
        d.kept_by = v.kept_by.clone().or_else(|| d.kept_by.clone());
        d.scaled_by = v.scaled_by.clone().or_else(|| d.scaled_by.clone());
    }

    /// When the next change of the story is due.
    pub(crate) fn next_change(&self) -> Option<Timestamp> {
        self.then.first().map(|c| START.plus(Duration::from_secs_f64(c.at)))
    }

    /// When pods that start next become ready.
    pub(crate) fn next_ready(&self) -> Option<Timestamp> {
        self.deployments.values().map(|d| d.ready_at).filter(|at| *at > self.now).min()
    }

    /// Lets callers call until `to`, and makes the changes that are due then.
    pub(crate) fn advance(&mut self, to: Timestamp) {
        while let Some(due) = self.next_change().filter(|due| *due <= to) {
            self.flow(due);
            let change = self.then.remove(0);
            self.make(&change);
        }
        self.flow(to);
    }

    /// Requests between `now` and `to`, split as the first route says.
    fn flow(&mut self, to: Timestamp) {
        let seconds = to.since(self.now).as_secs_f64();
        let (from, rate) = (self.now, self.rate);
        self.now = self.now.max(to);
        let Some(route) = self.routes.first() else { return };
        let total: u32 = route.weights.values().sum();
        for (version, weight) in &route.weights {
            let n = if total == 0 { 0.0 } else { rate * seconds * f64::from(*weight) / f64::from(total) };
            let Some(d) = self.deployments.get(version).filter(|d| d.ready(from) > 0) else {
                self.uh_total += n;
                continue;
            };
            let (slow, lost, latency) = (d.slow, d.lost, d.latency);
            if self.no_cluster.is_some() && from < self.no_cluster_until && *version != "v1" {
                self.nc_total += n;
                continue;
            }
            let errors = d.errors;
            *self.lost.entry(version.clone()).or_default() += n * lost;
            let sum = self.totals.entry(version.clone()).or_default();
            sum.n += n;
            sum.errors += n * errors;
            sum.timed += n;
            if sum.slower.is_empty() {
                sum.slower = ISTIO_EDGES.map(|edge| (edge, 0.0)).to_vec();
            }
            for (edge, x) in &mut sum.slower {
                *x += n * (slow + (1.0 - slow) * latency.map_or(0.0, |l| l.slower_than(*edge, 1.0, 0.0)));
            }
        }
    }

    fn make(&mut self, change: &Change) {
        let now = self.now;
        for (name, version) in &change.versions {
            self.upsert(name, version);
        }
        if let Some(gone) = &change.gone {
            self.deployments.remove(gone);
        }
        if let Some(weights) = &change.weights {
            for route in &mut self.routes {
                for (v, w) in weights {
                    route.weights.insert(v.clone(), *w);
                }
                route.resource_version += 1;
                route.manager = Some((change.by.clone().unwrap_or_else(|| "kubectl-edit".into()), now));
            }
        }
        self.hidden = change.hidden.unwrap_or(self.hidden);
        if let Some(request) = &change.request {
            let action = match request.as_str() {
                "resume" => RequestAction::Resume,
                "promote" => RequestAction::Promote,
                "promote --full" => RequestAction::PromoteFull,
                "pause" => RequestAction::Pause,
                "retry" => RequestAction::Retry,
                "abort" => RequestAction::Abort,
                "abort --force" => RequestAction::AbortForced,
                "rollback" => RequestAction::Rollback,
                "rollback --now" => RequestAction::RollbackNow,
                other => match other.strip_prefix("set-weight ").map(Weight::parse) {
                    Some(Ok(share)) => RequestAction::SetWeight(share),
                    _ => panic!("no such request: {other}"),
                },
            };
            let id = change.id.clone().unwrap_or_else(|| format!("r{}", self.next_request));
            self.next_request += 1;
            let rollout = change.rollout.clone().unwrap_or_default();
            let at = Timestamp(now.0 - (change.age * 1000.0) as i64);
            let step = change.step.map(|s| s - 1);
            self.requests.push(Request { id, action, rollout, step, who: "ann".into(), why: String::new(), at });
        }
        match change.source.as_deref() {
            None => {}
            Some("ok") => self.source = None,
            Some("down") => self.source = Some(SourceProblem::Unreachable { what: "connection refused".into() }),
            Some("stale") => self.source = Some(SourceProblem::Stale { age_s: 90 }),
            Some("missing") => self.source = Some(SourceProblem::Missing { what: "no istio_requests_total".into() }),
            Some(other) => panic!("no such source: {other}"),
        }
        match change.routes.as_deref() {
            None => {}
            Some("gone") => self.deleted = std::mem::take(&mut self.routes),
            Some("back") => self.routes = std::mem::take(&mut self.deleted),
            Some(other) => panic!("routes are gone or back, not {other}"),
        }
        if let Some(answer) = &change.answer {
            self.answer = answer.parse().ok();
        }
        self.rate = change.rate.unwrap_or(self.rate);
        self.no_cluster = change.no_cluster.or(self.no_cluster);
        if let Some(serde_json::Value::Object(fields)) = &change.spec {
            for (k, v) in fields {
                self.spec[k] = v.clone();
            }
        }
        if let Some(freeze) = &change.freeze {
            self.freeze = (!freeze.is_empty()).then(|| freeze.clone());
        }
        if let Some(obstacle) = &change.obstacle {
            self.obstacle = (!obstacle.is_empty()).then(|| obstacle.clone());
        }
        if change.abort_on_route {
            let uid = change.rollout.clone();
            for route in &mut self.routes {
                let sum: u32 = route.weights.values().sum();
                let last = route.weights.keys().next_back().cloned().expect("a route with versions");
                let stable = route.weights.keys().find(|v| **v != last).cloned().expect("two versions");
                route.weights = [(stable, sum), (last, 0)].into();
                route.resource_version += 1;
                route.manager = Some(("serin".into(), now));
                (route.mark, route.because) = (uid.clone(), None);
            }
        }
    }

    /// The share of a version on a route.
    pub(crate) fn share(route: &WorldRoute, version: &str) -> Weight {
        let total: u32 = route.weights.values().sum();
        Weight::of(u64::from(route.weights.get(version).copied().unwrap_or(0)), u64::from(total))
    }

    /// Counters of a version since the beginning, as a proxy would count them.
    pub(crate) fn counters(&self, version: &str) -> ArmCounts {
        self.totals.get(version).cloned().unwrap_or_default()
    }

    /// What Serin sees, but for the traffic.
    pub(crate) fn observe(&self, traffic: Traffic) -> Observation {
        let name = |v: &str| VersionName::new(v).expect("a version's name");
        let mut workloads: Vec<Workload> = self
            .deployments
            .iter()
            .filter(|_| !self.hidden)
            .map(|(v, d)| Workload {
                version: name(v),
                name: format!("my-app-{v}"),
                hash: d.hash.clone(),
                replicas: d.replicas,
                ready: d.ready(self.now),
                endpoints: d.ready(self.now),
                created: d.created,
                scaled_by: d.scaled_by.clone(),
                kept_by: d.kept_by.clone(),
            })
            .collect();
        workloads.sort_by_key(|w| w.created);
        let route = |r: &WorldRoute| Route {
            object: ObjectName { namespace: "default".into(), name: r.name.clone() },
            resource_version: r.resource_version.to_string(),
            splits: vec![Split { label: "spec.http[0]".into(), shares: r.weights.keys().map(|v| (name(v), Self::share(r, v))).collect() }],
            manager: r.manager.clone(),
            mark: r.mark.clone(),
            because: r.because.clone(),
        };
        let (abort, requests) =
            self.requests.iter().cloned().partition::<Vec<_>, _>(|r| matches!(r.action, RequestAction::Abort | RequestAction::AbortForced));
        Observation {
            at: self.now,
            workloads,
            routes: self.routes.iter().map(route).collect(),
            rules: Rules {
                subsets: self.subsets.iter().filter(|v| !self.hidden && self.deployments.contains_key(*v)).map(|v| name(v)).collect(),
                own: self.own.iter().map(|v| name(v)).collect(),
                unused: self.own.iter().filter(|v| self.routes.iter().all(|r| !r.weights.contains_key(*v))).map(|v| name(v)).collect(),
                refusal: self.no_subsets.clone(),
            },
            traffic,
            requests,
            abort: abort.into_iter().next(),
            freeze: self.freeze.clone(),
            obstacle: self.obstacle.clone().map(|what| Obstacle { code: "Route".into(), what }),
        }
    }

    /// Carries out an action, as the controller would.
    pub(crate) fn act(&mut self, action: &Action) {
        match action {
            Action::EnsureSubset { canary, .. } => {
                if !self.subsets.contains(&canary.to_string()) {
                    self.subsets.push(canary.to_string());
                    self.own.push(canary.to_string());
                }
            }
            Action::RemoveDestination { route, version } => {
                if let Some(r) = self.routes.iter_mut().find(|r| r.name == route.name) {
                    r.weights.remove(version.as_str());
                    r.resource_version += 1;
                    r.manager = Some(("serin".into(), self.now));
                }
            }
            Action::RemoveSubset { version } => {
                self.subsets.retain(|v| v != version.as_str());
                self.own.retain(|v| v != version.as_str());
            }
            Action::EnsureDestination { route, canary, .. } => {
                if let Some(r) = self.routes.iter_mut().find(|r| r.name == route.name) {
                    r.weights.entry(canary.to_string()).or_insert(0);
                    r.resource_version += 1;
                    r.manager = Some(("serin".into(), self.now));
                }
            }
            Action::SetWeights { route, stable, canary, share, guard } => {
                let now = self.now;
                let rising = self.no_cluster;
                let Some(r) = self.routes.iter_mut().find(|r| r.name == route.name) else { return };
                if let Guard::Forward { resource_version } = guard
                    && *resource_version != r.resource_version.to_string()
                {
                    return;
                }
                if let Some(seconds) = rising.filter(|_| *share > Self::share(r, canary.as_str())) {
                    self.no_cluster_until = now.plus(Duration::from_secs_f64(seconds));
                }
                r.weights.insert(canary.to_string(), share.parts());
                r.weights.insert(stable.to_string(), share.rest().parts());
                r.resource_version += 1;
                r.manager = Some(("serin".into(), now));
                if let Guard::Abort { rollout, why } = guard
                    && r.mark.as_ref() != Some(rollout)
                {
                    (r.mark, r.because) = (Some(rollout.clone()), Some(why.clone()));
                }
            }
            Action::Scale { workload, replicas } | Action::Unscale { workload, replicas } => {
                let now = self.now;
                if let Some((_, d)) = self.deployments.iter_mut().find(|(v, _)| format!("my-app-{v}") == *workload) {
                    d.ready_before = d.ready(now);
                    d.replicas = *replicas;
                    d.ready_at = now.plus(POD_START);
                }
            }
            Action::Retire { workload } => self.deployments.retain(|v, _| format!("my-app-{v}") != *workload),
            Action::Event { .. } => {}
            Action::Handle { id } => self.requests.retain(|r| r.id != *id),
        }
    }
}

/// Reads the world's counters as a source does: increments since the last reading; a restart drops the gap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source {
    last: Option<Counters>,
}

/// All counters of the world at one moment.
#[derive(Clone, Debug)]
struct Counters {
    at: Timestamp,
    totals: BTreeMap<String, ArmCounts>,
    lost: BTreeMap<String, f64>,
    nc: f64,
    uh: f64,
}

/// What a plan asks of a source besides requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// So many queries.
    pub(crate) queries: usize,
    /// So many pairs of counters: all requests, and those that the version lost.
    pub(crate) counters: usize,
}

impl Source {
    /// One reading for two arms, with these edges.
    pub(crate) fn poll(&mut self, world: &World, stable: &str, canary: &str, edges: &[f64], asked: Asked) -> Traffic {
        if let Some(problem) = &world.source {
            return Traffic::Problem(problem.clone());
        }
        let now =
            Counters { at: world.now, totals: world.totals.clone(), lost: world.lost.clone(), nc: world.nc_total, uh: world.uh_total };
        let before = self.last.replace(now.clone()).unwrap_or(now);
        let lost = |v: &str| world.lost.get(v).copied().unwrap_or(0.0) - before.lost.get(v).copied().unwrap_or(0.0);
        let arm = |v: &str| {
            let (new, old) = (world.counters(v), before.totals.get(v).cloned().unwrap_or_default());
            let slow = |c: &ArmCounts, edge: f64| if c.n > 0.0 { c.slower_than(edge).expect("one of Istio's edges") } else { 0.0 };
            ArmCounts {
                n: new.n - old.n,
                errors: new.errors - old.errors,
                timed: new.timed - old.timed,
                slower: edges.iter().map(|e| (*e, slow(&new, *e) - slow(&old, *e))).collect(),
            }
        };
        let orders = |v: &str| Counts { n: arm(v).n, x: lost(v) };
        Traffic::Read(Reading {
            from: before.at,
            to: world.now,
            stable: arm(stable),
            canary: arm(canary),
            history: Vec::new(),
            no_healthy_upstream: world.uh_total - before.uh,
            no_cluster: world.nc_total - before.nc,
            answers: vec![world.answer; asked.queries],
            counted: vec![Some(Batch { canary: orders(canary), stable: orders(stable) }); asked.counters],
        })
    }
}
