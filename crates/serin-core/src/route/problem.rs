//! Why a route or a rule is not touched: each refusal by name, with what, where, why, and what to do.
//!
//! Deliberately one closed list: a reader of a message finds here everything that Serin refuses about routes.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use super::share::Share;
use crate::units::{ObjectName, Weight};

/// Where: an object and, within it, a field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// `VirtualService` or `DestinationRule`.
    pub kind: &'static str,
    /// Which object.
    pub object: ObjectName,
    /// The field, as `spec.http[2]`; empty for the object as a whole.
    pub field: String,
    /// The name that the route has, if it has one.
    pub name: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.object)?;
        if !self.field.is_empty() {
            write!(f, " {}", self.field)?;
        }
        match &self.name {
            Some(name) => write!(f, " {name:?}"),
            None => Ok(()),
        }
    }
}

/// Why Serin leaves a route or a rule alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteProblem {
    /// Nothing in the VirtualService sends to the service.
    #[error(
        "{at} has no http route to {service}, so there is nothing to split: add one, or name another VirtualService in spec.traffic.virtualServices"
    )]
    NoRoute {
        /// The VirtualService.
        at: Box<Place>,
        /// The service's full name.
        service: String,
    },
    /// A host that looks like the service and is none to Istio.
    #[error("{at} sends to {host:?}, which Istio takes literally and finds nowhere: write {fqdn:?}, or the name without a dot")]
    HalfHost {
        /// The route.
        at: Box<Place>,
        /// As written.
        host: String,
        /// What was probably meant.
        fqdn: String,
    },
    /// `routes:` names a route that is not there.
    #[error("{at} has no http route named {route:?} (it has {known}): correct the name in spec.traffic.virtualServices")]
    UnknownRoute {
        /// The VirtualService.
        at: Box<Place>,
        /// The name that was asked for.
        route: String,
        /// The names that exist.
        known: String,
    },
    /// `routes:` names a route that sends elsewhere.
    #[error(
        "{at} does not send to {service} itself ({what}): take its name out of spec.traffic.virtualServices, or name the route that does"
    )]
    NotOurRoute {
        /// The route.
        at: Box<Place>,
        /// The service's full name.
        service: String,
        /// What it does instead: `a redirect`, `delegates to shop/cart`.
        what: String,
    },
    /// A tcp or tls route sends to the service.
    #[error(
        "{at} sends to {service} below http, where Serin neither splits nor measures: name the http routes to manage in spec.traffic.virtualServices, and it is left alone"
    )]
    NotHttp {
        /// The tcp or tls route.
        at: Box<Place>,
        /// The service's full name.
        service: String,
    },
    /// A destination without subset.
    #[error(
        "{at} sends to {service} without a subset, so callers get every version by number of pods and no weight applies: give the destination a subset, or set spec.traffic.manageRoute: true"
    )]
    PlainRoute {
        /// The route.
        at: Box<Place>,
        /// The service's full name.
        service: String,
    },
    /// A destination without subset beside some with one.
    #[error(
        "{at} sends {weight} to {service} without a subset beside subsets of it: that part reaches the canary by number of pods; give it a subset, or weight 0"
    )]
    MixedRoute {
        /// The route.
        at: Box<Place>,
        /// The service's full name.
        service: String,
        /// Its weight.
        weight: u32,
    },
    /// A weight that is no weight.
    #[error("{at} has the weight {found}, which is no whole number from 0 to 2147483647: correct it")]
    BadWeight {
        /// The destination.
        at: Box<Place>,
        /// As found.
        found: String,
    },
    /// A route with several destinations, all of weight 0.
    #[error(
        "{at} has weights that add up to 0, and Envoy refuses every route configuration that contains it: give one destination a weight"
    )]
    NoWeight {
        /// The route.
        at: Box<Place>,
    },
    /// Others have all the weight.
    #[error(
        "{at} gives neither {stable} nor {canary} any weight (other destinations have it all), so there is nothing to share out: give {stable} a weight"
    )]
    NothingToShare {
        /// The route.
        at: Box<Place>,
        /// The stable destination.
        stable: String,
        /// The canary's.
        canary: String,
    },
    /// Two destinations of one arm.
    #[error("{at} names {arm} {times} times, so Serin cannot tell which weight is meant: merge these destinations into one")]
    NamedTwice {
        /// The route.
        at: Box<Place>,
        /// The destination.
        arm: String,
        /// How often.
        times: usize,
    },
    /// The stable destination is not in the route.
    #[error(
        "{at} does not name {arm}, the stable version, so there is nobody to give the rest to: add the destination, or take the route out of spec.traffic.virtualServices"
    )]
    StableMissing {
        /// The route.
        at: Box<Place>,
        /// The destination.
        arm: String,
    },
    /// The canary's destination is not in the route.
    #[error("{at} does not name {arm}, the canary, so its weight cannot be set: add the destination with weight 0 first")]
    CanaryMissing {
        /// The route.
        at: Box<Place>,
        /// The destination.
        arm: String,
    },
    /// A route that sends only to the canary.
    #[error("{at} sends to {arm}, the canary, alone{when}: an abort does not change it; remove the route, or point it at stable")]
    CanaryAlone {
        /// The route.
        at: Box<Place>,
        /// The destination.
        arm: String,
        /// ` for requests that match`, or empty.
        when: &'static str,
    },
    /// The share asked for needs another total.
    #[error("{at}: {share} for the canary is no whole number of a total of {total}{others}: {}", total_hint(.needs))]
    NotWhole {
        /// The route.
        at: Box<Place>,
        /// What was asked for.
        share: Weight,
        /// The total that was to be used.
        total: u32,
        /// ` beside other destinations with 1/3`, or empty.
        others: String,
        /// The smallest total that works, if there is one.
        needs: Option<u32>,
    },
    /// No total that Envoy takes keeps all shares exactly.
    #[error(
        "{at}: no total of weights up to {max} gives the canary each share of the plan and leaves the other destinations their {others} exactly: round the other destinations' weights to whole percent"
    )]
    NoTotal {
        /// The route.
        at: Box<Place>,
        /// The largest total tried.
        max: u32,
        /// What others have.
        others: Share,
    },
    /// A total that no route can carry.
    #[error("{at}: {total} is no total for weights, which is from 1 to 2147483647")]
    BadTotal {
        /// The route.
        at: Box<Place>,
        /// The total.
        total: u32,
    },
    /// An object that was not read from a server.
    #[error("{at} carries no resourceVersion, so a change cannot be pinned to what was read: read it from the API server first")]
    NoResourceVersion {
        /// The object.
        at: Box<Place>,
    },
    /// The index of no route.
    #[error("{at} does not exist: the object has {routes} http routes; read it again")]
    NoSuchRoute {
        /// The route.
        at: Box<Place>,
        /// How many there are.
        routes: usize,
    },
    /// A destination that still has weight.
    #[error("{at} still gives {arm} {weight} of {total}, so it cannot be taken out: bring its weight to 0 first")]
    StillWeighted {
        /// The route.
        at: Box<Place>,
        /// The destination.
        arm: String,
        /// Its weight.
        weight: u64,
        /// The route's total.
        total: u64,
    },
    /// A destination that is the only one.
    #[error("{at} has no other destination than {arm}, so it cannot be taken out: send the route elsewhere first")]
    LastDestination {
        /// The route.
        at: Box<Place>,
        /// The destination.
        arm: String,
    },
    /// `mesh` beside the host `*`.
    #[error(
        "{at} serves the host \"*\", which Istio does not allow beside the gateway \"mesh\": write a VirtualService of its own for {service}, with gateways [mesh]"
    )]
    AnyHostInMesh {
        /// The VirtualService.
        at: Box<Place>,
        /// The service's full name.
        service: String,
    },
    /// A VirtualService whose hosts do not include the service.
    #[error("{at} does not list {service} in spec.hosts, so binding it to the mesh would split nobody's calls: add the host first")]
    HostNotServed {
        /// The VirtualService.
        at: Box<Place>,
        /// The service's full name.
        service: String,
    },
    /// A delegate that nobody delegates to.
    #[error("{at} has no hosts and no VirtualService delegates to it, so it routes nothing: delegate to it, or give it hosts")]
    UnusedDelegate {
        /// The VirtualService.
        at: Box<Place>,
    },
    /// A second VirtualService for the same callers and host.
    #[error("{at} and {other} both route {host} for {callers}, where {}: merge them into one, or give one of them another host or gateway", outcome(.merged))]
    SameHost {
        /// The one that is older, and wins in the mesh.
        at: Box<Place>,
        /// The one that is younger.
        other: Box<Place>,
        /// The host.
        host: String,
        /// `the mesh`, or `gateway shop/front`.
        callers: String,
        /// Gateways merge the two; in the mesh the older wins entirely.
        merged: bool,
    },
    /// Another controller moves weights here.
    #[error(
        "{at} is managed by {controller} ({sign}), and two controllers on one route undo each other's work: end that one's hold on it, or delete this release"
    )]
    OtherController {
        /// The VirtualService.
        at: Box<Place>,
        /// Its name.
        controller: String,
        /// How that is known.
        sign: String,
    },
    /// No DestinationRule for the host.
    #[error(
        "no DestinationRule for {service} applies in namespace {namespace}, and a first one would replace the mesh's own for all callers: write one with a subset for each version, or set spec.traffic.manageRoute: true"
    )]
    NoRule {
        /// The service's full name.
        service: String,
        /// Where callers were looked at.
        namespace: String,
    },
    /// Rules for the host that Istio does not merge.
    #[error(
        "{service} has DestinationRules that differ in exportTo or workloadSelector ({rules}), so callers see different subsets: make them agree, or merge them into one"
    )]
    RulesDiffer {
        /// The service's full name.
        service: String,
        /// Their names.
        rules: String,
    },
    /// The rule that applies is not the service's own.
    #[error(
        "{at} is what applies to {service}, as {why}: a rule for the host itself would replace it for all callers; write that rule with a subset for each version, or set spec.traffic.manageRoute: true"
    )]
    RuleElsewhere {
        /// The rule.
        at: Box<Place>,
        /// The service's full name.
        service: String,
        /// `its host is the pattern *.local`, `it stands in namespace istio-system`.
        why: String,
    },
    /// A subset lacks, and Serin may not write one.
    #[error(
        "no DestinationRule for {service} has a subset for pods with {labels}, so no route can reach them: add one, as {subset:?}, or set spec.traffic.destinationRule: Companion"
    )]
    NoSubset {
        /// The service's full name.
        service: String,
        /// The name that Serin would give it.
        subset: String,
        /// The labels it needs.
        labels: String,
    },
    /// A subset of that name selects other pods.
    #[error("{at} has a subset {subset:?} that selects {found}, not {wanted}: rename it, or correct its labels")]
    SubsetTaken {
        /// The rule.
        at: Box<Place>,
        /// The subset.
        subset: String,
        /// What it selects.
        found: String,
        /// What was looked for.
        wanted: String,
    },
    /// A rule of Serin's name that is not Serin's.
    #[error(
        "{at} has the name of Serin's own rule and not its label app.kubernetes.io/managed-by: serin: rename it, or add the label to hand it over"
    )]
    NotOurs {
        /// The rule.
        at: Box<Place>,
    },
    /// `virtualServices` names an object that is not there.
    #[error("{at} does not exist: create it, or correct the name in spec.traffic.virtualServices")]
    NoVirtualService {
        /// The object that was asked for.
        at: Box<Place>,
    },
    /// The object changed since the decision.
    #[error("{at} has resourceVersion {now} and the decision was made on {seen}: look again")]
    Changed {
        /// The object.
        at: Box<Place>,
        /// What the decision saw.
        seen: String,
        /// What it is now.
        now: String,
    },
    /// A subset that a route still names.
    #[error("the subset {subset:?} is still named by {at}, whose callers would get 503 without it: take the destination out first")]
    SubsetInUse {
        /// The route.
        at: Box<Place>,
        /// The subset.
        subset: String,
    },
}

impl RouteProblem {
    /// CamelCase, as conditions and events carry it; never changes for a variant.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoRoute { .. } => "NoRoute",
            Self::HalfHost { .. } => "HalfHost",
            Self::UnknownRoute { .. } => "UnknownRoute",
            Self::NotOurRoute { .. } => "NotOurRoute",
            Self::NotHttp { .. } => "NotHttp",
            Self::PlainRoute { .. } => "PlainRoute",
            Self::MixedRoute { .. } => "MixedRoute",
            Self::BadWeight { .. } => "BadWeight",
            Self::NoWeight { .. } => "NoWeight",
            Self::NothingToShare { .. } => "NothingToShare",
            Self::NamedTwice { .. } => "NamedTwice",
            Self::StableMissing { .. } => "StableMissing",
            Self::CanaryMissing { .. } => "CanaryMissing",
            Self::CanaryAlone { .. } => "CanaryAlone",
            Self::NotWhole { .. } => "NotWhole",
            Self::NoTotal { .. } => "NoTotal",
            Self::BadTotal { .. } => "BadTotal",
            Self::NoResourceVersion { .. } => "NoResourceVersion",
            Self::NoSuchRoute { .. } => "NoSuchRoute",
            Self::StillWeighted { .. } => "StillWeighted",
            Self::LastDestination { .. } => "LastDestination",
            Self::AnyHostInMesh { .. } => "AnyHostInMesh",
            Self::HostNotServed { .. } => "HostNotServed",
            Self::UnusedDelegate { .. } => "UnusedDelegate",
            Self::SameHost { .. } => "SameHost",
            Self::OtherController { .. } => "OtherController",
            Self::NoRule { .. } => "NoRule",
            Self::RulesDiffer { .. } => "RulesDiffer",
            Self::RuleElsewhere { .. } => "RuleElsewhere",
            Self::NoSubset { .. } => "NoSubset",
            Self::SubsetTaken { .. } => "SubsetTaken",
            Self::NotOurs { .. } => "NotOurs",
            Self::NoVirtualService { .. } => "NoVirtualService",
            Self::Changed { .. } => "Changed",
            Self::SubsetInUse { .. } => "SubsetInUse",
        }
    }
}

fn total_hint(needs: &Option<u32>) -> String {
    match needs {
        Some(total) => alloc::format!("a total of {total} expresses it"),
        None => String::from("round the other destinations' weights to whole percent"),
    }
}

fn outcome(merged: &bool) -> &'static str {
    if *merged {
        "their routes are merged, and of two for every request only the older one's is reached"
    } else {
        "the older one wins entirely"
    }
}
