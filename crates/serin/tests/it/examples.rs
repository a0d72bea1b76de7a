//! The examples are what they claim to be: the article's objects unchanged, and objects that Serin accepts.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

fn documents(path: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(path);
    let text = std::fs::read_to_string(&path).expect("an example");
    serde_saphyr::from_multiple(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The parsed content of the article's four files, taken down once.
#[test]
fn the_articles_files_say_what_the_article_says() {
    let text = include_str!("../data/article.json");
    let expected: std::collections::BTreeMap<String, Vec<Value>> = serde_json::from_str(text).expect("JSON");
    assert_eq!(expected.len(), 4);
    for (name, objects) in expected {
        assert_eq!(documents(&format!("article/{name}")), objects, "{name}");
    }
}

#[test]
fn the_demos_release_is_a_valid_plan() {
    #[derive(Deserialize)]
    struct Release {
        spec: serin_api::CanaryReleaseSpec,
    }
    let object = documents("demo/canary-release.yaml").remove(0);
    let release: Release = serde_json::from_value(object).expect("a release");
    let plan = serin_api::plan_of(&release.spec).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(plan.shares().len(), 4);
}
