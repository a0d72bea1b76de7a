//! All objects of a run and what they say of each other: which pods a Service selects, which
//! rule defines a subset, which routes split a host.
//!
//! What is absent here is unknown, not missing; [`Index::settled`] says whether absent means
//! missing.

use std::collections::HashMap;

use crate::model::{Dest, Labels, Pods, Route, Routing, Rule, Service, Subset, Workload, matches};
use crate::object::{Host, Kind, N_KINDS, Ns, ObjId, Object, UNSAID, may_be_same, object, same_host};
use crate::yaml::View;

/// The objects of one run.
#[derive(Debug)]
pub(crate) struct Index<'a> {
    /// All objects, in input order.
    pub(crate) objects: Vec<Object<'a>>,
    /// Everything that makes pods.
    pub(crate) workloads: Vec<Workload<'a>>,
    /// Services.
    pub(crate) services: Vec<Service<'a>>,
    /// DestinationRules.
    pub(crate) rules: Vec<Rule<'a>>,
    /// VirtualServices.
    pub(crate) routings: Vec<Routing<'a>>,
    /// Groups of versions that stand behind one split.
    pub(crate) families: Vec<Family<'a>>,
    settled: bool,
    by_kind: Vec<Vec<usize>>,
    services_by_name: HashMap<&'a str, Vec<usize>>,
    rules_by_host: HashMap<&'a str, Vec<usize>>,
    routings_by_host: HashMap<&'a str, Vec<usize>>,
    workloads_by_label: HashMap<(&'a str, &'a str), Vec<usize>>,
    names: HashMap<(Kind, &'a str), Vec<usize>>,
}

/// Whether an object counts beside the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It does.
    Current,
    /// A later one of the same name replaces it: its fields are judged, nothing refers to it.
    Overwritten,
}

/// One version of a family.
#[derive(Debug, Clone)]
pub(crate) struct Arm<'a> {
    /// Subset or host that reaches it.
    pub(crate) name: &'a str,
    /// Numbers of its workloads.
    pub(crate) workloads: Vec<usize>,
    /// The share that the first split in the input gives it, from 0 to 1.
    pub(crate) share: Option<f64>,
    /// The destination that gives it.
    pub(crate) dest: Option<Dest<'a>>,
}

/// Versions of one service between which requests are split.
#[derive(Debug, Clone)]
pub(crate) struct Family<'a> {
    /// Its versions that have workloads in the input, at least two.
    pub(crate) arms: Vec<Arm<'a>>,
    /// Which arm is stable: the one with most weight, then most pods, then the first.
    pub(crate) stable: usize,
    /// Some split in the input divides requests between them.
    pub(crate) split: bool,
}

impl<'a> Family<'a> {
    /// The arms on trial: all but stable.
    pub(crate) fn canaries(&self) -> impl Iterator<Item = &Arm<'a>> {
        self.arms.iter().enumerate().filter(|(i, _)| *i != self.stable).map(|(_, a)| a)
    }

    /// The stable arm.
    pub(crate) fn stable_arm(&self) -> &Arm<'a> {
        &self.arms[self.stable]
    }
}

impl<'a> Index<'a> {
    /// Reads objects; `settled` says that what is not among them does not exist.
    pub(crate) fn build(views: impl IntoIterator<Item = (View<'a>, Standing)>, default_ns: Ns<'a>, settled: bool) -> Index<'a> {
        let mut index = Index {
            objects: Vec::new(),
            workloads: Vec::new(),
            services: Vec::new(),
            rules: Vec::new(),
            routings: Vec::new(),
            families: Vec::new(),
            settled,
            by_kind: vec![Vec::new(); N_KINDS],
            services_by_name: HashMap::new(),
            rules_by_host: HashMap::new(),
            routings_by_host: HashMap::new(),
            workloads_by_label: HashMap::new(),
            names: HashMap::new(),
        };
        let views: Vec<_> = views.into_iter().collect();
        let mut spaces: Vec<&str> = views.iter().filter_map(|(v, _)| v.at(&["metadata", "namespace"])?.scalar()).collect();
        spaces.sort_unstable();
        spaces.dedup();
        let default_ns = default_ns.or((spaces.len() > 1).then_some(UNSAID));
        for (view, standing) in views {
            let number = index.objects.len();
            let id = ObjId(u32::try_from(number).unwrap_or(u32::MAX));
            let obj = object(id, view, default_ns);
            index.objects.push(obj);
            if standing == Standing::Current {
                index.add(obj, number);
            }
        }
        index.scale();
        index.select();
        index.find_families();
        index
    }

    fn add(&mut self, obj: Object<'a>, number: usize) {
        self.by_kind[obj.kind as usize].push(number);
        self.names.entry((obj.kind, obj.name)).or_default().push(number);
        match obj.kind {
            Kind::Service => {
                let n = self.services.len();
                self.services_by_name.entry(obj.name).or_default().push(n);
                self.services.push(Service::read(obj));
            }
            Kind::DestinationRule => {
                if let Some(rule) = Rule::read(obj) {
                    let key = host_key(rule.host);
                    let n = self.rules.len();
                    self.rules_by_host.entry(key).or_default().push(n);
                    self.rules.push(rule);
                }
            }
            Kind::VirtualService => {
                if let Some(routing) = Routing::read(obj) {
                    let sent = routing.routes.iter().flat_map(|r| &r.dests).map(|d| d.host);
                    for host in routing.hosts.iter().map(|(_, h)| *h).chain(sent) {
                        let list = self.routings_by_host.entry(host_key(host)).or_default();
                        if list.last() != Some(&self.routings.len()) {
                            list.push(self.routings.len());
                        }
                    }
                    self.routings.push(routing);
                }
            }
            _ => {
                if let Some(w) = Workload::read(obj) {
                    let n = self.workloads.len();
                    for pair in &w.labels {
                        self.workloads_by_label.entry(*pair).or_default().push(n);
                    }
                    self.workloads.push(w);
                }
            }
        }
    }

    /// Whether what is not in the input does not exist.
    pub(crate) fn settled(&self) -> bool {
        self.settled
    }

    /// Objects of a kind.
    pub(crate) fn of(&self, kind: Kind) -> impl Iterator<Item = &Object<'a>> {
        self.by_kind[kind as usize].iter().map(|n| &self.objects[*n])
    }

    /// Whether the input holds any object of a kind in a namespace.
    pub(crate) fn has(&self, kind: Kind, ns: Ns<'_>) -> bool {
        self.of(kind).any(|o| o.ns == ns)
    }

    /// An object by kind, namespace and name; exact namespaces before absent ones.
    pub(crate) fn find(&self, kind: Kind, ns: Ns<'_>, name: &str) -> Option<&Object<'a>> {
        let all = self.names.get(&(kind, name))?;
        let all = || all.iter().map(|n| &self.objects[*n]);
        all().find(|o| o.ns == ns).or_else(|| all().find(|o| may_be_same(o.ns, ns)))
    }

    /// The Service that a host names.
    pub(crate) fn service(&self, host: Host<'_>) -> Option<&Service<'a>> {
        self.service_number(host).map(|n| &self.services[n])
    }

    fn service_number(&self, host: Host<'_>) -> Option<usize> {
        let Host::Service { name, ns } = host else {
            return None;
        };
        let all = self.services_by_name.get(name)?;
        all.iter()
            .find(|n| self.services[**n].obj.ns == ns)
            .or_else(|| all.iter().find(|n| may_be_same(self.services[**n].obj.ns, ns)))
            .copied()
    }

    /// Services of a name in any namespace.
    pub(crate) fn services_named(&self, name: &str) -> impl Iterator<Item = &Service<'a>> {
        self.services_by_name.get(name).into_iter().flatten().map(|n| &self.services[*n])
    }

    /// DestinationRules for a host.
    pub(crate) fn rules_for(&self, host: Host<'a>) -> impl Iterator<Item = &Rule<'a>> {
        self.rules_by_host.get(host_key(host)).into_iter().flatten().map(|n| &self.rules[*n]).filter(move |r| same_host(r.host, host))
    }

    /// VirtualServices that are for a host, or send to it.
    pub(crate) fn routings_of(&self, host: Host<'a>) -> impl Iterator<Item = &Routing<'a>> {
        self.routings_by_host.get(host_key(host)).into_iter().flatten().map(|n| &self.routings[*n]).filter(move |r| {
            r.hosts.iter().any(|(_, h)| same_host(*h, host)) || r.routes.iter().flat_map(|x| &x.dests).any(|d| same_host(d.host, host))
        })
    }

    /// A subset of a host, with the rule that defines it.
    pub(crate) fn subset(&self, host: Host<'a>, name: &str) -> Option<(&Rule<'a>, &Subset<'a>)> {
        self.rules_for(host).find_map(|r| Some((r, r.subsets.iter().find(|s| s.name == name)?)))
    }

    /// Workloads of a namespace whose pods carry these labels; none for no labels.
    pub(crate) fn selected(&self, ns: Ns<'_>, want: &Labels<'a>) -> Vec<usize> {
        let rarest = want.iter().map(|pair| self.workloads_by_label.get(pair)).min_by_key(|list| list.map_or(0, Vec::len));
        let Some(Some(candidates)) = rarest else {
            return Vec::new();
        };
        candidates
            .iter()
            .copied()
            .filter(|n| {
                let w = &self.workloads[*n];
                !w.is_batch() && may_be_same(w.obj.ns, ns) && matches(want, &w.labels)
            })
            .collect()
    }

    /// The pods a destination reaches: `None` if its Service or subset is not in the input.
    pub(crate) fn reached(&self, dest: &Dest<'a>) -> Option<Vec<usize>> {
        let service = self.service(dest.host)?;
        match dest.subset_name() {
            None => Some(service.workloads.clone()),
            Some(name) => {
                let (_, subset) = self.subset(dest.host, name)?;
                Some(self.in_subset(service, subset))
            }
        }
    }

    /// Workloads of a Service that a subset selects.
    pub(crate) fn in_subset(&self, service: &Service<'a>, subset: &Subset<'a>) -> Vec<usize> {
        service.workloads.iter().copied().filter(|n| matches(&subset.labels, &self.workloads[*n].labels)).collect()
    }

    /// Sum of pods of workloads, if each says a number.
    pub(crate) fn pods(&self, workloads: &[usize]) -> Option<i64> {
        workloads.iter().map(|n| self.workloads[*n].pods.fixed()).try_fold(0i64, |sum, n| Some(sum.saturating_add(n?.max(0))))
    }

    /// All routes that split requests.
    pub(crate) fn splits(&self) -> impl Iterator<Item = (&Routing<'a>, &Route<'a>)> {
        self.routings.iter().flat_map(|r| r.routes.iter().map(move |route| (r, route))).filter(|(_, route)| route.is_split())
    }

    /// Whether a name of this kind may have been made by another controller (Flagger makes
    /// `x`, `x-primary` and `x-canary` of a Canary for `x`).
    pub(crate) fn made_by_flagger(&self, ns: Ns<'_>, name: &str) -> bool {
        self.of(Kind::FlaggerCanary).any(|c| {
            let base = c
                .spec()
                .and_then(|s| s.at(&["service", "name"]).or_else(|| s.at(&["targetRef", "name"])))
                .and_then(View::str)
                .unwrap_or(c.name);
            may_be_same(c.ns, ns) && name.strip_prefix(base).is_some_and(|rest| matches!(rest, "" | "-primary" | "-canary"))
        })
    }

    /// Whether Argo Rollouts writes a rule's subset labels: what stands in the file is a start.
    pub(crate) fn written_by_argo(&self, rule: &Rule<'_>) -> bool {
        self.of(Kind::Rollout).any(|r| {
            let path = ["strategy", "canary", "trafficRouting", "istio", "destinationRule", "name"];
            may_be_same(r.ns, rule.obj.ns) && r.spec().and_then(|s| s.at(&path)).and_then(View::str) == Some(rule.obj.name)
        })
    }

    fn scale(&mut self) {
        let mut targets: Vec<(Ns<'a>, &'a str, &'a str)> = Vec::new();
        for kind in [Kind::HorizontalPodAutoscaler, Kind::ScaledObject] {
            for obj in self.of(kind) {
                if let Some(target) = obj.spec().and_then(|s| s.get("scaleTargetRef")) {
                    let kind = target.str_at("kind").unwrap_or("Deployment");
                    if let Some(name) = target.str_at("name") {
                        targets.push((obj.ns, kind, name));
                    }
                }
            }
        }
        let targets: HashMap<(&str, &str), Vec<Ns<'a>>> = targets.into_iter().fold(HashMap::new(), |mut map, t| {
            map.entry((t.1, t.2)).or_default().push(t.0);
            map
        });
        // Argo Rollouts runs the pods of a Deployment that a Rollout refers to, and keeps that at 0.
        let mut taken: Vec<(Ns<'a>, &'a str, &'a str)> = Vec::new();
        for obj in self.of(Kind::Rollout) {
            if let Some(target) = obj.spec().and_then(|s| s.get("workloadRef"))
                && let Some(name) = target.str_at("name")
            {
                taken.push((obj.ns, target.str_at("kind").unwrap_or("Deployment"), name));
            }
        }
        for w in &mut self.workloads {
            if taken.iter().any(|(ns, kind, name)| may_be_same(*ns, w.obj.ns) && *kind == w.obj.kind_name && *name == w.obj.name) {
                w.pods = Pods::Unknown;
            }
            let hit = targets.get(&(w.obj.kind_name, w.obj.name));
            if hit.is_some_and(|all| all.iter().any(|ns| may_be_same(*ns, w.obj.ns))) {
                w.pods = Pods::Scaled;
            }
        }
    }

    fn select(&mut self) {
        for n in 0..self.services.len() {
            let service = &self.services[n];
            let found = self.selected(service.obj.ns, &service.selector);
            self.services[n].workloads = found;
        }
    }

    fn find_families(&mut self) {
        let mut families = Families::default();
        for (_, route) in self.splits() {
            let mut arms: Vec<Arm<'a>> = Vec::new();
            for dest in &route.dests {
                let Some(workloads) = self.reached(dest).filter(|w| !w.is_empty()) else {
                    continue;
                };
                arms.push(Arm { name: dest.label(), workloads, share: Some(route.share(dest)), dest: Some(*dest) });
            }
            self.add_family(&mut families, arms, true);
        }
        // Subsets that nothing in the input routes to: the split may be in the cluster.
        for rule in &self.rules {
            let Some(number) = self.service_number(rule.host) else {
                continue;
            };
            let service = &self.services[number];
            let arms = rule
                .subsets
                .iter()
                .map(|s| Arm { name: s.name, workloads: self.in_subset(service, s), share: None, dest: None })
                .filter(|a| !a.workloads.is_empty())
                .collect();
            self.add_family(&mut families, arms, false);
        }
        self.families = families.list;
    }

    fn add_family(&self, families: &mut Families<'a>, arms: Vec<Arm<'a>>, split: bool) {
        let mut kept: Vec<Arm<'a>> = Vec::new();
        for arm in arms {
            let overlap = |a: &Arm<'_>| a.workloads.iter().any(|n| arm.workloads.contains(n));
            if !kept.iter().any(overlap) {
                kept.push(arm);
            }
        }
        if kept.len() < 2 {
            return;
        }
        let members: Vec<usize> = kept.iter().flat_map(|a| a.workloads.clone()).collect();
        let near = families.of_workload.get(&members[0]);
        let known = near.into_iter().flatten().any(|n| {
            let theirs = &families.list[*n].arms;
            let holds = |m: &usize| theirs.iter().any(|a| a.workloads.contains(m));
            members.iter().all(holds)
        });
        if known {
            return;
        }
        let mut stable = 0;
        for (n, arm) in kept.iter().enumerate().skip(1) {
            let rank = |a: &Arm<'a>| (a.share.unwrap_or(0.0), self.pods(&a.workloads).unwrap_or(0));
            if rank(arm) > rank(&kept[stable]) {
                stable = n;
            }
        }
        for m in members {
            let n = families.list.len();
            families.of_workload.entry(m).or_default().push(n);
        }
        families.list.push(Family { arms: kept, stable, split });
    }
}

#[derive(Default)]
struct Families<'a> {
    list: Vec<Family<'a>>,
    of_workload: HashMap<usize, Vec<usize>>,
}

fn host_key(host: Host<'_>) -> &str {
    match host {
        Host::Service { name, .. } | Host::Literal(name) | Host::Wildcard(name) => name,
    }
}
