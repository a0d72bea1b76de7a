//! The release object: every mistake at its place.

use super::{check_text, lines};
use serin_check::{Options, check};

#[test]
fn all_mistakes_of_a_release_are_told_at_once_and_in_place() {
    let text = "apiVersion: serin.dev/v1alpha1\nkind: CanaryRelease\nmetadata: {name: cart}\nspec:\n  servce: cart\n  notify: [{name: team}]\n  steps:\n  - {weight: 1, confirm: true, hold: 2}\n  - {weight: 0.5, hold: 5 m}\n  - {weight: 101}\n  analysis:\n    onInconclusive: hold\n    metrics:\n    - {name: a, errorRate: {margin: \"0.05%\"}}\n    - {name: a, errorRate: {}}\n";
    let report = check_text(text, false);
    let seen: Vec<(String, usize)> =
        report.findings.iter().map(|f| (f.code.to_owned(), report.file(f.primary.loc).line(f.primary.loc.span.start))).collect();
    let want = [
        ("SRN010", 5),
        ("SRN501", 6),
        ("SRN011", 8),
        ("SRN011", 9),
        ("SRN014", 9),
        ("SRN014", 10),
        ("SRN014", 12),
        ("SRN014", 15),
        ("SRN501", 15),
    ];
    assert_eq!(seen, want.map(|(c, l)| (c.to_owned(), l)), "{:#?}", lines(&report));
}

#[test]
fn a_known_rate_settles_whether_a_step_can_be_decided() {
    let text = "apiVersion: serin.dev/v1alpha1\nkind: CanaryRelease\nmetadata: {name: cart}\nspec:\n  service: cart\n  steps:\n  - {weight: 10, confirm: true, maxWait: 10m}\n";
    let run = |rate| {
        let options = Options { rate, ..Options::default() };
        check(super::inputs(&[("x.yaml", text)]), &options).findings.iter().map(|f| f.code).collect::<Vec<_>>()
    };
    assert_eq!(run(None), Vec::<&str>::new());
    assert_eq!(run(Some(1.0)), ["SRN503"]);
    assert_eq!(run(Some(500.0)), Vec::<&str>::new());
}
