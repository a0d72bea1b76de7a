//! Holds what reviews would otherwise have to: the direction of crates, the purity of the core, one clock, a purpose per file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Which of our crates each may use. An arrow only ever points up this list.
const ARROWS: [(&str, &[&str]); 6] = [
    ("serin-core", &[]),
    ("serin-api", &["serin-core"]),
    ("serin-check", &["serin-core", "serin-api"]),
    ("serin-lab", &[]),
    ("serin-controller", &["serin-core", "serin-api"]),
    ("serin", &["serin-core", "serin-api", "serin-check", "serin-lab", "serin-controller"]),
];

/// All that the core may be built from.
const CORE: [&str; 4] = ["libm", "serde", "serde_json", "thiserror"];

fn metadata() -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let out = Command::new(cargo).args(["metadata", "--no-deps", "--format-version", "1", "--offline"]).current_dir(root()).output();
    let out = out.expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("cargo prints JSON")
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut folders = vec![root().join("crates"), root().join("tests")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                if path.file_name().is_some_and(|n| n != "target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("a readable file");
                files.push((path, text));
            }
        }
    }
    files.sort();
    files
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn none(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn arrows_point_up() {
    let metadata = metadata();
    let mut findings = Vec::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name");
        let Some((_, allowed)) = ARROWS.iter().find(|(n, _)| *n == name) else {
            findings.push(format!("crate {name} is in no list: give it a place in ARROWS and in ARCHITECTURE.md"));
            continue;
        };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let on = dependency["name"].as_str().expect("a name");
            let ours = ARROWS.iter().any(|(n, _)| *n == on);
            // Tests of the controller run on the lab; the product does not.
            let normal = dependency["kind"].is_null();
            if ours && normal && !allowed.contains(&on) {
                findings.push(format!("crates/{name}/Cargo.toml: uses {on}, which lies below it: move what both need up"));
            }
            if name == "serin-core" && normal && !CORE.contains(&on) {
                findings.push(format!("crates/serin-core/Cargo.toml: uses {on}: the core is built from {CORE:?} only"));
            }
        }
    }
    none(&findings);
}

#[test]
fn the_core_has_no_outside() {
    let lib = fs::read_to_string(root().join("crates/serin-core/src/lib.rs")).expect("the core");
    assert!(
        lib.contains("\n#![no_std]\n"),
        "crates/serin-core/src/lib.rs: #![no_std] is gone: it is what keeps files, sockets and clocks out"
    );
}

#[test]
fn every_file_says_what_it_is_for() {
    let purpose = |text: &str| text.lines().next().is_some_and(|l| l.starts_with("//! ") && l.len() > 12);
    let without: Vec<String> = sources()
        .iter()
        .filter(|(_, t)| !purpose(t))
        .map(|(p, _)| format!("{}:1: begin with `//!` and the purpose of the file", shown(p)))
        .collect();
    none(&without);
}

/// Time is handed in, so that hours pass in a test without waiting. Only the binary reads the machine's clock.
#[test]
fn one_clock() {
    let readers = ["SystemTime::now", "Timestamp::now", "Zoned::now", "Utc::now"];
    let mut findings = Vec::new();
    for (path, text) in sources() {
        let name = shown(&path);
        if name.starts_with("crates/serin/")
            || name.contains("/tests/")
            || name.contains("/examples/")
            || name.contains("/bin/")
            || name.starts_with("tests/")
        {
            continue;
        }
        let product = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (i, line) in product.lines().enumerate() {
            if let Some(reader) = readers.iter().find(|r| line.contains(*r) && !line.trim_start().starts_with("//")) {
                findings.push(format!("{name}:{}: {reader}: take the clock that is handed in", i + 1));
            }
        }
    }
    none(&findings);
}

/// Every code that a condition or an event can carry, and every phase, has its line in `docs/operations.md`; and that names no other.
#[test]
fn every_message_has_its_entry() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    let docs = read("docs/operations.md");
    let mut codes: Vec<String> = Vec::new();
    let in_quotes = |text: &str| text.split('"').nth(1).map(str::to_owned);
    for path in ["crates/serin-core/src/reason.rs", "crates/serin-core/src/route/problem.rs", "crates/serin-core/src/state.rs"] {
        let text = read(path);
        let arms = text.lines().filter(|l| l.trim_start().starts_with("Self::") && l.contains("=> \"") && l.trim_end().ends_with("\","));
        codes.extend(arms.filter_map(in_quotes));
    }
    for (path, before) in [
        ("crates/serin-controller/src/observe/seen.rs", "make(\""),
        ("crates/serin-controller/src/observe/seen.rs", "code: \""),
        ("crates/serin-controller/src/look.rs", "code: \""),
    ] {
        // Where the line would be too long, the text stands on the next one.
        let text = read(path).replace("make(\n", "make(").split("make(").map(str::trim_start).collect::<Vec<_>>().join("make(");
        codes.extend(text.split(before).skip(1).filter_map(|rest| rest.split('"').next().map(str::to_owned)));
    }
    let is_code = |c: &String| c.starts_with(char::is_uppercase) && c.chars().all(char::is_alphanumeric);
    codes.retain(is_code);
    codes.sort();
    codes.dedup();
    assert!(codes.len() > 60, "found {} codes only: the pattern above no longer fits", codes.len());
    let lacks = codes
        .iter()
        .filter(|c| !docs.contains(&format!("`{c}`")))
        .map(|c| format!("docs/operations.md: no entry for `{c}`: say what it means and what to do"));
    let first_cells = docs.lines().filter(|l| l.starts_with("| `")).filter_map(|l| l.split('|').nth(1));
    let named = first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect::<Vec<_>>();
    let gone = named.iter().filter(|c| !codes.contains(c)).map(|c| format!("docs/operations.md: `{c}` is said nowhere any more"));
    none(&lacks.chain(gone).collect::<Vec<_>>());
}
