//! Pods as real processes.
