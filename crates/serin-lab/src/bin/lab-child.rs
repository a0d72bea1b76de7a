//! The lab's hidden subcommands as a program of their own, for the tests of this crate alone: the product's
//! binary hands the same words to the same functions.

use std::process::ExitCode;

fn main() -> ExitCode {
    serin_lab::workloads::dispatch().unwrap_or_else(|| ExitCode::from(2))
}
