//! SARIF 2.1.0 (OASIS), which code hosts show at the lines of a change.
//!
//! Own structs: the crate for it is many times larger than what one output needs.

use serde_json::{Value, json};

use crate::diag::{Certainty, Finding, Severity};
use crate::rules;
use crate::run::Report;
use crate::source::Loc;

/// The schema that the output names.
const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

fn uri(path: &str) -> String {
    let mut out = String::new();
    for byte in path.trim_matches(['<', '>']).replace('\\', "/").bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "note",
    }
}

fn region(report: &Report, loc: Loc) -> Value {
    let p = super::span_place(report, loc);
    json!({
        "startLine": p.line, "startColumn": p.column,
        "endLine": p.end_line, "endColumn": p.end_column,
    })
}

fn location(report: &Report, loc: Loc) -> Value {
    json!({
        "physicalLocation": {
            "artifactLocation": {"uri": uri(&report.file(loc).path)},
            "region": region(report, loc),
        }
    })
}

fn result(report: &Report, f: &Finding, rule_index: usize) -> Value {
    let level = match f.certainty {
        Certainty::Certain => level(f.severity),
        Certainty::Depends(_) => "note",
    };
    let mut out = json!({
        "ruleId": f.code,
        "ruleIndex": rule_index,
        "level": level,
        "message": {"text": super::sentence(f)},
        "locations": [location(report, f.primary.loc)],
        "partialFingerprints": {"serin/v1": super::fingerprint(report, f)},
        "properties": {
            "certainty": if matches!(f.certainty, Certainty::Certain) { "certain" } else { "depends" },
            "severity": f.severity.word(),
        },
    });
    if !f.related.is_empty() {
        let related = f.related.iter().enumerate().map(|(n, r)| {
            let mut at = location(report, r.loc);
            at["id"] = json!(n + 1);
            at["message"] = json!({"text": r.text});
            at
        });
        out["relatedLocations"] = related.collect();
    }
    if let Some(fix) = &f.fix {
        let mut changes: Vec<Value> = Vec::new();
        for edit in &fix.edits {
            let replacement = json!({
                "deletedRegion": region(report, edit.loc),
                "insertedContent": {"text": edit.text},
            });
            let here = uri(&report.file(edit.loc).path);
            let same = |c: &&mut Value| c["artifactLocation"]["uri"] == here.as_str();
            match changes.iter_mut().find(same) {
                Some(change) => {
                    if let Some(list) = change["replacements"].as_array_mut() {
                        list.push(replacement);
                    }
                }
                None => changes.push(json!({
                    "artifactLocation": {"uri": here},
                    "replacements": [replacement],
                })),
            }
        }
        out["fixes"] = json!([{
            "description": {"text": fix.title},
            "artifactChanges": changes,
        }]);
    }
    out
}

/// The report as SARIF.
pub fn sarif(report: &Report) -> String {
    let mut codes: Vec<&'static str> = report.findings.iter().map(|f| f.code).collect();
    codes.sort_unstable();
    codes.dedup();
    let rules: Vec<Value> = codes
        .iter()
        .filter_map(|c| rules::find(c))
        .map(|rule| {
            let page = rule.page();
            json!({
                "id": rule.code,
                "shortDescription": {"text": page.title},
                "help": {"text": page.text, "markdown": page.text},
                "defaultConfiguration": {"level": level(page.severity)},
            })
        })
        .collect();
    let results: Vec<Value> = report.findings.iter().map(|f| result(report, f, codes.binary_search(&f.code).unwrap_or(0))).collect();
    let out = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "serin check",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    let mut text = serde_json::to_string_pretty(&out).unwrap_or_default();
    text.push('\n');
    text
}
