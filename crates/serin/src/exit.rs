//! How a command ends: the exit codes, in one place, and the message of a failure.
//!
//! A failure says what, where and why, and ends in something to type.

use std::process::ExitCode;

/// The exit codes of every command. Each command's help says what they mean for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, and the answer is yes.
    Done,
    /// The answer is no: findings, rolled back, split off, not promoted in time.
    No,
    /// There is no answer: wrong usage, bad input, cluster or source out of reach.
    NoAnswer,
    /// Ended by Ctrl-C.
    Interrupted,
}

impl Exit {
    /// The number.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::No => 1,
            Self::NoAnswer => 2,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command could not do what it was asked for.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What, where and why: a fragment without a full stop.
    pub(crate) what: String,
    /// Lines to type, or what else helps.
    pub(crate) hints: Vec<String>,
    /// How the command ends.
    pub(crate) exit: Exit,
}

impl Failure {
    /// No answer.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hints: Vec::new(), exit: Exit::NoAnswer }
    }

    /// The answer is no.
    pub(crate) fn no(what: impl Into<String>) -> Self {
        Self { exit: Exit::No, ..Self::new(what) }
    }

    /// Adds something to type.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// As it is printed on standard error.
    pub(crate) fn text(&self) -> String {
        let hints: String = self.hints.iter().map(|h| format!("\n  {h}")).collect();
        format!("serin: {}{hints}\n", self.what)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(format!("{error:#}"))
    }
}

/// What a command gives back.
pub(crate) type Outcome = Result<Exit, Failure>;
