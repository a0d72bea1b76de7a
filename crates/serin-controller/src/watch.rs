//! Watch streams: every change of the kinds that are read, as one stream of events.
//!
//! One task per kind and namespace, each of which finds its kind, lists, watches, and begins anew after trouble with growing
//! pauses. Deliberately keeps nothing: caches are `observe::cluster`'s.

use std::time::Duration;

use futures::StreamExt;
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::mpsc;

use crate::kinds::{Kind, discover};

/// What happened to objects of one kind.
#[derive(Debug)]
pub(crate) enum Change {
    /// The kind is served, as this resource.
    Found(ApiResource),
    /// The kind is not served, or may not be read; why.
    Missing(String),
    /// A list begins.
    Init,
    /// An object is there, or changed.
    Apply(Box<DynamicObject>),
    /// An object is gone.
    Delete(Box<DynamicObject>),
    /// The list is complete: what it did not name is gone.
    InitDone,
}

/// A change, with the kind and the namespace (`None`: all) that the watch is for.
#[derive(Debug)]
pub(crate) struct WatchEvent {
    pub(crate) kind: Kind,
    pub(crate) scope: Option<String>,
    pub(crate) change: Change,
}

/// Objects of one answer to a list: whole ones, of which only a part is kept.
const PAGE: u32 = 100;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// What the cluster may never have is asked for rarely.
const LONGEST_PAUSE_OPTIONAL: Duration = Duration::from_secs(300);

/// Watches one kind until nobody listens any more.
pub(crate) async fn watch(client: Client, kind: Kind, scope: Option<String>, out: mpsc::Sender<WatchEvent>) {
    let send = async |change: Change| out.send(WatchEvent { kind, scope: scope.clone(), change }).await.is_ok();
    let mut pause = FIRST_PAUSE;
    loop {
        let resource = match discover(&client, kind).await {
            Ok(Some(resource)) => resource,
            Ok(None) => {
                if !send(Change::Missing(kind.missing())).await {
                    return;
                }
                wait(kind, &mut pause).await;
                continue;
            }
            Err(error) => {
                tracing::warn!(?kind, %error, "discovery failed; trying again");
                wait(kind, &mut pause).await;
                continue;
            }
        };
        if !send(Change::Found(resource.clone())).await {
            return;
        }
        let api: Api<DynamicObject> = match &scope {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default().page_size(PAGE)));
        loop {
            let change = tokio::select! {
                event = events.next() => event,
                () = out.closed() => return,
            };
            if matches!(change, Some(Ok(_))) {
                pause = FIRST_PAUSE;
            }
            let change = match change {
                Some(Ok(watcher::Event::Init)) => Change::Init,
                Some(Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object))) => Change::Apply(Box::new(object)),
                Some(Ok(watcher::Event::Delete(object))) => Change::Delete(Box::new(object)),
                Some(Ok(watcher::Event::InitDone)) => Change::InitDone,
                Some(Err(error)) => {
                    if gone(&error) {
                        // The kind was removed, or is served in another version now.
                        wait(kind, &mut pause).await;
                        break;
                    }
                    let forbidden = forbidden(&error);
                    tracing::warn!(?kind, %error, "watch interrupted; trying again");
                    if forbidden && !send(Change::Missing(not_allowed(&resource, scope.as_deref(), &error))).await {
                        return;
                    }
                    wait(kind, &mut pause).await;
                    continue;
                }
                None => break,
            };
            if !send(change).await {
                return;
            }
        }
    }
}

/// What lacks, and what gives it.
fn not_allowed(resource: &ApiResource, scope: Option<&str>, error: &watcher::Error) -> String {
    let (role, place) = match scope {
        Some(namespace) => ("role", format!(" -n {namespace}")),
        None => ("clusterrole", String::new()),
    };
    let name = if resource.group.is_empty() { resource.plural.clone() } else { format!("{}.{}", resource.plural, resource.group) };
    let said = status(error).map_or_else(String::new, |s| format!(" ({})", s.message));
    format!(
        "the controller may not read {name}{said}: give its account the right to get, list and watch them, as serin install does: \
         kubectl create {role} serin-reads-{} --verb=get,list,watch --resource={name}{place}, and bind it",
        resource.plural
    )
}

async fn wait(kind: Kind, pause: &mut Duration) {
    tokio::time::sleep(*pause).await;
    *pause = (*pause * 2).min(if kind.is_optional() { LONGEST_PAUSE_OPTIONAL } else { LONGEST_PAUSE });
}

fn status(error: &watcher::Error) -> Option<&kube::core::Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::NoResourceVersion => None,
    }
}

fn gone(error: &watcher::Error) -> bool {
    status(error).is_some_and(|s| s.code == 404)
}

fn forbidden(error: &watcher::Error) -> bool {
    status(error).is_some_and(|s| s.code == 403)
}
