//! Routes and rules: VirtualServices and DestinationRules in as plain JSON, JSON Patches out.
//!
//! In reading order: [`host`] (names as Istio reads them), [`survey`] (what a VirtualService says about a service),
//! [`weights`] (a share becomes a guarded patch), [`structure`] (destinations, the mesh, the abort's mark), [`rules`]
//! (DestinationRules as callers see them), [`companion`] (Serin's own rule), [`slug`] (subset names), [`conflict`]
//! (VirtualServices together), [`owner`] (who else works here), [`network`] (all of it for one release, in the words of
//! `decide`), [`index`] (which objects of a large cluster matter to one service), [`patch`] and [`problem`] (what comes out).
//!
//! Objects are never read into structs and written back: fields that Serin does not know survive because nobody touches
//! them. Nothing here panics, whatever the JSON holds, and nothing here decides when a weight moves.

pub mod companion;
pub mod conflict;
pub mod host;
pub mod index;
mod json;
pub mod network;
pub mod owner;
pub mod patch;
pub mod problem;
pub mod rules;
pub mod share;
pub mod slug;
pub mod structure;
pub mod survey;
pub mod weights;

#[cfg(test)]
mod tests;

pub use host::ServiceName;
pub use network::{Change, Network, Selection, World};
pub use patch::{Guard, Patch, describe};
pub use problem::{Place, RouteProblem};
pub use share::Share;
pub use structure::{Mark, aborted_because, aborted_mark, add_destination, bind_mesh, mark, remove_destination, split_plain};
pub use survey::{Arms, Role, Split, Survey, Target, look, survey};
pub use weights::{Abort, RouteTotal, abort, set_share, set_shares, total_for, total_for_route};
