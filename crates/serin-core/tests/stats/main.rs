//! The statistics against numbers that were computed apart from them, and against whatever a scrape may bring.
//!
//! `tests/reference/README.md` says what each file holds and how closely it is to be met.

mod analysis;
mod any_input;
mod plots;
mod reference;
mod rollouts;
mod simulation;
mod table;
