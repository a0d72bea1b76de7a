//! The rules for names, labels and annotations, with Kubernetes' own sentences when they are broken.
//!
//! It knows nothing of kinds: which rule a kind's name follows is said where kinds are described.

/// What a name may look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameRule {
    /// RFC 1123 subdomain: most kinds.
    Subdomain,
    /// RFC 1123 label: namespaces.
    Label,
    /// RFC 1035 label: services of old, and what becomes a DNS name with a letter in front.
    Label1035,
    /// Any path segment: roles and bindings.
    PathSegment,
}

/// Why a name is not allowed, if it is not. `prefix` is set for `generateName`, where a dash may come last.
pub(super) fn name_problem(rule: NameRule, name: &str, prefix: bool) -> Option<String> {
    // A generated name gets letters and digits appended.
    let whole = if prefix { format!("{}a", name.trim_end_matches('-')) } else { name.to_owned() };
    let name = whole.as_str();
    match rule {
        NameRule::Subdomain => subdomain_problem(name),
        NameRule::Label => label_problem(name),
        NameRule::Label1035 => label1035_problem(name),
        NameRule::PathSegment => match name {
            "." | ".." => Some(format!("may not be '{name}'")),
            _ => ['/', '%'].into_iter().find(|c| name.contains(*c)).map(|c| format!("may not contain '{c}'")),
        },
    }
}

fn is_alnum(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(a), Some(z)) if is_alnum(*a) && is_alnum(*z))
        && bytes.iter().all(|c| is_alnum(*c) || *c == b'-')
}

/// Why this is no RFC 1123 label.
pub(super) fn label_problem(text: &str) -> Option<String> {
    if text.len() > 63 {
        return Some("must be no more than 63 characters".into());
    }
    (!is_label(text)).then(|| {
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an \
         alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            .into()
    })
}

/// Why this is no RFC 1123 subdomain.
pub(super) fn subdomain_problem(text: &str) -> Option<String> {
    if text.len() > 253 {
        return Some("must be no more than 253 characters".into());
    }
    (!text.split('.').all(is_label)).then(|| {
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end \
         with an alphanumeric character (e.g. 'example.com', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            .into()
    })
}

fn label1035_problem(text: &str) -> Option<String> {
    if text.len() > 63 {
        return Some("must be no more than 63 characters".into());
    }
    (!is_label(text) || !text.as_bytes()[0].is_ascii_lowercase()).then(|| {
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end \
         with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is \
         '[a-z]([-a-z0-9]*[a-z0-9])?')"
            .into()
    })
}

fn is_qualified(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(a), Some(z)) if a.is_ascii_alphanumeric() && z.is_ascii_alphanumeric())
        && bytes.iter().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c))
}

/// Why this is no key of a label or annotation (`app`, `example.com/app`).
pub(super) fn label_key_problem(key: &str) -> Option<String> {
    let name = match key.split_once('/') {
        Some((prefix, name)) => {
            if prefix.is_empty() {
                return Some("prefix part must be non-empty".into());
            }
            if let Some(why) = subdomain_problem(prefix) {
                return Some(format!("prefix part {why}"));
            }
            name
        }
        None => key,
    };
    if name.is_empty() {
        return Some("name part must be non-empty".into());
    }
    if name.len() > 63 {
        return Some("name part must be no more than 63 characters".into());
    }
    (!is_qualified(name)).then(|| {
        "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
         character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
         '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
            .into()
    })
}

/// Why this is no value of a label.
pub(super) fn label_value_problem(value: &str) -> Option<String> {
    if value.len() > 63 {
        return Some("must be no more than 63 bytes".into());
    }
    (!value.is_empty() && !is_qualified(value)).then(|| {
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end \
         with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
         '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            .into()
    })
}

/// Why this is no name of a port.
pub(super) fn port_name_problem(name: &str) -> Option<String> {
    if name.len() > 15 {
        return Some("must be no more than 15 characters".into());
    }
    if !name.bytes().all(|c| is_alnum(c) || c == b'-') {
        return Some("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !name.bytes().any(|c| c.is_ascii_lowercase()) {
        return Some("must contain at least one letter (a-z)".into());
    }
    (name.starts_with('-') || name.ends_with('-') || name.contains("--"))
        .then(|| "must not contain consecutive hyphens, nor begin or end with one".into())
}

/// Five characters for `generateName`, without vowels, so that no words come out.
pub(super) fn suffix() -> String {
    use std::hash::{BuildHasher, RandomState};
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rest = RandomState::new().hash_one(0u8);
    (0..5)
        .map(|_| {
            let at = usize::try_from(rest % LETTERS.len() as u64).unwrap_or_default();
            rest /= LETTERS.len() as u64;
            char::from(LETTERS[at])
        })
        .collect()
}
