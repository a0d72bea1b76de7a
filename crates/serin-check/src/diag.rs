//! What a rule says: a finding with its place, cause elsewhere, effect, help and fix.
//!
//! How findings are printed is `render`'s business.

use crate::source::{Loc, Span};
use crate::yaml::View;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// It will likely hurt, or hurts only sometimes.
    Warning,
    /// It will not work as written.
    Error,
}

impl Severity {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Severity> {
        match word {
            "info" => Some(Severity::Info),
            "warning" => Some(Severity::Warning),
            "error" => Some(Severity::Error),
            _ => None,
        }
    }
}

/// Whether the input itself shows the mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certainty {
    /// It does.
    Certain,
    /// It is one unless the cluster holds what the input lacks; the text says what, as in
    /// "unless …".
    Depends(String),
}

/// A span with what to say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Where.
    pub loc: Loc,
    /// What; may be empty.
    pub text: String,
}

/// One replacement in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// What is replaced; an empty span inserts.
    pub loc: Loc,
    /// By what.
    pub text: String,
}

/// A change that mends a finding: certain and local.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// What it does, as a person would put it.
    pub title: String,
    /// The edits, all or none.
    pub edits: Vec<Edit>,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule, `SRN301`; set by the runner.
    pub code: &'static str,
    /// One line; the rule's own title unless the finding knows better.
    pub title: String,
    /// How bad it is.
    pub severity: Severity,
    /// Whether the input itself shows it.
    pub certainty: Certainty,
    /// The place.
    pub primary: Label,
    /// Causes elsewhere.
    pub related: Vec<Label>,
    /// What happens, to whom, with numbers where the input gives them.
    pub effect: Option<String>,
    /// What to change.
    pub help: Option<String>,
    /// A change that mends it.
    pub fix: Option<Fix>,
    /// The object it is about: kind, namespace, name.
    pub object: Option<ObjectName>,
    pub(crate) own_severity: Option<Severity>,
}

/// Which object a finding is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectName {
    /// Kind.
    pub kind: String,
    /// Namespace, if the input says it.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

impl Finding {
    /// A finding at a place, with a word on that place (may be empty).
    pub fn at(loc: Loc, label: impl Into<String>) -> Finding {
        Finding {
            code: "",
            title: String::new(),
            severity: Severity::Error,
            certainty: Certainty::Certain,
            primary: Label { loc, text: label.into() },
            related: Vec::new(),
            effect: None,
            help: None,
            fix: None,
            object: None,
            own_severity: None,
        }
    }

    /// A title of its own.
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> Finding {
        self.title = title.into();
        self
    }

    /// Milder or harsher than the rule's page says.
    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Finding {
        self.own_severity = Some(severity);
        self
    }

    /// A cause elsewhere.
    #[must_use]
    pub fn related(mut self, loc: Loc, text: impl Into<String>) -> Finding {
        self.related.push(Label { loc, text: text.into() });
        self
    }

    /// What happens, to whom.
    #[must_use]
    pub fn effect(mut self, text: impl Into<String>) -> Finding {
        self.effect = Some(text.into());
        self
    }

    /// What to change.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Finding {
        self.help = Some(text.into());
        self
    }

    /// It is one unless …
    #[must_use]
    pub fn depends(mut self, unless: impl Into<String>) -> Finding {
        self.certainty = Certainty::Depends(unless.into());
        self
    }

    /// A change that mends it. None is accepted, for edits that turned out not to be local.
    #[must_use]
    pub fn fix(mut self, fix: Option<Fix>) -> Finding {
        self.fix = fix;
        self
    }
}

/// Replaces a scalar's text; `None` where other places share it.
pub(crate) fn replace(view: View<'_>, text: impl Into<String>) -> Option<Edit> {
    (!view.is_shared()).then(|| Edit { loc: view.loc(), text: text.into() })
}

/// Replaces a span.
pub(crate) fn replace_at(loc: Loc, text: impl Into<String>) -> Edit {
    Edit { loc, text: text.into() }
}

/// Appends an item to a list, in the list's own style; `None` where that is not local.
pub(crate) fn append_item(list: View<'_>, item: &str) -> Option<Edit> {
    if list.is_shared() {
        return None;
    }
    let last = list.items().next_back()?;
    let text = &list.file().source.text;
    if list.is_flow() {
        return Some(insert(last.loc(), format!(", {item}")));
    }
    // The new item goes on a line of its own after the last item's line and its comment.
    let first = list.items().next()?;
    let file = &list.file().source;
    let first_line = file.line(first.loc().span.start);
    let line = file.line_text(first_line);
    let indent = &line[..line.len() - line.trim_start().len()];
    if !line.trim_start().starts_with('-') {
        return None;
    }
    let last_end = last.loc().span.end;
    let last_line = file.line(last_end.saturating_sub(1).max(last.loc().span.start));
    let range = file.line_range(last_line);
    let newline = if text[..range.end].ends_with("\r\n") { "\r\n" } else { "\n" };
    let has_break = text[range.clone()].ends_with(['\n', '\r']);
    let (at, new) =
        if has_break { (range.end, format!("{indent}- {item}{newline}")) } else { (range.end, format!("{newline}{indent}- {item}")) };
    Some(Edit { loc: Loc { file: list.file().id, span: Span::new(at, at) }, text: new })
}

fn insert(after: Loc, text: String) -> Edit {
    Edit { loc: Loc { file: after.file, span: Span { start: after.span.end, end: after.span.end } }, text }
}

/// Removes whole lines `first..=last` (from 1) of the file of `near`.
pub(crate) fn remove_lines(near: View<'_>, first: usize, last: usize) -> Edit {
    let file = &near.file().source;
    Edit {
        loc: Loc { file: near.file().id, span: Span::new(file.line_range(first).start, file.line_range(last).end) },
        text: String::new(),
    }
}

/// Removes a block entry `key: value` that stands on lines of its own, from the key's line to
/// the value's last; `None` where it shares its lines with others.
pub(crate) fn remove_field(map: View<'_>, key: &str) -> Option<Edit> {
    let field = map.field(key)?;
    if map.is_shared() || map.is_flow() || map.fields().count() < 2 {
        return None;
    }
    let file = &map.file().source;
    let span = field.key_loc.span;
    let end = field.value.loc().span.end.max(span.end);
    let (first, last) = (file.line(span.start), file.line(end.saturating_sub(1)));
    let before = file.line_text(first);
    let own_line = before.trim_start().starts_with(key)
        || before.trim_start().starts_with(&format!("\"{key}\""))
        || before.trim_start().starts_with(&format!("'{key}'"));
    own_line.then(|| remove_lines(map, first, last))
}

/// Inserts a line `text` before the line on which `key_loc` stands, with its indentation.
pub(crate) fn insert_line_before(near: View<'_>, key_loc: Loc, text: &str) -> Option<Edit> {
    if near.is_shared() || near.is_flow() {
        return None;
    }
    let file = &near.file().source;
    let line = file.line(key_loc.span.start);
    let range = file.line_range(line);
    let full = file.line_text(line);
    let key_col = (key_loc.span.start as usize).checked_sub(range.start)?;
    // `- key: x` starts an item: a line before it would not belong to the mapping.
    if !full.get(..key_col)?.chars().all(|c| c == ' ') {
        return None;
    }
    let newline = if file.text[range.clone()].ends_with("\r\n") { "\r\n" } else { "\n" };
    Some(Edit {
        loc: Loc { file: near.file().id, span: Span::new(range.start, range.start) },
        text: format!("{}{text}{newline}", &full[..key_col]),
    })
}

/// A fix from edits that may each have turned out not to be local.
pub(crate) fn fix<const N: usize>(title: impl Into<String>, edits: [Option<Edit>; N]) -> Option<Fix> {
    let edits = edits.into_iter().collect::<Option<Vec<_>>>()?;
    Some(Fix { title: title.into(), edits })
}
