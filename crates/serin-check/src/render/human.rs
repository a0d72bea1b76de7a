//! The report for people: the source line, the span underlined, causes elsewhere, the effect,
//! what to change and what to type.

use std::fmt::Write as _;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Element, Group, Level, Renderer, Snippet};

use crate::diag::{Certainty, Finding, Label, Severity};
use crate::run::Report;
use crate::source::{FileId, SourceFile};

/// How it is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// With colours; meaning never hangs on them.
    pub color: bool,
    /// With Unicode line art.
    pub unicode: bool,
    /// Columns of the terminal.
    pub width: usize,
}

impl Default for Style {
    fn default() -> Style {
        Style { color: false, unicode: true, width: 80 }
    }
}

/// All findings and the summary.
pub fn human(report: &Report, style: Style) -> String {
    let mut renderer = if style.color { Renderer::styled() } else { Renderer::plain() };
    renderer = renderer.term_width(style.width.max(40)).decor_style(if style.unicode { DecorStyle::Unicode } else { DecorStyle::Ascii });
    let mut out = String::new();
    for f in &report.findings {
        out.push_str(&renderer.render(&[group(report, f, style)]));
        out.push_str("\n\n");
    }
    out.push_str(&summary(report));
    out.push('\n');
    out
}

fn group<'r>(report: &'r Report, f: &'r Finding, style: Style) -> Group<'r> {
    let level = match (&f.certainty, f.severity) {
        (Certainty::Depends(_), _) => Level::INFO.with_name(Some("depends")),
        (Certainty::Certain, Severity::Error) => Level::ERROR,
        (Certainty::Certain, Severity::Warning) => Level::WARNING,
        (Certainty::Certain, Severity::Info) => Level::INFO,
    };
    let mut elements: Vec<Element<'r>> = Vec::new();
    for (file, labels) in by_file(f) {
        elements.push(snippet(&report.files[file.0 as usize], &labels).into());
    }
    let width = style.width.clamp(60, 100).saturating_sub(16);
    let mut say = |name: &'static str, text: &str| {
        elements.push(Level::NOTE.with_name(Some(name)).message(wrap(text, width)).into());
    };
    if let Some(effect) = &f.effect {
        say("effect", effect);
    }
    if let Certainty::Depends(unless) = &f.certainty {
        say("depends", &format!("{unless}; --live or --complete settles it"));
    }
    if let Some(help) = &f.help {
        say("help", help);
    }
    let path = &report.file(f.primary.loc).path;
    let mut run = String::new();
    if f.fix.is_some() && f.certainty == Certainty::Certain && !path.starts_with('<') {
        let _ = write!(run, "serin check --fix {} · ", quoted(path));
    }
    let _ = write!(run, "serin explain {}", f.code);
    elements.push(Level::NOTE.with_name(Some("run")).message(run).into());
    level.primary_title(f.title.as_str()).id(f.code).elements(elements)
}

type Marked<'r> = Vec<(&'r Label, AnnotationKind)>;

/// The primary label's file first; labels of one file together.
fn by_file(f: &Finding) -> Vec<(FileId, Marked<'_>)> {
    let mut files: Vec<(FileId, Marked<'_>)> = vec![(f.primary.loc.file, vec![(&f.primary, AnnotationKind::Primary)])];
    for label in &f.related {
        let marked = (label, AnnotationKind::Context);
        match files.iter_mut().find(|(id, _)| *id == label.loc.file) {
            Some((_, labels)) => labels.push(marked),
            None => files.push((label.loc.file, vec![marked])),
        }
    }
    files
}

/// Cuts out the lines around the labels, without carriage returns, one line per span.
fn snippet<'r>(file: &'r SourceFile, labels: &[(&'r Label, AnnotationKind)]) -> Snippet<'r, annotate_snippets::Annotation<'r>> {
    let lines: Vec<usize> = labels.iter().map(|(l, _)| file.line(l.loc.span.start)).collect();
    let first = lines.iter().copied().min().unwrap_or(1);
    let last = lines.iter().copied().max().unwrap_or(first);
    let mut text = String::new();
    let mut starts = Vec::new();
    for n in first..=last {
        starts.push(text.len());
        // Lines between far labels are folded away: they need not be there in full.
        let wanted = lines.contains(&n);
        text.push_str(if wanted { file.line_text(n) } else { "" });
        text.push('\n');
    }
    let mut snippet = Snippet::source(String::new());
    let mut annotations = Vec::new();
    for ((label, kind), line) in labels.iter().zip(&lines) {
        let range = file.line_range(*line);
        let len = file.line_text(*line).len();
        let at = (label.loc.span.start as usize - range.start).min(len);
        let end = (label.loc.span.end as usize).saturating_sub(range.start);
        let end = end.clamp(at, len);
        let base = starts[line - first];
        let mut annotation = (*kind).span(base + at..base + end);
        if !label.text.is_empty() {
            annotation = annotation.label(label.text.as_str());
        }
        annotations.push(annotation);
    }
    if text.len() > 20_000 {
        // One line of a minified file: the place in the header must do.
        let head: String = text.chars().take(200).collect();
        snippet = Snippet::source(head).line_start(first).path(file.path.as_str());
        return snippet.annotations([AnnotationKind::Primary.span(0..1).label(labels.first().map_or("", |(l, _)| l.text.as_str()))]);
    }
    drop(snippet);
    Snippet::source(text).line_start(first).path(file.path.as_str()).annotations(annotations)
}

/// Breaks a text at spaces; lines that are there stay.
fn wrap(text: &str, width: usize) -> String {
    let mut out = String::new();
    for (n, line) in text.lines().enumerate() {
        if n > 0 {
            out.push('\n');
        }
        let mut used = 0;
        let indent = line.len() - line.trim_start().len();
        if indent > 0 {
            // Snippets to copy keep their shape.
            out.push_str(line);
            continue;
        }
        for word in line.split(' ') {
            let len = word.chars().count();
            if used > 0 && used + 1 + len > width {
                out.push('\n');
                used = 0;
            } else if used > 0 {
                out.push(' ');
                used += 1;
            }
            out.push_str(word);
            used += len;
        }
    }
    out
}

/// A path as a shell takes it.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+,@%".contains(c);
    if path.chars().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

fn count(n: usize, one: &str, many: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {many}") }
}

/// `4 files, 5 objects: 1 error, 3 warnings`
pub fn summary(report: &Report) -> String {
    let stats = report.stats;
    let tally = report.tally();
    let mut parts = Vec::new();
    let mut add = |n: usize, one: &str, many: &str| {
        if n > 0 {
            parts.push(count(n, one, many));
        }
    };
    add(tally.errors, "error", "errors");
    add(tally.warnings, "warning", "warnings");
    add(tally.infos, "remark", "remarks");
    add(tally.depends, "depends on the cluster", "depend on the cluster");
    add(stats.silenced, "silenced", "silenced");
    let found = if report.findings.is_empty() && stats.silenced == 0 { "no findings".to_owned() } else { parts.join(", ") };
    let others = match stats.others {
        0 => String::new(),
        n => format!(", {n} of other kinds left alone"),
    };
    format!("{}, {}{others}: {found}", count(stats.files, "file", "files"), count(stats.objects, "object", "objects"),)
}
