//! What people ask for, as annotations on a CanaryRelease.
//!
//! `serin.dev/request` holds one JSON object; `serin.dev/abort` holds the same, or any text, which then is the reason:
//! `kubectl annotate canaryrelease my-app serin.dev/abort="errors on checkout"` must work at 3 a.m.
//! Deliberately nothing is refused here for its age or its rollout: deciding that needs a state.

use serde::{Deserialize, Serialize};
use serin_core::observe::{Request, RequestAction};
use serin_core::units::{Timestamp, Weight};

/// The annotation's fields. All but `action` may be absent, so that a person can write one by hand.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    action: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    rollout: String,
    /// Counted from 1, as the status shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    step: Option<usize>,
    /// Of `setWeight`: as `30%`, or 30.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "int_or_string")]
    weight: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    who: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    why: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    time: String,
}

/// A weight is a whole number or text wherever people write one.
fn int_or_string<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    match serde_json::Value::deserialize(from)? {
        serde_json::Value::String(text) => Ok(Some(text)),
        serde_json::Value::Number(number) => Ok(Some(number.to_string())),
        other => Err(serde::de::Error::custom(format!("weight {other}: write 30 or \"0.5%\""))),
    }
}

/// Words of the actions, as annotations and people write them.
const ACTIONS: [(&str, RequestAction); 9] = [
    ("promote", RequestAction::Promote),
    ("promoteFull", RequestAction::PromoteFull),
    ("pause", RequestAction::Pause),
    ("resume", RequestAction::Resume),
    ("retry", RequestAction::Retry),
    ("rollback", RequestAction::Rollback),
    ("rollbackNow", RequestAction::RollbackNow),
    ("abort", RequestAction::Abort),
    ("abortForced", RequestAction::AbortForced),
];

/// A reason longer than this is cut.
const LONGEST: usize = 200;

/// The one action that takes a weight.
const SET_WEIGHT: &str = "setWeight";

/// Promote's other name, for whoever means one step and no other: the request has to say which.
const SKIP: &str = "skip";

/// The word for an action.
pub fn action_word(action: RequestAction) -> &'static str {
    if let RequestAction::SetWeight(_) = action {
        return SET_WEIGHT;
    }
    ACTIONS.iter().find(|(_, a)| *a == action).map_or("unknown", |(word, _)| word)
}

/// The annotation's text for a request.
pub fn request_annotation(request: &Request) -> String {
    let wire = Wire {
        action: action_word(request.action).to_string(),
        id: request.id.clone(),
        rollout: request.rollout.clone(),
        step: request.step.map(|s| s + 1),
        weight: if let RequestAction::SetWeight(share) = request.action { Some(share.to_string()) } else { None },
        who: request.who.clone(),
        why: request.why.clone(),
        time: crate::render::time(request.at),
    };
    serde_json::to_string(&wire).unwrap_or_default()
}

/// Reads the `serin.dev/request` annotation. Without an id, the text itself is the id: the same text is the same
/// request. Without a time, it was asked at `now`.
///
/// # Errors
/// A fragment that says what is wrong with the text.
pub fn request_of(text: &str, now: Timestamp) -> Result<Request, String> {
    let wire: Wire = serde_json::from_str(text).map_err(|e| {
        format!("annotation {} is not read ({e}): write {{\"action\": \"pause\"}}, or use: serin pause NAME", crate::names::REQUEST)
    })?;
    let known = ACTIONS.iter().find(|(word, _)| *word == wire.action).map(|(_, a)| *a);
    let action = match (known, wire.action.as_str(), &wire.weight) {
        (Some(_), word, Some(_)) => return Err(format!("request {word:?} takes no weight; {SET_WEIGHT} does")),
        (Some(action), _, None) => action,
        (None, SET_WEIGHT, Some(weight)) => RequestAction::SetWeight(Weight::parse(weight)?),
        (None, SET_WEIGHT, None) => {
            return Err(format!("request {SET_WEIGHT:?} needs a weight: {{\"action\": {SET_WEIGHT:?}, \"weight\": \"30%\"}}"));
        }
        // Asked twice it must not leave two steps.
        (None, SKIP, None) if wire.step.is_none() => {
            return Err(format!("request {SKIP:?} needs the step that it leaves: {{\"action\": {SKIP:?}, \"step\": 2}}"));
        }
        (None, SKIP, None) => RequestAction::Promote,
        (None, other, _) => {
            let words: Vec<&str> =
                ACTIONS.iter().map(|(word, _)| *word).chain([SET_WEIGHT, SKIP]).filter(|w| !w.starts_with("abort")).collect();
            return Err(format!("request {other:?} is unknown: {}", words.join(", ")));
        }
    };
    read(wire, action, text, now)
}

/// Reads the `serin.dev/abort` annotation: the JSON of a request, or plain text, which then is the reason.
/// Never refuses: an abort that cannot be read in full is still an abort.
pub fn abort_of(text: &str, now: Timestamp) -> Request {
    let plain = || Request {
        id: id_of(text),
        action: RequestAction::Abort,
        rollout: String::new(),
        step: None,
        who: named(String::new()),
        why: if text.trim_start().starts_with('{') { String::new() } else { plain_text(text) },
        at: now,
    };
    let Ok(wire) = serde_json::from_str::<Wire>(text) else { return plain() };
    let action = if wire.action == "abortForced" { RequestAction::AbortForced } else { RequestAction::Abort };
    read(wire, action, text, now).unwrap_or_else(|_| plain())
}

fn read(wire: Wire, action: RequestAction, text: &str, now: Timestamp) -> Result<Request, String> {
    let at =
        if wire.time.is_empty() { now } else { parse_time(&wire.time).ok_or_else(|| format!("time {:?} is not RFC 3339", wire.time))? };
    let step = match wire.step {
        Some(0) => return Err("step 0: steps are counted from 1".to_string()),
        step => step.map(|s| s - 1),
    };
    let id = if wire.id.is_empty() { id_of(text) } else { wire.id };
    Ok(Request { id, action, rollout: wire.rollout, step, who: named(plain_text(&wire.who)), why: plain_text(&wire.why), at })
}

/// What may stand in a sentence, on a terminal: a line of it, and no control characters.
fn plain_text(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect()
}

/// Whoever writes the annotation by hand need not give a name; sentences and the status need one, as some API servers take an empty string
/// for none at all.
fn named(who: String) -> String {
    if who.trim().is_empty() { "somebody".to_string() } else { who }
}

/// An RFC 3339 time.
pub(crate) fn parse_time(text: &str) -> Option<Timestamp> {
    text.parse::<jiff::Timestamp>().ok().map(|t| Timestamp(t.as_millisecond()))
}

/// FNV-1a of the text, which only has to tell different texts apart.
fn id_of(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("text-{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_a_name_is_somebodys() {
        let read = request_of(r#"{"action": "pause", "who": " "}"#, Timestamp(0)).expect("a request");
        assert_eq!((read.who.as_str(), abort_of("bad", Timestamp(0)).who.as_str()), ("somebody", "somebody"));
    }

    const NOW: Timestamp = Timestamp(1_700_000_000_123);

    #[test]
    fn requests_read_as_they_are_written() {
        for action in ACTIONS
            .iter()
            .map(|(_, a)| *a)
            .chain(["0", "30", "0.5%"].map(|w| RequestAction::SetWeight(Weight::parse(w).expect("a weight"))))
        {
            let request = Request {
                id: "a1".into(),
                action,
                rollout: "r-3".into(),
                step: Some(1),
                who: "me@desk".into(),
                why: "because \"so\"".into(),
                at: Timestamp(1_699_999_999_001),
            };
            let text = request_annotation(&request);
            assert_eq!(request_of(&text, NOW), Ok(request), "{text}");
        }
    }

    #[test]
    fn a_hand_written_request_needs_only_its_action() {
        let request = request_of(r#"{"action":"pause"}"#, NOW).expect("reads");
        assert_eq!((request.action, request.at, request.step), (RequestAction::Pause, NOW, None));
        assert!(!request.id.is_empty());
    }

    #[test]
    fn a_weight_is_a_number_or_text() {
        for text in [r#"{"action":"setWeight","weight":30}"#, r#"{"action":"setWeight","weight":"30%"}"#] {
            let wanted = RequestAction::SetWeight(Weight::parse("30").expect("a weight"));
            assert_eq!(request_of(text, NOW).expect("reads").action, wanted, "{text}");
        }
        assert!(request_of(r#"{"action":"setWeight","weight":true}"#, NOW).is_err_and(|e| e.contains("write 30 or")));
    }

    #[test]
    fn to_skip_is_to_promote_one_step_that_is_named() {
        let request = request_of(r#"{"action":"skip","step":2}"#, NOW).expect("reads");
        assert_eq!((request.action, request.step), (RequestAction::Promote, Some(1)));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_what_to_write() {
        for text in [
            "pause",
            "{}",
            r#"{"action":"fly"}"#,
            r#"{"action":"pause","tiem":""}"#,
            r#"{"action":"skip"}"#,
            r#"{"action":"skip","step":1,"weight":"10"}"#,
            r#"{"action":"pause","time":"noon"}"#,
            r#"{"action":"pause","step":0}"#,
            r#"{"action":"setWeight"}"#,
            r#"{"action":"setWeight","weight":"150"}"#,
            r#"{"action":"pause","weight":"10"}"#,
        ] {
            assert!(request_of(text, NOW).is_err(), "{text}");
        }
    }

    #[test]
    fn any_text_aborts() {
        let plain = abort_of("errors on checkout", NOW);
        assert_eq!((plain.action, plain.why.as_str()), (RequestAction::Abort, "errors on checkout"));
        for text in ["", "{", r#"{"action":"abort","time":"noon"}"#, r#"{"action":"fly"}"#] {
            assert_eq!(abort_of(text, NOW).action, RequestAction::Abort, "{text}");
        }
        assert_eq!(abort_of(r#"{"action":"abortForced"}"#, NOW).action, RequestAction::AbortForced);
    }
}
