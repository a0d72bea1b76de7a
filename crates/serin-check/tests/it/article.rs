//! The article's own files: what is wrong with them, and nothing else; mended, silent.

use serin_check::{Certainty, Options, Report, Severity, fix};

use super::{check_files, inputs, lines};

const FILES: [(&str, &str); 4] = [
    ("my-app-destination-rule.yaml", include_str!("../../../../examples/article/my-app-destination-rule.yaml")),
    ("my-app-v1.yaml", include_str!("../../../../examples/article/my-app-v1.yaml")),
    ("my-app-v2.yaml", include_str!("../../../../examples/article/my-app-v2.yaml")),
    ("my-app-virtual-service.yaml", include_str!("../../../../examples/article/my-app-virtual-service.yaml")),
];

fn seen(report: &Report) -> Vec<(&'static str, &str, bool)> {
    report.findings.iter().map(|f| (f.code, report.file(f.primary.loc).path.as_str(), f.certainty == Certainty::Certain)).collect()
}

#[test]
fn what_is_wrong_with_the_article_is_found_and_nothing_else() {
    let report = check_files(&FILES, false);
    assert_eq!(
        seen(&report),
        [
            // One label on the namespace would settle both Deployments.
            ("SRN101", "my-app-v1.yaml", false),
            ("SRN106", "my-app-v1.yaml", true),
            ("SRN106", "my-app-v2.yaml", true),
            ("SRN301", "my-app-virtual-service.yaml", true),
            ("SRN302", "my-app-virtual-service.yaml", false),
        ],
        "{:#?}",
        lines(&report)
    );
    let tally = report.tally();
    assert_eq!((tally.errors, tally.warnings, tally.depends), (1, 2, 2));
}

#[test]
fn the_effect_is_told_in_numbers() {
    let report = check_files(&FILES, false);
    let bypass = report.findings.iter().find(|f| f.code == "SRN301").expect("the article's mistake");
    assert_eq!(bypass.severity, Severity::Error);
    let effect = bypass.effect.as_deref().unwrap_or("");
    assert!(effect.contains("25 % on v2 (1 of 4 pods) instead of 10 %"), "{effect}");
}

#[test]
fn if_nothing_else_exists_all_of_it_is_certain() {
    let report = check_files(&FILES, true);
    assert_eq!(report.findings.len(), 5);
    assert!(report.findings.iter().all(|f| f.certainty == Certainty::Certain));
}

#[test]
fn fix_adds_mesh_and_touches_nothing_else() {
    let fixed = fix::apply(&inputs(&FILES), &Options::default());
    assert_eq!(fixed.applied.len(), 1);
    let [(path, old, new)] = fixed.changed.as_slice() else { panic!("one file changes: {:?}", fixed.changed) };
    assert_eq!(path, "my-app-virtual-service.yaml");
    let added = "  - my-gateway\n  - mesh\n";
    assert_eq!(*new, old.replace("  - my-gateway\n", added));
}

#[test]
fn mended_it_is_silent() {
    let probe = "        readinessProbe: {tcpSocket: {port: 8080}}\n        ports:\n";
    let pods = "    metadata:\n      labels:\n        sidecar.istio.io/inject: \"true\"\n";
    let mend = |text: &str| {
        text.replace("        ports:\n", probe).replace("    metadata:\n      labels:\n", pods).replace("  gateways:\n  - my-gateway\n", "")
    };
    let files: Vec<(&str, String)> = FILES.iter().map(|(path, text)| (*path, mend(text))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let report = check_files(&files, true);
    assert_eq!(lines(&report), Vec::<String>::new());
}
