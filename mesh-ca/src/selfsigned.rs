//! An authority that makes its own root, keeps it in a [`Store`], and replaces it before it expires.
//!
//! All of its state is **one** entry, `ca.pem`: a few header lines and then keys and certificates in PEM. One entry is
//! replaced as a whole, so no crash can leave a key beside the certificate of another.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_api::identity::TrustDomain;
use zeroize::Zeroizing;

use crate::authority::LocalAuthority;
use crate::bundle::TrustBundle;
use crate::cert::Cert;
use crate::issue::{self, IssueError, Lifetimes, Validity};
use crate::key::{KeyError, KeyKind, PrivateKey};
use crate::pem;
use crate::rotation::{Phase, RollPolicy, Step, next_step};
use crate::store::{Store, StoreError, Visibility};
use crate::time::{from_unix, to_unix};

/// The entry with everything; secret.
pub const STATE_ENTRY: &str = "ca.pem";
/// The entry with the roots, written for people and tools; nothing is believed of it.
pub const ROOTS_ENTRY: &str = "root-cert.pem";
/// Lifetime of a root. Istio's `CITADEL_SELF_SIGNED_CA_CERT_TTL`: 10 years.
pub const DEFAULT_ROOT_TTL: Duration = Duration::from_secs(3650 * 86_400);
/// Version of the entry's form.
const VERSION: &str = "1";
/// More certificates than a replacement can leave behind.
const MAX_OLD: usize = 8;

/// How the authority is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Goes into the root's name.
    pub domain: TrustDomain,
    /// Kind of new root keys.
    pub key: KeyKind,
    /// Lifetime of new roots.
    pub root_ttl: Duration,
    /// Lifetimes of issued certificates.
    pub lifetimes: Lifetimes,
    /// Share of a root's lifetime that is left when its replacement begins. Istio: 0.2.
    pub roll_at: f64,
}

impl Options {
    /// Istio's lifetimes, with an ECDSA P-256 key.
    #[must_use]
    pub fn new(domain: TrustDomain) -> Self {
        Self {
            domain,
            key: KeyKind::default(),
            root_ttl: DEFAULT_ROOT_TTL,
            lifetimes: Lifetimes::default(),
            roll_at: 0.2,
        }
    }

    fn policy(&self) -> RollPolicy {
        RollPolicy {
            begin_at: self.roll_at,
            distribute_for: self.lifetimes.default,
            retire_after: self.lifetimes.max + self.lifetimes.backdate,
        }
    }
}

/// What happened to the roots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The first root was made.
    Created,
    /// A new root is to be trusted.
    Introduced,
    /// The new root issues.
    Switched,
    /// The old root is trusted no longer.
    Retired,
}

/// Why there is no authority, or why its roots stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum SelfSignedError {
    /// The store failed.
    #[error("the authority's state cannot be kept")]
    Store(#[source] StoreError),
    /// The entry is not as we wrote it.
    #[error(
        "{STATE_ENTRY} in the state folder is damaged: {what}; restore it from a backup, or remove it to start with a new root"
    )]
    Damaged {
        /// What is wrong with it.
        what: &'static str,
    },
    /// A key could not be made.
    #[error("a root key could not be made")]
    Key(#[source] KeyError),
    /// A root could not be made.
    #[error("a root certificate could not be made")]
    Issue(#[source] IssueError),
}

#[derive(Clone, Debug)]
struct Root {
    key: Arc<PrivateKey>,
    cert: Cert,
}

#[derive(Clone, Debug)]
struct State {
    phase: Phase,
    issuing: Root,
    /// Trusted, and next to issue.
    next: Option<Root>,
    /// Trusted, and no longer issuing.
    old: Vec<Cert>,
}

/// The authority with its roots.
#[derive(Debug)]
pub struct SelfSigned {
    options: Options,
    state: State,
    authority: Arc<LocalAuthority>,
}

impl SelfSigned {
    /// Loads the authority from its store, or makes a new one and stores it. Takes no step of a replacement: call
    /// [`advance`](Self::advance) next, whose failure (a full disk) is no reason to be without an authority.
    ///
    /// # Errors
    /// When the store fails, its content is damaged, or the crypto library fails.
    pub fn open(
        store: &dyn Store,
        options: Options,
        now: SystemTime,
    ) -> Result<(Self, Option<Change>), SelfSignedError> {
        let read = store.read(STATE_ENTRY, Visibility::Secret).map_err(SelfSignedError::Store)?;
        let (state, change) = match read {
            Some(content) => (State::parse(&content)?, None),
            None => {
                let issuing = Root::make(&options, now)?;
                let state = State { phase: Phase::Stable, issuing, next: None, old: Vec::new() };
                state.save(store)?;
                (state, Some(Change::Created))
            }
        };
        let authority = state.authority(&options)?;
        Ok((Self { options, state, authority }, change))
    }

    /// What issues at present; stays usable after later changes.
    #[must_use]
    pub fn authority(&self) -> Arc<LocalAuthority> {
        Arc::clone(&self.authority)
    }

    /// Key and certificate of the root that issues, for those who know nothing of replacements.
    #[must_use]
    pub fn issuing_pem(&self) -> (Zeroizing<String>, String) {
        (self.state.issuing.key.to_pem(), self.state.issuing.cert.to_pem())
    }

    /// How far a replacement of the root has come.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.state.phase
    }

    /// Takes all steps that are due. `distributed` says that every connected proxy has confirmed the present roots.
    /// After a change, ask again for [`authority`](Self::authority) and distribute its bundle.
    ///
    /// # Errors
    /// When a step cannot be stored or made; everything is then as before that step, and still works.
    pub fn advance(
        &mut self,
        store: &dyn Store,
        distributed: bool,
        now: SystemTime,
    ) -> Result<Vec<Change>, SelfSignedError> {
        let mut changes = Vec::new();
        // A crash, or a disk that was full, may have left the copy for people behind.
        self.state.save_roots(store)?;
        loop {
            // A word about the roots before a step says nothing about those after it.
            let distributed = distributed && changes.is_empty();
            let change = match self.next_step(distributed, now) {
                Step::Wait(_) => return Ok(changes),
                Step::Introduce => Change::Introduced,
                Step::Switch => Change::Switched,
                Step::Retire => Change::Retired,
            };
            self.take(store, change, now)?;
            changes.push(change);
        }
    }

    /// When [`advance`](Self::advance) should be called next, at the latest.
    #[must_use]
    pub fn wake_at(&self, distributed: bool, now: SystemTime) -> SystemTime {
        match self.next_step(distributed, now) {
            Step::Wait(at) => at,
            _ => now,
        }
    }

    /// Begins to replace the root now, because an operator wants it. Nothing happens while a replacement is under way.
    ///
    /// # Errors
    /// See [`advance`](Self::advance).
    pub fn replace_root(&mut self, store: &dyn Store, now: SystemTime) -> Result<Option<Change>, SelfSignedError> {
        if self.state.phase != Phase::Stable {
            return Ok(None);
        }
        self.take(store, Change::Introduced, now)?;
        Ok(Some(Change::Introduced))
    }

    fn next_step(&self, distributed: bool, now: SystemTime) -> Step {
        // After the switch the old root's end matters, and the newest of the old ones ends last.
        let old = self.state.old.iter().max_by_key(|cert| cert.not_after);
        let root = match (self.state.phase, old) {
            (Phase::Switched { .. }, Some(old)) => old,
            _ => &self.state.issuing.cert,
        };
        let validity = Validity { not_before: root.not_before, not_after: root.not_after };
        next_step(self.state.phase, validity, distributed, self.options.policy(), now)
    }

    fn take(&mut self, store: &dyn Store, change: Change, now: SystemTime) -> Result<(), SelfSignedError> {
        let mut state = self.state.clone();
        match change {
            Change::Created => return Ok(()),
            Change::Introduced => {
                state.next = Some(Root::make(&self.options, now)?);
                state.phase = Phase::Introduced { since: now };
            }
            Change::Switched => {
                let next = state.next.take().ok_or(SelfSignedError::Damaged { what: "the next root is missing" })?;
                state.old.insert(0, std::mem::replace(&mut state.issuing, next).cert);
                state.old.truncate(MAX_OLD);
                state.phase = Phase::Switched { since: now };
            }
            Change::Retired => {
                state.old.clear();
                state.phase = Phase::Stable;
            }
        }
        let authority = state.authority(&self.options)?;
        // Stored first: what has been shown to proxies must not be forgotten in a crash.
        state.save(store)?;
        self.state = state;
        self.authority = authority;
        Ok(())
    }
}

impl Root {
    fn make(options: &Options, now: SystemTime) -> Result<Self, SelfSignedError> {
        let key = PrivateKey::generate(options.key).map_err(SelfSignedError::Key)?;
        let not_before = now.checked_sub(options.lifetimes.backdate).unwrap_or(now);
        let not_after = now.checked_add(options.root_ttl).ok_or(SelfSignedError::Issue(IssueError::Library))?;
        let cert = issue::root(&key, &options.domain, Validity { not_before, not_after });
        Ok(Self { key: Arc::new(key), cert: cert.map_err(SelfSignedError::Issue)? })
    }
}

impl State {
    fn bundle(&self) -> TrustBundle {
        let next = self.next.iter().map(|root| &root.cert);
        TrustBundle::new(std::iter::once(&self.issuing.cert).chain(next).chain(&self.old).cloned())
    }

    fn authority(&self, options: &Options) -> Result<Arc<LocalAuthority>, SelfSignedError> {
        let path = vec![self.issuing.cert.clone()];
        let authority = LocalAuthority::new(Arc::clone(&self.issuing.key), path, self.bundle(), options.lifetimes);
        let what = "the key does not belong to the root";
        authority.map(Arc::new).ok_or(SelfSignedError::Damaged { what })
    }

    fn save(&self, store: &dyn Store) -> Result<(), SelfSignedError> {
        let text = self.to_text();
        store.write(STATE_ENTRY, text.as_bytes(), Visibility::Secret).map_err(SelfSignedError::Store)?;
        self.save_roots(store)
    }

    /// Writes the roots unless they are there already.
    fn save_roots(&self, store: &dyn Store) -> Result<(), SelfSignedError> {
        let roots = self.bundle().to_pem();
        let stored = store.read(ROOTS_ENTRY, Visibility::Public).map_err(SelfSignedError::Store)?;
        if stored.is_some_and(|stored| *stored == roots.as_bytes()) {
            return Ok(());
        }
        store.write(ROOTS_ENTRY, roots.as_bytes(), Visibility::Public).map_err(SelfSignedError::Store)
    }

    /// Header lines, then key and certificate of the issuing root, those of the next one, and old certificates. A line
    /// `next` says that the second pair is there.
    fn to_text(&self) -> Zeroizing<String> {
        let (phase, since) = match self.phase {
            Phase::Stable => ("stable", 0),
            Phase::Introduced { since } => ("introduced", to_unix(since)),
            Phase::Switched { since } => ("switched", to_unix(since)),
        };
        let roots: Vec<&Root> = std::iter::once(&self.issuing).chain(&self.next).collect();
        let mut sections: Vec<Zeroizing<String>> = Vec::new();
        for root in roots {
            sections.push(root.key.to_pem());
            sections.push(Zeroizing::new(root.cert.to_pem()));
        }
        sections.extend(self.old.iter().map(|cert| Zeroizing::new(cert.to_pem())));
        // Room for all of it at once: a buffer that grows would leave copies of the keys behind.
        let length: usize = sections.iter().map(|section| section.len()).sum();
        let mut text = Zeroizing::new(String::with_capacity(length + 256));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# The mesh's root key. Whoever has it can be any workload.");
        let _ = writeln!(text, "version: {VERSION}\nphase: {phase}\nsince: {since}\nnext: {}", self.next.is_some());
        sections.iter().for_each(|section| text.push_str(section));
        text
    }

    fn parse(content: &[u8]) -> Result<Self, SelfSignedError> {
        let damaged = |what| SelfSignedError::Damaged { what };
        let text = std::str::from_utf8(content).map_err(|_| damaged("it is no text"))?;
        if header(text, "version") != Some(VERSION) {
            return Err(damaged("it is of another version"));
        }
        let since = header(text, "since")
            .and_then(|value| value.parse().ok())
            .map(from_unix)
            .ok_or_else(|| damaged("the line `since` is wrong"))?;
        let phase = match header(text, "phase") {
            Some("stable") => Phase::Stable,
            Some("introduced") => Phase::Introduced { since },
            Some("switched") => Phase::Switched { since },
            _ => return Err(damaged("the line `phase` is wrong")),
        };
        let has_next: bool = header(text, "next")
            .and_then(|value| value.parse().ok())
            .ok_or_else(|| damaged("the line `next` is wrong"))?;
        let ders = pem::certificates(content).map_err(|_| damaged("its certificates cannot be read"))?;
        let certs: Result<Vec<Cert>, _> = ders.into_iter().map(Cert::parse).collect();
        let mut certs = certs.map_err(|_| damaged("a certificate cannot be read"))?.into_iter();
        let mut keys = text.split_inclusive("-----END PRIVATE KEY-----").map(str::as_bytes);
        let mut root = || {
            let key = keys.next().and_then(|section| PrivateKey::from_pem(section).ok());
            let (key, cert) =
                key.zip(certs.next()).ok_or_else(|| damaged("a key or its certificate cannot be read"))?;
            let belongs = key.public_key_info() == cert.public_key_info;
            belongs
                .then(|| Root { key: Arc::new(key), cert })
                .ok_or_else(|| damaged("a key belongs to another certificate"))
        };
        let issuing = root()?;
        let next = if has_next { Some(root()?) } else { None };
        if next.is_some() != matches!(phase, Phase::Introduced { .. }) {
            return Err(damaged("phase and keys contradict each other"));
        }
        Ok(Self { phase, issuing, next, old: certs.take(MAX_OLD).collect() })
    }
}

/// A value of the lines before the first PEM section.
fn header<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let lines = text.lines().take_while(|line| !line.starts_with("-----"));
    lines.filter_map(|line| line.split_once(": ")).find(|(key, _)| *key == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests;
