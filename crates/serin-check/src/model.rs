//! Typed views on the tree: the parts of workloads, services and routes that rules ask for.
//!
//! Nothing is copied and nothing is rejected here: a field of the wrong type reads as absent,
//! and the schema rules say so.

use crate::object::{Host, Kind, Ns, Object, host};
use crate::source::Loc;
use crate::yaml::View;

/// Label pairs in the order of the text.
pub(crate) type Labels<'a> = Vec<(&'a str, &'a str)>;

/// Reads a mapping of labels.
pub(crate) fn labels<'a>(view: Option<View<'a>>) -> Labels<'a> {
    view.into_iter().flat_map(View::fields).filter_map(|f| Some((f.key, f.value.scalar()?))).collect()
}

/// Whether `have` carries each pair of `want`.
pub(crate) fn matches(want: &[(&str, &str)], have: &[(&str, &str)]) -> bool {
    want.iter().all(|pair| have.contains(pair))
}

/// The value of a label.
pub(crate) fn value_of<'a>(labels: &[(&'a str, &'a str)], key: &str) -> Option<&'a str> {
    labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
}

/// `app=cart,version=v2`.
pub(crate) fn show(labels: &[(&str, &str)]) -> String {
    let parts: Vec<_> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    parts.join(",")
}

/// A label selector: `matchLabels` and `matchExpressions`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selector<'a> {
    /// Where it stands; none if the object has no selector.
    pub(crate) view: Option<View<'a>>,
    /// Pairs that must be there.
    pub(crate) pairs: Labels<'a>,
    expressions: Vec<Expression<'a>>,
}

#[derive(Debug, Clone)]
struct Expression<'a> {
    key: &'a str,
    op: &'a str,
    values: Vec<&'a str>,
}

impl<'a> Selector<'a> {
    /// Reads a `LabelSelector`.
    pub(crate) fn read(view: Option<View<'a>>) -> Selector<'a> {
        let expressions = view
            .into_iter()
            .flat_map(|v| v.list("matchExpressions"))
            .filter_map(|e| {
                Some(Expression {
                    key: e.str_at("key")?,
                    op: e.str_at("operator")?,
                    values: e.list("values").filter_map(View::scalar).collect(),
                })
            })
            .collect();
        Selector { view, pairs: labels(view.and_then(|v| v.get("matchLabels"))), expressions }
    }

    /// A plain mapping of labels as a selector.
    pub(crate) fn plain(view: View<'a>) -> Selector<'a> {
        Selector { view: Some(view), pairs: labels(Some(view)), expressions: Vec::new() }
    }

    /// Whether it asks for nothing, and so selects everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.pairs.is_empty() && self.expressions.is_empty()
    }

    /// Whether it selects a pod with these labels.
    pub(crate) fn selects(&self, have: &[(&str, &str)]) -> bool {
        matches(&self.pairs, have)
            && self.expressions.iter().all(|e| {
                let value = value_of(have, e.key);
                match e.op {
                    "In" => value.is_some_and(|v| e.values.contains(&v)),
                    "NotIn" => value.is_none_or(|v| !e.values.contains(&v)),
                    "Exists" => value.is_some(),
                    "DoesNotExist" => value.is_none(),
                    _ => true,
                }
            })
    }
}

/// How many pods a workload asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pods {
    /// As many as it says (absent counts as 1, as Kubernetes does).
    Fixed(i64),
    /// An autoscaler decides.
    Scaled,
    /// One per node, or otherwise not said here.
    Unknown,
}

impl Pods {
    /// The number, where one stands in the input.
    pub(crate) fn fixed(self) -> Option<i64> {
        match self {
            Pods::Fixed(n) => Some(n),
            Pods::Scaled | Pods::Unknown => None,
        }
    }
}

/// Something that makes pods.
#[derive(Debug, Clone)]
pub(crate) struct Workload<'a> {
    /// The object.
    pub(crate) obj: Object<'a>,
    /// The pod template (the object itself for a Pod).
    pub(crate) template: View<'a>,
    /// The pod's spec.
    pub(crate) pod: Option<View<'a>>,
    /// The pods' labels.
    pub(crate) labels: Labels<'a>,
    /// Its own selector.
    pub(crate) selector: Selector<'a>,
    /// Its size.
    pub(crate) pods: Pods,
}

impl<'a> Workload<'a> {
    pub(crate) fn read(obj: Object<'a>) -> Option<Workload<'a>> {
        let spec = obj.spec();
        let (template, selector) = match obj.kind {
            Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet | Kind::ReplicaSet | Kind::Rollout => {
                (spec?.get("template")?, spec?.get("selector"))
            }
            Kind::Job => (spec?.get("template")?, None),
            Kind::CronJob => (spec?.at(&["jobTemplate", "spec", "template"])?, None),
            Kind::Pod => (obj.view, None),
            // A machine outside: Services select it by its labels as they do pods.
            Kind::WorkloadEntry => (spec?, None),
            // Other people's kinds that make pods as these do (CloneSet, DeploymentConfig).
            Kind::Other => {
                let template = spec?.get("template")?;
                template.at(&["spec", "containers"])?.items().next()?;
                (template, None)
            }
            _ => return None,
        };
        let pods = match obj.kind {
            Kind::DaemonSet | Kind::WorkloadEntry | Kind::Other => Pods::Unknown,
            Kind::Pod => Pods::Fixed(1),
            _ => match spec?.get("replicas") {
                None => Pods::Fixed(1),
                Some(n) => n.int().map_or(Pods::Unknown, Pods::Fixed),
            },
        };
        Some(Workload {
            obj,
            template,
            pod: template.get("spec"),
            labels: labels(if obj.kind == Kind::WorkloadEntry { template.get("labels") } else { template.at(&["metadata", "labels"]) }),
            selector: Selector::read(selector),
            pods,
        })
    }

    /// Containers, without init containers.
    pub(crate) fn containers(&self) -> impl Iterator<Item = View<'a>> {
        self.pod.into_iter().flat_map(|p| p.list("containers"))
    }

    /// Init containers.
    pub(crate) fn init_containers(&self) -> impl Iterator<Item = View<'a>> {
        self.pod.into_iter().flat_map(|p| p.list("initContainers"))
    }

    /// Init containers that stay (`restartPolicy: Always`), which may hold ports too.
    pub(crate) fn serving_containers(&self) -> impl Iterator<Item = View<'a>> {
        self.containers().chain(self.init_containers().filter(|c| c.str_at("restartPolicy") == Some("Always")))
    }

    /// Where the template's labels stand, else the template, else the name.
    pub(crate) fn labels_loc(&self) -> Loc {
        match self.template.get("metadata") {
            Some(meta) if meta.field("labels").is_some() => meta.key_loc("labels"),
            _ => self.obj.spec().map_or_else(|| self.obj.name_loc(), |s| s.key_loc("template")),
        }
    }

    /// A label of its pods.
    pub(crate) fn label(&self, key: &str) -> Option<&'a str> {
        value_of(&self.labels, key)
    }

    /// Whether it runs to an end and so never stands behind a Service.
    pub(crate) fn is_batch(&self) -> bool {
        let ends = self.pod.and_then(|p| p.str_at("restartPolicy")).is_some_and(|p| p != "Always");
        matches!(self.obj.kind, Kind::Job | Kind::CronJob) || matches!(self.obj.kind, Kind::Pod | Kind::Other) && ends
    }

    /// The image of its first container that is no proxy.
    pub(crate) fn main_container(&self) -> Option<View<'a>> {
        self.containers().find(|c| c.str_at("name") != Some("istio-proxy"))
    }
}

/// What kind of Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServiceType {
    /// With an address of its own.
    Normal,
    /// `clusterIP: None`.
    Headless,
    /// `type: ExternalName`.
    ExternalName,
}

/// A Service.
#[derive(Debug, Clone)]
pub(crate) struct Service<'a> {
    /// The object.
    pub(crate) obj: Object<'a>,
    /// Its selector; empty if it has none (endpoints come from elsewhere).
    pub(crate) selector: Labels<'a>,
    /// Where the selector stands.
    pub(crate) selector_loc: Loc,
    /// Kind of Service.
    pub(crate) ty: ServiceType,
    /// Numbers in the index of what it selects in the input.
    pub(crate) workloads: Vec<usize>,
}

/// A port of a Service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServicePort<'a> {
    /// The entry.
    pub(crate) view: View<'a>,
    /// Its number, 0 if it has none.
    pub(crate) number: i64,
    /// Its name.
    pub(crate) name: Option<&'a str>,
}

impl<'a> Service<'a> {
    pub(crate) fn read(obj: Object<'a>) -> Service<'a> {
        let spec = obj.spec();
        let ty = if spec.and_then(|s| s.str_at("type")) == Some("ExternalName") {
            ServiceType::ExternalName
        } else if spec.and_then(|s| s.str_at("clusterIP")) == Some("None")
            || spec.is_some_and(|s| s.list("clusterIPs").any(|ip| ip.str() == Some("None")))
        {
            ServiceType::Headless
        } else {
            ServiceType::Normal
        };
        Service {
            obj,
            selector: labels(spec.and_then(|s| s.get("selector"))),
            selector_loc: spec.map_or_else(|| obj.name_loc(), |s| s.key_loc("selector")),
            ty,
            workloads: Vec::new(),
        }
    }

    /// Its ports.
    pub(crate) fn ports(&self) -> impl Iterator<Item = ServicePort<'a>> {
        self.obj.spec().into_iter().flat_map(|s| s.list("ports")).map(|view| ServicePort {
            view,
            number: view.int_at("port").unwrap_or(0),
            name: view.str_at("name"),
        })
    }
}

/// The protocol Istio takes a port for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1, HTTP/2, gRPC: routed by request.
    Http,
    /// Routed by connection.
    Opaque,
    /// Found out from the first bytes.
    Sniffed,
}

impl ServicePort<'_> {
    /// The protocol, by `appProtocol`, else by the name's first part. Unknown words are
    /// sniffed.
    pub(crate) fn protocol(&self) -> Protocol {
        if self.view.str_at("protocol").is_some_and(|p| !p.eq_ignore_ascii_case("TCP")) {
            return Protocol::Opaque;
        }
        let word = self.view.str_at("appProtocol").or(self.name).unwrap_or("").to_ascii_lowercase();
        match word.as_str() {
            "kubernetes.io/h2c" | "kubernetes.io/ws" => return Protocol::Http,
            "kubernetes.io/wss" => return Protocol::Opaque,
            _ if word.starts_with("grpc-web") => return Protocol::Http,
            _ => {}
        }
        match word.split('-').next().unwrap_or("") {
            "http" | "http2" | "grpc" => Protocol::Http,
            "tcp" | "tls" | "https" | "mongo" | "mysql" | "redis" | "udp" | "hbone" => Protocol::Opaque,
            // Ports on which the server speaks first: Istio does not wait for a client's bytes.
            _ if matches!(self.number, 25 | 53 | 3306 | 27017) => Protocol::Opaque,
            _ => Protocol::Sniffed,
        }
    }
}

/// A subset of a DestinationRule.
#[derive(Debug, Clone)]
pub(crate) struct Subset<'a> {
    /// The entry.
    pub(crate) view: View<'a>,
    /// Its name.
    pub(crate) name: &'a str,
    /// Labels it asks for.
    pub(crate) labels: Labels<'a>,
}

/// A DestinationRule.
#[derive(Debug, Clone)]
pub(crate) struct Rule<'a> {
    /// The object.
    pub(crate) obj: Object<'a>,
    /// Where the host stands.
    pub(crate) host_view: Option<View<'a>>,
    /// What it says.
    pub(crate) host: Host<'a>,
    /// Its subsets.
    pub(crate) subsets: Vec<Subset<'a>>,
}

impl<'a> Rule<'a> {
    pub(crate) fn read(obj: Object<'a>) -> Option<Rule<'a>> {
        let spec = obj.spec()?;
        let host_view = spec.get("host");
        let subsets = spec
            .list("subsets")
            .filter_map(|view| Some(Subset { view, name: view.get("name")?.scalar()?, labels: labels(view.get("labels")) }))
            .collect();
        Some(Rule { obj, host_view, host: host(host_view?.str()?, obj.ns), subsets })
    }

    /// The traffic policy for all subsets.
    pub(crate) fn policy(&self) -> Option<View<'a>> {
        self.obj.spec()?.get("trafficPolicy")
    }
}

/// Where a route sends a share of its requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dest<'a> {
    /// The entry of `route`.
    pub(crate) view: View<'a>,
    /// Where the host stands.
    pub(crate) host_view: View<'a>,
    /// What it says.
    pub(crate) host: Host<'a>,
    /// The subset.
    pub(crate) subset: Option<View<'a>>,
    /// The weight, as written.
    pub(crate) weight: Option<View<'a>>,
}

impl<'a> Dest<'a> {
    /// Reads `{destination: {host, subset}, weight}` said in namespace `ns`.
    pub(crate) fn read(view: View<'a>, ns: Ns<'a>) -> Option<Dest<'a>> {
        let destination = view.get("destination")?;
        let host_view = destination.get("host")?;
        Some(Dest { view, host_view, host: host(host_view.str()?, ns), subset: destination.get("subset"), weight: view.get("weight") })
    }

    /// The subset's name.
    pub(crate) fn subset_name(&self) -> Option<&'a str> {
        self.subset.and_then(View::scalar)
    }

    /// The weight as Istio takes it: absent is 0. One in quotes is refused, and it is clear
    /// what was meant.
    pub(crate) fn weight(&self) -> i64 {
        self.weight.and_then(|w| w.int().or_else(|| w.str()?.parse().ok())).unwrap_or(0)
    }

    /// The port asked for.
    pub(crate) fn port(&self) -> Option<View<'a>> {
        self.view.at(&["destination", "port", "number"])
    }

    /// How messages name it: the subset, else the host.
    pub(crate) fn label(&self) -> &'a str {
        self.subset_name().unwrap_or_else(|| self.host_view.str().unwrap_or(""))
    }

    /// Where it is best pointed at: the subset, else the host.
    pub(crate) fn loc(&self) -> Loc {
        self.subset.unwrap_or(self.host_view).loc()
    }
}

/// Which list of the VirtualService a route is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RouteKind {
    /// `http`
    Http,
    /// `tls`
    Tls,
    /// `tcp`
    Tcp,
}

/// One rule of a VirtualService.
#[derive(Debug, Clone)]
pub(crate) struct Route<'a> {
    /// The rule.
    pub(crate) view: View<'a>,
    /// Its place in its list, from 0.
    pub(crate) index: usize,
    /// Which list.
    pub(crate) kind: RouteKind,
    /// Its destinations.
    pub(crate) dests: Vec<Dest<'a>>,
}

impl<'a> Route<'a> {
    /// Sum of the weights; negative ones count as 0.
    pub(crate) fn total(&self) -> i64 {
        self.dests.iter().map(|d| d.weight().max(0)).fold(0, i64::saturating_add)
    }

    /// The share of a destination, from 0 to 1: alone it has all.
    pub(crate) fn share(&self, dest: &Dest<'_>) -> f64 {
        if self.dests.len() == 1 {
            return 1.0;
        }
        let total = self.total();
        if total == 0 {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "weights are small")]
        let share = dest.weight().max(0) as f64 / total as f64;
        share
    }

    /// Whether it splits requests between destinations.
    pub(crate) fn is_split(&self) -> bool {
        self.dests.len() > 1
    }

    /// `route 2` or `route "primary"`.
    pub(crate) fn title(&self) -> String {
        match self.view.str_at("name") {
            Some(name) => format!("route \"{name}\""),
            None => format!("route {}", self.index + 1),
        }
    }

    /// Where it begins: its name, else its first key.
    pub(crate) fn loc(&self) -> Loc {
        self.view.fields().next().map_or_else(|| self.view.loc(), |f| f.key_loc)
    }
}

/// A VirtualService.
#[derive(Debug, Clone)]
pub(crate) struct Routing<'a> {
    /// The object.
    pub(crate) obj: Object<'a>,
    /// Its hosts.
    pub(crate) hosts: Vec<(View<'a>, Host<'a>)>,
    /// Gateways named; empty means `mesh` alone.
    pub(crate) gateways: Vec<View<'a>>,
    /// All rules, http first.
    pub(crate) routes: Vec<Route<'a>>,
}

impl<'a> Routing<'a> {
    pub(crate) fn read(obj: Object<'a>) -> Option<Routing<'a>> {
        let spec = obj.spec()?;
        let mut routes = Vec::new();
        for (key, kind) in [("http", RouteKind::Http), ("tls", RouteKind::Tls), ("tcp", RouteKind::Tcp)] {
            for (index, view) in spec.list(key).enumerate() {
                routes.push(Route { view, index, kind, dests: view.list("route").filter_map(|d| Dest::read(d, obj.ns)).collect() });
            }
        }
        Some(Routing {
            obj,
            hosts: spec.list("hosts").filter_map(|v| Some((v, host(v.str()?, obj.ns)))).collect(),
            gateways: spec.list("gateways").collect(),
            routes,
        })
    }

    /// Whether sidecars obey it.
    pub(crate) fn in_mesh(&self) -> bool {
        self.gateways.is_empty() || self.gateways.iter().any(|g| g.str() == Some("mesh"))
    }

    /// Whether it is a delegate: no hosts, reached from another VirtualService.
    pub(crate) fn is_delegate(&self) -> bool {
        self.hosts.is_empty()
    }
}

/// `exportTo` of a VirtualService, DestinationRule or ServiceEntry: whether callers of
/// namespace `caller` see an object of namespace `own`. `None` for `caller`: some other
/// namespace than its own.
pub(crate) fn exported_to(spec: Option<View<'_>>, own: Ns<'_>, caller: Ns<'_>) -> bool {
    let Some(list) = spec.and_then(|s| s.get("exportTo")) else {
        return true;
    };
    let mut items = list.items().peekable();
    if items.peek().is_none() {
        return true;
    }
    items.any(|item| match item.str() {
        Some("*") | None => true,
        Some(".") => caller.is_some() && caller == own,
        Some(name) => caller == Some(name),
    })
}
