//! The rules of a VirtualService: order, matches, regular expressions, faults, mirrors,
//! retries, timeouts, delegates.

use super::{Cx, Out, hosts, in_ns, percent, subsets};
use crate::diag::{Finding, Severity};
use crate::model::{Dest, Route, RouteKind};
use crate::object::Kind;
use crate::re2;
use crate::schema::seconds;
use crate::yaml::{Type, View};

/// Keys of a match entry that narrow nothing.
fn narrows(key: &str) -> bool {
    !matches!(key, "name" | "statPrefix" | "ignoreUriCase")
}

/// Whether a string match takes every string.
fn takes_all(key: &str, m: View<'_>) -> bool {
    let only = |k: &str| m.fields().count() == 1 && m.get(k).is_some();
    (only("prefix") && m.str_at("prefix") == Some("/") && key == "uri")
        || (only("regex") && matches!(m.str_at("regex"), Some(".*" | ".+" | "/.*" | "^.*$" | "^/.*$" | "^/.*")) && key == "uri")
        || (only("prefix") && m.str_at("prefix") == Some(""))
}

/// Whether a match entry takes every request.
fn entry_takes_all(entry: View<'_>) -> bool {
    entry.fields().filter(|f| narrows(f.key) && !f.value.is_null()).all(|f| match f.key {
        "uri" => takes_all("uri", f.value),
        "headers" | "queryParams" | "withoutHeaders" | "sourceLabels" => f.value.fields().next().is_none(),
        "gateways" => f.value.items().next().is_none(),
        _ => false,
    })
}

/// Where a rule takes every request: the entry, or none for a rule without match.
fn catch_all<'a>(route: &Route<'a>) -> Option<Option<View<'a>>> {
    let Some(list) = route.view.get("match") else {
        return Some(None);
    };
    if list.items().len() == 0 {
        return Some(None);
    }
    list.items().find(|e| entry_takes_all(*e)).map(Some)
}

/// SRN313
pub(super) fn unreachable(cx: &Cx<'_>, out: &mut Out) {
    for r in &cx.index.routings {
        for kind in [RouteKind::Http, RouteKind::Tcp] {
            behind_a_catch_all(r.routes.iter().filter(|x| x.kind == kind), out);
        }
    }
}

fn behind_a_catch_all<'r, 'a: 'r>(routes: impl Iterator<Item = &'r Route<'a>>, out: &mut Out) {
    let mut first: Option<(&Route<'_>, Option<View<'_>>)> = None;
    for later in routes {
        let Some((first, entry)) = first else {
            first = catch_all(later).map(|entry| (later, entry));
            continue;
        };
        let loc = entry.map_or_else(|| first.loc(), |e| e.loc());
        let redirects = first.view.get("redirect").is_some();
        let what = if redirects { "this redirect takes every request" } else { "this rule takes every request" };
        out.add(
            Finding::at(later.loc(), "no request comes this far")
                .related(clip(first.view, loc), what)
                .effect(format!("{} never decides; {} decides for all", later.title(), first.title()))
                .help("move the rule without match to the end"),
        );
    }
}

fn clip(view: View<'_>, mut loc: crate::source::Loc) -> crate::source::Loc {
    let text = &view.file().source.text[loc.span.range()];
    let len = text.find(['\n', '\r']).unwrap_or(text.len());
    loc.span.end = loc.span.start + u32::try_from(len).unwrap_or(0);
    loc
}

/// Whether each string that `narrow` takes is taken by `wide`.
fn implied(wide: View<'_>, narrow: View<'_>) -> bool {
    if wide.ty() != Type::Map || narrow.ty() != Type::Map {
        return false;
    }
    let same = |k: &str| matches!((wide.str_at(k), narrow.str_at(k)), (Some(a), Some(b)) if a == b);
    if wide.fields().count() == 0 {
        return true;
    }
    match (wide.str_at("exact"), wide.str_at("prefix"), wide.str_at("regex")) {
        (Some(_), ..) => same("exact"),
        (_, Some(prefix), _) => ["exact", "prefix"].iter().any(|k| narrow.str_at(k).is_some_and(|n| n.starts_with(prefix))),
        (_, _, Some(".*")) => true,
        (_, _, Some(_)) => same("regex"),
        _ => false,
    }
}

/// Whether each request that `narrow` takes is taken by `wide`.
fn shadows(wide: View<'_>, narrow: View<'_>) -> bool {
    let mut any = false;
    for f in wide.fields().filter(|f| narrows(f.key) && !f.value.is_null()) {
        any = true;
        let Some(other) = narrow.get(f.key) else {
            return false;
        };
        let ok = match f.key {
            "uri" if wide.bool_at("ignoreUriCase") != narrow.bool_at("ignoreUriCase") => false,
            "uri" | "scheme" | "method" | "authority" => implied(f.value, other),
            "headers" | "queryParams" => f.value.fields().all(|h| other.get(h.key).is_some_and(|o| implied(h.value, o))),
            "sourceLabels" => f.value.fields().all(|l| {
                let have = other.get(l.key).and_then(View::scalar);
                have.is_some() && have == l.value.scalar()
            }),
            // A list is OR: the narrower names no gateway that the wider lacks.
            "gateways" => {
                let all: Vec<_> = f.value.items().filter_map(View::str).collect();
                let mut theirs = other.items().filter_map(View::str).peekable();
                theirs.peek().is_some() && theirs.all(|g| all.contains(&g))
            }
            _ => f.value.to_json() == other.to_json(),
        };
        if !ok {
            return false;
        }
    }
    any
}

/// SRN314
pub(super) fn shadowed(cx: &Cx<'_>, out: &mut Out) {
    for r in &cx.index.routings {
        let mut earlier: Vec<(View<'_>, &Route<'_>)> = Vec::new();
        for route in r.routes.iter().filter(|x| x.kind == RouteKind::Http) {
            if catch_all(route).is_some() {
                // From here on SRN313 speaks.
                break;
            }
            let entries: Vec<View<'_>> = route.view.list("match").collect();
            for entry in &entries {
                // Hostile lists would make this quadratic.
                let hit = earlier.iter().take(500).find(|(wide, _)| shadows(*wide, *entry));
                if let Some((wide, by)) = hit {
                    let alone = entries.len() == 1;
                    out.add(
                        Finding::at(
                            clip(*entry, entry.loc()),
                            if alone { "no request comes this far" } else { "this alternative is never reached" },
                        )
                        .related(clip(*wide, wide.loc()), "takes all of these requests")
                        .effect(format!("{} decides for them, not {}", by.title(), route.title()))
                        .help("put the narrower match first"),
                    );
                }
            }
            earlier.extend(entries.into_iter().map(|e| (e, route)));
        }
    }
}

/// SRN320
pub(super) fn regex(cx: &Cx<'_>, out: &mut Out) {
    let mut judge = |v: Option<View<'_>>| {
        let Some((v, pattern)) = v.and_then(|v| Some((v, v.str()?))) else {
            return;
        };
        if let Some((_, why)) = re2::refuse(pattern) {
            out.add(
                Finding::at(v.loc(), format!("RE2 knows no such thing: {why}"))
                    .effect("Istio refuses the VirtualService")
                    .help("write it in RE2's syntax, which has no look-around and no back references"),
            );
        }
    };
    for r in &cx.index.routings {
        for route in r.routes.iter().filter(|x| x.kind == RouteKind::Http) {
            for entry in route.view.list("match") {
                for key in ["uri", "scheme", "method", "authority"] {
                    judge(entry.at(&[key, "regex"]));
                }
                for key in ["headers", "queryParams", "withoutHeaders"] {
                    for f in entry.get(key).into_iter().flat_map(View::fields) {
                        judge(f.value.get("regex"));
                    }
                }
            }
            judge(route.view.at(&["rewrite", "uriRegexRewrite", "match"]));
            for origin in route.view.get("corsPolicy").into_iter().flat_map(|c| c.list("allowOrigins")) {
                judge(origin.get("regex"));
            }
        }
    }
}

/// The share that a fault hits, from 0 to 1.
fn fault_share(fault: View<'_>) -> f64 {
    let exact = fault.at(&["percentage", "value"]).and_then(View::number);
    let whole = fault.get("percent").and_then(View::number);
    exact.or(whole).unwrap_or(0.0) / 100.0
}

/// Whether a rule is for chosen requests only: every alternative asks for a header, a
/// parameter or a caller.
fn is_targeted(route: &Route<'_>) -> bool {
    let mut entries = route.view.list("match").peekable();
    entries.peek().is_some()
        && entries.all(|e| ["headers", "queryParams", "sourceLabels", "sourceNamespace"].iter().any(|k| e.get(k).is_some()))
}

/// SRN321
pub(super) fn fault(cx: &Cx<'_>, out: &mut Out) {
    for r in &cx.index.routings {
        for route in r.routes.iter().filter(|x| x.kind == RouteKind::Http) {
            for key in ["redirect", "directResponse"] {
                if route.view.get(key).is_some() && !route.dests.is_empty() {
                    out.add(
                        Finding::at(route.view.key_loc(key), "beside `route`")
                            .title(format!("a {key} was left in a rule that routes"))
                            .severity(Severity::Error)
                            .related(route.view.key_loc("route"), "the route")
                            .effect("Istio refuses the VirtualService")
                            .help(format!("keep the route or the {key}, not both")),
                    );
                }
            }
            let Some(fault) = route.view.get("fault") else {
                continue;
            };
            if is_targeted(route) {
                continue;
            }
            for kind in ["abort", "delay"] {
                let Some(f) = fault.get(kind) else { continue };
                let share = fault_share(f);
                if share <= 0.0 {
                    continue;
                }
                let what = match kind {
                    "abort" => match f.get("httpStatus").and_then(View::scalar) {
                        Some(status) => format!("are answered {status} without being sent on"),
                        None => "are aborted without being sent on".to_owned(),
                    },
                    _ => format!("wait {} longer", f.get("fixedDelay").and_then(View::scalar).unwrap_or("")),
                };
                out.add(
                    Finding::at(fault.key_loc(kind), format!("for {}", percent(share)))
                        .effect(format!("{} of all requests of {} {what}, stable's too", percent(share), route.title()))
                        .help("remove it, or put it into a rule that matches a test header"),
                );
            }
        }
    }
}

/// SRN322
pub(super) fn mirror(cx: &Cx<'_>, out: &mut Out) {
    for r in &cx.index.routings {
        for route in r.routes.iter().filter(|x| x.kind == RouteKind::Http) {
            // `mirror` holds the destination itself, each of `mirrors` holds one in a field.
            let single = route.view.get("mirror").and_then(|m| {
                let host_view = m.get("host")?;
                Some(Dest {
                    view: m,
                    host_view,
                    host: crate::object::host(host_view.str()?, r.obj.ns),
                    subset: m.get("subset"),
                    weight: None,
                })
            });
            let many = route.view.list("mirrors").filter_map(|m| Dest::read(m, r.obj.ns));
            for dest in single.into_iter().chain(many) {
                let nowhere = "copies of the requests are lost: the shadow shows nothing";
                if let Some(f) = subsets::undefined(cx, &dest) {
                    out.add(f.effect(nowhere));
                } else if let Some(unless) = hosts::unknown(cx, dest.host) {
                    out.add(
                        Finding::at(dest.host_view.loc(), "no such host is in the input")
                            .effect(nowhere)
                            .help("name a Service that exists")
                            .depends(unless),
                    );
                } else if route.dests.len() == 1 && route.dests[0].host == dest.host && route.dests[0].subset_name() == dest.subset_name() {
                    out.add(
                        Finding::at(dest.loc(), "the requests go there already")
                            .related(route.dests[0].loc(), "the same pods")
                            .effect("these pods get every request twice")
                            .help("mirror to the version that gets no requests yet"),
                    );
                }
            }
            if let Some(p) = route.view.at(&["mirrorPercentage", "value"])
                && p.number() == Some(0.0)
                && route.view.get("mirror").is_some()
            {
                out.add(Finding::at(p.loc(), "nothing is mirrored").help("remove the mirror, or raise the percentage"));
            }
        }
    }
}

/// Conditions of `retryOn` under which an error of the application itself is tried again.
fn retries_errors(on: &str) -> Option<&str> {
    on.split(',').map(str::trim).find(|c| {
        matches!(*c, "5xx" | "gateway-error" | "retriable-4xx")
            || c.starts_with('5') && c.len() == 3 && c.bytes().all(|b| b.is_ascii_digit())
    })
}

/// SRN323
pub(super) fn retries(cx: &Cx<'_>, out: &mut Out) {
    for (_, route) in cx.index.splits() {
        let Some(retries) = route.view.get("retries") else {
            continue;
        };
        let attempts = retries.int_at("attempts").unwrap_or(2);
        let Some(on) = retries.get("retryOn") else {
            continue;
        };
        let real = route.dests.iter().filter(|d| d.weight() > 0).count() > 1;
        let Some(condition) = on.str().and_then(retries_errors) else {
            continue;
        };
        if attempts < 1 || !real {
            continue;
        }
        let tries = i32::try_from(attempts.min(100)).unwrap_or(100) + 1;
        out.add(
            Finding::at(on.loc(), format!("`{condition}` tries failures again"))
                .effect(format!(
                    "a canary that fails 20 % of its tries shows {} of failed requests: each gets {tries} tries, in the same version",
                    percent(0.2_f64.powi(tries))
                ))
                .help("while versions are compared, retry on connect-failure,refused-stream alone"),
        );
    }
}

/// SRN324
pub(super) fn timeout(cx: &Cx<'_>, out: &mut Out) {
    for r in &cx.index.routings {
        for route in r.routes.iter().filter(|x| x.kind == RouteKind::Http) {
            let duration = |v: Option<View<'_>>| v.and_then(View::str).and_then(seconds);
            let timeout = route.view.get("timeout");
            let retries = route.view.get("retries");
            let per_try = retries.and_then(|x| x.get("perTryTimeout"));
            let attempts = retries.and_then(|x| x.int_at("attempts")).unwrap_or(2);
            let (Some(all), Some(each), Some(loc), Some(per_try)) = (duration(timeout), duration(per_try), timeout, per_try) else {
                continue;
            };
            // Envoy's first try counts as one of them; 0 switches a limit off.
            #[expect(clippy::cast_precision_loss, reason = "attempts are few")]
            let needed = each * (attempts as f64 + 1.0);
            if all <= 0.0 || each <= 0.0 || attempts < 1 || all + 1e-9 >= needed {
                continue;
            }
            let fit = (all / each).floor();
            let text = |v: View<'_>| v.str().unwrap_or("").to_owned();
            let label = if fit < 2.0 {
                format!("no retry fits into {}", text(loc))
            } else {
                format!("only {fit:.0} tries of {} fit", text(per_try))
            };
            out.add(
                Finding::at(loc.loc(), label)
                    .related(per_try.loc(), format!("each of {} tries", attempts + 1))
                    .effect(format!("a slow request ends with 504 after {}; the later tries never happen", text(loc)))
                    .help(format!("a timeout of {needed:.0}s would fit all {} tries", attempts + 1)),
            );
        }
    }
}

/// SRN328
pub(super) fn delegate(cx: &Cx<'_>, out: &mut Out) {
    for r in &cx.index.routings {
        for route in &r.routes {
            let Some(d) = route.view.get("delegate") else {
                continue;
            };
            let Some((name_view, name)) = d.get("name").and_then(|v| Some((v, v.str()?))) else {
                continue;
            };
            let ns = d.str_at("namespace").or(r.obj.ns);
            match cx.index.find(Kind::VirtualService, ns, name) {
                None => {
                    let told =
                        cx.index.settled() || cx.index.routings.iter().any(|o| o.is_delegate() && crate::object::may_be_same(o.obj.ns, ns));
                    if !told {
                        continue;
                    }
                    out.add(
                        Finding::at(name_view.loc(), format!("no VirtualService {name} is in the input"))
                            .effect("requests of this rule get 404")
                            .help("name a VirtualService without hosts")
                            .depends(format!("it is right if the cluster has a VirtualService {name}{}", in_ns(ns))),
                    );
                }
                Some(target) => {
                    let hosts = target.spec().and_then(|s| s.get("hosts"));
                    if let Some(hosts) = hosts.filter(|h| h.items().len() > 0) {
                        out.add(
                            Finding::at(name_view.loc(), "this one has hosts of its own")
                                .related(target.spec().map_or_else(|| hosts.loc(), |s| s.key_loc("hosts")), "a delegate has none")
                                .effect("Istio does not take it as a delegate: 404")
                                .help("remove the hosts of the delegate"),
                        );
                    }
                }
            }
        }
    }
}
