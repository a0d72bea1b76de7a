//! How a canary release is decided: pure values in, pure values out.
//!
//! Reading order: `units` (instants, weights), `plan` (what was asked for), `observe` (what was seen), `state` (what is
//! remembered), `reason` (why, in words), `action` (what to do), `decide` (the one function that puts them together),
//! `stats` (how it knows), `route` (how weights are written), `simulate` (the same decision in a world of chance).
//! There is deliberately no I/O, no clock and, outside simulated worlds, no randomness here: `no_std` lets the compiler hold that.

#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod action;
pub mod binomial;
pub mod decide;
pub mod observe;
pub mod plan;
pub mod reason;
pub mod route;
pub mod simulate;
pub mod state;
pub mod stats;
pub mod units;
