//! The configuration file `.serin.yaml`, read by the linter's own parser so that its mistakes
//! have positions too.
//!
//! ```yaml
//! check:
//!   complete: true
//!   namespace: shop
//!   rate: 40
//!   deny: [warnings]
//!   select: [SRN3]
//!   ignore: [SRN212]
//!   severity: {SRN107: info, SRN212: off}
//!   exclude: ["vendor/**"]
//! ```
//!
//! Flags of the command line win over it; lists are added to.

use std::path::{Path, PathBuf};

use crate::diag::Severity;
use crate::rules::nearest;
use crate::run::{Deny, Options, unknown_codes};
use crate::source::{FileId, SourceFile};
use crate::yaml::{Type, View, parse};

/// Name of the file.
pub const FILE_NAME: &str = ".serin.yaml";

/// What the file says.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Options of the run.
    pub options: Options,
    /// What fails besides errors.
    pub deny: Deny,
    /// Globs of what to leave out of folders.
    pub exclude: Vec<String>,
}

/// Looks for [`FILE_NAME`] in a folder and those above it.
pub fn find(from: &Path) -> Option<PathBuf> {
    from.ancestors().map(|dir| dir.join(FILE_NAME)).find(|path| path.is_file())
}

/// Reads the file's text; all its mistakes, as `path:line:column: what`.
pub fn read(path: &str, text: &str) -> Result<Config, Vec<String>> {
    let parsed = parse(FileId(0), SourceFile::new(path, text));
    let mut problems = Vec::new();
    let source = &parsed.source;
    let place = |offset: u32| {
        let (line, column) = source.line_col(offset);
        format!("{path}:{line}:{column}")
    };
    if let Some(p) = &parsed.problem {
        return Err(vec![format!("{}: {}", place(p.span.start), p.message)]);
    }
    let mut config = Config::default();
    let mut bad = |view: View<'_>, what: String| {
        problems.push(format!("{}: {what}", place(view.loc().span.start)));
    };
    for doc in parsed.docs() {
        for top in doc.fields() {
            if top.key != "check" {
                // Other commands may have sections of their own.
                continue;
            }
            for field in top.value.fields() {
                if field.value.is_null() {
                    continue;
                }
                read_field(&mut config, field.key, field.value, &mut bad);
            }
        }
    }
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

const FIELDS: [&str; 8] = ["rate", "complete", "namespace", "deny", "select", "ignore", "severity", "exclude"];

fn read_field(config: &mut Config, key: &str, value: View<'_>, bad: &mut impl FnMut(View<'_>, String)) {
    let words = |bad: &mut dyn FnMut(View<'_>, String)| -> Vec<String> {
        let items: Vec<View<'_>> = match value.ty() {
            Type::Seq => value.items().collect(),
            _ => vec![value],
        };
        items
            .into_iter()
            .filter_map(|i| match i.str() {
                Some(text) => Some(text.to_owned()),
                None => {
                    bad(i, format!("`{key}` holds text"));
                    None
                }
            })
            .collect()
    };
    match key {
        "complete" => match value.bool() {
            Some(b) => config.options.complete = b,
            None => bad(value, "`complete` is true or false".to_owned()),
        },
        "namespace" => match value.str() {
            Some(s) => config.options.namespace = Some(s.to_owned()),
            None => bad(value, "`namespace` is text".to_owned()),
        },
        "rate" => match value.number() {
            Some(n) if n > 0.0 => config.options.rate = Some(n),
            _ => bad(value, "`rate` is a number of requests a second".to_owned()),
        },
        "deny" => {
            for word in words(bad) {
                match word.as_str() {
                    "warnings" => config.deny.warnings = true,
                    "depends" => config.deny.depends = true,
                    other => bad(value, format!("`{other}` cannot be denied; warnings and depends can")),
                }
            }
        }
        "select" | "ignore" => {
            let codes = words(bad);
            for code in unknown_codes(codes.iter().map(String::as_str)) {
                bad(value, format!("no rule is called {code}"));
            }
            if key == "select" {
                config.options.select = codes;
            } else {
                config.options.ignore = codes;
            }
        }
        "severity" => {
            for field in value.fields() {
                let Some(rule) = crate::rules::find(field.key) else {
                    bad(field.value, format!("no rule is called {}", field.key));
                    continue;
                };
                // Unquoted, `off` is a boolean to YAML.
                let word = field.value.scalar().unwrap_or("");
                let severity = match (Severity::parse(word), word) {
                    (Some(severity), _) => Some(severity),
                    (None, "off") => None,
                    (None, _) => {
                        bad(field.value, "it is error, warning, info or off".to_owned());
                        continue;
                    }
                };
                config.options.severities.insert(rule.code.to_owned(), severity);
            }
        }
        "exclude" => config.exclude = words(bad),
        other => {
            let hint = nearest(other, FIELDS).map_or_else(String::new, |h| format!(", did you mean `{h}`?"));
            bad(value, format!("`{other}` is not known{hint}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read() {
        let text = "check:\n  complete: true\n  deny: warnings\n  ignore: [SRN212]\n  severity: {SRN301: off, SRN302: info}\n";
        let config = read("x", text).expect("it is right");
        assert!(config.options.complete && config.deny.warnings);
        assert_eq!(config.options.ignore, ["SRN212"]);
        assert_eq!(config.options.severities.get("SRN301"), Some(&None));
    }

    #[test]
    fn mistakes_have_positions_and_all_are_told() {
        let text = "check:\n  complet: true\n  ignore: [SRN9999]\n";
        let problems = read("x", text).expect_err("it is wrong");
        assert_eq!(problems, ["x:2:12: `complet` is not known, did you mean `complete`?", "x:3:11: no rule is called SRN9999"]);
    }
}
