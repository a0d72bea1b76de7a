//! The README's shell blocks, line by line, as a newcomer types them. Each line has to end well, but for the one that the README says does not.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{SERIN, alone, kubectl_path, said};

/// The lines of the README's `sh` blocks under a heading.
fn lines_under<'a>(readme: &'a str, heading: &str) -> Vec<&'a str> {
    let (_, rest) = readme.split_once(&format!("## {heading}\n")).unwrap_or_else(|| panic!("README has no heading {heading:?}"));
    let section = rest.split("\n## ").next().unwrap_or(rest);
    let (_, block) = section.split_once("```sh\n").expect("a block of shell");
    block.split("```").next().unwrap_or(block).lines().collect()
}

#[test]
#[ignore = "needs envoy and kubectl"]
fn the_readme_does_what_it_says() {
    let _alone = alone();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let readme = std::fs::read_to_string(root.join("README.md")).expect("README.md");
    let home = tempfile::tempdir().expect("a folder");
    let bin = home.path().join("bin");
    std::fs::create_dir(&bin).expect("a folder");
    symlink(SERIN, bin.join("serin")).expect("a link");
    symlink(kubectl_path(), bin.join("kubectl")).expect("a link");
    symlink(root.join("examples"), home.path().join("examples")).expect("a link");

    let mut script = String::from("trap 'serin lab down; kill $(jobs -p) 2>/dev/null' EXIT\n");
    let mut told = 0;
    for line in ["The article's six steps, by hand", "Let Serin do it"].iter().flat_map(|heading| lines_under(&readme, heading)) {
        // The README tells that the article's split is not what it says: that answer is a no.
        let expected = u8::from(line.contains("25 %, not 10 %"));
        told += expected;
        let quoted = line.replace('\'', "'\\''");
        script +=
            &format!("echo '+ {quoted}'\n{line}\nstatus=$?; [ $status = {expected} ] || {{ echo \"ended with $status\"; exit 1; }}\n");
    }
    assert_eq!(told, 1, "the README tells of the article's split once");

    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let out = Command::new("bash")
        .args(["-c", &script])
        .current_dir(home.path())
        .env("PATH", path)
        .env("XDG_STATE_HOME", home.path().join("state"))
        .env_remove("KUBECONFIG")
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    assert!(out.status.success(), "{}", said(&out));
    let text = String::from_utf8_lossy(&out.stdout);
    for sight in [
        "measured: v2 gets",
        "callers inside the mesh bypass it",
        "verified: v2 gets",
        "v2 serves every request",
        "v3 was taken back: v3 failed",
    ] {
        assert!(text.contains(sight), "{sight:?} is not in\n{}", said(&out));
    }
}
