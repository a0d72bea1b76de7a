//! Reading files and folders: the only place of this crate that touches the disk.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;
use ignore::overrides::OverrideBuilder;

use crate::run::Input;

/// Files above this size are no manifests: CRDs, the largest honest ones, stay under 2 MB.
const MAX_FILE: u64 = 32 * 1024 * 1024;

/// What was read.
#[derive(Debug, Default)]
pub struct Gathered {
    /// The texts.
    pub inputs: Vec<Input>,
    /// Files of other kinds, counted and left alone.
    pub others: usize,
    /// What could not be read: path and reason.
    pub problems: Vec<(String, String)>,
}

/// Reads files and folders. Folders are read recursively, `.gitignore` is respected, hidden
/// files are left out; in folders only `.yaml`, `.yml` and `.json` are read. `-` is standard
/// input. `exclude` holds globs of what to leave out.
pub fn gather(paths: &[PathBuf], exclude: &[String]) -> Gathered {
    let mut found = Gathered::default();
    for path in paths {
        if path.as_os_str() == "-" {
            let mut bytes = Vec::new();
            match std::io::stdin().lock().read_to_end(&mut bytes) {
                Ok(_) => found.inputs.push(Input { path: "<stdin>".to_owned(), bytes, live: false }),
                Err(e) => found.problems.push(("-".to_owned(), e.to_string())),
            }
        } else if path.is_dir() {
            folder(path, exclude, &mut found);
        } else if path.exists() && !is_manifest(path) {
            found.others += 1;
        } else {
            read(path, &mut found);
        }
    }
    // A file named twice (alone and by its folder) is one file.
    let mut seen = std::collections::HashSet::new();
    found.inputs.retain(|i| seen.insert(i.path.clone()));
    found
}

fn is_manifest(path: &Path) -> bool {
    path.extension().and_then(|e| e.to_str()).is_some_and(|e| ["yaml", "yml", "json"].iter().any(|k| e.eq_ignore_ascii_case(k)))
}

fn folder(root: &Path, exclude: &[String], found: &mut Gathered) {
    let mut overrides = OverrideBuilder::new(root);
    for glob in exclude {
        if let Err(e) = overrides.add(&format!("!{glob}")) {
            found.problems.push((glob.clone(), e.to_string()));
        }
    }
    let mut walk = WalkBuilder::new(root);
    walk.require_git(false).sort_by_file_path(std::cmp::Ord::cmp);
    if let Ok(overrides) = overrides.build() {
        walk.overrides(overrides);
    }
    for entry in walk.build() {
        match entry {
            Ok(entry) if entry.file_type().is_some_and(|t| t.is_dir()) => {}
            Ok(entry) if is_manifest(entry.path()) => read(entry.path(), found),
            Ok(_) => found.others += 1,
            Err(e) => found.problems.push((root.display().to_string(), e.to_string())),
        }
    }
}

fn read(path: &Path, found: &mut Gathered) {
    let shown = path.display().to_string();
    let shown = shown.strip_prefix("./").unwrap_or(&shown).to_owned();
    let outcome = std::fs::metadata(path).and_then(|meta| {
        if meta.len() > MAX_FILE {
            return Err(std::io::Error::other(format!("{} MB is too large for a manifest", meta.len() / 1024 / 1024)));
        }
        std::fs::read(path)
    });
    match outcome {
        Ok(bytes) => found.inputs.push(Input { path: shown, bytes, live: false }),
        Err(e) => found.problems.push((shown, e.to_string())),
    }
}
