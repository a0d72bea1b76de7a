//! Where a lab keeps what others need to find it: a folder per name, with a lock that lives as long as the lab.
//!
//! Whether a lab runs is told by the lock and not by a process id, which may be somebody else's by now.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::exit::Failure;

/// What a running lab tells about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LabState {
    /// Its name.
    pub(crate) name: String,
    /// Its process.
    pub(crate) pid: u32,
    /// The API.
    pub(crate) api: String,
    /// The file that leads to it.
    pub(crate) kubeconfig: PathBuf,
    /// Where callers inside the mesh send their requests, under the Host they call.
    pub(crate) callers: String,
    /// The Envoy that runs, with its version.
    pub(crate) envoy: String,
    /// Its log.
    pub(crate) log: PathBuf,
    /// When it was ready, RFC 3339.
    pub(crate) since: String,
    /// Whether it runs a controller too.
    pub(crate) controller: bool,
}

/// A lab's folder.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    /// Where.
    pub(crate) path: PathBuf,
    name: String,
}

/// Held as long as the lab runs.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Folder {
    /// The folder of the lab of that name: below `XDG_STATE_HOME`, else `~/.local/state`.
    ///
    /// # Errors
    /// There is no home, or the name is none.
    pub(crate) fn of(name: &str) -> Result<Self, Failure> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 40 || !name.chars().all(fits) {
            return Err(Failure::new(format!("{name:?} is no name of a lab: letters, digits, - and _")));
        }
        Ok(Self { path: home()?.join(name), name: name.to_string() })
    }

    /// The kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.path.join("kubeconfig")
    }

    /// The log.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    fn state_file(&self) -> PathBuf {
        self.path.join("lab.json")
    }

    /// Makes the folder and takes its lock.
    ///
    /// # Errors
    /// A lab of that name runs already, or the folder cannot be made.
    pub(crate) fn lock(&self) -> Result<Lock, Failure> {
        let cannot = |e: io::Error| Failure::new(format!("cannot use {}: {e}", self.path.display()));
        fs::create_dir_all(&self.path).map_err(cannot)?;
        let file = File::options().create(true).truncate(false).write(true).open(self.path.join("lock")).map_err(cannot)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Failure::new(format!("lab {} runs already", self.name)).hint("serin lab status").hint("serin lab down")),
            Err(e) => Err(cannot(e.into())),
        }
    }

    /// Writes what the lab tells, in one step.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn write(&self, state: &LabState) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(state).unwrap_or_default();
        let write = || {
            let new = self.path.join("lab.json.new");
            fs::write(&new, text)?;
            fs::rename(new, self.state_file())
        };
        write().map_err(|e: io::Error| Failure::new(format!("cannot write {}: {e}", self.state_file().display())))
    }

    /// What the lab tells, if it runs.
    pub(crate) fn read(&self) -> Option<LabState> {
        if !self.runs() {
            return None;
        }
        serde_json::from_slice(&fs::read(self.state_file()).ok()?).ok()
    }

    /// Whether a lab holds the lock.
    pub(crate) fn runs(&self) -> bool {
        let Ok(file) = File::open(self.path.join("lock")) else { return false };
        matches!(rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared), Err(rustix::io::Errno::WOULDBLOCK))
    }

    /// Takes away what only a running lab may tell; the log stays.
    pub(crate) fn clear(&self) {
        for file in [self.state_file(), self.kubeconfig()] {
            let _ = fs::remove_file(file);
        }
    }
}

fn home() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|h| h.join(".local/state")));
    let state = state.ok_or_else(|| Failure::new("there is no place for the lab's files: neither XDG_STATE_HOME nor HOME is set"))?;
    Ok(state.join("serin/labs"))
}

/// All labs that run.
pub(crate) fn running() -> Vec<LabState> {
    let Ok(home) = home() else { return Vec::new() };
    let names = fs::read_dir(home).into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok());
    let mut labs: Vec<LabState> = names.filter_map(|n| Folder::of(&n).ok()?.read()).collect();
    labs.sort_by(|a, b| a.name.cmp(&b.name));
    labs
}

/// The lab whose kubeconfig that is, else the only one that runs.
pub(crate) fn find(kubeconfig: Option<&Path>) -> Option<LabState> {
    let labs = running();
    let from_env = std::env::var_os("KUBECONFIG").map(PathBuf::from);
    let wanted = kubeconfig.map(Path::to_path_buf).or(from_env);
    let by_file = wanted.and_then(|file| labs.iter().find(|l| l.kubeconfig == file).cloned());
    by_file.or_else(|| if let [one] = labs.as_slice() { Some(one.clone()) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_folder() {
        for name in ["", "..", "a/b", "a b", &"x".repeat(41)] {
            assert!(Folder::of(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_lock_tells_who_runs() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = Folder { path: dir.path().join("one"), name: "one".into() };
        assert!(!folder.runs());
        let lock = folder.lock().expect("free");
        assert!(folder.runs());
        assert!(folder.lock().is_err());
        drop(lock);
        assert!(!folder.runs());
    }
}
