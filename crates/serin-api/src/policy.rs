//! The CanaryPolicy: what releases take where they say nothing themselves, and when nothing may move forward.
//!
//! A policy has the fields of a release as defaults, merged field by field: what the release writes wins, a list is one field.
//! Beside them stand windows (forward moves only then), a freeze, and sources of metrics that its releases may name. Going back is never
//! held. Deliberately no clock: the time is handed in.

use std::collections::BTreeMap;

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use serin_core::plan::Problem;

use crate::spec::CanaryReleaseSpec;

/// The policy that holds where a release names none: of this name, in the controller's namespace.
pub const DEFAULT_POLICY: &str = "default";

/// What a team or a platform asks of all its releases.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "serin.dev",
    version = "v1alpha1",
    kind = "CanaryPolicy",
    plural = "canarypolicies",
    namespaced,
    schema = "disabled",
    derive = "PartialEq"
)]
pub struct CanaryPolicySpec {
    /// When releases may move forward; none: at any time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    /// While set, nothing moves forward; the text says why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeze: Option<String>,
    /// What its releases may name in `analysis.source`, besides what the controller's configuration has; the first is the one of those that
    /// name none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<PolicySource>,
    /// Fields of a release's spec.
    #[serde(flatten)]
    pub defaults: Map<String, Value>,
}

/// A time of the week.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// Days on which it opens; none: every day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<String>,
    /// Opens, as `09:00`.
    pub from: String,
    /// Closes, as `16:30`; not later than `from`: on the day after.
    pub to: String,
    /// A name of the time zone database, as `Europe/Berlin`; absent: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
}

/// A source of metrics by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySource {
    /// As releases write it.
    pub name: String,
    /// Where it is.
    pub prometheus: PrometheusSpec,
}

/// A Prometheus, or what answers as one, that asks for no secret: tokens and keys belong to the controller's configuration, as an object may be
/// read by many.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrometheusSpec {
    /// As `http://prometheus.monitoring:9090`, with the path below which its API is.
    pub url: String,
    /// Headers to send, as `X-Scope-OrgID` with the tenant.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The longest that an answer may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// How far behind the clock it is asked, as a scrape is stored some time after its moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<String>,
    /// Labels that tell replicas of one Prometheus apart; none: the usual ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replica_labels: Vec<String>,
}

/// Fields of a release that speak of this one release and that no policy sets.
const OWN: [&str; 3] = ["/service", "/policy", "/version/desired"];

/// Where a value of a resolved spec comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The release.
    Release,
    /// The policy.
    Policy,
    /// Neither says it: Serin's own default.
    Default,
}

/// A release's spec with what its policy adds, and with what else holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// The whole spec.
    pub spec: Value,
    /// Where each value of it comes from, by JSON pointer; lists are one value.
    pub origins: BTreeMap<String, Origin>,
}

impl Merged {
    /// The release's own fields win; an object is merged field by field, anything else is one value.
    pub fn new(release: &Value, policy: Option<&CanaryPolicySpec>) -> Self {
        let mut merged = Self { spec: Value::Object(Map::new()), origins: BTreeMap::new() };
        if let Some(policy) = policy {
            let mut defaults = Value::Object(policy.defaults.clone());
            for own in OWN {
                if let Some((parent, field)) = own.rsplit_once('/')
                    && let Some(object) = defaults.pointer_mut(parent).and_then(Value::as_object_mut)
                {
                    object.remove(field);
                }
            }
            if let Some(first) = policy.sources.first()
                && let Some(analysis) = defaults.as_object_mut().map(|d| d.entry("analysis").or_insert_with(|| Value::Object(Map::new())))
                && let Some(analysis) = analysis.as_object_mut()
            {
                analysis.entry("source").or_insert_with(|| first.name.clone().into());
            }
            merged.put("", &defaults, Origin::Policy);
        }
        merged.put("", release, Origin::Release);
        merged
    }

    fn put(&mut self, at: &str, value: &Value, origin: Origin) {
        if let Value::Object(fields) = value {
            // An object replaces whatever is no object there.
            if let Some(here) = self.spec.pointer_mut(at).filter(|v| !v.is_object()) {
                *here = Value::Object(Map::new());
                self.origins.remove(at);
            }
            for (name, inner) in fields {
                let path = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                if let Some(object) = self.spec.pointer_mut(at).and_then(Value::as_object_mut) {
                    object.entry(name).or_insert_with(|| Value::Object(Map::new()));
                }
                self.put(&path, inner, origin);
            }
            if fields.is_empty() && !at.is_empty() && self.spec.pointer(at).is_some_and(|v| v.as_object().is_some_and(Map::is_empty)) {
                self.origins.insert(at.to_owned(), origin);
            }
            return;
        }
        let below = format!("{at}/");
        self.origins.retain(|path, _| !path.starts_with(&below));
        if let Some(here) = self.spec.pointer_mut(at) {
            *here = value.clone();
        }
        self.origins.insert(at.to_owned(), origin);
    }

    /// The spec as it is worked with.
    ///
    /// # Errors
    /// What of it has the wrong type.
    pub fn read(&self) -> Result<CanaryReleaseSpec, Problem> {
        serde_json::from_value(self.spec.clone()).map_err(|e| Problem { path: "spec".into(), what: format!("cannot be read: {e}") })
    }

    /// Where a problem of the merged spec comes from: `spec.steps[1].weight` is looked for in the longest path that is known.
    pub fn origin(&self, path: &str) -> Option<Origin> {
        let pointer = path.strip_prefix("spec")?.split('[').next()?.replace('.', "/");
        let covers =
            |known: &&String| pointer == **known || pointer.starts_with(&format!("{known}/")) || known.starts_with(&format!("{pointer}/"));
        self.origins.iter().filter(|(known, _)| covers(known)).max_by_key(|(known, _)| known.len()).map(|(_, origin)| *origin)
    }
}

/// Everything that is wrong with a policy whatever release it holds for: what its fields make of a plan, and its windows.
pub fn problems(policy: &CanaryPolicySpec) -> Vec<Problem> {
    let whole = Merged::new(&serde_json::json!({"service": "service"}), Some(policy));
    let mut found = match whole.read() {
        Ok(spec) => crate::plan_of(&spec).err().unwrap_or_default(),
        Err(problem) => vec![problem],
    };
    found.extend(opening(&policy.windows, Timestamp::UNIX_EPOCH).err().unwrap_or_default());
    found
}

/// What a policy's windows say of a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Forward moves are allowed.
    Open,
    /// They are again at this moment, as people there read it.
    At(Timestamp, String),
}

/// Whether a window is open, else when the next one opens.
///
/// # Errors
/// Windows that cannot be read, each with its path.
pub fn opening(windows: &[Window], now: Timestamp) -> Result<Opening, Vec<Problem>> {
    if windows.is_empty() {
        return Ok(Opening::Open);
    }
    let mut problems = Vec::new();
    let mut next: Option<(Timestamp, String)> = None;
    for (i, window) in windows.iter().enumerate() {
        let read = match Read::of(window) {
            Ok(read) => read,
            Err((field, what)) => {
                problems.push(Problem { path: format!("spec.windows[{i}].{field}"), what });
                continue;
            }
        };
        match read.opening(now) {
            Some(Opening::Open) if problems.is_empty() => return Ok(Opening::Open),
            Some(Opening::At(at, text)) if next.as_ref().is_none_or(|(first, _)| at < *first) => next = Some((at, text)),
            _ => {}
        }
    }
    match next {
        _ if !problems.is_empty() => Err(problems),
        Some((at, text)) => Ok(Opening::At(at, text)),
        None => Err(vec![Problem { path: "spec.windows".into(), what: "no window ever opens: name days and times".into() }]),
    }
}

/// A window, read.
struct Read {
    days: Vec<Weekday>,
    from: Time,
    to: Time,
    zone: TimeZone,
}

impl Read {
    fn of(window: &Window) -> Result<Self, (&'static str, String)> {
        let days: Result<Vec<Weekday>, String> = window.days.iter().map(|d| day(d)).collect();
        let name = window.time_zone.as_deref().unwrap_or("UTC");
        let zone = TimeZone::get(name).map_err(|_| {
            ("timeZone", format!("{name:?} is no time zone that this machine knows: write one as Europe/Berlin, or install tzdata"))
        })?;
        Ok(Self {
            days: days.map_err(|e| ("days", e))?,
            from: time(&window.from).map_err(|e| ("from", e))?,
            to: time(&window.to).map_err(|e| ("to", e))?,
            zone,
        })
    }

    /// Open now, or when next; `None`: not within eight days, which is never.
    fn opening(&self, now: Timestamp) -> Option<Opening> {
        let today = now.to_zoned(self.zone.clone()).date();
        // One that opened yesterday may still be open.
        for offset in -1..=8 {
            let date = today.checked_add(offset.days()).ok()?;
            if !self.days.is_empty() && !self.days.contains(&date.weekday()) {
                continue;
            }
            let last = if self.to <= self.from { date.checked_add(1.days()).ok()? } else { date };
            // A time that the clock skips is read as the one after it, a time that comes twice as its first.
            let begin = date.to_datetime(self.from).to_zoned(self.zone.clone()).ok()?;
            let end = last.to_datetime(self.to).to_zoned(self.zone.clone()).ok()?;
            if begin.timestamp() <= now && now < end.timestamp() {
                return Some(Opening::Open);
            }
            if begin.timestamp() > now {
                return Some(Opening::At(begin.timestamp(), begin.strftime("%a %Y-%m-%d %H:%M %Q").to_string()));
            }
        }
        None
    }
}

fn day(name: &str) -> Result<Weekday, String> {
    let all = [
        ("Mon", Weekday::Monday),
        ("Tue", Weekday::Tuesday),
        ("Wed", Weekday::Wednesday),
        ("Thu", Weekday::Thursday),
        ("Fri", Weekday::Friday),
        ("Sat", Weekday::Saturday),
        ("Sun", Weekday::Sunday),
    ];
    all.iter()
        .find(|(n, _)| *n == name)
        .map(|(_, d)| *d)
        .ok_or_else(|| format!("{name:?} is no day: write Mon, Tue, Wed, Thu, Fri, Sat or Sun"))
}

fn time(text: &str) -> Result<Time, String> {
    let read = || -> Option<Time> {
        let (hour, minute) = text.split_once(':').filter(|(h, m)| h.len() == 2 && m.len() == 2)?;
        Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
    };
    read().ok_or_else(|| format!("{text:?} is no time of day: write it as 09:00"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy(value: Value) -> CanaryPolicySpec {
        serde_json::from_value(value).expect("a policy")
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn window(days: &[&str], from: &str, to: &str, zone: &str) -> Window {
        Window { days: days.iter().map(ToString::to_string).collect(), from: from.into(), to: to.into(), time_zone: Some(zone.into()) }
    }

    #[test]
    fn fields_are_merged_one_by_one_and_the_release_wins() {
        let policy = policy(
            json!({"trigger": "Manual", "analysis": {"interval": "30s", "confidence": "99%"}, "steps": [{"weight": 5}], "version": {"label": "rev", "desired": "v9"}, "service": "other"}),
        );
        let release = json!({"service": "cart", "analysis": {"interval": "10s"}});
        let merged = Merged::new(&release, Some(&policy));
        assert_eq!(
            merged.spec,
            json!({"service": "cart", "trigger": "Manual", "analysis": {"interval": "10s", "confidence": "99%"}, "steps": [{"weight": 5}], "version": {"label": "rev"}})
        );
        let origin = |path: &str| merged.origins.get(path).copied();
        assert_eq!(
            [origin("/service"), origin("/analysis/interval"), origin("/analysis/confidence"), origin("/steps")].map(Option::unwrap),
            [Origin::Release, Origin::Release, Origin::Policy, Origin::Policy]
        );
        assert_eq!(merged.origin("spec.steps[0].weight"), Some(Origin::Policy));
        assert_eq!(merged.origin("spec.analysis.interval"), Some(Origin::Release));
        assert_eq!(merged.origin("spec.promotion.bake"), None);
    }

    #[test]
    fn a_list_of_the_release_replaces_the_policys_whole() {
        let policy = policy(json!({"steps": [{"weight": 5}, {"weight": 50}], "analysis": {"metrics": [{"name": "a"}]}}));
        let merged = Merged::new(&json!({"service": "s", "steps": [{"weight": 1}]}), Some(&policy));
        assert_eq!(merged.spec["steps"], json!([{"weight": 1}]));
        assert_eq!(merged.spec["analysis"]["metrics"], json!([{"name": "a"}]));
    }

    #[test]
    fn the_first_source_of_a_policy_is_that_of_releases_that_name_none() {
        let sources =
            json!([{"name": "team", "prometheus": {"url": "http://p:9090"}}, {"name": "old", "prometheus": {"url": "http://q:9090"}}]);
        let of = |policy: &CanaryPolicySpec, release: Value| Merged::new(&release, Some(policy)).spec["analysis"]["source"].clone();
        let silent = policy(json!({"sources": sources}));
        assert_eq!(of(&silent, json!({"service": "s"})), "team");
        assert_eq!(of(&silent, json!({"service": "s", "analysis": {"source": "main"}})), "main");
        let names = policy(json!({"sources": sources, "analysis": {"source": "old"}}));
        assert_eq!(of(&names, json!({"service": "s", "analysis": {"interval": "5s"}})), "old");
        assert_eq!(of(&policy(json!({})), json!({"service": "s"})), Value::Null);
    }

    #[test]
    fn without_a_policy_a_release_is_what_it_is() {
        for release in [
            json!({"service": "s"}),
            json!({"service": "s", "traffic": {}, "steps": [{"pause": {}}], "analysis": {"metrics": [{"name": "e", "errorRate": {"max": "2%"}}]}}),
        ] {
            assert_eq!(Merged::new(&release, None).spec, release);
        }
    }

    #[test]
    fn windows_open_in_their_own_time_zone() {
        let office = [window(&["Mon", "Tue", "Wed", "Thu"], "09:00", "16:00", "Europe/Berlin")];
        // 2026-11-25 is a Wednesday; Berlin is an hour ahead of UTC in winter.
        assert_eq!(opening(&office, at("2026-11-25T08:00:00Z")), Ok(Opening::Open));
        assert_eq!(
            opening(&office, at("2026-11-25T07:59:59Z")),
            Ok(Opening::At(at("2026-11-25T08:00:00Z"), "Wed 2026-11-25 09:00 Europe/Berlin".into()))
        );
        assert_eq!(
            opening(&office, at("2026-11-26T15:00:00Z")),
            Ok(Opening::At(at("2026-11-30T08:00:00Z"), "Mon 2026-11-30 09:00 Europe/Berlin".into()))
        );
        // In summer two.
        assert_eq!(opening(&office, at("2026-07-01T07:00:00Z")), Ok(Opening::Open));
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_it_opens_on() {
        let night = [window(&["Sat"], "22:00", "04:00", "UTC")];
        assert_eq!(opening(&night, at("2026-11-28T23:00:00Z")), Ok(Opening::Open));
        assert_eq!(opening(&night, at("2026-11-29T03:59:00Z")), Ok(Opening::Open));
        assert!(matches!(opening(&night, at("2026-11-29T04:00:00Z")), Ok(Opening::At(next, _)) if next == at("2026-12-05T22:00:00Z")));
    }

    #[test]
    fn the_hour_that_the_clock_skips_is_the_one_after_it() {
        let early = [window(&[], "02:30", "05:00", "Europe/Berlin")];
        // On 2026-03-29 02:00 is followed by 03:00.
        assert!(
            matches!(opening(&early, at("2026-03-29T00:10:00Z")), Ok(Opening::At(next, text)) if next == at("2026-03-29T01:30:00Z") && text.contains("03:30"))
        );
    }

    #[test]
    fn what_is_wrong_with_a_window_is_said_with_its_path() {
        for (wrong, path) in [
            (window(&["Monday"], "09:00", "10:00", "UTC"), "spec.windows[0].days"),
            (window(&[], "9:00", "10:00", "UTC"), "spec.windows[0].from"),
            (window(&[], "09:00", "25:00", "UTC"), "spec.windows[0].to"),
            (window(&[], "09:00", "10:00", "Mars/Olympus"), "spec.windows[0].timeZone"),
        ] {
            let problems = opening(&[wrong], at("2026-11-25T08:00:00Z")).expect_err("a wrong window");
            assert_eq!(problems.iter().map(|p| p.path.as_str()).collect::<Vec<_>>(), [path]);
        }
    }
}
