use std::time::Duration;

use super::*;
use crate::authority::Issued;
use crate::testing::TestCa;
use crate::time::from_unix;

const DAY: Duration = Duration::from_secs(86_400);

fn now() -> SystemTime {
    from_unix(1_800_000_000)
}

fn request(ca: &TestCa) -> CertificateRequest {
    CertificateRequest::new(ca.identity("shop", "web"), KeyKind::EcdsaP256).unwrap()
}

fn issue(ca: &TestCa, csr: &str) -> Issued {
    ca.issue(csr, &ca.identity("shop", "web"), &[], DAY, now())
}

#[test]
fn a_credential_survives_its_files() {
    let ca = TestCa::new(now());
    for kind in [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Rsa2048] {
        let request = CertificateRequest::new(ca.identity("shop", "web"), kind).unwrap();
        let answer = issue(&ca, request.csr()).to_answer();
        let credential = request.finish(&answer, now()).unwrap();
        assert_eq!(credential.leaf.public_key_info, credential.key().public_key_info());
        let (chain, key, roots) = (credential.chain_pem(), credential.key_pem(), credential.roots_pem());
        let read = Credential::from_pem(chain.as_bytes(), key.as_bytes(), roots.as_bytes(), now()).unwrap();
        assert_eq!(read.chain(), credential.chain());
        assert_eq!(read.identity, credential.identity);
        assert!(!format!("{read:?}").contains("PRIVATE"));
    }
}

#[test]
fn an_answer_for_somebody_else_is_refused() {
    let ca = TestCa::new(now());
    let (mine, other) = (request(&ca), request(&ca));
    let answer = issue(&ca, other.csr()).to_answer();
    assert!(matches!(mine.finish(&answer, now()), Err(CredentialError::KeyMismatch)));

    let mine = request(&ca);
    let answer = ca.issue(mine.csr(), &ca.identity("shop", "other"), &[], DAY, now()).to_answer();
    let error = mine.finish(&answer, now()).unwrap_err();
    assert!(error.to_string().contains("sa/other, not for spiffe://cluster.local/ns/shop/sa/web"), "{error}");
}

#[test]
fn a_certificate_of_another_time_is_refused() {
    let ca = TestCa::new(now());
    for at in [now() + DAY + Duration::from_secs(1), now() - Duration::from_secs(121)] {
        let mine = request(&ca);
        let answer = issue(&ca, mine.csr()).to_answer();
        assert!(matches!(mine.finish(&answer, at), Err(CredentialError::NotValidNow { .. })));
    }
}

#[test]
fn a_chain_that_does_not_reach_its_roots_is_refused() {
    let (ca, other) = (TestCa::new(now()), TestCa::new(now()));
    let mine = request(&ca);
    let mut answer = issue(&ca, mine.csr()).to_answer();
    *answer.last_mut().unwrap() = other.bundle().to_pem();
    assert!(matches!(mine.finish(&answer, now()), Err(CredentialError::Chain(_))));
}

#[test]
fn answers_without_certificate_or_roots_are_refused() {
    let ca = TestCa::new(now());
    let good = issue(&ca, request(&ca).csr()).to_answer();
    let leaf = good[0].clone();
    let junk = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".to_owned();
    for answer in [
        vec![],
        vec![leaf.clone()],
        vec![String::new(), good[1].clone()],
        vec![leaf.clone(), String::new()],
        vec![leaf.clone(), leaf.clone()],
        vec![junk.clone(), good[1].clone()],
        vec![leaf.clone(), junk],
        vec![" ".repeat(pem::MAX_PEM_BYTES), good[1].clone()],
        vec![leaf.repeat(MAX_INTERMEDIATES + 2), good[1].clone()],
    ] {
        let refused = request(&ca).finish(&answer, now());
        assert!(refused.is_err(), "{answer:?}");
    }
}

#[test]
fn the_root_is_not_sent_to_peers() {
    let ca = TestCa::new(now());
    let mine = request(&ca);
    let mut answer = issue(&ca, mine.csr()).to_answer();
    answer.insert(1, ca.bundle().to_pem());
    assert_eq!(mine.finish(&answer, now()).unwrap().chain().len(), 1);
}
