//! A quick authority for tests: no store, no files, everything in memory. Panics instead of returning errors.
#![expect(clippy::missing_panics_doc, clippy::unwrap_used, reason = "for tests only: a panic is the right report")]

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use mesh_api::identity::{SpiffeId, TrustDomain};
use zeroize::Zeroizing;

use crate::authority::{Authority as _, Issued, LocalAuthority};
use crate::bundle::TrustBundle;
use crate::caller::Grant;
use crate::client::{CertificateRequest, Credential};
use crate::csr::ValidCsr;
use crate::issue::Lifetimes;
use crate::key::KeyKind;
use crate::selfsigned::{Options, SelfSigned};
use crate::store::{Store, StoreError, Visibility};

/// An authority of its own trust domain, made anew.
#[derive(Debug)]
pub struct TestCa {
    authority: Arc<LocalAuthority>,
    domain: TrustDomain,
    now: SystemTime,
}

impl TestCa {
    /// An authority of `cluster.local` whose root begins just before `now`.
    #[must_use]
    pub fn new(now: SystemTime) -> Self {
        Self::of(TrustDomain::default(), now)
    }

    /// An authority of another trust domain.
    #[must_use]
    pub fn of(domain: TrustDomain, now: SystemTime) -> Self {
        let mut options = Options::new(domain.clone());
        // Tests want certificates that live for seconds.
        options.lifetimes = Lifetimes { min: Duration::from_secs(1), ..Lifetimes::default() };
        let (ca, _) = SelfSigned::open(&MemoryStore::default(), options, now).unwrap();
        Self { authority: ca.authority(), domain, now }
    }

    /// The authority itself.
    #[must_use]
    pub fn authority(&self) -> &LocalAuthority {
        &self.authority
    }

    /// Its roots.
    #[must_use]
    pub fn bundle(&self) -> &TrustBundle {
        self.authority.bundle()
    }

    /// The identity of a workload of its trust domain.
    #[must_use]
    pub fn identity(&self, namespace: &str, service_account: &str) -> SpiffeId {
        SpiffeId::new(self.domain.clone(), namespace, service_account)
    }

    /// A certificate for a day.
    #[must_use]
    pub fn credential(&self, namespace: &str, service_account: &str) -> Credential {
        self.credential_for(&self.identity(namespace, service_account), &[], Duration::from_secs(86_400), self.now)
    }

    /// A certificate of any identity, with DNS names, issued at any time for any while.
    #[must_use]
    pub fn credential_for(&self, identity: &SpiffeId, dns: &[&str], ttl: Duration, at: SystemTime) -> Credential {
        let request = CertificateRequest::new(identity.clone(), KeyKind::EcdsaP256).unwrap();
        let issued = self.issue(request.csr(), identity, dns, ttl, at);
        request.finish(&issued.to_answer(), at).unwrap()
    }

    /// Issues for a request of the test's own.
    #[must_use]
    pub fn issue(&self, csr: &str, identity: &SpiffeId, dns: &[&str], ttl: Duration, at: SystemTime) -> Issued {
        let grant = Grant {
            identity: identity.clone(),
            dns_names: dns.iter().map(|name| (*name).to_owned()).collect(),
            max_ttl: None,
        };
        self.authority.issue(&ValidCsr::parse(csr).unwrap(), &grant, Some(ttl), at).unwrap()
    }
}

/// A store in memory, which can be told to fail.
#[derive(Debug, Default)]
pub struct MemoryStore {
    entries: Mutex<HashMap<String, Vec<u8>>>,
    full: Mutex<bool>,
}

impl MemoryStore {
    /// From now on every write fails as on a full disk, or works again.
    pub fn set_full(&self, full: bool) {
        *self.full.lock().unwrap() = full;
    }

    /// Puts an entry without asking.
    pub fn put(&self, name: &str, content: &[u8]) {
        self.entries.lock().unwrap().insert(name.to_owned(), content.to_owned());
    }

    /// An entry as text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        let entries = self.entries.lock().unwrap();
        entries.get(name).map(|content| String::from_utf8(content.clone()).unwrap())
    }
}

impl Store for MemoryStore {
    fn read(&self, name: &str, _: Visibility) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        Ok(self.entries.lock().unwrap().get(name).cloned().map(Zeroizing::new))
    }

    fn write(&self, name: &str, content: &[u8], _: Visibility) -> Result<(), StoreError> {
        if *self.full.lock().unwrap() {
            return Err(StoreError {
                action: "write",
                entry: name.to_owned(),
                hint: String::new(),
                source: io::Error::from(io::ErrorKind::StorageFull).into(),
            });
        }
        self.put(name, content);
        Ok(())
    }
}
