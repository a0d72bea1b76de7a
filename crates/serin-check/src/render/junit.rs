//! JUnit's XML, which most pipelines can show as a test report.

use std::fmt::Write as _;

use crate::diag::Certainty;
use crate::run::{Deny, Report};

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            // XML 1.0 has no way to say the other control characters.
            c if c.is_control() || c == '\u{fffe}' || c == '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// One suite per file, one case per finding: what makes the answer no fails, and nothing else, so that report and exit code say the
/// same; what depends on the cluster is skipped, the rest passes with its words. A file without findings is one case that passes.
pub fn junit(report: &Report, deny: Deny) -> String {
    let mut suites = String::new();
    let (mut n_tests, mut n_failures, mut n_skipped) = (0, 0, 0);
    for (n, file) in report.files.iter().enumerate() {
        let found: Vec<_> = report.findings.iter().filter(|f| f.primary.loc.file.0 as usize == n).collect();
        let path = escape(&file.path);
        let mut cases = String::new();
        let (mut failures, mut skipped) = (0, 0);
        if found.is_empty() {
            let _ = writeln!(cases, "    <testcase name=\"no findings\" classname=\"{path}\"/>");
        }
        for f in &found {
            let p = super::place(report, f);
            let _ = writeln!(
                cases,
                "    <testcase name=\"{} {}:{}\" classname=\"{path}\" file=\"{path}\" line=\"{}\">",
                f.code, p.line, p.column, p.line
            );
            let message = escape(&f.title);
            let text = escape(&super::sentence(f));
            if deny.fails(f) {
                failures += 1;
                let _ = writeln!(cases, "      <failure type=\"{}\" message=\"{message}\">{text}</failure>", f.severity.word());
            } else if matches!(f.certainty, Certainty::Depends(_)) {
                skipped += 1;
                let _ = writeln!(cases, "      <skipped message=\"{text}\"/>");
            } else {
                let _ = writeln!(cases, "      <system-out>{}: {text}</system-out>", f.severity.word());
            }
            cases.push_str("    </testcase>\n");
        }
        let tests = found.len().max(1);
        let _ = write!(
            suites,
            "  <testsuite name=\"{path}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\">\n{cases}  </testsuite>\n"
        );
        n_tests += tests;
        n_failures += failures;
        n_skipped += skipped;
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"serin check\" tests=\"{n_tests}\" failures=\"{n_failures}\" errors=\"0\" skipped=\"{n_skipped}\">\n{suites}</testsuites>\n"
    )
}
