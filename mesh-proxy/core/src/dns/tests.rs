use std::net::IpAddr;
use std::sync::Arc;

use mesh_api_xds::ir::names::{NameEntry, NameKind, NameTable};
use proptest::prelude::*;

use super::message::{OWN_UDP_BYTES, Query, Rcode, RecordType, Unreadable, refusal};
use super::table::{Found, Place, Table};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn service(name: &str, namespace: &str, addresses: &[&str]) -> NameEntry {
    NameEntry {
        host: format!("{name}.{namespace}.svc.cluster.local").into(),
        addresses: addresses.iter().map(|text| ip(text)).collect(),
        kind: NameKind::Kubernetes { short_name: name.into(), namespace: namespace.into(), aliases: Arc::default() },
    }
}

fn host(host: &str, addresses: &[&str]) -> NameEntry {
    NameEntry { host: host.into(), addresses: addresses.iter().map(|text| ip(text)).collect(), kind: NameKind::Other }
}

fn table() -> Table {
    let names = NameTable::new(
        [
            service("web", "shop", &["10.96.0.1", "fd00::1"]),
            service("api", "back", &["10.96.0.2"]),
            service("db-0.db", "shop", &["10.1.0.1"]),
            NameEntry { host: "far.shop.svc.other.domain".into(), ..service("far", "shop", &["10.96.0.9"]) },
            host("API.example.com", &["240.240.0.1"]),
            host("*.example.com", &["240.240.0.2"]),
            host("*.deep.example.com", &["240.240.0.3"]),
            host("empty.example.org", &[]),
            // The full name of one host is a short form of a service.
            host("api.back", &["240.240.0.4"]),
        ]
        .into(),
    );
    let search = ["shop.svc.cluster.local".to_owned(), "svc.cluster.local".to_owned()];
    Table::new(&names, Place::new("shop", "shop.svc.cluster.local", &search))
}

#[track_caller]
fn check(name: &str, kind: RecordType, alias: Option<&str>, addresses: &[&str]) {
    let addresses: Vec<_> = addresses.iter().map(|text| ip(text)).collect();
    let expect = Found::Known { alias: alias.map(str::to_owned), addresses: &addresses };
    assert_eq!(table().find(name, kind), expect, "{name}");
}

#[test]
fn services_are_known_by_their_short_forms() {
    let (a, aaaa) = (RecordType::A, RecordType::AAAA);
    for name in ["web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local"] {
        check(name, a, None, &["10.96.0.1"]);
        check(name, aaaa, None, &["fd00::1"]);
    }
    check("db-0.db.shop", a, None, &["10.1.0.1"]);
    check("db-0.db", a, None, &["10.1.0.1"]);
    // Known, but not with an address of this family: not a name that does not exist.
    check("api.back.svc", aaaa, None, &[]);
    check("api.back.svc", a, None, &["10.96.0.2"]);
    check("api.back", a, None, &["240.240.0.4"]);
    check("far.shop.svc.other.domain", a, None, &["10.96.0.9"]);
    // Of another namespace, of another domain, of another kind, without an address, half a form.
    for name in ["api", "far.shop", "empty.example.org", "web.shop.svc.cluster", "shop.svc.cluster.local", ""] {
        assert_eq!(table().find(name, a), Found::Elsewhere, "{name}");
    }
    assert_eq!(table().find("web", RecordType(16)), Found::Elsewhere);
    assert_eq!(table().hosts(), 8);
}

#[test]
fn the_most_specific_host_answers() {
    let a = RecordType::A;
    check("api.example.com", a, None, &["240.240.0.1"]);
    check("other.example.com", a, None, &["240.240.0.2"]);
    check("x.y.example.com", a, None, &["240.240.0.2"]);
    check("x.deep.example.com", a, None, &["240.240.0.3"]);
    assert_eq!(table().find("example.com", a), Found::Elsewhere);
}

#[test]
fn the_first_search_domain_is_cut_off() {
    let a = RecordType::A;
    check("api.example.com.shop.svc.cluster.local", a, Some("api.example.com"), &["240.240.0.1"]);
    check("x.example.com.shop.svc.cluster.local", a, Some("x.example.com"), &["240.240.0.2"]);
    let full = "web.shop.svc.cluster.local";
    check("web.shop.svc.cluster.local.shop.svc.cluster.local", a, Some(full), &["10.96.0.1"]);
    check("api.example.com.shop.svc.cluster.local", RecordType::AAAA, None, &[]);
    assert_eq!(table().find("api.example.com.svc.cluster.local", a), Found::Elsewhere);
    assert_eq!(table().find("nobody.shop.svc.cluster.local", a), Found::Elsewhere);
}

/// A query for `name`, with extensions if `udp` names a size.
fn query(name: &str, kind: RecordType, udp: Option<u16>) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(udp.is_some())];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.0.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    if let Some(size) = udp {
        bytes.extend_from_slice(&[0, 0, 41]);
        bytes.extend_from_slice(&size.to_be_bytes());
        bytes.extend_from_slice(&[0; 6]);
    }
    bytes
}

#[test]
fn a_query_is_read() {
    let read = Query::parse(&query("Web.Shop", RecordType::A, None)).unwrap();
    assert_eq!(
        (read.id, read.name.as_deref(), read.kind, read.internet),
        (0x1234, Some("web.shop"), RecordType::A, true)
    );
    assert_eq!(read.udp_limit(), 512);
    let sized = |size| Query::parse(&query("web", RecordType::AAAA, Some(size))).unwrap().udp_limit();
    assert_eq!((sized(4096), sized(100)), (4096, 512));
    // A name that no table holds is still a query, for someone else.
    assert_eq!(Query::parse(&query("w\u{fc}b", RecordType::A, None)).unwrap().name, None);
    assert_eq!(Query::parse(&query("", RecordType(2), None)).unwrap().name.as_deref(), Some(""));
}

#[test]
fn what_is_no_question_is_refused() {
    let refused = |rcode| Err(Unreadable::Refused { id: 0x1234, rcode });
    let good = query("web", RecordType::A, None);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        Query::parse(&bytes)
    };
    assert_eq!(Query::parse(&good[..11]), Err(Unreadable::NoQuery));
    assert_eq!(with(2, 0x81), Err(Unreadable::NoQuery));
    assert_eq!(with(2, 0x28), refused(Rcode::NotImplemented));
    assert_eq!(with(5, 2), refused(Rcode::FormatError));
    // A reference in a question, a name without an end, a record that is announced and missing.
    assert_eq!(with(12, 0xc0), refused(Rcode::FormatError));
    assert_eq!(Query::parse(&good[..14]), refused(Rcode::FormatError));
    assert_eq!(with(11, 1), refused(Rcode::FormatError));
    let long = query(&vec!["abcdefgh"; 40].join("."), RecordType::A, None);
    assert_eq!(Query::parse(&long), refused(Rcode::FormatError));
    assert_eq!(refusal(0x1234, Rcode::FormatError), [0x12, 0x34, 0x80, 0x81, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn an_answer_has_the_alias_and_its_addresses() {
    let bytes = query("Web.x", RecordType::A, Some(1232));
    let read = Query::parse(&bytes).unwrap();
    let answer = read.answer(Some("web"), &[ip("10.0.0.1"), ip("10.0.0.2")], 30, 512);
    let question = &bytes[12..23];
    let expect = [
        // Answer, authoritative, recursion wanted and offered; one question, three answers, one further record.
        &[0x12, 0x34, 0x85, 0x80, 0, 1, 0, 3, 0, 0, 0, 1][..],
        question,
        &[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 30, 0, 5, 3, b'w', b'e', b'b', 0],
        &[0xc0, 35, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 0, 0, 1],
        &[0xc0, 35, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 0, 0, 2],
        &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0],
    ];
    assert_eq!(answer, expect.concat());
    assert_eq!(OWN_UDP_BYTES, 1232);
    assert!(read.is_answered_by(&answer));
    let mut other = read.clone();
    other.id = 1;
    assert!(!other.is_answered_by(&answer));
    assert!(!Query::parse(&query("web.y", RecordType::A, None)).unwrap().is_answered_by(&answer));
    assert!(!read.is_answered_by(&bytes));
    assert_eq!(read.failure(Rcode::ServerFailure)[2..4], [0x81, 0x82]);
}

#[test]
fn what_does_not_fit_is_cut_and_marked() {
    let read = Query::parse(&query("web", RecordType::AAAA, None)).unwrap();
    let many: Vec<IpAddr> = (0..100).map(|n| IpAddr::from([n, 0, 0, 0, 0, 0, 0, 1])).collect();
    let answer = read.answer(None, &many, 30, read.udp_limit());
    assert!(answer.len() <= 512 && answer.len() > 480, "{}", answer.len());
    assert_eq!(answer[2] & 2, 2);
    assert_eq!(usize::from(answer[7]), (answer.len() - 12 - 9) / 28);
    let whole = read.answer(None, &many, 30, 65_535);
    assert_eq!((whole[2] & 2, whole[7]), (0, 100));
    // One from elsewhere keeps its bits and loses its records.
    let cut = read.cut(whole.clone(), 512);
    assert_eq!((cut.len(), cut[2], cut[7]), (21, 0x87, 0));
    assert_eq!(read.cut(whole.clone(), 65_535), whole);
}

fn any_name() -> impl Strategy<Value = String> {
    prop::collection::vec("[a-zA-Z0-9_*-]{1,12}", 1..6).prop_map(|labels| labels.join("."))
}

proptest! {
    #[test]
    fn bytes_of_any_kind_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(query) = Query::parse(&bytes) {
            drop(query.failure(Rcode::ServerFailure));
            drop(query.cut(bytes.clone(), 12));
            prop_assert!(!query.is_answered_by(&bytes));
        }
    }

    #[test]
    fn a_broken_query_is_read_without_panic(name in any_name(), at in any::<usize>(), byte in any::<u8>(), udp in any::<Option<u16>>()) {
        let mut bytes = query(&name, RecordType::A, udp);
        let at = at % bytes.len();
        bytes[at] = byte;
        drop(Query::parse(&bytes));
        bytes.truncate(at);
        drop(Query::parse(&bytes));
    }

    #[test]
    fn answers_are_within_their_limit_and_are_answers(
        name in any_name(), alias in prop::option::of(any_name()), count in 0..200_u8, udp in any::<Option<u16>>(),
    ) {
        let read = Query::parse(&query(&name, RecordType::A, udp)).unwrap();
        let addresses: Vec<IpAddr> = (0..count).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        let answer = read.answer(alias.as_deref(), &addresses, 30, read.udp_limit());
        prop_assert!(answer.len() <= read.udp_limit());
        prop_assert!(read.is_answered_by(&answer));
        let records = usize::from(answer[7]) - usize::from(alias.is_some());
        prop_assert_eq!(records < usize::from(count), answer[2] & 2 != 0);
        prop_assert_eq!(read.name, Some(name.to_ascii_lowercase()));
    }

    #[test]
    fn any_name_is_looked_for_without_panic(name in "[a-z.*-]{0,40}") {
        drop(format!("{:?}", table().find(&name, RecordType::A)));
    }
}
