//! Watches: the changes of a selection as a stream of JSON lines, without gaps, until the client or its timeout ends it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::call::Call;
use super::read::{metadata_only, selection, shown, shown_for_selection, too_large, version_asked};
use super::select::Selection;
use super::serve::{Form, accepted, stream};
use super::status::{ApiError, ApiResult};
use super::{Api, convert, table};
use crate::store::{Event, EventKind, Object, Watch};

/// How long a watch lives that names no timeout; Kubernetes draws 30 to 60 minutes.
const LIFE: Duration = Duration::from_secs(45 * 60);
/// How often a client that allows bookmarks is told how far the watch is.
const BOOKMARK: Duration = Duration::from_secs(60);

struct State {
    api: Api,
    call: Call,
    form: Form,
    selection: Selection,
    ready: VecDeque<Bytes>,
    changes: Watch,
    bookmarks: bool,
    next_bookmark: Instant,
    end: Instant,
    over: bool,
    /// The columns of a table go out once.
    columns_sent: bool,
}

/// Answers a watch.
///
/// # Errors
/// 400, 406, or 410 when it asks to begin before what is remembered.
pub(super) fn watch(api: &Api, call: &Call) -> ApiResult<Response> {
    let accepted = accepted(&call.headers)?;
    if accepted.yaml {
        return Err(ApiError::not_acceptable("watches are served as application/json only"));
    }
    let mut selection = selection(call)?;
    if let Some(name) = &call.name {
        selection = selection.and_name(name);
    }
    let bookmarks = call.query.flag("allowWatchBookmarks");
    let initial = call.query.get("sendInitialEvents").map(|v| v == "true" || v == "1");
    if initial.is_some() && call.query.get("resourceVersionMatch") != Some("NotOlderThan") {
        return Err(ApiError::bad_request(
            "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ));
    }
    let resource = convert::stored_as(&call.kind);
    let namespace = call.namespace.as_deref();
    let store = api.store();
    let asked = version_asked(call)?;
    if let Some(asked) = asked
        && asked > store.version()
    {
        return Err(too_large(asked, store.version()));
    }
    // Without a version (or with 0) a watch begins with what is there, unless the client says otherwise.
    let send_all = initial.unwrap_or(matches!(asked, None | Some(0)));
    let (from, present) = match (asked, send_all) {
        (_, true) => {
            let (all, version) = store.list(&resource, namespace);
            (Some(version), all)
        }
        (Some(0) | None, false) => (None, Vec::new()),
        (asked, false) => (asked, Vec::new()),
    };
    let old = |_| ApiError::expired(format!("too old resource version: {} ({})", asked.unwrap_or_default(), store.version()));
    let changes = store.watch(Some(resource), namespace, from).map_err(old)?;
    let life = call.query.number("timeoutSeconds")?.filter(|s| *s > 0).map_or(LIFE, Duration::from_secs);
    let now = Instant::now();
    let mut state = State {
        api: api.clone(),
        call: call.clone(),
        form: accepted.form,
        selection,
        ready: VecDeque::new(),
        changes,
        bookmarks,
        next_bookmark: now + BOOKMARK,
        end: now + life,
        over: false,
        columns_sent: false,
    };
    for object in present {
        if state.selection.matches(&shown_for_selection(call, &object)) {
            let line = state.line("ADDED", &object);
            state.ready.push_back(line);
        }
    }
    if initial == Some(true) && bookmarks {
        let line = state.bookmark(true);
        state.ready.push_back(line);
    }
    let lines = futures::stream::unfold(state, |mut state| async move { Some((state.next().await?, state)) });
    Ok(stream("application/json", Box::pin(lines)))
}

impl State {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.over {
                return None;
            }
            let stop = self.api.stopped().clone();
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                change = self.changes.next() => match change {
                    Ok(event) => {
                        let line = self.event(&event);
                        self.ready.extend(line);
                    }
                    Err(_) => {
                        self.over = true;
                        let status = ApiError::expired("too old resource version: the watch fell too far behind").to_value();
                        return Some(line(&json!({"type": "ERROR", "object": status})));
                    }
                },
                () = tokio::time::sleep_until(self.end) => {
                    self.over = true;
                    if self.bookmarks {
                        return Some(self.bookmark(false));
                    }
                }
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARK;
                    return Some(self.bookmark(false));
                }
            }
        }
    }

    /// What a change means for this selection: an object that enters it is added, one that leaves it is deleted.
    fn event(&mut self, event: &Event) -> Option<Bytes> {
        let fits = |object: &Object| self.selection.matches(&shown_for_selection(&self.call, object));
        let before = event.before.as_ref().is_some_and(fits);
        let now = event.kind != EventKind::Deleted && fits(&event.object);
        match (before, now) {
            (false, false) => None,
            (false, true) => Some(self.line("ADDED", &event.object)),
            (true, true) => Some(self.line("MODIFIED", &event.object)),
            // The object as it left, with the version of its leaving.
            (true, false) => {
                let mut last = event.before.as_deref().unwrap_or(&event.object).clone();
                crate::store::metadata(&mut last).insert("resourceVersion".into(), event.version.to_string().into());
                Some(self.line("DELETED", &Arc::new(last)))
            }
        }
    }

    fn line(&mut self, what: &str, object: &Object) -> Bytes {
        let object = shown(&self.call, object);
        let shown = match self.form {
            // Written as text, not copied first: every watcher gets its own line.
            Form::Whole => return format!("{{\"type\":\"{what}\",\"object\":{object}}}\n").into(),
            Form::Metadata => metadata_only(&object),
            Form::Table => {
                let meta = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                let mut table = table::table(&self.api, &self.call, std::slice::from_ref(&object), &meta);
                if self.columns_sent {
                    table["columnDefinitions"] = Value::Null;
                }
                self.columns_sent = true;
                table
            }
        };
        line(&json!({"type": what, "object": shown}))
    }

    fn bookmark(&self, initial: bool) -> Bytes {
        let mut object = json!({
            "apiVersion": self.call.api_version(), "kind": self.call.kind.kind,
            "metadata": {"resourceVersion": self.changes.version().to_string()},
        });
        if initial {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        match self.form {
            Form::Whole => {}
            Form::Metadata => object = metadata_only(&object),
            Form::Table => {
                object = json!({"apiVersion": "meta.k8s.io/v1", "kind": "Table", "metadata": object["metadata"], "columnDefinitions": null, "rows": []});
            }
        }
        line(&json!({"type": "BOOKMARK", "object": object}))
    }
}

fn line(event: &Value) -> Bytes {
    let mut text = event.to_string();
    text.push('\n');
    text.into()
}
