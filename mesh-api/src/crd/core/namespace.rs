//! Namespace: only its metadata is read.

use crate::crd::api;

api! {
    /// Nothing: labels and annotations are in the metadata.
    pub struct Namespace {
    }

    /// The status of a kind whose status nobody reads.
    pub struct NoStatus {
    }
}
