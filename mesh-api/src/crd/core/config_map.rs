//! ConfigMap: mesh configuration, certificate bundles.

use std::collections::BTreeMap;

use crate::{crd::api, text::Str};

api! {
    /// Named texts.
    pub struct ConfigMap {
        /// The texts by key.
        pub data: BTreeMap<Str, Str>,
    }
}
