//! Tests of the linter from outside: pages, fixes, output forms, corpora, hostile input.

mod article;
mod docs;
mod fixes;
mod good;
mod hostile;
mod inputs;
mod kubernetes_schema;
mod outputs;
mod pages;
mod release;
mod sarif;

use serin_check::{Input, Options, Report, check, render};

/// Checks one text with all rules.
fn check_text(text: &str, complete: bool) -> Report {
    check_files(&[("example.yaml", text)], complete)
}

fn inputs(files: &[(&str, &str)]) -> Vec<Input> {
    files.iter().map(|(path, text)| Input { path: (*path).to_owned(), bytes: text.as_bytes().to_vec(), live: false }).collect()
}

fn check_files(files: &[(&str, &str)], complete: bool) -> Report {
    let options = Options { complete, ..Options::default() };
    check(inputs(files), &options)
}

/// One line for each finding.
fn lines(report: &Report) -> Vec<String> {
    render::short(report).lines().map(str::to_owned).collect()
}
