//! From cluster and metrics to one `Observation`. Deliberately decides nothing and writes nothing.
//!
//! Reading order: `cluster` (caches kept by watches), `view` (one release's part of them), `proxies` (the source that reads Istio's
//! proxies) with `exposition` (their text).

pub mod cluster;
pub mod exposition;
pub mod proxies;
pub mod view;
