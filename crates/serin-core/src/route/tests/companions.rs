//! companions
