//! slugs
