//! Collects what arrives into one delta, builds the next plan from it, publishes it.
//!
//! Runs on the control thread only; the workers see whole plans.

use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::text::Str;
use mesh_api_xds::ads::Rejection;
use mesh_api_xds::ads::client::{Received, Update};
use mesh_api_xds::codec;
use mesh_api_xds::ir::Resource;
use mesh_api_xds::ir::names::NameTable;
use mesh_api_xds::ir::secret::{PrivateKey, Secret, SecretContent};
use mesh_api_xds::type_url::TypeUrl;
use mesh_ca::client::Credential;
use mesh_proxy_core::plan::{Delta, Mark, Plan};

use super::store::{Live, Store};

/// Name of the secret with the workload's own certificate.
pub const OWN_CERTIFICATE: &str = "default";
/// Name of the secret with the mesh's trust anchors.
pub const MESH_ROOTS: &str = "ROOTCA";

/// What was received since the last publication.
#[derive(Debug, Default)]
pub struct Staged {
    delta: Delta,
    /// Types that were received, with what is wrong in them; answered when the delta is published.
    received: Vec<(TypeUrl, Vec<Rejection>)>,
    secrets: bool,
    /// The names to answer look-ups from, if they were received.
    names: Option<NameTable>,
}

/// What to answer for one type.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The type.
    pub type_url: TypeUrl,
    /// Resources that were not accepted; empty accepts all.
    pub rejections: Vec<Rejection>,
}

impl Staged {
    /// Whether there is nothing to publish.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
            && self.delta.upserts.is_empty()
            && self.delta.removals.is_empty()
            && self.delta.resolved.is_empty()
            && self.names.is_none()
    }

    /// Adds an update; what cannot be decoded is noted as rejected, the rest is used.
    pub fn add(&mut self, update: Update) {
        let Update { type_url, upserts, removals } = update;
        let mut rejections = Vec::new();
        for received in upserts {
            match decode(type_url, &received) {
                Ok(Some(resource)) => self.upsert(resource),
                Ok(None) => {}
                Err(rejection) => rejections.push(rejection),
            }
        }
        for name in removals {
            self.secrets |= type_url == TypeUrl::Secret;
            if type_url == TypeUrl::NameTable {
                self.names = Some(NameTable::new(Arc::default()));
                continue;
            }
            self.delta.upserts.retain(|staged| !(codec::type_of(staged) == type_url && *staged.name() == name));
            self.delta.removals.push((type_url, name));
        }
        match self.received.iter_mut().find(|(known, _)| *known == type_url) {
            Some((_, known)) => known.append(&mut rejections),
            None => self.received.push((type_url, rejections)),
        }
    }

    fn upsert(&mut self, resource: Resource) {
        let resource = match resource {
            // The workers have no use for it.
            Resource::Names(names) => {
                self.names = Some(names);
                return;
            }
            resource => resource,
        };
        let type_url = codec::type_of(&resource);
        self.secrets |= type_url == TypeUrl::Secret;
        self.delta.removals.retain(|(of, name)| !(*of == type_url && name == resource.name()));
        self.delta.upserts.retain(|staged| !(codec::type_of(staged) == type_url && staged.name() == resource.name()));
        self.delta.upserts.push(resource);
    }

    /// Adds the workload's own certificate and trust anchors.
    pub fn add_credential(&mut self, credential: &Credential) {
        let key = credential.key_pem();
        self.upsert(Resource::Secret(Secret {
            name: Str::from(OWN_CERTIFICATE),
            content: SecretContent::Certificate {
                chain: credential.chain_pem().into_bytes().into(),
                key: PrivateKey(key.as_bytes().into()),
            },
        }));
        self.upsert(Resource::Secret(Secret {
            name: Str::from(MESH_ROOTS),
            content: SecretContent::Trust(credential.roots_pem().into_bytes().into()),
        }));
    }

    /// Adds the addresses of a name.
    pub fn add_resolved(&mut self, name: Str, addresses: Arc<[IpAddr]>) {
        self.delta.resolved.retain(|(known, _)| *known != name);
        self.delta.resolved.push((name, addresses));
    }

    /// Builds and publishes the next plan. Gives the new state, and what to answer for each type received.
    pub fn publish(&mut self, store: &Store, mark: Option<Mark>) -> (Arc<Live>, Vec<Answer>) {
        let Self { mut delta, received, secrets, names } = std::mem::take(self);
        let before = store.live();
        delta.mark = mark.unwrap_or_else(|| before.plan.mark().clone());
        let (plan, rejected) = Plan::next(&before.plan, &delta);
        let mut answers: Vec<_> =
            received.into_iter().map(|(type_url, rejections)| Answer { type_url, rejections }).collect();
        for piece in rejected {
            tracing::warn!(
                resource = %piece.resource, path = %piece.path, reason = %piece.reason, origin = %piece.origin.0,
                "Configuration not used"
            );
            let rejection =
                Rejection { name: piece.resource, path: piece.path.into(), reason: piece.reason.to_string().into() };
            if let Some(answer) = answers.iter_mut().find(|answer| answer.type_url == piece.type_url) {
                answer.rejections.push(rejection);
            }
        }
        let live = store.publish(Arc::new(plan), secrets);
        // After the plan: an address is told once connections to it are led where they belong.
        if let Some(names) = names {
            store.names.replace(names);
        }
        (live, answers)
    }
}

/// `None`: a resource of a type that is not configuration (a mark).
fn decode(type_url: TypeUrl, received: &Received) -> Result<Option<Resource>, Rejection> {
    if type_url == TypeUrl::Generation {
        return Ok(None);
    }
    codec::decode(type_url, &received.bytes).map(Some).map_err(|error| {
        tracing::warn!(%type_url, name = %received.name, %error, "Resource cannot be decoded");
        Rejection { name: received.name.clone(), path: error.path.into(), reason: error.reason.into() }
    })
}
