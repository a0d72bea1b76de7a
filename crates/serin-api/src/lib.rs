//! The CanaryRelease as Kubernetes sees it, and the way from it to the core and back.
//!
//! Reading order: `names` (labels and annotations), `spec` and `status` (the object), `policy` (what holds for many), `schema` (their CRDs), `convert`
//! (spec → `Plan`), `checkpoint` (status ↔ `State`), `render` (what a person reads in the status), `request` (what people
//! ask for, as annotations). Deliberately decides nothing and does no I/O.

pub mod checkpoint;
pub mod convert;
pub mod names;
pub mod policy;
pub mod render;
pub mod request;
pub mod schema;
pub mod spec;
pub mod status;
pub mod template;
pub mod values;

pub use checkpoint::{CheckpointError, checkpoint, state_from, state_of};
pub use convert::plan_of;
pub use policy::{CanaryPolicy, CanaryPolicySpec};
pub use render::{Rendering, invalid_status, status_of, status_patch};
pub use request::{abort_of, request_annotation, request_of};
pub use schema::{crd, crds, definitions, policy_crd};
pub use spec::{CanaryRelease, CanaryReleaseSpec};
pub use status::CanaryReleaseStatus;
