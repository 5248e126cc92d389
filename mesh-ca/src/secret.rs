//! The self-signed authority in one Kubernetes Secret, `istio-ca-secret`, as Istio lays it out.
//!
//! Others who know Istio's layout (a live Istio that shares the root, tools) read `ca-cert.pem`, `ca-key.pem` and
//! `root-cert.pem`. What they know nothing of, how far the replacement of a root has come and the next root's key, is in an
//! entry of our own. When the two contradict each other, somebody else has written the Secret, and what Istio's layout says
//! is taken as it is. Reading and writing the Secret is the shell's; a write is made with the version that was read, so that
//! of several replicas one wins and the others read its result.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use zeroize::Zeroizing;

use crate::authority::{Authority as _, LocalAuthority};
use crate::plugged::{self, CaCerts, PluggedError};
use crate::selfsigned::{Change, Options, ROOTS_ENTRY, STATE_ENTRY, SelfSigned, SelfSignedError};
use crate::store::{Entries, Store, StoreError, Visibility};

/// The entry of a Secret that says how far the replacement of a root has come, with all keys.
pub const STATE_KEY: &str = "lateen-ca.pem";
/// Largest Secret in etcd, in bytes.
const MAX_SECRET_BYTES: usize = 1 << 20;

/// An authority that was found in a Secret, or made for it.
#[derive(Debug)]
pub struct Held {
    /// What issues.
    pub authority: Arc<LocalAuthority>,
    /// What happened to the roots.
    pub changes: Vec<Change>,
    /// The entries to write, when something happened. Before they are written nothing may be issued.
    pub write: Option<Written>,
    /// Whether we replace its roots. Otherwise somebody else made it, and does.
    pub ours: bool,
}

/// Entries to be written; `Debug` shows their names only.
#[derive(Clone)]
pub struct Written(pub Entries);

/// Why a Secret holds no authority.
#[derive(Debug, thiserror::Error)]
pub enum HeldError {
    /// Our own part of it is damaged, or no root could be made.
    #[error("the self-signed authority cannot be used")]
    SelfSigned(#[source] SelfSignedError),
    /// Istio's part of it is.
    #[error("the authority that somebody else made cannot be used")]
    Foreign(#[source] Box<PluggedError>),
}

/// Opens the authority of a Secret, and takes the steps of a replacement that are due if it is ours. `entries` is empty
/// when there is no Secret yet.
///
/// # Errors
/// When what is there cannot be used: nothing is made in its place.
pub fn open(place: &str, entries: &Entries, options: Options, now: SystemTime) -> Result<Held, HeldError> {
    if !entries.is_empty() && !is_ours(entries) {
        let files = CaCerts::from_entries(place, entries).map_err(|error| HeldError::Foreign(Box::new(error)))?;
        let authority = plugged::load(&files, &options.domain, options.lifetimes, now);
        let authority = Arc::new(authority.map_err(|error| HeldError::Foreign(Box::new(error)))?);
        return Ok(Held { authority, changes: Vec::new(), write: None, ours: false });
    }
    let store = SecretStore { entries: Mutex::new(entries.clone()) };
    let (mut ca, made) = SelfSigned::open(&store, options, now).map_err(HeldError::SelfSigned)?;
    let mut changes: Vec<Change> = made.into_iter().collect();
    changes.extend(ca.advance(&store, false, now).map_err(HeldError::SelfSigned)?);
    let write = (!changes.is_empty()).then(|| {
        let mut entries = store.into_entries();
        let (key, cert) = ca.issuing_pem();
        entries.insert("ca-key.pem".to_owned(), Zeroizing::new(key.as_bytes().to_vec()));
        entries.insert("ca-cert.pem".to_owned(), Zeroizing::new(cert.into_bytes()));
        // Istio has both, empty where nothing stands between authority and root.
        entries.entry("cert-chain.pem".to_owned()).or_default();
        entries.entry("key.pem".to_owned()).or_default();
        Written(entries)
    });
    Ok(Held { authority: ca.authority(), changes, write, ours: true })
}

/// Whether our entry is there and is what Istio's entries say too.
fn is_ours(entries: &Entries) -> bool {
    let Some(state) = entries.get(STATE_KEY) else { return false };
    let Some(cert) = entries.get("ca-cert.pem") else { return false };
    // The issuing certificate is the first of the state.
    let first = |text: &[u8]| crate::pem::certificates(text).ok().and_then(|certs| certs.into_iter().next());
    match (first(state), first(cert)) {
        (Some(state), Some(cert)) => state == cert,
        // Damaged, which its reader will say.
        _ => true,
    }
}

/// Whether the mesh stays in one piece when `after` takes the place of `before`: proxies that got their roots before accept
/// what is issued after, and the other way round. Otherwise some would refuse others until every one has come back for a
/// certificate. A root that was renewed with its key counts as the same; where `before` has expired, nothing is left to break.
#[must_use]
pub fn overlaps(before: &LocalAuthority, after: &LocalAuthority, now: SystemTime) -> bool {
    let expired = before.not_after().is_none_or(|end| end <= now);
    expired || (accepts(before, after) && accepts(after, before))
}

/// Whether the roots of `ours` verify what `theirs` issues.
fn accepts(ours: &LocalAuthority, theirs: &LocalAuthority) -> bool {
    let Some(root) = theirs.path().last() else { return false };
    let same =
        |own: &crate::cert::Cert| own.subject_der == root.subject_der && own.public_key_info == root.public_key_info;
    ours.bundle().roots().iter().any(same)
}

struct SecretStore {
    entries: Mutex<Entries>,
}

impl SecretStore {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn into_entries(self) -> Entries {
        self.entries.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for SecretStore {
    fn read(&self, name: &str, _: Visibility) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        Ok(self.entries().get(entry(name)).cloned())
    }

    fn write(&self, name: &str, content: &[u8], _: Visibility) -> Result<(), StoreError> {
        if content.len() > MAX_SECRET_BYTES {
            let (entry, source) = (name.to_owned(), "it is larger than a Secret can be".into());
            return Err(StoreError { action: "write", entry, hint: String::new(), source });
        }
        self.entries().insert(entry(name).to_owned(), Zeroizing::new(content.to_vec()));
        Ok(())
    }
}

fn entry(name: &str) -> &str {
    match name {
        STATE_ENTRY => STATE_KEY,
        ROOTS_ENTRY => "root-cert.pem",
        other => other,
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_api::identity::TrustDomain;

    use super::*;
    use crate::bundle::TrustBundle;
    use crate::issue::{self, Lifetimes, Validity};
    use crate::key::{KeyKind, PrivateKey};
    use crate::time::from_unix;

    const DAY: Duration = Duration::from_secs(86_400);

    fn options() -> Options {
        let lifetimes = Lifetimes { default: DAY, max: DAY * 10, ..Lifetimes::default() };
        Options { root_ttl: DAY * 1000, lifetimes, ..Options::new(TrustDomain::default()) }
    }

    fn day(number: u32) -> SystemTime {
        from_unix(1_800_000_000) + DAY * number
    }

    #[track_caller]
    fn open_at(entries: &Entries, day: SystemTime) -> Held {
        open("Secret istio-system/istio-ca-secret", entries, options(), day).unwrap()
    }

    /// What Istio writes: an RSA root, nothing of ours.
    fn istios() -> Entries {
        let key = PrivateKey::generate(KeyKind::Rsa2048).unwrap();
        let validity = Validity { not_before: day(0), not_after: day(1000) };
        let cert = issue::root(&key, &TrustDomain::default(), validity).unwrap().to_pem();
        [
            ("ca-cert.pem", cert.clone().into_bytes()),
            ("ca-key.pem", key.to_pem().as_bytes().to_vec()),
            ("cert-chain.pem", Vec::new()),
            ("key.pem", Vec::new()),
            ("root-cert.pem", cert.into_bytes()),
        ]
        .map(|(name, content)| (name.to_owned(), Zeroizing::new(content)))
        .into()
    }

    #[test]
    fn a_new_authority_is_written_as_istio_reads_it() {
        let held = open_at(&Entries::new(), day(0));
        assert!(held.ours && held.changes == [Change::Created]);
        let written = held.write.unwrap().0;
        let names: Vec<&str> = written.keys().map(String::as_str).collect();
        assert_eq!(names, ["ca-cert.pem", "ca-key.pem", "cert-chain.pem", "key.pem", STATE_KEY, "root-cert.pem"]);
        // As Istio would load it.
        let files = CaCerts::from_entries("x", &written).unwrap();
        let as_istio = plugged::load(&files, &TrustDomain::default(), Lifetimes::default(), day(1)).unwrap();
        assert_eq!(as_istio.bundle(), held.authority.bundle());
        // And as another replica does.
        let again = open_at(&written, day(1));
        assert_eq!((again.authority.bundle(), again.changes.len(), again.ours), (as_istio.bundle(), 0, true));
        assert!(again.write.is_none());
    }

    #[test]
    fn an_authority_of_istio_is_used_and_left_alone() {
        let entries = istios();
        let held = open_at(&entries, day(999));
        assert!(!held.ours && held.write.is_none() && held.changes.is_empty());
        assert_eq!(held.authority.bundle(), &TrustBundle::parse(&entries["root-cert.pem"]).unwrap());
    }

    #[test]
    fn a_root_is_replaced_with_overlap_step_by_step() {
        let mut entries = open_at(&Entries::new(), day(0)).write.unwrap().0;
        let first = open_at(&entries, day(1)).authority;
        let (mut before, mut seen) = (Arc::clone(&first), Vec::new());
        for number in (790..1100).step_by(3) {
            let held = open_at(&entries, day(number));
            seen.extend(held.changes);
            assert!(overlaps(&before, &held.authority, day(number)), "day {number}");
            before = held.authority;
            if let Some(write) = held.write {
                entries = write.0;
            }
        }
        assert_eq!(seen, [Change::Introduced, Change::Switched, Change::Retired]);
        let last = open_at(&entries, day(1100)).authority;
        assert!(!overlaps(&first, &last, day(1)) && overlaps(&first, &last, day(1100)));
        assert_eq!(TrustBundle::parse(&entries["root-cert.pem"]).unwrap(), *last.bundle());
    }

    #[test]
    fn what_somebody_else_wrote_over_ours_counts() {
        let mut entries = open_at(&Entries::new(), day(0)).write.unwrap().0;
        let state = entries[STATE_KEY].clone();
        entries = istios();
        entries.insert(STATE_KEY.to_owned(), state);
        let held = open_at(&entries, day(1));
        assert!(!held.ours);
        assert_eq!(held.authority.bundle(), &TrustBundle::parse(&entries["root-cert.pem"]).unwrap());
    }

    #[test]
    fn damage_is_an_error_and_no_new_root() {
        let mut entries = open_at(&Entries::new(), day(0)).write.unwrap().0;
        entries.insert(STATE_KEY.to_owned(), Zeroizing::new(b"version: 1\n".to_vec()));
        assert!(matches!(open("x", &entries, options(), day(1)), Err(HeldError::SelfSigned(_))));
        let mut entries = istios();
        entries.remove("ca-key.pem");
        let error = open("Secret a/b", &entries, options(), day(1)).unwrap_err();
        let HeldError::Foreign(cause) = error else { panic!("not foreign") };
        assert_eq!(cause.to_string(), "ca-key.pem of Secret a/b is missing");
        assert!(!format!("{:?}", Written(istios())).contains("BEGIN"));
    }
}
