//! The loop around `decide`: observe, decide, write, act, sleep until something happens or is due.
//!
//! Reading order: `config`, `kinds` and `watch` (what comes in), `observe` (caches → one `Observation`, metrics → one
//! `Reading`), `act` (one `Action` → API calls), `look` (one turn of the loop for one release), `run` (all of them, side by
//! side), `lease` (who is in charge), `serve` and `metrics` (health, and what it tells of itself).
//!
//! Deliberately decides nothing, remembers nothing but caches (the truth is the checkpoint in the status), and knows nothing
//! of the lab: a cluster and the lab look the same from here.

mod act;
mod config;
pub mod kinds;
mod lease;
mod look;
mod metrics;
pub mod observe;
mod run;
mod serve;
mod watch;

pub use config::{Clock, Config, Options, PROXIES_PORT, Source};
pub use lease::LeaseOptions;
pub use observe::choose::SourceChoice;
pub use observe::prometheus::{OptionsError, Prometheus, PrometheusOptions};
pub use observe::source::{Arm, ArmQuery, CountersQuery, Cursor, MetricSource, Polled};
pub use run::{StartError, run, run_with};
