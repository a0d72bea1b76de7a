//! One line per finding, as compilers print and editors parse it.

use std::fmt::Write as _;

use crate::run::Report;

/// `path:line:column: error[SRN301]: title: what`
pub fn short(report: &Report) -> String {
    let mut out = String::new();
    for f in &report.findings {
        let p = super::place(report, f);
        let _ = write!(out, "{}:{}:{}: {}[{}]: {}", report.file(f.primary.loc).path, p.line, p.column, super::word(f), f.code, f.title);
        if !f.primary.text.is_empty() {
            let _ = write!(out, ": {}", f.primary.text);
        }
        out.push('\n');
    }
    out
}
