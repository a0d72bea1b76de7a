//! structures
