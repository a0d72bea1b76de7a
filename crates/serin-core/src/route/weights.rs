//! Weights of a route: a share in, a guarded patch out.
//!
//! ## The arithmetic
//! A route's weights are relative, so a destination's share is `w / S`, with `S` the sum of all of them. Stable and canary
//! have `s + c` of it; call `P = (s + c) / S` the pool. Everything else in the route (destinations of other hosts, third
//! subsets of the same host) keeps its share, whatever happens inside the pool. A share `q` for the canary and a total `T`
//! give
//!
//! ```text
//! others:  o' = T · o / S        canary:  c' = q · T · P        stable:  s' = T · P − c'
//! ```
//!
//! All of them must come out whole, or the total is refused with the smallest one that works: no share is ever rounded. A
//! third subset at 0 stays at 0. On the way back to 0 nothing is rescaled: stable takes `s + c`, so that the sum and every
//! other share stay as they are, and no arithmetic can fail.
//!
//! Deliberately edits weights only; see `structure` for what adds or removes destinations.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::Value;

use super::json::list;
use super::patch::{Guard, Patch};
use super::problem::{Place, RouteProblem};
use super::share::{Share, gcd};
use super::structure::{Mark, mark_into};
use super::survey::{Arms, Destination, MAX_WEIGHT, ReadRoute, Target, VIRTUAL_SERVICE, read_route};
use crate::units::Weight;

/// The totals that are tried first: percent, and finer by tens.
const TOTALS: [u32; 4] = [100, 1_000, 10_000, 100_000];

/// The largest total that is used when none of [`TOTALS`] keeps the other destinations' shares. Ten times more would still
/// fit Envoy's 32 bits; it would only make weights that nobody reads.
const LARGEST_TOTAL: u32 = 1_000_000;

/// Given to stable by an abort that finds nothing but zeros.
const WHOLE_IN_PERCENT: u32 = 100;

/// A route to edit, and the total that its weights are to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteTotal {
    /// Its place in `spec.http`.
    pub index: usize,
    /// As [`total_for_route`] gives it.
    pub total: u32,
}

/// The smallest of 100, 1,000, 10,000 and 100,000 in which each of a plan's shares is a whole number. To be stated before
/// the first step and kept: a change of total changes every weight of the route.
pub fn total_for(shares: &[Weight]) -> u32 {
    let whole = |total: &u32| shares.iter().all(|share| u64::from(share.parts()) * u64::from(*total) % u64::from(Weight::WHOLE) == 0);
    TOTALS.into_iter().find(whole).unwrap_or(Weight::WHOLE)
}

/// As [`total_for`], for a route that may have other destinations: the smallest total that also keeps their shares exactly.
/// Depends only on shares, which patches keep: every call during a rollout gives the same answer.
///
/// # Errors
/// The route cannot be split, or no total up to 1,000,000 keeps everything whole.
pub fn total_for_route(vs: &Value, index: usize, arms: &Arms, shares: &[Weight]) -> Result<u32, RouteProblem> {
    let pool = Pool::of(vs, index, arms)?;
    pool.smallest_total(shares).ok_or_else(|| RouteProblem::NoTotal {
        at: Place::route(vs, index),
        max: LARGEST_TOTAL,
        others: pool.others_share(),
    })
}

/// The patch that gives the canary `share` of what stable and canary get together on the route `spec.http[index]`.
///
/// # Errors
/// See [`RouteProblem`]; the patch is not made rather than made approximately.
pub fn set_share(vs: &Value, index: usize, arms: &Arms, share: Weight, total: u32, guard: Guard) -> Result<Patch, RouteProblem> {
    let mut patch = Patch::default();
    pin(&mut patch, vs, guard)?;
    share_into(&mut patch, vs, RouteTotal { index, total }, arms, share, guard)?;
    Ok(patch)
}

/// As [`set_share`] for several routes of one VirtualService, in one patch: all of them change, or none.
///
/// # Errors
/// Every problem of every route.
pub fn set_shares(vs: &Value, routes: &[RouteTotal], arms: &Arms, share: Weight, guard: Guard) -> Result<Patch, Vec<RouteProblem>> {
    let mut patch = Patch::default();
    let mut problems = Vec::new();
    problems.extend(pin(&mut patch, vs, guard).err());
    for route in routes {
        problems.extend(share_into(&mut patch, vs, *route, arms, share, guard).err());
    }
    if problems.is_empty() { Ok(patch) } else { Err(problems) }
}

/// What an abort does to one VirtualService.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Abort {
    /// The one patch. May be empty of changes, when the canary has nothing and the mark stands.
    pub patch: Patch,
    /// Routes that go on sending to the canary: what a person has to know, and no reason to wait with the patch.
    pub left: Vec<RouteProblem>,
}

/// The patch that takes all weight from the canary on each route (`only`: of each route of these names), and marks the
/// VirtualService with the rollout that ends, if one is given.
///
/// Works from every state: weights absent, all zero, of another total, destinations named twice. It never makes a sum of 0
/// and never changes another destination's share. Pinned to the routes it edits, and to the resourceVersion only where the
/// mark would otherwise overwrite annotations that appeared meanwhile.
pub fn abort(vs: &Value, only: Option<&[String]>, arms: &Arms, mark: Option<Mark<'_>>) -> Abort {
    let mut abort = Abort::default();
    for index in 0..list(vs, "/spec/http").len() {
        let name = Place::route(vs, index).name;
        if only.is_none_or(|only| only.iter().any(|o| name.as_ref() == Some(o))) {
            let (stable, canary) = (core::slice::from_ref(&arms.stable), core::slice::from_ref(&arms.canary));
            abort.left.extend(withdraw_into(&mut abort.patch, vs, index, stable, canary).err());
        }
    }
    if let Some(mark) = mark {
        mark_into(&mut abort.patch, vs, mark);
    }
    abort
}

/// The tests that a guard asks for beside those of the routes.
pub(super) fn pin(patch: &mut Patch, vs: &Value, guard: Guard) -> Result<(), RouteProblem> {
    match guard {
        Guard::Forward => patch.pin(VIRTUAL_SERVICE, vs),
        Guard::Back => Ok(()),
    }
}

/// Pins the patch to a route as it was read.
pub(super) fn pin_route(patch: &mut Patch, vs: &Value, index: usize) -> Result<(), RouteProblem> {
    let path = format!("/spec/http/{index}");
    match vs.pointer(&path) {
        Some(route) => {
            patch.test(path, route.clone());
            Ok(())
        }
        None => Err(RouteProblem::NoSuchRoute { at: Place::route(vs, index), routes: list(vs, "/spec/http").len() }),
    }
}

pub(super) fn share_into(
    patch: &mut Patch,
    vs: &Value,
    route: RouteTotal,
    arms: &Arms,
    share: Weight,
    guard: Guard,
) -> Result<(), RouteProblem> {
    let RouteTotal { index, total } = route;
    if share == Weight::ZERO && guard == Guard::Back {
        return withdraw_into(patch, vs, index, core::slice::from_ref(&arms.stable), core::slice::from_ref(&arms.canary));
    }
    let at = Place::route(vs, index);
    if total == 0 || total > MAX_WEIGHT {
        return Err(RouteProblem::BadTotal { at, total });
    }
    let pool = Pool::of(vs, index, arms)?;
    let Some(weights) = pool.weights(share, total) else {
        let others = match pool.others_share() {
            Share { .. } if pool.others.is_empty() => String::new(),
            others => format!(" beside other destinations with {others}"),
        };
        return Err(RouteProblem::NotWhole { at, share, total, others, needs: pool.smallest_total(&[share]) });
    };
    pin_route(patch, vs, index)?;
    for (destination, weight) in weights {
        write(patch, vs, index, destination, weight);
    }
    Ok(())
}

/// Writes a weight where it differs from what counts now: an absent weight among several destinations is 0 already.
fn write(patch: &mut Patch, vs: &Value, index: usize, destination: &Destination, weight: u32) {
    if destination.weight.unwrap_or(0) != weight {
        patch.put(vs, format!("/spec/http/{index}/route/{}/weight", destination.position), Value::from(weight));
    }
}

/// All of the canary's weight to stable, by the rule that nothing else changes. A version may be reached by several subsets:
/// the first of stable's takes what all of the canary's lose.
pub(super) fn withdraw_into(
    patch: &mut Patch,
    vs: &Value,
    index: usize,
    stables: &[Target],
    canaries: &[Target],
) -> Result<(), RouteProblem> {
    let label = |targets: &[Target]| targets.first().map_or_else(String::new, Target::label);
    let at = Place::route(vs, index);
    let ReadRoute { destinations, bad, .. } = read_route(vs, index, "");
    let is_canary = |d: &Destination| canaries.iter().any(|target| d.is(target));
    let losing: Vec<&Destination> = destinations.iter().filter(|d| is_canary(d)).collect();
    if losing.is_empty() {
        return Ok(());
    }
    if destinations.len() == 1 {
        let matched = !list(vs, &format!("/spec/http/{index}/match")).is_empty();
        return Err(RouteProblem::CanaryAlone { at, arm: label(canaries), when: if matched { " for requests that match" } else { "" } });
    }
    let unreadable = |d: &Destination| bad.iter().any(|(position, _)| *position == d.position);
    let sum = |of: &mut dyn Iterator<Item = &Destination>| of.map(|d| u64::from(d.weight.unwrap_or(0))).sum::<u64>();
    let taken = sum(&mut losing.iter().copied());
    let total = sum(&mut destinations.iter());
    if taken == 0 && total > 0 && !losing.iter().any(|d| unreadable(d)) {
        return Ok(());
    }
    let Some(stable) = destinations.iter().find(|d| stables.iter().any(|target| d.is(target))) else {
        return Err(RouteProblem::StableMissing { at, arm: label(stables) });
    };
    let kept = u64::from(stable.weight.unwrap_or(0)) + taken;
    let kept = if total == 0 { WHOLE_IN_PERCENT } else { u32::try_from(kept).unwrap_or(MAX_WEIGHT).min(MAX_WEIGHT) };
    pin_route(patch, vs, index)?;
    for destination in &destinations {
        let path = || format!("/spec/http/{index}/route/{}/weight", destination.position);
        if destination.position == stable.position {
            if destination.weight != Some(kept) {
                patch.put(vs, path(), Value::from(kept));
            }
        } else if is_canary(destination) && (destination.weight.unwrap_or(0) > 0 || unreadable(destination)) {
            patch.put(vs, path(), Value::from(0));
        }
    }
    Ok(())
}

/// A route as the arithmetic sees it: stable, canary, and the rest.
struct Pool {
    destinations: Vec<Destination>,
    stable: usize,
    canary: usize,
    /// Positions of the other destinations with weight.
    others: Vec<usize>,
    /// What stable and canary have together.
    weight: u64,
    /// What all have together.
    sum: u64,
}

impl Pool {
    fn of(vs: &Value, index: usize, arms: &Arms) -> Result<Self, RouteProblem> {
        let at = Place::route(vs, index);
        let routes = list(vs, "/spec/http").len();
        if index >= routes {
            return Err(RouteProblem::NoSuchRoute { at, routes });
        }
        let ReadRoute { destinations, bad, .. } = read_route(vs, index, &arms.stable.host);
        if let Some((_, problem)) = bad.into_iter().next() {
            return Err(problem);
        }
        let only = |target: &Target| {
            let places: Vec<usize> = destinations.iter().filter(|d| d.is(target)).map(|d| d.position).collect();
            match places.as_slice() {
                [] => Ok(None),
                [place] => Ok(Some(*place)),
                _ => Err(RouteProblem::NamedTwice { at: at.clone(), arm: target.label(), times: places.len() }),
            }
        };
        let stable = only(&arms.stable)?.ok_or_else(|| RouteProblem::StableMissing { at: at.clone(), arm: arms.stable.label() })?;
        let canary = only(&arms.canary)?.ok_or_else(|| RouteProblem::CanaryMissing { at: at.clone(), arm: arms.canary.label() })?;
        let weighs = |place: usize| destinations.get(place).and_then(|d| d.weight).map_or(0, u64::from);
        let rest = destinations.iter().filter(|d| d.position != stable && d.position != canary && d.weight.unwrap_or(0) > 0);
        // A destination of an arm's host as a whole also reaches the canary, by number of pods: no share would be true.
        let whole = |d: &&Destination| d.subset.is_none() && (d.host == arms.canary.host || d.host == arms.stable.host);
        if let Some(mixed) = rest.clone().find(whole) {
            return Err(RouteProblem::MixedRoute { at, service: mixed.host.clone(), weight: mixed.weight.unwrap_or(0) });
        }
        let others: Vec<usize> = rest.map(|d| d.position).collect();
        let weight = weighs(stable) + weighs(canary);
        let sum = destinations.iter().map(|d| weighs(d.position)).sum();
        if sum == 0 {
            return Err(RouteProblem::NoWeight { at });
        }
        if weight == 0 {
            return Err(RouteProblem::NothingToShare { at, stable: arms.stable.label(), canary: arms.canary.label() });
        }
        Ok(Self { destinations, stable, canary, others, weight, sum })
    }

    /// The new weight of each destination, or `None` where one would not be whole.
    fn weights(&self, share: Weight, total: u32) -> Option<Vec<(&Destination, u32)>> {
        let whole = |parts: u128, of: u128| (of != 0 && parts.is_multiple_of(of)).then(|| parts / of).and_then(|w| u32::try_from(w).ok());
        let total = u128::from(total);
        let pool = whole(total * u128::from(self.weight), u128::from(self.sum))?;
        let canary = whole(u128::from(pool) * u128::from(share.parts()), u128::from(Weight::WHOLE))?;
        let mut weights = Vec::with_capacity(self.destinations.len());
        for destination in &self.destinations {
            let weight = if destination.position == self.stable {
                pool - canary
            } else if destination.position == self.canary {
                canary
            } else {
                whole(total * u128::from(destination.weight.unwrap_or(0)), u128::from(self.sum))?
            };
            weights.push((destination, weight));
        }
        Some(weights)
    }

    fn smallest_total(&self, shares: &[Weight]) -> Option<u32> {
        let works = |total: &u32| shares.iter().all(|share| self.weights(*share, *total).is_some());
        TOTALS.into_iter().find(works).or_else(|| {
            // Every total that works is a multiple of each share's denominator.
            let parts = self.others.iter().filter_map(|place| self.destinations.get(*place)).map(|d| u128::from(d.weight.unwrap_or(0)));
            let of_route = parts.map(|w| denominator(w, u128::from(self.sum)));
            let of_pool = shares
                .iter()
                .map(|q| denominator(u128::from(self.weight) * u128::from(q.parts()), u128::from(self.sum) * u128::from(Weight::WHOLE)));
            let pool = denominator(u128::from(self.weight), u128::from(self.sum));
            let step = of_route
                .chain(of_pool)
                .try_fold(pool, |a, b| (a / gcd_wide(a, b)).checked_mul(b).filter(|l| *l <= u128::from(LARGEST_TOTAL)))?;
            let total = step.checked_mul(u128::from(WHOLE_IN_PERCENT).div_ceil(step))?;
            u32::try_from(total).ok().filter(|total| *total <= LARGEST_TOTAL).filter(works)
        })
    }

    fn others_share(&self) -> Share {
        Share::new(self.sum - self.weight, self.sum).unwrap_or(Share::NONE)
    }
}

/// The denominator of a fraction in lowest terms.
fn denominator(parts: u128, of: u128) -> u128 {
    of / gcd_wide(parts, of)
}

fn gcd_wide(a: u128, b: u128) -> u128 {
    match (u64::try_from(a), u64::try_from(b)) {
        (Ok(a), Ok(b)) => u128::from(gcd(a, b)),
        _ if b == 0 => a.max(1),
        _ => gcd_wide(b, a % b),
    }
}
