//! The loop around `decide`: observe, decide, write, act, sleep until something happens or is due.
//!
//! Reading order: `config`, `kinds` and `watch` (what comes in), `observe` (caches → one `Observation`, metrics → one
//! `Reading`), `act` (one `Action` → API calls), `look` (one turn of the loop for one release), `run` (all of them, side by
//! side), `lease` (who is in charge), `serve` (health and own metrics).
//!
//! Deliberately decides nothing, remembers nothing but caches (the truth is the checkpoint in the status), and knows nothing
//! of the lab: a cluster and the lab look the same from here.

mod act;
mod config;
pub mod kinds;
mod look;
pub mod observe;
mod run;
mod watch;

pub use config::{Clock, Config, Options, Source};
pub use observe::source::{Arm, ArmQuery, Cursor, MetricSource, Polled};
pub use run::{StartError, run, run_with};
