//! Changes of a VirtualService's structure: destinations come and go at weight 0, a plain route becomes a split, the mesh is
//! bound, an abort leaves its mark.
//!
//! Deliberately no judgement about permission: whether `manageRoute` allows a change is for the caller to ask; each function
//! says whether it needs it.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::{Map, Value, json};

use super::host::ServiceName;
use super::json::{list, namespace, present, text, texts};
use super::patch::{Guard, Patch, annotation_path};
use super::problem::{Place, RouteProblem};
use super::survey::{Arms, Destination, ReadRoute, Target, VIRTUAL_SERVICE, read_route};
use super::weights::{pin, pin_route};

/// The annotation by which an abort without the controller tells it what was done: the uid of the rollout that ended.
pub const ABORTED: &str = "serin.dev/aborted";
/// The annotation beside it that says why: what is known of the end where the controller was killed before it wrote its status.
pub const ABORTED_BECAUSE: &str = "serin.dev/aborted-because";

/// What an abort leaves on a VirtualService.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark<'a> {
    /// The rollout that ends.
    pub rollout: &'a str,
    /// Why, as a sentence; may be empty.
    pub why: &'a str,
}

/// The name by which Istio calls all sidecars.
pub const MESH: &str = "mesh";

/// What a single destination gets when a second one joins it: what it had anyway.
const ALL_IN_PERCENT: u32 = 100;

/// Names the canary, at weight 0, on each of these routes that do not name it yet. Needs no `manageRoute`: no request goes
/// elsewhere because of it.
///
/// The new destination is the stable one's `destination`, copied whole (host as written, port, fields Serin does not know),
/// with the subset replaced. What stands beside `destination` in the entry, such as `headers`, is not copied: a header that
/// is set per destination tells versions apart, one that is meant for all stands on the route.
///
/// A route that names stable alone gets its weight written too: a single destination has everything whatever it says, but
/// among two an absent weight is 0.
///
/// # Errors
/// Every route that does not name stable by itself, or cannot be read.
pub fn add_destination(vs: &Value, routes: &[usize], arms: &Arms, guard: Guard) -> Result<Patch, Vec<RouteProblem>> {
    each(vs, routes, guard, |patch, index, read, at| {
        if read.destinations.iter().any(|d| d.is(&arms.canary)) {
            return Ok(());
        }
        let stable = read.destinations.iter().find(|d| d.is(&arms.stable));
        let stable = stable.ok_or_else(|| RouteProblem::StableMissing { at, arm: arms.stable.label() })?;
        join(patch, vs, index, &read, stable, &arms.canary);
        Ok(())
    })
}

/// Turns a route that sends to the service as a whole into one that sends everything to stable, and names the canary at
/// weight 0. Needs `manageRoute`: requests that reached every version now reach stable alone.
///
/// # Errors
/// Every route that has several destinations without subset, or cannot be read.
pub fn split_plain(vs: &Value, routes: &[usize], arms: &Arms, guard: Guard) -> Result<Patch, Vec<RouteProblem>> {
    each(vs, routes, guard, |patch, index, read, at| {
        let plain: Vec<&Destination> = read.destinations.iter().filter(|d| d.host == arms.stable.host && d.subset.is_none()).collect();
        let stable = match plain.as_slice() {
            [one] => *one,
            [] => {
                return Err(RouteProblem::NotOurRoute {
                    at,
                    service: arms.stable.host.clone(),
                    what: String::from("it has no destination without subset"),
                });
            }
            several => return Err(RouteProblem::NamedTwice { at, arm: arms.stable.host.clone(), times: several.len() }),
        };
        if let Some(subset) = &arms.stable.subset {
            let path = format!("/spec/http/{index}/route/{}/destination/subset", stable.position);
            patch.put(vs, path, Value::from(subset.as_str()));
        }
        join(patch, vs, index, &read, stable, &arms.canary);
        Ok(())
    })
}

/// Takes a destination out of each of these routes that name it, where its weight is 0.
///
/// # Errors
/// Every route where it still has weight, or is the only destination.
pub fn remove_destination(vs: &Value, routes: &[usize], target: &Target, guard: Guard) -> Result<Patch, Vec<RouteProblem>> {
    each(vs, routes, guard, |patch, index, read, at| {
        let total: u64 = read.destinations.iter().map(|d| u64::from(d.weight.unwrap_or(0))).sum();
        let named: Vec<&Destination> = read.destinations.iter().filter(|d| d.is(target)).collect();
        if !named.is_empty() && named.len() == read.destinations.len() {
            return Err(RouteProblem::LastDestination { at, arm: target.label() });
        }
        let weight: u64 = named.iter().map(|d| u64::from(d.weight.unwrap_or(0))).sum();
        if weight > 0 {
            return Err(RouteProblem::StillWeighted { at, arm: target.label(), weight, total });
        }
        // From the back, so that the positions in front stay true.
        for destination in named.iter().rev() {
            patch.remove(format!("/spec/http/{index}/route/{}", destination.position));
        }
        Ok(())
    })
}

/// Binds the VirtualService to the mesh beside its gateways, so that calls between services are split too: the demo's
/// smallest patch. Needs `manageRoute`. Empty of changes where it is bound already, as one without `gateways` is.
///
/// # Errors
/// The hosts do not include the service, or include `*`, which Istio's webhook refuses in the mesh.
pub fn bind_mesh(vs: &Value, service: &ServiceName) -> Result<Patch, RouteProblem> {
    let mut patch = Patch::default();
    if in_mesh(vs) {
        return Ok(patch);
    }
    let at = Place::whole(VIRTUAL_SERVICE, vs);
    if texts(vs, "/spec/hosts").any(|host| host == "*") {
        return Err(RouteProblem::AnyHostInMesh { at, service: service.fqdn() });
    }
    if !serves(vs, service) {
        return Err(RouteProblem::HostNotServed { at, service: service.fqdn() });
    }
    patch.pin(VIRTUAL_SERVICE, vs)?;
    patch.test("/spec/gateways", vs.pointer("/spec/gateways").cloned().unwrap_or(Value::Null));
    patch.add("/spec/gateways/-", Value::from(MESH));
    Ok(patch)
}

/// Whether sidecars use it: `gateways` is absent, or names the mesh.
pub fn in_mesh(vs: &Value) -> bool {
    let gateways = list(vs, "/spec/gateways");
    gateways.is_empty() || gateways.iter().any(|gateway| gateway == MESH)
}

/// Whether one of its hosts is the service itself: only then are calls to the service's name routed by it.
pub fn serves(vs: &Value, service: &ServiceName) -> bool {
    texts(vs, "/spec/hosts").any(|host| service.is_covered_by(host, namespace(vs)))
}

/// The patch that marks a VirtualService with the rollout that was ended.
pub fn mark(vs: &Value, mark: Mark<'_>) -> Patch {
    let mut patch = Patch::default();
    mark_into(&mut patch, vs, mark);
    patch
}

/// The uid of the rollout that an abort ended here.
pub fn aborted_mark(vs: &Value) -> Option<&str> {
    text(vs, &annotation_path(ABORTED))
}

/// Why an abort ended it, where the mark says so.
pub fn aborted_because(vs: &Value) -> Option<&str> {
    text(vs, &annotation_path(ABORTED_BECAUSE)).filter(|why| !why.is_empty())
}

/// Adds the mark. Where there are no annotations yet, the patch has to create them, and is pinned to the resourceVersion, if
/// the object has one: it would otherwise replace annotations that came meanwhile.
pub(super) fn mark_into(patch: &mut Patch, vs: &Value, mark: Mark<'_>) {
    // The first who aborted knows why.
    if aborted_mark(vs) == Some(mark.rollout) {
        return;
    }
    if present(vs, "/metadata/annotations") {
        patch.put(vs, annotation_path(ABORTED), Value::from(mark.rollout));
        patch.put(vs, annotation_path(ABORTED_BECAUSE), Value::from(mark.why));
    } else {
        if let Some(version) = text(vs, "/metadata/resourceVersion") {
            patch.test("/metadata/resourceVersion", Value::from(version));
        }
        patch.add("/metadata/annotations", json!({ABORTED: mark.rollout, ABORTED_BECAUSE: mark.why}));
    }
}

/// Pins and edits each route, and collects all problems.
fn each(
    vs: &Value,
    routes: &[usize],
    guard: Guard,
    edit: impl Fn(&mut Patch, usize, ReadRoute, Box<Place>) -> Result<(), RouteProblem>,
) -> Result<Patch, Vec<RouteProblem>> {
    let mut patch = Patch::default();
    let mut problems = Vec::new();
    problems.extend(pin(&mut patch, vs, guard).err());
    for index in routes {
        let edited = pin_route(&mut patch, vs, *index).and_then(|()| {
            let mut read = read_route(vs, *index, "");
            match read.bad.pop() {
                Some((_, problem)) => Err(problem),
                None => edit(&mut patch, *index, read, Place::route(vs, *index)),
            }
        });
        problems.extend(edited.err());
    }
    if problems.is_empty() { Ok(patch) } else { Err(problems) }
}

/// Appends `canary` at weight 0, made from the destination of `model`.
fn join(patch: &mut Patch, vs: &Value, index: usize, read: &ReadRoute, model: &Destination, canary: &Target) {
    let route = format!("/spec/http/{index}/route");
    if read.destinations.len() == 1 && model.weight.unwrap_or(0) == 0 {
        patch.put(vs, format!("{route}/{}/weight", model.position), Value::from(ALL_IN_PERCENT));
    }
    let mut destination = match vs.pointer(&format!("{route}/{}/destination", model.position)) {
        Some(Value::Object(fields)) => fields.clone(),
        _ => Map::new(),
    };
    if model.host != canary.host {
        destination.insert("host".into(), Value::from(canary.host.as_str()));
    }
    match &canary.subset {
        Some(subset) => destination.insert("subset".into(), Value::from(subset.as_str())),
        None => destination.remove("subset"),
    };
    patch.add(format!("{route}/-"), json!({"destination": destination, "weight": 0}));
}
