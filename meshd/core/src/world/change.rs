//! What sources tell the world, and what the world makes of it.

use std::collections::BTreeSet;

use mesh_api::finding::Finding;
use mesh_api::ids::{ClusterId, ObjectKey};
use mesh_api::kinds::Kind;
use mesh_api::object::AnyObject;
use mesh_api::text::Str;

/// One event of a source.
#[derive(Clone, Debug)]
pub enum Change {
    /// An object is new or has changed.
    Upsert {
        /// Where it comes from.
        cluster: ClusterId,
        /// The object.
        object: AnyObject,
    },
    /// An object is gone.
    Delete(ObjectKey),
    /// These are all the objects of a kind that a cluster has; others of it are gone.
    Resync {
        /// Where they come from.
        cluster: ClusterId,
        /// Their kind.
        kind: Kind,
        /// The objects; any of another kind is ignored.
        objects: Vec<AnyObject>,
    },
    /// What a source found wrong at one place (a file, a watch) before there was an object; replaces what it said before.
    Findings {
        /// The place.
        origin: Str,
        /// All that is wrong there now.
        findings: Vec<Finding>,
    },
}

/// Keys of the objects that differ from what they were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeSet {
    /// The keys.
    pub keys: BTreeSet<ObjectKey>,
}

impl ChangeSet {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Adds the keys of another set.
    pub fn merge(&mut self, other: Self) {
        self.keys.extend(other.keys);
    }

    /// Whether only endpoints differ, so that nobody need wait for more.
    #[must_use]
    pub fn endpoints_only(&self) -> bool {
        self.keys.iter().all(|key| matches!(key.kind, Kind::EndpointSlice | Kind::Pod | Kind::WorkloadEntry))
    }

    /// The keys of one kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &ObjectKey> {
        self.keys.iter().filter(move |key| key.kind == kind)
    }
}
