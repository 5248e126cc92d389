//! Who is on the other side: from the connection and the request's metadata to an identity, and what that identity may say
//! of itself.

pub(crate) mod reviewer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use mesh_api::identity::SpiffeId;
use mesh_api_xds::node::NodeInfo;
use mesh_ca::caller::{Caller, CallerError, Trust};
use mesh_ca::review::ReviewError;
use mesh_ca::token::{TokenError, TokenKeys};
use rustls_pki_types::CertificateDer;
use tonic::metadata::MetadataMap;

use self::reviewer::Reviewer;

/// The other side of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its address.
    pub(crate) address: SocketAddr,
    /// Whether the connection is encrypted.
    pub(crate) secure: bool,
    /// The certificate it proved to own, whose chain was verified.
    pub(crate) certificate: Option<CertificateDer<'static>>,
    /// When the connection is to end, so that proxies spread anew over replicas.
    pub(crate) ends: Instant,
}

/// What proves identities.
#[derive(Debug)]
pub(crate) struct Authenticator {
    /// The domains whose workloads are ours.
    pub(crate) trust: ArcSwap<Trust>,
    /// The keys of bootstrap tokens.
    pub(crate) tokens: Arc<TokenKeys>,
    /// Who knows the tokens of service accounts; `None` outside Kubernetes.
    pub(crate) reviewer: Option<Arc<Reviewer>>,
}

/// A proxy that says something of itself that it did not prove.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NodeMismatch {
    /// Another namespace.
    #[error("the node says namespace {said:?}, but the caller is {identity}")]
    Namespace {
        /// What the node says.
        said: String,
        /// Who it is.
        identity: SpiffeId,
    },
    /// Another service account.
    #[error("the node says service account {said:?}, but the caller is {identity}")]
    ServiceAccount {
        /// What the node says.
        said: String,
        /// Who it is.
        identity: SpiffeId,
    },
}

impl Authenticator {
    /// The caller behind a request: by its certificate, else by its bearer token, which is one of ours or that of a service
    /// account.
    ///
    /// # Errors
    /// When there is neither, or it is not accepted.
    pub(crate) async fn caller(
        &self,
        peer: &Peer,
        metadata: &MetadataMap,
        now: SystemTime,
    ) -> Result<Caller, CallerError> {
        let trust = self.trust.load_full();
        if let Some(certificate) = &peer.certificate {
            return Caller::from_certificate(certificate, &trust);
        }
        let token = bearer(metadata).ok_or(CallerError::Anonymous)?;
        match (Caller::from_token(token, &self.tokens, &trust, now), &self.reviewer) {
            // Not one of ours, whatever else it is: a foreign key in the header, or longer than ours.
            (Err(CallerError::Token(TokenError::UnknownKey | TokenError::TooLarge)), Some(reviewer)) => {
                // Whoever listens to such a connection could use the token as well. On this machine nobody does.
                if !peer.secure && !peer.address.ip().to_canonical().is_loopback() {
                    return Err(ReviewError::Plaintext.into());
                }
                Caller::from_service_account(&*reviewer.review(token).await?, &trust)
            }
            (ours, _) => ours,
        }
    }

    /// The identity of a discovery stream. On the plaintext port none is needed, as with istiod (`XDS_AUTH_PLAINTEXT` is
    /// off): it is for this machine only unless an operator asked otherwise. What is presented there is still checked.
    ///
    /// # Errors
    /// See [`Authenticator::caller`].
    pub(crate) async fn stream(
        &self,
        peer: &Peer,
        metadata: &MetadataMap,
        now: SystemTime,
    ) -> Result<Option<SpiffeId>, CallerError> {
        match self.caller(peer, metadata, now).await {
            Ok(caller) => Ok(Some(caller.identity)),
            Err(CallerError::Anonymous) if !peer.secure => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A node may only say what its caller proved (Istio: `PILOT_ENABLE_XDS_IDENTITY_CHECK`).
///
/// # Errors
/// Names what differs.
pub(crate) fn check_node(node: &NodeInfo, identity: &SpiffeId) -> Result<(), NodeMismatch> {
    if node.namespace != *identity.namespace {
        let said = node.namespace.chars().take(256).collect();
        return Err(NodeMismatch::Namespace { said, identity: identity.clone() });
    }
    let account = &node.metadata.service_account;
    if !account.is_empty() && *account != *identity.service_account {
        let said = account.chars().take(256).collect();
        return Err(NodeMismatch::ServiceAccount { said, identity: identity.clone() });
    }
    Ok(())
}

/// The token in `authorization: Bearer …`; the word's case does not matter (RFC 7235, section 2.1).
fn bearer(metadata: &MetadataMap) -> Option<&str> {
    let value = metadata.get("authorization")?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_api::identity::TrustDomain;
    use mesh_api::text::Str;
    use mesh_ca::caller::Proof;
    use mesh_ca::testing::TestCa;

    use mesh_api_rt::metrics::Metrics;

    use super::*;
    use crate::kube::fake;
    use crate::xds::view::tests::mk_node;

    fn mk_authenticator() -> Authenticator {
        let trust = ArcSwap::from_pointee(Trust::new(TrustDomain::default()));
        Authenticator { trust, tokens: Arc::new(TokenKeys::generate().unwrap()), reviewer: None }
    }

    fn mk_peer(secure: bool, certificate: Option<CertificateDer<'static>>) -> Peer {
        let ends = tokio::time::Instant::now().into_std();
        Peer { address: ([127, 0, 0, 1], 1).into(), secure, certificate, ends }
    }

    fn with_token(token: &str) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", format!("bearer {token}").parse().unwrap());
        metadata
    }

    #[tokio::test]
    async fn a_certificate_counts_more_than_a_token() {
        let now = SystemTime::now();
        let (auth, ca) = (mk_authenticator(), TestCa::new(now));
        let token = auth.tokens.mint(&ca.identity("shop", "by-token"), Duration::from_secs(60), now).unwrap();
        let leaf = ca.credential("shop", "by-cert").leaf.der().clone();
        let caller = auth.caller(&mk_peer(true, Some(leaf)), &with_token(&token), now).await.unwrap();
        assert_eq!((caller.proof, caller.identity.service_account.as_str()), (Proof::Certificate, "by-cert"));
        let caller = auth.caller(&mk_peer(true, None), &with_token(&token), now).await.unwrap();
        assert_eq!((caller.proof, caller.identity.service_account.as_str()), (Proof::Token, "by-token"));
    }

    #[tokio::test]
    async fn nobody_in_particular_is_served_in_plaintext_only() {
        let (auth, now) = (mk_authenticator(), SystemTime::now());
        let nothing = MetadataMap::new();
        assert_eq!(auth.stream(&mk_peer(false, None), &nothing, now).await, Ok(None));
        assert_eq!(auth.stream(&mk_peer(true, None), &nothing, now).await, Err(CallerError::Anonymous));
        // A wrong token is refused on both.
        assert!(auth.stream(&mk_peer(false, None), &with_token("x.y.z"), now).await.is_err());
    }

    #[tokio::test]
    async fn service_accounts_prove_themselves_over_tls() {
        let client = fake::answering(|request| {
            assert_eq!(request.uri().path(), "/apis/authentication.k8s.io/v1/tokenreviews");
            let asked: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
            assert_eq!(asked["spec"]["audiences"], serde_json::json!(["istio-ca"]));
            let user = serde_json::json!({
                "username": "system:serviceaccount:shop:web",
                "extra": {"authentication.kubernetes.io/pod-name": ["web-1"]},
            });
            let authenticated = asked["spec"]["token"] == "e30.e30.good";
            let status = serde_json::json!({"authenticated": authenticated, "audiences": ["istio-ca"], "user": user});
            (201, serde_json::json!({"metadata": {}, "spec": {}, "status": status}))
        });
        let metrics = Metrics::new().register().unwrap();
        let reviewer = Reviewer::new(client, vec!["istio-ca".to_owned()], metrics);
        let auth = Authenticator { reviewer: Some(Arc::new(reviewer)), ..mk_authenticator() };
        let now = SystemTime::now();
        let caller = auth.caller(&mk_peer(true, None), &with_token("e30.e30.good"), now).await.unwrap();
        assert_eq!(caller.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/web");
        assert_eq!((caller.proof, caller.pod.as_deref()), (Proof::ServiceAccount, Some("web-1")));
        let bad = auth.caller(&mk_peer(true, None), &with_token("e30.e30.bad"), now).await.unwrap_err();
        assert!(matches!(bad, CallerError::ServiceAccount(ReviewError::Refused { .. })), "{bad:?}");
        let remote = Peer { address: ([10, 0, 0, 1], 1).into(), ..mk_peer(false, None) };
        let plain = auth.caller(&remote, &with_token("e30.e30.good"), now).await;
        assert_eq!(plain, Err(CallerError::ServiceAccount(ReviewError::Plaintext)));
    }

    #[test]
    fn a_node_says_only_what_its_caller_proved() {
        let identity = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap();
        let mut node = mk_node("web-1", "shop");
        assert_eq!(check_node(&node, &identity), Ok(()));
        node.metadata.service_account = Str::from("web");
        assert_eq!(check_node(&node, &identity), Ok(()));
        node.metadata.service_account = Str::from("orders");
        assert!(matches!(check_node(&node, &identity), Err(NodeMismatch::ServiceAccount { .. })));
        assert!(matches!(check_node(&mk_node("web-1", "bank"), &identity), Err(NodeMismatch::Namespace { .. })));
    }
}
