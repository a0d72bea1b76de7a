//! The four kinds of patch: JSON patch, JSON merge patch, strategic merge patch, and server-side apply's configuration.
//!
//! It computes the object that results. Ownership of fields (server-side apply) is the room of `apply`.

use http::StatusCode;
use json_patch::PatchOperation;
use serde_json::{Value, json};

use super::body;
use super::call::Call;
use super::schema::Node;
use super::status::{ApiError, ApiResult};
use super::strategic;
use super::write::content_type;

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const APPLY_CBOR: &str = "application/apply-patch+cbor";

/// More operations than this in one JSON patch are refused, as by Kubernetes.
const MAX_OPERATIONS: usize = 10_000;

/// A patch as the client sent it.
#[derive(Debug)]
pub(super) enum Patch {
    /// RFC 6902.
    Json(Vec<PatchOperation>),
    /// RFC 7386.
    Merge(body::Body),
    /// Kubernetes' own merge, which knows lists by their keys.
    Strategic(body::Body),
    /// What a manager wants of an object.
    Apply(body::Body),
}

impl Patch {
    /// Reads a patch by its content type.
    ///
    /// # Errors
    /// 415 for a kind that this kind of object does not take, 400 for one that cannot be read.
    pub(super) fn read(call: &Call, bytes: &[u8]) -> ApiResult<Self> {
        let known: &[&str] = if call.kind.is_custom() { &[JSON, MERGE, APPLY] } else { &[JSON, MERGE, STRATEGIC, APPLY] };
        match content_type(&call.headers) {
            JSON => {
                let operations: Vec<PatchOperation> =
                    serde_json::from_slice(bytes).map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
                if operations.len() > MAX_OPERATIONS {
                    return Err(ApiError::new(
                        StatusCode::PAYLOAD_TOO_LARGE,
                        "RequestEntityTooLarge",
                        format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}", operations.len()),
                    ));
                }
                Ok(Self::Json(operations))
            }
            MERGE => object(body::json(bytes)?).map(Self::Merge),
            STRATEGIC if !call.kind.is_custom() => object(body::json(bytes)?).map(Self::Strategic),
            APPLY => object(body::yaml(bytes)?).map(Self::Apply),
            APPLY_CBOR => Err(ApiError::unsupported_media_type(known)),
            _ => Err(ApiError::unsupported_media_type(known)),
        }
    }

    /// Whether it is server-side apply.
    pub(super) fn is_apply(&self) -> bool {
        matches!(self, Self::Apply(_))
    }

    /// Fields written twice.
    pub(super) fn duplicates(&self) -> &[String] {
        match self {
            Self::Json(_) => &[],
            Self::Merge(body) | Self::Strategic(body) | Self::Apply(body) => &body.duplicates,
        }
    }

    /// The patched object.
    ///
    /// # Errors
    /// 422 when a `test` fails or a path is not there, 400 when the patch makes no sense.
    pub(super) fn apply_to(&self, node: Node<'_>, old: &Value) -> ApiResult<Value> {
        let mut new = old.clone();
        match self {
            Self::Json(operations) => {
                json_patch::patch(&mut new, operations).map_err(|error| refused(operations, &error))?;
            }
            Self::Merge(body) => json_patch::merge(&mut new, &body.value),
            Self::Strategic(body) => strategic::merge(node, &mut new, &body.value).map_err(ApiError::bad_request)?,
            Self::Apply(body) => json_patch::merge(&mut new, &body.value),
        }
        Ok(new)
    }

    /// The patched value, where no schema is known (scale).
    ///
    /// # Errors
    /// As `apply_to`.
    pub(super) fn apply_plain(&self, old: &Value) -> ApiResult<Value> {
        let nothing = json!({});
        self.apply_to(Node::new(&nothing), old)
    }
}

fn object(body: body::Body) -> ApiResult<body::Body> {
    if body.value.is_object() {
        return Ok(body);
    }
    Err(ApiError::bad_request(format!("json: cannot unmarshal {} into Go value of type map[string]interface {{}}", body.value)))
}

/// A JSON patch that does not fit the object: 422 with the cause, as servers answer since 1.12.
fn refused(operations: &[PatchOperation], error: &json_patch::PatchError) -> ApiError {
    let why = match (&error.kind, operations.get(error.operation)) {
        (json_patch::PatchErrorKind::TestFailed, _) => format!("testing value {} failed: test failed", error.path),
        (json_patch::PatchErrorKind::InvalidPointer, Some(operation)) => {
            let name = match operation {
                PatchOperation::Add(_) => "add",
                PatchOperation::Remove(_) => "remove",
                PatchOperation::Replace(_) => "replace",
                PatchOperation::Move(_) => "move",
                PatchOperation::Copy(_) => "copy",
                PatchOperation::Test(_) => "test",
            };
            format!("{name} operation does not apply: doc is missing path: {}: missing value", error.path)
        }
        _ => error.to_string(),
    };
    ApiError::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "Invalid",
        format!("the server rejected our request due to an error in our request: {why}"),
    )
    .with_causes(vec![json!({"reason": "UnexpectedServerResponse", "message": why})])
}
