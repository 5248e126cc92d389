//! Node: where pods run. Only its labels are read: they say the region and the zone.

use crate::crd::api;

api! {
    /// Nothing: labels are in the metadata.
    pub struct Node {
    }
}
