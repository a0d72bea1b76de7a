//! YAML with positions: a tree in which every key and value knows its bytes.
//!
//! Scalars are resolved as Kubernetes' clients do it (go-yaml's YAML 1.1 rules: an unquoted
//! `on` is a boolean). Aliases and merge keys are followed on reading. It knows nothing of
//! Kubernetes' kinds.

mod parse;
mod scalar;

pub(crate) use parse::{ParseProblem, ProblemKind, parse};

use crate::source::{FileId, Loc, SourceFile, Span};

/// Index of a node in its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(pub(crate) u32);

/// A string, as a slice of the source where it stands there unchanged.
#[derive(Debug, Clone)]
pub(crate) enum Text {
    Src(Span),
    Owned(Box<str>),
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str,
    Map(Vec<Entry>),
    Seq(Vec<NodeId>),
    Alias(NodeId),
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
    /// The text of a scalar after unescaping; empty for collections.
    pub(crate) text: Text,
    pub(crate) quoted: bool,
    pub(crate) flow: bool,
}

/// One `key: value` of a mapping.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Text,
    pub(crate) key_span: Span,
    pub(crate) value: NodeId,
    /// It came in through `<<`.
    pub(crate) merged: bool,
}

/// A parsed file: its documents, and the comments that speak to Serin.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
    pub(crate) docs: Vec<NodeId>,
    /// `# serin: …` comments: the whole comment with its `#`.
    pub(crate) comments: Vec<Span>,
    /// Keys that stand twice in one mapping: (first, second).
    pub(crate) duplicates: Vec<(Span, Span)>,
}

impl Tree {
    /// Adds the documents of a part of the text that begins `by` bytes into it.
    fn append(&mut self, part: Tree, by: usize) {
        let first = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let by = u32::try_from(by).unwrap_or(u32::MAX);
        let moved = |s: Span| Span { start: s.start.saturating_add(by), end: s.end.saturating_add(by) };
        let id = |n: NodeId| NodeId(n.0.saturating_add(first));
        let text = |t: Text| match t {
            Text::Src(span) => Text::Src(moved(span)),
            Text::Owned(text) => Text::Owned(text),
        };
        self.nodes.extend(part.nodes.into_iter().map(|n| {
            let value = match n.value {
                Value::Map(entries) => Value::Map(
                    entries
                        .into_iter()
                        .map(|e| Entry { key: text(e.key), key_span: moved(e.key_span), value: id(e.value), merged: e.merged })
                        .collect(),
                ),
                Value::Seq(items) => Value::Seq(items.into_iter().map(id).collect()),
                Value::Alias(to) => Value::Alias(id(to)),
                other => other,
            };
            Node { span: moved(n.span), value, text: text(n.text), ..n }
        }));
        self.docs.extend(part.docs.into_iter().map(id));
        self.comments.extend(part.comments.into_iter().map(moved));
        self.duplicates.extend(part.duplicates.into_iter().map(|(a, b)| (moved(a), moved(b))));
    }
}

/// A file and its tree.
#[derive(Debug, Clone)]
pub(crate) struct Parsed {
    /// Which file.
    pub(crate) id: FileId,
    /// Its text.
    pub(crate) source: SourceFile,
    /// What it says; empty if it could not be read.
    pub(crate) tree: Tree,
    /// Why it could not be read.
    pub(crate) problem: Option<ParseProblem>,
}

/// The type of a value, in the words messages use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    /// Nothing, `null` or `~`.
    Null,
    /// true or false, `yes`, `on` and so on.
    Bool,
    /// A whole number.
    Int,
    /// Another number.
    Float,
    /// Text.
    Str,
    /// A mapping.
    Map,
    /// A list.
    Seq,
}

/// A place in a tree: what all rules read from. Copying it is free.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    file: &'a Parsed,
    id: NodeId,
    at: Span,
    shared: bool,
}

impl std::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View({:?} at {:?})", self.ty(), self.at)
    }
}

/// One entry of a mapping.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<'a> {
    /// The key.
    pub(crate) key: &'a str,
    /// Where the key stands.
    pub(crate) key_loc: Loc,
    /// The value.
    pub(crate) value: View<'a>,
}

impl<'a> View<'a> {
    pub(crate) fn new(file: &'a Parsed, id: NodeId, shared: bool) -> View<'a> {
        let node = &file.tree.nodes[id.0 as usize];
        let at = node.span;
        let mut id = id;
        let mut shared = shared;
        // An alias points to a finished node, so a chain of them ends.
        while let Value::Alias(to) = &file.tree.nodes[id.0 as usize].value {
            id = *to;
            shared = true;
        }
        View { file, id, at, shared }
    }

    fn node(self) -> &'a Node {
        &self.file.tree.nodes[self.id.0 as usize]
    }

    fn text_of(self, text: &'a Text) -> &'a str {
        match text {
            Text::Src(span) => self.file.source.text.get(span.range()).unwrap_or(""),
            Text::Owned(text) => text,
        }
    }

    /// The file it stands in.
    pub(crate) fn file(self) -> &'a Parsed {
        self.file
    }

    /// Where it stands; for an alias, the place of use.
    pub(crate) fn loc(self) -> Loc {
        Loc { file: self.file.id, span: self.at }
    }

    /// Whether its text also serves another place (alias or merge key), so that editing it
    /// here would change it there.
    pub(crate) fn is_shared(self) -> bool {
        self.shared
    }

    /// Its type.
    pub(crate) fn ty(self) -> Type {
        match &self.node().value {
            Value::Null | Value::Alias(_) => Type::Null,
            Value::Bool(_) => Type::Bool,
            Value::Int(_) => Type::Int,
            Value::Float(_) => Type::Float,
            Value::Str => Type::Str,
            Value::Map(_) => Type::Map,
            Value::Seq(_) => Type::Seq,
        }
    }

    /// Whether it is absent in effect: Kubernetes takes null as not given.
    pub(crate) fn is_null(self) -> bool {
        self.ty() == Type::Null
    }

    /// Whether it was written in quotes or as a block scalar.
    pub(crate) fn is_quoted(self) -> bool {
        self.node().quoted
    }

    /// Whether a collection was written as `[…]` or `{…}`.
    pub(crate) fn is_flow(self) -> bool {
        self.node().flow
    }

    /// The value of a key, nulls included.
    pub(crate) fn field(self, key: &str) -> Option<Field<'a>> {
        // The last of two equal keys wins, as in Kubernetes' clients.
        let Value::Map(entries) = &self.node().value else {
            return None;
        };
        entries.iter().rev().find(|e| self.text_of(&e.key) == key).map(|e| self.entry(e))
    }

    fn entry(self, e: &'a Entry) -> Field<'a> {
        Field {
            key: self.text_of(&e.key),
            key_loc: Loc { file: self.file.id, span: e.key_span },
            value: View::new(self.file, e.value, self.shared || e.merged),
        }
    }

    /// The value of a key; `None` if the key is absent or its value null.
    pub(crate) fn get(self, key: &str) -> Option<View<'a>> {
        self.field(key).map(|f| f.value).filter(|v| !v.is_null())
    }

    /// Follows keys: `v.at(&["spec", "template", "metadata"])`.
    pub(crate) fn at(self, path: &[&str]) -> Option<View<'a>> {
        path.iter().try_fold(self, |v, key| v.get(key))
    }

    /// The entries of a mapping, in the order of the text; none for anything else.
    pub(crate) fn fields(self) -> impl Iterator<Item = Field<'a>> {
        let entries: &'a [Entry] = match &self.node().value {
            Value::Map(entries) => entries,
            _ => &[],
        };
        entries.iter().map(move |e| self.entry(e))
    }

    /// The items of a list; none for anything else.
    pub(crate) fn items(self) -> impl DoubleEndedIterator<Item = View<'a>> + ExactSizeIterator {
        let items: &'a [NodeId] = match &self.node().value {
            Value::Seq(items) => items,
            _ => &[],
        };
        items.iter().map(move |id| View::new(self.file, *id, self.shared))
    }

    /// The items of the list under a key; none if it is absent.
    pub(crate) fn list(self, key: &str) -> impl Iterator<Item = View<'a>> {
        self.get(key).into_iter().flat_map(View::items)
    }

    /// The text of a string.
    pub(crate) fn str(self) -> Option<&'a str> {
        match self.node().value {
            Value::Str => Some(self.text_of(&self.node().text)),
            _ => None,
        }
    }

    /// The text of any scalar as written, unescaped: `8080`, `true`, `v1`.
    pub(crate) fn scalar(self) -> Option<&'a str> {
        match self.node().value {
            Value::Map(_) | Value::Seq(_) | Value::Null | Value::Alias(_) => None,
            _ => Some(self.text_of(&self.node().text)),
        }
    }

    /// The string under a key.
    pub(crate) fn str_at(self, key: &str) -> Option<&'a str> {
        self.get(key)?.str()
    }

    /// A whole number.
    pub(crate) fn int(self) -> Option<i64> {
        match self.node().value {
            Value::Int(n) => Some(n),
            _ => None,
        }
    }

    /// Any number.
    pub(crate) fn number(self) -> Option<f64> {
        match self.node().value {
            #[expect(clippy::cast_precision_loss, reason = "weights and ports are small")]
            Value::Int(n) => Some(n as f64),
            Value::Float(n) => Some(n),
            _ => None,
        }
    }

    /// The whole number under a key.
    pub(crate) fn int_at(self, key: &str) -> Option<i64> {
        self.get(key)?.int()
    }

    /// true or false.
    pub(crate) fn bool(self) -> Option<bool> {
        match self.node().value {
            Value::Bool(b) => Some(b),
            _ => None,
        }
    }

    /// The boolean under a key.
    pub(crate) fn bool_at(self, key: &str) -> Option<bool> {
        self.get(key)?.bool()
    }

    /// Where a key of this mapping stands; the mapping itself if it lacks it.
    pub(crate) fn key_loc(self, key: &str) -> Loc {
        self.field(key).map_or_else(|| self.loc(), |f| f.key_loc)
    }

    /// Converts to JSON, for evaluators that want it. Floats that JSON cannot say become null.
    pub(crate) fn to_json(self) -> serde_json::Value {
        use serde_json::Value as J;
        match &self.node().value {
            Value::Null | Value::Alias(_) => J::Null,
            Value::Bool(b) => J::Bool(*b),
            Value::Int(n) => J::from(*n),
            Value::Float(n) => serde_json::Number::from_f64(*n).map_or(J::Null, J::Number),
            Value::Str => J::String(self.text_of(&self.node().text).to_owned()),
            Value::Map(_) => J::Object(self.fields().map(|f| (f.key.to_owned(), f.value.to_json())).collect()),
            Value::Seq(_) => J::Array(self.items().map(View::to_json).collect()),
        }
    }
}

impl Parsed {
    /// The top value of each document.
    pub(crate) fn docs(&self) -> impl Iterator<Item = View<'_>> {
        self.tree.docs.iter().map(move |id| View::new(self, *id, false))
    }
}
