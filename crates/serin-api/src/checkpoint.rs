//! `State` ↔ `status.checkpoint`: the only part of the status that is read back.
//!
//! The text is JSON whose fractional numbers stand as the bits of the double: API servers and JSON readers may write a
//! number anew in other digits, and one digit is another verdict after a restart.

use serde_json::Value;
use serin_core::state::State;

use crate::status::{CanaryReleaseStatus, Checkpoint};

/// What this version writes and reads.
pub const FORMAT: i64 = 1;

/// Why what was remembered cannot be read. Nothing may be moved then: adopting anew would forget a version that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// A newer Serin wrote it.
    #[error(
        "status.checkpoint has format {found}, and this version of Serin reads {FORMAT}: run the version that wrote it, or remove status.checkpoint to adopt what is there"
    )]
    Format {
        /// What it says.
        found: i64,
    },
    /// It does not read.
    #[error("status.checkpoint cannot be read ({what}): remove it to adopt what is there")]
    Damaged {
        /// What the reader says.
        what: String,
    },
}

/// Packs a state.
pub fn checkpoint(state: &State) -> Checkpoint {
    let value = serde_json::to_value(state).unwrap_or_default();
    Checkpoint { format: FORMAT, data: pack(value).to_string() }
}

/// Unpacks the state of a status. No status, or none with a checkpoint: nothing is known yet, which means adopt.
///
/// # Errors
/// When what is there cannot be read; see `CheckpointError`.
pub fn state_of(status: Option<&CanaryReleaseStatus>) -> Result<State, CheckpointError> {
    status.and_then(|s| s.checkpoint.as_ref()).map_or_else(|| Ok(State::new()), state_from)
}

/// Unpacks the state of a checkpoint.
///
/// # Errors
/// When what is there cannot be read; see `CheckpointError`.
pub fn state_from(checkpoint: &Checkpoint) -> Result<State, CheckpointError> {
    if checkpoint.format != FORMAT {
        return Err(CheckpointError::Format { found: checkpoint.format });
    }
    let damaged = |what: String| CheckpointError::Damaged { what };
    let value: Value = serde_json::from_str(&checkpoint.data).map_err(|e| damaged(e.to_string()))?;
    serde_json::from_value(unpack(value).map_err(damaged)?).map_err(|e| damaged(e.to_string()))
}

const BITS: &str = "f64:";
const TEXT: &str = "str:";

fn pack(value: Value) -> Value {
    match value {
        Value::Number(n) if n.is_f64() => Value::String(format!("{BITS}{:016x}", n.as_f64().unwrap_or_default().to_bits())),
        Value::String(s) if s.starts_with(BITS) || s.starts_with(TEXT) => Value::String(format!("{TEXT}{s}")),
        Value::Array(items) => items.into_iter().map(pack).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, v)| (name, pack(v))).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

fn unpack(value: Value) -> Result<Value, String> {
    Ok(match value {
        Value::String(s) => match (s.strip_prefix(BITS), s.strip_prefix(TEXT)) {
            (Some(bits), _) => {
                let bits = u64::from_str_radix(bits, 16).map_err(|_| format!("{s:?} is no number"))?;
                serde_json::Number::from_f64(f64::from_bits(bits)).map(Value::Number).ok_or_else(|| format!("{s:?} is not finite"))?
            }
            (None, Some(text)) => Value::String(text.to_string()),
            (None, None) => Value::String(s),
        },
        Value::Array(items) => Value::Array(items.into_iter().map(unpack).collect::<Result<_, _>>()?),
        Value::Object(fields) => Value::Object(fields.into_iter().map(|(name, v)| Ok((name, unpack(v)?))).collect::<Result<_, String>>()?),
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    })
}
