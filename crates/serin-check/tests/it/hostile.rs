//! Input nobody meant well: no panic, no endless loop, no memory without bound.
//!
//! `FUZZ_SECONDS=600 cargo test -p serin-check --release hostile_for_a_while -- --ignored` runs
//! the same for ten minutes.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serin_check::{Deny, Options, all, check, fix, render};

use super::inputs;

/// All manifests of the pages: every rule has something to say about one of them.
fn seeds() -> Vec<String> {
    let pages = all().iter().flat_map(|r| r.page().examples());
    let mut texts: Vec<String> = pages.map(|e| e.yaml).collect();
    texts.push(include_str!("../../../../examples/article/my-app-v1.yaml").to_owned());
    texts
}

/// What is done to a text.
#[derive(Debug, Clone)]
enum Change {
    Delete { at: usize, len: usize },
    Insert { at: usize, text: String },
    Repeat { at: usize, len: usize, times: usize },
    Indent { line: usize, by: usize },
    Swap { a: usize, b: usize },
    Splice { seed: usize, at: usize },
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("&a ".to_owned()),
        Just("*a".to_owned()),
        Just("<<: *a\n".to_owned()),
        Just("{".to_owned()),
        Just("]".to_owned()),
        Just(": ".to_owned()),
        Just("- ".to_owned()),
        Just("---\n".to_owned()),
        Just("\r\n".to_owned()),
        Just("|\n".to_owned()),
        Just("\"".to_owned()),
        Just("\t".to_owned()),
        Just("# serin: ignore[SRN301] x\n".to_owned()),
        Just("{{ ".to_owned()),
        Just("}}{%".to_owned()),
        Just("\n}\n{".to_owned()),
        Just("null".to_owned()),
        Just("-9223372036854775808".to_owned()),
        Just("9223372036854775807".to_owned()),
        Just("!!binary ".to_owned()),
        Just("\u{feff}".to_owned()),
        Just("ü\u{0}\u{85}\u{2028}".to_owned()),
        any::<String>(),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let n = 0usize..4000;
    prop_oneof![
        (n.clone(), 0usize..60).prop_map(|(at, len)| Change::Delete { at, len }),
        (n.clone(), piece()).prop_map(|(at, text)| Change::Insert { at, text }),
        (n.clone(), 0usize..40, 2usize..50).prop_map(|(at, len, times)| Change::Repeat { at, len, times }),
        (0usize..80, 0usize..6).prop_map(|(line, by)| Change::Indent { line, by }),
        (n.clone(), n.clone()).prop_map(|(a, b)| Change::Swap { a, b }),
        (0usize..1000, n).prop_map(|(seed, at)| Change::Splice { seed, at }),
    ]
}

fn boundary(text: &str, at: usize) -> usize {
    let mut at = at % (text.len() + 1);
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn apply(text: &mut String, change: &Change, seeds: &[String]) {
    match change {
        Change::Delete { at, len } => {
            let from = boundary(text, *at);
            let to = boundary(text, (from + len).min(text.len())).max(from);
            text.replace_range(from..to, "");
        }
        Change::Insert { at, text: new } => text.insert_str(boundary(text, *at), new),
        Change::Repeat { at, len, times } => {
            let from = boundary(text, *at);
            let to = boundary(text, (from + len).min(text.len())).max(from);
            let part = text[from..to].repeat(*times);
            text.insert_str(to, &part);
        }
        Change::Indent { line, by } => {
            let lines: Vec<&str> = text.lines().collect();
            let line = line % lines.len().max(1);
            let own = |(n, l): (usize, &&str)| if n == line { format!("{}{}", " ".repeat(*by), l.trim_start()) } else { (*l).to_owned() };
            *text = lines.iter().enumerate().map(own).collect::<Vec<_>>().join("\n");
        }
        Change::Swap { a, b } => {
            let (a, b) = (boundary(text, *a), boundary(text, *b));
            let (a, b) = (a.min(b), a.max(b));
            *text = format!("{}{}{}", &text[b..], &text[a..b], &text[..a]);
        }
        Change::Splice { seed, at } => {
            let other = &seeds[seed % seeds.len()];
            text.insert_str(boundary(text, *at), other);
        }
    }
}

fn survives(text: &str) {
    for complete in [false, true] {
        let options = Options { complete, rate: Some(10.0), ..Options::default() };
        let fixed = fix::apply(&inputs(&[("x.yaml", text)]), &options);
        for report in [&fixed.report, &check(inputs(&[("x.yaml", text)]), &options)] {
            for f in &report.findings {
                let len = report.file(f.primary.loc).text.len();
                assert!(f.primary.loc.span.end as usize <= len);
            }
            let style = render::Style::default();
            let out = [
                render::human(report, style),
                render::json(report),
                render::sarif(report),
                render::junit(report, Deny::default()),
                render::github(report),
                render::short(report),
            ];
            assert!(out.iter().all(|o| o.len() < 5_000_000 + text.len() * 200));
        }
        for (path, old, new) in &fixed.changed {
            assert!(!fix::diff(path, old, new).is_empty());
        }
    }
}

/// Several files are judged together: environments, alternatives, one broken among them.
fn several_survive(texts: &[String]) {
    let names = ["base/a.yaml", "over/one/a.yaml", "over/two/a.yaml", "b.yaml"];
    let files: Vec<(&str, &str)> = names.iter().copied().zip(texts.iter().map(String::as_str)).collect();
    let fixed = fix::apply(&inputs(&files), &Options::default());
    let report = check(inputs(&files), &Options::default());
    assert!(render::sarif(&report).len() + render::json(&fixed.report).len() > 0);
}

fn run(cases: u32) {
    let seeds = seeds();
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let strategy = (0usize..10_000, prop::collection::vec(change(), 1..8));
    let outcome = runner.run(&strategy, |(seed, changes)| {
        let mut text = seeds[seed % seeds.len()].clone();
        for change in &changes {
            apply(&mut text, change, &seeds);
            if text.len() > 60_000 {
                let end = boundary(&text, 60_000);
                text.truncate(end);
            }
        }
        survives(&text);
        let beside = |n: usize| seeds[(seed + n) % seeds.len()].clone();
        several_survive(&[beside(0), text, beside(1), beside(2)]);
        Ok(())
    });
    if let Err(e) = outcome {
        panic!("{e}");
    }
}

#[test]
fn mutated_manifests_never_panic() {
    run(120);
}

#[test]
fn any_text_at_all_never_panics() {
    let mut runner = TestRunner::new(Config { cases: 120, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&any::<String>(), |text| {
        survives(&text);
        Ok(())
    });
    if let Err(e) = outcome {
        panic!("{e}");
    }
}

#[test]
fn known_bombs_are_findings() {
    let mut bomb = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..20 {
        let refs = vec![format!("*a{}", i - 1); 10].join(",");
        bomb += &format!("a{i}: &a{i} [{refs}]\n");
    }
    for text in [bomb.as_str(), &"[".repeat(100_000), &"{a: ".repeat(50_000), &"- ".repeat(100_000), &"a: &a [*a]\n".repeat(3)] {
        let report = super::check_text(text, true);
        assert!(report.findings.iter().any(|f| ["SRN004", "SRN001"].contains(&f.code)), "{}", &text[..60]);
    }
    // Much of what is asked of each line, pair or brace: minutes, if one of them is looked at again for each other.
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n";
    let rule = |i: usize| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a{i}}}\nspec: {{host: a, subsets: [{{name: v1}}]}}\n---\n"
        )
    };
    let many = [
        format!("{service}{}", "# serin: ignore[SRN301] x\n".repeat(20_000)),
        format!("{}{service}", "# serin: ignore[SRN301] x\n".repeat(20_000)),
        format!("a: \"{}\"\n", "{{".repeat(500_000)),
        format!("a: [{}\n", "{{".repeat(200)),
        (0..3_000).map(rule).collect::<String>(),
    ];
    for text in &many {
        let report = super::check_text(text, false);
        assert!(report.findings.len() < 100_000);
    }
    // Many merges of many keys are many, not more than many.
    let mut merges = "base: &b {".to_owned();
    merges += &(0..200).map(|i| format!("k{i}: 1, ")).collect::<String>();
    merges += "}\nall:\n";
    merges += &"- {<<: [*b, *b, *b]}\n".repeat(200);
    survives(&merges);
}

#[test]
#[ignore = "takes as long as FUZZ_SECONDS says"]
fn hostile_for_a_while() {
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(600);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(seconds) {
        run(500);
    }
}
