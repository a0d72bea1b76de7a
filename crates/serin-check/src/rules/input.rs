//! Rules on the text itself: what is no YAML, what is a template, what stands twice.

use std::collections::{HashMap, HashSet};

use super::{Cx, Out};
use crate::diag::{Finding, fix, insert_line_before, remove_field};
use crate::object::{glued, objects_in};
use crate::source::{Loc, Span};
use crate::yaml::{Parsed, ProblemKind, View};

fn at(file: &Parsed, span: Span) -> Loc {
    Loc { file: file.id, span }
}

fn problems<'a>(cx: &Cx<'a>, kind: ProblemKind) -> impl Iterator<Item = (&'a Parsed, &'a crate::yaml::ParseProblem)> {
    cx.files.iter().filter_map(move |f| Some((*f, f.problem.as_ref().filter(|p| p.kind == kind)?)))
}

/// SRN001
pub(super) fn not_yaml(cx: &Cx<'_>, out: &mut Out) {
    for (file, problem) in problems(cx, ProblemKind::Syntax) {
        let help = if problem.message.contains("tab") || file.source.text.contains("\n\t") {
            "indent with spaces: YAML allows no tabs"
        } else {
            "nothing of this file was checked; what it defines counts as unknown"
        };
        out.add(Finding::at(at(file, problem.span), problem.message.clone()).help(help));
    }
}

/// SRN002: one finding per chart, not one per template.
pub(super) fn template(cx: &Cx<'_>, out: &mut Out) {
    let mut charts: Vec<(String, &Parsed, Span, usize)> = Vec::new();
    for (file, problem) in problems(cx, ProblemKind::Template) {
        let path = &file.source.path;
        let chart =
            path.rfind("/templates/").map(|n| path[..n].to_owned()).or_else(|| path.starts_with("templates/").then(|| ".".to_owned()));
        let key = chart.unwrap_or_else(|| path.clone());
        match charts.iter_mut().find(|(k, ..)| *k == key) {
            Some((.., n)) => *n += 1,
            None => charts.push((key, file, problem.span, 1)),
        }
    }
    for (key, file, span, n) in charts {
        let finding = Finding::at(at(file, span), "braces of a template");
        out.add(if key == file.source.path {
            finding.help("render it first, then: … | serin check -")
        } else {
            let more = if n > 1 { format!(" ({n} templates of this chart)") } else { String::new() };
            finding.help(format!("helm template {key} | serin check -{more}"))
        });
    }
}

/// SRN003
pub(super) fn duplicate_key(cx: &Cx<'_>, out: &mut Out) {
    for file in cx.files.iter().filter(|f| !f.tree.duplicates.is_empty()) {
        let mut told: Vec<Span> = Vec::new();
        for doc in file.docs() {
            let starts = glued(doc);
            if starts.is_empty() {
                continue;
            }
            told.extend(doc.fields().map(|f| f.key_loc.span));
            for loc in starts {
                out.add(
                    Finding::at(loc, "another object begins here, and no `---` stands before it")
                        .title("two objects run into one another")
                        .effect("kubectl reads one object with the fields of both, and refuses it or drops one of them")
                        .help("put a line `---` between them (files joined with cat need it too)")
                        .fix(fix("put `---` between them", [insert_line_before(doc, loc, "---")])),
                );
            }
        }
        // Other people's YAML is left alone.
        let objects: Vec<Span> =
            file.docs().filter(|d| d.get("apiVersion").is_some() && d.get("kind").is_some()).map(|d| d.loc().span).collect();
        let ours = |at: &Span| objects.iter().any(|o| o.contains(*at)) && !told.contains(at);
        for (first, second) in file.tree.duplicates.iter().filter(|(_, second)| ours(second)) {
            let key = &file.source.text[second.range()];
            out.add(
                Finding::at(at(file, *second), format!("`{key}` stands here again"))
                    .related(at(file, *first), "first here: this value is dropped")
                    .help("keep one of them"),
            );
        }
    }
}

/// SRN004
pub(super) fn hostile(cx: &Cx<'_>, out: &mut Out) {
    for (file, problem) in problems(cx, ProblemKind::Hostile) {
        out.add(Finding::at(at(file, problem.span), problem.message.clone()).help("nothing of this file was checked"));
    }
}

/// SRN005: within one file; the same object in several files are alternatives.
pub(super) fn same_object_twice(cx: &Cx<'_>, out: &mut Out) {
    for file in cx.files {
        let mut objects = Vec::new();
        for doc in file.docs() {
            objects_in(doc, &mut objects);
        }
        let mut seen: HashMap<(&str, &str, Option<&str>, &str), View<'_>> = HashMap::new();
        let mut told = HashSet::new();
        for view in objects {
            let meta = view.get("metadata");
            let text = |k| meta.and_then(|m| m.get(k)).and_then(View::scalar);
            let Some(name) = text("name") else { continue };
            let api = view.str_at("apiVersion").unwrap_or("");
            let group = api.split_once('/').map_or("", |(g, _)| g);
            let kind = view.str_at("kind").unwrap_or("");
            let key = (group, kind, text("namespace"), name);
            let Some(first) = seen.insert(key, view) else {
                continue;
            };
            if !told.insert(key) {
                continue;
            }
            let name_loc = |v: View<'_>| v.at(&["metadata", "name"]).map_or_else(|| v.loc(), View::loc);
            out.add(
                Finding::at(name_loc(view), format!("{kind} {name} again"))
                    .related(name_loc(first), "first here")
                    .effect("kubectl applies both, one after the other: the first is overwritten")
                    .help("rename one, or remove one"),
            );
        }
    }
}

/// SRN007 and SRN008 are found by the runner, which knows what a comment silenced.
pub(super) fn by_the_runner(_: &Cx<'_>, _: &mut Out) {}

/// Used by other rules' fixes.
pub(super) fn remove<'a>(map: View<'a>, key: &str, title: &str) -> Option<crate::diag::Fix> {
    crate::diag::fix(title, [remove_field(map, key)])
}
