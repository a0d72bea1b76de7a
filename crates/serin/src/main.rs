//! Starts the library, and nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    serin::main()
}
