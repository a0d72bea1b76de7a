//! The forms a report is printed in. `UPDATE=1 cargo test -p serin-check outputs` writes the
//! expected texts in `tests/outputs/` anew.

use serin_check::{Deny, Report, render};

use super::check_files;

/// Findings of every kind: certain and depending, in two files, with a fix, with odd names.
fn report() -> Report {
    let vs = include_str!("../../../../examples/article/my-app-virtual-service.yaml");
    let v1 = include_str!("../../../../examples/article/my-app-v1.yaml");
    let v2 = include_str!("../../../../examples/article/my-app-v2.yaml").replace("replicas: 1", "replicas: 0");
    let rule = include_str!("../../../../examples/article/my-app-destination-rule.yaml");
    let odd = "apiVersion: v1\r\nkind: Service\r\nmetadata:\r\n  name: \"caf\u{e9} <&>\"\r\n  labels: {a: 1}\r\n";
    check_files(
        &[
            ("deploy/v1.yaml", v1),
            ("deploy/v2.yaml", &v2),
            ("deploy/rule.yaml", rule),
            ("deploy/routes.yaml", vs),
            ("odd, name%.yaml", odd),
        ],
        false,
    )
}

fn compare(name: &str, text: &str) {
    let path = format!("{}/tests/outputs/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, text).expect("write the file");
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(want == text, "{name} differs: run UPDATE=1 cargo test -p serin-check outputs and look at the change\n{text}");
}

#[test]
fn people_read_this() {
    compare("human.txt", &render::human(&report(), render::Style::default()));
    let ascii = render::Style { unicode: false, ..render::Style::default() };
    compare("human-ascii.txt", &render::human(&report(), ascii));
}

#[test]
fn colour_changes_no_word() {
    let plain = render::human(&report(), render::Style::default());
    let styled = render::human(&report(), render::Style { color: true, ..render::Style::default() });
    let mut bare = String::new();
    let mut chars = styled.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            for c in chars.by_ref() {
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        } else {
            bare.push(c);
        }
    }
    assert_eq!(bare, plain);
    assert_ne!(styled, plain);
}

#[test]
fn programs_read_these() {
    compare("report.json", &render::json(&report()));
    compare("report.sarif", &render::sarif(&report()));
    compare("github.txt", &render::github(&report()));
    compare("junit.xml", &render::junit(&report(), Deny::default()));
    compare("short.txt", &render::short(&report()));
}

#[test]
fn a_clean_report_is_said_to_be_clean() {
    let report = check_files(&[("x.yaml", "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n")], false);
    assert_eq!(render::human(&report, render::Style::default()), "1 file, 1 object: no findings\n");
    assert_eq!(render::short(&report), "");
    assert!(render::junit(&report, Deny::default()).contains("failures=\"0\""));
}

#[test]
fn a_case_of_junit_fails_where_the_exit_code_says_so() {
    let report = report();
    for deny in [
        Deny::default(),
        Deny { warnings: true, depends: false },
        Deny { warnings: false, depends: true },
        Deny { warnings: true, depends: true },
    ] {
        let failures = report.findings.iter().filter(|f| deny.fails(f)).count();
        let xml = render::junit(&report, deny);
        assert!(xml.contains(&format!("failures=\"{failures}\"")) && xml.matches("<failure ").count() == failures, "{deny:?}\n{xml}");
        assert_eq!(report.fails(deny), failures > 0);
    }
}

#[test]
fn fingerprints_stay_when_lines_move() {
    let text = include_str!("../../../../examples/article/my-app-virtual-service.yaml");
    let moved = format!("# a comment\n\n{text}");
    let of = |t: &str| {
        let report = check_files(&[("x.yaml", t)], false);
        report.findings.iter().map(|f| render::fingerprint(&report, f)).collect::<Vec<_>>()
    };
    assert_eq!(of(text), of(&moved));
    let prints = of(text);
    let unique: std::collections::BTreeSet<_> = prints.iter().collect();
    assert_eq!(unique.len(), prints.len());
}
