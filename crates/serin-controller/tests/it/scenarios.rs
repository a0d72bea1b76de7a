//! The stories of `tests/scenarios`, told to the real controller: hours of rollout in virtual time, over the lab's API.
#![expect(clippy::print_stdout, reason = "what a run tells is for whoever reads its output")]

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::stage::{Ended, Script, Stage, Trouble, destinations, percent, text};
use crate::world::{Story, stories};

/// Plays a story in a runtime of its own, whose clock stands still while anything is to be done.
fn play(story: &Story, script: Script) -> Ended {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    runtime.block_on(async { Stage::new(story, script).await.play(story).await })
}

fn with(trouble: Trouble) -> Script {
    Script { trouble: Some(trouble), ..Script::default() }
}

/// Every change that was asked for, as a person would tell it.
fn told(ended: &Ended) -> String {
    let line = |c: &crate::stage::Call| {
        let what = match () {
            () if c.is_event() => format!("event {}: {}", text(&c.body, "/reason"), text(&c.body, "/note")),
            () if c.path.ends_with("/status") => format!("status {}: {}", text(&c.body, "/status/phase"), text(&c.body, "/status/message")),
            () => format!("{} {} {}", c.method, c.path, c.body),
        };
        format!("{:>9.1} {} {what}", c.at, c.status)
    };
    format!("{}\n{}", ended.calls.iter().map(line).collect::<Vec<_>>().join("\n"), ended.journal)
}

fn ends_as_told(name: &str, story: &Story, ended: &Ended) {
    let journal = || told(ended);
    assert!(ended.wrongs.is_empty(), "{name}: {:#?}\n{}", ended.wrongs, journal());
    let status = &ended.release["status"];
    assert_eq!(text(status, "/phase"), story.end.phase, "{name}: phase\n{}", journal());
    assert_eq!(text(status, "/stable/version"), story.end.stable, "{name}: stable\n{}", journal());
    for route in &ended.routes {
        for (version, wanted) in &story.end.weights {
            let share = percent(route, version);
            assert!(
                (share - wanted).abs() < 1e-6,
                "{name}: {version} has {share} % on {}, not {wanted}\n{}",
                text(route, "/metadata/name"),
                journal()
            );
        }
    }
    for (version, pods) in &story.end.pods {
        assert_eq!(ended.deployments.get(version), Some(pods), "{name}: pods of {version}\n{}", journal());
    }
    if let (Some(told), Some(route)) = (&story.end.destinations, ended.routes.first()) {
        assert!(destinations(route).keys().eq(told), "{name}: {route} names others than {told:?}\n{}", journal());
    }
    if let Some(told) = &story.end.subsets {
        assert_eq!(ended.subsets, *told, "{name}: subsets\n{}", journal());
    }
    assert!(text(status, "/message").contains(&story.end.message), "{name}: the message is {:?}\n{}", text(status, "/message"), journal());
    let left: Vec<&String> = ended.release["metadata"]["annotations"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, _)| k)
        .filter(|k| *k != "serin.dev/freeze")
        .collect();
    assert!(left.is_empty(), "{name}: annotations are left: {left:?}\n{}", journal());
}

fn events(ended: &Ended) -> Vec<String> {
    let event = |c: &&crate::stage::Call| c.is_event() && c.status == 201;
    ended.calls.iter().filter(event).map(|c| format!("{}: {}", text(&c.body, "/reason"), text(&c.body, "/note"))).collect()
}

/// Does something for each, on as many threads as there are cores; the names of those that failed.
fn side_by_side<T: Sync>(all: &[T], name: impl Fn(&T) -> String + Sync, each: impl Fn(&T) + Sync) -> Vec<String> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(one) = all.get(next.fetch_add(1, Ordering::SeqCst)) {
            if std::panic::catch_unwind(AssertUnwindSafe(|| each(one))).is_err() {
                failed.lock().expect("names").push(name(one));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(work);
        }
    });
    failed.into_inner().expect("names")
}

#[test]
fn a_server_that_refuses_every_write_is_asked_ever_more_rarely_and_all_goes_on_afterwards() {
    // It has stories of its own.
    if std::env::var("SCENARIO").is_ok() {
        return;
    }
    for (name, from) in [("promote-healthy", 40.0), ("rollback-half-fails", 20.0)] {
        let (_, mut story) = stories().into_iter().find(|(n, _)| n == name).expect("the story");
        story.minutes += 10.0;
        let ended = play(&story, Script { refuses: Some((from, from + 300.0)), ..Script::default() });
        let refused: Vec<&crate::stage::Call> = ended.calls.iter().filter(|c| c.status == 422).collect();
        // A rollback patches its route at once and tries again within the turn; the turns follow each other with growing pauses.
        assert!((5..200).contains(&refused.len()), "{name}: {} writes were tried in five minutes\n{}", refused.len(), told(&ended));
        ends_as_told(name, &story, &ended);
    }
}

#[test]
fn every_story_goes_as_told() {
    let stories = stories();
    let failed = side_by_side(
        &stories,
        |(name, _)| name.clone(),
        |(name, story)| {
            let begun = std::time::Instant::now();
            let ended = play(story, Script::default());
            let happened = events(&ended);
            if std::env::var("SCENARIO").is_ok() {
                println!("{name}: {}\n{}", story.story, told(&ended));
            }
            let fits = happened.len() == story.events.len()
                && happened.iter().zip(&story.events).all(|(event, told)| match told.split_once(": ") {
                    Some((code, part)) => event.split_once(": ").is_some_and(|(c, text)| c == code && text.contains(part)),
                    None => event.split_once(": ").is_some_and(|(c, _)| c == told),
                });
            assert!(
                fits,
                "{name}: {}\ntold:\n  {}\nhappened:\n  {}\n{}",
                story.story,
                story.events.join("\n  "),
                happened.join("\n  "),
                told(&ended)
            );
            ends_as_told(name, story, &ended);
            println!("{name}: {} minutes in {:?}, {} requests", story.minutes, begun.elapsed(), ended.requests);
        },
    );
    assert!(failed.is_empty(), "{} of {} stories: {failed:?}", failed.len(), stories.len());
}

#[test]
fn an_abort_is_one_patch_per_route_and_comes_first() {
    for (name, story) in stories().iter().filter(|(n, _)| n == "abort-by-person" || n == "two-routes") {
        let mut story = Story { events: Vec::new(), ..story.clone() };
        story.minutes = 3.0;
        if name == "two-routes" {
            story.then.push(crate::world::Change { at: 60.0, request: Some("abort".into()), ..Default::default() });
        }
        let ended = play(&story, Script::default());
        let after: Vec<_> = ended.calls.iter().filter(|c| c.at >= 60.0).collect();
        let first: Vec<_> = after.iter().take(story.routes.len()).collect();
        let patches = after.iter().filter(|c| c.path.contains("/virtualservices/")).count();
        assert_eq!(patches, story.routes.len(), "{name}: one patch for each route\n{}", told(&ended));
        for call in first {
            assert!(call.path.contains("/virtualservices/") && call.status == 200, "{name}: the routes come first\n{}", told(&ended));
            assert!((call.at - 60.0).abs() < 1e-9, "{name}: at once");
            let marks = call
                .body
                .as_array()
                .into_iter()
                .flatten()
                .any(|op| text(op, "/path").contains("serin.dev~1aborted") || op["value"].get("serin.dev/aborted").is_some());
            assert!(marks, "{name}: the mark goes with it\n{}", told(&ended));
        }
    }
}

#[test]
fn at_rest_nothing_is_asked_and_nothing_written() {
    // It has stories of its own.
    if std::env::var("SCENARIO").is_ok() {
        return;
    }
    let (_, story) = stories().into_iter().find(|(n, _)| n == "promote-healthy").expect("the story");
    let mut short = Story { then: Vec::new(), events: Vec::new(), ..story };
    short.minutes = 1.0;
    let (a, short_writes) = {
        let ended = play(&short, Script::default());
        (ended.requests, ended.calls.len())
    };
    short.minutes = 4.0;
    let ended = play(&short, Script::default());
    assert_eq!(ended.calls.len(), short_writes, "{}", told(&ended));
    assert_eq!(ended.requests, a, "an idle release costs no request");
}

/// Which stories are cut: those in which most is written. `SCENARIO` chooses others, `EVERYWHERE` all of them.
const CUT: [&str; 3] = ["promote-healthy", "rollback-half-fails", "two-routes"];

/// Every write of these stories, but of a long row of judged readings only the first few.
fn writes(wanted: impl Fn(&str) -> bool, most: usize) -> Vec<(Arc<(String, Story)>, usize)> {
    let mut all = Vec::new();
    for (name, story) in stories().into_iter().filter(|(n, _)| wanted(n)) {
        let calls = play(&story, Script::default()).calls;
        let story = Arc::new((name, story));
        let mut row = 0;
        for (n, call) in calls.iter().enumerate() {
            row = if call.path.ends_with("/status") { row + 1 } else { 0 };
            if row <= most {
                all.push((story.clone(), n));
            }
        }
    }
    all
}

fn all_end_as_told(runs: &[(Arc<(String, Story)>, Script)]) {
    let failed = side_by_side(
        runs,
        |(story, script)| format!("{}, {script:?}", story.0),
        |(story, script)| {
            let ended = play(&story.1, *script);
            ends_as_told(&format!("{}, {script:?}", story.0), &story.1, &ended);
        },
    );
    assert!(failed.is_empty(), "{} of {} runs: {failed:#?}", failed.len(), runs.len());
    println!("{} runs", runs.len());
}

#[test]
fn a_crash_at_any_write_changes_no_end() {
    let chosen = std::env::var("SCENARIO").is_ok() || std::env::var("EVERYWHERE").is_ok();
    let cuts = writes(|name| chosen || CUT.contains(&name), 2);
    let runs: Vec<_> =
        cuts.iter().flat_map(|(s, n)| [Trouble::KilledBefore(*n), Trouble::KilledAfter(*n)].map(|t| (s.clone(), with(t)))).collect();
    all_end_as_told(&runs);
}

#[test]
fn lost_answers_refusals_and_conflicts_change_no_end() {
    let chosen = std::env::var("SCENARIO").is_ok() || std::env::var("EVERYWHERE").is_ok();
    let cuts = writes(|name| chosen || name == "rollback-half-fails" || name == "promote-one-step", 2);
    let troubles = |n: usize| [Trouble::AnswerLost(n), Trouble::Refused(n), Trouble::Conflict(n)];
    let runs: Vec<_> = cuts.iter().flat_map(|(s, n)| troubles(*n).map(|t| (s.clone(), with(t)))).collect();
    all_end_as_told(&runs);
}

#[test]
fn two_controllers_at_once_and_late_watches_change_no_end() {
    let chosen = std::env::var("SCENARIO").is_ok() || std::env::var("EVERYWHERE").is_ok();
    let some = ["promote-healthy", "rollback-half-fails", "two-routes", "drift-pauses", "superseded", "canary-pods-vanish"];
    let twice = Script { twice: true, ..Script::default() };
    let late = Script { lag: Some(std::time::Duration::from_millis(1500)), ..Script::default() };
    let both = Script { twice: true, ..late };
    let stories = stories().into_iter().filter(|(n, _)| chosen || some.contains(&n.as_str())).map(Arc::new);
    let runs: Vec<_> = stories.flat_map(|s| [twice, late, both].map(|script| (s.clone(), script))).collect();
    all_end_as_told(&runs);
}
