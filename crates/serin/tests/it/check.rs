//! `serin check` and `serin explain` as they are typed: files, streams, fixes, exit codes, a cluster.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::{Lab, SERIN, example, said};

fn serin(dir: &Path, args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(SERIN)
        .args(args)
        .current_dir(dir)
        .env_remove("KUBECONFIG")
        .env("HOME", "/nonexistent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("serin runs");
    child.stdin.take().expect("a pipe").write_all(stdin.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

fn text(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// A folder with the article's files.
fn article() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for name in ["my-app-v1.yaml", "my-app-v2.yaml", "my-app-destination-rule.yaml", "my-app-virtual-service.yaml"] {
        fs::copy(example(&format!("article/{name}")), dir.path().join(name)).expect("a copy");
    }
    dir
}

#[test]
fn the_articles_mistake_is_found_shown_as_a_diff_and_mended() {
    let dir = article();
    let path = dir.path().join("my-app-virtual-service.yaml");
    let before = fs::read_to_string(&path).expect("the file");
    let found = serin(dir.path(), &["check"], "");
    assert_eq!(found.status.code(), Some(1), "{}", said(&found));
    assert!(text(&found).contains("25 % on v2 (1 of 4 pods) instead of 10 %"), "{}", text(&found));
    assert!(text(&found).ends_with("4 files, 5 objects: 1 error, 2 warnings, 2 depend on the cluster\n"));

    let diff = serin(dir.path(), &["check", "--diff"], "");
    assert_eq!(diff.status.code(), Some(1), "{}", said(&diff));
    assert!(text(&diff).contains("\n+  - mesh\n"), "{}", text(&diff));
    assert_eq!(fs::read_to_string(&path).expect("the file"), before);

    let fixed = serin(dir.path(), &["check", "--fix", "my-app-virtual-service.yaml"], "");
    assert_eq!(fixed.status.code(), Some(0), "{}", said(&fixed));
    let after = fs::read_to_string(&path).expect("the file");
    assert_eq!(after.lines().filter(|l| !before.lines().any(|b| b == *l)).collect::<Vec<_>>(), ["  - mesh"]);
    let again = serin(dir.path(), &["check", "--fix", "my-app-virtual-service.yaml"], "");
    assert_eq!(fs::read_to_string(&path).expect("the file"), after, "{}", said(&again));
    assert_eq!(serin(dir.path(), &["check", "--diff"], "").status.code(), Some(0));
}

#[test]
fn a_stream_is_read_and_mended_on_standard_output() {
    let dir = tempfile::tempdir().expect("a folder");
    let broken = "apiVersion: v1\nkind: Service\nmetadata: {name: a, labels: {version: 1.0}}\nspec: {ports: [{port: 80}]}\n";
    let found = serin(dir.path(), &["check", "-", "-o", "short"], broken);
    assert_eq!(found.status.code(), Some(1));
    assert!(text(&found).starts_with("<stdin>:3:"), "{}", text(&found));
    let fixed = serin(dir.path(), &["check", "--fix", "-"], broken);
    assert_eq!(text(&fixed), broken.replace("1.0", "\"1.0\""), "{}", said(&fixed));
}

#[test]
fn exit_codes_are_those_of_the_help() {
    let dir = article();
    let code = |args: &[&str]| serin(dir.path(), args, "").status.code();
    assert_eq!(code(&["check", "my-app-destination-rule.yaml"]), Some(0));
    assert_eq!(code(&["check", "my-app-virtual-service.yaml", "--ignore", "SRN301"]), Some(0));
    assert_eq!(code(&["check", "my-app-virtual-service.yaml", "--ignore", "SRN301", "--deny", "depends"]), Some(1));
    assert_eq!(code(&["check", ".", "--select", "SRN106"]), Some(0));
    assert_eq!(code(&["check", ".", "--select", "SRN106", "--deny", "warnings"]), Some(1));
    assert_eq!(code(&["check", "none.yaml"]), Some(2));
    assert_eq!(code(&["check", ".", "--select", "SRN999"]), Some(2));
    assert_eq!(code(&["check", ".", "--rate", "-1"]), Some(2));
    assert_eq!(code(&["check", "--live"]), Some(2));
    assert_eq!(code(&["explain", "srn301"]), Some(0));
    assert_eq!(code(&["explain", "SRN999"]), Some(2));
}

#[test]
fn the_configuration_file_is_found_and_its_mistakes_have_places() {
    let dir = article();
    fs::create_dir(dir.path().join("sub")).expect("a folder");
    fs::write(dir.path().join(".serin.yaml"), "check:\n  ignore: [SRN3]\n  deny: [warnings]\n").expect("a file");
    let found = serin(&dir.path().join("sub"), &["check", "..", "-o", "short"], "");
    assert_eq!(found.status.code(), Some(1), "{}", said(&found));
    assert!(!text(&found).contains("SRN301"));
    fs::write(dir.path().join(".serin.yaml"), "check:\n  ignroe: [SRN3]\n").expect("a file");
    let wrong = serin(dir.path(), &["check"], "");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(said(&wrong).contains(".serin.yaml:2:11: `ignroe` is not known, did you mean `ignore`?"), "{}", said(&wrong));
}

#[test]
fn a_baseline_hides_old_findings_and_no_new_ones() {
    let dir = article();
    let report = serin(dir.path(), &["check", "-o", "json"], "");
    fs::write(dir.path().join("baseline"), report.stdout).expect("a file");
    assert_eq!(serin(dir.path(), &["check", "--baseline", "baseline"], "").status.code(), Some(0));
    let path = dir.path().join("my-app-destination-rule.yaml");
    fs::write(&path, fs::read_to_string(&path).expect("the file").replace("name: v2", "name: v9")).expect("a file");
    let new = serin(dir.path(), &["check", "--baseline", "baseline", "-o", "short"], "");
    assert_eq!(new.status.code(), Some(1), "{}", said(&new));
    assert!(text(&new).contains("SRN306") && !text(&new).contains("SRN301"), "{}", text(&new));
}

#[test]
fn explain_prints_the_page_and_lists_the_rules() {
    let dir = tempfile::tempdir().expect("a folder");
    let page = text(&serin(dir.path(), &["explain", "SRN301"], ""));
    assert!(page.starts_with("# SRN301: callers inside the mesh bypass this route\n") && page.contains("## Near miss"), "{page}");
    let list = text(&serin(dir.path(), &["explain"], ""));
    assert!(list.lines().count() > 70, "{list}");
    let same = text(&serin(dir.path(), &["explain", "IST0109"], ""));
    assert!(same.starts_with("SRN315 "), "{same}");
}

#[test]
#[ignore = "needs envoy and kubectl"]
fn the_cluster_settles_what_files_leave_open() {
    let _alone = crate::support::alone();
    let lab = Lab::up(&[]);
    for file in ["my-app-v1.yaml", "my-app-v2.yaml", "my-app-destination-rule.yaml", "my-app-virtual-service.yaml"] {
        lab.kubectl(&["apply", "-f", example(&format!("article/{file}")).to_str().expect("a path")]);
    }
    let live = lab.serin(&["check", "--live", "-o", "json"]);
    assert_eq!(live.status.code(), Some(1), "{}", said(&live));
    let report: serde_json::Value = serde_json::from_slice(&live.stdout).expect("JSON");
    let of = |code: &str| report["findings"].as_array().into_iter().flatten().find(|f| f["code"] == code).cloned();
    let bypass = of("SRN301").expect("the article's mistake");
    assert_eq!(bypass["certainty"], "certain");
    assert_eq!(bypass["file"], "live:virtualservice/default/my-app");
    // The namespace lacks the label, and says so whether its objects or files are judged.
    assert_eq!(of("SRN101").expect("no sidecar")["file"], "live:namespace/default");
    // A file about to be applied replaces the object of that name, and is judged with the rest.
    let file = lab.serin(&["check", "--live", "-o", "json", example("article/my-app-virtual-service.yaml").to_str().expect("a path")]);
    let report: serde_json::Value = serde_json::from_slice(&file.stdout).expect("JSON");
    let codes: Vec<&str> = report["findings"].as_array().into_iter().flatten().filter_map(|f| f["code"].as_str()).collect();
    assert!(codes.contains(&"SRN301") && !codes.contains(&"SRN306"), "{codes:?}");
    let all = lab.serin(&["check", "--live", "-A", "-o", "short"]);
    assert!(text(&all).contains("live:namespace/default:"), "{}", said(&all));
    let files = ["my-app-v1.yaml", "my-app-v2.yaml"].map(|f| example(&format!("article/{f}")).to_string_lossy().into_owned());
    let pods = lab.serin(&["check", "--live", "-o", "short", &files[0], &files[1]]);
    assert!(text(&pods).contains("error[SRN101]"), "{}", said(&pods));
    let elsewhere = lab.serin(&["check", "--live", "-n", "kube-system"]);
    assert_eq!(elsewhere.status.code(), Some(0), "{}", said(&elsewhere));
}

#[test]
fn a_cluster_out_of_reach_is_no_answer_and_says_what_to_type() {
    let dir = article();
    let config = "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\nusers: [{name: u, user: {}}]\ncontexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\n";
    fs::write(dir.path().join("kubeconfig"), config).expect("a file");
    let out = serin(dir.path(), &["check", "--live", "--kubeconfig", "kubeconfig"], "");
    assert_eq!(out.status.code(), Some(2), "{}", said(&out));
    assert!(said(&out).contains("127.0.0.1:1 does not answer") && said(&out).contains("kubectl cluster-info"), "{}", said(&out));
    assert!(text(&out).is_empty(), "{}", said(&out));
}

#[test]
fn pipes_are_read_and_folders_do_not_wait_for_them() {
    let dir = article();
    let made = Command::new("mkfifo").arg(dir.path().join("pipe.yaml")).status().expect("mkfifo runs");
    assert!(made.success());
    std::os::unix::fs::symlink("nowhere", dir.path().join("gone.yaml")).expect("a link");
    std::os::unix::fs::symlink("..", dir.path().join("loop")).expect("a link");
    let out = serin(dir.path(), &["check", "-o", "short"], "");
    assert_eq!(out.status.code(), Some(2), "a link to nowhere cannot be read: {}", said(&out));
    assert!(said(&out).contains("cannot read gone.yaml") && text(&out).contains("SRN301"), "{}", said(&out));
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a, labels: {version: 1.0}}\n";
    let piped = serin(dir.path(), &["check", "-o", "short", "/dev/stdin"], service);
    assert_eq!(piped.status.code(), Some(1), "{}", said(&piped));
    fs::write(dir.path().join("README"), "no manifest\n").expect("a file");
    fs::write(dir.path().join("service.rendered"), service).expect("a file");
    let named = serin(dir.path(), &["check", "-o", "short", "README", "service.rendered", "./service.rendered"], "");
    assert_eq!(text(&named).lines().count(), 1, "{}", said(&named));
}

/// What nobody meant well fits into a gigabyte of address space, all mapped files and stacks included.
#[test]
fn hostile_files_are_answered_within_a_bound_of_memory() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    let mut merges = "x0: &x0 {a: 1}\n".to_owned();
    for i in 1..40 {
        let before = i - 1;
        bomb += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{before}"); 10].join(","));
        merges += &format!("x{i}: &x{i}\n  <<: [*x{before}, *x{before}]\n  k{i}: *x{before}\n");
    }
    let pod = |i: usize| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: w{i}}}\nspec:\n  selector: {{matchLabels: {{app: a}}}}\n  template:\n    metadata: {{labels: {{app: a, version: v{i}}}}}\n    spec: {{containers: [{{name: a, image: x}}]}}\n---\n"
        )
    };
    let alike: String = (0..1_500).map(pod).collect();
    let subsets: String = (0..1_500).map(|i| format!("  - {{name: v{i}, labels: {{version: v{i}}}}}\n")).collect();
    let family = format!(
        "{alike}apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{selector: {{app: a}}, ports: [{{port: 80}}]}}\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a}}\nspec:\n  host: a\n  subsets:\n{subsets}"
    );
    let rules: String =
        (0..5_000).map(|i| format!("  - match: [{{uri: {{prefix: /p{i}}}}}]\n    route: [{{destination: {{host: a}}}}]\n")).collect();
    let routes =
        format!("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec:\n  hosts: [a]\n  http:\n{rules}");
    let files = [
        ("bomb", bomb),
        ("merges", merges),
        ("deep", "{a: ".repeat(200_000)),
        ("wide", "- ".repeat(500_000)),
        ("long", "a".repeat(8_000_000)),
        ("zeros", "\0".repeat(4_000_000)),
        ("alike", family),
        ("routes", routes),
    ];
    for (name, text) in files {
        fs::write(dir.path().join(format!("{name}.yaml")), text).expect("a file");
        let script = format!("ulimit -v 1048576; exec \"$0\" check -o short --deny warnings {name}.yaml");
        let out = Command::new("bash").args(["-c", &script, SERIN]).current_dir(dir.path()).output().expect("bash runs");
        assert!(matches!(out.status.code(), Some(0 | 1)), "{name}: {}", said(&out).chars().take(2_000).collect::<String>());
    }
}

/// `UPDATE=1` writes it anew.
#[test]
fn the_readme_shows_what_is_said_of_the_articles_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let out = Command::new(SERIN)
        .args(["check", "examples/article", "--color", "never"])
        .current_dir(&root)
        .env("COLUMNS", "80")
        .env("LC_ALL", "C.UTF-8")
        .output()
        .expect("serin runs");
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    let path = root.join("README.md");
    let readme = fs::read_to_string(&path).expect("the readme");
    let (before, rest) = readme.split_once("<!-- begin: serin check examples/article -->\n").expect("the block begins");
    let (_, after) = rest.split_once("<!-- end -->").expect("the block ends");
    let want = format!("{before}<!-- begin: serin check examples/article -->\n```\n{}```\n<!-- end -->{after}", text(&out));
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &want).expect("the readme is written");
    } else {
        assert!(readme == want, "run UPDATE=1 cargo test -p serin the_readme_shows; it said\n{}", text(&out));
    }
}

/// What the README says makes them silent does.
#[test]
fn the_articles_files_as_the_readme_mends_them_are_silent() {
    let dir = article();
    for name in ["my-app-v1.yaml", "my-app-v2.yaml"] {
        let path = dir.path().join(name);
        let old = fs::read_to_string(&path).expect("the file");
        let probe = "        readinessProbe: {tcpSocket: {port: 8080}}\n        ports:\n";
        let pods = "    metadata:\n      labels:\n        sidecar.istio.io/inject: \"true\"\n";
        let new = old.replacen("        ports:\n", probe, 1).replacen("    metadata:\n      labels:\n", pods, 1);
        assert!(new.contains("readinessProbe") && new.contains("inject"), "{new}");
        fs::write(&path, new).expect("the file is written");
    }
    let path = dir.path().join("my-app-virtual-service.yaml");
    let old = fs::read_to_string(&path).expect("the file");
    fs::write(&path, old.replace("  gateways:\n  - my-gateway\n", "")).expect("the file is written");
    let out = serin(dir.path(), &["check", "--complete"], "");
    assert_eq!(out.status.code(), Some(0), "{}", said(&out));
    assert_eq!(text(&out), "4 files, 5 objects: no findings\n");
}
