use std::sync::LazyLock;

use proptest::prelude::*;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::*;
use crate::testing::TestCa;

static NOW: LazyLock<SystemTime> = LazyLock::new(|| from_unix(1_800_000_000));
static CA: LazyLock<TestCa> = LazyLock::new(|| TestCa::new(*NOW));
static LEAF: LazyLock<Cert> = LazyLock::new(|| {
    let identity = CA.identity("shop", "web");
    CA.credential_for(&identity, &["istiod.istio-system.svc"], Duration::from_secs(3600), *NOW).leaf
});

#[test]
fn the_profile_of_a_workload_certificate() {
    let leaf = &*LEAF;
    assert_eq!(leaf.uris, ["spiffe://cluster.local/ns/shop/sa/web"]);
    assert_eq!(leaf.dns_names, ["istiod.istio-system.svc"]);
    assert!(!leaf.is_ca && !leaf.may_sign && leaf.subject.is_empty());
    assert_eq!(leaf.not_before, *NOW - Duration::from_secs(120));
    assert_eq!(leaf.not_after, *NOW + Duration::from_secs(3600));
    let root = &CA.bundle().roots()[0];
    assert!(leaf.is_signed_by(root) && !root.is_signed_by(leaf) && root.is_self_issued() && !leaf.is_self_issued());

    let (_, x509) = X509Certificate::from_der(leaf.der()).unwrap();
    let usage = x509.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.digital_signature() && !usage.value.key_cert_sign());
    let extended = x509.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.client_auth && extended.server_auth && !extended.any);
    assert!(x509.subject_alternative_name().unwrap().unwrap().critical, "for want of a subject");
    let key_id = x509.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
        _ => None,
    });
    assert_eq!(key_id, root.key_id);
    let serial = x509.raw_serial();
    assert!(serial.len() == 16 && serial[0] & 0x80 == 0, "positive, {serial:?}");
    assert_ne!(leaf.serial, CA.credential("shop", "web").leaf.serial);
}

#[test]
fn chains_verify_within_their_time_and_for_their_roots_only() {
    let other = TestCa::new(*NOW);
    let check = |roots: &TestCa, at| verify_chain(LEAF.der(), &[], roots.bundle().ders(), at).is_ok();
    assert!(check(&CA, *NOW));
    assert!(!check(&other, *NOW));
    assert!(!check(&CA, *NOW + Duration::from_secs(3601)));
    assert!(!check(&CA, *NOW - Duration::from_secs(121)));
    assert!(verify_chain(LEAF.der(), &[], [], *NOW).is_err());
    assert!(verify_chain(CA.bundle().roots()[0].der(), &[], CA.bundle().ders(), *NOW).is_err(), "a root is no leaf");
}

#[test]
fn hexadecimal_and_fingerprints() {
    assert_eq!(hex(&[0, 0x1f, 0xff]), "001fff");
    assert_eq!(LEAF.fingerprint().len(), 64);
    assert_eq!(LEAF.remaining(*NOW), Duration::from_secs(3600));
    assert_eq!(LEAF.remaining(*NOW + Duration::from_secs(9999)), Duration::ZERO);
}

#[test]
fn too_large_or_padded_certificates_are_refused() {
    assert_eq!(Cert::parse(vec![0; MAX_CERT_BYTES + 1].into()), Err(CertError::TooLarge));
    let mut padded = LEAF.der().to_vec();
    padded.push(0);
    assert_eq!(Cert::parse(padded.into()), Err(CertError::Malformed));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_changed_certificate_never_panics_and_never_verifies(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut der = LEAF.der().to_vec();
        let at = at.index(der.len());
        prop_assume!(der[at] != value);
        der[at] = value;
        if let Ok(cert) = Cert::parse(der.into()) {
            prop_assert!(!cert.is_signed_by(&CA.bundle().roots()[0]));
            prop_assert!(verify_chain(cert.der(), &[], CA.bundle().ders(), *NOW).is_err());
        }
    }
}
