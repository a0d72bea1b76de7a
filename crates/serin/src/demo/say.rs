//! What the demo says while it runs: a live line on a terminal, plain lines without one.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::exit::Failure;
use crate::out;

/// Where the demo's story goes.
#[derive(Clone)]
pub(crate) struct Story {
    bar: Arc<ProgressBar>,
    /// The story is the answer, and goes to standard output; with `-o json` the answer is the summary, and the story is talk.
    told_as: ToldAs,
    told: Arc<AtomicBool>,
}

/// To which stream the story goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToldAs {
    /// The answer.
    Answer,
    /// Talk beside it.
    Talk,
}

impl Story {
    /// With a live line if standard error is a terminal.
    pub(crate) fn new(told_as: ToldAs) -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar: Arc::new(bar), told_as, told: Arc::default() }
    }

    /// A line of the story.
    ///
    /// # Errors
    /// Nobody can read it any more.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        self.bar.suspend(|| match self.told_as {
            ToldAs::Answer => out::answer(&format!("{text}\n")),
            ToldAs::Talk => {
                out::talk(text);
                Ok(())
            }
        })
    }

    /// A fact with its head, wrapped under it.
    ///
    /// # Errors
    /// As `line`.
    pub(crate) fn fact(&self, head: &str, text: &str) -> Result<(), Failure> {
        for (i, part) in wrap(text, 80 - 13).iter().enumerate() {
            let head = if i == 0 { head } else { "" };
            self.line(&format!("  {head:<11}{part}"))?;
        }
        Ok(())
    }

    /// What is waited for now.
    pub(crate) fn now(&self, text: impl Into<String>) {
        self.bar.set_message(text.into());
    }

    /// The story is over; what follows is only kept running.
    pub(crate) fn all_is_told(&self) {
        self.told.store(true, Ordering::Relaxed);
    }

    /// Whether the story is over.
    pub(crate) fn told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    /// The live line goes away.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// Lines of at most `width` characters, broken between words.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("a-very-long-word b", 4), ["a-very-long-word", "b"]);
    }
}
