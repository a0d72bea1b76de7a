//! `serin completions`: what a shell needs to complete commands and flags.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::{Exit, Outcome};
use crate::out;

/// Print completions for a shell
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 done; 2 unknown shell.\n\nExample:\n  serin completions bash > /etc/bash_completion.d/serin")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints them.
pub(crate) fn run(args: &CompletionsArgs) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "serin", &mut text);
    out::answer(&String::from_utf8_lossy(&text))?;
    Ok(Exit::Done)
}
