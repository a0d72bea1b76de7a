//! Traffic policies of DestinationRules that hurt a canary.

use super::{Cx, Out};
use crate::diag::Finding;
use crate::model::{Rule, Subset};
use crate::object::{Kind, Ns, same_host};
use crate::yaml::View;

/// A setting of the rule, overridden by the subset: the value and where it stands.
fn setting<'a>(rule: &Rule<'a>, subset: Option<&Subset<'a>>, key: &str) -> Option<View<'a>> {
    subset.and_then(|s| s.view.at(&["trafficPolicy", key])).or_else(|| rule.policy()?.get(key))
}

/// Words in a header's name that say it tells users apart; a hash on another (a cache key, a
/// tenant's shard) is not meant to pin anybody.
const WHO: [&str; 9] = ["user", "session", "cookie", "customer", "account", "client", "device", "auth", "login"];

/// The part of a consistent hash that is taken for stickiness, with its key.
fn pins<'a>(policy: Option<View<'a>>) -> Option<(View<'a>, &'static str)> {
    let hash = policy?.at(&["loadBalancer", "consistentHash"])?;
    if hash.get("httpCookie").is_some() {
        return Some((hash, "httpCookie"));
    }
    let header = hash.str_at("httpHeaderName").map(str::to_ascii_lowercase);
    if header.is_some_and(|h| WHO.iter().any(|w| h.contains(w))) {
        return Some((hash, "httpHeaderName"));
    }
    (hash.bool_at("useSourceIp") == Some(true)).then_some((hash, "useSourceIp"))
}

/// SRN325
pub(super) fn stickiness(cx: &Cx<'_>, out: &mut Out) {
    for rule in &cx.index.rules {
        let policies: Vec<_> =
            std::iter::once(rule.policy()).chain(rule.subsets.iter().map(|s| s.view.get("trafficPolicy"))).filter_map(pins).collect();
        if policies.is_empty() {
            continue;
        }
        let headers: Vec<&str> = policies.iter().filter_map(|(hash, _)| hash.str_at("httpHeaderName")).collect();
        let split = cx.index.splits().find(|(r, route)| {
            // A rule in front that goes by the cookie, or the same header, pins those who are to be
            // pinned; one for testers pins nobody else.
            let by = |m: View<'_>| {
                let named = |f: crate::yaml::Field<'_>| {
                    f.key.eq_ignore_ascii_case("cookie") || headers.iter().any(|h| h.eq_ignore_ascii_case(f.key))
                };
                m.get("headers").into_iter().flat_map(View::fields).any(named)
            };
            let before = r.routes.iter().take_while(|x| x.view.loc() != route.view.loc());
            if before.flat_map(|x| x.view.list("match")).any(by) {
                return false;
            }
            let real = route.dests.iter().filter(|d| d.weight() > 0 && same_host(d.host, rule.host)).count();
            // A match on header or cookie already chooses who sees which version.
            real > 1 && route.view.list("match").all(|m| m.get("headers").is_none() && m.get("queryParams").is_none())
        });
        let Some((_, route)) = split else { continue };
        for (hash, key) in policies {
            out.add(
                Finding::at(hash.key_loc(key), "picks a pod within a version, not the version")
                    .related(route.view.key_loc("route"), "the version is drawn anew for each request")
                    .effect("one user sees both versions in turn, by the weights")
                    .help("to pin users, match a cookie or header in front of the weighted route"),
            );
        }
    }
}

/// SRN326
pub(super) fn ejection(cx: &Cx<'_>, out: &mut Out) {
    let mut told = std::collections::HashSet::new();
    for family in cx.index.families.iter().filter(|f| f.split) {
        for arm in &family.arms {
            let (Some(dest), Some(1)) = (arm.dest, cx.index.pods(&arm.workloads)) else {
                continue;
            };
            let Some((rule, subset)) = dest.subset_name().and_then(|name| cx.index.subset(dest.host, name)) else {
                continue;
            };
            let Some(detection) = setting(rule, Some(subset), "outlierDetection") else {
                continue;
            };
            // Envoy ejects while the ejected share stays within the limit (10 % by default):
            // one pod of one is 100 %.
            if detection.int_at("maxEjectionPercent") != Some(100) {
                continue;
            }
            let at = detection.key_loc("maxEjectionPercent");
            let w = &cx.index.workloads[arm.workloads[0]];
            if !told.insert((at, arm.name)) {
                continue;
            }
            let errors = detection.int_at("consecutive5xxErrors").or_else(|| detection.int_at("consecutiveGatewayErrors")).unwrap_or(5);
            let share = arm.share.map_or_else(String::new, |s| format!(", {}", super::percent(s)));
            out.add(
                Finding::at(at, "may eject all pods of a version")
                    .related(
                        w.obj.spec().and_then(|s| s.get("replicas")).map_or_else(|| w.obj.name_loc(), View::loc),
                        format!("{} has one pod", arm.name),
                    )
                    .effect(format!(
                        "after {errors} errors in a row the whole share of {}{share} gets 503 (UH), good requests too",
                        arm.name
                    ))
                    .help("give it 2 pods and a maxEjectionPercent of 50, or leave ejection off this subset"),
            );
        }
    }
}

/// Limits under which a proxy answers 503 (UO) by itself.
const LIMITS: [(&str, &str); 3] = [("tcp", "maxConnections"), ("http", "http1MaxPendingRequests"), ("http", "http2MaxRequests")];

/// SRN327
pub(super) fn limits(cx: &Cx<'_>, out: &mut Out) {
    let mut told = std::collections::HashSet::new();
    for (_, route) in cx.index.splits() {
        let arms: Vec<_> =
            route.dests.iter().filter(|d| d.weight() > 0).filter_map(|d| Some((d, cx.index.subset(d.host, d.subset_name()?)?))).collect();
        let Some(((_, stable), rest)) = arms.iter().max_by_key(|(d, _)| d.weight()).map(|s| (s, &arms)) else {
            continue;
        };
        for (dest, (rule, subset)) in rest {
            let own = subset.view.at(&["trafficPolicy", "connectionPool"]);
            let Some(own) = own.filter(|_| subset.name != stable.1.name) else {
                continue;
            };
            for (group, key) in &LIMITS {
                let Some(limit) = own.at(&[group, key]) else {
                    continue;
                };
                let theirs = setting(stable.0, Some(stable.1), "connectionPool").and_then(|p| p.at(&[group, key])).and_then(View::int);
                let Some(mine) = limit.int() else { continue };
                // What its share of stable's own limit would be is fair.
                #[expect(clippy::cast_precision_loss, reason = "limits are small")]
                let fair = theirs.map(|t| t as f64 * route.share(dest));
                #[expect(clippy::cast_precision_loss, reason = "limits are small")]
                let tight = match fair {
                    Some(fair) => (mine as f64) < fair,
                    None => true,
                };
                if !tight || !told.insert(limit.loc()) {
                    continue;
                }
                let other = theirs.map_or_else(|| "no such limit".to_owned(), |t| format!("a limit of {t}"));
                out.add(
                    Finding::at(limit.loc(), format!("{key} for {} alone", subset.name))
                        .related(
                            stable.1.view.get("name").map_or_else(|| rule.obj.name_loc(), View::loc),
                            format!("{} has {other}", stable.1.name),
                        )
                        .effect(format!("above the limit callers' proxies answer 503 (UO): they count as errors of {}", subset.name))
                        .help("put the limit into the rule's own trafficPolicy, so that both versions have it"),
                );
            }
        }
    }
}

/// What a PeerAuthentication asks of the pods of a namespace or workload.
struct Asked<'a> {
    mode: &'a str,
    at: View<'a>,
}

fn mode_of<'a>(spec: Option<View<'a>>) -> Option<Asked<'a>> {
    let at = spec?.at(&["mtls", "mode"])?;
    Some(Asked { mode: at.str()?, at })
}

/// The mode that holds for pods: the workload's own, else the namespace's, else the mesh's.
fn asked<'a>(cx: &Cx<'a>, ns: Ns<'_>, labels: &[(&str, &str)]) -> Option<Asked<'a>> {
    let all = || cx.index.of(Kind::PeerAuthentication);
    let selector = |o: &crate::object::Object<'a>| crate::model::labels(o.spec().and_then(|s| s.at(&["selector", "matchLabels"])));
    // Ports of their own need more than this rule knows.
    if all().any(|o| o.spec().is_some_and(|s| s.get("portLevelMtls").is_some())) {
        return None;
    }
    let own = all().find(|o| {
        let want = selector(o);
        o.ns == ns && !want.is_empty() && crate::model::matches(&want, labels)
    });
    let space = || all().find(|o| o.ns == ns && selector(o).is_empty());
    let mesh = || all().find(|o| o.ns == Some("istio-system") && selector(o).is_empty());
    own.or_else(space).or_else(mesh).and_then(|o| mode_of(o.spec())).filter(|a| a.mode != "UNSET")
}

/// The `tls` of a policy, and those of its ports.
fn tls_settings(policy: Option<View<'_>>) -> Vec<View<'_>> {
    let own = policy.and_then(|p| p.get("tls"));
    let ports = policy.into_iter().flat_map(|p| p.list("portLevelSettings")).filter_map(|s| s.get("tls"));
    own.into_iter().chain(ports).collect()
}

/// SRN411
pub(super) fn tls(cx: &Cx<'_>, out: &mut Out) {
    for rule in &cx.index.rules {
        let Some(service) = cx.index.service(rule.host) else {
            continue;
        };
        let mut places: Vec<(View<'_>, Option<&Subset<'_>>)> = Vec::new();
        places.extend(tls_settings(rule.policy()).into_iter().map(|t| (t, None)));
        places.extend(rule.subsets.iter().flat_map(|s| tls_settings(s.view.get("trafficPolicy")).into_iter().map(move |t| (t, Some(s)))));
        for (tls, subset) in places {
            let Some(mode) = tls.get("mode") else {
                continue;
            };
            let pods: Vec<usize> = match subset {
                Some(s) => cx.index.in_subset(service, s),
                None => service.workloads.clone(),
            };
            let labels = pods.first().map(|n| cx.index.workloads[*n].labels.clone()).unwrap_or_default();
            let Some(asked) = asked(cx, service.obj.ns, &labels) else {
                continue;
            };
            let (clash, why) = match (mode.str().unwrap_or(""), asked.mode) {
                ("DISABLE", "STRICT") => (true, "plain text to pods that take only mutual TLS"),
                ("SIMPLE" | "MUTUAL", "STRICT") => (true, "other certificates than the mesh's to pods that take only those"),
                ("ISTIO_MUTUAL", "DISABLE") => (true, "mutual TLS to pods that take plain text"),
                _ => (false, ""),
            };
            if !clash {
                continue;
            }
            let whom = subset.map_or_else(|| format!("Service {}", service.obj.name), |s| format!("subset {}", s.name));
            out.add(
                Finding::at(mode.loc(), why)
                    .related(asked.at.loc(), "what the pods ask for")
                    .effect(format!("every call to {whom} fails with 503"))
                    .help("remove the tls setting: the mesh agrees on it by itself"),
            );
        }
    }
}
