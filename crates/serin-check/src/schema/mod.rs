//! Field definitions of the kinds Serin judges, and a walk that compares objects with them.
//!
//! The definitions are two text files: `schema/kubernetes.txt`, generated from the Kubernetes
//! types, and `schema/istio.txt`, written by hand. Unknown kinds are not judged.

mod define;

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::diag::{Fix, fix, replace};
use crate::object::Object;
use crate::rules::nearest;
use crate::source::Loc;
use crate::yaml::{Type, View};

/// The type of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ty {
    Any,
    Str,
    /// `10s`, `1.5h`, `100ms`
    Duration,
    /// `500m`, `1Gi`, also a plain number
    Quantity,
    Int,
    Number,
    Bool,
    IntOrStr,
    Enum(Vec<&'static str>),
    List(Box<Ty>),
    Map(Box<Ty>),
    Named(usize),
}

#[derive(Debug, Clone)]
pub(crate) struct FieldDef {
    pub(crate) ty: Ty,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct TypeDef {
    pub(crate) name: &'static str,
    pub(crate) fields: HashMap<&'static str, FieldDef>,
    pub(crate) required: Vec<&'static str>,
}

#[derive(Debug, Clone)]
pub(crate) struct KindDef {
    pub(crate) group: &'static str,
    pub(crate) versions: Vec<&'static str>,
    pub(crate) ty: usize,
}

/// All definitions.
#[derive(Debug, Default)]
pub(crate) struct Schemas {
    pub(crate) types: Vec<TypeDef>,
    /// By kind: groups that have it, versions that are served, and the type.
    pub(crate) kinds: HashMap<&'static str, Vec<KindDef>>,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// No such field; perhaps another was meant.
    Unknown {
        hint: Option<String>,
        /// The definition is the one that the server has.
        sure: bool,
    },
    /// Another type is wanted.
    WrongType,
    /// A field lacks.
    Missing,
    /// The type is right, the value is not.
    BadValue,
    /// A rule over several fields says no.
    Refused,
}

/// One thing wrong.
#[derive(Debug, Clone)]
pub(crate) struct Issue {
    pub(crate) problem: Problem,
    pub(crate) loc: Loc,
    /// What to say at the place.
    pub(crate) label: String,
    pub(crate) help: Option<String>,
    pub(crate) fix: Option<Fix>,
}

impl Schemas {
    /// The compiled-in definitions.
    pub(crate) fn get() -> &'static Schemas {
        static SCHEMAS: OnceLock<Schemas> = OnceLock::new();
        SCHEMAS.get_or_init(|| {
            define::read(&[include_str!("../../schema/kubernetes.txt"), include_str!("../../schema/istio.txt")])
                // The files are compiled in and a test reads them.
                .unwrap_or_else(|e| unreachable!("schema: {e}"))
        })
    }

    /// Versions of a kind that present API servers serve.
    pub(crate) fn versions(&self, group: &str, kind: &str) -> Option<&[&'static str]> {
        self.kind(group, kind).map(|k| k.versions.as_slice())
    }

    /// Kinds of a group.
    pub(crate) fn kinds_of<'s>(&'s self, group: &'s str) -> impl Iterator<Item = &'static str> {
        self.kinds.iter().filter(move |(_, defs)| defs.iter().any(|d| d.group == group)).map(|(k, _)| *k)
    }

    /// Group and first version of kinds of this name in other groups.
    pub(crate) fn homes(&self, kind: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.kinds.get(kind).into_iter().flatten().map(|d| (d.group, d.versions[0]))
    }

    fn kind(&self, group: &str, kind: &str) -> Option<&KindDef> {
        self.kinds.get(kind)?.iter().find(|d| d.group == group)
    }

    /// Compares an object with its definition.
    pub(crate) fn check(&self, obj: &Object<'_>, out: &mut Vec<Issue>) {
        let Some(def) = self.kind(obj.group, obj.kind_name) else {
            return;
        };
        if def.versions.contains(&obj.version) {
            self.object(obj.view, def.ty, out);
        }
    }

    fn object(&self, view: View<'_>, def: usize, out: &mut Vec<Issue>) {
        let def = &self.types[def];
        for field in view.fields() {
            let Some(known) = def.fields.get(field.key) else {
                let hint = nearest(field.key, def.fields.keys().copied())
                    // A near word that is there already is not what was meant.
                    .filter(|h| view.field(h).is_none());
                let renamed = hint.and_then(|h| {
                    (!view.is_shared()).then(|| Fix {
                        title: format!("rename `{}` to `{h}`", field.key),
                        edits: vec![crate::diag::replace_at(field.key_loc, h)],
                    })
                });
                out.push(Issue {
                    problem: Problem::Unknown { hint: hint.map(str::to_owned), sure: false },
                    loc: field.key_loc,
                    label: format!("{} has no field `{}`", def.name, field.key),
                    help: Some(match hint {
                        Some(h) => format!("did you mean `{h}`?"),
                        None => elsewhere(self, field.key, def.name),
                    }),
                    fix: renamed,
                });
                continue;
            };
            if !field.value.is_null() {
                self.value(field.value, &known.ty, out);
            }
        }
        for name in &def.required {
            let misspelt = |i: &Issue| {
                matches!(&i.problem, Problem::Unknown { hint: Some(h), .. } if h == name) && view.loc().span.contains(i.loc.span)
            };
            if view.get(name).is_none() && !out.iter().any(misspelt) {
                let loc = match view.field(name) {
                    Some(f) => f.key_loc,
                    None => first_key(view),
                };
                out.push(Issue { problem: Problem::Missing, loc, label: format!("{} needs `{name}`", def.name), help: None, fix: None });
            }
        }
    }

    fn value(&self, view: View<'_>, ty: &Ty, out: &mut Vec<Issue>) {
        let got = view.ty();
        match ty {
            Ty::Any => {}
            Ty::Named(def) => match got {
                Type::Map => self.object(view, *def, out),
                _ => wrong(view, &format!("an object ({})", self.types[*def].name), out),
            },
            Ty::List(item) => match got {
                Type::Seq => {
                    for v in view.items().filter(|v| !v.is_null()) {
                        self.value(v, item, out);
                    }
                }
                _ => wrong(view, "a list", out),
            },
            Ty::Map(item) => match got {
                Type::Map => {
                    for f in view.fields().filter(|f| !f.value.is_null()) {
                        self.value(f.value, item, out);
                    }
                }
                _ => wrong(view, "a mapping", out),
            },
            Ty::Str => {
                if got != Type::Str {
                    wrong(view, "text", out);
                }
            }
            Ty::Duration => match view.str() {
                Some(text) if seconds(text).is_none() => out.push(Issue {
                    problem: Problem::BadValue,
                    loc: view.loc(),
                    label: "a duration is a number with a unit".to_owned(),
                    help: Some("write it like 500ms, 10s, 5m or 1h30m".to_owned()),
                    fix: None,
                }),
                Some(_) => {}
                None => wrong(view, "a duration such as 10s", out),
            },
            Ty::Quantity => match got {
                Type::Int | Type::Float => {}
                Type::Str if quantity(view.str().unwrap_or("")) => {}
                Type::Str => out.push(Issue {
                    problem: Problem::BadValue,
                    loc: view.loc(),
                    label: "not a quantity".to_owned(),
                    help: Some("write it like 500m, 2, 128Mi or 1Gi".to_owned()),
                    fix: None,
                }),
                _ => wrong(view, "a quantity such as 500m or 1Gi", out),
            },
            Ty::Int => {
                let whole = matches!(got, Type::Float) && view.number().is_some_and(|n| n.fract() == 0.0);
                if got != Type::Int && !whole {
                    wrong(view, "a whole number", out);
                }
            }
            Ty::Number => {
                if !matches!(got, Type::Int | Type::Float) {
                    wrong(view, "a number", out);
                }
            }
            Ty::Bool => {
                if got != Type::Bool {
                    wrong(view, "true or false", out);
                }
            }
            Ty::IntOrStr => {
                if !matches!(got, Type::Int | Type::Str) {
                    wrong(view, "a whole number or text", out);
                }
            }
            Ty::Enum(words) => match view.str() {
                Some(word) if words.contains(&word) => {}
                Some(word) => {
                    let hint = nearest(word, words.iter().copied()).or_else(|| {
                        let same = |w: &&&str| w.eq_ignore_ascii_case(word);
                        words.iter().find(same).copied()
                    });
                    out.push(Issue {
                        problem: Problem::BadValue,
                        loc: view.loc(),
                        label: format!("not one of {}", words.join(", ")),
                        help: hint.map(|h| format!("did you mean `{h}`?")),
                        fix: hint.and_then(|h| fix(format!("write `{h}`"), [replace(view, h)])),
                    });
                }
                None => wrong(view, &format!("one of {}", words.join(", ")), out),
            },
        }
    }
}

fn first_key(view: View<'_>) -> Loc {
    view.fields().next().map_or_else(|| view.loc(), |f| f.key_loc)
}

/// A field that stands one level too high or too low is the usual cause of an unknown one
/// that is spelt right.
fn elsewhere(schemas: &Schemas, key: &str, here: &str) -> String {
    let mut owners: Vec<&str> = schemas.types.iter().filter(|t| t.name != here && t.fields.contains_key(key)).map(|t| t.name).collect();
    owners.sort_unstable();
    owners.dedup();
    match owners.as_slice() {
        [] => "remove it, or check the spelling".to_owned(),
        [one] => format!("it is a field of {one}: check the indentation"),
        [a, b] => format!("it is a field of {a} and of {b}: check the indentation"),
        _ => "check the spelling and the indentation".to_owned(),
    }
}

fn wrong(view: View<'_>, want: &str, out: &mut Vec<Issue>) {
    let got = match view.ty() {
        Type::Null => "nothing",
        Type::Bool => "a boolean",
        Type::Int | Type::Float => "a number",
        Type::Str => "text",
        Type::Map => "a mapping",
        Type::Seq => "a list",
    };
    let raw = view.scalar();
    let unquoted = matches!(view.ty(), Type::Bool | Type::Int | Type::Float);
    let mut help = None;
    let mut mend = None;
    match raw {
        Some(raw) if unquoted && want == "text" && !view.is_quoted() => {
            help = Some(format!("quote it: \"{raw}\""));
            mend = fix(format!("quote \"{raw}\""), [replace(view, format!("\"{raw}\""))]);
        }
        Some(raw) if view.ty() == Type::Str && view.is_quoted() => {
            let fits = match want {
                "a whole number" => raw.parse::<i64>().is_ok(),
                "a number" => raw.parse::<f64>().is_ok_and(f64::is_finite),
                "true or false" => matches!(raw, "true" | "false"),
                _ => false,
            };
            if fits {
                help = Some(format!("write it without quotes: {raw}"));
                mend = fix("remove the quotes", [replace(view, raw)]);
            }
        }
        _ => {}
    }
    out.push(Issue {
        problem: Problem::WrongType,
        loc: if raw.is_some() { view.loc() } else { first_line(view) },
        label: format!("{want} is wanted, this is {got}"),
        help,
        fix: mend,
    });
}

/// A collection is pointed at by its first line only.
fn first_line(view: View<'_>) -> Loc {
    let mut loc = view.loc();
    let text = &view.file().source.text[loc.span.range()];
    let len = text.find(['\n', '\r']).unwrap_or(text.len());
    loc.span.end = loc.span.start + u32::try_from(len).unwrap_or(0);
    loc
}

/// Seconds of a Go duration (`1h30m`, `1.5s`, `100ms`).
pub(crate) fn seconds(text: &str) -> Option<f64> {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Some(0.0);
    }
    let mut total = 0.0;
    let mut any = false;
    while !rest.is_empty() {
        let n = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let value: f64 = rest[..n].parse().ok()?;
        rest = &rest[n..];
        let unit = [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)]
            .into_iter()
            .find(|(u, _)| rest.starts_with(u))?;
        // `ms` begins with `m`: the longer units stand first.
        total += value * unit.1;
        rest = &rest[unit.0.len()..];
        any = true;
    }
    any.then_some(if text.starts_with('-') { -total } else { total })
}

fn quantity(text: &str) -> bool {
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    let n = body.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(body.len());
    let number = &body[..n];
    let suffix = &body[n..];
    let exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|e| !e.is_empty() && e.parse::<i32>().is_ok());
    number.chars().any(|c| c.is_ascii_digit())
        && number.matches('.').count() <= 1
        && (exponent
            || matches!(suffix, "" | "n" | "u" | "m" | "k" | "M" | "G" | "T" | "P" | "E" | "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(seconds("1h30m"), Some(5400.0));
        assert_eq!(seconds("100ms"), Some(0.1));
        assert_eq!(seconds("1.5s"), Some(1.5));
        assert_eq!(seconds("0"), Some(0.0));
        assert_eq!(seconds("5"), None);
        assert_eq!(seconds("5x"), None);
        assert_eq!(seconds(""), None);
    }

    #[test]
    fn quantities_are_known() {
        for ok in ["1", "500m", "1.5Gi", "1e3", "128Mi"] {
            assert!(quantity(ok), "{ok}");
        }
        for bad in ["", "Gi", "1gb", "1.2.3", "1Kib"] {
            assert!(!quantity(bad), "{bad}");
        }
    }

    #[test]
    fn the_definitions_can_be_read() {
        assert!(Schemas::get().versions("apps", "Deployment").is_some());
        assert!(Schemas::get().versions("networking.istio.io", "VirtualService").is_some());
    }
}
