//! What is seen: caches of the cluster (`project`, `hash`, `cluster`), one `Observation` made of them (`seen`), and what the
//! sources of metrics counted (`source`, `exposition`, `increments`, `proxies`, `prometheus`).
//!
//! Deliberately writes nothing.

pub mod choose;
pub mod cluster;
pub mod exposition;
mod hash;
pub mod increments;
pub(crate) mod policy;
pub(crate) mod project;
pub mod prometheus;
pub mod proxies;
pub(crate) mod seen;
pub mod source;

pub use project::receivers;
