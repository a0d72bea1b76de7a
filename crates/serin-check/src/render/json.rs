//! The report as JSON, for programs. Fields are only ever added; `version` rises when the
//! meaning of one changes.

use serde::Serialize;

use crate::diag::{Certainty, Finding};
use crate::rules;
use crate::run::Report;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Out<'r> {
    version: u32,
    summary: Summary,
    findings: Vec<Item<'r>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    files: usize,
    objects: usize,
    others: usize,
    silenced: usize,
    errors: usize,
    warnings: usize,
    infos: usize,
    depends: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'r> {
    code: &'r str,
    severity: &'r str,
    certainty: &'static str,
    title: &'r str,
    message: &'r str,
    #[serde(flatten)]
    place: Spot<'r>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<Object<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unless: Option<&'r str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    related: Vec<Related<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<Fix<'r>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    istioctl: &'r [&'static str],
    fingerprint: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spot<'r> {
    file: &'r str,
    line: usize,
    column: usize,
    end_line: usize,
    end_column: usize,
}

#[derive(Serialize)]
struct Object<'r> {
    kind: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'r str>,
    name: &'r str,
}

#[derive(Serialize)]
struct Related<'r> {
    message: &'r str,
    #[serde(flatten)]
    place: Spot<'r>,
}

#[derive(Serialize)]
struct Fix<'r> {
    title: &'r str,
    edits: Vec<EditOut<'r>>,
}

#[derive(Serialize)]
struct EditOut<'r> {
    #[serde(flatten)]
    place: Spot<'r>,
    text: &'r str,
}

fn spot(report: &Report, loc: crate::source::Loc) -> Spot<'_> {
    let p = super::span_place(report, loc);
    Spot { file: &report.file(loc).path, line: p.line, column: p.column, end_line: p.end_line, end_column: p.end_column }
}

fn item<'r>(report: &'r Report, f: &'r Finding) -> Item<'r> {
    Item {
        code: f.code,
        severity: f.severity.word(),
        certainty: match f.certainty {
            Certainty::Certain => "certain",
            Certainty::Depends(_) => "depends",
        },
        title: &f.title,
        message: &f.primary.text,
        place: spot(report, f.primary.loc),
        object: f.object.as_ref().map(|o| Object { kind: &o.kind, namespace: o.namespace.as_deref(), name: &o.name }),
        effect: f.effect.as_deref(),
        help: f.help.as_deref(),
        unless: match &f.certainty {
            Certainty::Certain => None,
            Certainty::Depends(text) => Some(text),
        },
        related: f.related.iter().map(|r| Related { message: &r.text, place: spot(report, r.loc) }).collect(),
        fix: f.fix.as_ref().map(|x| Fix {
            title: &x.title,
            edits: x.edits.iter().map(|e| EditOut { place: spot(report, e.loc), text: &e.text }).collect(),
        }),
        istioctl: rules::find(f.code).map_or(&[], |r| r.page().istio.as_slice()),
        fingerprint: super::fingerprint(report, f),
    }
}

/// The report as pretty-printed JSON.
pub fn json(report: &Report) -> String {
    let tally = report.tally();
    let out = Out {
        version: 1,
        summary: Summary {
            files: report.stats.files,
            objects: report.stats.objects,
            others: report.stats.others,
            silenced: report.stats.silenced,
            errors: tally.errors,
            warnings: tally.warnings,
            infos: tally.infos,
            depends: tally.depends,
        },
        findings: report.findings.iter().map(|f| item(report, f)).collect(),
    };
    // Strings and numbers only: it cannot fail.
    let mut text = serde_json::to_string_pretty(&out).unwrap_or_default();
    text.push('\n');
    text
}
