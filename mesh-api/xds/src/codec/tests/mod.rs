//! Round trips and refusals.

mod envoy;
mod refusals;

use proptest::prelude::*;

use super::*;
use crate::testing::arb_resource;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_is_decoded_again(resource in arb_resource()) {
        let encoded = encode(&resource).unwrap();
        prop_assert_eq!(&encoded.name, resource.name());
        let decoded = decode(type_of(&resource), &encoded.bytes);
        prop_assert_eq!(decoded.as_ref(), Ok(&resource));
        // A second encoding may order maps differently; the version does not.
        prop_assert_eq!(encode(&resource).unwrap().version, encoded.version);
    }

    #[test]
    fn different_resources_have_different_versions(a in arb_resource(), b in arb_resource()) {
        prop_assert_eq!(Version::of(&a) == Version::of(&b), a == b);
    }

    #[test]
    fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), damage in any::<(usize, u8)>(), resource in arb_resource()) {
        let mut broken = encode(&resource).unwrap().bytes.to_vec();
        if let Some(byte) = broken.len().checked_sub(1).and_then(|last| broken.get_mut(damage.0 % (last + 1))) {
            *byte = damage.1;
        }
        for type_url in TypeUrl::ALL {
            drop(decode(type_url, &Bytes::from(bytes.clone())));
            drop(decode(type_url, &Bytes::from(broken.clone())));
        }
    }
}

#[test]
fn a_virtual_host_sent_apart_can_be_asked_for_by_its_domains() {
    let host = crate::ir::route::VirtualHost {
        name: "80/reviews.default.svc.cluster.local:80".into(),
        domains: ["reviews".into(), "*.reviews".into()].into(),
        routes: Arc::default(),
        require_tls: false,
        attempt_count: false,
    };
    let encoded = encode(&Resource::VirtualHost(host.clone())).unwrap();
    assert_eq!(&*encoded.aliases, ["80/reviews", "80/*.reviews"]);
    let inline = crate::ir::route::VirtualHost { name: "reviews:80".into(), ..host };
    assert_eq!(encode(&Resource::VirtualHost(inline)).unwrap().aliases.len(), 0);
}

#[test]
fn the_key_counts_in_a_secrets_version_and_is_never_printed() {
    use crate::ir::secret::{PrivateKey, Secret, SecretContent};
    let mk = |key: &[u8]| {
        let content = SecretContent::Certificate { chain: Arc::from(*b"chain"), key: PrivateKey(Arc::from(key)) };
        Resource::Secret(Secret { name: "default".into(), content })
    };
    let (a, b) = (encode(&mk(b"secret-a")).unwrap(), encode(&mk(b"secret-b")).unwrap());
    assert_ne!(a.version, b.version);
    assert!(!format!("{a:?}").contains("secret-a"));
}
