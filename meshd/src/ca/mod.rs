//! The certificate authority of the mesh: what issues, what serves.

pub(crate) mod cluster;
pub(crate) mod expiry;
pub(crate) mod roots;
pub(crate) mod service;
