//! Columns as kubectl prints them: no lines, two spaces at least, upper-case heads.

use comfy_table::{ContentArrangement, Table, presets};
use serin_core::units::Timestamp;
use std::time::Duration;

/// Lays rows out under their heads.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heads.iter().map(ToString::to_string).collect::<Vec<_>>());
    for row in rows {
        table.add_row(row.clone());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// An age as kubectl writes it: `45s`, `3m12s`, `5h`, `12d`.
pub(crate) fn age(of: Duration) -> String {
    let s = of.as_secs();
    match s {
        0..120 => format!("{s}s"),
        120..600 if !s.is_multiple_of(60) => format!("{}m{}s", s / 60, s % 60),
        120..10_800 => format!("{}m", s / 60),
        10_800..172_800 => format!("{}h", s / 3600),
        _ => format!("{}d", s / 86_400),
    }
}

/// The age of something made at `since`.
pub(crate) fn age_since(since: Option<&jiff::Timestamp>, now: Timestamp) -> String {
    since.map_or_else(|| "<unknown>".to_string(), |t| age(now.since(Timestamp(t.as_millisecond()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_rows_end_without_spaces() {
        let text = table(&["NAME", "PHASE"], &[vec!["my-app".into(), "Idle".into()], vec!["a".into(), String::new()]]);
        assert_eq!(text, "NAME     PHASE\nmy-app   Idle\na\n");
    }

    #[test]
    fn ages_read_as_kubectls() {
        assert_eq!(
            [5, 119, 192, 600, 7200, 90_000, 400_000].map(|s| age(Duration::from_secs(s))),
            ["5s", "119s", "3m12s", "10m", "120m", "25h", "4d"]
        );
    }
}
