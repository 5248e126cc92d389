//! The control plane's core from the outside: goldens, simulation, counts and properties.

mod counts;
mod fixture;
mod golden;
mod property;
