//! The machine's clock, read here and nowhere else.

use serin_core::units::Timestamp;

/// Now.
pub(crate) fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}
