//! The mesh's certificate authority: request checks, issuing, trust bundles, rotation.
