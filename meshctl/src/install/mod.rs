//! Installing the mesh: charts and profiles to objects, objects to the cluster, and away again.
//!
//! What is installed is told by an IstioOperator specification ([`settings`]): a profile, then files, then `--set`, each on
//! top of the one before. Its components are charts with values ([`component`]), which [`chart`] renders as Helm does.
//! Nothing up to there asks a cluster. [`plan`] compares the objects with one, [`apply`] makes it so, [`remove`] undoes it.

pub mod apply;
pub mod chart;
pub mod cluster;
pub mod component;
pub mod diff;
pub mod fields;
pub mod files;
pub mod known;
pub mod manifest;
pub mod object;
pub mod patch;
pub mod plan;
pub mod precheck;
pub mod progress;
pub mod record;
pub mod remove;
pub mod set;
pub mod settings;
pub mod tag;
pub mod wait;

/// Field manager of everything that an installation writes.
pub const FIELD_MANAGER: &str = "lateen-install";
