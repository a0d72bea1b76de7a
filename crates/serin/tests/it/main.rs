//! The binary as its users meet it. Tests that need real parts say so, and `./test` runs every one of them.

mod examples;
mod transcripts;
