//! The workload certificate: asked for with the bootstrap token at first, renewed with the certificate itself.
//!
//! A failed renewal is tried again until the certificate expires and beyond; what is held stays in use (fail static).

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use mesh_api_rt::backoff::Backoff;
use mesh_api_rt::report::Report;
use mesh_api_xds::ca_proto::{CertificateClient, IstioCertificateRequest};
use mesh_ca::client::{CertificateRequest, Credential, CredentialError, RequestError};
use mesh_ca::rotation::next_renewal;
use tokio::sync::watch;

use super::channel::{self, CHAIN_FILE, ChannelError, KEY_FILE, Proof, ROOT_FILE};
use crate::bootstrap::Bootstrap;

/// Pauses between attempts.
const RETRY_BASE: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Time for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The authority cannot be reached.
    #[error("the certificate authority cannot be used")]
    Channel(#[from] ChannelError),
    /// No key or request could be made.
    #[error("cannot make a certificate request")]
    Request(#[from] RequestError),
    /// The authority refused.
    #[error("the certificate authority refused: {} ({:?})", .0.message(), .0.code())]
    Refused(#[source] Box<tonic::Status>),
    /// The answer is no certificate for us.
    #[error("the certificate authority's answer cannot be used")]
    Answer(#[from] CredentialError),
    /// It did not answer.
    #[error("the certificate authority did not answer within {REQUEST_TIMEOUT:?}")]
    Timeout,
}

/// Keeps a certificate in `sender`, for ever.
pub async fn maintain(bootstrap: &Bootstrap, sender: &watch::Sender<Option<Credential>>) {
    let mut backoff = Backoff::new(RETRY_BASE, RETRY_MAX);
    let mut preference = Preference::Certificate;
    loop {
        let present = sender.borrow().clone();
        match request(bootstrap, present.as_ref(), preference).await {
            Ok(credential) => {
                backoff.reset();
                preference = Preference::Certificate;
                let expires = credential.leaf.not_after;
                let renew = next_renewal(SystemTime::now(), expires, bootstrap.renewal, &mut rand::rng());
                tracing::info!(identity = %credential.identity, serial = %credential.leaf.serial, "Certificate received");
                if let Some(folder) = &bootstrap.output_certs
                    && let Err(error) = write_files(folder, &credential)
                {
                    tracing::error!(folder = %folder.display(), %error, "Certificate not written to files");
                }
                sender.send_replace(Some(credential));
                sleep_until(renew).await;
            }
            Err(error) => {
                preference = preference.other();
                let pause = backoff.next_delay(&mut rand::rng());
                let held = present.as_ref().map(|credential| credential.leaf.not_after);
                let expired = held.is_some_and(|until| until <= SystemTime::now());
                if expired || present.is_none() {
                    tracing::error!(error = %Report::new(&error), expired, retry_in = ?pause, "No certificate");
                } else {
                    tracing::warn!(error = %Report::new(&error), retry_in = ?pause, "Certificate not renewed");
                }
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Wall clock, because certificates expire by it; asked often enough that a suspended machine notices.
async fn sleep_until(at: SystemTime) {
    while let Ok(left) = at.duration_since(SystemTime::now())
        && !left.is_zero()
    {
        tokio::time::sleep(left.min(Duration::from_secs(60))).await;
    }
}

/// By which proof a workload with a certificate asks for the next one. After a failure by the other: an authority that was
/// replaced does not know its predecessor's certificates, and would leave the proxy without one until that has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Preference {
    /// The certificate.
    Certificate,
    /// The token, or what was provisioned; the certificate where there is neither.
    First,
}

impl Preference {
    const fn other(self) -> Self {
        match self {
            Self::Certificate => Self::First,
            Self::First => Self::Certificate,
        }
    }

    /// The proof, of a certificate and what `first` gives.
    fn choose<'a, E>(
        self,
        certificate: Option<&'a Credential>,
        first: impl FnOnce() -> Result<Proof<'a>, E>,
    ) -> Result<Proof<'a>, E> {
        match (certificate, self) {
            (Some(certificate), Self::Certificate) => Ok(Proof::Certificate(certificate)),
            (Some(certificate), Self::First) => Ok(first().unwrap_or(Proof::Certificate(certificate))),
            (None, _) => first(),
        }
    }
}

async fn request(
    bootstrap: &Bootstrap,
    present: Option<&Credential>,
    preference: Preference,
) -> Result<Credential, IdentityError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request_once(bootstrap, present, preference)).await {
        Ok(result) => result,
        Err(_) => Err(IdentityError::Timeout),
    }
}

/// Before there is a certificate: the token, else what was provisioned. The files are read anew each time, because they are
/// replaced before they expire.
fn first_proof(bootstrap: &Bootstrap) -> Result<Proof<'static>, ChannelError> {
    match (channel::read_token(&bootstrap.token), &bootstrap.provisioned) {
        (Ok(token), _) => Ok(Proof::Token(token)),
        (Err(_), Some(folder)) => Ok(Proof::Provisioned(channel::read_provisioned(folder)?)),
        (Err(error), None) => Err(error),
    }
}

/// Writes the certificate for programs that want files. Each file is replaced whole, the key first readable by its owner only.
fn write_files(folder: &Path, credential: &Credential) -> io::Result<()> {
    let key = credential.key_pem();
    for (name, mode, content) in [
        (KEY_FILE, 0o600, key.as_bytes()),
        (CHAIN_FILE, 0o644, credential.chain_pem().as_bytes()),
        (ROOT_FILE, 0o644, credential.roots_pem().as_bytes()),
    ] {
        let beside = folder.join(format!(".{name}.new"));
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&beside, folder.join(name))?;
    }
    Ok(())
}

async fn request_once(
    bootstrap: &Bootstrap,
    present: Option<&Credential>,
    preference: Preference,
) -> Result<Credential, IdentityError> {
    let still_valid = present.filter(|credential| credential.leaf.is_valid_at(SystemTime::now()));
    let proof = preference.choose(still_valid, || first_proof(bootstrap))?;
    let root_cert = bootstrap.ca_root_cert.as_ref().unwrap_or(&bootstrap.root_cert);
    let channel = channel::open(bootstrap, &bootstrap.ca_address, root_cert, &proof).await?;
    let asked = CertificateRequest::new(bootstrap.identity.clone(), bootstrap.key_kind)?;
    let mut call = tonic::Request::new(IstioCertificateRequest {
        csr: asked.csr().to_owned(),
        validity_duration: i64::try_from(bootstrap.cert_ttl.as_secs()).unwrap_or(i64::MAX),
        metadata: None,
    });
    if let Proof::Token(token) = proof {
        call.metadata_mut().insert("authorization", token);
    }
    let answer = CertificateClient::new(channel)
        .create_certificate(call)
        .await
        .map_err(|status| IdentityError::Refused(Box::new(status)))?;
    Ok(asked.finish(&answer.into_inner().cert_chain, SystemTime::now())?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use mesh_ca::testing::TestCa;

    use super::*;

    #[test]
    fn after_a_failure_the_other_proof_is_tried() {
        let credential = TestCa::new(SystemTime::now()).credential("shop", "web");
        let check = |preference: Preference, certificate: bool, token: bool, expect: &str| {
            let first = || if token { Ok(Proof::Token("Bearer x".parse().unwrap())) } else { Err(()) };
            let found = match preference.choose(certificate.then_some(&credential), first) {
                Ok(Proof::Certificate(_)) => "certificate",
                Ok(Proof::Token(_)) => "token",
                Ok(_) => "another",
                Err(()) => "none",
            };
            assert_eq!(found, expect, "{preference:?}, certificate {certificate}, token {token}");
        };
        for preference in [Preference::Certificate, Preference::Certificate.other()] {
            check(preference, false, true, "token");
            check(preference, false, false, "none");
            check(preference, true, false, "certificate");
        }
        check(Preference::Certificate, true, true, "certificate");
        check(Preference::First, true, true, "token");
    }

    #[test]
    fn files_are_replaced_and_the_key_is_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let credential = TestCa::new(SystemTime::now()).credential("shop", "web");
            write_files(folder.path(), &credential).unwrap();
            let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
            assert_eq!(read(CHAIN_FILE), credential.chain_pem());
            assert_eq!(read(ROOT_FILE), credential.roots_pem());
            assert_eq!(read(KEY_FILE).as_bytes(), credential.key_pem().as_bytes());
        }
        let mode = std::fs::metadata(folder.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }
}
