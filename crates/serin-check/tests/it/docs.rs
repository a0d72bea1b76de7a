//! `docs/check.md` lists the rules as they are. `UPDATE=1 cargo test -p serin-check docs` writes the list anew.

use std::fmt::Write as _;

use serin_check::all;

const BEGIN: &str = "<!-- begin: rules -->\n";
const END: &str = "<!-- end -->";

#[test]
fn the_docs_list_every_rule_with_its_severity_and_the_code_of_istioctl() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/check.md");
    let have = std::fs::read_to_string(path).expect("the docs");
    let (before, rest) = have.split_once(BEGIN).expect("the list begins");
    let (_, after) = rest.split_once(END).expect("the list ends");
    let mut list = String::from("| code | what it finds | severity | istioctl | `--fix` |\n|---|---|---|---|---|\n");
    for rule in all() {
        let page = rule.page();
        let fix = if page.fixable { "yes" } else { "" };
        let link = format!("[{}](../crates/serin-check/rules/{}.md)", rule.code, rule.code);
        let _ = writeln!(list, "| {link} | {} | {} | {} | {fix} |", page.title, page.severity.word(), page.istio.join(", "));
    }
    let want = format!("{before}{BEGIN}{list}{END}{after}");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &want).expect("the docs are written");
    } else {
        assert!(have == want, "run UPDATE=1 cargo test -p serin-check docs");
    }
}
