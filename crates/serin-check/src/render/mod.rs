//! A report as text, in the forms people and machines read. Every function returns a string
//! that ends with a newline unless it is empty; printing it is the caller's.

mod github;
mod human;
mod json;
mod junit;
mod sarif;
mod short;

pub use github::github;
pub use human::{Style, human, summary};
pub use json::json;
pub use junit::junit;
pub use sarif::sarif;
pub use short::short;

use crate::diag::{Certainty, Finding};
use crate::run::Report;

/// Line and column of both ends of a finding, from 1; the end is exclusive.
struct Place {
    line: usize,
    column: usize,
    end_line: usize,
    end_column: usize,
}

fn place(report: &Report, finding: &Finding) -> Place {
    span_place(report, finding.primary.loc)
}

fn span_place(report: &Report, loc: crate::source::Loc) -> Place {
    let file = report.file(loc);
    let (line, column) = file.line_col(loc.span.start);
    let (end_line, end_column) = file.line_col(loc.span.end.max(loc.span.start));
    Place { line, column, end_line, end_column }
}

/// `error`, `warning`, `info`, or `depends`.
fn word(finding: &Finding) -> &'static str {
    match finding.certainty {
        Certainty::Certain => finding.severity.word(),
        Certainty::Depends(_) => "depends",
    }
}

/// Everything a finding says, in one paragraph.
fn sentence(finding: &Finding) -> String {
    let mut text = finding.title.clone();
    if !finding.primary.text.is_empty() {
        text = format!("{text}: {}", finding.primary.text);
    }
    if let Some(effect) = &finding.effect {
        text = format!("{text}. Effect: {effect}");
    }
    if let Certainty::Depends(unless) = &finding.certainty {
        text = format!("{text}. Depends: {unless}");
    }
    if let Some(help) = &finding.help {
        text = format!("{text}. Help: {help}");
    }
    text
}

/// A number that stays the same while lines move: of the code, the file, the object and the
/// text of the line (FNV-1a, 64 bits).
pub fn fingerprint(report: &Report, finding: &Finding) -> String {
    let file = report.file(finding.primary.loc);
    let line = file.line(finding.primary.loc.span.start);
    let object = finding.object.as_ref();
    let parts = [
        finding.code,
        &file.path,
        object.map_or("", |o| o.kind.as_str()),
        object.map_or("", |o| o.name.as_str()),
        file.line_text(line).trim(),
        &finding.title,
    ];
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in parts.join("\u{0}").bytes() {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}
