//! The workload certificate: asked for with the bootstrap token at first, renewed with the certificate itself.
//!
//! A failed renewal is tried again until the certificate expires and beyond; what is held stays in use (fail static).

use std::time::{Duration, SystemTime};

use mesh_api_rt::backoff::Backoff;
use mesh_api_rt::report::Report;
use mesh_api_xds::ca_proto::{CertificateClient, IstioCertificateRequest};
use mesh_ca::client::{CertificateRequest, Credential, CredentialError, RequestError};
use mesh_ca::key::KeyKind;
use mesh_ca::rotation::{RenewalPolicy, next_renewal};
use tokio::sync::watch;

use super::channel::{self, ChannelError, Proof};
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
    loop {
        let present = sender.borrow().clone();
        match request(bootstrap, present.as_ref()).await {
            Ok(credential) => {
                backoff.reset();
                let expires = credential.leaf.not_after;
                let renew = next_renewal(SystemTime::now(), expires, RenewalPolicy::default(), &mut rand::rng());
                tracing::info!(identity = %credential.identity, serial = %credential.leaf.serial, "Certificate received");
                sender.send_replace(Some(credential));
                sleep_until(renew).await;
            }
            Err(error) => {
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

async fn request(bootstrap: &Bootstrap, present: Option<&Credential>) -> Result<Credential, IdentityError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request_once(bootstrap, present)).await {
        Ok(result) => result,
        Err(_) => Err(IdentityError::Timeout),
    }
}

async fn request_once(bootstrap: &Bootstrap, present: Option<&Credential>) -> Result<Credential, IdentityError> {
    let still_valid = present.filter(|credential| credential.leaf.is_valid_at(SystemTime::now()));
    let proof = match still_valid {
        Some(credential) => Proof::Certificate(credential),
        None => Proof::Token(channel::read_token(&bootstrap.token)?),
    };
    let channel = channel::open(bootstrap, &bootstrap.ca_address, &proof).await?;
    let asked = CertificateRequest::new(bootstrap.identity.clone(), KeyKind::EcdsaP256)?;
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
