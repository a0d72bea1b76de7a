//! The controller as a whole, in process: over the lab's API without a port, on a paused clock. One binary, so that kube is
//! linked once.

#[path = "../../../../tests/scenarios/world.rs"]
#[expect(dead_code, reason = "what only the pure runner needs of the world")]
mod world;

mod policy;
mod prometheus;
mod robust;
mod scenarios;
mod source;
mod stage;
