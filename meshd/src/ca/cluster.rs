//! The authority of a cluster, kept in Secrets of the control plane's namespace: `cacerts`, which an operator brings, else
//! `istio-ca-secret`, which one replica makes and all share, also with a live Istio.
//!
//! Secrets are read again and again, rather than watched: a watch that is lost in silence would let a root expire. A write
//! names the version that was read, so of several replicas one wins and the others take what it wrote. What cannot be used
//! changes nothing: the authority that issues goes on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use kube::core::ObjectMeta;
use kube::{Client, Error as ClientError};
use mesh_api::names::{CACERTS_SECRET, MANAGED_BY, MANAGED_BY_LABEL, SELF_SIGNED_CA_SECRET};
use mesh_ca::authority::LocalAuthority;
use mesh_ca::plugged::{self, CaCerts, PluggedError};
use mesh_ca::secret::{self, HeldError, Written, overlaps};
use mesh_ca::selfsigned::Options;
use mesh_ca::store::Entries;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::kube::said;

/// Time for one request.
const DEADLINE: Duration = Duration::from_secs(10);
/// Rounds of read and write before somebody else's writes are waited out.
const ROUNDS: usize = 5;
/// The type of Istio's Secret.
const SECRET_TYPE: &str = "istio.io/ca-root";

/// Why the Secrets give no authority.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// The API server failed.
    #[error("cannot {action} Secret {name}: {reason}")]
    Api {
        /// What was being done.
        action: &'static str,
        /// Namespace and name.
        name: String,
        /// What the API server said.
        reason: String,
    },
    /// Others kept on writing.
    #[error("Secret {name} is written by others all the time")]
    Contended {
        /// Namespace and name.
        name: String,
    },
    /// What an operator brought cannot be used.
    #[error("the authority in Secret {name} cannot be used")]
    Plugged {
        /// Namespace and name.
        name: String,
        /// Why.
        #[source]
        source: Box<PluggedError>,
    },
    /// The self-signed authority cannot be used.
    #[error("the authority in Secret {name} cannot be used; restore the Secret, or delete it to start with a new root")]
    Held {
        /// Namespace and name.
        name: String,
        /// Why.
        #[source]
        source: HeldError,
    },
    /// Some proxies would refuse others.
    #[error(
        "Secret {name} would change to a root that proxies do not have yet, or forget the one they have: first put the new root \
         beside the present one into root-cert.pem and keep certificate and key, change those a day later, and take the old \
         root away last; or restart the control plane to change at once"
    )]
    NoOverlap {
        /// Namespace and name.
        name: String,
    },
    /// What was there is gone.
    #[error("Secret {name} is gone; the authority from it goes on until the control plane restarts")]
    Gone {
        /// Namespace and name.
        name: String,
    },
}

/// Where the authority came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Secret `cacerts`.
    Plugged,
    /// Secret `istio-ca-secret`, made by us.
    SelfSigned,
    /// The same, made by Istio: its roots are Istio's to replace.
    Istio,
}

/// The Secrets, and what was read last.
pub(crate) struct ClusterCa {
    secrets: Api<Secret>,
    namespace: String,
    revision: String,
    /// Version of the Secret that the authority is from.
    seen: Option<(Origin, String)>,
}

/// A Secret as it was read.
struct Found {
    entries: Entries,
    version: String,
}

impl ClusterCa {
    /// The Secrets of this namespace; `revision` goes into the labels of a Secret that is made.
    pub(crate) fn new(client: Client, namespace: &str, revision: &str) -> Self {
        let secrets = Api::namespaced(client, namespace);
        Self { secrets, namespace: namespace.to_owned(), revision: revision.to_owned(), seen: None }
    }

    /// Where the authority came from; `None` before there is one.
    pub(crate) fn origin(&self) -> Option<Origin> {
        self.seen.as_ref().map(|(origin, _)| *origin)
    }

    /// The authority as the Secrets have it now, made where there is none. `present` is the one that issues; the answer is
    /// `None` while it need not change.
    ///
    /// # Errors
    /// When a Secret cannot be read, or what is in it cannot be used.
    pub(crate) async fn follow(
        &mut self,
        options: &Options,
        present: Option<&LocalAuthority>,
        now: SystemTime,
    ) -> Result<Option<Arc<LocalAuthority>>, ClusterError> {
        let plugged = self.read(CACERTS_SECRET).await?;
        match (plugged, self.origin()) {
            (Some(found), _) => self.follow_plugged(&found, options, present, now),
            // To issue from another root from one moment to the next would tear the mesh apart.
            (None, Some(Origin::Plugged)) => Err(ClusterError::Gone { name: self.full(CACERTS_SECRET) }),
            (None, _) => self.follow_own(options, present, now).await,
        }
    }

    fn follow_plugged(
        &mut self,
        found: &Found,
        options: &Options,
        present: Option<&LocalAuthority>,
        now: SystemTime,
    ) -> Result<Option<Arc<LocalAuthority>>, ClusterError> {
        let version = (Origin::Plugged, found.version.clone());
        if self.seen.as_ref() == Some(&version) {
            return Ok(None);
        }
        let name = self.full(CACERTS_SECRET);
        let load = || {
            let files = CaCerts::from_entries(&format!("Secret {name}"), &found.entries)?;
            plugged::load(&files, &options.domain, options.lifetimes, now)
        };
        let authority = load().map_err(|source| {
            let source = Box::new(source);
            ClusterError::Plugged { name: name.clone(), source }
        })?;
        self.accept(version, name, Arc::new(authority), present, now)
    }

    async fn follow_own(
        &mut self,
        options: &Options,
        present: Option<&LocalAuthority>,
        now: SystemTime,
    ) -> Result<Option<Arc<LocalAuthority>>, ClusterError> {
        let name = self.full(SELF_SIGNED_CA_SECRET);
        for _ in 0..ROUNDS {
            let found = self.read(SELF_SIGNED_CA_SECRET).await?;
            if found.is_none() && present.is_some() {
                return Err(ClusterError::Gone { name });
            }
            let entries = found.as_ref().map(|found| &found.entries);
            let held =
                secret::open(&format!("Secret {name}"), entries.unwrap_or(&Entries::new()), options.clone(), now);
            let held = held.map_err(|source| ClusterError::Held { name: name.clone(), source })?;
            let version = match (held.write, &found) {
                (None, Some(found)) => found.version.clone(),
                (None, None) => return Err(ClusterError::Contended { name }),
                (Some(write), found) => match self.write(write, found.as_ref()).await? {
                    Some(version) => {
                        tracing::info!(secret = name, changes = ?held.changes, "Roots of the authority changed");
                        version
                    }
                    // Another replica was faster: its result counts.
                    None => continue,
                },
            };
            let origin = if held.ours { Origin::SelfSigned } else { Origin::Istio };
            if self.seen.as_ref() == Some(&(origin, version.clone())) {
                return Ok(None);
            }
            return self.accept((origin, version), name, held.authority, present, now);
        }
        Err(ClusterError::Contended { name })
    }

    /// Takes an authority for the present one, unless the mesh would fall apart.
    fn accept(
        &mut self,
        seen: (Origin, String),
        name: String,
        authority: Arc<LocalAuthority>,
        present: Option<&LocalAuthority>,
        now: SystemTime,
    ) -> Result<Option<Arc<LocalAuthority>>, ClusterError> {
        if present.is_some_and(|present| !overlaps(present, &authority, now)) {
            return Err(ClusterError::NoOverlap { name });
        }
        tracing::info!(secret = name, origin = ?seen.0, "Authority issues");
        self.seen = Some(seen);
        Ok(Some(authority))
    }

    async fn read(&self, name: &str) -> Result<Option<Found>, ClusterError> {
        let secret = match timeout(DEADLINE, self.secrets.get_opt(name)).await {
            Ok(Ok(secret)) => secret,
            Ok(Err(error)) => return Err(self.failed("read", name, said(&error))),
            Err(_) => return Err(self.failed("read", name, "no answer in time".to_owned())),
        };
        Ok(secret.map(|secret| Found {
            entries: secret
                .data
                .unwrap_or_default()
                .into_iter()
                .map(|(key, value)| (key, Zeroizing::new(value.0)))
                .collect(),
            version: secret.metadata.resource_version.unwrap_or_default(),
        }))
    }

    /// Writes the self-signed authority over what was found: the version then, or `None` when somebody else was faster.
    async fn write(&self, write: Written, found: Option<&Found>) -> Result<Option<String>, ClusterError> {
        let name = SELF_SIGNED_CA_SECRET;
        let data: BTreeMap<String, ByteString> =
            write.0.into_iter().map(|(key, value)| (key, ByteString(value.to_vec()))).collect();
        let labels = [
            (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
            (mesh_api::names::REVISION_LABEL.to_owned(), self.revision.clone()),
        ];
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.namespace.clone()),
                labels: Some(labels.into()),
                resource_version: found.map(|found| found.version.clone()),
                ..ObjectMeta::default()
            },
            data: Some(data),
            type_: Some(SECRET_TYPE.to_owned()),
            ..Secret::default()
        };
        let params = PostParams::default();
        let written = async {
            match found {
                None => self.secrets.create(&params, &secret).await,
                Some(_) => self.secrets.replace(name, &params, &secret).await,
            }
        };
        match timeout(DEADLINE, written).await {
            Ok(Ok(secret)) => Ok(Some(secret.metadata.resource_version.unwrap_or_default())),
            // Made, or changed, since it was read.
            Ok(Err(ClientError::Api(status))) if status.code == 409 => Ok(None),
            Ok(Err(error)) => Err(self.failed("write", name, said(&error))),
            // It may have been written all the same, which the next look shows.
            Err(_) => Err(self.failed("write", name, "no answer in time".to_owned())),
        }
    }

    fn full(&self, name: &str) -> String {
        format!("{}/{name}", self.namespace)
    }

    fn failed(&self, action: &'static str, name: &str, reason: String) -> ClusterError {
        ClusterError::Api { action, name: self.full(name), reason }
    }
}

impl fmt::Debug for ClusterCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterCa")
            .field("namespace", &self.namespace)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
