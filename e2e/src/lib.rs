//! End-to-end tests over real binaries.
