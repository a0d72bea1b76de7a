//! Starts and stops all parts of the lab together.
