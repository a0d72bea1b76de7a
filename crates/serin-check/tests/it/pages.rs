//! Each rule's page is its test: what its manifests mark is what is reported.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serin_check::{Options, Report, all, fix};

use super::{check_text, inputs};

type Places = BTreeSet<(String, usize)>;

/// `# <-- CODE` marks its own line, `# ^-- CODE` the one above.
fn marked(text: &str) -> Places {
    let mut found = Places::new();
    for (n, line) in text.lines().enumerate() {
        for (sign, back) in [("# <-- ", 0), ("# ^-- ", 1)] {
            if let Some((_, codes)) = line.split_once(sign) {
                for code in codes.split(',') {
                    found.insert((code.trim().to_owned(), n + 1 - back));
                }
            }
        }
    }
    found
}

fn reported(report: &Report) -> Places {
    report
        .findings
        .iter()
        .map(|f| {
            let line = report.file(f.primary.loc).line(f.primary.loc.span.start);
            (f.code.to_owned(), line)
        })
        .collect()
}

#[test]
fn what_a_page_marks_is_what_is_reported() {
    let mut problems = String::new();
    for rule in all() {
        for example in rule.page().examples() {
            let report = check_text(&example.yaml, example.complete);
            let (want, got) = (marked(&example.yaml), reported(&report));
            for (code, line) in want.difference(&got) {
                let _ = writeln!(
                    problems,
                    "{}.md:{}: {code} is marked and not reported ({})",
                    rule.code,
                    example.line + line - 1,
                    example.section
                );
            }
            for (code, line) in got.difference(&want) {
                let title = report.findings.iter().find(|f| f.code == code).map_or("", |f| f.primary.text.as_str());
                let _ = writeln!(
                    problems,
                    "{}.md:{}: {code} is reported and not marked ({}): {title}",
                    rule.code,
                    example.line + line - 1,
                    example.section
                );
            }
        }
    }
    assert!(problems.is_empty(), "\n{problems}");
}

#[test]
fn each_page_has_all_its_parts() {
    let mut problems = String::new();
    for rule in all() {
        let page = rule.page();
        let mut lack = |what: &str| {
            let _ = writeln!(problems, "{}.md: {what}", rule.code);
        };
        if page.code != rule.code {
            lack("another code in its title");
        }
        for section in ["What it finds", "Why it hurts", "Wrong", "Right", "Near miss"] {
            let head = format!("\n## {section}\n");
            let body = page.text.split_once(&head).map_or("", |(_, b)| b);
            let body = body.split("\n## ").next().unwrap_or("").trim();
            if body.is_empty() {
                lack(&format!("no section `{section}`"));
            }
        }
        let examples = page.examples();
        let of = |section: &str| examples.iter().filter(|e| e.section == section).map(|e| marked(&e.yaml)).collect::<Vec<_>>();
        if of("Wrong").is_empty() || of("Wrong").iter().any(Places::is_empty) {
            lack("each wrong example needs a mark");
        }
        for section in ["Right", "Near miss"] {
            if of(section).is_empty() || !of(section).iter().all(Places::is_empty) {
                lack(&format!("`{section}` needs an example without marks"));
            }
        }
    }
    assert!(problems.is_empty(), "\n{problems}");
}

#[test]
fn a_rule_that_says_it_can_fix_does_and_a_second_run_changes_nothing() {
    let mut problems = String::new();
    for rule in all() {
        let mut mended = 0;
        for example in rule.page().examples() {
            let options = Options { complete: example.complete, ..Options::default() };
            let fixed = fix::apply(&inputs(&[("x.yaml", &example.yaml)]), &options);
            mended += fixed.applied.iter().filter(|a| a.code == rule.code).count();
            let again = fix::apply(&fixed.inputs, &options);
            if !again.changed.is_empty() {
                let _ = writeln!(problems, "{}: a second run changes more", rule.code);
            }
        }
        if rule.page().fixable != (mended > 0) {
            let _ = writeln!(problems, "{}: the page says fix: {}, and {mended} were made", rule.code, rule.page().fixable);
        }
    }
    assert!(problems.is_empty(), "\n{problems}");
}
