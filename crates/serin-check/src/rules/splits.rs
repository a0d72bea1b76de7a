//! Weights: sums, and weights that do nothing.

use super::{Cx, Out, input, list, percent};
use crate::diag::{Finding, Severity, fix, replace};
use crate::model::Route;

/// SRN310
pub(super) fn sum_is_zero(cx: &Cx<'_>, out: &mut Out) {
    for (_, route) in cx.index.splits() {
        if route.total() > 0 {
            continue;
        }
        let absent = route.dests.iter().all(|d| d.weight.is_none());
        let loc = match route.dests.iter().find_map(|d| d.weight) {
            Some(weight) => weight.loc(),
            None => route.view.key_loc("route"),
        };
        out.add(
            Finding::at(loc, if absent { "several destinations and no weight: an absent weight is 0" } else { "all weights are 0" })
                .effect("Istio refuses the VirtualService; a proxy would refuse the whole update")
                .help("give the destinations weights that sum to 100"),
        );
    }
}

/// 1, 10, 100, 1000, …
fn is_power_of_ten(mut n: i64) -> bool {
    while n >= 10 && n % 10 == 0 {
        n /= 10;
    }
    n == 1
}

/// SRN311
pub(super) fn odd_sum(cx: &Cx<'_>, out: &mut Out) {
    for (_, route) in cx.index.splits() {
        negative(route, out);
        let weights: Vec<i64> = route.dests.iter().map(|d| d.weight()).collect();
        let total = route.total();
        let positive: Vec<i64> = weights.iter().copied().filter(|w| *w > 0).collect();
        let equal = positive.windows(2).all(|w| w[0] == w[1]);
        // 3 to 1 is a ratio; equal weights mean equal shares whatever they sum to.
        let ratio = weights.iter().all(|w| *w < 10);
        let forgotten = route.dests.iter().find(|d| d.weight.is_none());
        // Of the wrong type: SRN011 speaks.
        if route.dests.iter().filter_map(|d| d.weight).any(|w| w.int().is_none() && w.str().is_none_or(|t| t.parse::<i64>().is_err())) {
            continue;
        }
        // Halves of a percent: 199 and 1 of 200.
        let fine = total > 100
            && [2, 5].iter().any(|n| total % n == 0 && is_power_of_ten(total / n))
            && positive.iter().min().is_some_and(|least| least.saturating_mul(100) < total);
        let odd = total > 0 && !is_power_of_ten(total) && !fine && !ratio && (!equal || positive.len() == 1);
        if !(odd || forgotten.is_some() && total > 0) || weights.iter().any(|w| *w < 0) {
            continue;
        }
        let real: Vec<String> = route.dests.iter().map(|d| format!("{} {}", d.label(), percent(route.share(d)))).collect();
        if let Some(d) = forgotten {
            out.add(
                Finding::at(d.loc(), "no weight here: an absent weight is 0")
                    .title("a destination without weight gets nothing")
                    .effect(format!("real shares: {}", list(&real)))
                    .help("write its weight, or weight: 0 if that is meant"),
            );
            continue;
        }
        let Some(last) = route.dests.iter().rev().find_map(|d| d.weight) else {
            continue;
        };
        let numbers: Vec<String> = weights.iter().map(i64::to_string).collect();
        out.add(
            Finding::at(last.loc(), format!("{} = {total}", numbers.join(" + ")))
                .effect(format!("weights are relative; real shares: {}", list(&real)))
                .help("make them sum to 100, or 1000 for tenths of a percent"),
        );
    }
}

fn negative(route: &Route<'_>, out: &mut Out) {
    for d in &route.dests {
        if let Some(w) = d.weight.filter(|_| d.weight() < 0) {
            out.add(
                Finding::at(w.loc(), "less than 0")
                    .title("a negative weight")
                    .severity(Severity::Error)
                    .effect("Istio refuses the VirtualService")
                    .help("weights begin at 0"),
            );
        }
    }
}

/// SRN312
pub(super) fn weight_ignored(cx: &Cx<'_>, out: &mut Out) {
    for r in &cx.index.routings {
        for route in &r.routes {
            let [dest] = route.dests.as_slice() else {
                continue;
            };
            let Some(weight) = dest.weight.filter(|_| dest.weight() != 100) else {
                continue;
            };
            out.add(
                Finding::at(weight.loc(), "the destination is alone")
                    .effect(format!("{} gets 100 % of the requests, not {}", dest.label(), dest.weight()))
                    .help("add the other destination, or remove the weight")
                    .fix(
                        input::remove(dest.view, "weight", "remove the weight that does nothing")
                            .or_else(|| fix("write what it is", [replace(weight, "100")])),
                    ),
            );
        }
    }
}
