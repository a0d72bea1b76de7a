//! Reads the reference tables: rows of named fields. No quoting but what these files need.

use std::collections::BTreeMap;

pub(crate) struct Row {
    fields: BTreeMap<String, String>,
    pub(crate) line: usize,
}

impl Row {
    pub(crate) fn text(&self, name: &str) -> &str {
        self.fields.get(name).unwrap_or_else(|| panic!("line {}: no field {name}", self.line))
    }

    /// Empty means that it does not exist.
    pub(crate) fn maybe(&self, name: &str) -> Option<f64> {
        let text = self.text(name);
        (!text.is_empty()).then(|| text.parse().unwrap_or_else(|e| panic!("line {}: {name} = {text}: {e}", self.line)))
    }

    pub(crate) fn get(&self, name: &str) -> f64 {
        self.maybe(name).unwrap_or_else(|| panic!("line {}: {name} is empty", self.line))
    }

    /// The fields whose names begin so, in the file's order of bounds.
    pub(crate) fn cumulative(&self) -> Vec<(f64, f64)> {
        let mut buckets: Vec<(f64, f64)> =
            self.fields.iter().filter_map(|(k, v)| Some((k.strip_prefix("le_")?.parse().ok()?, v.parse().ok()?))).collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets
    }
}

pub(crate) fn rows(file: &str) -> Vec<Row> {
    let mut lines = file.lines();
    let names: Vec<String> = split(lines.next().unwrap_or(""));
    lines.enumerate().map(|(i, l)| Row { fields: names.iter().cloned().zip(split(l)).collect(), line: i + 2 }).collect()
}

fn split(line: &str) -> Vec<String> {
    let (mut out, mut quoted) = (vec![String::new()], false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(String::new()),
            _ => out.last_mut().expect("never empty").push(c),
        }
    }
    out
}

/// Fails with the line and both numbers unless `got` is within `relative * scale` of `want`.
#[track_caller]
pub(crate) fn close(line: usize, what: &str, got: f64, want: f64, tolerance: f64) {
    assert!(
        got == want || (got - want).abs() <= tolerance,
        "line {line}: {what} is {got:e}, reference {want:e}, off by {:e}, allowed {tolerance:e}",
        (got - want).abs()
    );
}
