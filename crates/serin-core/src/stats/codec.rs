//! Checkpoints: numbers to a short text and back, bit for bit.
//!
//! JSON readers differ in the last digit of a number, and one digit is another verdict after a restart; so the numbers travel as
//! bytes in base64url. Whole numbers, which most counts are, take one to seven bytes, all others nine. A check sum finds damage.
//! What the numbers mean is the caller's.

use alloc::string::String;
use alloc::vec::Vec;

/// Why a checkpoint cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Written by another version of Serin.
    #[error("the checkpoint has format {found}, and only {known} is known here: the evidence has to start anew")]
    UnknownFormat {
        /// What it says.
        found: String,
        /// What this version reads.
        known: u8,
    },
    /// Not what was written.
    #[error("the checkpoint is damaged ({what}): the evidence has to start anew")]
    Damaged {
        /// What does not fit.
        what: &'static str,
    },
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Whole numbers below this are written short; it keeps them within seven bytes.
const SHORT: f64 = 562_949_953_421_311.0; // 2^49 - 1

/// Collects numbers.
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::with_capacity(512) }
    }

    pub(crate) fn number(&mut self, value: f64) {
        // A short number is written plus one, seven bits a byte: its first byte is never 0, which marks a long one. Minus zero is long.
        let whole = value as u64;
        if (0.0..SHORT).contains(&value) && (whole as f64).to_bits() == value.to_bits() {
            let mut rest = whole + 1;
            while rest >= 0x80 {
                self.bytes.push((rest as u8 & 0x7f) | 0x80);
                rest >>= 7;
            }
            self.bytes.push(rest as u8);
        } else {
            self.bytes.push(0);
            self.bytes.extend_from_slice(&value.to_bits().to_le_bytes());
        }
    }

    /// The text: format, a dot, the numbers and their check sum.
    pub(crate) fn finish(mut self, format: u8) -> String {
        let sum = checksum(&self.bytes);
        self.bytes.extend_from_slice(&sum.to_le_bytes());
        let mut text = alloc::format!("{format}.");
        text.reserve(self.bytes.len() * 4 / 3 + 4);
        for chunk in self.bytes.chunks(3) {
            let word = chunk.iter().fold(0_u32, |w, b| (w << 8) | u32::from(*b)) << (8 * (3 - chunk.len()));
            for i in 0..=chunk.len() {
                text.push(char::from(ALPHABET[(word >> (18 - 6 * i)) as usize & 63]));
            }
        }
        text
    }
}

/// Gives them back in the same order.
pub(crate) struct Reader {
    bytes: Vec<u8>,
    at: usize,
}

impl Reader {
    pub(crate) fn new(text: &str, known: u8) -> Result<Self, CheckpointError> {
        let damaged = |what| CheckpointError::Damaged { what };
        let (format, body) = text.split_once('.').ok_or(damaged("no format number"))?;
        if format != alloc::format!("{known}") {
            return Err(CheckpointError::UnknownFormat { found: format.chars().take(20).collect(), known });
        }
        let mut bytes = Vec::with_capacity(body.len() * 3 / 4);
        for chunk in body.as_bytes().chunks(4) {
            let mut word = 0_u32;
            for c in chunk {
                let six = match c {
                    b'A'..=b'Z' => c - b'A',
                    b'a'..=b'z' => c - b'a' + 26,
                    b'0'..=b'9' => c - b'0' + 52,
                    b'-' => 62,
                    b'_' => 63,
                    _ => return Err(damaged("a character that is none of its alphabet")),
                };
                word = (word << 6) | u32::from(six);
            }
            word <<= 6 * (4 - chunk.len());
            bytes.extend_from_slice(&word.to_be_bytes()[1..chunk.len().max(1)]);
        }
        let split = bytes.len().checked_sub(4).ok_or(damaged("too short"))?;
        let sum = bytes.split_off(split);
        if sum != checksum(&bytes).to_le_bytes() {
            return Err(damaged("its check sum is another"));
        }
        Ok(Self { bytes, at: 0 })
    }

    pub(crate) fn number(&mut self) -> Result<f64, CheckpointError> {
        let value = if self.byte()? == 0 {
            let mut raw = [0; 8];
            for b in &mut raw {
                *b = self.byte()?;
            }
            f64::from_bits(u64::from_le_bytes(raw))
        } else {
            self.at -= 1;
            let (mut value, mut shift) = (0_u64, 0);
            loop {
                let b = self.byte()?;
                value |= u64::from(b & 0x7f) << shift;
                shift += 7;
                if b < 0x80 {
                    break;
                }
                if shift > 49 {
                    return Err(CheckpointError::Damaged { what: "a number that is too long" });
                }
            }
            value.saturating_sub(1) as f64
        };
        if value.is_finite() { Ok(value) } else { Err(CheckpointError::Damaged { what: "a number that is none" }) }
    }

    pub(crate) fn end(&self) -> Result<(), CheckpointError> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(CheckpointError::Damaged { what: "more than was written" }) }
    }

    fn byte(&mut self) -> Result<u8, CheckpointError> {
        let b = self.bytes.get(self.at).copied().ok_or(CheckpointError::Damaged { what: "too short" })?;
        self.at += 1;
        Ok(b)
    }
}

/// FNV-1a: finds typing and cutting, is no defence against malice (who can write the status can write the weights).
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, b| (sum ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    fn write(numbers: &[f64]) -> String {
        let mut w = Writer::new();
        numbers.iter().for_each(|n| w.number(*n));
        w.finish(1)
    }

    fn read(text: &str, many: usize) -> Result<Vec<f64>, CheckpointError> {
        let mut r = Reader::new(text, 1)?;
        let numbers = (0..many).map(|_| r.number()).collect::<Result<Vec<_>, _>>()?;
        r.end().map(|()| numbers)
    }

    proptest! {
        #[test]
        fn every_finite_number_comes_back_bit_for_bit(numbers in prop::collection::vec(prop_oneof![
            any::<f64>().prop_filter("finite", |v| v.is_finite()),
            (0_u64..1 << 60).prop_map(|v| v as f64),
            Just(-0.0), Just(0.0), Just(f64::MIN_POSITIVE / 8.0), Just(SHORT), Just(SHORT - 1.0), Just(SHORT + 1.0),
        ], 0..20)) {
            let back = read(&write(&numbers), numbers.len()).map(|v| v.iter().map(|n| n.to_bits()).collect::<Vec<_>>());
            prop_assert_eq!(back, Ok(numbers.iter().map(|n| n.to_bits()).collect()));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*", many in 0_usize..5) {
            let _ = read(&text, many);
            let _ = read(&("1.".to_string() + &text), many);
        }

        #[test]
        fn a_changed_character_is_found(at in 2_usize..30, with in "[A-Za-z0-9_-]") {
            let text = write(&[0.1, 7.0, 3e9, -2.5]);
            let at = at.min(text.len() - 2);
            let mut changed = text.clone();
            changed.replace_range(at..=at, &with);
            prop_assert!(changed == text || read(&changed, 4).is_err());
        }
    }

    #[test]
    fn another_format_is_named() {
        let text = write(&[1.0]).replacen("1.", "2.", 1);
        assert_eq!(read(&text, 1), Err(CheckpointError::UnknownFormat { found: "2".into(), known: 1 }));
    }
}
