//! The rules: one function and one page each, listed by code.
//!
//! A rule reads the index and reports findings. It never reads files, and it stays silent
//! when unsure: a false alarm costs more than a missed mistake.

mod callers;
mod deployments;
mod gateways;
mod hosts;
mod input;
mod mesh;
mod policies;
mod release;
mod routes;
mod schema_rules;
mod services;
mod splits;
mod subsets;
mod traffic_policies;

use std::sync::OnceLock;

use crate::diag::Finding;
use crate::index::Index;
use crate::object::Ns;
use crate::page::Page;
use crate::schema::{Issue, Schemas};
use crate::yaml::Parsed;

/// What a rule reads.
pub(crate) struct Cx<'a> {
    /// The objects.
    pub(crate) index: &'a Index<'a>,
    /// The files of this pass.
    pub(crate) files: &'a [&'a Parsed],
    /// Field definitions.
    pub(crate) schemas: &'static Schemas,
    /// What they say of the objects, once a rule has asked.
    pub(crate) issues: OnceLock<Vec<Issue>>,
    /// Requests a second to a released service, if the user says so.
    pub(crate) rate: Option<f64>,
}

/// What a rule writes to.
#[derive(Debug, Default)]
pub(crate) struct Out {
    pub(crate) found: Vec<Finding>,
}

impl Out {
    /// Reports a finding.
    pub(crate) fn add(&mut self, finding: Finding) {
        self.found.push(finding);
    }
}

/// One rule.
pub struct Rule {
    /// Its stable code.
    pub code: &'static str,
    /// The text of its page.
    text: &'static str,
    page: OnceLock<Page>,
    pub(crate) run: fn(&Cx<'_>, &mut Out),
}

impl Rule {
    /// Its page.
    pub fn page(&self) -> &Page {
        self.page.get_or_init(|| {
            // Pages are compiled in and a test reads each of them.
            Page::parse(self.text).unwrap_or_else(|problem| unreachable!("page {}: {problem}", self.code))
        })
    }

    /// The text of its page.
    pub fn text(&self) -> &'static str {
        self.text
    }
}

macro_rules! rules {
    ($($code:ident => $run:path,)*) => {
        /// All rules, by code.
        pub fn all() -> &'static [Rule] {
            static RULES: [Rule; [$(stringify!($code)),*].len()] = [$(Rule {
                code: stringify!($code),
                text: include_str!(concat!("../../rules/", stringify!($code), ".md")),
                page: OnceLock::new(),
                run: $run,
            }),*];
            &RULES
        }
    };
}

rules! {
    SRN001 => input::not_yaml,
    SRN002 => input::template,
    SRN003 => input::duplicate_key,
    SRN004 => input::hostile,
    SRN005 => input::same_object_twice,
    SRN007 => input::by_the_runner,
    SRN008 => input::by_the_runner,
    SRN010 => schema_rules::unknown_field,
    SRN011 => schema_rules::wrong_type,
    SRN012 => schema_rules::missing_field,
    SRN013 => schema_rules::version,
    SRN014 => schema_rules::bad_value,
    SRN101 => mesh::no_sidecar,
    SRN102 => mesh::annotation_does_nothing,
    SRN103 => mesh::no_version_label,
    SRN104 => mesh::telemetry_removed,
    SRN106 => deployments::no_readiness_probe,
    SRN107 => deployments::one_stable_pod,
    SRN201 => services::selects_nothing,
    SRN202 => services::selects_one_version,
    SRN203 => services::selects_another_app,
    SRN204 => deployments::selector_and_template_differ,
    SRN205 => deployments::selectors_overlap,
    SRN206 => services::target_port,
    SRN207 => deployments::probe_port,
    SRN208 => services::opaque_port,
    SRN209 => services::headless,
    SRN210 => services::nothing_limits_the_canary,
    SRN211 => deployments::same_image,
    SRN212 => deployments::latest,
    SRN213 => deployments::tag_against_label,
    SRN214 => deployments::label_in_one_place,
    SRN215 => services::unknown_port,
    SRN216 => deployments::too_few_pods,
    SRN217 => deployments::weight_on_nothing,
    SRN218 => services::port_needed,
    SRN301 => gateways::mesh_missing,
    SRN302 => gateways::missing_gateway,
    SRN303 => gateways::host_not_served,
    SRN304 => gateways::selects_nothing,
    SRN305 => gateways::port_and_tls,
    SRN306 => subsets::unknown_subset,
    SRN307 => subsets::selects_no_pods,
    SRN308 => subsets::same_pods,
    SRN309 => subsets::both_versions,
    SRN310 => splits::sum_is_zero,
    SRN311 => splits::odd_sum,
    SRN312 => splits::weight_ignored,
    SRN313 => routes::unreachable,
    SRN314 => routes::shadowed,
    SRN315 => hosts::two_routings,
    SRN316 => subsets::two_rules,
    SRN317 => hosts::wrong_namespace,
    SRN318 => hosts::hidden,
    SRN319 => hosts::unknown_host,
    SRN320 => routes::regex,
    SRN321 => routes::fault,
    SRN322 => routes::mirror,
    SRN323 => routes::retries,
    SRN324 => routes::timeout,
    SRN325 => traffic_policies::stickiness,
    SRN326 => traffic_policies::ejection,
    SRN327 => traffic_policies::limits,
    SRN328 => routes::delegate,
    SRN401 => policies::authorization,
    SRN402 => policies::peer_authentication,
    SRN403 => policies::request_authentication,
    SRN404 => policies::network,
    SRN405 => policies::disruption,
    SRN406 => policies::autoscaler,
    SRN407 => policies::monitor,
    SRN408 => policies::envoy_filter,
    SRN409 => policies::sidecar,
    SRN410 => policies::only_stable_admitted,
    SRN411 => traffic_policies::tls,
    SRN501 => schema_rules::refused,
    SRN502 => release::steps_go_down,
    SRN503 => release::undecidable,
    SRN504 => release::owned_by_another,
    SRN505 => release::unknown_service,
    SRN506 => release::two_owners,
}

/// A rule by its code, whatever its case.
pub fn find(code: &str) -> Option<&'static Rule> {
    all().iter().find(|r| r.code.eq_ignore_ascii_case(code))
}

/// ` in namespace shop`, or nothing where the input names none.
pub(crate) fn in_ns(ns: Ns<'_>) -> String {
    crate::object::known(ns).map_or_else(String::new, |ns| format!(" in namespace {ns}"))
}

/// `25 %`, `0.5 %`: a share as people write it.
pub(crate) fn percent(share: f64) -> String {
    let value = share * 100.0;
    let text = if value >= 99.95 || value == 0.0 || (value - value.round()).abs() < 0.05 && value >= 1.0 {
        format!("{value:.0}")
    } else if value >= 1.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}").trim_end_matches('0').to_owned()
    };
    format!("{text} %")
}

/// A large number as people say it: two digits that count, thousands apart.
pub(crate) fn about(n: f64) -> String {
    let digits = n.abs().max(1.0).log10().floor() as i32;
    let unit = 10f64.powi((digits - 1).max(0));
    let mut text = format!("{:.0}", (n / unit).round() * unit);
    let mut at = text.len();
    while at > 3 {
        at -= 3;
        text.insert(at, ',');
    }
    text
}

/// `3 pods`, `1 pod`.
pub(crate) fn pods(n: i64) -> String {
    if n == 1 { "1 pod".to_owned() } else { format!("{n} pods") }
}

/// `a`, `a and b`, `a, b and c`; longer lists end in `and 7 more`.
pub(crate) fn list<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> String {
    let mut items: Vec<String> = items.into_iter().map(|s| s.as_ref().to_owned()).collect();
    let n = items.len();
    if n > 5 {
        items.truncate(4);
        return format!("{} and {} more", items.join(", "), n - 4);
    }
    match items.pop() {
        None => String::new(),
        Some(last) if items.is_empty() => last,
        Some(last) => format!("{} and {last}", items.join(", ")),
    }
}

/// The known word nearest to a misspelt one, if it is near enough to be meant.
pub(crate) fn nearest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let limit = match word.chars().count() {
        0..=2 => return None,
        3..=4 => 1,
        5..=8 => 2,
        _ => 3,
    };
    known
        .into_iter()
        .map(|k| (distance(word, k, limit), k))
        .filter(|(d, k)| *d <= limit && *k != word)
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}

/// Edits (insert, delete, replace, swap of neighbours; case is free) between two words, or
/// more than `limit`.
fn distance(a: &str, b: &str, limit: usize) -> usize {
    if a.len().abs_diff(b.len()) > limit || a.len() > 64 {
        return limit + 1;
    }
    let a: Vec<char> = a.chars().flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).collect();
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_near() {
        assert_eq!(nearest("hots", ["hosts", "http"]), Some("hosts"));
        assert_eq!(nearest("subsett", ["subset", "host"]), Some("subset"));
        assert_eq!(nearest("containerport", ["containerPort"]), Some("containerPort"));
        assert_eq!(nearest("v3", ["v1", "v2"]), None);
        assert_eq!(nearest("mirror", ["timeout"]), None);
    }

    #[test]
    fn shares_read_as_people_write_them() {
        assert_eq!(percent(0.25), "25 %");
        assert_eq!(percent(0.1818), "18.2 %");
        assert_eq!(percent(0.005), "0.5 %");
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(1.0), "100 %");
    }

    #[test]
    fn large_numbers_are_rounded() {
        assert_eq!(about(30_009.0), "30,000");
        assert_eq!(about(5_149.0), "5,100");
        assert_eq!(about(7.4), "7");
        assert_eq!(about(0.2), "0");
    }

    #[test]
    fn lists_end_with_and() {
        assert_eq!(list(["a"]), "a");
        assert_eq!(list(["a", "b", "c"]), "a, b and c");
        assert_eq!(list(["a", "b", "c", "d", "e", "f"]), "a, b, c, d and 2 more");
    }
}
