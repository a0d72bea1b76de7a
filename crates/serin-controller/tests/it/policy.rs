//! What a CanaryPolicy does to releases, through the controller: windows, freezes, defaults, and what is wrong with them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use serin_controller::Options;
use tokio_util::sync::CancellationToken;

use crate::stage::{Script, Stage, text};
use crate::world::Story;

/// v2 comes after ten seconds.
fn story() -> Story {
    toml::from_str(
        r#"
        story = "v2 comes"
        minutes = 5
        rate = 50
        events = []
        [spec]
        service = "my-app"
        steps = [{weight = 10, hold = "1m"}]
        promotion = {bake = "1m"}
        traffic = {settle = "5s"}
        analysis = {interval = "10s", metrics = [{name = "errors", errorRate = {margin = "0.5%"}}]}
        [versions.v1]
        pods = 3
        weight = 100
        [[then]]
        at = 10
        versions.v2 = {pods = 3}
        [end]
        phase = "Idle"
        stable = "v2"
        weights = {v2 = 100}
        "#,
    )
    .expect("a story")
}

/// A stage whose controller lives in the namespace of the releases.
async fn play() -> (Arc<Stage>, CancellationToken, Vec<tokio::task::JoinHandle<()>>) {
    let stage = Arc::new(Stage::new(&story(), Script::default()).await);
    let stop = CancellationToken::new();
    let options = Options { home: Some("default".into()), ..Options::default() };
    let running = serin_controller::run_with(stage.client(), stage.config(), options, stop.clone());
    let task = tokio::spawn(async move { running.await.expect("it ends well") });
    let acting = stage.act();
    (stage, stop, vec![task, acting])
}

async fn until(what: &str, stage: &Stage, mut fits: impl FnMut(&Value) -> bool) {
    for _ in 0..12_000 {
        if fits(&stage.release()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never: {what}; last: {} {}", text(&stage.release(), "/status/phase"), text(&stage.release(), "/status/message"));
}

fn says(release: &Value, words: &str) -> bool {
    release.pointer("/status/reasons").and_then(Value::as_array).is_some_and(|all| all.iter().any(|r| text(r, "/message").contains(words)))
        || text(release, "/status/message").contains(words)
}

#[tokio::test(start_paused = true)]
async fn outside_of_its_windows_nothing_moves_forward_and_it_goes_on_when_one_opens() {
    let (stage, stop, tasks) = play().await;
    // Opens five minutes after the beginning, in UTC.
    let now = (stage.clock)();
    let opens = now + jiff::SignedDuration::from_mins(5);
    let closes = now + jiff::SignedDuration::from_hours(3);
    let time = |at: jiff::Timestamp| at.strftime("%H:%M").to_string();
    stage.policy("default", json!({"windows": [{"from": time(opens), "to": time(closes)}]})).await;
    until("it says when the window opens", &stage, |r| says(r, &format!("opens at {} UTC", opens.strftime("%a %Y-%m-%d %H:%M")))).await;
    let opened = loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if stage.percent("v2") > 0.0 {
            break (stage.clock)();
        }
        assert!((stage.clock)() < opens + jiff::SignedDuration::from_mins(10), "it never went on");
    };
    // To the minute, as a window is written.
    assert!(opened >= opens - jiff::SignedDuration::from_mins(1), "v2 got weight at {opened}, the window opens at {opens}");
    stop.cancel();
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn a_frozen_policy_holds_its_releases_and_lets_a_person_take_them_back() {
    let (stage, stop, tasks) = play().await;
    until("v2 gets requests", &stage, |_| stage.percent("v2") > 0.0).await;
    stage.policy("default", json!({"freeze": "INC-123"})).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(says(&stage.release(), "frozen by CanaryPolicy default/default: INC-123"), "{}", text(&stage.release(), "/status/message"));
    assert!((stage.percent("v2") - 10.0).abs() < 0.1, "it moved while frozen");
    stage.annotate("serin.dev/abort", "errors on checkout").await;
    until("it is taken back", &stage, |r| text(r, "/status/phase") == "RolledBack").await;
    assert_eq!(stage.percent("v2"), 0.0);
    stop.cancel();
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn a_named_policy_completes_the_release_and_what_is_wrong_is_said_with_its_name() {
    let (stage, stop, tasks) = play().await;
    stage.patch_spec(json!({"policy": "strict"})).await;
    until("it lacks", &stage, |r| says(r, "spec.policy: no CanaryPolicy strict in namespace default; there is none")).await;
    stage.policy("strict", json!({"analysis": {"confidence": "99%", "onNoTraffic": "Proceed"}, "scaling": {"canary": "Wait"}})).await;
    until("it works", &stage, |r| !says(r, "no CanaryPolicy") && !text(r, "/status/phase").is_empty()).await;
    stage.policy("strict", json!({"analysis": {"confidence": "1%"}})).await;
    until("the wrong value is the policy's", &stage, |r| says(r, "CanaryPolicy default/strict: spec.analysis.confidence")).await;
    stage.policy("strict", json!({"windows": [{"from": "09:00", "to": "10:00", "timeZone": "Mars/Olympus"}]})).await;
    until("the wrong zone is said", &stage, |r| says(r, "CanaryPolicy default/strict: spec.windows[0].timeZone")).await;
    stop.cancel();
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}
