//! Source texts and positions in them: byte spans, lines and columns.
//!
//! It does not read files: that is `sources`.

use std::ops::Range;

/// A byte range in one file. Both ends lie on character boundaries of that file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// A span from byte `start` up to, not including, byte `end`.
    pub fn new(start: usize, end: usize) -> Span {
        let clip = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Span { start: clip(start), end: clip(end.max(start)) }
    }

    /// As a range for slicing.
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Whether `other` lies in this span.
    pub fn contains(self, other: Span) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

/// Which file of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// A place: a span in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Loc {
    /// The file.
    pub file: FileId,
    /// Where in it.
    pub span: Span,
}

/// One input text with the name it is shown under.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// The path as the user wrote it, `<stdin>`, or `live:namespace/kind/name`.
    pub path: String,
    /// The whole text, with a byte order mark if it had one.
    pub text: String,
    line_starts: Vec<u32>,
}

impl SourceFile {
    /// Takes a text and finds its lines. YAML breaks lines at LF, CRLF and lone CR.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> SourceFile {
        let text = text.into();
        let bytes = text.as_bytes();
        let mut line_starts = vec![0];
        for (i, b) in bytes.iter().enumerate() {
            let breaks = match b {
                b'\n' => true,
                b'\r' => bytes.get(i + 1) != Some(&b'\n'),
                _ => false,
            };
            if breaks {
                line_starts.push(u32::try_from(i + 1).unwrap_or(u32::MAX));
            }
        }
        SourceFile { path: path.into(), text, line_starts }
    }

    /// Line and column of a byte offset, both from 1; columns count characters.
    pub fn line_col(&self, offset: u32) -> (usize, usize) {
        let line = self.line_starts.partition_point(|s| *s <= offset).max(1) - 1;
        let start = self.line_starts[line] as usize;
        let end = (offset as usize).min(self.text.len());
        let before = self.text.get(start..end).unwrap_or("");
        let before = if line == 0 { before.trim_start_matches('\u{feff}') } else { before };
        (line + 1, before.chars().count() + 1)
    }

    /// The line number, from 1, of a byte offset.
    pub fn line(&self, offset: u32) -> usize {
        self.line_starts.partition_point(|s| *s <= offset).max(1)
    }

    /// Number of lines; an empty text has one.
    pub fn n_lines(&self) -> usize {
        self.line_starts.len()
    }

    /// Byte range of a line (from 1), with its line break.
    pub fn line_range(&self, line: usize) -> Range<usize> {
        let at = |n: usize| self.line_starts.get(n).map_or(self.text.len(), |s| *s as usize);
        at(line.saturating_sub(1))..at(line)
    }

    /// The text of a line (from 1) without its line break.
    pub fn line_text(&self, line: usize) -> &str {
        self.text.get(self.line_range(line)).unwrap_or("").trim_end_matches(['\n', '\r'])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_break_at_lf_crlf_and_cr() {
        let file = SourceFile::new("x", "\u{feff}ä: 1\r\nb: ü x\rc\n");
        let at = |needle: &str| {
            let offset = file.text.find(needle).map(|n| n as u32);
            file.line_col(offset.unwrap_or(u32::MAX))
        };
        assert_eq!(at("ä"), (1, 1));
        assert_eq!(at("1"), (1, 4));
        assert_eq!(at("x"), (2, 6));
        assert_eq!(at("c"), (3, 1));
        assert_eq!(file.line_text(1), "\u{feff}ä: 1");
        assert_eq!(file.line_text(2), "b: ü x");
        assert_eq!(file.n_lines(), 4);
    }
}
