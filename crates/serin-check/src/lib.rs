//! The linter: manifests with positions in, findings out.
//!
//! A run is `check(inputs, options) -> Report`; [`render`] prints a report in six forms and
//! [`fix`] applies what can be mended. Only [`sources`] touches the disk, and nothing here
//! talks to a cluster: the caller hands in what it read there.

mod comments;
pub mod config;
mod crd;
mod diag;
pub mod fix;
mod index;
mod model;
mod object;
mod page;
mod re2;
pub mod render;
mod rules;
mod run;
mod schema;
mod source;
pub mod sources;
mod worlds;
mod yaml;

pub use diag::{Certainty, Edit, Finding, Fix, Label, ObjectName, Severity};
pub use page::{Example, Page};
pub use rules::{Rule, all, find};
pub use run::{Deny, Input, Options, Report, Stats, Tally, check, unknown_codes};
pub use source::{FileId, Loc, SourceFile, Span};
