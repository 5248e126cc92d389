//! The handler behind `istio.v1.auth.IstioCertificateService/CreateCertificate`: pure, without gRPC.
//!
//! The shell authenticates the connection, calls [`handle`], and turns a [`Refusal`] into a gRPC status with
//! [`Refusal::code`].

use std::time::{Duration, SystemTime};

use crate::authority::Authority;
use crate::caller::{Caller, CallerError, Grant};
use crate::cert::Cert;
use crate::csr::{CsrError, ValidCsr};
use crate::issue::IssueError;

/// A request as it came (proto `IstioCertificateRequest`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// `csr`: PKCS#10 in PEM.
    pub csr: &'a str,
    /// `validity_duration`: seconds; zero or less asks for the default.
    pub validity_seconds: i64,
    /// `metadata.ImpersonatedIdentity`: whose certificate is wanted, when it is not the caller's own.
    pub impersonated: Option<&'a str>,
    /// `metadata.CertSigner`: which external signer is to be used.
    pub signer: Option<&'a str>,
}

/// What the caller gets, and what is worth a line in the log.
#[derive(Clone, Debug)]
pub struct Answer {
    /// `cert_chain` of the response: leaf first, roots last.
    pub chain: Vec<String>,
    /// The leaf.
    pub leaf: Cert,
    /// Names of the request that are not in the certificate, because they are not the caller's.
    pub ignored: Vec<String>,
    /// The lifetime asked for, when the certificate lives shorter or longer than that.
    pub adjusted: Option<Duration>,
}

/// Why the caller gets nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody knows who is asking.
    #[error("the caller is not authenticated")]
    Caller(#[source] CallerError),
    /// The request is wrong.
    #[error("the certificate request is refused")]
    Csr(#[source] CsrError),
    /// A certificate of another workload is wanted.
    #[error("{caller} may not ask for a certificate of {wanted:?}")]
    Impersonation {
        /// Who asks.
        caller: String,
        /// For whom.
        wanted: String,
    },
    /// A signer is named that we do not have.
    #[error("there is no certificate signer {0:?}; leave CertSigner empty to use the mesh's own authority")]
    Signer(String),
    /// The authority failed.
    #[error("no certificate could be issued")]
    Issue(#[source] IssueError),
}

/// The gRPC status of a refusal (google.rpc.Code).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    /// `INVALID_ARGUMENT`
    InvalidArgument = 3,
    /// `PERMISSION_DENIED`
    PermissionDenied = 7,
    /// `FAILED_PRECONDITION`
    FailedPrecondition = 9,
    /// `INTERNAL`
    Internal = 13,
    /// `UNAVAILABLE`
    Unavailable = 14,
    /// `UNAUTHENTICATED`
    Unauthenticated = 16,
}

impl Refusal {
    /// The gRPC status. As in Istio: clients retry all but the first three.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Caller(CallerError::ServiceAccount(error)) if error.is_transient() => Code::Unavailable,
            Self::Caller(_) => Code::Unauthenticated,
            Self::Csr(_) | Self::Signer(_) => Code::InvalidArgument,
            Self::Impersonation { .. } => Code::PermissionDenied,
            Self::Issue(IssueError::AuthorityNotValid { .. }) => Code::FailedPrecondition,
            Self::Issue(_) => Code::Internal,
        }
    }
}

/// Answers one request of an authenticated caller.
///
/// # Errors
/// [`Refusal`], to be counted by kind and sent as a status.
pub fn handle(
    authority: &dyn Authority,
    request: Request<'_>,
    caller: &Caller,
    now: SystemTime,
) -> Result<Answer, Refusal> {
    let identity = caller.identity.to_string();
    if let Some(wanted) = request.impersonated.filter(|wanted| !wanted.is_empty() && *wanted != identity) {
        // Only a node agent that we know may do so, and there is none yet. To ignore it would hand out a certificate
        // that is not what the caller believes.
        return Err(Refusal::Impersonation { caller: identity, wanted: cut(wanted) });
    }
    if let Some(signer) = request.signer.filter(|signer| !signer.is_empty()) {
        return Err(Refusal::Signer(cut(signer)));
    }
    let csr = ValidCsr::parse(request.csr).map_err(Refusal::Csr)?;
    let asked = u64::try_from(request.validity_seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
    let issued = authority.issue(&csr, &Grant::of(caller), asked, now).map_err(Refusal::Issue)?;
    let lives = issued.leaf.remaining(now);
    Ok(Answer {
        chain: issued.to_answer(),
        ignored: csr.asked.into_iter().filter(|name| *name != identity).collect(),
        // Certificates know whole seconds.
        adjusted: asked.filter(|asked| asked.abs_diff(lives) > Duration::from_secs(1)),
        leaf: issued.leaf,
    })
}

/// Foreign text for a message: bounded.
fn cut(text: &str) -> String {
    text.chars().take(256).collect()
}

#[cfg(test)]
mod tests;
