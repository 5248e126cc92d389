//! rustls configurations, built from the IR and the secrets it names, cached by content.
//!
//! Looked up once per TLS connection, never per request: the mutex guards a map lookup, or the few microseconds that
//! building a configuration takes after a rotation. A configuration's key holds the versions of its secrets, so that a
//! rotated certificate or bundle gives a new one, with new session tickets: sessions of the old trust are not resumed.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_api::text::Str;
use mesh_api_xds::ir::chain::{ClientCertificate, DownstreamTls, TlsVersion, TlsVersions};
use mesh_api_xds::ir::cluster::{Sni, UpstreamTls};
use mesh_api_xds::ir::secret::{Secret, SecretContent};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::peer::{self, KeepCertificate};
use super::provider::provider;
use super::verify::ServerVerifier;

/// Why a configuration cannot be built now.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The secret has not arrived.
    #[error("secret {0} has not arrived")]
    Missing(Str),
    /// The secret is of the other sort.
    #[error("secret {0} does not hold {1}")]
    WrongKind(Str, &'static str),
    /// The secret's PEM is not usable.
    #[error("secret {name} is not usable: {reason}")]
    Unusable {
        /// Secret name.
        name: Str,
        /// What is wrong with it; never its content.
        reason: String,
    },
    /// rustls refuses the combination.
    #[error("TLS settings are refused")]
    Refused(#[source] rustls::Error),
}

/// Finds a secret by name in the configuration that the connection runs under.
pub trait Secrets {
    /// The secret of that name, if it has arrived.
    fn secret(&self, name: &str) -> Option<&Arc<Secret>>;
}

/// The cache.
#[derive(Debug, Default)]
pub struct TlsStore {
    servers: Mutex<HashMap<ServerKey, Arc<ServerConfig>>>,
    clients: Mutex<HashMap<ClientKey, Arc<ClientConfig>>>,
    hasher: RandomState,
}

/// What a server says to the protocols that a client offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// It chooses one of its own.
    Own,
    /// Nothing.
    Silent,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ServerKey {
    tls: Arc<DownstreamTls>,
    alpn: Alpn,
    secrets: Vec<u64>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ClientKey {
    certificate: Option<Str>,
    trust: Option<Str>,
    send_sni: bool,
    alpn: Vec<&'static str>,
    own_alpn: Arc<[Str]>,
    versions: TlsVersions,
    secrets: Vec<u64>,
}

/// Entries kept in each map; beyond it the map is emptied and refilled by use. A mesh needs a handful.
const MOST_ENTRIES: usize = 1024;

impl TlsStore {
    /// The configuration to serve a chain with.
    ///
    /// # Errors
    /// When a secret is missing or unusable.
    pub fn server(
        &self,
        secrets: &impl Secrets,
        tls: &Arc<DownstreamTls>,
        alpn: Alpn,
    ) -> Result<Arc<ServerConfig>, TlsError> {
        let mut versions = Vec::with_capacity(2);
        for name in tls.certificates.iter() {
            versions.push(self.version(find(secrets, name)?));
        }
        if let ClientCertificate::Optional(check) | ClientCertificate::Required(check) = &tls.client {
            versions.push(self.version(find(secrets, &check.trust)?));
        }
        let key = ServerKey { tls: Arc::clone(tls), alpn, secrets: versions };
        let mut servers = lock(&self.servers);
        if let Some(config) = servers.get(&key) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(build_server(secrets, tls, alpn)?);
        if servers.len() >= MOST_ENTRIES {
            servers.clear();
        }
        servers.insert(key, Arc::clone(&config));
        Ok(config)
    }

    /// The configuration to connect with. `alpn` replaces the cluster's list when it is not empty.
    ///
    /// # Errors
    /// When a secret is missing or unusable.
    pub fn client(
        &self,
        secrets: &impl Secrets,
        tls: &UpstreamTls,
        alpn: &[&'static str],
    ) -> Result<Arc<ClientConfig>, TlsError> {
        let trust = tls.validation.as_ref().map(|check| check.trust.clone());
        let mut versions = Vec::with_capacity(2);
        for name in tls.certificate.iter().chain(&trust) {
            versions.push(self.version(find(secrets, name)?));
        }
        let key = ClientKey {
            certificate: tls.certificate.clone(),
            trust,
            send_sni: tls.sni != Sni::None,
            alpn: alpn.to_vec(),
            own_alpn: if alpn.is_empty() { Arc::clone(&tls.alpn) } else { Arc::default() },
            versions: tls.versions,
            secrets: versions,
        };
        let mut clients = lock(&self.clients);
        if let Some(config) = clients.get(&key) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(build_client(secrets, &key)?);
        if clients.len() >= MOST_ENTRIES {
            clients.clear();
        }
        clients.insert(key, Arc::clone(&config));
        Ok(config)
    }

    fn version(&self, secret: &Arc<Secret>) -> u64 {
        self.hasher.hash_one(secret)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while the map was held leaves it whole: entries are inserted complete.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn find<'a>(secrets: &'a impl Secrets, name: &Str) -> Result<&'a Arc<Secret>, TlsError> {
    secrets.secret(name).ok_or_else(|| TlsError::Missing(name.clone()))
}

fn build_server(secrets: &impl Secrets, tls: &DownstreamTls, alpn: Alpn) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(protocol_versions(tls.versions))
        .map_err(TlsError::Refused)?;
    let builder = match &tls.client {
        ClientCertificate::None => builder.with_no_client_auth(),
        ClientCertificate::Optional(check) | ClientCertificate::Required(check) => {
            let roots = trust_anchors(find(secrets, &check.trust)?)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider()));
            let verifier = match &tls.client {
                ClientCertificate::Optional(_) => verifier.allow_unauthenticated(),
                ClientCertificate::None | ClientCertificate::Required(_) => verifier,
            };
            let verifier = verifier
                .build()
                .map_err(|error| TlsError::Unusable { name: check.trust.clone(), reason: error.to_string() })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut keys = Vec::with_capacity(tls.certificates.len());
    for name in tls.certificates.iter() {
        keys.push(certified_key(find(secrets, name)?)?);
    }
    let mut config = builder.with_cert_resolver(Arc::new(CertificateChoice { keys }));
    if alpn == Alpn::Own {
        config.alpn_protocols = tls.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    }
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(TlsError::Refused)?;
    config.send_tls13_tickets = 1;
    Ok(config)
}

fn build_client(secrets: &impl Secrets, key: &ClientKey) -> Result<ClientConfig, TlsError> {
    let roots = match &key.trust {
        Some(name) => Some(Arc::new(trust_anchors(find(secrets, name)?)?)),
        None => None,
    };
    let verifier = ServerVerifier::new(roots, Arc::clone(provider()));
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(protocol_versions(key.versions))
        .map_err(TlsError::Refused)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &key.certificate {
        Some(name) => {
            let certified = Arc::new(certified_key(find(secrets, name)?)?);
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)))
        }
        None => builder.with_no_client_auth(),
    };
    config.enable_sni = key.send_sni;
    config.alpn_protocols = if key.alpn.is_empty() {
        key.own_alpn.iter().map(|name| name.as_bytes().to_vec()).collect()
    } else {
        key.alpn.iter().map(|name| name.as_bytes().to_vec()).collect()
    };
    config.resumption = Resumption::in_memory_sessions(256);
    Ok(config)
}

fn protocol_versions(range: TlsVersions) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    static ONLY_12: [&SupportedProtocolVersion; 1] = [&TLS12];
    static ONLY_13: [&SupportedProtocolVersion; 1] = [&TLS13];
    match (range.min, range.max) {
        (_, TlsVersion::V1_2) => &ONLY_12,
        (TlsVersion::V1_3, TlsVersion::V1_3) => &ONLY_13,
        (TlsVersion::V1_2, TlsVersion::V1_3) => &BOTH,
    }
}

fn certified_key(secret: &Secret) -> Result<CertifiedKey, TlsError> {
    let unusable = |reason: String| TlsError::Unusable { name: secret.name.clone(), reason };
    let SecretContent::Certificate { chain, key } = &secret.content else {
        return Err(TlsError::WrongKind(secret.name.clone(), "a certificate"));
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(format!("certificate chain: {error}")))?;
    if chain.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    // The parser's error could quote the input; a key is never quoted.
    let key =
        PrivateKeyDer::from_pem_slice(&key.0).map_err(|_| unusable("its private key does not parse".to_owned()))?;
    let key = provider()
        .key_provider
        .load_private_key(key)
        .map_err(|_| unusable("its private key is of no known kind".to_owned()))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(_) => Err(unusable("its private key does not belong to its certificate".to_owned())),
    }
}

fn trust_anchors(secret: &Secret) -> Result<RootCertStore, TlsError> {
    let unusable = |reason: String| TlsError::Unusable { name: secret.name.clone(), reason };
    let SecretContent::Trust(pem) = &secret.content else {
        return Err(TlsError::WrongKind(secret.name.clone(), "trust anchors"));
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    Ok(roots)
}

/// Chooses among a chain's certificates: the first whose DNS names cover the server name, else the first.
#[derive(Debug)]
struct CertificateChoice {
    keys: Vec<CertifiedKey>,
}

impl ResolvesServerCert for CertificateChoice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let covers = |key: &&CertifiedKey| {
            let names = key.cert.first().and_then(|leaf| peer::read(leaf, KeepCertificate::No).ok());
            hello.server_name().is_some_and(|host| names.is_some_and(|names| peer::is_for_host(&names, host)))
        };
        let chosen = match self.keys.as_slice() {
            [only] => Some(only),
            several => several.iter().find(covers).or_else(|| several.first()),
        };
        chosen.cloned().map(Arc::new)
    }
}
