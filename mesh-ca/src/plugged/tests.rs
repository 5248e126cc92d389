use std::time::Duration;

use rcgen::{BasicConstraints, CustomExtension, DistinguishedName, DnType, IsCa, KeyUsagePurpose};

use super::*;
use crate::client::CertificateRequest;
use crate::issue::{Signer, Validity, root, sign};
use crate::time::{from_unix, to_calendar};

const DAY: u64 = 86_400;

fn days(number: u64) -> SystemTime {
    from_unix(1_800_000_000) + Duration::from_secs(number * DAY)
}

struct Made {
    key: PrivateKey,
    cert: Cert,
}

fn mk_root(name: &str) -> Made {
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let cert = root(&key, name, Validity { not_before: days(0), not_after: days(1000) }).unwrap();
    Made { key, cert }
}

fn ca_params(name: &str, not_after: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = to_calendar(days(0));
    params.not_after = to_calendar(days(not_after));
    params
}

fn mk_signed(params: CertificateParams, by: &Made) -> Made {
    mk_signed_kind(params, by, KeyKind::EcdsaP256)
}

fn mk_signed_kind(params: CertificateParams, by: &Made, kind: KeyKind) -> Made {
    let key = PrivateKey::generate(kind).unwrap();
    let cert = sign(params, &key, Signer { cert: &by.cert, key: &by.key }).unwrap();
    Made { key, cert }
}

fn input(name: &str, content: &str) -> Input<Vec<u8>> {
    Input { name: name.to_owned(), content: content.as_bytes().to_vec() }
}

fn files(own: &Made, chain: &[&Made], roots: &[&Made]) -> CaCerts {
    let pem = |certs: &[&Made]| certs.iter().map(|made| made.cert.to_pem()).collect::<String>();
    let key = own.key.to_pem().as_bytes().to_vec();
    CaCerts {
        ca_cert: input("ca-cert.pem", &own.cert.to_pem()),
        ca_key: Input { name: "ca-key.pem".to_owned(), content: Zeroizing::new(key) },
        cert_chain: Some(input("cert-chain.pem", &pem(chain))),
        root_cert: input("root-cert.pem", &pem(roots)),
    }
}

fn open(files: &CaCerts, day: u64) -> Result<LocalAuthority, PluggedError> {
    load(files, &TrustDomain::default(), Lifetimes::default(), days(day))
}

/// The whole message with its causes.
#[track_caller]
fn check_refused(files: &CaCerts, day: u64, expect: &[&str]) {
    let error = open(files, day).unwrap_err();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    assert!(expect.iter().all(|part| text.contains(part)), "{text} should have {expect:?}");
}

/// Asks for a certificate and takes it as a client does, which verifies the chain.
#[track_caller]
fn check_issues(authority: &LocalAuthority, day: u64, intermediates: usize) {
    let identity = SpiffeId::new(TrustDomain::default(), "shop", "web");
    let request = CertificateRequest::new(identity.clone(), KeyKind::EcdsaP256).unwrap();
    let csr = ValidCsr::parse(request.csr()).unwrap();
    let issued = authority.issue(&csr, &Grant::workload(identity), None, days(day)).unwrap();
    let credential = request.finish(&issued.to_answer(), days(day)).unwrap();
    assert_eq!(credential.intermediates.len(), intermediates);
    assert_eq!(credential.leaf.issuer_der, authority.path()[0].subject_der);
}

#[test]
fn an_intermediate_leads_to_its_root_in_any_layout() {
    let root = mk_root("root");
    let middle = mk_signed(ca_params("middle", 900), &root);
    let own = mk_signed(ca_params("own", 800), &middle);
    // Istio's own scripts put the authority and the root into the chain as well.
    for chain in [vec![&middle], vec![&own, &middle, &root], vec![&root, &middle]] {
        check_issues(&open(&files(&own, &chain, &[&root]), 1).unwrap(), 1, 2);
    }
    let mut without = files(&own, &[], &[&root]);
    without.ca_cert.content.extend_from_slice(middle.cert.to_pem().as_bytes());
    without.cert_chain = None;
    check_issues(&open(&without, 1).unwrap(), 1, 2);
}

#[test]
fn a_root_can_issue_by_itself_and_rsa_is_accepted() {
    let root = mk_root("root");
    check_issues(&open(&files(&root, &[], &[&root]), 1).unwrap(), 1, 0);
    let rsa = mk_signed_kind(ca_params("own", 800), &root, KeyKind::Rsa2048);
    check_issues(&open(&files(&rsa, &[], &[&root]), 1).unwrap(), 1, 1);
}

#[test]
fn several_roots_are_all_distributed() {
    let (old, new) = (mk_root("old"), mk_root("new"));
    let own = mk_signed(ca_params("own", 800), &new);
    let authority = open(&files(&own, &[], &[&old, &new]), 1).unwrap();
    assert_eq!(authority.bundle().roots().len(), 2);
    assert_eq!(authority.path().last().unwrap(), &new.cert);
    check_issues(&authority, 1, 1);
}

#[test]
fn a_name_with_repeated_parts_is_kept_byte_for_byte() {
    // CN=own, DC=example, DC=corp, in three encodings of text: what directories make, and what `rcgen` cannot rebuild.
    let part = |oid: &[u8], tag: u8, text: &str| {
        let pair =
            crate::der::write(0x30, &[&crate::der::write(6, &[oid]), &crate::der::write(tag, &[text.as_bytes()])]);
        crate::der::write(0x31, &[&pair])
    };
    let domain = [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19];
    let name = crate::der::write(
        0x30,
        &[&part(&domain, 0x16, "corp"), &part(&domain, 0x16, "example"), &part(&[0x55, 4, 3], 0x13, "own")],
    );
    let root = mk_root("root");
    let plain = mk_signed(ca_params("own", 800), &root);
    // Rewrites the subject, which follows issuer and validity, and signs again.
    let (outer, _) = crate::der::read(plain.cert.der()).unwrap();
    let (body, rest) = crate::der::read(outer.content).unwrap();
    let (algorithm, _) = crate::der::read(rest).unwrap();
    let mut parts = Vec::new();
    let mut left = body.content;
    while let Some((element, rest)) = crate::der::read(left) {
        parts.push(element.whole);
        left = rest;
    }
    parts[5] = &name;
    let body = crate::der::write(0x30, &parts);
    let signature = rcgen::SigningKey::sign(&root.key, &body).unwrap();
    let bits = crate::der::write(3, &[&[0], &signature]);
    let der = crate::der::write(0x30, &[&body, algorithm.whole, &bits]);
    let own = Made { key: plain.key, cert: Cert::parse(der.into()).unwrap() };
    assert_eq!(own.cert.subject_der, name);

    let authority = open(&files(&own, &[], &[&root]), 1).unwrap();
    check_issues(&authority, 1, 1);
}

#[test]
fn what_is_wrong_is_named_with_its_file() {
    let (root, other) = (mk_root("root"), mk_root("other"));
    let own = mk_signed(ca_params("own", 800), &root);
    let good = files(&own, &[], &[&root]);

    let mut bad = good.clone();
    bad.ca_key = files(&other, &[], &[]).ca_key;
    check_refused(&bad, 1, &["the key in ca-key.pem does not belong to the certificate in ca-cert.pem"]);
    check_refused(&good, 801, &["O=own in ca-cert.pem expired at 20"]);
    check_refused(&good, 1001, &["ca-cert.pem expired"]);
    let late = mk_signed(ca_params("late", 2000), &root);
    check_refused(&files(&late, &[], &[&root]), 1001, &["in root-cert.pem expired"]);
    check_refused(&files(&own, &[], &[&other]), 1, &["O=own in ca-cert.pem does not lead to a root", "root-cert.pem"]);

    let mut bad = good.clone();
    bad.ca_key.content = Zeroizing::new(b"nothing".to_vec());
    check_refused(&bad, 1, &["ca-key.pem cannot be used", "no private key"]);
    let mut bad = good.clone();
    bad.ca_cert.content.clear();
    check_refused(&bad, 1, &["ca-cert.pem cannot be used: holds no certificate"]);
    let mut bad = good.clone();
    bad.root_cert.content = pem::encode(pem::CERTIFICATE, &[1]).into_bytes();
    check_refused(&bad, 1, &["root-cert.pem cannot be used: root certificate 1 is unusable"]);
    let mut bad = good.clone();
    bad.cert_chain = Some(input("cert-chain.pem", &pem::encode(pem::CERTIFICATE, &[1])));
    check_refused(&bad, 1, &["certificate 1 of cert-chain.pem cannot be used"]);
}

#[test]
fn a_future_authority_points_at_the_clock() {
    let root = mk_root("root");
    let mut params = ca_params("own", 800);
    params.not_before = to_calendar(days(10));
    let own = mk_signed(params, &root);
    check_refused(&files(&own, &[], &[&root]), 1, &["ca-cert.pem is not valid before", "clock"]);
}

#[test]
fn a_leaf_is_no_authority() {
    let root = mk_root("root");
    for (is_ca, usages) in [
        (IsCa::NoCa, vec![KeyUsagePurpose::KeyCertSign]),
        (IsCa::ExplicitNoCa, vec![]),
        (IsCa::Ca(BasicConstraints::Unconstrained), vec![KeyUsagePurpose::DigitalSignature]),
    ] {
        let own = mk_signed(with(ca_params("own", 800), is_ca, usages), &root);
        check_refused(&files(&own, &[], &[&root]), 1, &["O=own in ca-cert.pem is not a certificate authority"]);
    }
}

fn with(mut params: CertificateParams, is_ca: IsCa, usages: Vec<KeyUsagePurpose>) -> CertificateParams {
    params.is_ca = is_ca;
    params.key_usages = usages;
    params
}

#[test]
fn constraints_that_peers_would_enforce_are_found_at_once() {
    let root = mk_root("root");
    let mut params = ca_params("middle", 900);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let middle = mk_signed(params, &root);
    let own = mk_signed(ca_params("own", 800), &middle);
    check_refused(&files(&own, &[&middle], &[&root]), 1, &["peers would refuse", "ca-cert.pem", "PathLen"]);

    let mut params = ca_params("own", 800);
    let mut strange = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    strange.set_criticality(true);
    params.custom_extensions = vec![strange];
    let own = mk_signed(params, &root);
    check_refused(&files(&own, &[], &[&root]), 1, &["peers would refuse", "Critical"]);
}

#[test]
fn a_loop_of_authorities_ends() {
    // Two authorities that signed each other, and a root that signed neither.
    let (a, b, root) = (mk_root("a"), mk_root("b"), mk_root("root"));
    let cross = |subject: &Made, issuer: &Made, name: &str| {
        let signer = Signer { cert: &issuer.cert, key: &issuer.key };
        let mut params = ca_params("", 800);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        sign(params, &subject.key, signer).unwrap()
    };
    let a1 = cross(&a, &b, "a");
    let b1 = sign(ca_params("b", 800), &b.key, Signer { cert: &a1, key: &a.key }).unwrap();
    let a2 = sign(ca_params("own", 800), &a.key, Signer { cert: &b1, key: &b.key }).unwrap();
    let mut files = files(&a, &[], &[&root]);
    files.ca_cert.content = a2.to_pem().into_bytes();
    files.cert_chain = Some(input("cert-chain.pem", &format!("{}{}", a1.to_pem(), b1.to_pem())));
    check_refused(&files, 1, &["does not lead to a root"]);
}

#[test]
fn folders_are_read_in_both_layouts() {
    let root = mk_root("root");
    let own = mk_signed(ca_params("own", 800), &root);
    let files = files(&own, &[], &[&root]);
    let folder = tempfile::tempdir().unwrap();
    let error = CaCerts::read(folder.path()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("neither ca-cert.pem"), "{error}");
    for [cert, key, roots] in [["tls.crt", "tls.key", "ca.crt"], ["ca-cert.pem", "ca-key.pem", "root-cert.pem"]] {
        let write = |name: &str, content: &[u8]| std::fs::write(folder.path().join(name), content).unwrap();
        write(cert, &files.ca_cert.content);
        write(key, &files.ca_key.content);
        let error = CaCerts::read(folder.path()).map(|_| ()).unwrap_err();
        assert!(error.to_string().ends_with(roots), "{error}");
        write(roots, &files.root_cert.content);
        let read = CaCerts::read(folder.path()).unwrap();
        assert!(read.ca_cert.name.ends_with(cert));
        check_issues(&open(&read, 1).unwrap(), 1, 1);
    }
}
