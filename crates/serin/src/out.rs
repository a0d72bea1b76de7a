//! Where words go: results to standard output, talk to standard error.
//!
//! A closed pipe is the reader's way to say "enough": the process then ends with 0, as `serin get | head -1` should.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::exit::{Exit, Failure};

/// Prints a part of the answer.
///
/// # Errors
/// Standard output cannot be written to.
pub(crate) fn answer(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(Exit::Done.code().into()),
        Err(e) => Err(Failure::new(format!("cannot write to standard output: {e}"))),
    }
}

/// Prints a value as JSON, for machines.
///
/// # Errors
/// As `answer`.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::new(format!("cannot write JSON: {e}")))?;
    answer(&format!("{text}\n"))
}

/// Prints a value as YAML.
///
/// # Errors
/// As `answer`.
pub(crate) fn yaml<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_saphyr::to_string(value).map_err(|e| Failure::new(format!("cannot write YAML: {e}")))?;
    answer(&text)
}

/// Says something that is not the answer. Nobody reading it is no failure.
pub(crate) fn talk(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether the answer is read by a person on a terminal.
pub(crate) fn on_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether standard output may be coloured.
pub(crate) fn coloured(choice: Color) -> bool {
    match choice {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            on_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
                && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
        }
    }
}

/// When to colour: `auto` is on a terminal, unless NO_COLOR is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}
