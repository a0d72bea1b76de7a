//! A rule's page: its documentation, the text of `explain` and its test in one.
//!
//! ```markdown
//! # SRN301: callers inside the mesh bypass this route
//! error · istioctl: IST0132 · fix
//! ## What it finds
//! ## Why it hurts
//! ## Wrong
//! ## Right
//! ## Near miss
//! ```
//!
//! The YAML blocks under the last three are manifests; a line that ends in `# <-- SRN301`
//! is one that the rule must point at. A block opened with ```` ```yaml complete ```` is
//! checked as if nothing else existed.

use crate::diag::Severity;

/// A parsed page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// `SRN301`
    pub code: &'static str,
    /// The rule in one line.
    pub title: &'static str,
    /// How bad its findings are unless they say otherwise.
    pub severity: Severity,
    /// Codes of istioctl that find the same.
    pub istio: Vec<&'static str>,
    /// `check --fix` can mend it, at least in some cases.
    pub fixable: bool,
    /// The whole text.
    pub text: &'static str,
}

/// A manifest of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// `Wrong`, `Right` or `Near miss`.
    pub section: String,
    /// The YAML.
    pub yaml: String,
    /// It is to be checked as if nothing else existed.
    pub complete: bool,
    /// Line of the page on which the block begins, from 1.
    pub line: usize,
}

impl Page {
    /// Reads a page; says what is wrong with it.
    pub fn parse(text: &'static str) -> Result<Page, String> {
        let mut lines = text.lines();
        let head = lines.next().and_then(|l| l.strip_prefix("# "));
        let (code, title) = head.and_then(|h| h.split_once(": ")).ok_or("the first line must be `# CODE: title`")?;
        let front = lines.find(|l| !l.trim().is_empty()).unwrap_or("");
        let mut parts = front.split(" · ");
        let severity = parts.next().and_then(Severity::parse).ok_or("the second line must begin with error, warning or info")?;
        let mut istio = Vec::new();
        let mut fixable = false;
        for part in parts {
            if let Some(codes) = part.strip_prefix("istioctl: ") {
                istio = codes.split(", ").collect();
            } else if part == "fix" {
                fixable = true;
            } else {
                return Err(format!("`{part}` in the second line is not known"));
            }
        }
        Ok(Page { code, title, severity, istio, fixable, text })
    }

    /// Its manifests.
    pub fn examples(&self) -> Vec<Example> {
        let mut found = Vec::new();
        let mut section = String::new();
        let mut open: Option<Example> = None;
        for (n, line) in self.text.lines().enumerate() {
            if let Some(example) = &mut open {
                if line.trim_end() == "```" {
                    found.extend(open.take());
                } else {
                    example.yaml.push_str(line);
                    example.yaml.push('\n');
                }
            } else if let Some(name) = line.strip_prefix("## ") {
                name.clone_into(&mut section);
            } else if let Some(info) = line.strip_prefix("```yaml") {
                open = Some(Example { section: section.clone(), yaml: String::new(), complete: info.contains("complete"), line: n + 2 });
            }
        }
        found
    }
}
