//! Correct manifests as they stand in real repositories raise nothing.

use serin_check::{Certainty, Severity, sources};
use std::path::{Path, PathBuf};

use super::{Options, check, lines};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/good")
}

#[test]
fn each_good_file_alone_raises_nothing() {
    let mut n = 0;
    for entry in std::fs::read_dir(folder()).expect("the folder") {
        let path = entry.expect("an entry").path();
        let gathered = sources::gather(&[path], &[]);
        let report = check(gathered.inputs, &Options::default());
        assert_eq!(lines(&report), Vec::<String>::new());
        n += 1;
    }
    assert!(n >= 30, "only {n} files");
}

#[test]
fn all_together_nothing_is_certain() {
    let gathered = sources::gather(&[folder()], &[]);
    let report = check(gathered.inputs, &Options::default());
    let certain: Vec<_> = report.findings.iter().filter(|f| f.certainty == Certainty::Certain).collect();
    assert!(certain.is_empty(), "{:#?}", lines(&report));
}

#[test]
fn examples_of_pages_that_are_right_stay_right_in_json() {
    for rule in serin_check::all() {
        for example in rule.page().examples().iter().filter(|e| e.section != "Wrong") {
            // What JSON cannot say (anchors, comments, several documents) is left out.
            if example.yaml.contains("&") || example.yaml.contains("# ") || example.yaml.contains("---") || rule.code < "SRN010" {
                continue;
            }
            let json: serde_json::Value = match serde_saphyr::from_str(&example.yaml) {
                Ok(json) => json,
                Err(e) => panic!("{}: {e}", rule.code),
            };
            let text = serde_json::to_string_pretty(&json).expect("it is JSON");
            let report = super::check_files(&[("x.json", &text)], example.complete);
            let bad = report.findings.iter().any(|f| f.severity > Severity::Info && f.certainty == Certainty::Certain);
            assert!(!bad, "{}: {:#?}", rule.code, lines(&report));
        }
    }
}
