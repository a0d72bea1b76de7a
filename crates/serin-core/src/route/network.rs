//! All routes and rules of one release, in the words of `decide`: what it observes of them, and what carries out its actions.
//!
//! One [`World`] is read per look, from whatever the caches hold; the [`Network`] that comes of it answers with
//! [`observe::Route`] and [`observe::Rules`], and turns each routing action into one patch. Versions become subsets here and
//! nowhere else: by the labels of the merged DestinationRules, not by their names.
//!
//! Deliberately remembers nothing between looks.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::borrow::Borrow;

use serde_json::Value;

use super::companion::{Permission, Reach, SubsetPlan, SubsetRemoval, Version, ensure_subset, is_companion, remove_subset, uses};
use super::conflict::{is_delegate, mesh_route, reached_by_match_only, roots_of, same_host, unused_delegate};
use super::host::ServiceName;
use super::json::{age_key, list, namespace, object_name, text};
use super::owner::{instant, last_weight_manager, other_controller};
use super::patch::{self, Patch};
use super::problem::{Place, RouteProblem};
use super::rules::{Labels, Rules, Subset, callers_without, effective};
use super::slug::slug;
use super::structure::{Mark, aborted_because, aborted_mark, add_destination, mark_into, remove_destination, split_plain};
use super::survey::{Arms, Split, Survey, Target, VIRTUAL_SERVICE, look, sends_to};
use super::weights::{RouteTotal, pin, share_into, total_for_route, withdraw_into};
use crate::action::Guard;
use crate::observe;
use crate::units::{ObjectName, Timestamp, VersionName, Weight};

/// A VirtualService that a release names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Its name, in the service's namespace.
    pub name: String,
    /// The names of its http routes; empty for all that send to the service.
    pub routes: Vec<String>,
}

/// What is known of routes and rules at one instant.
#[derive(Clone, Debug)]
pub struct World<'a, R> {
    /// The service of the release.
    pub service: &'a ServiceName,
    /// The label that tells versions apart: `version`.
    pub version_label: &'a str,
    /// The labels of the pods of each version that has a Deployment.
    pub pods: &'a [(VersionName, Labels)],
    /// The VirtualServices that may matter, in any order: those of the service's namespace, and of other namespaces those that
    /// send to it, share a host with its routes, or delegate to them. More does no harm but to the time that a look takes.
    pub virtual_services: &'a [R],
    /// The DestinationRules that may matter, in any order: those whose host covers the service, of all namespaces.
    pub destination_rules: &'a [R],
    /// Istio's root namespace.
    pub root_namespace: &'a str,
    /// `spec.traffic.virtualServices`; empty: all of the service's namespace that send to it.
    pub selection: &'a [Selection],
    /// The version that serves, as the state remembers it; `None` before adoption.
    pub stable: Option<&'a VersionName>,
    /// Whether structure may be changed: plain routes are then no problem but a split to be made.
    pub manage_route: bool,
    /// How far a missing subset may go.
    pub permission: Permission,
}

/// One patch, and what it could not do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// For the VirtualService that was named; nothing need be sent if it is a no-op.
    pub patch: Patch,
    /// What is left to say: empty but for an abort or a way back that found routes it cannot change.
    pub left: Vec<RouteProblem>,
}

/// Routes and rules, read.
#[derive(Clone, Debug)]
pub struct Network<'a> {
    service: &'a ServiceName,
    version_label: &'a str,
    pods: &'a [(VersionName, Labels)],
    root_namespace: &'a str,
    permission: Permission,
    all_routes: Vec<&'a Value>,
    all_rules: Vec<&'a Value>,
    rules: Option<Rules>,
    managed: Vec<Managed<'a>>,
    problems: Vec<RouteProblem>,
    elsewhere: Vec<ObjectName>,
    mesh_route: Option<ObjectName>,
}

/// One VirtualService of the release.
#[derive(Clone, Debug)]
struct Managed<'a> {
    vs: &'a Value,
    name: ObjectName,
    /// Names of the routes that are managed; `None` for all.
    only: Option<&'a [String]>,
    /// Routes whose weights are managed.
    splits: Vec<Split>,
    /// Routes that are to become splits.
    plain: Vec<usize>,
}

impl<'a, R: Borrow<Value>> World<'a, R> {
    /// Reads it.
    pub fn read(&self) -> Network<'a> {
        let all: Vec<&'a Value> = self.virtual_services.iter().map(Borrow::borrow).collect();
        let all_rules: Vec<&'a Value> = self.destination_rules.iter().map(Borrow::borrow).collect();
        let rules = effective(&all_rules, &self.service.namespace, self.root_namespace, self.service);
        let mut network = Network {
            service: self.service,
            version_label: self.version_label,
            pods: self.pods,
            root_namespace: self.root_namespace,
            permission: self.permission,
            all_routes: all.clone(),
            all_rules,
            rules,
            managed: Vec::new(),
            problems: Vec::new(),
            elsewhere: Vec::new(),
            mesh_route: mesh_route(&all, self.service).map(object_name),
        };
        let mut own: Vec<&'a Value> = all.iter().copied().filter(|vs| namespace(vs) == self.service.namespace).collect();
        own.sort_by_key(|vs| age_key(vs));
        if self.selection.is_empty() {
            self.take_all(&mut network, &all, &own);
        } else {
            self.take_selected(&mut network, &all, &own);
        }
        for managed in network.managed.iter_mut().filter(|managed| is_delegate(managed.vs) && reached_by_match_only(&all, managed.vs)) {
            managed.splits.iter_mut().for_each(|split| split.matched = true);
        }
        self.look_around(&mut network, &all);
        network.set_pins_aside(self.stable);
        network
    }

    /// Every VirtualService of the namespace that sends to the service. What is nearly one is said only if there is no other.
    fn take_all(&self, network: &mut Network<'a>, all: &[&'a Value], own: &[&'a Value]) {
        let mut nearly = Vec::new();
        for vs in own.iter().copied() {
            let found = look(vs, self.service, None);
            if found.splits.is_empty() && found.plain.is_empty() && found.problems.iter().all(is_no_route) {
                nearly.extend(found.problems.into_iter().filter(|problem| problem.code() == "HalfHost"));
            } else if let Some(unused) = unused_delegate(all, vs) {
                nearly.push(unused);
            } else {
                self.take(network, vs, None, found);
            }
        }
        if network.managed.is_empty() && network.problems.is_empty() {
            network.problems = nearly;
        }
    }

    fn take_selected(&self, network: &mut Network<'a>, all: &[&'a Value], own: &[&'a Value]) {
        for selection in self.selection {
            let Some(vs) = own.iter().copied().find(|vs| text(vs, "/metadata/name") == Some(&selection.name)) else {
                let object = ObjectName { namespace: self.service.namespace.clone(), name: selection.name.clone() };
                let at = Box::new(Place { kind: VIRTUAL_SERVICE, object, field: String::new(), name: None });
                network.problems.push(RouteProblem::NoVirtualService { at });
                continue;
            };
            network.problems.extend(unused_delegate(all, vs));
            let only = (!selection.routes.is_empty()).then_some(selection.routes.as_slice());
            self.take(network, vs, only, look(vs, self.service, only));
        }
        network.managed.sort_by(|a, b| age_key(a.vs).cmp(&age_key(b.vs)));
    }

    fn take(&self, network: &mut Network<'a>, vs: &'a Value, only: Option<&'a [String]>, found: Survey) {
        let Survey { splits, mut plain, problems } = found;
        if self.manage_route {
            network.problems.extend(problems.into_iter().filter(|problem| problem.code() != "PlainRoute"));
        } else {
            plain.clear();
            network.problems.extend(problems);
        }
        network.problems.extend(other_controller(vs).map(|other| other.problem(vs)));
        network.managed.push(Managed { vs, name: object_name(vs), only, splits, plain });
    }

    /// Others that route the same host for the same callers, or send to the service from another namespace.
    fn look_around(&self, network: &mut Network<'a>, all: &[&'a Value]) {
        let mut ours: Vec<ObjectName> = network.managed.iter().map(|managed| managed.name.clone()).collect();
        for managed in network.managed.iter().filter(|managed| is_delegate(managed.vs)) {
            ours.extend(roots_of(all, managed.vs).into_iter().map(object_name));
        }
        network.problems.extend(same_host(all, &ours));
        let foreign = all.iter().filter(|vs| namespace(vs) != self.service.namespace);
        network.elsewhere = foreign.filter(|vs| sends_to(vs, self.service)).map(|vs| object_name(vs)).collect();
        network.elsewhere.sort();
    }
}

impl Network<'_> {
    /// Everything that forbids work on these routes; an abort goes on in spite of it.
    pub fn problems(&self) -> &[RouteProblem] {
        &self.problems
    }

    /// The problems as `decide` knows them: the first gives the code, all of them the sentence.
    pub fn obstacle(&self) -> Option<observe::Obstacle> {
        let first = self.problems.first()?;
        let what: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        Some(observe::Obstacle { code: first.code().to_owned(), what: what.join("; ") })
    }

    /// VirtualServices of other namespaces that send to the service. Serin does not touch them; their callers keep the split
    /// that stands there.
    pub fn elsewhere(&self) -> &[ObjectName] {
        &self.elsewhere
    }

    /// The VirtualService by which calls inside the mesh reach the service by its name; it need not be one of the release's.
    /// `None`: such calls see every version by number of pods, and no weight holds for them; `bind_mesh` mends that.
    pub fn mesh_route(&self) -> Option<&ObjectName> {
        self.mesh_route.as_ref()
    }

    /// Namespaces whose callers would not find a version's subset, because a rule of their own replaces the service's.
    pub fn callers_without(&self, version: &VersionName) -> Vec<&str> {
        match self.rule_subset(version) {
            Some(subset) => callers_without(&self.all_rules, self.root_namespace, self.service, &subset),
            None => Vec::new(),
        }
    }

    /// The VirtualServices of the release, oldest first.
    ///
    /// A route for some requests only (it has a match) that names one destination is a pin when that is not the stable
    /// version: testers who see the canary by header whatever the weight, or a caller held on an old version. It is left out
    /// here, and by every patch, unless the release names the route.
    pub fn routes(&self) -> Vec<observe::Route> {
        let managed = self.managed.iter().filter(|managed| !(managed.splits.is_empty() && managed.plain.is_empty()));
        managed.map(|managed| self.route(managed)).collect()
    }

    /// What callers can reach by subset, and why a subset that lacks may not be written.
    pub fn rules(&self) -> observe::Rules {
        let versions = self.pods.iter().map(|(version, _)| version);
        let (there, lacking): (Vec<&VersionName>, Vec<&VersionName>) = versions.partition(|version| self.rule_subset(version).is_some());
        // A name that is taken refuses one version and not the others.
        let tried: Vec<_> = lacking.iter().map(|version| self.ensure_subset(there.first().unwrap_or(version), version)).collect();
        let refusal = match tried.iter().all(Result::is_err) {
            true => tried.into_iter().find_map(Result::err).map(|problem| problem.to_string()),
            false => None,
        };
        let own = self.own_rule().map(|rule| list(rule, "/spec/subsets")).unwrap_or_default();
        let own = own.iter().filter_map(|s| text(s, "/name")).filter_map(|subset| Some((self.version_of(subset)?, subset)));
        let own: Vec<(VersionName, &str)> = own.collect();
        let unused = own.iter().filter(|(_, subset)| uses(&self.all_routes, &Target::subset(self.service, *subset)).is_empty());
        let unused = unused.map(|(version, _)| version.clone()).collect();
        let own = own.iter().map(|(version, _)| version.clone()).collect();
        observe::Rules { subsets: there.into_iter().cloned().collect(), own, unused, refusal }
    }

    /// Serin's own rule for the service.
    fn own_rule(&self) -> Option<&Value> {
        self.all_rules.iter().copied().find(|rule| is_companion(rule, self.service))
    }

    /// Carries out `Action::RemoveSubset`: Serin's own rule, and what becomes of it. `None`: there is none.
    ///
    /// # Errors
    /// A route or mirror still names the subset.
    pub fn remove_subset(&self, version: &VersionName) -> Result<Option<(ObjectName, SubsetRemoval)>, RouteProblem> {
        let Some(rule) = self.own_rule() else { return Ok(None) };
        let of_version = |s: &&Value| text(s, "/name").and_then(|subset| self.version_of(subset)).as_ref() == Some(version);
        let Some(subset) = list(rule, "/spec/subsets").iter().find(of_version).and_then(|s| text(s, "/name")) else { return Ok(None) };
        let removal = remove_subset(rule, self.service, subset, &self.all_routes)?;
        Ok(Some((object_name(rule), removal)))
    }

    /// Carries out `Action::EnsureSubset`.
    ///
    /// # Errors
    /// See [`ensure_subset`].
    pub fn ensure_subset(&self, stable: &VersionName, canary: &VersionName) -> Result<SubsetPlan, RouteProblem> {
        let (stable, canary) = (self.version(stable), self.version(canary));
        let reach = if self.managed.iter().all(|managed| managed.plain.is_empty()) { Reach::Canary } else { Reach::Both };
        ensure_subset(&self.all_rules, self.root_namespace, self.service, &stable, &canary, reach, self.permission)
    }

    /// Carries out `Action::EnsureDestination`: names the canary, at weight 0, on each managed route that lacks it, and makes
    /// a split of each plain one.
    ///
    /// # Errors
    /// No subset selects a version yet, or a route does not name stable.
    pub fn ensure_destination(&self, route: &ObjectName, stable: &VersionName, canary: &VersionName) -> Result<Patch, Vec<RouteProblem>> {
        let managed = self.managed(route).map_err(one)?;
        let mut patch = Patch::default();
        let mut problems = Vec::new();
        problems.extend(pin(&mut patch, managed.vs, patch::Guard::Forward).err());
        for split in managed.splits.iter().filter(|split| self.targets(split, canary).is_empty()) {
            match self.arms(split, stable, canary) {
                Ok(arms) => gather(&mut patch, &mut problems, add_destination(managed.vs, &[split.index], &arms, patch::Guard::Back)),
                Err(problem) => problems.push(problem),
            }
        }
        for index in &managed.plain {
            match (self.reachable(stable), self.reachable(canary)) {
                (Ok(stable), Ok(canary)) => {
                    let arms = Arms::subsets(self.service, stable, canary);
                    gather(&mut patch, &mut problems, split_plain(managed.vs, &[*index], &arms, patch::Guard::Back));
                }
                (Err(problem), _) | (_, Err(problem)) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(patch) } else { Err(problems) }
    }

    /// Carries out `Action::SetWeights` on one VirtualService, in one patch. `plan` are all shares of the plan: the total is
    /// chosen so that each of them, and `share`, is a whole number, and stays the same through the rollout.
    ///
    /// A way back to 0 works in spite of problems and says in `left` what it could not do.
    ///
    /// # Errors
    /// Any problem of any managed route, on the way forward and to a share other than 0.
    pub fn set_weights(
        &self,
        route: &ObjectName,
        stable: &VersionName,
        canary: &VersionName,
        share: Weight,
        guard: &Guard,
        plan: &[Weight],
    ) -> Result<Change, Vec<RouteProblem>> {
        let managed = self.managed(route).map_err(one)?;
        match guard {
            Guard::Abort { rollout, why } => {
                let mut change = self.withdraw(managed, stable, canary);
                mark_into(&mut change.patch, managed.vs, Mark { rollout, why });
                Ok(change)
            }
            Guard::Back if share == Weight::ZERO => Ok(self.withdraw(managed, stable, canary)),
            Guard::Back => self.share(managed, stable, canary, share, patch::Guard::Back, plan),
            Guard::Forward { resource_version } => {
                let now = text(managed.vs, "/metadata/resourceVersion").unwrap_or_default();
                if now != resource_version {
                    let at = Place::whole(VIRTUAL_SERVICE, managed.vs);
                    return Err(one(RouteProblem::Changed { at, seen: resource_version.clone(), now: now.to_owned() }));
                }
                self.share(managed, stable, canary, share, patch::Guard::Forward, plan)
            }
        }
    }

    /// The total of weights that each managed split will have: what is stated before the first step.
    ///
    /// # Errors
    /// Every split that cannot express the plan.
    pub fn totals(&self, stable: &VersionName, canary: &VersionName, plan: &[Weight]) -> Result<Vec<(Place, u32)>, Vec<RouteProblem>> {
        let (mut totals, mut problems) = (Vec::new(), Vec::new());
        for managed in &self.managed {
            for split in &managed.splits {
                let total = self.arms(split, stable, canary).and_then(|arms| total_for_route(managed.vs, split.index, &arms, plan));
                match total {
                    Ok(total) => totals.push((*Place::route(managed.vs, split.index), total)),
                    Err(problem) => problems.push(problem),
                }
            }
        }
        if problems.is_empty() { Ok(totals) } else { Err(problems) }
    }

    /// Carries out `Action::RemoveDestination`: the patch that takes a version out of each managed route of a VirtualService: for one that retires, at weight 0.
    ///
    /// # Errors
    /// It still has weight somewhere, or is the only destination.
    pub fn remove_version(&self, route: &ObjectName, version: &VersionName) -> Result<Patch, Vec<RouteProblem>> {
        let managed = self.managed(route).map_err(one)?;
        let mut patch = Patch::default();
        let mut problems = Vec::new();
        problems.extend(pin(&mut patch, managed.vs, patch::Guard::Forward).err());
        for split in &managed.splits {
            for target in self.targets(split, version) {
                gather(&mut patch, &mut problems, remove_destination(managed.vs, &[split.index], &target, patch::Guard::Back));
            }
        }
        if problems.is_empty() { Ok(patch) } else { Err(problems) }
    }

    fn share(
        &self,
        managed: &Managed<'_>,
        stable: &VersionName,
        canary: &VersionName,
        share: Weight,
        guard: patch::Guard,
        plan: &[Weight],
    ) -> Result<Change, Vec<RouteProblem>> {
        let mut patch = Patch::default();
        let mut problems = Vec::new();
        problems.extend(pin(&mut patch, managed.vs, guard).err());
        let shares: Vec<Weight> = plan.iter().copied().chain([share]).collect();
        for split in &managed.splits {
            let edited = self.arms(split, stable, canary).and_then(|arms| {
                let total = total_for_route(managed.vs, split.index, &arms, &shares)?;
                share_into(&mut patch, managed.vs, RouteTotal { index: split.index, total }, &arms, share, guard)
            });
            problems.extend(edited.err());
        }
        if problems.is_empty() { Ok(Change { patch, left: Vec::new() }) } else { Err(problems) }
    }

    /// All weight back to stable, on every route that the release covers, whatever is wrong with the others.
    fn withdraw(&self, managed: &Managed<'_>, stable: &VersionName, canary: &VersionName) -> Change {
        let mut change = Change::default();
        for split in look(managed.vs, self.service, managed.only).splits {
            let pinned = !managed.splits.iter().any(|known| known.index == split.index);
            let (mut stables, canaries) = (self.targets(&split, stable), self.targets(&split, canary));
            if stables.is_empty() {
                let subset = self.rule_subset(stable).unwrap_or_else(|| slug(stable.as_str()));
                stables.push(Target::subset(self.service, subset));
            }
            if !canaries.is_empty() {
                let withdrawn = withdraw_into(&mut change.patch, managed.vs, split.index, &stables, &canaries);
                change.left.extend(withdrawn.err().filter(|_| !pinned));
            }
        }
        change
    }

    fn managed(&self, route: &ObjectName) -> Result<&Managed<'_>, RouteProblem> {
        self.managed.iter().find(|managed| managed.name == *route).ok_or_else(|| {
            let at = Box::new(Place { kind: VIRTUAL_SERVICE, object: route.clone(), field: String::new(), name: None });
            RouteProblem::NoVirtualService { at }
        })
    }

    fn route(&self, managed: &Managed<'_>) -> observe::Route {
        let whole = |index: &usize| observe::Split { label: Place::route(managed.vs, *index).to_string(), shares: Vec::new() };
        let splits = managed.splits.iter().map(|split| observe::Split { label: split.label(), shares: self.shares(split) });
        observe::Route {
            object: managed.name.clone(),
            resource_version: text(managed.vs, "/metadata/resourceVersion").unwrap_or_default().to_owned(),
            splits: splits.chain(managed.plain.iter().map(whole)).collect(),
            manager: last_weight_manager(managed.vs).map(|(who, at)| (who.to_owned(), at.and_then(instant).unwrap_or(Timestamp(0)))),
            mark: aborted_mark(managed.vs).map(ToOwned::to_owned),
            because: aborted_because(managed.vs).map(ToOwned::to_owned),
        }
    }

    /// The share of each version among all of the service's on this route, exact to a thousandth of a percent. Rounding is
    /// made up for by the largest, so that the shares sum to the whole.
    fn shares(&self, split: &Split) -> Vec<(VersionName, Weight)> {
        let mut parts: Vec<(VersionName, u64)> = Vec::new();
        for destination in split.destinations.iter().filter(|d| d.ours) {
            let Some(version) = destination.subset.as_deref().and_then(|subset| self.version_of(subset)) else { continue };
            let weight = split.weight_of(destination);
            match parts.iter_mut().find(|(known, _)| *known == version) {
                Some((_, sum)) => *sum += weight,
                None => parts.push((version, weight)),
            }
        }
        let total = parts.iter().map(|(_, weight)| weight).sum();
        let mut shares: Vec<(VersionName, Weight)> = parts.into_iter().map(|(version, part)| (version, Weight::of(part, total))).collect();
        let sum: i64 = shares.iter().map(|(_, share)| i64::from(share.parts())).sum();
        if total > 0
            && let Some((_, largest)) = shares.iter_mut().max_by_key(|(_, share)| *share)
        {
            let made_up = i64::from(largest.parts()) + i64::from(Weight::WHOLE) - sum;
            *largest = u32::try_from(made_up).ok().and_then(Weight::from_parts).unwrap_or(*largest);
        }
        shares
    }

    /// The version that a subset selects: by the label that it asks for; by its name, where no rule defines it.
    fn version_of(&self, subset: &str) -> Option<VersionName> {
        let defined = self.rules.as_ref().and_then(|rules| rules.find_subset(subset));
        if let Some(value) = defined.and_then(|subset| subset.labels.get(self.version_label)) {
            return VersionName::new(value).ok();
        }
        // Told apart by another label: whose pods it selects, if only one version's.
        let selects = |pods: &Labels| defined.is_some_and(|subset| subset.labels.iter().all(|(key, value)| pods.get(key) == Some(value)));
        let mut selected = self.pods.iter().filter(|(_, pods)| selects(pods)).map(|(version, _)| version);
        if let (Some(version), None) = (selected.next(), selected.next()) {
            return Some(version.clone());
        }
        let by_slug = self.pods.iter().map(|(version, _)| version).find(|version| slug(version.as_str()) == subset);
        by_slug.cloned().or_else(|| VersionName::new(subset).ok())
    }

    /// The destinations of a route that reach a version, in order, each once.
    fn targets(&self, split: &Split, version: &VersionName) -> Vec<Target> {
        let subsets = split.subsets().into_iter().filter(|subset| self.version_of(subset).as_ref() == Some(version));
        subsets.map(|subset| Target::subset(self.service, subset)).collect()
    }

    /// The destinations of both versions on a route: as it names them, else as the rules would reach them.
    fn arms(&self, split: &Split, stable: &VersionName, canary: &VersionName) -> Result<Arms, RouteProblem> {
        let of = |version: &VersionName| {
            let named = self.targets(split, version);
            match named.len() {
                0 => self.reachable(version).map(|subset| Target::subset(self.service, subset)),
                1 => Ok(named.into_iter().next().unwrap_or_else(|| Target::subset(self.service, version.as_str()))),
                times => {
                    let subsets: Vec<String> = named.iter().map(Target::label).collect();
                    let vs = self.managed.iter().find(|managed| managed.splits.contains(split)).map_or(&Value::Null, |managed| managed.vs);
                    Err(RouteProblem::NamedTwice { at: Place::route(vs, split.index), arm: subsets.join(" and "), times })
                }
            }
        };
        Ok(Arms { stable: of(stable)?, canary: of(canary)? })
    }

    /// The subset by which the rules reach a version.
    fn rule_subset(&self, version: &VersionName) -> Option<String> {
        let rules = self.rules.as_ref()?;
        let by_label = rules.subset_for(self.version_label, &self.labels(version));
        let of_version = |subset: &&Subset| self.version_of(&subset.name).as_ref() == Some(version);
        let subset =
            by_label.or_else(|| rules.used()?.subsets.iter().filter(|s| !s.labels.contains_key(self.version_label)).find(of_version))?;
        Some(subset.name.clone())
    }

    fn reachable(&self, version: &VersionName) -> Result<String, RouteProblem> {
        self.rule_subset(version).ok_or_else(|| RouteProblem::NoSubset {
            service: self.service.fqdn(),
            subset: slug(version.as_str()),
            labels: alloc::format!("{}={version}", self.version_label),
        })
    }

    fn labels(&self, version: &VersionName) -> Labels {
        let known = self.pods.iter().find(|(name, _)| name == version).map(|(_, labels)| labels.clone());
        known.unwrap_or_else(|| Labels::from([(self.version_label.to_owned(), version.as_str().to_owned())]))
    }

    fn version(&self, version: &VersionName) -> Version {
        Version { label: self.version_label.to_owned(), pod_labels: self.labels(version) }
    }

    /// Takes pins out of the managed splits. Before adoption the stable version is taken to be the one with the most weight on
    /// routes that are no candidates; where there are none, nothing is a pin.
    fn set_pins_aside(&mut self, stable: Option<&VersionName>) {
        let alone = |split: &Split| split.matched && split.destinations.len() == 1;
        let stable = stable.cloned().or_else(|| {
            let splits = self.managed.iter().flat_map(|managed| &managed.splits).filter(|split| !alone(split));
            splits.flat_map(|split| self.shares(split)).max_by_key(|(_, share)| *share).map(|(version, _)| version)
        });
        let Some(stable) = stable else { return };
        let mut managed = core::mem::take(&mut self.managed);
        for managed in managed.iter_mut().filter(|managed| managed.only.is_none()) {
            managed.splits.retain(|split| !alone(split) || self.shares(split).iter().any(|(version, _)| *version == stable));
        }
        self.managed = managed;
    }
}

fn is_no_route(problem: &RouteProblem) -> bool {
    matches!(problem, RouteProblem::NoRoute { .. } | RouteProblem::HalfHost { .. })
}

fn one(problem: RouteProblem) -> Vec<RouteProblem> {
    [problem].into()
}

/// Joins what one route needs to what the others do.
fn gather(patch: &mut Patch, problems: &mut Vec<RouteProblem>, part: Result<Patch, Vec<RouteProblem>>) {
    match part {
        Ok(part) => patch.append(part),
        Err(more) => problems.extend(more),
    }
}
