//! What the crate promises to those who read and write its objects, and `decide` as the user's YAML drives it. One
//! binary, so that kube is linked once.

#[path = "../../../../tests/scenarios/world.rs"]
mod world;

mod anything;
mod crd;
mod mutations;
mod roundtrip;
mod scenarios;
