//! A request understood: which kind, version, namespace, name and subresource its path names, and what its query asks.

use std::sync::Arc;

use axum::extract::Query as AxumQuery;
use http::{HeaderMap, Uri, header};

use super::Api;
use super::kinds::Kind;
use super::status::{ApiError, ApiResult};
use crate::store::Key;

/// The query of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// The query of an address.
    ///
    /// # Errors
    /// 400 when it is not well formed.
    pub(super) fn of(uri: &Uri) -> ApiResult<Self> {
        let AxumQuery(pairs) = AxumQuery::<Vec<(String, String)>>::try_from_uri(uri).map_err(|e| ApiError::bad_request(e.to_string()))?;
        Ok(Self(pairs))
    }

    /// The first value of a parameter, if it is there and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// Whether a flag is set (`watch`, `watch=true`, `watch=1`).
    pub(super) fn flag(&self, name: &str) -> bool {
        self.0.iter().any(|(n, v)| n == name && !matches!(v.as_str(), "false" | "0"))
    }

    /// A whole number.
    ///
    /// # Errors
    /// 400 when it is something else.
    pub(super) fn number(&self, name: &str) -> ApiResult<Option<u64>> {
        self.get(name)
            .map(|v| v.parse().map_err(|_| ApiError::bad_request(format!("strconv.ParseUint: parsing {v:?}: invalid syntax ({name})"))))
            .transpose()
    }
}

/// A request to objects.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// The kind its path names.
    pub kind: Arc<Kind>,
    /// The version asked for.
    pub version: usize,
    /// The namespace, if the path names one.
    pub namespace: Option<String>,
    /// The object's name, if the path names one.
    pub name: Option<String>,
    /// `status`, `scale`, `log`.
    pub sub: Option<String>,
    /// Its query.
    pub query: Query,
    /// Its headers.
    pub headers: HeaderMap,
}

impl Call {
    /// Reads a path; `None` if it is none of objects.
    ///
    /// # Errors
    /// 404 for an unknown kind, 400 for a namespace where there is none.
    pub(super) fn parse(api: &Api, uri: &Uri, headers: HeaderMap) -> ApiResult<Option<Self>> {
        let path = uri.path();
        let segments: Vec<String> = path.split('/').filter(|s| !s.is_empty()).map(percent_decode).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (group, version, rest) = match segments.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => return Ok(None),
        };
        let (namespace, rest) = match rest {
            // A namespace itself, and its subresources.
            ["namespaces", _] | ["namespaces", _, "status" | "finalize"] if group.is_empty() => (None, rest),
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
            rest => (None, rest),
        };
        let [plural, rest @ ..] = rest else { return Err(ApiError::no_such_path()) };
        let (kind, version) = api.kinds().find(group, version, plural).ok_or_else(ApiError::no_such_path)?;
        if namespace.is_some() && !kind.namespaced {
            return Err(ApiError::no_such_path());
        }
        let (name, sub) = match rest {
            [] => (None, None),
            [name] => (Some((*name).to_owned()), None),
            [name, sub] => (Some((*name).to_owned()), Some((*sub).to_owned())),
            // What follows a proxy's name is the address behind it.
            [name, sub @ "proxy", ..] => (Some((*name).to_owned()), Some((*sub).to_owned())),
            _ => return Err(ApiError::no_such_path()),
        };
        if name.is_some() && kind.namespaced && namespace.is_none() {
            return Err(ApiError::no_such_path());
        }
        Ok(Some(Self { kind, version, namespace, name, sub, query: Query::of(uri)?, headers }))
    }

    /// Where an object of this name is stored.
    pub(super) fn key_of(&self, name: &str) -> Key {
        Key { resource: super::convert::stored_as(&self.kind), namespace: self.namespace.clone(), name: name.to_owned() }
    }

    /// Where the named object is stored.
    ///
    /// # Errors
    /// 405 when the path names none.
    pub(super) fn key(&self) -> ApiResult<Key> {
        Ok(self.key_of(self.name.as_deref().ok_or_else(ApiError::method_not_allowed)?))
    }

    /// The version asked for.
    pub(super) fn kind_version(&self) -> &super::kinds::Version {
        &self.kind.versions[self.version]
    }

    /// `apps/v1`.
    pub(super) fn api_version(&self) -> String {
        self.kind.api_version(self.version)
    }

    /// Who writes: `fieldManager`, else the first word of the user agent.
    pub(super) fn manager(&self) -> String {
        if let Some(manager) = self.query.get("fieldManager") {
            return manager.to_owned();
        }
        let agent = self.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let word = agent.split('/').next().unwrap_or_default().trim();
        if word.is_empty() { "unknown".into() } else { word.chars().take(128).collect() }
    }
}

fn percent_decode(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(b) = rest.next() {
        if b != b'%' {
            bytes.push(b);
            continue;
        }
        let mut ahead = rest.clone();
        let hex = |c: Option<u8>| c.and_then(|c| char::from(c).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        match (hex(ahead.next()), hex(ahead.next())) {
            (Some(hi), Some(lo)) => {
                bytes.push(hi * 16 + lo);
                rest = ahead;
            }
            _ => bytes.push(b),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
