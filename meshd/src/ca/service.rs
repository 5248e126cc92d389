//! `istio.v1.auth.IstioCertificateService`: authenticates the caller, lets the authority decide, says and counts what it did.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use mesh_api_xds::ca_proto::{CertificateService, IstioCertificateRequest, IstioCertificateResponse};
use mesh_ca::authority::{Authority, LocalAuthority};
use mesh_ca::caller::{Caller, Proof};
use mesh_ca::service::{Answer, Code, Refusal, Request as CaRequest, handle};
use mesh_ca::time::display;
use tonic::codegen::async_trait;
use tonic::{Request, Response, Status};

use crate::auth::{Authenticator, Peer};
use crate::metrics::CaMetrics;

/// The service.
#[derive(Debug)]
pub(crate) struct Certificates {
    /// What issues at present.
    pub(crate) authority: Arc<ArcSwap<LocalAuthority>>,
    /// Who may ask.
    pub(crate) authenticator: Arc<Authenticator>,
    /// Where it counts.
    pub(crate) metrics: CaMetrics,
}

impl Certificates {
    async fn create(&self, peer: &Peer, request: &Request<IstioCertificateRequest>) -> Result<Vec<String>, Status> {
        let now = SystemTime::now();
        self.metrics.requests.inc();
        if !peer.secure && !peer.address.ip().to_canonical().is_loopback() {
            self.metrics.unauthenticated.inc();
            return Err(Status::permission_denied(
                "certificates are issued over TLS only; use the secure port (15012)",
            ));
        }
        let caller = match self.authenticator.caller(peer, request.metadata(), now).await {
            Ok(caller) => caller,
            Err(error) => return Err(self.refuse(peer, None, &Refusal::Caller(error))),
        };
        let asked = request.get_ref();
        let field = |name: &str| {
            let value = asked.metadata.as_ref()?.fields.get(name)?.kind.as_ref()?;
            match value {
                prost_types::value::Kind::StringValue(text) => Some(text.as_str()),
                _ => None,
            }
        };
        let wanted = CaRequest {
            csr: &asked.csr,
            validity_seconds: asked.validity_duration,
            impersonated: field("ImpersonatedIdentity"),
            signer: field("CertSigner"),
        };
        let authority = self.authority.load_full();
        match handle(&*authority as &dyn Authority, wanted, &caller, now) {
            Ok(answer) => {
                self.metrics.issued.inc();
                audit(peer, &caller, &answer);
                Ok(answer.chain)
            }
            Err(refusal) => Err(self.refuse(peer, Some(&caller), &refusal)),
        }
    }

    fn refuse(&self, peer: &Peer, caller: Option<&Caller>, refusal: &Refusal) -> Status {
        let counter = match refusal {
            Refusal::Caller(_) => &self.metrics.unauthenticated,
            Refusal::Csr(_) => &self.metrics.malformed,
            Refusal::Impersonation { .. } | Refusal::Signer(_) => &self.metrics.identity_refused,
            Refusal::Issue(_) => &self.metrics.failed,
        };
        counter.inc();
        let said = mesh_api_rt::report::Report::new(refusal).to_string();
        let identity = caller.map(|caller| caller.identity.to_string()).unwrap_or_default();
        tracing::warn!(target: "audit", peer = %peer.address, identity, error = said, "Certificate refused");
        let code = match refusal.code() {
            Code::InvalidArgument => tonic::Code::InvalidArgument,
            Code::PermissionDenied => tonic::Code::PermissionDenied,
            Code::FailedPrecondition => tonic::Code::FailedPrecondition,
            Code::Internal => tonic::Code::Internal,
            Code::Unavailable => tonic::Code::Unavailable,
            Code::Unauthenticated => tonic::Code::Unauthenticated,
        };
        Status::new(code, said)
    }
}

/// One line for every certificate that leaves the house.
fn audit(peer: &Peer, caller: &Caller, answer: &Answer) {
    let proof = match caller.proof {
        Proof::Certificate => "certificate",
        Proof::Token => "token",
        Proof::ServiceAccount => "service account",
    };
    let expires = display(answer.leaf.not_after);
    tracing::info!(
        target: "audit",
        peer = %peer.address,
        identity = %caller.identity,
        proof,
        pod = caller.pod.as_deref().unwrap_or_default(),
        serial = %answer.leaf.serial,
        expires,
        ignored_names = ?answer.ignored,
        lifetime_adjusted = answer.adjusted.is_some(),
        "Certificate issued"
    );
}

#[async_trait]
impl CertificateService for Certificates {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.ok_or_else(|| Status::internal("a request without a peer"))?;
        // A signature takes well under a millisecond with the keys we make; an RSA key that was plugged in takes a few.
        let cert_chain = self.create(&peer, &request).await?;
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}
