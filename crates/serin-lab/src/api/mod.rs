//! The lab's Kubernetes API server: REST over the store, as kubectl, client-go and kube expect it.
//!
//! Reading order: `kinds` (what is served), `call` (a request understood), `serve` (requests to answers), `read`, `watch`,
//! `write`, `patch`, `strategic`, `delete`; what objects must look like: `schema`, `structural`, `defaults`, `validate`,
//! `crd`, `rules`; who owns which field: `fields`, `apply`; what clients ask besides objects: `discovery`, `openapi`, `swagger`, `table`;
//! `server` is TLS, token and port.
//!
//! It runs no workload and routes nothing, and deletes nothing that lost its owner: controllers do, over the same store.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::store::{Key, Resource, Store, StoreError};

mod apply;
mod body;
mod call;
mod columns;
mod convert;
mod crd;
mod defaults;
mod delete;
mod discovery;
mod fields;
mod housekeeping;
mod inert;
mod istio;
mod istio_rules;
mod jsonpath;
mod kinds;
mod logs;
mod manifest;
mod names;
mod openapi;
mod patch;
mod protobuf;
mod read;
mod rules;
mod scale;
mod schema;
mod select;
mod serve;
mod server;
mod status;
mod strategic;
mod structural;
mod swagger;
mod table;
mod validate;
mod watch;
mod write;

pub use logs::{LogError, LogRequest, LogStream, Logs};
pub use server::{Credentials, ServeError, Serving, write_private};

/// The namespaces that are there from the start.
const NAMESPACES: &[&str] = &["default", "istio-system", "kube-public", "kube-system"];

/// The API server; clones are handles on the same one.
#[derive(Clone)]
pub struct Api {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    kinds: kinds::Registry,
    logs: OnceLock<Arc<dyn Logs>>,
    stop: CancellationToken,
    /// Writes that must look at other objects first (service addresses) hold this.
    allocation: RwLock<()>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("version", &self.store().version()).finish_non_exhaustive()
    }
}

impl Api {
    /// An API server over `store`: makes the first namespaces if they lack, and serves the CRDs that are stored.
    pub fn new(store: Store) -> Self {
        let inner = Inner {
            store,
            kinds: kinds::Registry::new(),
            logs: OnceLock::new(),
            stop: CancellationToken::new(),
            allocation: RwLock::new(()),
        };
        let api = Self { inner: Arc::new(inner) };
        for name in NAMESPACES {
            api.first(
                &Key::cluster("", "namespaces", name),
                json!({
                    "apiVersion": "v1", "kind": "Namespace",
                    "metadata": {"labels": {"kubernetes.io/metadata.name": name}},
                    "spec": {"finalizers": ["kubernetes"]},
                    "status": {"phase": "Active"},
                }),
            );
        }
        let definitions = Resource::new("apiextensions.k8s.io", "customresourcedefinitions");
        api.store().list(&definitions, None).0.iter().for_each(|definition| crd::serve(&api, definition));
        api
    }

    fn first(&self, key: &Key, object: Value) {
        match self.store().create(key, object) {
            Ok(_) | Err(StoreError::AlreadyExists(..)) => {}
            Err(error) => tracing::error!(%error, "create the first objects"),
        }
    }

    /// The objects behind it.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The kinds that are served.
    fn kinds(&self) -> &kinds::Registry {
        &self.inner.kinds
    }

    /// Joins the part that keeps containers' logs; the first one stays.
    pub fn set_logs(&self, logs: Arc<dyn Logs>) {
        let _ = self.inner.logs.set(logs);
    }

    fn logs(&self) -> Option<&Arc<dyn Logs>> {
        self.inner.logs.get()
    }

    /// Ends all watches and followed logs, so that connections can drain.
    pub fn stop(&self) {
        self.inner.stop.cancel();
    }

    fn stopped(&self) -> &CancellationToken {
        &self.inner.stop
    }

    fn allocation(&self) -> std::sync::RwLockWriteGuard<'_, ()> {
        self.inner.allocation.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The API as a tower service: `kube::Client::new(api.router(), "default")` needs no port.
    pub fn router(&self) -> axum::Router {
        axum::Router::new().fallback(serve::handle).with_state(self.clone())
    }
}
