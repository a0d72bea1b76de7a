//! The controller as a whole, in process: over the lab's API without a port, on a paused clock. One binary, so that kube is
//! linked once.

#[path = "../../../../tests/scenarios/world.rs"]
mod world;

mod prometheus;
mod scenarios;
mod source;
mod stage;
