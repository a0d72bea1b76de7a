//! The list of mutations of `decide` (`tests/mutations.toml`): each is built in, and the story that it names must fail under it.
//!
//! All of them are put into one copy of the core, each behind a switch that a variable turns on, so that it is built once: a copy with its own
//! workspace under `target/`, with this crate's stories on top. Deliberately leaves the product's code as it is.
#![expect(clippy::print_stdout, reason = "what a run tells is for whoever reads its output")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    mutation: Vec<Mutation>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutation {
    /// The rule that it breaks, as a sentence.
    rule: String,
    /// Below `crates/serin-core/src`.
    file: String,
    /// An expression that stands once in the file.
    line: String,
    /// What is computed instead.
    instead: String,
    /// The story that fails.
    story: String,
}

/// The switch that the copy's core gets.
const SWITCH: &str = r#"

extern crate std;

/// Which mutation is on.
pub mod mutant {
    /// Whether this one is.
    pub fn is(number: usize) -> bool {
        static ON: std::sync::OnceLock<Option<usize>> = std::sync::OnceLock::new();
        *ON.get_or_init(|| std::env::var("MUTANT").ok()?.parse().ok()) == Some(number)
    }
}
"#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").map(|e| e.expect("an entry")) {
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a kind").is_dir() {
            copy(&entry.path(), &target);
        } else {
            write(&target, &fs::read(entry.path()).expect("a file"));
        }
    }
}

/// Only what differs, so that what did not change is not built again.
fn write(path: &Path, bytes: &[u8]) {
    if fs::read(path).ok().as_deref() != Some(bytes) {
        fs::write(path, bytes).expect("written");
    }
}

/// The copy, with every mutation in it.
fn build(list: &[Mutation]) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder").to_path_buf();
    let place = target.join("mutants");
    for folder in ["crates/serin-api", "tests/scenarios", "deploy/crd"] {
        copy(&root().join(folder), &place.join(folder));
    }
    fs::copy(root().join("tests/mutations.toml"), place.join("tests/mutations.toml")).expect("the list");
    for file in ["Cargo.toml", "Cargo.lock"] {
        write(&place.join(file), &fs::read(root().join(file)).expect("the workspace"));
    }
    // The core's files go through memory, so that one that did not change keeps its time.
    let source = root().join("crates/serin-core");
    let core = place.join("crates/serin-core");
    fs::create_dir_all(&core).expect("a folder");
    write(&core.join("Cargo.toml"), &fs::read(source.join("Cargo.toml")).expect("a manifest"));
    for other in ["tests", "examples", "benches"] {
        if source.join(other).is_dir() {
            copy(&source.join(other), &core.join(other));
        }
    }
    mutate(&source.join("src"), &core.join("src"), Path::new(""), list);
    let built = Command::new(env!("CARGO"))
        .args(["test", "-p", "serin-api", "--test", "it", "--no-run", "--message-format=json", "--offline", "--quiet"])
        .current_dir(&place)
        .env("CARGO_TARGET_DIR", target.join("mutants/target"))
        .output()
        .expect("cargo runs");
    assert!(built.status.success(), "the mutants cannot be built:\n{}", String::from_utf8_lossy(&built.stderr));
    let told = String::from_utf8_lossy(&built.stdout).into_owned();
    let program = told.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok()).find_map(|m| {
        let named = m["target"]["name"] == "it" && m["reason"] == "compiler-artifact";
        named.then(|| m["executable"].as_str().map(PathBuf::from)).flatten()
    });
    program.expect("a test program")
}

fn mutate(from: &Path, to: &Path, below: &Path, list: &[Mutation]) {
    fs::create_dir_all(to.join(below)).expect("a folder");
    for entry in fs::read_dir(from.join(below)).expect("a folder").map(|e| e.expect("an entry")) {
        let inner = below.join(entry.file_name());
        if entry.file_type().expect("a kind").is_dir() {
            mutate(from, to, &inner, list);
            continue;
        }
        let mut text = fs::read_to_string(entry.path()).expect("a file");
        for (number, m) in list.iter().enumerate().filter(|(_, m)| Path::new(&m.file) == inner) {
            assert_eq!(text.matches(&m.line).count(), 1, "{:?} must stand once in {}: mend tests/mutations.toml", m.line, m.file);
            text = text.replace(&m.line, &format!("(if crate::mutant::is({number}) {{ {} }} else {{ {} }})", m.instead, m.line));
        }
        if inner == Path::new("lib.rs") {
            text += SWITCH;
        }
        write(&to.join(&inner), text.as_bytes());
    }
}

/// Whether the stories of that name go as told, under a mutation or under none.
fn passes(program: &Path, story: &str, mutant: Option<usize>) -> bool {
    let mut command = Command::new(program);
    command.args(["scenarios::every_story_goes_as_told", "--exact"]).env("SCENARIO", story).env_remove("MUTANT");
    // Where the copy's stories are.
    command.current_dir(program.ancestors().find(|a| a.ends_with("mutants")).expect("the copy").join("crates/serin-api"));
    if let Some(number) = mutant {
        command.env("MUTANT", number.to_string());
    }
    let out = command.output().expect("the stories run");
    let told = String::from_utf8_lossy(&out.stdout);
    assert!(told.contains("1 passed") || told.contains("1 failed"), "no story ran: {told}");
    out.status.success()
}

#[test]
#[ignore = "needs cargo: it builds the core once more"]
fn every_mutation_is_caught_by_its_story() {
    let list: List =
        toml::from_str(&fs::read_to_string(root().join("tests/mutations.toml")).expect("the list")).expect("a list of mutations");
    let list = list.mutation;
    let program = build(&list);
    let sound: BTreeSet<&str> = list.iter().map(|m| m.story.as_str()).collect();
    let broken: Vec<&&str> = sound.iter().filter(|story| !passes(&program, story, None)).collect();
    assert!(broken.is_empty(), "these stories fail without any mutation: {broken:?}");
    let (next, survivors) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    let Some(m) = list.get(number) else { return };
                    if passes(&program, &m.story, Some(number)) {
                        survivors.lock().expect("a list").push(format!("{} ({}: {} → {}; {})", m.rule, m.file, m.line, m.instead, m.story));
                    }
                }
            });
        }
    });
    let survivors = survivors.into_inner().expect("a list");
    println!("{} mutations, {} caught", list.len(), list.len() - survivors.len());
    assert!(survivors.is_empty(), "no story fails under these:\n  {}", survivors.join("\n  "));
}
