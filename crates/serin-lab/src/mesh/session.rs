//! One ADS stream's bookkeeping, without gRPC: what Envoy subscribed to, what it was sent, what it took or refused.
//!
//! New things go out from the bottom up (clusters, their endpoints, then listeners and routes), and old ones leave last, so that no route ever
//! names a cluster that is not there yet, or no more (`docs/istio.md`, section 3). State of the world: each answer holds all of a type.

use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::util::pack_any;

use super::translate::Resources;

/// A complete configuration, and the version of the store that it was made from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Clusters, endpoints, routes.
    pub resources: Resources,
    /// Listeners by name.
    pub listeners: BTreeMap<String, Listener>,
    /// `resourceVersion` of the latest change that it knows of.
    pub version: u64,
}

/// The types, from the bottom up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Type {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoint,
    /// LDS.
    Listener,
    /// RDS.
    Route,
}

const TYPES: [Type; 4] = [Type::Cluster, Type::Endpoint, Type::Listener, Type::Route];

impl Type {
    /// As `type_url` has it.
    pub fn url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    fn of(url: &str) -> Option<Self> {
        TYPES.into_iter().find(|t| t.url() == url)
    }
}

/// What is going on with one type.
#[derive(Default)]
struct Subscription {
    names: Vec<String>,
    nonce: String,
    /// The configuration that was sent last, by value.
    sent: Option<Arc<Snapshot>>,
    answered: bool,
    /// Whether the answer was no: what Envoy had before goes on.
    refused: bool,
}

/// Which part of a change is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Clusters and endpoints: what is new beside what is old.
    Make,
    /// Listeners and routes.
    Switch,
    /// Clusters without what is old.
    Clear,
}

/// What Envoy thought of the latest answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of the configuration of this store version is in force.
    InForce(u64),
    /// It refused a type; what it had before goes on.
    Refused {
        /// Which.
        kind: Type,
        /// Its words.
        error: String,
        /// The store version that was refused.
        version: u64,
    },
}

/// The stream.
pub struct Session {
    target: Arc<Snapshot>,
    /// Clusters and endpoints while both old and new are needed.
    bridge: Arc<Snapshot>,
    stage: Stage,
    done: bool,
    subscriptions: BTreeMap<Type, Subscription>,
    nonces: u64,
}

impl Session {
    /// A stream that has just been opened.
    pub fn new(target: Arc<Snapshot>) -> Self {
        Self { bridge: target.clone(), target, stage: Stage::Make, done: false, subscriptions: BTreeMap::new(), nonces: 0 }
    }

    /// A new configuration to bring about; replaces one that is under way.
    pub fn aim(&mut self, target: Arc<Snapshot>) {
        let mut bridge = (*target).clone();
        for (name, cluster) in &self.bridge.resources.clusters {
            bridge.resources.clusters.entry(name.clone()).or_insert_with(|| cluster.clone());
        }
        for (name, endpoints) in &self.bridge.resources.endpoints {
            bridge.resources.endpoints.entry(name.clone()).or_insert_with(|| endpoints.clone());
        }
        self.bridge = Arc::new(bridge);
        self.target = target;
        self.stage = Stage::Make;
        self.done = false;
    }

    /// Takes in one request of Envoy's: a subscription, an acknowledgement, or a refusal.
    pub fn hear(&mut self, request: &DiscoveryRequest) -> Option<Verdict> {
        let kind = Type::of(&request.type_url)?;
        let subscription = self.subscriptions.entry(kind).or_default();
        if !request.response_nonce.is_empty() && request.response_nonce != subscription.nonce {
            // An answer to something older; the one to the latest is still to come.
            return None;
        }
        if subscription.names != request.resource_names {
            subscription.names.clone_from(&request.resource_names);
            // Names that are new wait for their resources: all of the type goes out again.
            if matches!(kind, Type::Endpoint | Type::Route) {
                subscription.sent = None;
            }
        }
        if request.response_nonce.is_empty() {
            return None;
        }
        subscription.answered = true;
        subscription.refused = request.error_detail.is_some();
        let version = subscription.sent.as_ref().map_or(0, |s| s.version);
        let error = request.error_detail.as_ref()?;
        Some(Verdict::Refused { kind, error: error.message.clone(), version })
    }

    /// What is to be sent now; to be asked after each `hear` and each `aim`, until it gives nothing.
    ///
    /// A refused cluster holds up nobody else's routes: those of other services go out (an abort among them). Refused routes mean that
    /// the old ones go on, so that no cluster is taken from them. Nothing is in force as long as anything stands refused.
    pub fn speak(&mut self) -> (Vec<DiscoveryResponse>, Option<Verdict>) {
        let mut out = Vec::new();
        loop {
            let types: &[Type] = match self.stage {
                Stage::Make => &[Type::Cluster, Type::Endpoint],
                Stage::Switch => &[Type::Listener, Type::Route],
                Stage::Clear => &[Type::Cluster, Type::Endpoint],
            };
            for kind in types {
                out.extend(self.send_if_changed(*kind));
            }
            if !types.iter().all(|t| self.settled(*t)) {
                return (out, None);
            }
            match self.stage {
                Stage::Make => self.stage = Stage::Switch,
                Stage::Switch if self.refused(Type::Listener) || self.refused(Type::Route) => return (out, None),
                Stage::Switch => {
                    self.stage = Stage::Clear;
                    self.bridge = self.target.clone();
                }
                Stage::Clear if self.done => return (out, None),
                Stage::Clear => {
                    self.done = true;
                    if TYPES.into_iter().any(|t| self.refused(t)) {
                        return (out, None);
                    }
                    return (out, Some(Verdict::InForce(self.target.version)));
                }
            }
        }
    }

    fn refused(&self, kind: Type) -> bool {
        self.subscriptions.get(&kind).is_some_and(|s| s.refused)
    }

    fn wanted(&self, kind: Type) -> &Arc<Snapshot> {
        match kind {
            Type::Cluster | Type::Endpoint => &self.bridge,
            Type::Listener | Type::Route => &self.target,
        }
    }

    /// Sent, answered, and (for endpoints) asked for by all clusters.
    fn settled(&self, kind: Type) -> bool {
        let Some(subscription) = self.subscriptions.get(&kind) else {
            // Endpoints and routes are subscribed to only once something names them.
            return match kind {
                Type::Cluster | Type::Listener => false,
                Type::Endpoint => self.bridge.resources.clusters.is_empty(),
                Type::Route => self.target.listeners.is_empty(),
            };
        };
        let current = subscription.sent.as_ref().is_some_and(|sent| same(kind, sent, self.wanted(kind)));
        let complete = match kind {
            // For a cluster that it refused Envoy asks nothing more.
            Type::Endpoint => self.refused(Type::Cluster) || self.bridge.resources.clusters.keys().all(|c| subscription.names.contains(c)),
            Type::Route => self.target.listeners.keys().all(|l| subscription.names.contains(l)),
            Type::Cluster | Type::Listener => true,
        };
        current && complete && subscription.answered
    }

    fn send_if_changed(&mut self, kind: Type) -> Option<DiscoveryResponse> {
        let wanted = self.wanted(kind).clone();
        let subscription = self.subscriptions.get_mut(&kind)?;
        if subscription.sent.as_ref().is_some_and(|sent| same(kind, sent, &wanted)) {
            return None;
        }
        self.nonces += 1;
        subscription.nonce = self.nonces.to_string();
        subscription.answered = false;
        subscription.refused = false;
        let named = |name: &String| subscription.names.contains(name);
        let r = &wanted.resources;
        let resources: Vec<Any> = match kind {
            Type::Cluster => r.clusters.values().cloned().map(pack_any).collect(),
            Type::Endpoint => r.endpoints.iter().filter(|(n, _)| named(n)).map(|(_, e)| pack_any(e.clone())).collect(),
            Type::Listener => wanted.listeners.values().cloned().map(pack_any).collect(),
            Type::Route => r.routes.iter().filter(|(n, _)| named(n)).map(|(_, t)| pack_any(t.clone())).collect(),
        };
        subscription.sent = Some(wanted.clone());
        Some(DiscoveryResponse {
            version_info: wanted.version.to_string(),
            resources,
            type_url: kind.url().into(),
            nonce: subscription.nonce.clone(),
            ..Default::default()
        })
    }
}

fn same(kind: Type, a: &Arc<Snapshot>, b: &Arc<Snapshot>) -> bool {
    Arc::ptr_eq(a, b)
        || match kind {
            Type::Cluster => a.resources.clusters == b.resources.clusters,
            Type::Endpoint => a.resources.endpoints == b.resources.endpoints,
            Type::Listener => a.listeners == b.listeners,
            Type::Route => a.resources.routes == b.resources.routes,
        }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
    use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
    use envoy_types::pb::google::rpc::Status;

    use super::*;

    fn snapshot(version: u64, clusters: &[&str], route: &str) -> Arc<Snapshot> {
        let mut s = Snapshot { version, ..Snapshot::default() };
        for c in clusters {
            s.resources.clusters.insert((*c).into(), Cluster { name: (*c).into(), ..Default::default() });
            s.resources.endpoints.insert((*c).into(), ClusterLoadAssignment { cluster_name: (*c).into(), ..Default::default() });
        }
        let table = RouteConfiguration { name: "out".into(), most_specific_header_mutations_wins: route == "b", ..Default::default() };
        s.resources.routes.insert("out".into(), table);
        s.listeners.insert("out".into(), Listener { name: "out".into(), ..Default::default() });
        Arc::new(s)
    }

    /// Envoy, as far as order matters: acknowledges, then asks for what the answer names.
    struct Peer {
        session: Session,
        journal: Vec<String>,
        refuse: Option<Type>,
    }

    impl Peer {
        fn ask(&mut self, kind: Type, names: &[String], nonce: &str, error: Option<&str>) -> Option<Verdict> {
            self.session.hear(&DiscoveryRequest {
                type_url: kind.url().into(),
                resource_names: names.to_vec(),
                response_nonce: nonce.into(),
                error_detail: error.map(|m| Status { message: m.into(), ..Default::default() }),
                ..Default::default()
            })
        }

        fn settle(&mut self) -> Vec<Verdict> {
            let mut verdicts = Vec::new();
            loop {
                let (out, verdict) = self.session.speak();
                verdicts.extend(verdict);
                if out.is_empty() {
                    return verdicts;
                }
                for response in out {
                    let kind = Type::of(&response.type_url).expect("a known type");
                    self.journal.push(format!("{kind:?} {}", response.resources.len()));
                    let error = (self.refuse == Some(kind)).then_some("no");
                    let names = self.session.subscriptions[&kind].names.clone();
                    verdicts.extend(self.ask(kind, &names, &response.nonce, error));
                    if kind == Type::Cluster && error.is_none() {
                        let all: Vec<String> = self.session.bridge.resources.clusters.keys().cloned().collect();
                        let nonce = self.session.subscriptions.get(&Type::Endpoint).map(|s| s.nonce.clone()).unwrap_or_default();
                        self.ask(Type::Endpoint, &all, &nonce, None);
                    }
                    if kind == Type::Listener {
                        self.ask(Type::Route, &["out".into()], "", None);
                    }
                }
            }
        }
    }

    fn peer(first: Arc<Snapshot>) -> Peer {
        let mut peer = Peer { session: Session::new(first), journal: Vec::new(), refuse: None };
        peer.ask(Type::Cluster, &[], "", None);
        peer.ask(Type::Listener, &[], "", None);
        peer
    }

    #[test]
    fn a_start_goes_from_clusters_to_routes() {
        let mut peer = peer(snapshot(1, &["v1"], "a"));
        assert_eq!(peer.settle(), [Verdict::InForce(1)]);
        assert_eq!(peer.journal, ["Cluster 1", "Endpoint 1", "Listener 1", "Route 1"]);
    }

    #[test]
    fn a_new_subset_comes_before_its_route_and_an_old_one_leaves_after() {
        let mut peer = peer(snapshot(1, &["v1", "v2"], "a"));
        peer.settle();
        peer.journal.clear();
        peer.session.aim(snapshot(2, &["v1", "v3"], "b"));
        assert_eq!(peer.settle(), [Verdict::InForce(2)]);
        // Endpoints go out again once Envoy asks for those of the new cluster; the route comes after them, and clusters leave after it.
        assert_eq!(peer.journal, ["Cluster 3", "Endpoint 2", "Endpoint 3", "Route 1", "Cluster 2", "Endpoint 2", "Endpoint 2"]);
    }

    #[test]
    fn a_change_of_weights_is_one_answer() {
        let mut peer = peer(snapshot(1, &["v1"], "a"));
        peer.settle();
        peer.journal.clear();
        peer.session.aim(snapshot(2, &["v1"], "b"));
        peer.settle();
        assert_eq!(peer.journal, ["Route 1"]);
    }

    #[test]
    fn a_refused_route_is_told_once_and_is_never_in_force() {
        let mut peer = peer(snapshot(1, &["v1", "v2"], "a"));
        peer.settle();
        peer.journal.clear();
        peer.refuse = Some(Type::Route);
        peer.session.aim(snapshot(2, &["v1"], "b"));
        assert_eq!(peer.settle(), [Verdict::Refused { kind: Type::Route, error: "no".into(), version: 2 }]);
        // The old route goes on, so the cluster that it may name stays.
        assert_eq!(peer.journal, ["Route 1"]);
        peer.journal.clear();
        peer.session.aim(snapshot(3, &["v1"], "b"));
        assert_eq!(peer.settle(), [], "the same is not sent again");
        peer.refuse = None;
        peer.session.aim(snapshot(4, &["v1"], "a"));
        assert_eq!(peer.settle(), [Verdict::InForce(4)]);
        assert_eq!(peer.journal, ["Route 1", "Cluster 1", "Endpoint 1", "Endpoint 1"]);
    }

    #[test]
    fn a_refused_cluster_holds_up_no_route() {
        let mut peer = peer(snapshot(1, &["v1"], "a"));
        peer.settle();
        peer.journal.clear();
        peer.refuse = Some(Type::Cluster);
        peer.session.aim(snapshot(2, &["v1", "bad"], "b"));
        assert_eq!(peer.settle(), [Verdict::Refused { kind: Type::Cluster, error: "no".into(), version: 2 }]);
        assert_eq!(peer.journal.last().map(String::as_str), Some("Route 1"));
        peer.refuse = None;
        peer.session.aim(snapshot(3, &["v1"], "b"));
        assert_eq!(peer.settle(), [Verdict::InForce(3)]);
    }

    #[test]
    fn a_change_that_reaches_no_proxy_is_in_force_at_once() {
        let mut peer = peer(snapshot(1, &["v1"], "a"));
        peer.settle();
        peer.journal.clear();
        peer.session.aim(snapshot(2, &["v1"], "a"));
        assert_eq!(peer.settle(), [Verdict::InForce(2)]);
        assert!(peer.journal.is_empty(), "{:?}", peer.journal);
    }

    #[test]
    fn an_answer_to_something_older_is_no_answer() {
        let mut peer = peer(snapshot(1, &["v1"], "a"));
        peer.settle();
        peer.session.aim(snapshot(2, &["v1"], "b"));
        let (out, verdict) = peer.session.speak();
        assert_eq!((out.len(), verdict), (1, None));
        assert_eq!(peer.ask(Type::Route, &["out".into()], "1", Some("late")), None);
        assert_eq!(peer.session.speak().1, None, "the latest is not answered yet");
        peer.ask(Type::Route, &["out".into()], &out[0].nonce, None);
        assert_eq!(peer.session.speak().1, Some(Verdict::InForce(2)));
    }
}
