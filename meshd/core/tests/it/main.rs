//! The control plane's core from the outside: goldens, simulation, counts and properties.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests read their cases and may fail")]

mod analyze;
mod counts;
mod fixture;
mod golden;
mod mutation;
mod property;
mod simulate;
