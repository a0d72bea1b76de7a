//! What containers print: files in the lab's directory, and reading them as `kubectl logs` does.
//!
//! `DIR/NAMESPACE/POD/CONTAINER/N.log`, N counting restarts; the one before the newest is kept as "previous". Lines are
//! written as container runtimes write them (`TIME stdout F text`), so that times can be shown or left out. A file is
//! rotated once at some megabytes: what is older is gone. It knows nothing of HTTP.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;

/// A file is set aside at this size; with its predecessor, a container keeps at most twice as much.
const ROTATE_AT: u64 = 4 << 20;

/// A longer line is written in parts, as container runtimes do.
const LONGEST_LINE: usize = 16 << 10;

/// All logs of a lab; clones share them.
#[derive(Clone)]
pub struct Logs(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    changed: watch::Sender<u64>,
    open: Mutex<HashSet<PathBuf>>,
}

/// What of a log is asked for; the fields are those of `GET pods/NAME/log`.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Go on with what will be printed, until the container ends.
    pub follow: bool,
    /// Only the last so many lines.
    pub tail_lines: Option<usize>,
    /// Only lines since then.
    pub since: Option<Timestamp>,
    /// At most so many bytes.
    pub limit_bytes: Option<usize>,
    /// Each line with its time.
    pub timestamps: bool,
}

impl Logs {
    /// Logs under `dir`, which is made when the first line is written.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(Arc::new(Inner { dir: dir.into(), changed: watch::Sender::new(0), open: Mutex::default() }))
    }

    /// The file of a container's present (or last) run, or of the run before; `None` when there was none.
    pub fn path(&self, namespace: &str, pod: &str, container: &str, previous: bool) -> Option<PathBuf> {
        let dir = self.dir(namespace, pod, container)?;
        let mut runs: Vec<u32> =
            fs::read_dir(&dir).ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".log")?.parse().ok()).collect();
        runs.sort_unstable();
        if previous {
            runs.pop();
        }
        Some(dir.join(format!("{}.log", runs.last()?)))
    }

    /// Reads a file that [`Self::path`] named.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, path: &Path, options: Options) -> io::Result<Reader> {
        let changed = self.0.changed.subscribe();
        let mut file = File::open(path)?;
        let mut older = Vec::new();
        if let Ok(mut rotated) = File::open(rotated(path)) {
            rotated.read_to_end(&mut older)?;
        }
        let mut content = older;
        let mut now = Vec::new();
        file.read_to_end(&mut now)?;
        // A line that is being written is left for the next read.
        let whole = now.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let rest = now.split_off(whole);
        content.extend(now);
        let left = options.limit_bytes;
        let mut reader = Reader { logs: self.clone(), path: path.to_owned(), file, rest, options, changed, first: None, left };
        let mut lines: Vec<Bytes> = Vec::new();
        for line in content.split_inclusive(|b| *b == b'\n') {
            lines.extend(reader.shown(line));
        }
        if let Some(tail) = reader.options.tail_lines {
            lines.drain(..lines.len().saturating_sub(tail));
        }
        reader.first = Some(lines.concat().into());
        Ok(reader)
    }

    /// Starts the log of a container's run. The logs of runs before the previous one are removed.
    pub fn start(&self, namespace: &str, pod: &str, container: &str, run: u32) -> io::Result<Writer> {
        let dir = self.dir(namespace, pod, container).ok_or(io::ErrorKind::InvalidInput)?;
        fs::create_dir_all(&dir)?;
        if let Some(old) = run.checked_sub(2) {
            let old = dir.join(format!("{old}.log"));
            for file in [rotated(&old), old] {
                // Not there is as good.
                let _ = fs::remove_file(file);
            }
        }
        let path = dir.join(format!("{run}.log"));
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let size = file.metadata()?.len();
        self.open().insert(path.clone());
        Ok(Writer(Arc::new(Mutex::new(Open { logs: self.clone(), path, file, size }))))
    }

    /// Removes the logs of a pod that is gone.
    pub(super) fn remove(&self, namespace: &str, pod: &str) {
        // Any container's directory: a `.` would vanish from the path, and its parent be the namespace's.
        if let Some(dir) = self.dir(namespace, pod, "c").and_then(|d| d.parent().map(Path::to_owned)) {
            // Not there is as good.
            let _ = fs::remove_dir_all(dir);
            self.0.changed.send_modify(|n| *n += 1);
        }
    }

    /// Names come from requests: what is no plain name has no logs.
    fn dir(&self, namespace: &str, pod: &str, container: &str) -> Option<PathBuf> {
        let plain = |name: &&str| !name.is_empty() && *name != ".." && !name.contains(['/', '\\', '\0']);
        let names = [namespace, pod, container];
        (names.iter().all(plain) && namespace != "." && pod != ".").then(|| self.0.dir.join(namespace).join(pod).join(container))
    }

    fn open(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rotated(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// Writes one run's log; clones (one per stream) share the file. It is complete when the last one is dropped.
#[derive(Clone)]
pub struct Writer(Arc<Mutex<Open>>);

struct Open {
    logs: Logs,
    path: PathBuf,
    file: File,
    size: u64,
}

impl Writer {
    /// Writes a line, or a part of one that is too long.
    pub(super) fn write(&self, at: Timestamp, stream: &str, line: &[u8], partial: bool) -> io::Result<()> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut record = format!("{at:.9} {stream} {} ", if partial { 'P' } else { 'F' }).into_bytes();
        record.extend_from_slice(line);
        record.push(b'\n');
        if open.size > 0 && open.size + record.len() as u64 > ROTATE_AT {
            fs::rename(&open.path, rotated(&open.path))?;
            open.file = OpenOptions::new().create(true).append(true).open(&open.path)?;
            open.size = 0;
        }
        open.file.write_all(&record)?;
        open.size += record.len() as u64;
        open.logs.0.changed.send_modify(|n| *n += 1);
        Ok(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.logs.open().remove(&self.path);
        self.logs.0.changed.send_modify(|n| *n += 1);
    }
}

/// Copies a process' stream into a log, line by line, until it ends.
pub(super) async fn pump(mut from: impl tokio::io::AsyncRead + Unpin, stream: &'static str, to: Writer, clock: crate::store::Clock) {
    use tokio::io::AsyncReadExt;
    let mut buffer = vec![0; 8 << 10];
    let mut line: Vec<u8> = Vec::new();
    loop {
        let n = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(n) => n,
        };
        for part in buffer[..n].split_inclusive(|b| *b == b'\n') {
            line.extend_from_slice(part);
            let whole = line.last() == Some(&b'\n');
            if whole {
                line.pop();
            }
            if whole || line.len() >= LONGEST_LINE {
                // A full disk costs the log, not the process.
                let _ = to.write(clock(), stream, &line, !whole);
                line.clear();
            }
        }
    }
    if !line.is_empty() {
        let _ = to.write(clock(), stream, &line, false);
    }
}

/// The rest of a log, piece by piece.
pub struct Reader {
    logs: Logs,
    path: PathBuf,
    file: File,
    /// The beginning of a line whose end is not yet written.
    rest: Vec<u8>,
    options: Options,
    changed: watch::Receiver<u64>,
    first: Option<Bytes>,
    left: Option<usize>,
}

impl Reader {
    /// The next piece: what is there at first, then, when following, what comes. `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            let piece = match self.first.take() {
                Some(first) => first,
                None if !self.options.follow || self.left == Some(0) => return None,
                None => {
                    // Looked up before reading: what is printed last is read once more after the end.
                    let open = self.logs.open().contains(&self.path);
                    match self.more() {
                        Ok(more) if more.is_empty() && !open => return None,
                        Ok(more) if more.is_empty() => {
                            if self.changed.changed().await.is_err() {
                                return None;
                            }
                            continue;
                        }
                        Ok(more) => more,
                        Err(error) => return Some(Err(error)),
                    }
                }
            };
            let piece = match &mut self.left {
                Some(left) => {
                    let piece = piece.slice(..piece.len().min(*left));
                    *left -= piece.len();
                    piece
                }
                None => piece,
            };
            if !piece.is_empty() {
                return Some(Ok(piece));
            }
        }
    }

    /// What has been written since, in the file that is open here and, when that was set aside, in the new one.
    fn more(&mut self) -> io::Result<Bytes> {
        self.changed.mark_unchanged();
        self.file.read_to_end(&mut self.rest)?;
        if let Ok(present) = fs::metadata(&self.path)
            && present.ino() != self.file.metadata()?.ino()
        {
            self.file = File::open(&self.path)?;
            self.file.read_to_end(&mut self.rest)?;
        }
        let whole = self.rest.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        let shown: Vec<Bytes> = lines.split_inclusive(|b| *b == b'\n').filter_map(|line| self.shown(line)).collect();
        Ok(shown.concat().into())
    }

    /// A line as it is shown; `None` when it is older than asked for.
    fn shown(&self, record: &[u8]) -> Option<Bytes> {
        let mut parts = record.splitn(4, |b| *b == b' ');
        let (time, _stream, kind, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if let Some(since) = self.options.since {
            let at: Timestamp = std::str::from_utf8(time).ok()?.parse().ok()?;
            if at < since {
                return None;
            }
        }
        // A part of a line that goes on loses the line end that only the file has.
        let text = if kind == b"P" { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
        Some(match self.options.timestamps {
            true => [time, b" ", text].concat().into(),
            false => Bytes::copy_from_slice(text),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    async fn all(logs: &Logs, options: Options) -> String {
        let path = logs.path("n", "p", "c", false).unwrap();
        let mut reader = logs.read(&path, options).unwrap();
        let mut text = Vec::new();
        while let Some(piece) = reader.next().await {
            text.extend(piece.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_pod_that_goes_takes_only_its_own_logs_along() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path());
        drop((logs.start("n", "gone", "c", 0).unwrap(), logs.start("n", "stays", "c", 0).unwrap()));
        logs.remove("n", "gone");
        assert_eq!(logs.path("n", "gone", "c", false), None);
        assert!(logs.path("n", "stays", "c", false).is_some());
    }

    #[tokio::test]
    async fn lines_are_read_as_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path());
        assert_eq!(logs.path("n", "p", "c", false), None);
        assert_eq!(logs.path("..", "p", "c", false), None);
        let writer = logs.start("n", "p", "c", 0).unwrap();
        for second in 1..=3 {
            writer.write(at(second), "stdout", format!("line {second}").as_bytes(), false).unwrap();
        }
        writer.write(at(4), "stderr", b"long ", true).unwrap();
        writer.write(at(4), "stderr", b"line", false).unwrap();
        assert_eq!(all(&logs, Options::default()).await, "line 1\nline 2\nline 3\nlong line\n");
        let options = Options { since: Some(at(3)), timestamps: true, ..Options::default() };
        assert!(all(&logs, options).await.starts_with("1970-01-01T00:00:03.000000000Z line 3\n"));
        assert_eq!(all(&logs, Options { tail_lines: Some(0), ..Options::default() }).await, "");
        assert_eq!(all(&logs, Options { limit_bytes: Some(4), ..Options::default() }).await, "line");
    }

    #[tokio::test]
    async fn following_ends_with_the_container_and_misses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path());
        let writer = logs.start("n", "p", "c", 0).unwrap();
        let line = vec![b'x'; 1 << 10];
        writer.write(at(1), "stdout", b"first", false).unwrap();
        let follow = tokio::spawn({
            let logs = logs.clone();
            async move { all(&logs, Options { follow: true, tail_lines: Some(1), ..Options::default() }).await }
        });
        // Enough for a rotation in the middle.
        for _ in 0..5_000 {
            tokio::task::yield_now().await;
            writer.write(at(2), "stdout", &line, false).unwrap();
        }
        drop(writer);
        let text = follow.await.unwrap();
        assert!(text.ends_with("xx\n"), "ends with the last line");
        assert!(fs::metadata(dir.path().join("n/p/c/0.log")).unwrap().len() <= ROTATE_AT);
    }

    #[test]
    fn the_previous_run_is_kept_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path());
        for run in 0..4 {
            logs.start("n", "p", "c", run).unwrap();
        }
        let name = |previous| logs.path("n", "p", "c", previous).unwrap().file_name().unwrap().to_owned();
        assert_eq!((name(false), name(true)), ("3.log".into(), "2.log".into()));
        assert_eq!(fs::read_dir(dir.path().join("n/p/c")).unwrap().count(), 2);
        logs.remove("n", "p");
        assert_eq!(logs.path("n", "p", "c", false), None);
    }
}
