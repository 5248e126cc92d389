use super::*;
use crate::authority::Authority as _;
use crate::caller::Grant;
use crate::cert::verify_chain;
use crate::client::CertificateRequest;
use crate::csr::ValidCsr;
use crate::testing::MemoryStore;
use mesh_api::identity::SpiffeId;

const DAY: u64 = 86_400;

fn days(number: u64) -> SystemTime {
    from_unix(1_800_000_000) + Duration::from_secs(number * DAY)
}

fn options() -> Options {
    Options::new(TrustDomain::default())
}

/// Opens and takes what is overdue, as a daemon does when it starts.
fn open(store: &MemoryStore, day: u64) -> (SelfSigned, Vec<Change>) {
    let (mut ca, created) = SelfSigned::open(store, options(), days(day)).unwrap();
    let mut changes: Vec<Change> = created.into_iter().collect();
    changes.extend(ca.advance(store, false, days(day)).unwrap());
    (ca, changes)
}

/// Issues a certificate and verifies it against these roots, as a peer that holds them would.
#[track_caller]
fn check_accepted(ca: &SelfSigned, roots: &TrustBundle, day: u64, expect: bool) {
    let identity = SpiffeId::parse("spiffe://cluster.local/ns/a/sa/b").unwrap();
    let request = CertificateRequest::new(identity.clone(), KeyKind::EcdsaP256).unwrap();
    let csr = ValidCsr::parse(request.csr()).unwrap();
    let issued = ca.authority().issue(&csr, &Grant::workload(identity), None, days(day)).unwrap();
    let verified = verify_chain(issued.leaf.der(), &[], roots.ders(), days(day));
    assert_eq!(verified.is_ok(), expect, "{verified:?}");
}

#[test]
fn the_root_is_made_once_and_found_again() {
    let store = MemoryStore::default();
    let (first, changes) = open(&store, 0);
    assert_eq!(changes, [Change::Created]);
    let (second, changes) = open(&store, 1);
    assert_eq!(changes, []);
    assert_eq!(first.authority().bundle(), second.authority().bundle());
    assert_eq!(store.text(ROOTS_ENTRY).unwrap(), first.authority().bundle().to_pem());
    assert!(!store.text(ROOTS_ENTRY).unwrap().contains("KEY"));
    let root = &first.authority().bundle().roots()[0].clone();
    assert!(root.is_ca && root.may_sign && root.is_signed_by(root));
    assert_eq!(root.not_after, days(3650));
    assert!(root.subject.contains("cluster.local"), "{}", root.subject);
    check_accepted(&second, first.authority().bundle(), 1, true);
}

#[test]
fn rsa_roots_work_too() {
    let store = MemoryStore::default();
    let options = Options { key: KeyKind::Rsa2048, ..options() };
    let (ca, _) = SelfSigned::open(&store, options.clone(), days(0)).unwrap();
    check_accepted(&ca, ca.authority().bundle(), 0, true);
    let (again, _) = SelfSigned::open(&store, options, days(0)).unwrap();
    check_accepted(&again, ca.authority().bundle(), 0, true);
}

#[test]
fn a_root_is_replaced_with_overlap_also_across_restarts() {
    let store = MemoryStore::default();
    let (ca, _) = open(&store, 0);
    let old = ca.authority().bundle().clone();
    assert_eq!(ca.wake_at(false, days(1)), days(2920) - Duration::from_secs(24), "80 % of ten years and two minutes");

    let (mut ca, changes) = open(&store, 2920);
    assert_eq!(changes, [Change::Introduced]);
    let both = ca.authority().bundle().clone();
    assert_eq!(both.roots().len(), 2);
    check_accepted(&ca, &old, 2920, true);
    assert_eq!(ca.advance(&store, true, days(2920)).unwrap(), []);

    let (mut ca, changes) = open(&store, 2921);
    assert_eq!(changes, [], "not before the proxies have confirmed");
    assert_eq!(ca.advance(&store, true, days(2921)).unwrap(), [Change::Switched]);
    check_accepted(&ca, &old, 2921, false);
    check_accepted(&ca, &both, 2921, true);
    assert_eq!(ca.authority().bundle().roots().len(), 2, "certificates of the old root still live");

    let (mut ca, changes) = open(&store, 2922);
    assert_eq!((changes, ca.phase()), (vec![], Phase::Switched { since: days(2921) }));
    assert_eq!(ca.advance(&store, true, days(3012)).unwrap(), [Change::Retired]);
    assert_eq!(ca.authority().bundle().roots().len(), 1);
    check_accepted(&ca, &both, 3012, true);
    assert_eq!(open(&store, 3013).0.phase(), Phase::Stable);
}

#[test]
fn a_long_sleep_ends_with_a_root_that_works() {
    let store = MemoryStore::default();
    open(&store, 0);
    let (ca, changes) = open(&store, 9000);
    assert_eq!(changes, [Change::Introduced, Change::Switched, Change::Retired]);
    check_accepted(&ca, ca.authority().bundle(), 9000, true);
}

#[test]
fn an_operator_can_replace_the_root_but_not_twice_at_once() {
    let store = MemoryStore::default();
    let (mut ca, _) = open(&store, 0);
    assert_eq!(ca.replace_root(&store, days(1)).unwrap(), Some(Change::Introduced));
    assert_eq!(ca.replace_root(&store, days(1)).unwrap(), None);
    assert_eq!(ca.advance(&store, true, days(2)).unwrap(), [Change::Switched]);
    assert_eq!(ca.wake_at(true, days(2)), days(92) + Duration::from_secs(120));
}

#[test]
fn a_full_disk_changes_nothing() {
    let store = MemoryStore::default();
    store.set_full(true);
    assert!(matches!(SelfSigned::open(&store, options(), days(0)), Err(SelfSignedError::Store(_))));
    store.set_full(false);
    let (mut ca, _) = open(&store, 0);
    let before = ca.authority().bundle().clone();
    store.set_full(true);
    assert!(ca.replace_root(&store, days(1)).is_err());
    assert_eq!(ca.phase(), Phase::Stable);
    assert_eq!(ca.authority().bundle(), &before);
    check_accepted(&ca, &before, 1, true);
    // An overdue replacement that cannot be stored is no reason not to start.
    let (mut ca, _) = SelfSigned::open(&store, options(), days(3000)).unwrap();
    assert!(ca.advance(&store, false, days(3000)).is_err());
    check_accepted(&ca, &before, 3000, true);
}

#[test]
fn the_copy_of_the_roots_is_made_good() {
    let store = MemoryStore::default();
    let (ca, _) = open(&store, 0);
    for stale in ["", "something else"] {
        store.put(ROOTS_ENTRY, stale.as_bytes());
        open(&store, 1);
        assert_eq!(store.text(ROOTS_ENTRY).unwrap(), ca.authority().bundle().to_pem());
    }
}

#[test]
fn damage_is_named_and_never_overwritten() {
    let store = MemoryStore::default();
    let (mut ca, _) = open(&store, 0);
    ca.replace_root(&store, days(1)).unwrap();
    let good = store.text(STATE_ENTRY).unwrap();
    let sections: Vec<&str> = good.split_inclusive("-----\n").collect();
    assert_eq!(sections.len(), 8, "two keys and two certificates, each with a begin and an end line");
    let swapped = good.replacen(sections[5], sections[1], 1);
    for (text, what) in [
        (String::new(), "version"),
        (good.replace("version: 1", "version: 2"), "version"),
        (good.replace("introduced", "paused"), "`phase`"),
        (good.replace("introduced", "stable"), "contradict"),
        (good.replace("since: ", "since: x"), "`since`"),
        (good.replace("next: true", "next: perhaps"), "`next`"),
        (good.replace(sections[1], "MIIB\n-----END PRIVATE KEY-----\n"), "key"),
        (swapped, "key"),
        (good[..good.len() - 40].to_owned(), "certificates"),
    ] {
        store.put(STATE_ENTRY, text.as_bytes());
        let error = SelfSigned::open(&store, options(), days(1)).unwrap_err();
        assert!(matches!(error, SelfSignedError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(what), "{error} should name {what}");
        assert_eq!(store.text(STATE_ENTRY).unwrap(), text);
    }
    store.put(STATE_ENTRY, &[0xff, 0xfe]);
    assert!(SelfSigned::open(&store, options(), days(1)).is_err());
}

#[test]
fn debug_shows_no_key() {
    let store = MemoryStore::default();
    let (ca, _) = open(&store, 0);
    let key = store.text(STATE_ENTRY).unwrap();
    let key = key.lines().skip_while(|line| !line.starts_with("-----BEGIN")).nth(1).unwrap();
    assert!(!format!("{ca:?}").contains(key));
    assert!(!format!("{:?}", ca.authority()).contains(key));
}
