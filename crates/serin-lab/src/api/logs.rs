//! Containers' logs: what the API asks of the part that keeps them.

use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;

/// What a client wants to read of a container's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRequest {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name; always set, by the API if the client leaves it out.
    pub container: String,
    /// Go on sending what is written, until the container ends.
    pub follow: bool,
    /// Only so many lines from the end.
    pub tail_lines: Option<u64>,
    /// The container before its last restart.
    pub previous: bool,
    /// Begin each line with its time.
    pub timestamps: bool,
    /// Only lines of the last so many seconds.
    pub since_seconds: Option<u64>,
    /// Stop after so many bytes.
    pub limit_bytes: Option<u64>,
}

/// Pieces of a log, until its end.
pub type LogStream = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// Why there is no log to read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LogError {
    /// The container has not started yet, or never ran before its last restart; a sentence.
    #[error("{0}")]
    NotThere(String),
    /// Reading failed; a sentence.
    #[error("{0}")]
    Failed(String),
}

/// Opens logs. The kubelet part has it; the API serves it at `pods/NAME/log`.
pub trait Logs: Send + Sync {
    /// The log that is asked for.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn open(&self, request: LogRequest) -> Result<LogStream, LogError>;
}
