//! A mesh.
