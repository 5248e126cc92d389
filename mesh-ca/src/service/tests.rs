use mesh_api::identity::{SpiffeId, TrustDomain};

use super::*;
use crate::caller::{Proof, Trust, identity_of};
use crate::client::CertificateRequest;
use crate::key::KeyKind;
use crate::review::ReviewError;
use crate::testing::TestCa;
use crate::time::from_unix;
use crate::token::{DEFAULT_TTL, TokenKeys};

const DAY: i64 = 86_400;

fn now() -> SystemTime {
    from_unix(1_800_000_000)
}

fn caller(text: &str) -> Caller {
    Caller { identity: SpiffeId::parse(text).unwrap(), proof: Proof::Token, pod: None }
}

fn web() -> Caller {
    caller("spiffe://cluster.local/ns/shop/sa/web")
}

fn csr_for(identity: &str) -> CertificateRequest {
    CertificateRequest::new(SpiffeId::parse(identity).unwrap(), KeyKind::EcdsaP256).unwrap()
}

#[test]
fn first_with_a_token_then_with_the_certificate() {
    let ca = TestCa::new(now());
    let trust = Trust::new(TrustDomain::default());
    let keys = TokenKeys::generate().unwrap();
    let identity = ca.identity("shop", "web");
    let token = keys.mint(&identity, DEFAULT_TTL, now()).unwrap();

    let by_token = Caller::from_token(&token, &keys, &trust, now()).unwrap();
    let request = csr_for(&identity.to_string());
    let answer =
        handle(ca.authority(), Request { csr: request.csr(), ..Request::default() }, &by_token, now()).unwrap();
    assert_eq!((answer.ignored.len(), answer.adjusted), (0, None));
    let credential = request.finish(&answer.chain, now()).unwrap();
    assert_eq!(credential.leaf.not_after, now() + Duration::from_secs(86_400));

    let by_certificate = Caller::from_certificate(credential.leaf.der(), &trust).unwrap();
    assert_eq!(by_certificate, Caller { identity, proof: Proof::Certificate, pod: None });
}

#[test]
fn names_of_the_request_are_ignored_and_reported() {
    let ca = TestCa::new(now());
    let wanted = "spiffe://cluster.local/ns/kube-system/sa/admin";
    let request = csr_for(wanted);
    let answer = handle(ca.authority(), Request { csr: request.csr(), ..Request::default() }, &web(), now()).unwrap();
    assert_eq!(answer.ignored, [wanted]);
    assert_eq!(identity_of(answer.leaf.der()).unwrap(), web().identity);
    assert_eq!(answer.leaf.uris, ["spiffe://cluster.local/ns/shop/sa/web"]);
    assert!(answer.leaf.dns_names.is_empty() && !answer.leaf.is_ca);
    assert!(request.finish(&answer.chain, now()).is_err(), "our own client does not take it either");
}

#[track_caller]
fn check_ttl(asked: i64, lives: i64, adjusted: bool) {
    let authority = TestCa::new(now());
    let request = csr_for("spiffe://cluster.local/ns/shop/sa/web");
    let request = Request { csr: request.csr(), validity_seconds: asked, ..Request::default() };
    let answer = handle(authority.authority(), request, &web(), now()).unwrap();
    assert_eq!(answer.leaf.not_after, now() + Duration::from_secs(lives.unsigned_abs()));
    assert_eq!(answer.leaf.not_before, now() - Duration::from_secs(120), "for late clocks");
    assert_eq!(answer.adjusted.is_some(), adjusted);
}

#[test]
fn lifetimes_are_brought_between_the_bounds() {
    check_ttl(0, DAY, false);
    check_ttl(-1, DAY, false);
    check_ttl(i64::MIN, DAY, false);
    check_ttl(3600, 3600, false);
    check_ttl(90 * DAY, 90 * DAY, false);
    check_ttl(91 * DAY, 90 * DAY, true);
    check_ttl(i64::MAX, 90 * DAY, true);
}

#[test]
fn no_certificate_outlives_its_authority() {
    let ca = TestCa::new(now());
    let end = ca.authority().not_after().unwrap();
    let request = csr_for("spiffe://cluster.local/ns/shop/sa/web");
    let request = Request { csr: request.csr(), ..Request::default() };
    let late = end - Duration::from_secs(3600);
    assert_eq!(handle(ca.authority(), request, &web(), late).unwrap().leaf.not_after, end);
    for at in [end + Duration::from_secs(1), now() - Duration::from_secs(86_400)] {
        let refusal = handle(ca.authority(), request, &web(), at).unwrap_err();
        assert_eq!(refusal.code(), Code::FailedPrecondition, "{refusal}");
    }
}

#[test]
fn refusals_have_codes() {
    let ca = TestCa::new(now());
    let good = csr_for("spiffe://cluster.local/ns/shop/sa/web");
    let good = Request { csr: good.csr(), ..Request::default() };
    let check = |request, expect| {
        let refusal = handle(ca.authority(), request, &web(), now()).unwrap_err();
        assert_eq!(refusal.code(), expect, "{refusal}");
    };
    check(Request { csr: "", ..good }, Code::InvalidArgument);
    check(Request { signer: Some("corp/ca"), ..good }, Code::InvalidArgument);
    let other = Some("spiffe://cluster.local/ns/shop/sa/other");
    check(Request { impersonated: other, ..good }, Code::PermissionDenied);
    let own = Some("spiffe://cluster.local/ns/shop/sa/web");
    assert!(handle(ca.authority(), Request { impersonated: own, signer: Some(""), ..good }, &web(), now()).is_ok());
    assert_eq!(Refusal::Caller(CallerError::Anonymous).code() as i32, 16);
    let later = ReviewError::Unavailable { reason: String::new() };
    assert_eq!(Refusal::Caller(later.into()).code() as i32, 14);
}

#[test]
fn callers_of_other_meshes_are_strangers_unless_aliased() {
    let [own, other] = ["cluster.local", "other.org"].map(|domain| TrustDomain::parse(domain).unwrap());
    let ca = TestCa::of(other.clone(), now());
    let leaf = ca.credential("shop", "web").leaf;
    let refused = Caller::from_certificate(leaf.der(), &Trust::new(own.clone()));
    assert_eq!(refused, Err(CallerError::TrustDomain(other.clone())));
    let trust = Trust { domain: own, aliases: vec![other] };
    assert!(Caller::from_certificate(leaf.der(), &trust).is_ok());

    let keys = TokenKeys::generate().unwrap();
    let token = keys.mint(&ca.identity("a", "b"), DEFAULT_TTL, now()).unwrap();
    assert!(Caller::from_token(&token, &keys, &trust, now()).is_ok());
    let refused = Caller::from_token(&token, &keys, &Trust::default(), now());
    assert!(matches!(refused, Err(CallerError::TrustDomain(_))));
}

#[test]
fn only_a_leaf_with_one_identity_is_a_caller() {
    let ca = TestCa::new(now());
    let root = ca.bundle().roots()[0].clone();
    assert_eq!(identity_of(root.der()), Err(CallerError::Authority));
    assert!(matches!(identity_of(&vec![0x30, 0].into()), Err(CallerError::Certificate(_))));
}
