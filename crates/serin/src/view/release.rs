//! Releases as a list.

use kube::ResourceExt;
use serin_api::CanaryRelease;
use serin_core::units::Timestamp;

use super::table::{age_since, table};

/// What the list shows of each namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Columns {
    /// Of one namespace.
    Plain,
    /// Of one namespace, with more columns.
    Wide,
    /// Of all namespaces.
    AllNamespaces,
    /// Of all namespaces, with more columns.
    AllWide,
}

impl Columns {
    /// By the flags `-A` and `-o wide`.
    pub(crate) fn of(all: bool, wide: bool) -> Self {
        match (all, wide) {
            (false, false) => Self::Plain,
            (false, true) => Self::Wide,
            (true, false) => Self::AllNamespaces,
            (true, true) => Self::AllWide,
        }
    }

    fn all(self) -> bool {
        matches!(self, Self::AllNamespaces | Self::AllWide)
    }

    fn wide(self) -> bool {
        matches!(self, Self::Wide | Self::AllWide)
    }
}

/// The list with its heads.
pub(crate) fn list(releases: &[CanaryRelease], columns: Columns, now: Timestamp) -> String {
    let mut heads = vec!["NAME", "SERVICE", "STABLE", "CANARY", "WEIGHT", "PHASE", "MESSAGE", "AGE"];
    if columns.wide() {
        heads.extend(["SEEN", "STEP"]);
    }
    if columns.all() {
        heads.insert(0, "NAMESPACE");
    }
    let rows: Vec<Vec<String>> = releases.iter().map(|r| row(r, columns, now)).collect();
    table(&heads, &rows)
}

fn row(release: &CanaryRelease, columns: Columns, now: Timestamp) -> Vec<String> {
    let status = release.status.clone().unwrap_or_default();
    let made = release.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let dash = |text: Option<String>| text.filter(|t| !t.is_empty()).unwrap_or_else(|| "-".to_string());
    let mut row = vec![
        release.name_any(),
        release.spec.service.clone(),
        dash(status.stable.map(|v| v.version)),
        dash(status.canary.map(|v| v.version)),
        dash(status.weight.as_ref().map(|w| w.set.clone())),
        dash(status.phase),
        status.message.unwrap_or_else(|| "not seen by a controller yet".to_string()),
        age_since(made.as_ref(), now),
    ];
    if columns.wide() {
        row.push(dash(status.weight.and_then(|w| w.seen)));
        row.push(dash(status.rollout.map(|r| format!("{}/{}", r.step, r.steps))));
    }
    if columns.all() {
        row.insert(0, release.namespace().unwrap_or_default());
    }
    row
}
