use proptest::prelude::*;

use super::*;
use crate::testing::MemoryStore;

const NOW: i64 = 1_800_000_000;

fn web() -> SpiffeId {
    SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap()
}

fn mint(keys: &TokenKeys, ttl: u64) -> String {
    keys.mint(&web(), Duration::from_secs(ttl), from_unix(NOW)).unwrap().to_string()
}

/// A token with claims of the test's own, rightly signed.
fn forge(keys: &TokenKeys, claims: &str) -> String {
    let key = &keys.keys[0];
    let signed = format!("{}.{}", key.header(), URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(&key.hmac(), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
}

#[test]
fn a_token_names_one_workload_until_it_expires() {
    let keys = TokenKeys::generate().unwrap();
    let token = mint(&keys, 3600);
    let claims = keys.verify(&token, from_unix(NOW)).unwrap();
    assert_eq!(claims.identity, web());
    assert_eq!(claims.expires, from_unix(NOW + 3600));
    assert_eq!(claims.id.len(), 32);
    assert!(keys.verify(&token, from_unix(NOW + 3599)).is_ok());
    assert_eq!(keys.verify(&token, from_unix(NOW + 3600)), Err(TokenError::Expired));
    assert!(keys.verify(&token, from_unix(NOW - 60)).is_ok(), "clocks differ a little");
    assert_eq!(keys.verify(&token, from_unix(NOW - 61)), Err(TokenError::NotYetValid));
    assert_ne!(mint(&keys, 3600), token, "each has an id of its own");
}

#[test]
fn lifetime_is_bounded() {
    let keys = TokenKeys::generate().unwrap();
    for (asked, lives) in [(0, 1), (10, 10), (u64::MAX, 86_400)] {
        let claims = keys.verify(&mint(&keys, asked), from_unix(NOW)).unwrap();
        assert_eq!(claims.expires, from_unix(NOW + lives), "{asked}");
    }
}

#[test]
fn other_keys_algorithms_and_audiences_are_refused() {
    let keys = TokenKeys::generate().unwrap();
    let token = mint(&keys, 60);
    let now = from_unix(NOW);
    let claims = token.split('.').nth(1).unwrap();
    let none = format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#));
    assert_eq!(keys.verify(&none, now), Err(TokenError::UnknownKey));
    assert_eq!(keys.verify(&mint(&TokenKeys::generate().unwrap(), 60), now), Err(TokenError::UnknownKey));
    for text in ["", "a", "a.b", "a.b.c.d"] {
        assert!(keys.verify(text, now).is_err(), "{text}");
    }
    assert_eq!(keys.verify(&"a".repeat(MAX_TOKEN_BYTES + 1), now), Err(TokenError::TooLarge));
    let with = |audience: &str, subject: &str| {
        forge(
            &keys,
            &format!(
                r#"{{"iss":"cluster.local","sub":"{subject}","aud":["{audience}"],"iat":{NOW},"exp":{},"jti":"1"}}"#,
                NOW + 60
            ),
        )
    };
    assert!(keys.verify(&with(AUDIENCE, &web().to_string()), now).is_ok());
    assert_eq!(keys.verify(&with("other", &web().to_string()), now), Err(TokenError::Audience));
    assert_eq!(keys.verify(&with(AUDIENCE, "system:serviceaccount:shop:web"), now), Err(TokenError::Malformed));
}

proptest! {
    #[test]
    fn any_change_of_a_character_is_noticed(at in any::<prop::sample::Index>(), with in "[A-Za-z0-9_.=-]") {
        let keys = TokenKeys::generate().unwrap();
        let token = mint(&keys, 60);
        let at = at.index(token.len());
        let mut changed = token.clone();
        changed.replace_range(at..=at, &with);
        prop_assume!(changed != token);
        prop_assert!(keys.verify(&changed, from_unix(NOW)).is_err());
    }

    #[test]
    fn any_text_is_refused_without_a_panic(text in ".{0,200}") {
        let keys = TokenKeys::generate().unwrap();
        prop_assert!(keys.verify(&text, from_unix(NOW)).is_err());
    }
}

#[test]
fn keys_survive_a_restart_and_replacement() {
    let store = MemoryStore::default();
    let mut keys = TokenKeys::load_or_create(&store).unwrap();
    let old = mint(&keys, 60);
    keys.rotate(&store).unwrap();
    let new = mint(&keys, 60);
    let loaded = TokenKeys::load_or_create(&store).unwrap();
    for token in [&old, &new] {
        assert_eq!(loaded.verify(token, from_unix(NOW)).unwrap().identity, web());
    }
    for _ in 0..MAX_KEYS {
        keys.rotate(&store).unwrap();
    }
    let loaded = TokenKeys::load(&store).unwrap().unwrap();
    assert_eq!(loaded.verify(&old, from_unix(NOW)), Err(TokenError::UnknownKey));
}

#[test]
fn a_full_disk_keeps_the_present_key() {
    let store = MemoryStore::default();
    let mut keys = TokenKeys::load_or_create(&store).unwrap();
    store.set_full(true);
    assert!(keys.rotate(&store).is_err());
    let token = mint(&keys, 60);
    assert!(TokenKeys::load(&store).unwrap().unwrap().verify(&token, from_unix(NOW)).is_ok());
}

#[test]
fn damaged_keys_are_named_by_line_and_debug_shows_no_secret() {
    let store = MemoryStore::default();
    let keys = TokenKeys::load_or_create(&store).unwrap();
    let good = store.text("token-keys").unwrap();
    let secret = good.trim().split(' ').nth(1).unwrap();
    assert!(!format!("{keys:?}").contains(secret));
    store.put("token-keys", format!("{good}nonsense\n").as_bytes());
    assert!(TokenKeys::load(&store).unwrap_err().to_string().starts_with("line 2 of token-keys"));
    store.put("token-keys", b"");
    assert!(TokenKeys::load(&store).is_err());
}
