//! What a VirtualService says about one service: its splits, and what about it Serin will not touch.
//!
//! Deliberately changes nothing and remembers nothing.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::Value;

use super::host::{ServiceName, resolve};
use super::json::{list, namespace, object_name, present, text};
use super::problem::{Place, RouteProblem};
use super::share::Share;

/// The kind of the objects that this module reads.
pub const VIRTUAL_SERVICE: &str = "VirtualService";

/// The largest weight that Istio's `int32` holds.
pub const MAX_WEIGHT: u32 = i32::MAX as u32;

/// A destination, as an arm of a rollout is reached by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The resolved host.
    pub host: String,
    /// Its subset; `None` for the host as a whole.
    pub subset: Option<String>,
}

impl Target {
    /// A subset of a service.
    pub fn subset(service: &ServiceName, subset: impl Into<String>) -> Self {
        Self { host: service.fqdn(), subset: Some(subset.into()) }
    }

    /// How messages name it.
    pub fn label(&self) -> String {
        match &self.subset {
            Some(subset) => format!("subset {subset:?}"),
            None => self.host.clone(),
        }
    }
}

/// The two destinations that share traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arms {
    /// The version that serves.
    pub stable: Target,
    /// The version on trial.
    pub canary: Target,
}

impl Arms {
    /// Two subsets of one service: the shape of the article's objects.
    pub fn subsets(service: &ServiceName, stable: impl Into<String>, canary: impl Into<String>) -> Self {
        Self { stable: Target::subset(service, stable), canary: Target::subset(service, canary) }
    }
}

/// One destination of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Its place in the route's list.
    pub position: usize,
    /// The host as written.
    pub written: String,
    /// The host that is meant.
    pub host: String,
    /// The subset, if one is named.
    pub subset: Option<String>,
    /// The port, if one is named.
    pub port: Option<u32>,
    /// The weight as written; absent is not 0.
    pub weight: Option<u32>,
    /// Whether it sends to the service that was asked about.
    pub ours: bool,
}

impl Destination {
    /// Whether it is this one; ports do not tell destinations apart, as versions do not differ by port.
    pub fn is(&self, target: &Target) -> bool {
        self.host == target.host && self.subset == target.subset
    }
}

/// One http route that sends to the service by subset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Its place in `spec.http`.
    pub index: usize,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Whether it is for some requests only: it has match conditions.
    pub matched: bool,
    /// The route before it that takes every request, so that this one sees none.
    pub shadowed_by: Option<usize>,
    /// Where it mirrors to, if it does: resolved host and subset. Serin leaves mirrors alone.
    pub mirrors: Vec<(String, Option<String>)>,
    /// All its destinations, in order, those of other hosts included.
    pub destinations: Vec<Destination>,
    /// The sum of the weights that count: absent is 0 among several, and a single destination has the whole whatever it says.
    pub total: u64,
}

/// Which arms a route names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Both: its weights can be set.
    Both,
    /// Stable only: the canary's destination can be added.
    StableOnly,
    /// The canary only: as a header route for testers. Weights leave it alone.
    CanaryOnly,
    /// Neither.
    Neither,
}

impl Split {
    /// How a person finds it: `spec.http[0] "primary"`.
    pub fn label(&self) -> String {
        match &self.name {
            Some(name) => format!("spec.http[{}] {name:?}", self.index),
            None => format!("spec.http[{}]", self.index),
        }
    }

    /// The weight that counts: 0 where absent among several destinations, 1 for a single one.
    pub fn weight_of(&self, destination: &Destination) -> u64 {
        if self.destinations.len() == 1 { 1 } else { u64::from(destination.weight.unwrap_or(0)) }
    }

    /// The part of this route's requests that `target` gets: all destinations of that name together. None of a route whose
    /// weights add up to 0.
    pub fn share_of_target(&self, target: &Target) -> Share {
        let parts = self.destinations.iter().filter(|d| d.is(target)).map(|d| self.weight_of(d)).sum();
        Share::new(parts, self.total).unwrap_or(Share::NONE)
    }

    /// The part of this route's requests that a subset of the service gets.
    pub fn share_of(&self, subset: &str) -> Share {
        let ours = self.destinations.iter().filter(|d| d.ours && d.subset.as_deref() == Some(subset));
        Share::new(ours.map(|d| self.weight_of(d)).sum(), self.total).unwrap_or(Share::NONE)
    }

    /// The canary's part of what stable and canary get together: what `set_share` sets. `None` where both get nothing.
    pub fn canary_share(&self, arms: &Arms) -> Option<Share> {
        let weight = |target: &Target| self.destinations.iter().filter(|d| d.is(target)).map(|d| self.weight_of(d)).sum::<u64>();
        let (stable, canary) = (weight(&arms.stable), weight(&arms.canary));
        Share::new(canary, stable + canary)
    }

    /// Which of the arms it names.
    pub fn role(&self, arms: &Arms) -> Role {
        let names = |target: &Target| self.destinations.iter().any(|d| d.is(target));
        match (names(&arms.stable), names(&arms.canary)) {
            (true, true) => Role::Both,
            (true, false) => Role::StableOnly,
            (false, true) => Role::CanaryOnly,
            (false, false) => Role::Neither,
        }
    }

    /// The service's subsets that it names, in order, each once.
    pub fn subsets(&self) -> Vec<&str> {
        let mut subsets = Vec::new();
        for subset in self.destinations.iter().filter(|d| d.ours).filter_map(|d| d.subset.as_deref()) {
            if !subsets.contains(&subset) {
                subsets.push(subset);
            }
        }
        subsets
    }
}

/// What was found: the splits, and every problem beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Routes that send to the service by subset, in order.
    pub splits: Vec<Split>,
    /// Places in `spec.http` of routes that send to the service without any subset; each is a problem too.
    pub plain: Vec<usize>,
    /// Everything that keeps Serin from managing this VirtualService. An abort goes on in spite of them.
    pub problems: Vec<RouteProblem>,
}

/// Every http route of a VirtualService that sends to the service by subset; `only` limits it to routes of these names.
///
/// # Errors
/// All problems at once, none of them dropped for the first.
pub fn survey(vs: &Value, service: &ServiceName, only: Option<&[String]>) -> Result<Vec<Split>, Vec<RouteProblem>> {
    let Survey { splits, problems, .. } = look(vs, service, only);
    if problems.is_empty() { Ok(splits) } else { Err(problems) }
}

/// As [`survey`], with what was understood beside what was not: an abort takes what it can get.
///
/// - A route that redirects, answers directly or delegates has no destinations, and is passed over unless `only` names it.
/// - A delegate (a VirtualService without hosts) is read as any other; its short names are of its own namespace.
/// - A tcp or tls route to the service is a problem unless `only` says which routes are meant.
/// - A route whose destination names no subset is a problem: it sends to every version.
pub fn look(vs: &Value, service: &ServiceName, only: Option<&[String]>) -> Survey {
    let mut survey = Survey::default();
    let routes = list(vs, "/spec/http");
    let fqdn = service.fqdn();
    let mut half_hosts = Vec::new();
    let mut sends = false;
    let mut catch_all = None;
    for (index, route) in routes.iter().enumerate() {
        let at = Place::route(vs, index);
        let wanted = only.is_none_or(|only| only.iter().any(|name| at.name.as_deref() == Some(name)));
        let read = read_route(vs, index, &fqdn);
        half_hosts.extend(read.destinations.iter().filter(|d| service.nearly_is(&d.written)).map(|d| (at.clone(), d.written.clone())));
        let ours = read.destinations.iter().any(|d| d.ours);
        sends |= ours;
        if wanted && ours {
            judge(&mut survey, vs, service, at, read, catch_all);
        } else if wanted && only.is_some() {
            survey.problems.push(RouteProblem::NotOurRoute { at, service: fqdn.clone(), what: instead(route, vs) });
        }
        if catch_all.is_none() && takes_everything(route) {
            catch_all = Some(index);
        }
    }
    for name in only.unwrap_or_default() {
        if !routes.iter().any(|route| text(route, "/name") == Some(name)) {
            let names: Vec<String> = routes.iter().filter_map(|route| text(route, "/name")).map(|name| format!("{name:?}")).collect();
            let known = if names.is_empty() { "no named route".to_owned() } else { names.join(", ") };
            survey.problems.push(RouteProblem::UnknownRoute { at: Place::whole(VIRTUAL_SERVICE, vs), route: name.clone(), known });
        }
    }
    if only.is_none() {
        survey.problems.extend(below_http(vs, service));
    }
    if !sends && only.is_none() && survey.problems.is_empty() {
        survey.problems.extend(half_hosts.into_iter().map(|(at, host)| RouteProblem::HalfHost { at, host, fqdn: fqdn.clone() }));
        if survey.problems.is_empty() {
            survey.problems.push(RouteProblem::NoRoute { at: Place::whole(VIRTUAL_SERVICE, vs), service: fqdn });
        }
    }
    survey
}

/// Whether an http route sends to the service, with or without subset.
pub(super) fn sends_to(vs: &Value, service: &ServiceName) -> bool {
    let entries = list(vs, "/spec/http").iter().flat_map(|route| list(route, "/route"));
    let mut hosts = entries.filter_map(|entry| text(entry, "/destination/host"));
    // A destination is a name, never a pattern.
    hosts.any(|host| !host.starts_with('*') && service.is_covered_by(host, namespace(vs)))
}

/// A route that sends to the service becomes a split, or problems, or both.
fn judge(survey: &mut Survey, vs: &Value, service: &ServiceName, at: Box<Place>, read: ReadRoute, shadowed_by: Option<usize>) {
    survey.problems.extend(read.bad.into_iter().map(|(_, problem)| problem));
    let index = read.index;
    let single = read.destinations.len() == 1;
    let total = if single { 1 } else { read.destinations.iter().map(|d| u64::from(d.weight.unwrap_or(0))).sum() };
    let plain: Vec<&Destination> = read.destinations.iter().filter(|d| d.ours && d.subset.is_none()).collect();
    let by_subset = read.destinations.iter().any(|d| d.ours && d.subset.is_some());
    let fqdn = service.fqdn();
    if by_subset {
        let weighted = plain.iter().find(|d| d.weight.unwrap_or(0) > 0);
        survey.problems.extend(weighted.map(|d| RouteProblem::MixedRoute { at: at.clone(), service: fqdn, weight: d.weight.unwrap_or(0) }));
    } else {
        survey.plain.push(index);
        survey.problems.push(RouteProblem::PlainRoute { at: at.clone(), service: fqdn });
        return;
    }
    if total == 0 {
        survey.problems.push(RouteProblem::NoWeight { at: at.clone() });
    }
    let route = &list(vs, "/spec/http")[index];
    survey.splits.push(Split {
        index,
        name: at.name,
        matched: !list(route, "/match").is_empty(),
        shadowed_by,
        mirrors: mirrors(route, namespace(vs)),
        destinations: read.destinations,
        total,
    });
}

/// A route as read, before it is judged.
pub(super) struct ReadRoute {
    pub(super) index: usize,
    pub(super) destinations: Vec<Destination>,
    /// Weights that are none, with the position; their destinations count as having no weight.
    pub(super) bad: Vec<(usize, RouteProblem)>,
}

/// The destinations of one http route. Entries without a host stay in the list, as Istio's webhook lets none through and a
/// position must not shift.
pub(super) fn read_route(vs: &Value, index: usize, fqdn: &str) -> ReadRoute {
    let entries = list(vs, &format!("/spec/http/{index}/route"));
    let mut read = ReadRoute { index, destinations: Vec::with_capacity(entries.len()), bad: Vec::new() };
    for (position, entry) in entries.iter().enumerate() {
        let written = text(entry, "/destination/host").unwrap_or_default().to_owned();
        let host = resolve(&written, namespace(vs));
        let ours = host == fqdn;
        let weight = match weight(entry) {
            Ok(weight) => weight,
            Err(found) => {
                let mut at = Place::route(vs, index);
                at.field = format!("{}.route[{position}]", at.field);
                read.bad.push((position, RouteProblem::BadWeight { at, found }));
                None
            }
        };
        let subset = text(entry, "/destination/subset").map(ToOwned::to_owned);
        let port = entry.pointer("/destination/port/number").and_then(Value::as_u64).and_then(|port| u32::try_from(port).ok());
        read.destinations.push(Destination { position, written, host, subset, port, weight, ours });
    }
    read
}

/// The weight as written: `Ok(None)` when absent. A whole float is a whole number, as the API server reads it.
fn weight(entry: &Value) -> Result<Option<u32>, String> {
    let number = match entry.get("weight") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number,
        Some(other) => return Err(other.to_string()),
    };
    let whole = number.as_u64().and_then(|w| u32::try_from(w).ok()).or_else(|| {
        // `as` saturates, and the comparison finds every number that it changed.
        number.as_f64().map(|w| (w, w as u32)).filter(|(w, cut)| f64::from(*cut) == *w).map(|(_, cut)| cut)
    });
    whole.filter(|w| *w <= MAX_WEIGHT).map(Some).ok_or_else(|| number.to_string())
}

/// Tcp and tls routes to the service.
fn below_http(vs: &Value, service: &ServiceName) -> Vec<RouteProblem> {
    let mut problems = Vec::new();
    for layer in ["tcp", "tls"] {
        for (index, route) in list(vs, &format!("/spec/{layer}")).iter().enumerate() {
            let mut hosts = list(route, "/route").iter().filter_map(|entry| text(entry, "/destination/host"));
            if hosts.any(|host| service.is(host, namespace(vs))) {
                let at = Box::new(Place::field(VIRTUAL_SERVICE, vs, format!("spec.{layer}[{index}]")));
                problems.push(RouteProblem::NotHttp { at, service: service.fqdn() });
            }
        }
    }
    problems
}

/// Whether no request gets past this route: no match, or one that asks for nothing. A prefix `/` is every path.
pub(super) fn takes_everything(route: &Value) -> bool {
    let conditions = list(route, "/match");
    conditions.is_empty()
        || conditions.iter().any(|condition| match condition.as_object() {
            Some(fields) => fields.iter().all(|(field, value)| match field.as_str() {
                "name" | "statPrefix" | "ignoreUriCase" => true,
                "uri" => text(value, "/prefix") == Some("/") || matches!(text(value, "/regex"), Some(".*" | "/.*")),
                _ => false,
            }),
            None => false,
        })
}

/// Where a route mirrors to, by the older and the newer field.
fn mirrors(route: &Value, namespace: &str) -> Vec<(String, Option<String>)> {
    let newer = list(route, "/mirrors").iter().filter_map(|mirror| mirror.get("destination"));
    let destinations = route.get("mirror").into_iter().chain(newer);
    destinations
        .filter_map(|d| text(d, "/host").map(|host| (resolve(host, namespace), text(d, "/subset").map(ToOwned::to_owned))))
        .collect()
}

/// What a route does that does not send to the service.
fn instead(route: &Value, vs: &Value) -> String {
    if let Some(name) = text(route, "/delegate/name") {
        return format!("it delegates to {}/{name}", text(route, "/delegate/namespace").unwrap_or_else(|| namespace(vs)));
    }
    if present(route, "/redirect") {
        return "it redirects".to_owned();
    }
    if present(route, "/directResponse") {
        return "it answers directly".to_owned();
    }
    let hosts: Vec<&str> = list(route, "/route").iter().filter_map(|entry| text(entry, "/destination/host")).collect();
    if hosts.is_empty() { "it has no destination".to_owned() } else { format!("it sends to {}", hosts.join(", ")) }
}

impl Place {
    /// The object as a whole.
    pub(super) fn whole(kind: &'static str, object: &Value) -> Box<Self> {
        Box::new(Self { kind, object: object_name(object), field: String::new(), name: None })
    }

    /// An http route of a VirtualService.
    pub(super) fn route(vs: &Value, index: usize) -> Box<Self> {
        let name = text(vs, &format!("/spec/http/{index}/name")).map(ToString::to_string);
        Box::new(Self { name, ..Self::field(VIRTUAL_SERVICE, vs, format!("spec.http[{index}]")) })
    }

    /// A field of an object.
    pub(super) fn field(kind: &'static str, object: &Value, field: String) -> Self {
        Self { kind, object: object_name(object), field, name: None }
    }
}
