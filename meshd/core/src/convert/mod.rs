//! Objects of other APIs as objects of the mesh.

pub mod ingress;
