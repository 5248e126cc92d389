//! What the control plane sent, as it sent it: kept for dumps only.
//!
//! Workers never look here. Secrets are left out: they are in the plan, and no second copy of a key is kept.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use mesh_api::text::Str;
use mesh_api_xds::ads::Rejection;
use mesh_api_xds::ads::client::Update;
use mesh_api_xds::type_url::{PerType, TypeUrl};

/// Resources by type and name.
#[derive(Debug, Default)]
pub struct Held(Mutex<PerType<BTreeMap<Str, Resource>>>);

/// One resource.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Version as the server numbers it.
    pub version: Str,
    /// The message.
    pub bytes: Bytes,
    /// When it arrived.
    pub received: SystemTime,
    /// Why it, or a piece of it, is not used.
    pub rejected: Option<String>,
}

impl Held {
    /// Takes over an update.
    pub fn apply(&self, update: &Update, now: SystemTime) {
        if matches!(update.type_url, TypeUrl::Secret | TypeUrl::Generation) {
            return;
        }
        let mut all = self.lock();
        let held = all.of_mut(update.type_url);
        for name in &update.removals {
            held.remove(name);
        }
        for resource in &update.upserts {
            let copied = Resource {
                version: resource.version.clone(),
                // A copy: the bytes are part of the whole response, which must not be kept for them.
                bytes: Bytes::copy_from_slice(&resource.bytes),
                received: now,
                rejected: None,
            };
            held.insert(resource.name.clone(), copied);
        }
    }

    /// Notes what is not used.
    pub fn reject(&self, type_url: TypeUrl, rejections: &[Rejection]) {
        let mut all = self.lock();
        let held = all.of_mut(type_url);
        for rejection in rejections {
            if let Some(resource) = held.get_mut(&rejection.name) {
                resource.rejected.get_or_insert_with(|| format!("{}: {}", rejection.path, rejection.reason));
            }
        }
    }

    /// All resources of a type, by name.
    #[must_use]
    pub fn of(&self, type_url: TypeUrl) -> Vec<(Str, Resource)> {
        self.lock().of(type_url).iter().map(|(name, resource)| (name.clone(), resource.clone())).collect()
    }

    /// Held by the control thread while it takes over an update, and by a dump while it copies pointers.
    fn lock(&self) -> MutexGuard<'_, PerType<BTreeMap<Str, Resource>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use mesh_api_xds::ads::client::Received;

    use super::*;

    fn mk_update(type_url: TypeUrl, names: &[&str], removals: &[&str]) -> Update {
        let received = |name: &&str| Received {
            name: Str::from(*name),
            aliases: Vec::new(),
            version: "1".into(),
            bytes: Bytes::from_static(b"message"),
        };
        Update {
            type_url,
            upserts: names.iter().map(received).collect(),
            removals: removals.iter().map(|name| Str::from(*name)).collect(),
        }
    }

    #[test]
    fn updates_are_merged_and_secrets_are_not_kept() {
        let held = Held::default();
        let apply = |update: &Update| held.apply(update, SystemTime::UNIX_EPOCH);
        apply(&mk_update(TypeUrl::Cluster, &["a", "b"], &[]));
        apply(&mk_update(TypeUrl::Cluster, &["c"], &["a"]));
        apply(&mk_update(TypeUrl::Secret, &["key"], &[]));
        let rejection = Rejection { name: "b".into(), path: "routes[0]".into(), reason: "bad".into() };
        held.reject(TypeUrl::Cluster, &[rejection]);
        let names: Vec<_> =
            held.of(TypeUrl::Cluster).into_iter().map(|(name, held)| (name.to_string(), held.rejected)).collect();
        assert_eq!(names, [("b".to_owned(), Some("routes[0]: bad".to_owned())), ("c".to_owned(), None)]);
        assert!(held.of(TypeUrl::Secret).is_empty());
        apply(&mk_update(TypeUrl::Cluster, &["b"], &[]));
        assert!(held.of(TypeUrl::Cluster)[0].1.rejected.is_none());
    }
}
