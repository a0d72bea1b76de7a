//! Prometheus' text format, as far as a scraper of counters and histograms needs it.
//!
//! Deliberately keeps series as they stand: no rates, no merging, no guesses at types.

/// One sample: a name, its labels as written, and a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// Labels in the order they were written, unescaped.
    pub labels: Vec<(String, String)>,
    /// The value; may be NaN or infinite.
    pub value: f64,
}

impl Sample {
    /// A label's value; empty if it is absent, as Prometheus reads it.
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }
}

/// The samples whose name `wanted` accepts. Lines that cannot be read are passed over: one torn line must not hide the rest.
pub fn samples<'a>(text: &'a str, wanted: impl Fn(&str) -> bool + 'a) -> impl Iterator<Item = Sample> + 'a {
    text.lines().filter_map(move |line| {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let end = line.find(|c: char| c == '{' || c.is_whitespace())?;
        let (name, rest) = line.split_at(end);
        if !wanted(name) {
            return None;
        }
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (Vec::new(), rest),
        };
        // A timestamp or an exemplar may follow the value.
        let value = number(rest.split_whitespace().next()?)?;
        Some(Sample { name: name.to_string(), labels, value })
    })
}

type Labels = Vec<(String, String)>;

/// The labels after `{`, and what follows `}`.
fn labels(text: &str) -> Option<(Labels, &str)> {
    let mut labels = Vec::new();
    let mut rest = text.trim_start();
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start().strip_prefix('"')?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (i, '"') => break i,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, c) => value.push(c),
            }
        };
        labels.push((name.trim().to_string(), value));
        rest = after[end + 1..].trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" | "Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" | "Nan" => Some(f64::NAN),
        text => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unescaped_and_exemplars_passed_over() {
        let text =
            "# TYPE a counter\na{x=\"1,}\\\"\\\\\\n\", y=\"\"} 3 # {trace=\"t\"} 1\nb 4 1700000\nbroken{x=\"\nc{le=\"+Inf\",} +Inf\n";
        let all: Vec<Sample> = samples(text, |_| true).collect();
        assert_eq!(all.len(), 3);
        assert_eq!(all[0].label("x"), "1,}\"\\\n");
        assert_eq!((all[0].value, all[1].value, all[2].value), (3.0, 4.0, f64::INFINITY));
        assert_eq!(all[2].label("le"), "+Inf");
    }
}
