//! What no story tells: several controllers with a lease, health over HTTP, requests and specs that cannot be read.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use serin_controller::{LeaseOptions, Options};
use tokio_util::sync::CancellationToken;

use crate::stage::{Script, Stage, text};
use crate::world::Story;

/// One version, nothing happens.
fn quiet() -> Story {
    toml::from_str(
        r#"
        story = "v1 serves"
        minutes = 5
        rate = 50
        events = []
        [spec]
        service = "my-app"
        steps = [{weight = 10, hold = "1m"}, {weight = 50, hold = "1m"}]
        promotion = {bake = "1m"}
        traffic = {settle = "5s"}
        analysis = {interval = "10s", metrics = [{name = "errors", errorRate = {margin = "0.5%"}}]}
        [versions.v1]
        pods = 3
        weight = 100
        [end]
        phase = "Idle"
        stable = "v1"
        weights = {v1 = 100}
        "#,
    )
    .expect("a story")
}

fn options(identity: &str) -> Options {
    Options { identity: identity.into(), lease: Some(LeaseOptions::new("default")), ..Options::default() }
}

async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never: {what}");
}

#[tokio::test(start_paused = true)]
async fn of_two_controllers_one_acts_and_the_other_takes_over() {
    let stage = Arc::new(Stage::new(&quiet(), Script::default()).await);
    let start = |identity: &str| {
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        let task =
            tokio::spawn(serin_controller::run_with(stage.client_until(cut.clone()), stage.config(), options(identity), stop.clone()));
        (task, stop, cut)
    };
    let holder =
        || stage.stored("coordination.k8s.io", "leases", "serin").map(|l| text(&l, "/spec/holderIdentity").to_owned()).unwrap_or_default();
    let phase = || text(&stage.release(), "/status/phase").to_owned();
    let (first, _, cut) = start("a");
    wait_until("a holds the lease and acts", || holder() == "a" && phase() == "Idle").await;
    let (second, second_stop, _) = start("b");
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(holder(), "a");
    // Cut off, it gives nothing back: its lease has to run out.
    cut.cancel();
    let killed = tokio::time::Instant::now();
    wait_until("b takes over", || holder() == "b").await;
    assert!(killed.elapsed() >= Duration::from_secs(10), "no sooner than the lease runs out");
    stage.annotate("serin.dev/request", r#"{"action":"pause"}"#).await;
    wait_until("b answers requests", || stage.release().pointer("/metadata/annotations/serin.dev~1request").is_none()).await;
    // Asked to end, it gives the lease back.
    second_stop.cancel();
    second.await.expect("ends").expect("well");
    assert_eq!(holder(), "");
    first.abort();
}

/// v2 on trial at 10 %, and what becomes of it when the release is deleted: whether the object is gone, and v2's share.
async fn deleted(policy: &str, stable_up: bool) -> (bool, f64) {
    let mut story = quiet();
    story.minutes = 60.0;
    let then = format!(
        "[[then]]\nat = 5\nversions.v2 = {{pods = 1}}\n{}",
        if stable_up { "" } else { "[[then]]\nat = 60\nversions.v1 = {ready = 0}\n" }
    );
    #[derive(serde::Deserialize)]
    struct Then {
        then: Vec<crate::world::Change>,
    }
    story.then = toml::from_str::<Then>(&then).expect("changes").then;
    story.spec["deletionPolicy"] = policy.into();
    story.spec["steps"][0]["hold"] = "1h".into();
    let stage = Arc::new(Stage::new(&story, Script::default()).await);
    let stop = CancellationToken::new();
    let task = tokio::spawn(serin_controller::run(stage.client(), stage.config(), stop.clone()));
    let world = stage.act();
    wait_until("v2 has its first weight", || (stage.percent("v2") - 10.0).abs() < 1e-6).await;
    tokio::time::sleep(Duration::from_secs(90)).await;
    let finalizers = stage.release()["metadata"]["finalizers"].as_array().map_or(0, Vec::len);
    assert_eq!(finalizers, usize::from(policy == "ReturnToStable"));
    stage.delete().await;
    for _ in 0..600 {
        if stage.stored("serin.dev", "canaryreleases", "my-app").is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let end = (stage.stored("serin.dev", "canaryreleases", "my-app").is_none(), stage.percent("v2"));
    world.abort();
    stop.cancel();
    task.await.expect("ends").expect("well");
    end
}

#[tokio::test(start_paused = true)]
async fn a_deletion_leaves_traffic_or_returns_it_as_its_policy_says() {
    assert_eq!(deleted("Leave", true).await, (true, 10.0));
    assert_eq!(deleted("ReturnToStable", true).await, (true, 0.0));
    // Back would be the outage: traffic stays, and the object goes all the same.
    assert_eq!(deleted("ReturnToStable", false).await, (true, 10.0));
}

#[tokio::test(start_paused = true)]
async fn of_very_many_releases_each_gets_its_turn() {
    let stage = Stage::new(&quiet(), Script::default()).await;
    let names: Vec<String> = (0..300).map(|i| format!("app-{i}")).collect();
    for name in &names {
        stage.another(name).await;
    }
    let stop = CancellationToken::new();
    let task = tokio::spawn(serin_controller::run(stage.client(), stage.config(), stop.clone()));
    let told = |name: &String| stage.stored("serin.dev", "canaryreleases", name).is_some_and(|r| !text(&r, "/status/message").is_empty());
    wait_until("all of them are told about", || names.iter().all(told)).await;
    wait_until("the one with a service serves", || text(&stage.release(), "/status/phase") == "Idle").await;
    stop.cancel();
    task.await.expect("ends").expect("well");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_read_is_refused_and_taken_off() {
    let stage = Stage::new(&quiet(), Script::default()).await;
    let stop = CancellationToken::new();
    let task = tokio::spawn(serin_controller::run(stage.client(), stage.config(), stop.clone()));
    wait_until("it serves", || text(&stage.release(), "/status/phase") == "Idle").await;
    stage.annotate("serin.dev/request", "pause please").await;
    wait_until("it is taken off", || stage.release().pointer("/metadata/annotations/serin.dev~1request").is_none()).await;
    let told = stage.calls().into_iter().find(|c| c.is_event() && text(&c.body, "/reason") == "RequestRefused").expect("an event");
    assert!(text(&told.body, "/note").contains("serin pause NAME"), "{}", told.body);
    assert_eq!(text(&told.body, "/type"), "Warning");
    stop.cancel();
    task.await.expect("ends").expect("well");
}

#[tokio::test(start_paused = true)]
async fn a_spec_that_cannot_be_worked_with_names_every_problem_and_moves_nothing() {
    let stage = Stage::new(&quiet(), Script::default()).await;
    let stop = CancellationToken::new();
    let task = tokio::spawn(serin_controller::run(stage.client(), stage.config(), stop.clone()));
    wait_until("it serves", || text(&stage.release(), "/status/phase") == "Idle").await;
    stage
        .patch_spec(json!({"steps": [{"weight": 50, "hold": "1m"}, {"weight": 10, "hold": "1m"}], "analysis": {"interval": "10ms"}}))
        .await;
    let stalled = |r: &Value| {
        r.pointer("/status/conditions")
            .and_then(Value::as_array)
            .is_some_and(|c| c.iter().any(|c| c["type"] == "Stalled" && c["status"] == "True" && c["reason"] == "InvalidSpec"))
    };
    wait_until("it is stalled", || stalled(&stage.release())).await;
    let release = stage.release();
    let message = text(&release, "/status/message");
    assert!(message.contains("spec.steps[1].weight") && message.contains("spec.analysis.interval"), "{message}");
    assert_eq!(release.pointer("/status/observedGeneration"), release.pointer("/metadata/generation"));
    assert!(stage.calls().iter().all(|c| !c.path.contains("virtualservices")));
    stage.patch_spec(json!({"steps": [{"weight": 10, "hold": "1m"}], "analysis": {"interval": "10s"}})).await;
    wait_until("it is well again", || !stalled(&stage.release()) && text(&stage.release(), "/status/phase") == "Idle").await;
    stop.cancel();
    task.await.expect("ends").expect("well");
}

/// Without a right the weight stays where it is, the release says what lacks and what to type, and it goes on once the right is given.
#[tokio::test(start_paused = true)]
async fn a_controller_without_a_right_says_which_and_goes_on_once_it_has_it() {
    let mut story = quiet();
    story.then.push(toml::from_str("at = 10\nversions.v2 = {pods = 3}").expect("a change"));
    let stage = Stage::new(&story, Script { forbids: Some(("virtualservices", 200.0)), ..Script::default() }).await;
    let stop = CancellationToken::new();
    let task = tokio::spawn(serin_controller::run(stage.client(), stage.config(), stop.clone()));
    let acting = stage.act();
    wait_until("what lacks is said", || text(&stage.release(), "/status/message").contains("cannot patch resource")).await;
    let message = text(&stage.release(), "/status/message").to_owned();
    assert!(
        message.contains("VirtualService default/my-app") && message.contains("serin install --image IMAGE | kubectl apply -f -"),
        "{message}"
    );
    let tried = stage.calls().iter().filter(|c| c.status == 403).count();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stage.percent("v2"), 0.0);
    let more = stage.calls().iter().filter(|c| c.status == 403).count() - tried;
    assert!((1..30).contains(&more), "it tries again, and hammers nobody: {more} in a minute");
    wait_until("it goes on by itself", || stage.percent("v2") > 0.0).await;
    wait_until("nothing lacks any more", || !text(&stage.release(), "/status/message").contains("cannot patch")).await;
    acting.abort();
    stop.cancel();
    task.await.expect("ends").expect("well");
}

#[tokio::test(start_paused = true)]
async fn an_abort_works_even_if_the_spec_became_invalid() {
    let mut story = quiet();
    story.then.push(toml::from_str("at = 10\nversions.v2 = {pods = 1}").expect("a change"));
    let stage = Stage::new(&story, Script::default()).await;
    let stop = CancellationToken::new();
    let task = tokio::spawn(serin_controller::run(stage.client(), stage.config(), stop.clone()));
    let acting = stage.act();
    wait_until("v2 gets requests", || stage.percent("v2") > 0.0).await;
    stage.patch_spec(json!({"steps": [{"weight": 50, "hold": "1m"}, {"weight": 10, "hold": "1m"}]})).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(stage.percent("v2") > 0.0, "an invalid spec moves nothing");
    stage.annotate("serin.dev/abort", "errors on checkout").await;
    wait_until("it goes back", || stage.percent("v2") == 0.0).await;
    wait_until("and is over", || text(&stage.release(), "/status/phase") == "RolledBack").await;
    acting.abort();
    stop.cancel();
    task.await.expect("ends").expect("well");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_what_was_begun() {
    let mut story = quiet();
    story.then.push(toml::from_str("at = 10\nversions.v2 = {pods = 1}").expect("a change"));
    let stage = Stage::new(&story, Script::default()).await;
    let acting = stage.act();
    let stop = CancellationToken::new();
    let task = tokio::spawn(serin_controller::run(stage.client(), stage.config(), stop.clone()));
    wait_until("the intent is written", || stage.calls().iter().any(|c| text(&c.body, "/status/message").contains("gets 10 %"))).await;
    stop.cancel();
    task.await.expect("ends").expect("well");
    assert_eq!(stage.percent("v2"), 10.0, "what was written down was done");
    let calls = stage.calls().len();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stage.calls().len(), calls, "and nothing after it");
    acting.abort();
}

#[tokio::test]
async fn health_and_metrics_are_served() {
    let stage = Stage::new(&quiet(), Script::default()).await;
    let address = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        free.local_addr().expect("an address")
    };
    let stop = CancellationToken::new();
    let options = Options { serve: Some(address), ..Options::default() };
    let task = tokio::spawn(serin_controller::run_with(stage.client(), stage.config(), options, stop.clone()));
    let get = async |path: &str| {
        let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
            .build_http::<http_body_util::Empty<bytes::Bytes>>();
        let answer = client.get(format!("http://{address}{path}").parse().expect("a URI")).await.ok()?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        Some((status, String::from_utf8_lossy(&body).into_owned()))
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while text(&stage.release(), "/status/phase") != "Idle" || get("/readyz").await.is_none_or(|(code, _)| code != 200) {
        assert!(tokio::time::Instant::now() < deadline, "never ready");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(get("/healthz").await.map(|(code, _)| code), Some(200));
    assert_eq!(get("/nowhere").await.map(|(code, _)| code), Some(404));
    let (_, metrics) = get("/metrics").await.expect("metrics");
    assert!(metrics.contains("serin_releases{phase=\"Idle\"} 1") && metrics.contains("serin_leading 1"), "{metrics}");
    stop.cancel();
    task.await.expect("ends").expect("well");
}
