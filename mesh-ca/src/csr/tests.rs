use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use mesh_api::identity::SpiffeId;
use proptest::prelude::*;
use rcgen::{CertificateParams, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, SigningKey as _};

use super::*;
use crate::der;
use crate::key::{KeyKind, PrivateKey};
use crate::pem;

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

fn mk_csr(kind: KeyKind) -> (PrivateKey, Vec<u8>) {
    let key = PrivateKey::generate(kind).unwrap();
    let mut params = CertificateParams::new(vec!["web.shop".to_owned()]).unwrap();
    params.subject_alt_names.push(rcgen::SanType::URI(WEB.try_into().unwrap()));
    let der = params.serialize_request(&key).unwrap().der().to_vec();
    (key, der)
}

/// Puts other contents under a right signature.
fn resign(csr: &[u8], key: &PrivateKey, edit: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
    let (outer, _) = der::read(csr).unwrap();
    let (info, rest) = der::read(outer.content).unwrap();
    let (algorithm, _) = der::read(rest).unwrap();
    let mut parts = Vec::new();
    let mut left = info.content;
    while let Some((element, rest)) = der::read(left) {
        parts.push(element.whole.to_vec());
        left = rest;
    }
    edit(&mut parts);
    let info = der::write(0x30, &parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let signature = key.sign(&info).unwrap();
    der::write(0x30, &[&info, algorithm.whole, &der::write(3, &[&[0], &signature])])
}

#[test]
fn keys_that_peers_verify_are_taken() {
    for (kind, rsa) in
        [(KeyKind::EcdsaP256, false), (KeyKind::EcdsaP384, false), (KeyKind::Rsa2048, true), (KeyKind::Rsa4096, true)]
    {
        let (key, der) = mk_csr(kind);
        let csr = ValidCsr::parse(&pem::encode(pem::REQUEST, &der)).unwrap();
        assert_eq!(csr.key().subject_public_key_info(), key.public_key_info());
        assert_eq!(csr.is_rsa(), rsa);
        assert_eq!(csr.asked, ["web.shop", WEB]);
    }
}

#[test]
fn other_keys_are_refused() {
    for algorithm in [&PKCS_ED25519, &PKCS_ECDSA_P521_SHA512] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let der = CertificateParams::default().serialize_request(&key).unwrap();
        assert_eq!(ValidCsr::parse_der(der.der()).unwrap_err(), CsrError::KeyKind);
    }
    // A right RSA request, but with a modulus of 1,024 bits: refused before its signature is looked at.
    let (_, der) = mk_csr(KeyKind::Rsa2048);
    let (key, _) = mk_csr(KeyKind::Rsa2048);
    let short = resign(&der, &key, |parts| {
        let modulus = der::write(2, &[&[0x70], &[0x55; 127]]);
        let rsa = der::write(0x30, &[&modulus, &[2, 3, 1, 0, 1]]);
        let oid = [0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
        parts[2] = der::write(0x30, &[&oid, &der::write(3, &[&[0], &rsa])]);
    });
    assert_eq!(ValidCsr::parse_der(&short).unwrap_err(), CsrError::KeyKind);
}

#[test]
fn somebody_elses_key_is_refused() {
    let (_, victim) = mk_csr(KeyKind::EcdsaP256);
    let (thief, own) = mk_csr(KeyKind::EcdsaP256);
    let (outer, _) = der::read(&victim).unwrap();
    let (info, _) = der::read(outer.content).unwrap();
    let mut stolen = Vec::new();
    der::read(info.content);
    let mut left = info.content;
    while let Some((element, rest)) = der::read(left) {
        stolen.push(element.whole.to_vec());
        left = rest;
    }
    let forged = resign(&own, &thief, |parts| parts[2] = stolen[2].clone());
    assert_eq!(ValidCsr::parse_der(&forged).unwrap_err(), CsrError::Signature);
}

#[test]
fn weak_or_foreign_signatures_are_refused() {
    let (_, der) = mk_csr(KeyKind::Rsa2048);
    // sha1WithRSAEncryption and md5WithRSAEncryption differ from sha256With… in the last byte of the identifier.
    let sha256 = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11];
    let at = der.windows(sha256.len()).rposition(|window| window == sha256).unwrap() + sha256.len() - 1;
    for weak in [4, 5] {
        let mut der = der.clone();
        der[at] = weak;
        assert_eq!(ValidCsr::parse_der(&der).unwrap_err(), CsrError::SignatureKind);
    }
    let pair = Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref());
    assert_eq!(pair.unwrap().public_key().as_ref().len(), 32);
}

#[test]
fn size_and_form_are_bounded() {
    let (_, der) = mk_csr(KeyKind::EcdsaP256);
    assert_eq!(ValidCsr::parse(&"x".repeat(MAX_CSR_BYTES + 1)).unwrap_err(), CsrError::TooLarge);
    assert_eq!(ValidCsr::parse_der(&vec![0; MAX_CSR_BYTES + 1]).unwrap_err(), CsrError::TooLarge);
    assert_eq!(ValidCsr::parse("").unwrap_err(), CsrError::NotPem);
    assert_eq!(ValidCsr::parse(&pem::encode(pem::CERTIFICATE, &der)).unwrap_err(), CsrError::NotPem);
    assert_eq!(ValidCsr::parse(&pem::encode(pem::REQUEST, &[])).unwrap_err(), CsrError::Malformed);
    let mut long = der.clone();
    long.push(0);
    assert_eq!(ValidCsr::parse_der(&long).unwrap_err(), CsrError::Malformed);
    assert!(ValidCsr::parse_der(&der[..der.len() - 1]).is_err());
}

#[test]
fn many_names_are_cut() {
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let names: Vec<String> = (0..100).map(|number| format!("n{number}")).collect();
    let der = CertificateParams::new(names).unwrap().serialize_request(&key).unwrap();
    assert_eq!(ValidCsr::parse_der(der.der()).unwrap().asked.len(), MAX_NAMES);
}

#[test]
fn a_request_for_more_gets_no_more() {
    use crate::authority::Authority as _;
    let now = crate::time::from_unix(1_800_000_000);
    let ca = crate::testing::TestCa::new(now);
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let mut params = CertificateParams::new(vec!["istiod.istio-system.svc".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(rcgen::DnType::CommonName, "admin");
    let der = params.serialize_request(&key).unwrap();
    let csr = ValidCsr::parse_der(der.der()).unwrap();
    let grant = crate::caller::Grant::workload(SpiffeId::parse(WEB).unwrap());
    let leaf = ca.authority().issue(&csr, &grant, None, now).unwrap().leaf;
    assert!(!leaf.is_ca && !leaf.may_sign && leaf.dns_names.is_empty());
    assert_eq!((leaf.subject.as_str(), leaf.uris.as_slice()), ("", &[WEB.to_owned()][..]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn changed_requests_never_panic_and_are_refused(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), rsa in any::<bool>(),
    ) {
        use std::sync::LazyLock;
        static CSRS: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| [mk_csr(KeyKind::EcdsaP256).1, mk_csr(KeyKind::Rsa2048).1]);
        let original = &CSRS[usize::from(rsa)];
        let mut der = original.clone();
        for (at, value) in flips {
            let at = at.index(der.len());
            der[at] = value;
        }
        prop_assume!(&der != original);
        prop_assert!(ValidCsr::parse_der(&der).is_err());
    }

    #[test]
    fn cut_and_padded_requests_never_panic(at in any::<prop::sample::Index>(), tail in prop::collection::vec(any::<u8>(), 0..20)) {
        use std::sync::LazyLock;
        static CSR: LazyLock<Vec<u8>> = LazyLock::new(|| mk_csr(KeyKind::EcdsaP256).1);
        let mut der = CSR.clone();
        der.truncate(at.index(der.len()));
        der.extend(tail);
        prop_assume!(der != *CSR);
        prop_assert!(ValidCsr::parse_der(&der).is_err());
    }

    #[test]
    fn any_text_is_refused_without_a_panic(text in ".{0,300}") {
        prop_assert!(ValidCsr::parse(&text).is_err());
        prop_assert!(ValidCsr::parse(&pem::encode(pem::REQUEST, text.as_bytes())).is_err());
    }
}
