//! `{{ canary.workload }}` and the like in a query: names of the rollout, put in as they are.
//!
//! What may stand there is a closed list, so that a misspelt name is told when the object is read, and not when nobody answers.

/// The names that a selector of counters may use besides: it is asked of each version.
pub const ARM_NAMES: [(&str, &str); 2] = [("arm.version", "the version that is counted"), ("arm.workload", "its Deployment")];

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
    fill(query, &NAMES.map(|(name, _)| name), value)
}

/// Fills a selector of counters in, for one arm. `value` knows each of `NAMES` and of `ARM_NAMES`.
///
/// # Errors
/// As `render`.
pub fn render_selector(selector: &str, value: impl Fn(&str) -> String) -> Result<String, String> {
    let names: Vec<&str> = NAMES.iter().chain(&ARM_NAMES).map(|(name, _)| *name).collect();
    fill(selector, &names, value)
}

fn fill(query: &str, names: &[&str], value: impl Fn(&str) -> String) -> Result<String, String> {
    let mut out = String::with_capacity(query.len());
    let mut rest = query;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, tail) = after.split_once("}}").ok_or_else(|| "{{ is not closed: write it as {{ canary.workload }}".to_owned())?;
        let name = name.trim();
        if !names.contains(&name) {
            return Err(format!("{{{{ {name} }}}} is none of {}", names.join(", ")));
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

/// Whether a text is a selector of series that tells the arms apart: a metric's name, its labels, or both, and nothing else. What it selects is read
/// raw, sample by sample, so that no increase is guessed; no function can stand about it.
///
/// # Errors
/// What is wrong, and what to write.
pub fn check_selector(selector: &str) -> Result<(), String> {
    const SHAPE: &str = "write a counter's name with its labels, as orders_total{workload=\"{{ arm.workload }}\"}";
    render_selector(selector, |_| String::new())?;
    if !ARM_NAMES.iter().any(|(name, _)| {
        render_selector(selector, |n| if n == *name { "\0".to_owned() } else { String::new() }).is_ok_and(|t| t.contains('\0'))
    }) {
        return Err(format!(
            "names neither {{{{ arm.workload }}}} nor {{{{ arm.version }}}}, so both versions would be counted as one: {SHAPE}"
        ));
    }
    let plain = render_selector(selector, |_| "x".to_owned())?;
    let plain = plain.trim();
    let name = plain.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).map_or(plain, |end| &plain[..end]);
    let labels = plain[name.len()..].trim();
    let named = !name.starts_with(|c: char| c.is_ascii_digit());
    if named && closes_once(labels) { Ok(()) } else { Err(format!("is no plain selector: {SHAPE}")) }
}

/// Whether a text is one pair of braces, with nothing before, between or behind; braces inside quotes are text.
fn closes_once(text: &str) -> bool {
    let Some(inside) = text.strip_prefix('{') else { return false };
    let mut quote = None;
    let mut chars = inside.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            // Between backticks a backslash is a backslash.
            (Some('"' | '\''), '\\') => drop(chars.next()),
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'' | '`') => quote = Some(c),
            (None, '}') => return inside[at + 1..].is_empty(),
            (None, '{') => return false,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_one_counter_of_one_arm() {
        for good in [
            r#"orders_total{workload="{{ arm.workload }}"}"#,
            r#" shop:orders{version="{{arm.version}}",path=~"/a{2}|\"}"} "#,
            r#"{__name__="orders",w='{{ arm.workload }}'}"#,
        ] {
            assert_eq!(check_selector(good), Ok(()), "{good}");
        }
        for (bad, said) in [
            ("orders_total", "names neither"),
            (r#"orders_total{workload="{{ canary.workload }}"}"#, "names neither"),
            (r#"sum(orders_total{workload="{{ arm.workload }}"})"#, "no plain selector"),
            (r#"orders_total{workload="{{ arm.workload }}"}[5m]"#, "no plain selector"),
            (r#"orders_total{workload="{{ arm.workload }}"} or up"#, "no plain selector"),
            (r#"orders_total{workload="{{ arm.workload }}""#, "no plain selector"),
            (r#"a{w="{{ arm.workload }}"} or b{x="}"#, "no plain selector"),
            (r#"a{w="{{ arm.workload }}",x=`\`} or up #`}"#, "no plain selector"),
            (r#"1x{workload="{{ arm.workload }}"}"#, "no plain selector"),
            (r#"orders_total{workload="{{ arm.pod }}"}"#, "arm.pod"),
        ] {
            assert!(check_selector(bad).is_err_and(|e| e.contains(said)), "{bad}: {:?}", check_selector(bad));
        }
        let value = |name: &str| format!("<{name}>");
        assert_eq!(
            render_selector("a{w=\"{{ arm.workload }}\",n=\"{{ namespace }}\"}", value).as_deref(),
            Ok("a{w=\"<arm.workload>\",n=\"<namespace>\"}")
        );
        assert!(render("a{{ arm.workload }}", value).is_err(), "a query is asked once");
    }

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
