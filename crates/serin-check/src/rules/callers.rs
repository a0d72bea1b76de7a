//! Callers that the input shows: workloads whose settings name a host of another namespace.
//!
//! An address in the environment or in the arguments is as much as a manifest tells of who calls
//! whom; what applications look up elsewhere is not known.

use std::collections::HashMap;

use super::{Cx, Out};
use crate::diag::Finding;
use crate::index::Index;
use crate::model::{Routing, exported_to};
use crate::object::{Host, Kind, known};
use crate::yaml::View;

/// By a host's first two labels: where they stand, and in which workload.
type Mentions<'a> = HashMap<(&'a str, &'a str), Vec<(View<'a>, usize)>>;

fn mentions<'a>(index: &Index<'a>) -> Mentions<'a> {
    let mut found: Mentions<'a> = HashMap::new();
    for (n, w) in index.workloads.iter().enumerate().filter(|(_, w)| known(w.obj.ns).is_some()) {
        for c in w.containers() {
            let values = c.list("env").filter_map(|e| e.get("value")).chain(c.list("args")).chain(c.list("command"));
            for value in values {
                let Some(text) = value.str().filter(|t| t.contains('.')) else { continue };
                for host in text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))) {
                    let mut labels = host.split('.');
                    if let (Some(name), Some(ns)) = (labels.next(), labels.next()) {
                        found.entry((name, ns)).or_default().push((value, n));
                    }
                }
            }
        }
    }
    found
}

/// A part of SRN318: callers in a namespace that does not see the routes.
pub(super) fn hidden(cx: &Cx<'_>, out: &mut Out) {
    let index = cx.index;
    let open = |r: &Routing<'_>| exported_to(r.obj.spec(), r.obj.ns, None);
    if index.of(Kind::Sidecar).next().is_none() && index.routings.iter().all(open) {
        return;
    }
    let mentions = mentions(index);
    for r in &index.routings {
        of_route(index, &mentions, r, out);
    }
}

/// Callers that the input shows, in a namespace that does not see the routes: by `exportTo`,
/// or by a Sidecar of theirs.
fn of_route<'a>(index: &Index<'a>, mentions: &Mentions<'a>, r: &Routing<'a>, out: &mut Out) {
    let versions = r.routes.iter().any(|route| route.is_split() || route.dests.iter().any(|d| d.subset.is_some()));
    let (Some(spec), true) = (r.obj.spec(), r.in_mesh() && versions) else { return };
    let mut told = std::collections::HashSet::new();
    for (_, routed) in &r.hosts {
        let Host::Service { name, ns: Some(home) } = *routed else { continue };
        for (value, n) in mentions.get(&(name, home)).into_iter().flatten() {
            let w = &index.workloads[*n];
            let Some(ns) = known(w.obj.ns).filter(|ns| *ns != home && !told.contains(ns)) else { continue };
            let bypass = format!("calls of {} in namespace {ns} to {name} do not obey these routes", w.obj.name);
            if !exported_to(Some(spec), r.obj.ns, Some(ns)) {
                told.insert(ns);
                out.add(
                    Finding::at(spec.key_loc("exportTo"), format!("namespace {ns} is not among them"))
                        .related(value.loc(), format!("{} calls it", w.obj.title()))
                        .effect(bypass)
                        .help(format!("add {ns} to exportTo")),
                );
                continue;
            }
            // A Sidecar of the route's own namespace is judged above.
            let full = format!("{name}.{home}.svc.cluster.local");
            let hiding = index.of(Kind::Sidecar).filter(|s| s.ns == Some(ns) && s.ns != r.obj.ns).find_map(|s| {
                let spec = s.spec().filter(|x| x.get("workloadSelector").is_none() && x.get("egress").is_some())?;
                let sees = spec
                    .list("egress")
                    .flat_map(|e| e.list("hosts"))
                    .filter_map(View::str)
                    .any(|h| super::hosts::imports(h, home, &full, s.ns));
                (!sees).then_some(spec)
            });
            if let Some(spec) = hiding {
                told.insert(ns);
                out.add(
                    Finding::at(spec.key_loc("egress"), format!("{home}/{full} is not among them"))
                        .related(value.loc(), format!("{} calls it", w.obj.title()))
                        .effect(bypass)
                        .help(format!("add \"{home}/{full}\" to the hosts of an egress")),
                );
            }
        }
    }
}
