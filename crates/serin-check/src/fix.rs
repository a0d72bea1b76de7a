//! Mending: the certain and local changes that findings carry, applied to the texts.
//!
//! Each change is checked again: it stays only if its finding is gone and no other came. What
//! is not edited keeps its bytes, comments and layout.

use std::collections::{BTreeMap, HashMap};

use crate::diag::{Certainty, Edit, Finding};
use crate::run::{Input, Options, Report, check};

/// Fixes may uncover others; more rounds than this are never needed in practice.
const MAX_ROUNDS: usize = 8;

/// A change that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The rule.
    pub code: &'static str,
    /// What was done.
    pub title: String,
    /// In which file.
    pub path: String,
    /// At which line of the text before.
    pub line: usize,
}

/// What mending did.
#[derive(Debug, Clone)]
pub struct Fixed {
    /// All texts, changed or not.
    pub inputs: Vec<Input>,
    /// Paths whose text changed, with old and new text.
    pub changed: Vec<(String, String, String)>,
    /// The changes.
    pub applied: Vec<Applied>,
    /// What is still found afterwards.
    pub report: Report,
}

type Key = (&'static str, String, String);

fn keys(report: &Report) -> HashMap<Key, usize> {
    let mut found = HashMap::new();
    for f in &report.findings {
        let object = f.object.as_ref().map_or_else(String::new, |o| format!("{}/{}", o.kind, o.name));
        *found.entry((f.code, object, f.title.clone())).or_default() += 1;
    }
    found
}

/// Whether `after` has only findings that `before` had, and fewer of them. Objects that could
/// not be told apart before may show what else is wrong with them.
fn is_better(before: &Report, after: &Report, fixed: &[Finding]) -> bool {
    let old = keys(before);
    if fixed.iter().any(|f| f.code == "SRN003") {
        let n = |r: &Report| r.findings.iter().filter(|f| f.code == "SRN003").count();
        return n(after) < n(before) && !after.findings.iter().any(|f| f.code == "SRN001");
    }
    let n_fixed = fixed.len();
    let none_new = keys(after).iter().all(|(k, n)| old.get(k).is_some_and(|o| o >= n));
    none_new && after.findings.len() + n_fixed <= before.findings.len()
}

fn overlaps(a: &Edit, b: &Edit) -> bool {
    a.loc.file == b.loc.file
        && (a.loc.span.start < b.loc.span.end && b.loc.span.start < a.loc.span.end || a.loc.span.start == b.loc.span.start)
}

fn apply_edits(inputs: &[Input], edits: &[Edit]) -> Vec<Input> {
    let mut by_file: BTreeMap<usize, Vec<&Edit>> = BTreeMap::new();
    for edit in edits {
        by_file.entry(edit.loc.file.0 as usize).or_default().push(edit);
    }
    let mut out = inputs.to_vec();
    for (file, mut edits) in by_file {
        edits.sort_by_key(|e| std::cmp::Reverse(e.loc.span));
        for edit in edits {
            let range = edit.loc.span.range();
            if range.end <= out[file].bytes.len() {
                out[file].bytes.splice(range, edit.text.bytes());
            }
        }
    }
    out
}

/// Applies all fixes that hold.
pub fn apply(inputs: &[Input], options: &Options) -> Fixed {
    let original = inputs.to_vec();
    let mut inputs = inputs.to_vec();
    let mut report = check(inputs.clone(), options);
    let mut applied = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let candidates: Vec<Finding> = report
            .findings
            .iter()
            .filter(|f| f.certainty == Certainty::Certain)
            .filter(|f| f.fix.as_ref().is_some_and(|fix| fix.edits.iter().all(|e| !inputs[e.loc.file.0 as usize].live)))
            .cloned()
            .collect();
        let Some((next, next_report, done)) = round(&inputs, &report, &candidates, options) else {
            break;
        };
        for f in done {
            let file = report.file(f.primary.loc);
            applied.push(Applied {
                code: f.code,
                title: f.fix.as_ref().map(|x| x.title.clone()).unwrap_or_default(),
                path: file.path.clone(),
                line: file.line(f.primary.loc.span.start),
            });
        }
        inputs = next;
        report = next_report;
    }
    let changed = original
        .iter()
        .zip(&inputs)
        .filter(|(a, b)| a.bytes != b.bytes)
        .map(|(a, b)| {
            let text = |i: &Input| String::from_utf8_lossy(&i.bytes).into_owned();
            (a.path.clone(), text(a), text(b))
        })
        .collect();
    Fixed { inputs, changed, applied, report }
}

type Round = (Vec<Input>, Report, Vec<Finding>);

/// All fixes of a round together; if that does not hold, one by one.
fn round(inputs: &[Input], report: &Report, candidates: &[Finding], options: &Options) -> Option<Round> {
    let mut taken: Vec<Finding> = Vec::new();
    let mut edits: Vec<Edit> = Vec::new();
    for f in candidates {
        let Some(fix) = &f.fix else { continue };
        let free = |e: &Edit| !edits.iter().any(|o| overlaps(o, e) && o != e);
        if fix.edits.iter().all(free) {
            for e in &fix.edits {
                if !edits.contains(e) {
                    edits.push(e.clone());
                }
            }
            taken.push(f.clone());
        }
    }
    if taken.is_empty() {
        return None;
    }
    let next = apply_edits(inputs, &edits);
    let after = check(next.clone(), options);
    if is_better(report, &after, &taken) {
        return Some((next, after, taken));
    }
    taken.into_iter().find_map(|f| {
        let edits = f.fix.as_ref().map(|x| x.edits.clone())?;
        let next = apply_edits(inputs, &edits);
        let after = check(next.clone(), options);
        is_better(report, &after, std::slice::from_ref(&f)).then(|| (next, after, vec![f]))
    })
}

/// A unified diff with three lines of context; empty for equal texts.
pub fn diff(path: &str, old: &str, new: &str) -> String {
    if old == new {
        return String::new();
    }
    let a: Vec<&str> = old.split_inclusive('\n').collect();
    let b: Vec<&str> = new.split_inclusive('\n').collect();
    let ops = line_ops(&a, &b);
    let mut out = format!("--- {path}\n+++ {path}\n");
    for hunk in hunks(&ops) {
        let (old_start, new_start) = hunk.first().map_or((0, 0), |op| (op.old_line, op.new_line));
        let n_old = hunk.iter().filter(|o| o.sign != '+').count();
        let n_new = hunk.iter().filter(|o| o.sign != '-').count();
        let side = |start: usize, n: usize| match n {
            0 => format!("{start},0"),
            _ => format!("{},{n}", start + 1),
        };
        out.push_str(&format!("@@ -{} +{} @@\n", side(old_start, n_old), side(new_start, n_new)));
        for op in hunk {
            let text = if op.sign == '+' { b[op.new_line] } else { a[op.old_line] };
            out.push(op.sign);
            out.push_str(text);
            if !text.ends_with('\n') {
                out.push_str("\n\\ No newline at end of file\n");
            }
        }
    }
    out
}

#[derive(Clone, Copy)]
struct Op {
    sign: char,
    old_line: usize,
    new_line: usize,
}

/// Groups operations into hunks: changes with up to three equal lines around them.
fn hunks(ops: &[Op]) -> Vec<&[Op]> {
    let changes: Vec<usize> = (0..ops.len()).filter(|i| ops[*i].sign != ' ').collect();
    let mut found: Vec<(usize, usize)> = Vec::new();
    for i in changes {
        let (from, to) = (i.saturating_sub(3), (i + 4).min(ops.len()));
        match found.last_mut() {
            Some(last) if from <= last.1 => last.1 = to,
            _ => found.push((from, to)),
        }
    }
    found.into_iter().map(|(a, b)| &ops[a..b]).collect()
}

/// Longest common subsequence of what lies between the common start and end. Fixes change
/// few lines, so the table stays small; a large one falls back to replacing the middle.
fn line_ops(a: &[&str], b: &[&str]) -> Vec<Op> {
    let start = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let end = a[start..].iter().rev().zip(b[start..].iter().rev()).take_while(|(x, y)| x == y).count();
    let (mid_a, mid_b) = (&a[start..a.len() - end], &b[start..b.len() - end]);
    let mut ops = Vec::new();
    let mut push = |sign, old_line, new_line| {
        ops.push(Op { sign, old_line, new_line });
    };
    for i in 0..start {
        push(' ', i, i);
    }
    let (n, m) = (mid_a.len(), mid_b.len());
    let small = n.saturating_mul(m) <= 4_000_000;
    let mut table = vec![0u32; if small { (n + 1) * (m + 1) } else { 0 }];
    if small {
        for i in (0..n).rev() {
            for j in (0..m).rev() {
                table[i * (m + 1) + j] = if mid_a[i] == mid_b[j] {
                    table[(i + 1) * (m + 1) + j + 1] + 1
                } else {
                    table[(i + 1) * (m + 1) + j].max(table[i * (m + 1) + j + 1])
                };
            }
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < n || j < m {
        let (x, y) = (start + i, start + j);
        if small && i < n && j < m && mid_a[i] == mid_b[j] {
            push(' ', x, y);
            i += 1;
            j += 1;
        } else if i < n && (j == m || !small || table[(i + 1) * (m + 1) + j] >= table[i * (m + 1) + j + 1]) {
            push('-', x, y);
            i += 1;
        } else {
            push('+', x, y);
            j += 1;
        }
    }
    for k in 0..end {
        push(' ', a.len() - end + k, b.len() - end + k);
    }
    ops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_reads_as_patch_wants_it() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\n";
        let new = "a\nb\nc\nX\ne\nf\ng\nh\ni\n";
        assert_eq!(diff("f", old, new), "--- f\n+++ f\n@@ -1,8 +1,9 @@\n a\n b\n c\n-d\n+X\n e\n f\n g\n h\n+i\n");
        assert_eq!(diff("f", old, old), "");
        assert_eq!(diff("f", "a", "b\n"), "--- f\n+++ f\n@@ -1,1 +1,1 @@\n-a\n\\ No newline at end of file\n+b\n");
    }
}
