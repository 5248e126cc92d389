//! The authority over time: opened at start, its roots replaced before they expire, plugged-in files followed, and our own
//! serving certificate renewed. Whatever fails here is said and tried again; what issues and serves stays as it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use mesh_api::identity::{SpiffeId, TrustDomain};
use mesh_api_rt::backoff::Backoff;
use mesh_api_rt::drain::Watcher;
use mesh_ca::authority::{Authority as _, LocalAuthority};
use mesh_ca::bundle::TrustBundle;
use mesh_ca::caller::Grant;
use mesh_ca::client::{CertificateRequest, Credential, CredentialError, RequestError};
use mesh_ca::csr::{CsrError, ValidCsr};
use mesh_ca::issue::{IssueError, Lifetimes};
use mesh_ca::key::KeyKind;
use mesh_ca::plugged::{self, CaCerts, PluggedError};
use mesh_ca::rotation::{RenewalPolicy, next_renewal};
use mesh_ca::selfsigned::{Options, SelfSigned, SelfSignedError};
use mesh_ca::store::file::FileStore;
use mesh_ca::time::to_unix;
use tokio::sync::watch;
use tokio::time::sleep;

use super::cluster::{ClusterCa, ClusterError};
use super::expiry::{Alarm, Expiries, Nearness};
use crate::metrics::{ByType, CaMetrics};
use crate::tls::{Current, TlsError, server_config, webhook_config};

/// Longest time between two looks at the authority. Istio looks at plugged-in files when they change and at its own root every
/// hour; a minute does for both.
const LOOK: Duration = Duration::from_secs(60);
/// The same for Secrets of a cluster; the kubelet takes about a minute to bring a changed one to a pod.
const LOOK_AT_SECRETS: Duration = Duration::from_secs(15);
/// First pause, and tries, of reading the Secrets at the start: about a minute together.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const FIRST_TRIES: usize = 10;
/// Lifetime of the serving certificate: renewed without anybody's help, so it need not be long.
const SERVING_TTL: Duration = Duration::from_secs(24 * 3600);

/// What the authority is made of.
#[derive(Clone, Debug)]
pub(crate) struct CaOptions {
    /// Trust domain.
    pub(crate) domain: TrustDomain,
    /// Lifetimes of certificates.
    pub(crate) lifetimes: Lifetimes,
    /// Lifetime of a self-signed root.
    pub(crate) root_ttl: Duration,
    /// Folder of a plugged-in authority.
    pub(crate) plugged: Option<PathBuf>,
    /// Our own identity.
    pub(crate) identity: SpiffeId,
    /// Names under which proxies reach us.
    pub(crate) dns_names: Vec<String>,
    /// Where it is told when certificates end.
    pub(crate) expiries: Expiries,
}

/// The TLS configurations with our own certificate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Serving {
    /// For proxies, which show certificates.
    pub(crate) proxies: Current,
    /// For the API server, which shows none.
    pub(crate) webhooks: Current,
}

impl CaOptions {
    fn self_signed(&self) -> Options {
        let mut options = Options::new(self.domain.clone());
        options.lifetimes = self.lifetimes;
        options.root_ttl = self.root_ttl;
        options
    }
}

/// Why there is no authority, or no certificate of our own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootsError {
    /// The self-signed authority.
    #[error("the self-signed authority cannot be used")]
    SelfSigned(#[source] SelfSignedError),
    /// The plugged-in one.
    #[error("the plugged-in authority in {folder} cannot be used")]
    Plugged {
        /// Where it is.
        folder: PathBuf,
        /// Why.
        #[source]
        source: Box<PluggedError>,
    },
    /// The one in the cluster's Secrets.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// No request of our own.
    #[error("a request for the serving certificate could not be made")]
    Request(#[source] RequestError),
    /// Our own request was refused.
    #[error("the request for the serving certificate is refused")]
    Csr(#[source] CsrError),
    /// The authority failed.
    #[error("the serving certificate could not be issued")]
    Issue(#[source] IssueError),
    /// What was issued does not verify.
    #[error("the serving certificate cannot be used")]
    Credential(#[source] CredentialError),
    /// TLS refuses it.
    #[error("the secure port cannot be configured")]
    Tls(#[source] TlsError),
}

/// Where an authority is kept.
pub(crate) enum Keep {
    /// In the state folder.
    Files(Arc<FileStore>),
    /// In Secrets of the cluster.
    Cluster(Box<ClusterCa>),
}

enum Kind {
    SelfSigned { ca: Box<SelfSigned>, store: Arc<FileStore> },
    Cluster(Box<ClusterCa>),
    Plugged { folder: PathBuf, seen: Option<CaCertsStamp> },
}

/// When the files of a folder last changed.
type CaCertsStamp = Vec<(PathBuf, SystemTime, u64)>;

/// The authority and our own certificate.
pub(crate) struct Roots {
    options: CaOptions,
    kind: Kind,
    authority: Arc<ArcSwap<LocalAuthority>>,
    bundle: watch::Sender<TrustBundle>,
    serving: Serving,
    /// When the serving certificate is renewed.
    renew_at: SystemTime,
    metrics: CaMetrics,
    /// The last look failed, and that was said.
    failing: bool,
    expiries: Expiries,
    alarm: Alarm,
}

impl Roots {
    /// Opens the authority and issues our own certificate. A folder of a plugged-in authority counts before anything else.
    ///
    /// # Errors
    /// Names the file, or the part, that cannot be used.
    pub(crate) async fn open(
        options: CaOptions,
        keep: Keep,
        serving: Serving,
        metrics: CaMetrics,
        now: SystemTime,
    ) -> Result<Self, RootsError> {
        let (kind, authority) = match (&options.plugged, keep) {
            (Some(folder), _) => {
                let seen = stamp(folder);
                let authority = load_plugged(folder, &options, now)?;
                tracing::info!(folder = %folder.display(), "Plugged-in authority issues");
                (Kind::Plugged { folder: folder.clone(), seen }, Arc::new(authority))
            }
            (None, Keep::Cluster(mut ca)) => {
                let authority = first_of_cluster(&mut ca, &options.self_signed()).await?;
                (Kind::Cluster(ca), authority)
            }
            (None, Keep::Files(store)) => {
                let opened = SelfSigned::open(&*store, options.self_signed(), now);
                let (ca, change) = opened.map_err(RootsError::SelfSigned)?;
                match change {
                    Some(_) => tracing::info!("Self-signed authority was made and issues"),
                    None => tracing::info!("Self-signed authority issues"),
                }
                let authority = ca.authority();
                (Kind::SelfSigned { ca: Box::new(ca), store }, authority)
            }
        };
        let authority = Arc::new(ArcSwap::new(authority));
        let bundle = watch::Sender::new(authority.load().bundle().clone());
        let (expiries, alarm) = (options.expiries.clone(), Alarm::default());
        let mut roots =
            Self { options, kind, authority, bundle, serving, renew_at: now, metrics, failing: false, expiries, alarm };
        // What was due while nobody ran. A full disk is no reason to be without an authority.
        if let Err(error) = roots.follow(now).await {
            roots.failed(&error, "Authority stays as it is");
        }
        roots.renew(now)?;
        roots.watch(now);
        Ok(roots)
    }

    /// What issues at present.
    pub(crate) fn authority(&self) -> Arc<ArcSwap<LocalAuthority>> {
        Arc::clone(&self.authority)
    }

    /// The roots that the mesh trusts, as they change.
    pub(crate) fn bundle(&self) -> watch::Receiver<TrustBundle> {
        self.bundle.subscribe()
    }

    /// Follows time and files until the drain begins.
    pub(crate) async fn run(mut self, mut drain: Watcher) {
        loop {
            let now = SystemTime::now();
            let until = self.renew_at.duration_since(now).unwrap_or(Duration::from_secs(1)).min(self.pause());
            tokio::select! {
                () = drain.graceful() => return,
                () = sleep(until) => {}
            }
            self.look(SystemTime::now()).await;
        }
    }

    /// Time between two looks: Secrets are replaced by people who watch what happens.
    const fn pause(&self) -> Duration {
        match self.kind {
            Kind::Cluster(_) => LOOK_AT_SECRETS,
            Kind::SelfSigned { .. } | Kind::Plugged { .. } => LOOK,
        }
    }

    /// Does what is due.
    async fn look(&mut self, now: SystemTime) {
        let before = self.authority.load_full();
        let followed = self.follow(now).await;
        // A step may be taken and the next one fail.
        let changed = !Arc::ptr_eq(&before, &self.authority.load());
        let mut failed = false;
        if let Err(error) = followed {
            failed = true;
            self.failed(&error, "Authority stays as it is");
        }
        if (changed || now >= self.renew_at)
            && let Err(error) = self.renew(now)
        {
            failed = true;
            self.failed(&error, "Serving certificate stays as it is");
            // Tried again soon, but not at once.
            self.renew_at = now + LOOK;
        }
        self.watch(now);
        if std::mem::replace(&mut self.failing, failed) && !failed {
            tracing::info!("Authority is well again");
        }
    }

    /// Brings the authority up to date.
    async fn follow(&mut self, now: SystemTime) -> Result<(), RootsError> {
        match &mut self.kind {
            Kind::SelfSigned { ca, store } => {
                // Whether proxies hold the new root is not reported by them yet, so only time counts.
                let advanced = ca.advance(&**store, false, now);
                let authority = ca.authority();
                if !Arc::ptr_eq(&authority, &self.authority.load()) {
                    tracing::info!(phase = ?ca.phase(), "Roots of the authority changed");
                    self.authority.store(authority);
                }
                advanced.map_err(RootsError::SelfSigned)?;
            }
            Kind::Cluster(ca) => {
                let present = self.authority.load_full();
                if let Some(authority) = ca.follow(&self.options.self_signed(), Some(&present), now).await? {
                    self.authority.store(authority);
                }
            }
            Kind::Plugged { folder, seen } => {
                let stamp = stamp(folder);
                if *seen == stamp {
                    return Ok(());
                }
                // Also after a failure: what is broken is said once, and looked at again when it changes.
                *seen = stamp;
                let authority = load_plugged(folder, &self.options, now)?;
                tracing::info!(folder = %folder.display(), "Plugged-in authority was replaced");
                self.authority.store(Arc::new(authority));
            }
        }
        Ok(())
    }

    /// Issues our own certificate and serves with it from now on.
    fn renew(&mut self, now: SystemTime) -> Result<(), RootsError> {
        let authority = self.authority.load_full();
        let request = CertificateRequest::new(self.options.identity.clone(), KeyKind::EcdsaP256);
        let request = request.map_err(RootsError::Request)?;
        let csr = ValidCsr::parse(request.csr()).map_err(RootsError::Csr)?;
        let grant = Grant::control_plane(self.options.identity.clone(), self.options.dns_names.clone());
        let issued = authority.issue(&csr, &grant, Some(SERVING_TTL), now).map_err(RootsError::Issue)?;
        let credential = request.finish(&issued.to_answer(), now).map_err(RootsError::Credential)?;
        let config = server_config(&credential, authority.bundle()).map_err(RootsError::Tls)?;
        let webhook = webhook_config(&credential).map_err(RootsError::Tls)?;
        self.renew_at = self.next_renewal(&credential, now);
        self.serving.proxies.store(Arc::new(Some(Arc::new(config))));
        self.serving.webhooks.store(Arc::new(Some(Arc::new(webhook))));
        // After the certificate: who learns of a root may ask for what it signed at once.
        self.bundle.send_if_modified(|bundle| {
            let changed = bundle != authority.bundle();
            bundle.clone_from(authority.bundle());
            changed
        });
        self.tell(&credential, &authority);
        Ok(())
    }

    fn next_renewal(&self, credential: &Credential, now: SystemTime) -> SystemTime {
        next_renewal(now, credential.leaf.not_after, RenewalPolicy::default(), &mut rand::rng())
    }

    fn tell(&self, credential: &Credential, authority: &LocalAuthority) {
        let expires = mesh_ca::time::display(credential.leaf.not_after);
        tracing::info!(serial = %credential.leaf.serial, expires, "Serving certificate issued");
        self.metrics.serving_expiry.set(to_unix(credential.leaf.not_after));
        if let Some(first) = authority.bundle().roots().iter().map(|root| root.not_after).min() {
            self.metrics.root_expiry.set(to_unix(first));
        }
        if let Some(first) = authority.not_after() {
            self.metrics.chain_expiry.set(to_unix(first));
        }
    }

    /// Sounds the alarm when the authority's certificates come near their end.
    fn watch(&mut self, now: SystemTime) {
        let expiries = Expiries::of(&self.authority.load());
        for expiry in &expiries {
            let gauge = self.metrics.expiring.get_or_create(&ByType { r#type: expiry.what });
            gauge.set(i64::from(expiry.nearness(now) > Nearness::Far));
        }
        for (expiry, nearness) in self.alarm.nearer(&expiries, now) {
            let (certificate, expires) = (expiry.what, mesh_ca::time::display(expiry.not_after));
            match nearness {
                Nearness::Far => {}
                Nearness::Soon => tracing::warn!(certificate, expires, "A certificate of the authority expires soon"),
                Nearness::Urgent => {
                    tracing::error!(certificate, expires, "A certificate of the authority expires within seven days");
                }
                Nearness::Expired => {
                    tracing::error!(certificate, expires, "A certificate of the authority has expired");
                }
            }
        }
        self.expiries.set(expiries);
    }

    fn failed(&self, error: &RootsError, consequence: &'static str) {
        self.metrics.renewal_failures.inc();
        let error = mesh_api_rt::report::Report::new(error);
        if self.failing {
            tracing::debug!(%error, "{consequence}");
        } else {
            tracing::error!(%error, "{consequence}");
        }
    }
}

/// The authority of a cluster, with patience: at the start of everything the API server may be a moment away.
async fn first_of_cluster(ca: &mut ClusterCa, options: &Options) -> Result<Arc<LocalAuthority>, RootsError> {
    let mut backoff = Backoff::new(FIRST_PAUSE, LOOK_AT_SECRETS);
    let mut tries = 0;
    loop {
        let error = match ca.follow(options, None, SystemTime::now()).await {
            Ok(Some(authority)) => return Ok(authority),
            Ok(None) => ClusterError::Contended { name: mesh_api::names::SELF_SIGNED_CA_SECRET.to_owned() },
            Err(error) => error,
        };
        tries += 1;
        if tries == FIRST_TRIES || !matches!(error, ClusterError::Api { .. } | ClusterError::Contended { .. }) {
            return Err(error.into());
        }
        tracing::warn!(error = %mesh_api_rt::report::Report::new(&error), "Authority not read, trying again");
        let pause = backoff.next_delay(&mut rand::rng());
        sleep(pause).await;
    }
}

fn load_plugged(folder: &Path, options: &CaOptions, now: SystemTime) -> Result<LocalAuthority, RootsError> {
    let load = || plugged::load(&CaCerts::read(folder)?, &options.domain, options.lifetimes, now);
    load().map_err(|source| RootsError::Plugged { folder: folder.to_owned(), source: Box::new(source) })
}

/// What tells that the files of a folder may have changed; `None` when it cannot be read.
fn stamp(folder: &Path) -> Option<CaCertsStamp> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).ok()? {
        let path = entry.ok()?.path();
        // Follows links: a mounted secret changes behind them.
        let Ok(meta) = std::fs::metadata(&path) else { continue };
        if meta.is_file() {
            files.push((path, meta.modified().ok()?, meta.len()));
        }
    }
    files.sort();
    Some(files)
}

#[cfg(test)]
mod tests;
