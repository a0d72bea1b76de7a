//! How the API says no: every refusal is a Kubernetes `Status` object with reason, code and details.
//!
//! Wording and reasons follow the real API server, because clients (kubectl, client-go, kube) branch on them.
//! It decides nothing: callers say what went wrong, this room gives it its shape.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::store::{Resource, StoreError};

/// A refusal on its way to the client.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ApiError(Box<Value>);

/// Results of everything that a client may be refused.
pub(super) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// Any refusal. `reason` is the machine-readable CamelCase word, empty if there is none.
    pub(super) fn new(code: StatusCode, reason: &str, message: impl Into<String>) -> Self {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message.into(), "code": code.as_u16(),
        });
        if !reason.is_empty() {
            status["reason"] = reason.into();
        }
        Self(Box::new(status))
    }

    /// 404 for an object.
    pub(super) fn not_found(resource: &Resource, name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", format!("{resource} {name:?} not found")).about(resource, name)
    }

    /// 404 for a path that serves nothing.
    pub(super) fn no_such_path() -> Self {
        let mut error = Self::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource");
        error.0["details"] = json!({});
        error
    }

    /// Whether it is [`Self::no_such_path`].
    pub(super) fn is_no_such_path(&self) -> bool {
        self.code() == StatusCode::NOT_FOUND && self.0["details"] == json!({})
    }

    /// 409: there is an object of that name.
    pub(super) fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "AlreadyExists", format!("{resource} {name:?} already exists")).about(resource, name)
    }

    /// 409: somebody else wrote in between, or a precondition does not hold.
    pub(super) fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(resource, name)
    }

    /// 400: the request cannot be understood.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 403.
    pub(super) fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("{resource} {name:?} is forbidden: {why}");
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).about(resource, name)
    }

    /// 405: this resource does not know this verb.
    pub(super) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        let mut error = Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message);
        error.0["details"] = json!({});
        error
    }

    /// 406: none of the media types asked for can be given.
    pub(super) fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    /// 415: the body's media type is not one of those that are understood here.
    pub(super) fn unsupported_media_type(known: &[&str]) -> Self {
        let message = format!("the body of the request was in an unknown format - accepted media types include: {}", known.join(", "));
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    /// 410: the resource version is older than what is remembered.
    pub(super) fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// 501: Kubernetes can do this and the lab does not; `sentence` says so and what to do instead.
    pub(super) fn not_implemented(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", sentence)
    }

    /// 401.
    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// 422: the object is understood and is not allowed to be like that. `problems` must not be empty.
    pub(super) fn invalid(group: &str, kind: &str, name: &str, problems: &[Problem]) -> Self {
        let who = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut lines: Vec<String> = Vec::new();
        for problem in problems {
            // Two checks may find the same fault; a person wants it once.
            let line = problem.to_string();
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        let all = if let [one] = lines.as_slice() { one.clone() } else { format!("[{}]", lines.join(", ")) };
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", format!("{who} {name:?} is invalid: {all}"));
        let causes: Vec<Value> =
            problems.iter().map(|p| json!({"reason": p.fault.reason(), "message": p.body(), "field": p.field})).collect();
        let mut details = json!({"causes": causes});
        for (field, value) in [("name", name), ("kind", kind)] {
            if !value.is_empty() {
                details[field] = value.into();
            }
        }
        if !group.is_empty() {
            details["group"] = group.into();
        }
        error.0["details"] = details;
        error
    }

    /// Adds which object it is about.
    pub(super) fn about(mut self, resource: &Resource, name: &str) -> Self {
        // Status details carry the plural under "kind", as the real server's do.
        let mut details = json!({"kind": resource.plural});
        if !name.is_empty() {
            details["name"] = name.into();
        }
        if !resource.group.is_empty() {
            details["group"] = resource.group.as_str().into();
        }
        self.0["details"] = details;
        self
    }

    /// Adds causes (`reason`, `message`, `field`) to the details.
    pub(super) fn with_causes(mut self, causes: Vec<Value>) -> Self {
        if !self.0["details"].is_object() {
            self.0["details"] = json!({});
        }
        self.0["details"]["causes"] = Value::Array(causes);
        self
    }

    /// The HTTP status code.
    pub(super) fn code(&self) -> StatusCode {
        let code = self.0["code"].as_u64().and_then(|c| u16::try_from(c).ok());
        code.and_then(|c| StatusCode::from_u16(c).ok()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The `Status` object.
    pub(super) fn to_value(&self) -> Value {
        (*self.0).clone()
    }

    /// The sentence for people.
    pub(super) fn message(&self) -> &str {
        self.0["message"].as_str().unwrap_or_default()
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for ApiError {}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(resource, name) => Self::not_found(&resource, &name),
            StoreError::AlreadyExists(resource, name) => Self::already_exists(&resource, &name),
            StoreError::Conflict(resource, name) => Self::conflict(
                &resource,
                &name,
                "the object has been modified; please apply your changes to the latest version and try again",
            ),
            StoreError::UidMismatch(resource, name) => {
                Self::conflict(&resource, &name, "Precondition failed: UID in precondition is not the UID in object meta")
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = respond(self.code(), &self.0);
        if self.code() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A JSON answer.
pub(super) fn respond(code: StatusCode, body: &Value) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It must be there.
    Required,
    /// Its value is not allowed (value as JSON).
    Invalid(String),
    /// Its value has the wrong type (value as JSON).
    Type(String),
    /// Its value is none of those known (value as JSON).
    NotSupported(String),
    /// It must be unique (value as JSON).
    Duplicate(String),
    /// It may not be set here.
    Forbidden,
    /// Too many bytes.
    TooLong,
    /// Too many items: so many.
    TooMany(usize),
}

impl Fault {
    fn reason(&self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid(_) => "FieldValueInvalid",
            Self::Type(_) => "FieldValueTypeInvalid",
            Self::NotSupported(_) => "FieldValueNotSupported",
            Self::Duplicate(_) => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany(_) => "FieldValueTooMany",
        }
    }
}

/// One fault of an object: where, what, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// Path of the field: `spec.template.spec.containers[0].image`.
    pub field: String,
    /// What is wrong.
    pub fault: Fault,
    /// Why, or what would be right; may be empty.
    pub detail: String,
}

impl Problem {
    /// A field that must be there.
    pub(super) fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: field.into(), fault: Fault::Required, detail: detail.into() }
    }

    /// A value that is not allowed.
    pub(super) fn invalid(field: impl Into<String>, value: &Value, detail: impl Into<String>) -> Self {
        Self { field: field.into(), fault: Fault::Invalid(value.to_string()), detail: detail.into() }
    }

    /// A field that may not be set, or not be changed.
    pub(super) fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: field.into(), fault: Fault::Forbidden, detail: detail.into() }
    }

    /// A value that must be unique.
    pub(super) fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self { field: field.into(), fault: Fault::Duplicate(value.to_string()), detail: String::new() }
    }

    /// A value out of a fixed set.
    pub(super) fn not_supported(field: impl Into<String>, value: &Value, known: &[&str]) -> Self {
        let known: Vec<String> = known.iter().map(|k| format!("{k:?}")).collect();
        let detail = format!("supported values: {}", known.join(", "));
        Self { field: field.into(), fault: Fault::NotSupported(value.to_string()), detail }
    }

    /// What Kubernetes adds where rules wait for better types.
    pub(super) fn unchecked() -> Self {
        let detail =
            "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        Self::invalid("<nil>", &Value::Null, detail)
    }

    /// The problem without its field.
    pub(super) fn body(&self) -> String {
        let head = match &self.fault {
            Fault::Required => "Required value".to_owned(),
            Fault::Invalid(value) | Fault::Type(value) => format!("Invalid value: {value}"),
            Fault::NotSupported(value) => format!("Unsupported value: {value}"),
            Fault::Duplicate(value) => format!("Duplicate value: {value}"),
            Fault::Forbidden => "Forbidden".to_owned(),
            Fault::TooLong => "Too long".to_owned(),
            Fault::TooMany(n) => format!("Too many: {n}"),
        };
        if self.detail.is_empty() { head } else { format!("{head}: {}", self.detail) }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.field.as_str() {
            "" => f.write_str(&self.body()),
            field => write!(f, "{field}: {}", self.body()),
        }
    }
}
