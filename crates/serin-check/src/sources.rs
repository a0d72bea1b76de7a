//! Reading files and folders: the only place of this crate that touches the disk.

use std::collections::HashSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;
use ignore::overrides::OverrideBuilder;

use crate::run::Input;

/// Files above this size are no manifests: CRDs, the largest honest ones, stay under 2 MB.
const MAX_FILE: u64 = 32 * 1024 * 1024;
/// A stream may hold all manifests of a cluster.
const MAX_STREAM: u64 = 256 * 1024 * 1024;

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
/// files are left out; in folders only `.yaml`, `.yml` and `.json` are read. A file that is
/// named is read too if its text looks like a manifest, whatever its ending; a pipe always.
/// `-` is standard input. `exclude` holds globs of what to leave out.
pub fn gather(paths: &[PathBuf], exclude: &[String]) -> Gathered {
    let mut found = Gathered::default();
    let mut seen = HashSet::new();
    for path in paths {
        if path.as_os_str() == "-" {
            if seen.insert(path.clone()) {
                input("<stdin>".to_owned(), bounded(std::io::stdin().lock()), &mut found);
            }
        } else if path.is_dir() {
            folder(path, exclude, &mut seen, &mut found);
        } else if path.exists() && !is_manifest(path) {
            named(path, &mut seen, &mut found);
        } else {
            read(path, &mut seen, &mut found);
            kustomization(path, &mut seen, &mut found);
        }
    }
    found
}

/// Hooks and editors name single files. Whether one is an object or a patch of one says the
/// kustomization beside it, or above it.
fn kustomization(path: &Path, seen: &mut HashSet<PathBuf>, found: &mut Gathered) {
    let Some(name) = path.file_name().and_then(|n| n.to_str()) else { return };
    for dir in path.ancestors().skip(1).take(3) {
        for file in ["kustomization.yaml", "kustomization.yml", "Kustomization"] {
            let file = dir.join(file);
            if file != *path && std::fs::read_to_string(&file).is_ok_and(|text| text.contains(name)) {
                read(&file, seen, found);
                return;
            }
        }
    }
}

/// A named path without the ending of a manifest: a pipe, or a file of any kind.
fn named(path: &Path, seen: &mut HashSet<PathBuf>, found: &mut Gathered) {
    if !path.is_file() {
        input(shown(path), std::fs::File::open(path).and_then(bounded), found);
        return;
    }
    let starts = |line: &str| {
        let line = line.trim_start_matches(['\u{feff}', '{', ' ', '\t']);
        ["apiVersion:", "\"apiVersion\"", "kind:", "\"kind\""].iter().any(|k| line.starts_with(k))
    };
    match std::fs::metadata(path).and_then(|m| if m.len() > MAX_FILE { Ok(Vec::new()) } else { std::fs::read(path) }) {
        Ok(bytes) if std::str::from_utf8(&bytes).is_ok_and(|t| t.lines().any(starts)) => {
            if seen.insert(real(path)) {
                found.inputs.push(Input { path: shown(path), bytes, live: false });
            }
        }
        Ok(_) => found.others += 1,
        Err(e) => found.problems.push((shown(path), e.to_string())),
    }
}

/// The one name of a file that may be reached by several.
fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// A path as it is shown: with slashes, on Windows too, and without a leading `./`.
fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    let text = if std::path::MAIN_SEPARATOR == '/' { text } else { text.replace(std::path::MAIN_SEPARATOR, "/") };
    text.strip_prefix("./").unwrap_or(&text).to_owned()
}

/// All of a stream, if that is not beyond reason.
fn bounded(stream: impl std::io::Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(MAX_STREAM + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_STREAM {
        return Err(std::io::Error::other(format!("more than {} MB are too much for manifests", MAX_STREAM / 1024 / 1024)));
    }
    Ok(bytes)
}

fn input(path: String, outcome: std::io::Result<Vec<u8>>, found: &mut Gathered) {
    match outcome {
        Ok(bytes) => found.inputs.push(Input { path, bytes, live: false }),
        Err(e) => found.problems.push((path, e.to_string())),
    }
}

fn is_manifest(path: &Path) -> bool {
    path.extension().and_then(|e| e.to_str()).is_some_and(|e| ["yaml", "yml", "json"].iter().any(|k| e.eq_ignore_ascii_case(k)))
}

fn folder(root: &Path, exclude: &[String], seen: &mut HashSet<PathBuf>, found: &mut Gathered) {
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
            // A pipe or socket that is called like a manifest would be waited for without end.
            Ok(entry) if is_manifest(entry.path()) && is_readable(entry.path()) => read(entry.path(), seen, found),
            Ok(_) => found.others += 1,
            Err(e) => found.problems.push((shown(root), e.to_string())),
        }
    }
}

/// A file, a link to one, or a link to nowhere, which is to be told.
fn is_readable(path: &Path) -> bool {
    std::fs::metadata(path).map_or(true, |meta| meta.is_file())
}

fn read(path: &Path, seen: &mut HashSet<PathBuf>, found: &mut Gathered) {
    // A file named twice (alone, by its folder, by a link) is one file.
    if !seen.insert(real(path)) {
        return;
    }
    let outcome = std::fs::metadata(path).and_then(|meta| {
        if meta.is_file() && meta.len() > MAX_FILE {
            return Err(std::io::Error::other(format!("{} MB is too large for a manifest", meta.len() / 1024 / 1024)));
        }
        if meta.is_file() { std::fs::read(path) } else { std::fs::File::open(path).and_then(bounded) }
    });
    input(shown(path), outcome, found);
}
