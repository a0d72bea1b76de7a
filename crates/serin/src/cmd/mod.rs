//! The commands, a file for each: arguments, help, and what they do.

pub(crate) mod abort;
pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod controller;
pub(crate) mod explain;
pub(crate) mod freeze;
pub(crate) mod get;
pub(crate) mod history;
pub(crate) mod init;
pub(crate) mod install;
pub(crate) mod lab;
pub(crate) mod replay;
pub(crate) mod request;
pub(crate) mod resolved;
pub(crate) mod scale;
pub(crate) mod series;
pub(crate) mod simulate;
pub(crate) mod soak;
pub(crate) mod status;
pub(crate) mod verify;
pub(crate) mod wait;
pub(crate) mod why;

use clap::ValueEnum;

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Json,
    Yaml,
}

/// Prints a value in the format that was asked for.
///
/// # Errors
/// Standard output cannot be written to.
pub(crate) fn print<T: serde::Serialize>(format: Format, value: &T) -> Result<(), crate::exit::Failure> {
    match format {
        Format::Json => crate::out::json(value),
        Format::Yaml => crate::out::yaml(value),
    }
}

/// A duration as people write it: `2m`, `1h30m`, `500ms`.
pub(crate) fn duration(text: &str) -> Result<std::time::Duration, String> {
    serin_api::values::duration(text)
}
