//! How Serin knows: tests that stay valid however often one looks.
//!
//! Reading order: `counts` (what comes in), `bet` (evidence of one batch), `bursts` (errors that come in clumps), `harm` (the money that
//! convicts), `fitness` (the evidence that acquits), `analysis` (many metrics, one verdict: what `decide` calls), `codec` (the checkpoint), `split`
//! (does the canary get the share that was set), `forecast` (how long it will take), `interval` (for display),
//! `latency` (what a histogram can carry), `number` (custom queries: limits, not tests), `world` with `random`
//! (simulated requests: how the claims are shown).
//! `docs/statistics.md` derives it; section numbers in comments are those of that document's formulas. Deliberately no clock, no
//! randomness outside `world`, no words: numbers in, numbers out, never a NaN and never a panic, whatever comes in.

mod analysis;
mod bet;
mod bursts;
mod codec;
mod counts;
mod fitness;
pub mod forecast;
mod harm;
pub mod interval;
mod latency;
mod number;
pub mod random;
mod special;
mod split;
pub mod world;

pub use analysis::{Analysis, Bursts, Counting, Fitness, Harm, History, MetricTest, Settings, Test, default_weights};
pub use bet::{Bet, bet};
pub use bursts::Burstiness;
pub use codec::CheckpointError;
pub use counts::{Batch, Counts};
pub use fitness::{GROSS_MARGIN, PassEvidence};
pub use harm::Money;
pub use latency::{Edge, Histogram, QuantileMargins, StrictPair};
pub use number::{NumberLimit, NumberReadings, NumberVerdict};
pub use split::{Split, SplitAlarm};
