//! Instants, weights and names: parsed once at the door, valid ever after.
//!
//! Deliberately reads no clock and knows no time zone.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The time from `earlier` to `self`; zero when `earlier` is later, as after a clock that jumped back.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This instant, `by` later; saturates.
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This instant, `by` earlier; saturates.
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// The canary's part of the requests that its route sends to stable and canary together, exact to a thousandth of a percent.
///
/// Rests on the fact that Istio's weights are relative: a share of `w` of a total of 100,000 expresses each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Weight(u32);

impl Weight {
    /// Parts that make the whole.
    pub const WHOLE: u32 = 100_000;
    /// No request.
    pub const ZERO: Self = Self(0);
    /// Every request.
    pub const ALL: Self = Self(Self::WHOLE);

    /// From parts per 100,000; `None` above the whole.
    pub const fn from_parts(parts: u32) -> Option<Self> {
        if parts <= Self::WHOLE { Some(Self(parts)) } else { None }
    }

    /// From whole percent; `None` above 100.
    pub const fn percent(percent: u32) -> Option<Self> {
        if percent <= 100 { Some(Self(percent * 1000)) } else { None }
    }

    /// The share of `part` in `total`, rounded to the nearest part; zero of zero is zero.
    pub fn of(part: u64, total: u64) -> Self {
        if total == 0 {
            return Self::ZERO;
        }
        let parts = (u128::from(part.min(total)) * u128::from(Self::WHOLE) * 2 + u128::from(total)) / (2 * u128::from(total));
        Self(u32::try_from(parts).unwrap_or(Self::WHOLE).min(Self::WHOLE))
    }

    /// Parts per 100,000.
    pub const fn parts(self) -> u32 {
        self.0
    }

    /// As a fraction from 0 to 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE)
    }

    /// What is left for the other side.
    pub const fn rest(self) -> Self {
        Self(Self::WHOLE - self.0)
    }

    /// Pods that this share of `pods` pods' work needs: rounded up, so never too few.
    pub fn pods(self, pods: u32) -> u32 {
        let needed = (u64::from(self.0) * u64::from(pods)).div_ceil(u64::from(Self::WHOLE));
        u32::try_from(needed).unwrap_or(u32::MAX)
    }

    /// Reads `10` or `10%` or `0.5%`: at most three decimals, from 0 to 100.
    ///
    /// # Errors
    /// A fragment that says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let digits = text.strip_suffix('%').unwrap_or(text).trim();
        let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
        let plain = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !plain(whole) || (digits.contains('.') && !plain(decimals)) {
            return Err(format!("{text:?} is no weight: write a whole number of percent, as 10, or a string, as \"0.5%\""));
        }
        if decimals.len() > 3 {
            return Err(format!("{text:?} is finer than a thousandth of a percent, the finest share that a route can carry"));
        }
        let padded: u32 = format!("{decimals:0<3}").parse().map_err(|_| format!("{text:?} is no weight"))?;
        let parts = whole.parse::<u32>().ok().and_then(|w| w.checked_mul(1000)).and_then(|w| w.checked_add(padded));
        parts.and_then(Self::from_parts).ok_or_else(|| format!("{text:?} is more than 100 percent"))
    }
}

/// Percent, without needless decimals: `10 %`, `0.5 %`.
impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, decimals) = (self.0 / 1000, self.0 % 1000);
        if decimals == 0 {
            return write!(f, "{whole} %");
        }
        let decimals = format!("{decimals:03}");
        write!(f, "{whole}.{} %", decimals.trim_end_matches('0'))
    }
}

/// The value of the label that tells versions apart (`version: v2`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VersionName(String);

impl VersionName {
    /// A label value: 1 to 63 letters, digits, `-`, `_`, `.`, alphanumeric at both ends
    /// (Kubernetes, "Labels and Selectors: Syntax and character set").
    ///
    /// # Errors
    /// A fragment that says what is wrong.
    pub fn new(text: &str) -> Result<Self, String> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = text.as_bytes();
        if bytes.len() <= 63 && ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|b| inner(*b)) {
            Ok(Self(text.to_string()))
        } else {
            Err(format!(
                "{text:?} is no label value: at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit"
            ))
        }
    }

    /// The label's value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VersionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A duration as people write it: `1h 5m`, `90s` as `1m 30s`, `0.4s`.
pub fn duration_text(d: Duration) -> String {
    let s = d.as_secs();
    match s {
        0 if d.is_zero() => "0s".to_string(),
        0..10 if d.subsec_millis() >= 50 => format!("{}.{}s", s, d.subsec_millis() / 100),
        0..60 => format!("{s}s"),
        60..3600 if s.is_multiple_of(60) => format!("{}m", s / 60),
        60..3600 => format!("{}m {}s", s / 60, s % 60),
        _ if (s / 60).is_multiple_of(60) => format!("{}h", s / 3600),
        3600..172_800 => format!("{}h {}m", s / 3600, (s / 60) % 60),
        _ => format!("{}d {}h", s / 86_400, (s / 3600) % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_read_as_people_write_them() {
        for (text, parts) in [("10", 10_000), ("10%", 10_000), ("0.5%", 500), ("0", 0), ("100%", 100_000), ("0.001%", 1), ("33.3", 33_300)]
        {
            assert_eq!(Weight::parse(text).map(Weight::parts), Ok(parts), "{text}");
        }
        for text in ["", "%", "-1", "101", "100.001%", "1.2345%", "ten", "1e2", ".5%", "5.%", "99999999999"] {
            assert!(Weight::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn weights_show_without_needless_decimals() {
        for (text, shown) in [("10", "10 %"), ("0.5%", "0.5 %"), ("0.001%", "0.001 %"), ("12.25", "12.25 %")] {
            assert_eq!(Weight::parse(text).expect("a weight").to_string(), shown);
        }
    }

    #[test]
    fn pods_are_rounded_up() {
        let ten = Weight::percent(10).expect("a weight");
        assert_eq!([0, 1, 3, 10, 11].map(|n| ten.pods(n)), [0, 1, 1, 1, 2]);
    }
}
