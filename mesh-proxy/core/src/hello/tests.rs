use proptest::prelude::*;

use super::*;

fn prefixed<const N: usize>(content: &[u8]) -> Vec<u8> {
    let len = content.len().to_be_bytes();
    [&len[len.len() - N..], content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [kind.to_be_bytes().to_vec(), prefixed::<2>(content)].concat()
}

fn sni(name: &str) -> Vec<u8> {
    extension(SERVER_NAME, &prefixed::<2>(&[vec![0], prefixed::<2>(name.as_bytes())].concat()))
}

fn alpn(names: &[&str]) -> Vec<u8> {
    let list: Vec<u8> = names.iter().flat_map(|name| prefixed::<1>(name.as_bytes())).collect();
    extension(ALPN, &prefixed::<2>(&list))
}

/// A ClientHello message with these extensions; `None` for no extension block.
fn message(extensions: Option<&[u8]>) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend(prefixed::<1>(&[9; 32]));
    body.extend(prefixed::<2>(&[0x13, 0x01]));
    body.extend(prefixed::<1>(&[0]));
    if let Some(extensions) = extensions {
        body.extend(prefixed::<2>(extensions));
    }
    [vec![CLIENT_HELLO], prefixed::<3>(&body)].concat()
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|piece| [vec![HANDSHAKE, 3, 1], prefixed::<2>(piece)].concat()).collect()
}

#[track_caller]
fn check(extensions: &[u8], expect: Result<(Option<&str>, &[&str]), HelloError>) {
    let whole = ClientHello::read(&records(&message(Some(extensions)), 16384));
    let got = whole.as_ref().map(|hello| {
        let hello = hello.as_ref().expect("complete");
        (hello.server_name.as_deref(), hello.alpn().map(|name| std::str::from_utf8(name).unwrap()).collect::<Vec<_>>())
    });
    match (got, expect) {
        (Ok((name, protocols)), Ok(expect)) => assert_eq!((name, protocols.as_slice()), expect),
        (Err(error), Err(expect)) => assert_eq!(*error, expect),
        (got, expect) => panic!("{got:?}, not {expect:?}"),
    }
}

#[test]
fn names_and_protocols_are_found() {
    check(&[], Ok((None, &[])));
    check(&sni("Shop.Example"), Ok((Some("shop.example"), &[])));
    check(&sni("shop.example."), Ok((Some("shop.example"), &[])));
    check(&alpn(&["istio-peer-exchange", "istio"]), Ok((None, &["istio-peer-exchange", "istio"])));
    let name = "outbound_.9080_.v1_.reviews.default.svc.cluster.local";
    check(
        &[extension(23, &[]), sni(name), extension(43, &[2, 3, 4]), alpn(&["h2"])].concat(),
        Ok((Some(name), &["h2"])),
    );
    let old = ClientHello::read(&records(&message(None), 16384)).unwrap().unwrap();
    assert_eq!(old, ClientHello::default());
}

#[test]
fn names_that_are_no_hosts_are_absent() {
    for name in ["", ".", "a b", "a\0b", "é", "a/b"] {
        check(&sni(name), Ok((None, &[])));
    }
    check(&sni(&"a".repeat(254)), Ok((None, &[])));
}

#[test]
fn malformed_extensions_are_refused() {
    let bad = Err(HelloError::Malformed);
    check(&[sni("a"), sni("b")].concat(), bad);
    check(&[alpn(&["a"]), alpn(&["a"])].concat(), bad);
    check(&alpn(&[]), bad);
    check(&alpn(&["a", ""]), bad);
    check(&extension(SERVER_NAME, &[]), bad);
    check(&extension(SERVER_NAME, &[0, 0]), bad);
    check(&extension(SERVER_NAME, &[0, 9, 0, 0, 1, b'a']), bad);
    check(&extension(ALPN, &[0, 3, 2, b'h', b'2', 0]), bad);
    check(&[0], bad);
    check(&[0, 0, 0, 5, 1], bad);
    let two_names = [vec![0], prefixed::<2>(b"a"), vec![0], prefixed::<2>(b"b")].concat();
    check(&extension(SERVER_NAME, &prefixed::<2>(&two_names)), bad);
}

#[test]
fn other_bytes_are_no_hello() {
    let check = |bytes: &[u8], error| assert_eq!(ClientHello::read(bytes), Err(error), "{bytes:?}");
    check(b"G", HelloError::NotHello);
    check(&[HANDSHAKE, 2], HelloError::NotHello);
    check(&[HANDSHAKE, 3, 3, 0, 0], HelloError::Malformed);
    check(&[HANDSHAKE, 3, 3, 0x40, 1], HelloError::Malformed);
    check(&[HANDSHAKE, 3, 3, 0, 1, 2], HelloError::NotHello);
    check(&[HANDSHAKE, 3, 3, 0, 4, 1, 0, 0x40, 1], HelloError::TooLarge);
    // An alert in the middle of a hello.
    let mut bytes = records(&message(Some(&sni("a"))), 20);
    bytes[25] = 21;
    check(&bytes, HelloError::NotHello);
}

#[test]
fn a_hello_in_crumbs_is_refused() {
    let message = message(Some(&extension(51, &[0; 300])));
    assert_eq!(ClientHello::read(&records(&message, 1)[..256 * 6 - 1]), Ok(None));
    assert_eq!(ClientHello::read(&records(&message, 1)), Err(HelloError::TooLarge));
    assert!(ClientHello::read(&records(&message, 2)).unwrap().is_some());
}

#[test]
fn every_prefix_asks_for_more_and_any_record_size_works() {
    let message = message(Some(&[sni("shop.example"), alpn(&["h2", "http/1.1"])].concat()));
    for size in [1, 2, 3, 5, 50, 16384] {
        let bytes = records(&message, size);
        for end in 0..bytes.len() {
            assert_eq!(ClientHello::read(&bytes[..end]), Ok(None), "{size} {end}");
        }
        let hello = ClientHello::read(&bytes).unwrap().unwrap();
        assert_eq!((hello.server_name.as_deref(), hello.alpn().count()), (Some("shop.example"), 2));
        assert_eq!(ClientHello::read(&[bytes, vec![1, 2, 3]].concat()).unwrap(), Some(hello));
    }
}

proptest! {
    #[test]
    fn damage_never_panics(
        cut in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        size in 1usize..200,
    ) {
        let mut bytes = records(&message(Some(&[sni("shop.example"), alpn(&["h2"]), extension(51, &[1; 40])].concat())), size);
        for (place, byte) in edits {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        if let Ok(Some(hello)) = ClientHello::read(&bytes) {
            prop_assert!(hello.alpn().all(|name| !name.is_empty()));
        }
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = ClientHello::read(&noise);
        let _ = ClientHello::read(&records(&[&[CLIENT_HELLO, 0, 0, 200][..], &noise].concat(), 100));
    }
}
