//! `{{ canary.workload }}` and the like in a query: names of the rollout, put in as they are.
//!
//! What may stand there is a closed list, so that a misspelt name is told when the object is read, and not when nobody answers.

/// The names that a query may use, with what they are.
pub const NAMES: [(&str, &str); 8] = [
    ("namespace", "the release's"),
    ("service", "the Service"),
    ("canary.version", "the version on trial"),
    ("canary.workload", "its Deployment"),
    ("stable.version", "the version that serves"),
    ("stable.workload", "its Deployment"),
    ("interval", "of the analysis, as 10s"),
    ("rollout", "the rollout's uid"),
];

/// Fills a query in. `value` knows each of `NAMES`.
///
/// # Errors
/// A name that is none of them, or braces that are not closed.
pub fn render(query: &str, value: impl Fn(&str) -> String) -> Result<String, String> {
    let mut out = String::with_capacity(query.len());
    let mut rest = query;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, tail) = after.split_once("}}").ok_or_else(|| "{{ is not closed: write it as {{ canary.workload }}".to_owned())?;
        let name = name.trim();
        if !NAMES.iter().any(|(known, _)| *known == name) {
            let known: Vec<&str> = NAMES.iter().map(|(known, _)| *known).collect();
            return Err(format!("{{{{ {name} }}}} is none of {}", known.join(", ")));
        }
        out.push_str(before);
        out.push_str(&value(name));
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

/// Whether a query can be filled in.
///
/// # Errors
/// As `render`.
pub fn check(query: &str) -> Result<(), String> {
    render(query, |_| String::new()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in_and_others_are_told() {
        let value = |name: &str| format!("<{name}>");
        assert_eq!(
            render(r#"sum(x{w="{{canary.workload}}",n="{{ namespace }}"})"#, value).as_deref(),
            Ok(r#"sum(x{w="<canary.workload>",n="<namespace>"})"#)
        );
        assert_eq!(render("up", value).as_deref(), Ok("up"));
        assert!(check("x{{ canary.pod }}").is_err_and(|e| e.contains("canary.pod") && e.contains("canary.workload")));
        assert!(check("x{{ canary").is_err_and(|e| e.contains("not closed")));
    }
}
