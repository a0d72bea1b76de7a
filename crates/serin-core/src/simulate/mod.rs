//! Whole rollouts in virtual time, over the same `decide` as the controller: what a plan would do in a world, or would have done to a past.
//!
//! Reading order: `stage` (drives `decide`: pods that start at once, routes that obey), `world` (requests by chance), `outcome` (many runs, in
//! numbers and words), `replay` (recorded requests instead of chance), `plot` (the evidence of some runs, drawn),
//! `promises` (how often a plan errs). Seeded, without a clock.

mod outcome;
mod plot;
mod promises;
mod replay;
mod stage;
mod world;

pub use outcome::{Chance, Outcome, simulate, simulate_part};
pub use plot::plot;
pub use promises::{PromiseCell, PromiseTable, promise_cells};
pub use replay::{
    Recorded, Replayed, Told, record_s, replay, replay_against_itself, replay_against_itself_once, replay_against_itself_part,
};
pub use stage::{End, ISTIO_EDGES, Point, Run, edges};
pub use world::{Begin, Fault, Latency, Outage, World, run_once};
