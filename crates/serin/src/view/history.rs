//! The last rollouts of a release.

use serin_api::CanaryRelease;
use serin_api::status::{CountsStatus, HandledStatus, PastStatus};
use serin_core::reason::count;

use super::table::table;

fn served(counts: &CountsStatus) -> String {
    format!("{} ({} failed)", count(counts.requests as f64), count(counts.bad as f64))
}

/// As text: newest first, as a person looks for the last one.
pub(crate) fn text(release: &CanaryRelease) -> String {
    let status = release.status.clone().unwrap_or_default();
    let row = |p: &PastStatus| {
        vec![
            p.started.split('.').next().unwrap_or(&p.started).trim_end_matches('Z').replace('T', " "),
            format!("{} → {}", p.stable, p.canary),
            p.outcome.clone(),
            p.highest.clone(),
            p.took.clone(),
            served(&p.served.canary),
            served(&p.served.stable),
            p.why.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = status.history.iter().rev().map(row).collect();
    let mut text = if rows.is_empty() {
        "no rollout has ended yet\n".to_string()
    } else {
        table(&["STARTED (UTC)", "VERSIONS", "OUTCOME", "HIGHEST", "TOOK", "CANARY SERVED", "STABLE SERVED", "WHY"], &rows)
    };
    if !status.handled.is_empty() {
        let row = |h: &HandledStatus| {
            vec![
                h.at.split('.').next().unwrap_or(&h.at).trim_end_matches('Z').replace('T', " "),
                h.action.clone(),
                h.who.clone(),
                h.refused.as_ref().map_or_else(|| "done".to_string(), |why| format!("refused: {why}")),
            ]
        };
        let rows: Vec<Vec<String>> = status.handled.iter().rev().map(row).collect();
        text += &format!("\n{}", table(&["AT (UTC)", "REQUEST", "BY", "RESULT"], &rows));
    }
    text
}
