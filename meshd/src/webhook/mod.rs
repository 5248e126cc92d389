//! What the API server asks before it stores an object: injects pods, checks configuration of the mesh.
//!
//! | Path | Who is asked about |
//! |---|---|
//! | `/inject`, `/inject/cluster/NAME/net/NAME`, `/inject/:ENV:KEY=VALUE…` | pods that are made |
//! | `/validate` | objects of the mesh's kinds that are made or changed |
//!
//! What happens while nobody answers is for the webhook's `failurePolicy`: pods in namespaces of the mesh are not made
//! (`Fail`: a pod without its proxy would speak in clear text), all others are never asked about. The namespaces of Kubernetes
//! and the control plane's own pods are excluded by the selectors of the webhooks, and refused to be touched here once more.

pub(crate) mod inject;
pub(crate) mod probe;
pub(crate) mod review;
pub(crate) mod server;
pub(crate) mod settings;
pub(crate) mod validate;
