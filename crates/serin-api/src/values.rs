//! Durations and ratios as people write them in objects: `2m`, `1h30m`, `500ms`; `0.5%`, `95%`.
//!
//! Deliberately stricter than what the libraries would take: what is read here must mean the same in every tool that
//! reads the object.

use std::time::Duration;

/// Pattern of a duration in the schema: hours, minutes, seconds, milliseconds, in this order, each once.
pub const DURATION_PATTERN: &str = r"^(\d{1,6}h)?(\d{1,6}m)?(\d{1,6}(\.\d{1,3})?s)?(\d{1,6}ms)?$";
/// Pattern of a share of the whole in the schema.
pub const PERCENT_PATTERN: &str = r"^(100(\.0{1,4})?|\d{1,2}(\.\d{1,4})?)%$";
/// Pattern of a factor in the schema.
pub const FACTOR_PATTERN: &str = r"^\d{1,3}(\.\d{1,4})?$";
/// Pattern of a growth in the schema, which may be more than the whole.
pub const GROWTH_PATTERN: &str = r"^\d{1,3}(\.\d{1,4})?%$";
/// Pattern of a plain number in the schema.
pub const NUMBER_PATTERN: &str = r"^[-+]?\d{1,18}(\.\d{1,9})?([eE][-+]?\d{1,2})?$";
/// Pattern of a weight written as a string.
pub const WEIGHT_PATTERN: &str = r"^(100(\.0{1,3})?|\d{1,2}(\.\d{1,3})?)%?$";

/// Reads `2m`, `1h30m`, `500ms`, `1.5s`.
///
/// # Errors
/// A fragment that says what to write instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("{text:?} is no duration: write hours, minutes, seconds and milliseconds in this order, as 1h30m, 2m, 90s or 500ms");
    let units = [("h", 3_600_000_u64), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let (mut rest, mut from, mut total) = (text, 0, 0_u64);
    if text.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let index = units.iter().skip(from).position(|(u, _)| *u == unit).ok_or_else(wrong)? + from;
        let scale = units[index].1;
        let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
        let plain = |s: &str, most: usize| !s.is_empty() && s.len() <= most && s.bytes().all(|b| b.is_ascii_digit());
        if !plain(whole, 6) || (number.contains('.') && (unit != "s" || !plain(decimals, 3))) {
            return Err(wrong());
        }
        total += whole.parse::<u64>().map_err(|_| wrong())? * scale;
        if !decimals.is_empty() {
            total += format!("{decimals:0<3}").parse::<u64>().map_err(|_| wrong())?;
        }
        (rest, from) = (tail, index + 1);
    }
    Ok(Duration::from_millis(total))
}

/// Writes a duration so that `duration` reads the same; whole milliseconds.
pub fn duration_string(d: Duration) -> String {
    let ms = u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let parts = [(ms / 3_600_000, "h"), (ms / 60_000 % 60, "m"), (ms / 1000 % 60, "s"), (ms % 1000, "ms")];
    let text: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { "0s".to_string() } else { text }
}

/// Reads `0.5%` as the nearest number to 0.005.
///
/// # Errors
/// A fragment that says what to write instead.
pub fn percent(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is no share: write percent as a string, as \"0.5%\"");
    let digits = text.strip_suffix('%').ok_or_else(wrong)?;
    let value = decimal(digits, 4).ok_or_else(wrong)?;
    if value > 100.0 {
        return Err(format!("{text:?} is more than the whole"));
    }
    // Parsed with an exponent, not divided: this is the double nearest to what was written.
    format!("{digits}e-2").parse().map_err(|_| wrong())
}

/// Reads a factor, as `1.5`.
///
/// # Errors
/// A fragment that says what to write instead.
pub fn factor(text: &str) -> Result<f64, String> {
    decimal(text, 4).ok_or_else(|| format!("{text:?} is no factor: write a plain number as a string, as \"1.5\""))
}

/// Reads how much something may grow, as `20%` or `150%`, as a fraction.
///
/// # Errors
/// A fragment that says what to write instead.
pub fn growth(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is no growth: write percent as a string, as \"20%\"");
    let digits = text.strip_suffix('%').filter(|digits| decimal(digits, 4).is_some()).ok_or_else(wrong)?;
    format!("{digits}e-2").parse().map_err(|_| wrong())
}

/// Reads a plain number, as `10`, `-0.5` or `1e6`.
///
/// # Errors
/// A fragment that says what to write instead.
pub fn number(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is no number: write it as a string, as \"10\" or \"0.5\"");
    let plain = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+')) && text.ends_with(|c: char| c.is_ascii_digit());
    let value: f64 = if plain { text.parse().map_err(|_| wrong())? } else { return Err(wrong()) };
    if value.is_finite() { Ok(value) } else { Err(wrong()) }
}

fn decimal(text: &str, most_decimals: usize) -> Option<f64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let plain = |s: &str, most: usize| !s.is_empty() && s.len() <= most && s.bytes().all(|b| b.is_ascii_digit());
    if !plain(whole, 3) || (text.contains('.') && !plain(decimals, most_decimals)) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, ms) in [
            ("2m", 120_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("1.5s", 1500),
            ("0s", 0),
            ("24h", 86_400_000),
            ("1m30s", 90_000),
            ("2s500ms", 2500),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "2", "m", "2 m", "-1s", "1d", "30m1h", "1m1m", "1.5m", "1.2345s", "9999999s", "1e3s", "5min", ".5s", "µs"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_written_as_they_are_read() {
        for ms in [0, 1, 999, 1000, 60_000, 61_001, 3_600_000, 90_061_001] {
            let d = Duration::from_millis(ms);
            assert_eq!(duration(&duration_string(d)), Ok(d));
        }
    }

    #[test]
    fn shares_are_the_nearest_double_to_what_is_written() {
        for (text, value) in
            [("0.5%", 0.005), ("0.3%", 0.003), ("1%", 0.01), ("95%", 0.95), ("99.9%", 0.999), ("0%", 0.0), ("100%", 1.0_f64)]
        {
            assert_eq!(percent(text).map(f64::to_bits), Ok(value.to_bits()), "{text}");
        }
        for text in ["", "%", "0.5", "-1%", "101%", "1e1%", "0.12345%", "5 %", "inf%", "NaN%"] {
            assert!(percent(text).is_err(), "{text}");
        }
    }
}
