//! What lies in `deploy/` is what the binary prints.

use std::path::Path;
use std::process::Command;

#[test]
fn the_committed_manifests_are_what_install_prints() {
    for (file, flags) in [
        ("serin.yaml", vec!["--image", "serin:0.1.0"]),
        ("serin-namespaced.yaml", vec!["--image", "serin:0.1.0", "--watch-namespace", "shop", "-n", "shop"]),
    ] {
        let out = Command::new(env!("CARGO_BIN_EXE_serin")).arg("install").args(&flags).output().expect("serin runs");
        assert!(out.status.success());
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(file);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &out.stdout).expect("written");
        }
        let committed = std::fs::read(&path).unwrap_or_default();
        assert!(committed == out.stdout, "{} is out of date: UPDATE=1 cargo test --workspace", path.display());
    }
}
