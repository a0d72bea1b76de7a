//! Workflow commands that GitHub shows at the lines of a change.

use std::fmt::Write as _;

use crate::run::Report;

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// `::error file=…,line=…::…`; what depends on the cluster is a notice.
pub fn github(report: &Report) -> String {
    let mut out = String::new();
    for f in &report.findings {
        let p = super::place(report, f);
        let level = match super::word(f) {
            "error" => "error",
            "warning" => "warning",
            _ => "notice",
        };
        let _ = write!(out, "::{level} file={},line={},col={}", property(&report.file(f.primary.loc).path), p.line, p.column,);
        // GitHub wants both columns on one line.
        if p.end_line == p.line {
            let _ = write!(out, ",endLine={},endColumn={}", p.end_line, p.end_column);
        }
        let _ = writeln!(out, ",title={}::{}", property(&format!("{} {}", f.code, f.title)), data(&super::sentence(f)));
    }
    out
}
