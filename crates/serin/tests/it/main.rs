//! The binary as its users meet it. Tests that need real parts say so, and `./test` runs every one of them.

mod anycluster;
mod article;
mod check;
mod commands;
mod demo;
mod deploy;
mod examples;
mod faults;
mod git;
mod mishaps;
mod prometheus;
mod readme;
mod simulate;
mod support;
mod survival;
mod transcripts;
