//! Subset names from version labels.
//!
//! A label value may hold capitals, dots and underscores; a subset's name is a DNS label (Istio's `ValidateSubsets` asks for
//! `IsDNS1123Label`), so version `2.0.0` is no legal subset name.
//!
//! Deliberately no look at existing rules: a subset that selects the version already keeps its name, see
//! [`super::rules::Rules::subset_for`].

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;

/// The longest DNS label (RFC 1123).
const LONGEST: usize = 63;

/// Digits of the suffix: 40 bits, so that two versions of one service never meet in practice (a million of them would with a
/// chance of one in two; a service has tens).
const DIGITS: usize = 10;

/// The subset name for a version, the same on every call, in every release of Serin.
///
/// A version that is a DNS label is its own name (`v2`, `2-0-0`). Any other becomes its legal characters and a suffix `-x`
/// with ten hexadecimal digits of its hash (`2.0.0` becomes `2-0-0-x…`), so that `v1.0` and `v1-0` differ. A version that
/// happens to end like such a suffix is treated as not legal, so that it cannot meet another's.
pub fn slug(version: &str) -> String {
    if is_dns_label(version) && !ends_in_suffix(version) {
        return version.to_owned();
    }
    let mut legal = String::with_capacity(version.len());
    for c in version.chars().map(|c| c.to_ascii_lowercase()) {
        match c {
            'a'..='z' | '0'..='9' => legal.push(c),
            _ if legal.is_empty() || legal.ends_with('-') => {}
            _ => legal.push('-'),
        }
    }
    legal.truncate(LONGEST - DIGITS - 2);
    let legal = legal.trim_end_matches('-');
    let hash = fnv1a(version.as_bytes());
    // Both halves count: the low bits of FNV-1a alone mix the first characters poorly.
    let folded = (hash >> 40) ^ (hash & 0xff_ffff_ffff);
    let separator = if legal.is_empty() { "" } else { "-" };
    format!("{legal}{separator}x{folded:010x}")
}

/// Lower-case letters, digits and `-`, not at the ends, 1 to 63 characters.
pub fn is_dns_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let bytes = text.as_bytes();
    (1..=LONGEST).contains(&bytes.len()) && bytes.iter().all(|b| inner(*b)) && bytes.first() != Some(&b'-') && bytes.last() != Some(&b'-')
}

fn ends_in_suffix(text: &str) -> bool {
    let last = text.rsplit('-').next().unwrap_or(text);
    match last.strip_prefix('x') {
        Some(digits) => digits.len() == DIGITS && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
        None => false,
    }
}

/// FNV-1a with 64 bits (Fowler, Noll, Vo; draft-eastlake-fnv): short, without dependencies, and fixed for all time.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
