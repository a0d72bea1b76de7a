//! From the parser's events to the tree.
//!
//! Hostile input is answered with a problem, never with memory: what aliases unfold to is
//! counted, not built, and depth is bounded.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, StructureStyle};

use super::{Entry, Node, NodeId, Parsed, Text, Tree, Value, scalar};
use crate::source::{FileId, SourceFile, Span};

/// Nodes that one document may unfold to when its aliases are followed. go-yaml draws a
/// similar line; honest manifests stay under a hundredth of it.
const MAX_UNFOLDED: u64 = 1_000_000;
/// Depth that a document may unfold to. Kubernetes objects stay under 40.
const MAX_DEPTH: u32 = 400;

/// Why a file could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ParseProblem {
    /// What kind of problem.
    pub(crate) kind: ProblemKind,
    /// What the parser says, lower case, without position.
    pub(crate) message: String,
    /// Where it noticed.
    pub(crate) span: Span,
}

/// Kinds of reading problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProblemKind {
    /// Not YAML.
    Syntax,
    /// YAML, but too deep, or aliases that unfold without bound.
    Hostile,
    /// A template that still has to be rendered.
    Template,
}

/// Reads a file. A problem leaves the tree empty: half a file says nothing reliable.
pub(crate) fn parse(id: FileId, source: SourceFile) -> Parsed {
    let outcome = build(&source.text).or_else(|problem| json_stream(&source.text).ok_or(problem));
    let outcome = match outcome {
        Ok(tree) => match unrendered(&source.text, Some(&tree)) {
            Some(problem) => Err(problem),
            None => Ok(tree),
        },
        Err(problem) => Err(unrendered(&source.text, None).unwrap_or(problem)),
    };
    let (tree, problem) = match outcome {
        Ok(tree) => (tree, None),
        Err(problem) => (Tree::default(), Some(problem)),
    };
    Parsed { id, source, tree, problem }
}

/// Blocks of text (dashboards, alerts, scripts), in which braces are somebody else's.
fn blocks(text: &str, tree: &Tree) -> Vec<Span> {
    let is_block = |n: &&Node| matches!(n.value, Value::Str) && n.quoted && !text[n.span.range()].starts_with(['"', '\'']);
    let mut found: Vec<Span> = tree.nodes.iter().filter(is_block).map(|n| n.span).collect();
    found.sort_unstable();
    found
}

/// JSON values one after another, as `kubectl get -o json` in a loop or a log writes them.
/// YAML would want `---` between them; kubectl reads them, and so does Serin.
fn json_stream(text: &str) -> Option<Tree> {
    let body = text.trim_start_matches('\u{feff}');
    if !body.trim_start().starts_with('{') {
        return None;
    }
    let from = text.len() - body.len();
    let mut values = serde_json::Deserializer::from_str(body).into_iter::<serde::de::IgnoredAny>();
    let mut tree = Tree::default();
    let mut start = 0;
    while let Some(next) = values.next() {
        next.ok()?;
        let end = values.byte_offset();
        let part = build(body.get(start..end)?).ok()?;
        tree.append(part, from + start);
        start = end;
    }
    (tree.docs.len() > 1).then_some(tree)
}

/// Whether the text is a template of Helm or Jinja. Braces alone do not make one: alerts and
/// ApplicationSets carry them as text. If the YAML does not parse (there is no tree), braces
/// where a value begins are the likely cause.
fn unrendered(text: &str, parsed: Option<&Tree>) -> Option<ParseProblem> {
    let found = |at: usize| ParseProblem {
        kind: ProblemKind::Template,
        message: "a template that is not rendered".to_owned(),
        span: Span::new(at, at + 2),
    };
    let (mut from, mut line) = (0, 0);
    let mut known: Option<Vec<Span>> = None;
    while let Some(at) = text[from..].find("{{").map(|n| n + from) {
        line = text[from..at].rfind('\n').map_or(line, |n| from + n + 1);
        from = at + 2;
        // Braces of templates close soon.
        let inner = &text[at + 2..ceiling(text, at + 202)];
        let inner = &inner[..inner.find("}}").unwrap_or(inner.len())];
        let body = inner.trim_start_matches('-').trim_start();
        let has = |words: &[&str]| words.iter().any(|w| body.contains(w));
        let helm = has(&[".Values.", ".Release.", ".Chart.", "include \"", "toYaml"]);
        let before = text[line..at].trim();
        if before.starts_with('#') {
            continue;
        }
        let is_template = match parsed {
            Some(tree) => {
                let blocks = known.get_or_insert_with(|| blocks(text, tree));
                let place = blocks.partition_point(|b| (b.start as usize) <= at);
                helm && place.checked_sub(1).is_none_or(|n| at >= blocks[n].end as usize)
            }
            // Alertmanager and Argo have templates too, as text of YAML that parses.
            None => {
                let begins = before.is_empty() || before.ends_with([':', '-', '[', ',']);
                helm || has(&["template ", "define ", "tpl "]) || begins && !body.is_empty()
            }
        };
        if is_template {
            return Some(found(at));
        }
    }
    match parsed {
        None => text.find("{%").map(found),
        Some(_) => None,
    }
}

struct Weight {
    unfolded: u64,
    depth: u32,
}

enum Open {
    Seq { id: NodeId, anchor: usize, items: Vec<NodeId> },
    Map { id: NodeId, anchor: usize, entries: Vec<Entry>, key: Option<(Text, Span)>, merges: Vec<NodeId> },
}

struct Builder<'t> {
    text: &'t str,
    tree: Tree,
    weights: Vec<Weight>,
    anchors: HashMap<usize, NodeId>,
    open: Vec<Open>,
}

fn build(text: &str) -> Result<Tree, ParseProblem> {
    let mut builder = Builder { text, tree: Tree::default(), weights: Vec::new(), anchors: HashMap::new(), open: Vec::new() };
    // Comments cost time; only files that speak to Serin pay for them.
    let options = granit_parser::options! {
        emit_comments: text.contains("serin:"),
        max_buffered_comment_events: usize::MAX,
        bom_inside_document_as_content: true,
    };
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|e| {
            let at = e.marker().byte_offset().unwrap_or(0).min(text.len());
            let at = floor(text, at);
            let message = e.info();
            let hostile = message.contains("nest") || message.contains("recursion");
            ParseProblem {
                kind: if hostile { ProblemKind::Hostile } else { ProblemKind::Syntax },
                message,
                span: Span::new(at, next_char(text, at)),
            }
        })?;
        let range = span.byte_range().unwrap_or(0..0);
        builder.event(event, Span::new(range.start, range.end))?;
    }
    Ok(builder.tree)
}

/// The next boundary of a character at or after a place.
fn ceiling(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}

fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn next_char(text: &str, at: usize) -> usize {
    text[at..].chars().next().filter(|c| *c != '\n' && *c != '\r').map_or(at, |c| at + c.len_utf8())
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), ParseProblem> {
        match event {
            Event::Comment(body, _) => {
                if body.trim_start().starts_with("serin:") {
                    self.tree.comments.push(span);
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let quoted = style != ScalarStyle::Plain;
                let forced = tag.as_ref().and_then(|t| t.core_suffix());
                let value = match forced {
                    Some("str") => Value::Str,
                    None if tag.is_some() => Value::Str,
                    Some(_) => scalar::resolve(&text),
                    None if quoted => Value::Str,
                    None => scalar::resolve(&text),
                };
                let text = self.keep(&text);
                let id = self.push(span, value, text, quoted, false);
                self.anchor(anchor, id);
                self.attach(id)
            }
            Event::Alias(anchor) => {
                let Some(target) = self.anchors.get(&anchor).copied() else {
                    return Err(ParseProblem { kind: ProblemKind::Hostile, message: "an alias that contains itself".to_owned(), span });
                };
                let id = self.push(span, Value::Alias(target), Text::Owned("".into()), false, false);
                let (unfolded, depth) = {
                    let w = &self.weights[target.0 as usize];
                    (w.unfolded, w.depth)
                };
                self.weights[id.0 as usize] = Weight { unfolded, depth };
                self.attach(id)
            }
            Event::SequenceStart(style, anchor, _) => {
                let id = self.collection(span, style);
                self.open.push(Open::Seq { id, anchor, items: Vec::new() });
                Ok(())
            }
            Event::MappingStart(style, anchor, _) => {
                let id = self.collection(span, style);
                self.open.push(Open::Map { id, anchor, entries: Vec::new(), key: None, merges: Vec::new() });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::DocumentStart(..) => {
                self.anchors.clear();
                Ok(())
            }
            Event::DocumentEnd | Event::StreamStart | Event::StreamEnd | Event::Anchor(..) | Event::UnresolvedAlias(_) => Ok(()),
            _ => Ok(()),
        }
    }

    /// A slice of the source if the parser lent one, else a copy.
    fn keep(&self, text: &str) -> Text {
        let base = self.text.as_ptr() as usize;
        let at = text.as_ptr() as usize;
        if let Some(start) = at.checked_sub(base)
            && start + text.len() <= self.text.len()
            && self.text.get(start..start + text.len()) == Some(text)
        {
            Text::Src(Span::new(start, start + text.len()))
        } else {
            Text::Owned(text.into())
        }
    }

    fn push(&mut self, span: Span, value: Value, text: Text, quoted: bool, flow: bool) -> NodeId {
        let id = NodeId(u32::try_from(self.tree.nodes.len()).unwrap_or(u32::MAX));
        self.tree.nodes.push(Node { span, value, text, quoted, flow });
        self.weights.push(Weight { unfolded: 1, depth: 1 });
        id
    }

    fn collection(&mut self, span: Span, style: StructureStyle) -> NodeId {
        let flow = style == StructureStyle::Flow;
        self.push(span, Value::Null, Text::Src(Span::default()), false, flow)
    }

    fn anchor(&mut self, anchor: usize, id: NodeId) {
        if anchor != 0 {
            self.anchors.insert(anchor, id);
        }
    }

    fn close(&mut self, end: Span) -> Result<(), ParseProblem> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let (id, anchor, value, children) = match open {
            Open::Seq { id, anchor, items } => {
                let children = items.clone();
                (id, anchor, Value::Seq(items), children)
            }
            Open::Map { id, anchor, mut entries, merges, .. } => {
                self.find_duplicates(&entries);
                self.merge(&mut entries, &merges);
                let children = entries.iter().map(|e| e.value).collect();
                (id, anchor, Value::Map(entries), children)
            }
        };
        let mut weight = Weight { unfolded: 1, depth: 1 };
        for child in children {
            let w = &self.weights[child.0 as usize];
            weight.unfolded = weight.unfolded.saturating_add(w.unfolded);
            weight.depth = weight.depth.max(w.depth + 1);
        }
        let node = &mut self.tree.nodes[id.0 as usize];
        // Block collections end where their last child ends, not at the next token.
        let last = match &value {
            Value::Map(entries) => entries.iter().rfind(|e| !e.merged).map(|e| e.value),
            Value::Seq(items) => items.last().copied(),
            _ => None,
        };
        node.value = value;
        let flow = node.flow;
        let end = match last {
            Some(last) if !flow => self.tree.nodes[last.0 as usize].span.end,
            _ => end.end,
        };
        let node = &mut self.tree.nodes[id.0 as usize];
        node.span.end = end.max(node.span.start);
        let span = node.span;
        let hostile = |message: &str| ParseProblem {
            kind: ProblemKind::Hostile,
            message: message.to_owned(),
            span: Span { start: span.start, end: span.start },
        };
        if weight.unfolded > MAX_UNFOLDED.max(self.tree.nodes.len() as u64) {
            return Err(hostile("aliases that unfold to more than a million values"));
        }
        if weight.depth > MAX_DEPTH {
            return Err(hostile("nested more than 400 levels deep"));
        }
        self.weights[id.0 as usize] = weight;
        self.anchor(anchor, id);
        self.attach(id)
    }

    fn key_text<'s>(&'s self, key: &'s Text) -> &'s str {
        match key {
            Text::Src(span) => self.text.get(span.range()).unwrap_or(""),
            Text::Owned(text) => text,
        }
    }

    fn find_duplicates(&mut self, entries: &[Entry]) {
        let mut found = Vec::new();
        if entries.len() < 16 {
            for (i, e) in entries.iter().enumerate() {
                let key = self.key_text(&e.key);
                if let Some(first) = entries[..i].iter().find(|o| self.key_text(&o.key) == key) {
                    found.push((first.key_span, e.key_span));
                }
            }
        } else {
            let mut seen: HashMap<&str, Span> = HashMap::new();
            for e in entries {
                let key = self.key_text(&e.key);
                if let Some(first) = seen.get(key) {
                    found.push((*first, e.key_span));
                } else {
                    seen.insert(key, e.key_span);
                }
            }
        }
        self.tree.duplicates.extend(found);
    }

    /// Puts the entries of `<<` in front, where keys of the mapping itself override them.
    fn merge(&self, entries: &mut Vec<Entry>, merges: &[NodeId]) {
        let mut extra: Vec<Entry> = Vec::new();
        let mut budget = 100_000usize;
        for id in merges {
            let mut id = *id;
            while let Value::Alias(to) = &self.tree.nodes[id.0 as usize].value {
                id = *to;
            }
            let maps: Vec<NodeId> = match &self.tree.nodes[id.0 as usize].value {
                Value::Map(_) => vec![id],
                Value::Seq(items) => items.clone(),
                _ => continue,
            };
            for mut map in maps {
                while let Value::Alias(to) = &self.tree.nodes[map.0 as usize].value {
                    map = *to;
                }
                let Value::Map(from) = &self.tree.nodes[map.0 as usize].value else {
                    continue;
                };
                for e in from {
                    let key = self.key_text(&e.key);
                    let own = |o: &Entry| self.key_text(&o.key) == key;
                    budget = budget.saturating_sub(1 + entries.len() + extra.len());
                    if budget == 0 {
                        break;
                    }
                    if !entries.iter().any(own) && !extra.iter().any(own) {
                        extra.push(Entry { merged: true, ..e.clone() });
                    }
                }
            }
        }
        entries.splice(0..0, extra);
    }

    fn attach(&mut self, id: NodeId) -> Result<(), ParseProblem> {
        let node = &self.tree.nodes[id.0 as usize];
        let span = node.span;
        match self.open.last_mut() {
            None => self.tree.docs.push(id),
            Some(Open::Seq { items, .. }) => items.push(id),
            Some(Open::Map { entries, key, merges, .. }) => match key.take() {
                Some((text, key_span)) => {
                    let is_merge = match &text {
                        Text::Src(s) => self.text.get(s.range()) == Some("<<"),
                        Text::Owned(s) => &**s == "<<",
                    };
                    if is_merge {
                        merges.push(id);
                    } else {
                        entries.push(Entry { key: text, key_span, value: id, merged: false });
                    }
                }
                None => {
                    // A collection as a key has no meaning in JSON: no rule will find it.
                    let text = match &node.value {
                        Value::Map(_) | Value::Seq(_) => Text::Owned("\u{0}".into()),
                        Value::Alias(to) => self.tree.nodes[to.0 as usize].text.clone(),
                        _ => node.text.clone(),
                    };
                    *key = Some((text, span));
                }
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Type, View};
    use super::*;

    fn read(text: &str) -> Parsed {
        parse(FileId(0), SourceFile::new("x.yaml", text))
    }

    fn slice<'a>(p: &'a Parsed, v: View<'_>) -> &'a str {
        &p.source.text[v.loc().span.range()]
    }

    #[test]
    fn every_value_knows_its_bytes() {
        let p = read("a: 'ü x'\nb:\n- c: 1\n  d: [2, {e: f}]\n# end\n\ng: |\n  text\n");
        let top = p.docs().next().expect("one document");
        assert_eq!(slice(&p, top.get("a").expect("a")), "'ü x'");
        assert_eq!(top.str_at("a"), Some("ü x"));
        let b = top.get("b").expect("b");
        // A list without indentation begins at its first item, not at the dash.
        assert_eq!(slice(&p, b), "c: 1\n  d: [2, {e: f}]");
        let item = b.items().next().expect("item");
        assert_eq!(slice(&p, item.get("d").expect("d")), "[2, {e: f}]");
        assert_eq!(top.str_at("g"), Some("text\n"));
        let key = top.field("g").expect("g").key_loc.span;
        assert_eq!(&p.source.text[key.range()], "g");
    }

    #[test]
    fn aliases_and_merge_keys_are_followed() {
        let p = read("x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  b: 3\nz: *x\n");
        let top = p.docs().next().expect("one document");
        let y = top.get("y").expect("y");
        assert_eq!((y.int_at("a"), y.int_at("b")), (Some(1), Some(3)));
        assert!(y.get("a").expect("a").is_shared());
        assert!(!y.get("b").expect("b").is_shared());
        let z = top.get("z").expect("z");
        assert_eq!(slice(&p, z), "*x");
        assert_eq!(z.int_at("b"), Some(2));
    }

    #[test]
    fn several_documents_and_an_empty_last_one() {
        let p = read("a: 1\n---\nb: 2\n---\n");
        assert_eq!(p.docs().filter(|d| d.ty() == Type::Map).count(), 2);
    }

    #[test]
    fn duplicate_keys_are_found_and_the_last_wins() {
        let p = read("a: 1\nb: 2\na: 3\n");
        assert_eq!(p.tree.duplicates.len(), 1);
        assert_eq!(p.docs().next().and_then(|d| d.int_at("a")), Some(3));
    }

    #[test]
    fn aliases_that_explode_are_a_problem_and_not_memory() {
        let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..12 {
            let refs = vec![format!("*a{}", i - 1); 10].join(",");
            text += &format!("a{i}: &a{i} [{refs}]\n");
        }
        let p = read(&text);
        assert_eq!(p.problem.map(|p| p.kind), Some(ProblemKind::Hostile));
    }

    #[test]
    fn deep_nesting_and_self_reference_are_problems() {
        assert!(read(&"[".repeat(5000)).problem.is_some());
        assert!(read("a: &a [*a]\n").problem.is_some());
        let mut text = "a0: &a0 x\n".to_owned();
        for i in 1..300 {
            text += &format!("a{i}: &a{i} [[*a{}]]\n", i - 1);
        }
        assert_eq!(read(&text).problem.map(|p| p.kind), Some(ProblemKind::Hostile));
    }

    #[test]
    fn templates_are_known_from_alerts_that_carry_braces() {
        let kind = |t: &str| read(t).problem.map(|p| p.kind);
        assert_eq!(kind("a: {{ .Values.a }}\n"), Some(ProblemKind::Template));
        assert_eq!(kind("{{- if .x }}\na: 1\n{{- end }}\n"), Some(ProblemKind::Template));
        assert_eq!(kind("a: 'rate {{ $value }}'\n"), None);
        assert_eq!(kind("a: [\n"), Some(ProblemKind::Syntax));
        // Characters of several bytes at the end of what is looked at.
        for n in 195..205 {
            assert!(kind(&format!("{{{{{}\u{11d09}: [", "x".repeat(n))).is_some());
        }
    }

    #[test]
    fn json_values_one_after_another_are_documents() {
        let text = "{\"a\": \"x\\u0041\", \"b\": {\"c\": 1}}\n{\"a\": \"ü\",\n \"a\": 2}\n";
        let p = read(text);
        assert_eq!(p.problem, None);
        let docs: Vec<_> = p.docs().collect();
        assert_eq!(docs.len(), 2);
        assert_eq!(docs[0].str_at("a"), Some("xA"));
        assert_eq!(slice(&p, docs[1].field("a").expect("a").value), "2");
        assert_eq!(p.tree.duplicates.len(), 1);
        assert_eq!(&text[p.tree.duplicates[0].1.range()], "\"a\"");
        assert!(read("{\"a\": 1}\n{\"b\":\n").problem.is_some());
    }

    #[test]
    fn a_broken_file_with_braces_in_its_texts_is_broken_and_no_template() {
        let kind = |t: &str| read(t).problem.map(|p| p.kind);
        assert_eq!(kind("a: \"{{ $value }} of {{ $labels.x }}\"\nb: [\n"), Some(ProblemKind::Syntax));
        assert_eq!(kind("a: {{ item }}\nb: [\n"), Some(ProblemKind::Template));
        assert_eq!(kind("a: |\n  {{ .Values.a }}\nb: '{{ .Values.b }}'\n"), Some(ProblemKind::Template));
    }

    #[test]
    fn braces_in_a_text_of_several_lines_are_no_template() {
        let text = "a: |\n  {{ include \"x\" . }}\n  y\nb: 1\n";
        assert_eq!(read(text).problem, None);
        assert!(read(&text.replace("b: 1", "b: '{{ .Values.b }}'")).problem.is_none_or(|p| p.kind == ProblemKind::Template));
    }

    #[test]
    fn json_is_read_too() {
        let p = read("{\n\t\"a\": {\"b\": [1, true, null, \"x\\/y\"]}\n}\n");
        assert_eq!(p.problem, None);
        let list = p.docs().next().and_then(|d| d.at(&["a", "b"]));
        let texts: Vec<_> = list.expect("list").items().map(View::scalar).collect();
        assert_eq!(texts, [Some("1"), Some("true"), None, Some("x/y")]);
    }
}
