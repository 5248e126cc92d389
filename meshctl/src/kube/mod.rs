//! The cluster: which one, who we are there, and how its pods are found and reached.
//!
//! Commands get a [`client::Kube`] from [`crate::context::Context::kube`]; the flags that say which cluster are the same for
//! all of them. Nothing here knows what a mesh is: that is the commands' affair.

pub mod client;
pub mod control;
pub mod exec;
pub mod find;
pub mod portforward;
pub mod proxy;
