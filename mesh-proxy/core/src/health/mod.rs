//! Health of endpoints as seen by this proxy.

pub mod outlier;
