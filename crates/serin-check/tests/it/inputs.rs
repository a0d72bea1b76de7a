//! What is read and how: folders, environments, comments, selection, what the cluster holds.

use std::collections::BTreeMap;
use std::fs;

use serin_check::{Certainty, Deny, Input, Options, Severity, check, sources};

use super::{check_files, inputs, lines};

const ALONE: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: cart\nspec:\n  hosts: [cart]\n  http:\n  - route:\n    - destination: {host: cart}\n      weight: 10\n";

fn codes(report: &serin_check::Report) -> Vec<&'static str> {
    report.findings.iter().map(|f| f.code).collect()
}

fn deployment(image: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: cart}}\nspec:\n  selector: {{matchLabels: {{app: cart}}}}\n  template:\n    metadata: {{labels: {{app: cart}}}}\n    spec: {{containers: [{{name: cart, image: \"{image}\"}}]}}\n"
    )
}

#[test]
fn folders_are_read_with_gitignore_and_other_files_are_counted() {
    let dir = tempfile::tempdir().expect("a folder");
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("make it");
        fs::write(path, text).expect("write");
    };
    write("a.yaml", ALONE);
    write("sub/b.YML", ALONE);
    write("sub/c.json", "{}");
    write("ignored/d.yaml", ALONE);
    write(".gitignore", "ignored/\n");
    write("README.md", "# no manifest");
    write("vendor/e.yaml", ALONE);
    let found = sources::gather(&[dir.path().to_path_buf()], &["vendor/**".to_owned()]);
    let names: Vec<_> = found.inputs.iter().map(|i| i.path.rsplit('/').next().unwrap_or("").to_owned()).collect();
    assert_eq!(names, ["a.yaml", "b.YML", "c.json"]);
    assert_eq!(found.others, 1);
    assert!(found.problems.is_empty());
    let missing = sources::gather(&[dir.path().join("none.yaml")], &[]);
    assert_eq!(missing.problems.len(), 1);
}

#[test]
fn one_broken_file_is_one_finding_and_the_others_are_checked() {
    let report = check_files(&[("bad.yaml", "a: [1\n"), ("good.yaml", ALONE)], true);
    assert_eq!(codes(&report), ["SRN001", "SRN312"]);
}

#[test]
fn a_broken_file_leaves_open_what_it_may_hold() {
    let release = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: cart}\nspec:\n  hosts: [cart]\n  http:\n  - route:\n    - destination: {host: cart, subset: v1}\n";
    let all = check_files(&[("vs.yaml", release)], true);
    assert!(all.findings.iter().all(|f| f.certainty == Certainty::Certain), "{:#?}", lines(&all));
    let broken = check_files(&[("vs.yaml", release), ("bad.yaml", "a: [1\n")], true);
    let subset = broken.findings.iter().find(|f| f.code == "SRN306").expect("the subset is defined nowhere");
    assert_ne!(subset.certainty, Certainty::Certain);
}

#[test]
fn environments_are_judged_apart() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: cart}\nspec:\n  selector: {app: cart, track: stable}\n  ports: [{name: http, port: 80}]\n";
    let (one, two) = (deployment("example.com/cart:1"), deployment("example.com/cart:2"));
    let files = [("deploy/staging/d.yaml", one.as_str()), ("deploy/production/d.yaml", two.as_str())];
    assert_eq!(lines(&check_files(&files, false)), Vec::<String>::new());
    // What is shared is judged with each of them, and told once.
    let files = [("deploy/base/s.yaml", service), files[0], files[1]];
    assert_eq!(codes(&check_files(&files, false)), ["SRN201"]);
    // Alternatives side by side in one folder too.
    let files = [("split-90.yaml", ALONE), ("split-50.yaml", ALONE)];
    assert_eq!(codes(&check_files(&files, false)), ["SRN312", "SRN312"]);
}

#[test]
fn patches_of_a_kustomization_are_no_objects() {
    let kustomization = "resources: [../base]\npatches:\n- path: replicas.yaml\n";
    let patch = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: cart}\nspec: {replicas: 3}\n";
    let base = deployment("example.com/cart:1");
    let files = [("base/d.yaml", base.as_str()), ("over/kustomization.yaml", kustomization), ("over/replicas.yaml", patch)];
    assert_eq!(lines(&check_files(&files, false)), Vec::<String>::new());
    // Without the kustomization it is an object that lacks most of itself.
    assert!(codes(&check_files(&files[2..], false)).contains(&"SRN012"));
}

#[test]
fn rules_are_chosen_by_code_and_by_beginning() {
    let run = |select: &[&str], ignore: &[&str]| {
        let own = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect();
        let options = Options { select: own(select), ignore: own(ignore), ..Options::default() };
        codes(&check(inputs(&[("x.yaml", ALONE)]), &options))
    };
    assert_eq!(run(&[], &[]), ["SRN312"]);
    assert_eq!(run(&["SRN3"], &[]), ["SRN312"]);
    assert_eq!(run(&["SRN2"], &[]), Vec::<&str>::new());
    assert_eq!(run(&[], &["srn3"]), Vec::<&str>::new());
    assert_eq!(run(&["SRN312"], &["SRN3"]), ["SRN312"]);
    assert_eq!(serin_check::unknown_codes(["SRN3", "SRN9", "all"]), ["SRN9"]);
}

#[test]
fn severities_can_be_changed_and_rules_turned_off() {
    let run = |severity| {
        let severities = BTreeMap::from([("SRN312".to_owned(), severity)]);
        check(inputs(&[("x.yaml", ALONE)]), &Options { severities, ..Options::default() })
    };
    assert_eq!(run(Some(Severity::Info)).findings[0].severity, Severity::Info);
    assert!(run(None).findings.is_empty());
}

#[test]
fn warnings_fail_only_when_denied_and_what_depends_only_when_asked() {
    let warned = check_files(&[("x.yaml", ALONE)], false);
    assert!(!warned.fails(Deny::default()));
    assert!(warned.fails(Deny { warnings: true, depends: false }));
    let gateway = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: cart}\nspec:\n  hosts: [cart.example.com]\n  gateways: [none]\n  http:\n  - route: [{destination: {host: cart}}]\n";
    let depends = check_files(&[("x.yaml", gateway)], false);
    assert_eq!(codes(&depends), ["SRN302"]);
    assert!(!depends.fails(Deny { warnings: true, depends: false }));
    assert!(depends.fails(Deny { warnings: false, depends: true }));
    assert!(check_files(&[("x.yaml", gateway)], true).fails(Deny::default()));
}

#[test]
fn a_comment_silences_its_rule_and_no_other() {
    let silent = ALONE.replace("weight: 10", "weight: 10 # serin: ignore[SRN312] soon two");
    let report = check_files(&[("x.yaml", &silent)], false);
    assert_eq!((codes(&report), report.stats.silenced), (vec![], 1));
    let other = ALONE.replace("weight: 10", "weight: 10 # serin: ignore[SRN310] wrong rule");
    assert_eq!(codes(&check_files(&[("x.yaml", &other)], false)), ["SRN312", "SRN008"]);
    // A rule that does not run is not missed.
    let options = Options { ignore: vec!["SRN312".to_owned()], ..Options::default() };
    assert!(check(inputs(&[("x.yaml", &silent)]), &options).findings.is_empty());
}

#[test]
fn a_text_in_a_block_scalar_silences_nothing() {
    let text = format!(
        "{ALONE}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: notes}}\ndata:\n  a: |\n    # serin: ignore[SRN312] not a comment\n"
    );
    assert_eq!(codes(&check_files(&[("x.yaml", &text)], false)), ["SRN312"]);
}

#[test]
fn objects_of_the_cluster_settle_what_depends_and_files_replace_them() {
    let gateway = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: public, namespace: shop}\nspec:\n  selector: {istio: ingressgateway}\n  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"*\"]}]\n";
    let old = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: cart, namespace: shop}\nspec:\n  hosts: [cart.example.com]\n  gateways: [gone]\n  http:\n  - route: [{destination: {host: cart}}]\n";
    let new = old.replace("gone", "public");
    let mut all = inputs(&[("vs.yaml", &new), ("live:gateway", gateway), ("live:vs", old)]);
    all[1].live = true;
    all[2].live = true;
    let options = Options { namespace: Some("shop".to_owned()), ..Options::default() };
    assert_eq!(lines(&check(all, &options)), Vec::<String>::new());
    // What is wrong in the cluster alone is not the file's matter.
    let unrelated = ALONE.replace("name: cart", "name: other");
    let mut all = inputs(&[("vs.yaml", &new), ("live:gateway", gateway), ("live:other", &unrelated)]);
    all[1].live = true;
    all[2].live = true;
    assert_eq!(lines(&check(all, &options)), Vec::<String>::new());
    let live = vec![Input { path: "live:other".to_owned(), bytes: unrelated.into_bytes(), live: true }];
    assert_eq!(codes(&check(live, &options)), ["SRN312"]);
}

#[test]
fn what_a_baseline_knows_is_left_out_once() {
    let mut report = check_files(&[("x.yaml", ALONE)], false);
    let baseline = serin_check::render::json(&report);
    assert_eq!(report.without_known(&baseline), Ok(1));
    assert!(report.findings.is_empty());
    let twice = format!("{ALONE}---\n{}", ALONE.replace("name: cart", "name: other").replace("[cart]", "[other]"));
    let mut report = check_files(&[("x.yaml", &twice)], false);
    assert_eq!(report.without_known(&baseline), Ok(1));
    assert_eq!(codes(&report), ["SRN312"]);
    assert!(report.without_known("[]").is_err());
}

#[test]
fn a_chart_is_one_remark() {
    let files = [("web/templates/a.yaml", "a: {{ .Values.a }}\n"), ("web/templates/b.yaml", "{{- if .x }}\nb: 1\n{{- end }}\n")];
    let report = check_files(&files, false);
    assert_eq!(codes(&report), ["SRN002"]);
    assert!(report.findings[0].help.as_deref().is_some_and(|h| h.starts_with("helm template web |")));
}

#[test]
fn of_a_named_patch_the_kustomization_is_asked() {
    let dir = tempfile::tempdir().expect("a folder");
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("make it");
        fs::write(&path, text).expect("write it");
        path
    };
    let patch = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: cart}\nspec: {replicas: 3}\n";
    write("over/kustomization.yaml", "resources: [../base]\npatches:\n- path: patches/replicas.yaml\n");
    let path = write("over/patches/replicas.yaml", patch);
    let report = check(sources::gather(&[path], &[]).inputs, &Options::default());
    assert_eq!(lines(&report), Vec::<String>::new());
    let alone = write("alone/replicas.yaml", patch);
    assert_eq!(codes(&check(sources::gather(&[alone], &[]).inputs, &Options::default())), ["SRN012"]);
}

#[test]
fn what_lacks_in_one_alternative_and_stands_in_another_is_not_missing() {
    let route = |subset: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: cart}}\nspec:\n  hosts: [cart]\n  http:\n  - route:\n    - destination: {{host: cart, subset: {subset}}}\n"
        )
    };
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: cart}\nspec:\n  host: cart\n  subsets: [{name: v1, labels: {version: v1}}]\n";
    let other = rule.replace("  subsets", "  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}\n  subsets");
    let (v1, v2) = (route("v1"), route("v2"));
    // Two routes and two rules for them: whichever route is applied, a rule is there.
    let files = [("all-v1.yaml", v1.as_str()), ("rule-mtls.yaml", other.as_str()), ("rule.yaml", rule), ("zz-v1.yaml", v1.as_str())];
    assert_eq!(lines(&check_files(&files, false)), Vec::<String>::new());
    // A subset that neither rule has is a mistake in the one route that names it.
    let files = [("all-v1.yaml", v1.as_str()), ("rule-mtls.yaml", other.as_str()), ("rule.yaml", rule), ("zz-v2.yaml", v2.as_str())];
    let report = check_files(&files, false);
    assert_eq!(lines(&report).len(), 1, "{:?}", lines(&report));
    assert!(lines(&report)[0].starts_with("zz-v2.yaml:8:"), "{:?}", lines(&report));
}

#[test]
fn other_encodings_are_one_finding_that_says_which() {
    let text = "apiVersion: v1\nkind: Service\n";
    let units: Vec<u16> = text.encode_utf16().collect();
    let le: Vec<u8> = units.iter().flat_map(|u| u.to_le_bytes()).collect();
    let be: Vec<u8> = units.iter().flat_map(|u| u.to_be_bytes()).collect();
    let marked = [&[0xff, 0xfe], le.as_slice()].concat();
    for bytes in [le, be, marked] {
        let report = check(vec![Input { path: "x.yaml".to_owned(), bytes, live: false }], &Options::default());
        assert_eq!(lines(&report), ["x.yaml:1:1: error[SRN001]: the file is not YAML: this is UTF-16: save it as UTF-8"]);
    }
}

#[test]
fn json_values_one_after_another_are_objects() {
    let text = "{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"a\"}, \"spec\": {\"ports\": [{\"port\": 80}]}}\n{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"b\"}, \"spec\": {\"prts\": []}}\n";
    let report = check_files(&[("x.json", text)], false);
    assert_eq!(report.stats.objects, 2);
    assert_eq!(lines(&report).len(), 1);
    assert!(lines(&report)[0].starts_with("x.json:2:77: error[SRN010]"), "{:?}", lines(&report));
}

#[test]
fn keys_that_stand_twice_in_other_peoples_files_are_theirs() {
    assert_eq!(lines(&check_files(&[("values.yaml", "a: 1\na: 2\n")], false)), Vec::<String>::new());
}

#[test]
fn environments_of_many_services_are_judged_by_name_and_copies_are_no_alternatives() {
    let mut texts: Vec<(String, String)> = Vec::new();
    for n in 0..40 {
        for environment in ["dev", "prod", "staging"] {
            let text = deployment(&format!("example.com/cart:{environment}")).replace("cart", &format!("cart{n}"));
            texts.push((format!("svc{n}/overlays/{environment}/d.yaml"), text));
        }
        let service = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: cart{n}}}\nspec:\n  selector: {{app: cart{n}}}\n  ports: [{{name: http, port: 80}}]\n"
        );
        texts.push((format!("svc{n}/base/s.yaml"), service));
        // Each brings the same namespace and the same account along.
        texts.push((
            format!("svc{n}/base/n.yaml"),
            format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {{by: svc{n}}}}}\n"),
        ));
    }
    let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: all}\nspec:\n  hosts: [shop.example.com]\n  gateways: [edge/g]\n  http:\n  - match: [{uri: {prefix: /a}}]\n    route: [{destination: {host: cart1}}]\n  - route: [{destination: {host: cart39}}]\n";
    texts.push(("edge/route.yaml".to_owned(), route.to_owned()));
    let files: Vec<(&str, &str)> = texts.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
    assert_eq!(lines(&check_files(&files, false)), Vec::<String>::new());
}

#[test]
fn alternatives_within_an_alternative_are_seen() {
    let (one, two) = (deployment("example.com/cart:1"), deployment("example.com/cart:2"));
    let release = |n: i64| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: cart}}\nspec:\n  hosts: [cart]\n  http:\n  - route:\n    - destination: {{host: cart}}\n      weight: {n}\n"
        )
    };
    let (east, west) = (release(10), release(20));
    let files = [
        ("o/dev/d.yaml", one.as_str()),
        ("o/prod/d.yaml", two.as_str()),
        ("o/prod/east/v.yaml", east.as_str()),
        ("o/prod/west/v.yaml", west.as_str()),
    ];
    assert_eq!(codes(&check_files(&files, false)), ["SRN312", "SRN312"]);
}
