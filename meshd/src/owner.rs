//! Whose the objects are that a control plane writes.

use std::collections::BTreeMap;

use mesh_api::names::{MANAGED_BY, MANAGED_BY_LABEL, REVISION_LABEL};

use crate::config::DEFAULT_REVISION;

/// Whose the objects are that we make: a control plane of this revision in this namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    /// Namespace of the control plane.
    pub(crate) namespace: String,
    /// Its revision.
    pub(crate) revision: String,
}

impl Owner {
    /// A control plane.
    pub(crate) fn new(namespace: &str, revision: &str) -> Self {
        Self { namespace: namespace.to_owned(), revision: revision.to_owned() }
    }

    /// The name of an object that each revision has for itself.
    pub(crate) fn name(&self, base: &str) -> String {
        if self.revision == DEFAULT_REVISION { base.to_owned() } else { format!("{base}-{}", self.revision) }
    }

    /// The labels of everything that we make.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        let labels = [(MANAGED_BY_LABEL, MANAGED_BY), (REVISION_LABEL, self.revision.as_str())];
        labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }
}
