//! Tests of the plan's conversion and of `decide` as the user's YAML drives it. One binary, so that kube is linked once.

#[path = "../../../../tests/scenarios/world.rs"]
mod world;

mod scenarios;
