//! What the control plane does to a cluster, besides reading it: one replica at a time, only to what is its own.

pub(crate) mod addresses;
pub(crate) mod election;
pub(crate) mod ingress;
pub(crate) mod leader;
pub(crate) mod root_cert;
pub(crate) mod webhooks;
