//! Serin's command line: arguments in, answers out. `cli` lists the commands, `cmd` holds a file for each, `view` makes
//! the screens they print (pure: objects in, text out), `demo` is the tour. Decides nothing that another crate could decide.

mod cli;
mod clock;
mod cluster;
mod cmd;
mod demo;
mod exit;
mod istio;
mod lab;
mod out;
mod sources;
mod split;
mod view;
mod web;

use std::process::ExitCode;

/// Reads the arguments, runs the command, and gives its exit code.
pub fn main() -> ExitCode {
    // A pod starts as fast as this line is reached.
    if let Some(code) = serin_lab::workloads::dispatch() {
        return code;
    }
    // Libraries that need a provider take this one, whoever is first.
    tokio_rustls::rustls::crypto::ring::default_provider().install_default().ok();
    cli::run().into()
}
