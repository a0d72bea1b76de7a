//! Who else works on a VirtualService: other controllers, and whoever last wrote its routes.
//!
//! Deliberately no judgement: a sign is reported, what follows from it is for `decide`.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;

use serde_json::Value;

use super::json::{list, text};
use super::problem::{Place, RouteProblem};
use super::survey::VIRTUAL_SERVICE;
use crate::units::Timestamp;

/// Serin's field manager, always.
pub const FIELD_MANAGER: &str = "serin";

/// Another progressive-delivery controller, and how it was recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherController {
    /// Its name, with the object that it works for where that is known: `Flagger (Canary my-app)`.
    pub name: String,
    /// What says so: `an owner reference`.
    pub sign: String,
}

impl OtherController {
    /// As a refusal.
    pub fn problem(self, vs: &Value) -> RouteProblem {
        RouteProblem::OtherController { at: Place::whole(VIRTUAL_SERVICE, vs), controller: self.name, sign: self.sign }
    }
}

/// Flagger, Argo Rollouts, or a Serin under another manager name, if one of them manages this object.
///
/// Flagger owns the VirtualServices that it generates (owner reference to a `flagger.app` Canary), and keeps the original
/// spec of one that it took over in an annotation. Argo Rollouts writes under the manager name of its binary, and marks what
/// it manages with `managed-by-rollouts`. Of managed fields only those count that hold `spec.http`: a manager that once set a
/// label does no harm.
pub fn other_controller(vs: &Value) -> Option<OtherController> {
    let found = |name: String, sign: &str| Some(OtherController { name, sign: sign.to_owned() });
    for owner in list(vs, "/metadata/ownerReferences") {
        let (group, kind, name) = (text(owner, "/apiVersion"), text(owner, "/kind").unwrap_or("?"), text(owner, "/name").unwrap_or("?"));
        match group.and_then(|group| group.split('/').next()) {
            Some("flagger.app") => return found(format!("Flagger ({kind} {name})"), "an owner reference"),
            Some("argoproj.io") if kind == "Rollout" => return found(format!("Argo Rollouts ({kind} {name})"), "an owner reference"),
            Some("rollouts.kruise.io") => return found(format!("OpenKruise Rollouts ({kind} {name})"), "an owner reference"),
            _ => {}
        }
    }
    for holder in ["/metadata/annotations", "/metadata/labels"] {
        let pairs = vs.pointer(holder).and_then(Value::as_object);
        for (key, value) in pairs.into_iter().flatten() {
            let value = value.as_str().unwrap_or("?");
            match key.as_str() {
                "argo-rollouts.argoproj.io/managed-by-rollouts" => {
                    return found(format!("Argo Rollouts (Rollout {value})"), "the annotation managed-by-rollouts");
                }
                "flagger.kubernetes.io/original-configuration" | "flagger.app/original-configuration" => {
                    return found("Flagger".to_owned(), "the annotation original-configuration");
                }
                "app.kubernetes.io/managed-by" if value.eq_ignore_ascii_case("flagger") => {
                    return found("Flagger".to_owned(), "the label managed-by");
                }
                _ => {}
            }
        }
    }
    for entry in list(vs, "/metadata/managedFields").iter().filter(|entry| owns_routes(entry)) {
        let manager = text(entry, "/manager").unwrap_or_default();
        let name = match manager {
            "flagger" => "Flagger",
            "rollouts-controller" | "argo-rollouts" => "Argo Rollouts",
            "kruise-rollout" | "kruise-rollouts" => "OpenKruise Rollouts",
            FIELD_MANAGER => continue,
            other if other.starts_with("serin-") => other,
            _ => continue,
        };
        return found(name.to_owned(), "it is the manager of spec.http");
    }
    None
}

/// Who last wrote the routes, and when (RFC 3339, as the API server wrote it), by the managed fields. A list of routes is
/// atomic in Istio's schema, so that whoever sets one weight owns `spec.http` as a whole.
pub fn last_weight_manager(vs: &Value) -> Option<(&str, Option<&str>)> {
    let owners = list(vs, "/metadata/managedFields").iter().filter(|entry| owns_routes(entry));
    let last = owners.max_by_key(|entry| text(entry, "/time"))?;
    Some((text(last, "/manager").unwrap_or("an unnamed manager"), text(last, "/time")))
}

/// An instant as the API server writes it (RFC 3339): `2026-08-01T12:00:00Z`, with or without fractions or an offset.
/// `None` for anything else, and for years before 1 or after 9999.
pub fn instant(text: &str) -> Option<Timestamp> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok().filter(|_| part.bytes().all(|b| b.is_ascii_digit())));
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let zone = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at_checked(zone)?;
    let offset = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign, hours_minutes) => {
            let (hours, minutes) = hours_minutes.split_once(':')?;
            let offset = hours.parse::<i64>().ok()?.checked_mul(60)?.checked_add(minutes.parse::<i64>().ok()?)?;
            if sign == "-" { -offset } else { offset }
        }
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut clock = clock.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let millis = format!("{fraction:0<3}").get(..3)?.parse::<i64>().ok()?;
    let possible = (1..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    let possible = possible && (0..24).contains(&hour) && (0..60).contains(&minute) && (0..=60).contains(&second) && offset.abs() < 24 * 60;
    if !possible {
        return None;
    }
    // Days since the epoch in the proleptic Gregorian calendar, years beginning in March (H. Hinnant, "chrono-compatible
    // low-level date algorithms", days_from_civil).
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(Timestamp((((days * 24 + hour) * 60 + minute - offset) * 60 + second) * 1000 + millis))
}

/// Whether a managed-fields entry holds the routes, by themselves or in a spec that is owned as a whole.
fn owns_routes(entry: &Value) -> bool {
    let Some(spec) = entry.pointer("/fieldsV1/f:spec").and_then(Value::as_object) else { return false };
    text(entry, "/subresource").is_none() && (spec.is_empty() || spec.contains_key("f:http"))
}
