//! Workloads: the controllers with a played node on a paused clock, and pods as real processes.

mod controllers;
mod processes;
mod world;
