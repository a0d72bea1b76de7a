//! What an unquoted scalar means to Kubernetes' clients.
//!
//! sigs.k8s.io/yaml is go-yaml v2: YAML 1.1 booleans (`yes`, `on`), octal `0755`, `1_000`.
//! Timestamps are left as text, which is what reaches the API server.

use super::Value;

/// Resolves a plain scalar.
pub(super) fn resolve(text: &str) -> Value {
    let Some(first) = text.bytes().next() else {
        return Value::Null;
    };
    match first {
        b'~' | b'n' | b'N' | b'y' | b'Y' | b't' | b'T' | b'f' | b'F' | b'o' | b'O' => word(text),
        b'0'..=b'9' | b'+' | b'-' | b'.' => number(text).unwrap_or(Value::Str),
        _ => Value::Str,
    }
}

fn word(text: &str) -> Value {
    match text {
        "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        _ => Value::Str,
    }
}

fn number(text: &str) -> Option<Value> {
    match text {
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Some(Value::Float(f64::INFINITY));
        }
        "-.inf" | "-.Inf" | "-.INF" => return Some(Value::Float(f64::NEG_INFINITY)),
        ".nan" | ".NaN" | ".NAN" => return Some(Value::Float(f64::NAN)),
        _ => {}
    }
    if text.len() > 40 || !text.bytes().any(|b| b.is_ascii_digit()) {
        return None;
    }
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    if let Some(n) = int(&plain) {
        return Some(Value::Int(n));
    }
    float(&plain).map(Value::Float)
}

fn int(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let radix = |prefix: [&str; 2], base| {
        prefix
            .iter()
            .find_map(|p| digits.strip_prefix(p))
            .filter(|d| d.bytes().next().is_some_and(|b| b != b'+' && b != b'-'))
            .and_then(|d| i64::from_str_radix(d, base).ok())
    };
    let value = if digits.len() > 1 && digits.starts_with('0') {
        radix(["0x", "0X"], 16)
            .or_else(|| radix(["0b", "0B"], 2))
            .or_else(|| radix(["0o", "0O"], 8))
            .or_else(|| i64::from_str_radix(&digits[1..], 8).ok())?
    } else if digits.bytes().all(|b| b.is_ascii_digit()) && !digits.is_empty() {
        digits.parse().ok()?
    } else {
        return None;
    };
    Some(sign * value)
}

/// go-yaml: `^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`.
fn float(text: &str) -> Option<f64> {
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(body);
    let mut rest = &body[whole..];
    let mut part = 0;
    if let Some(after) = rest.strip_prefix('.') {
        part = digits(after);
        rest = &after[part..];
    }
    if whole == 0 && part == 0 {
        return None;
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        if exponent.is_empty() || digits(exponent) != exponent.len() {
            return None;
        }
    } else if !rest.is_empty() {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        format!("{:?}", resolve(text))
    }

    #[test]
    fn scalars_mean_what_kubernetes_clients_take_them_for() {
        for (text, want) in [
            ("on", "Bool(true)"),
            ("No", "Bool(false)"),
            ("nope", "Str"),
            ("1", "Int(1)"),
            ("-12", "Int(-12)"),
            ("0755", "Int(493)"),
            ("0x1F", "Int(31)"),
            ("1_000", "Int(1000)"),
            ("1.0", "Float(1.0)"),
            ("1e3", "Float(1000.0)"),
            (".5", "Float(0.5)"),
            ("1.2.3", "Str"),
            ("10.0.0.1", "Str"),
            ("1e", "Str"),
            ("-", "Str"),
            ("10s", "Str"),
            ("0.5%", "Str"),
            ("", "Null"),
            ("~", "Null"),
            ("089", "Float(89.0)"),
            ("2001-12-14", "Str"),
        ] {
            assert_eq!(shown(text), want, "{text}");
        }
    }
}
