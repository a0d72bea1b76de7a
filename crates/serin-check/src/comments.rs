//! Comments that silence a rule: `# serin: ignore[SRN301] reason`.
//!
//! At the end of a line or on the line above, it silences the rule for what begins there: the
//! entry and all that is nested in it. Above the first line of a document it silences the
//! whole document. It needs a reason, and one that silences nothing is a finding itself.

use std::collections::HashMap;

use crate::source::{SourceFile, Span};
use crate::yaml::Parsed;

/// A silencing comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Silence {
    /// The codes it names, with where each stands.
    pub(crate) codes: Vec<(String, Span)>,
    /// The text after the brackets.
    pub(crate) reason: String,
    /// The whole comment.
    pub(crate) span: Span,
    /// The bytes it speaks for.
    pub(crate) scope: Span,
}

/// A comment to Serin that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub(crate) span: Span,
    pub(crate) why: &'static str,
}

/// Reads the comments of a file.
pub(crate) fn silences(file: &Parsed) -> (Vec<Silence>, Vec<Unreadable>) {
    let mut found = Vec::new();
    let mut bad = Vec::new();
    let mut lines = Lines::new(&file.source);
    for span in &file.tree.comments {
        let text = &file.source.text[span.range()];
        let Some(body_at) = text.find("serin:").map(|n| n + 6) else {
            continue;
        };
        let body = &text[body_at..];
        let trimmed = body.trim_start();
        let Some(rest) = trimmed.strip_prefix("ignore") else {
            bad.push(Unreadable { span: *span, why: "only `serin: ignore[CODE] reason` is known" });
            continue;
        };
        let list = rest.trim_start().strip_prefix('[').and_then(|r| r.split_once(']'));
        let Some((list, reason)) = list else {
            bad.push(Unreadable { span: *span, why: "the codes go in brackets: `serin: ignore[SRN301] reason`" });
            continue;
        };
        let list_at = span.start as usize + (list.as_ptr() as usize - text.as_ptr() as usize);
        let mut codes = Vec::new();
        let mut at = list_at;
        for part in list.split(',') {
            let code = part.trim();
            let start = at + (part.len() - part.trim_start().len());
            if !code.is_empty() {
                codes.push((code.to_owned(), Span::new(start, start + code.len())));
            }
            at += part.len() + 1;
        }
        found.push(Silence {
            codes,
            reason: reason.trim().trim_start_matches([':', '-']).trim().to_owned(),
            span: *span,
            scope: lines.scope(*span),
        });
    }
    (found, bad)
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

fn is_content(line: &str) -> bool {
    let t = line.trim_start();
    !t.is_empty() && !t.starts_with('#')
}

fn is_marker(line: &str) -> bool {
    line.starts_with("---") || line.starts_with("...")
}

/// The lines of a file, each looked at once however many comments ask.
struct Lines<'f> {
    file: &'f SourceFile,
    /// By line: the last one before it that is no comment and not empty, 0 for none.
    before: Vec<usize>,
    /// By line: the first one from it on that is no comment and not empty, one past the end for none.
    from: Vec<usize>,
    /// Scopes by their first line, and whether they are a document's.
    known: HashMap<(usize, bool), Span>,
}

impl<'f> Lines<'f> {
    fn new(file: &'f SourceFile) -> Lines<'f> {
        let n = file.n_lines();
        let mut before = vec![0; n + 2];
        let mut from = vec![n + 1; n + 2];
        for l in 1..=n {
            before[l + 1] = if is_content(file.line_text(l)) { l } else { before[l] };
        }
        for l in (1..=n).rev() {
            from[l] = if is_content(file.line_text(l)) { l } else { from[l + 1] };
        }
        Lines { file, before, from, known: HashMap::new() }
    }

    /// What a comment speaks for, by indentation: the line it stands on, or the next one, and
    /// all that is nested in it.
    fn scope(&mut self, comment: Span) -> Span {
        let (file, n) = (self.file, self.file.n_lines());
        let own = file.line(comment.start);
        let left = file.text[file.line_range(own).start..comment.start as usize].trim();
        if !(left.is_empty() || left == "---") {
            return self.nested(own);
        }
        let first = self.from[(own + 1).min(n + 1)];
        if first > n {
            return comment;
        }
        let before = self.before[own];
        let starts_document = before == 0 || is_marker(file.line_text(before)) || left == "---";
        if starts_document && indent(file.line_text(first)) == 0 {
            return self.document(first);
        }
        self.nested(first)
    }

    fn document(&mut self, first: usize) -> Span {
        let (file, n) = (self.file, self.file.n_lines());
        *self.known.entry((first, true)).or_insert_with(|| {
            let first = if is_marker(file.line_text(first)) { first + 1 } else { first };
            let mut last = first;
            while last < n && !is_marker(file.line_text(last + 1)) {
                last += 1;
            }
            Span::new(file.line_range(first).start, file.line_range(last).end)
        })
    }

    fn nested(&mut self, first: usize) -> Span {
        let (file, n) = (self.file, self.file.n_lines());
        let from = &self.from;
        *self.known.entry((first, false)).or_insert_with(|| {
            let line = file.line_text(first);
            let depth = indent(line);
            let is_item = line.trim_start().starts_with("- ");
            let mut last = first;
            let mut l = from[(first + 1).min(n + 1)];
            while l <= n {
                let text = file.line_text(l);
                let nested = indent(text) > depth || indent(text) == depth && !is_item && text.trim_start().starts_with("- ");
                if is_marker(text) || !nested {
                    break;
                }
                last = l;
                l = from[l + 1];
            }
            Span::new(file.line_range(first).start, file.line_range(last).end)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::FileId;
    use crate::yaml::parse;

    fn scopes(text: &str) -> Vec<String> {
        let p = parse(FileId(0), SourceFile::new("x", text));
        let (found, _) = silences(&p);
        found.iter().map(|s| p.source.text[s.scope.range()].trim_end().to_owned()).collect()
    }

    #[test]
    fn a_comment_speaks_for_its_line_or_the_next_and_what_is_nested() {
        let text = "a: 1\nspec:\n  # serin: ignore[SRN301] x\n  gateways:\n  - g\n  hosts: [h]  # serin: ignore[SRN302] y\n";
        assert_eq!(scopes(text), ["  gateways:\n  - g", "  hosts: [h]  # serin: ignore[SRN302] y"]);
    }

    #[test]
    fn above_the_first_line_it_speaks_for_the_document() {
        let text = "# serin: ignore[SRN301] x\na: 1\nb: 2\n---\nc: 3\n---\n# serin: ignore[SRN301] y\nd: 4\n";
        assert_eq!(scopes(text), ["a: 1\nb: 2", "d: 4"]);
    }

    #[test]
    fn an_item_speaks_for_itself_alone() {
        let text = "a:\n# serin: ignore[SRN1] x\n- b: 1\n  c: 2\n- d: 3\n";
        assert_eq!(scopes(text), ["- b: 1\n  c: 2"]);
    }
}
