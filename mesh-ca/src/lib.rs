//! The mesh's certificate authority: request checks, issuing, trust bundles, rotation.
//!
//! The way of a certificate: a shell authenticates the connection and makes a [`caller::Caller`]; [`csr::ValidCsr`] holds
//! what is believed of the request (its key, nothing else); [`caller::Grant`] is what this caller may get;
//! [`authority::Authority`] issues; the answer ends with the [`bundle::TrustBundle`]. On the other side
//! `client::CertificateRequest` makes key and request, and believes no answer that does not fit them.
//!
//! What is not here: sockets, gRPC, TLS configurations, clocks (`now` is an argument) and Kubernetes. Randomness for keys,
//! serial numbers and token ids comes from aws-lc-rs; jitter comes from the caller's generator. Secrets are wiped when
//! dropped and never shown by `Debug`.

pub mod authority;
pub mod bundle;
pub mod caller;
pub mod cert;
#[cfg(any(test, feature = "client"))]
pub mod client;
pub mod csr;
mod der;
pub mod issue;
pub mod key;
pub mod pem;
pub mod plugged;
pub mod review;
pub mod rotation;
pub mod secret;
pub mod selfsigned;
#[cfg(any(test, feature = "server"))]
pub mod service;
pub mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
pub mod token;
