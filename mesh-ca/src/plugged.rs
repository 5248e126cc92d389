//! An authority whose key and certificates an operator brings: Istio's `cacerts`.
//!
//! Everything is checked before the first request: that key and certificate belong together, that it is an authority and
//! valid, that its chain reaches a root, and last, with a certificate issued for the purpose, that a peer would accept
//! what it issues. Each error names the file and what to do about it.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use mesh_api::identity::{SpiffeId, TrustDomain};
use rcgen::CertificateParams;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::authority::{Authority as _, LocalAuthority};
use crate::bundle::{BundleError, TrustBundle};
use crate::caller::Grant;
use crate::cert::{Cert, CertError, ChainError, verify_chain};
use crate::csr::{CsrError, ValidCsr};
use crate::issue::{IssueError, Lifetimes};
use crate::key::{KeyError, KeyKind, PrivateKey};
use crate::pem::{self, PemError};
use crate::store::Entries;
use crate::time::display;

/// Most certificates between the authority and the root.
const MAX_PATH: usize = 8;

/// A file as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input<C> {
    /// Its name, for messages.
    pub name: String,
    /// What is in it.
    pub content: C,
}

/// The files of `cacerts`. The key is wiped when dropped, and `Debug` shows names only.
#[derive(Clone)]
pub struct CaCerts {
    /// `ca-cert.pem` (or `tls.crt`): the authority's certificate first; more count as chain.
    pub ca_cert: Input<Vec<u8>>,
    /// `ca-key.pem` (or `tls.key`).
    pub ca_key: Input<Zeroizing<Vec<u8>>>,
    /// `cert-chain.pem`: what leads from the authority to the root, in any order. May be absent where nothing stands
    /// between, or where `ca-cert.pem` has it.
    pub cert_chain: Option<Input<Vec<u8>>>,
    /// `root-cert.pem` (or `ca.crt`): the roots.
    pub root_cert: Input<Vec<u8>>,
}

/// Why the files make no authority.
#[derive(Debug, thiserror::Error)]
pub enum PluggedError {
    /// A file cannot be read.
    #[error("cannot read {file}")]
    Read {
        /// Which one.
        file: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A folder without any of the layouts.
    #[error("{folder} has neither ca-cert.pem (Istio's cacerts) nor tls.crt (a kubernetes.io/tls secret)")]
    NoLayout {
        /// The folder.
        folder: String,
    },
    /// A part of the layout is not there.
    #[error("{file} is missing")]
    Missing {
        /// Which one.
        file: String,
    },
    /// A file holds no list of certificates.
    #[error("{file} cannot be used")]
    Pem {
        /// Which one.
        file: String,
        /// What is wrong with it.
        #[source]
        source: PemError,
    },
    /// A certificate of a file is broken.
    #[error("certificate {number} of {file} cannot be used")]
    Cert {
        /// Which file.
        file: String,
        /// Position in it, from 1.
        number: usize,
        /// What is wrong with it.
        #[source]
        source: CertError,
    },
    /// The roots cannot be used.
    #[error("{file} cannot be used")]
    Roots {
        /// Which file.
        file: String,
        /// What is wrong with it.
        #[source]
        source: BundleError,
    },
    /// The key cannot be used.
    #[error("{file} cannot be used")]
    Key {
        /// Which file.
        file: String,
        /// What is wrong with it.
        #[source]
        source: KeyError,
    },
    /// Key and certificate do not belong together.
    #[error("the key in {key_file} does not belong to the certificate in {cert_file}")]
    KeyMismatch {
        /// File of the key.
        key_file: String,
        /// File of the certificate.
        cert_file: String,
    },
    /// The certificate is a leaf.
    #[error(
        "{subject} in {file} is not a certificate authority: it needs basicConstraints CA:TRUE and keyUsage keyCertSign"
    )]
    NotAnAuthority {
        /// File of the certificate.
        file: String,
        /// Its subject.
        subject: String,
    },
    /// A certificate has expired.
    #[error("{subject} in {file} expired at {at}")]
    Expired {
        /// File of the certificate.
        file: String,
        /// Its subject.
        subject: String,
        /// Last second of its validity.
        at: String,
    },
    /// A certificate is not valid yet: often a clock that is wrong.
    #[error("{subject} in {file} is not valid before {at}; the clock of this machine may be wrong")]
    NotYetValid {
        /// File of the certificate.
        file: String,
        /// Its subject.
        subject: String,
        /// First second of its validity.
        at: String,
    },
    /// No certificate of any file signed this one.
    #[error(
        "{subject} in {file} does not lead to a root: its issuer ({issuer}) did not sign it or is in neither {chain_file} nor {root_file}"
    )]
    NoPathToRoot {
        /// File of the certificate whose issuer is missing.
        file: String,
        /// Its subject.
        subject: String,
        /// The issuer that it names.
        issuer: String,
        /// File of the chain.
        chain_file: String,
        /// File of the roots.
        root_file: String,
    },
    /// More certificates between authority and root than any peer follows.
    #[error("the chain in {file} is longer than {MAX_PATH} certificates")]
    TooLong {
        /// File of the chain.
        file: String,
    },
    /// Everything looks right, but a peer would refuse what is issued: a path length, a name constraint, …
    #[error("peers would refuse the certificates that the authority in {file} issues")]
    Refused {
        /// File of the authority's certificate.
        file: String,
        /// What the verifier said.
        #[source]
        source: ChainError,
    },
    /// The trial certificate could not be made.
    #[error("the authority in {file} cannot issue a certificate")]
    Issue {
        /// File of the authority's certificate.
        file: String,
        /// Why.
        #[source]
        source: IssueError,
    },
    /// The trial request could not be made.
    #[error("a trial request could not be made")]
    Trial(#[source] CsrError),
}

/// A certificate and the file it came from.
#[derive(Clone)]
struct Found {
    cert: Cert,
    file: String,
}

/// Checks the files and makes the authority.
///
/// # Errors
/// The first thing that is wrong, with the name of its file.
pub fn load(
    files: &CaCerts,
    domain: &TrustDomain,
    lifetimes: Lifetimes,
    now: SystemTime,
) -> Result<LocalAuthority, PluggedError> {
    let cert_file = &files.ca_cert.name;
    let mut chain = certs(&files.ca_cert)?;
    let own = chain.remove(0);
    if let Some(file) = &files.cert_chain
        && !file.content.trim_ascii().is_empty()
    {
        chain.extend(certs(file)?);
    }
    let root_file = &files.root_cert.name;
    let bundle = TrustBundle::parse(&files.root_cert.content)
        .map_err(|source| PluggedError::Roots { file: root_file.clone(), source })?;
    let key = PrivateKey::from_pem(&files.ca_key.content)
        .map_err(|source| PluggedError::Key { file: files.ca_key.name.clone(), source })?;
    let mismatch = || PluggedError::KeyMismatch { key_file: files.ca_key.name.clone(), cert_file: cert_file.clone() };
    if key.public_key_info() != own.cert.public_key_info {
        return Err(mismatch());
    }
    let chain_file = files.cert_chain.as_ref().map_or(cert_file, |file| &file.name);
    let path = Search { chain, bundle: &bundle, chain_file, root_file, now }.path(own)?;
    let authority = LocalAuthority::new(Arc::new(key), path, bundle, lifetimes).ok_or_else(mismatch)?;
    trial(&authority, domain, cert_file, now)?;
    Ok(authority)
}

fn certs(file: &Input<Vec<u8>>) -> Result<Vec<Found>, PluggedError> {
    let ders =
        pem::certificates(&file.content).map_err(|source| PluggedError::Pem { file: file.name.clone(), source })?;
    let parse = |(number, der): (usize, CertificateDer<'static>)| match Cert::parse(der) {
        Ok(cert) => Ok(Found { cert, file: file.name.clone() }),
        Err(source) => Err(PluggedError::Cert { file: file.name.clone(), number, source }),
    };
    (1..).zip(ders).map(parse).collect()
}

struct Search<'a> {
    chain: Vec<Found>,
    bundle: &'a TrustBundle,
    chain_file: &'a str,
    root_file: &'a str,
    now: SystemTime,
}

impl Search<'_> {
    /// The certificates from `own` to a root, each checked by itself and signed by the next.
    fn path(mut self, own: Found) -> Result<Vec<Cert>, PluggedError> {
        let mut path = Vec::new();
        let mut at = own;
        loop {
            check_authority(&at, self.now)?;
            if path.len() > MAX_PATH {
                return Err(PluggedError::TooLong { file: self.chain_file.to_owned() });
            }
            if self.bundle.contains(&at.cert) {
                path.push(at.cert);
                return Ok(path);
            }
            let next = self.issuer_of(&at)?;
            path.push(at.cert);
            at = next;
        }
    }

    /// A root before an intermediate, and of several the one that lives longest: roots that were renewed with the same
    /// key stand beside each other.
    fn issuer_of(&mut self, child: &Found) -> Result<Found, PluggedError> {
        let signers = self.bundle.roots().iter().filter(|root| child.cert.is_signed_by(root));
        if let Some(root) = signers.max_by_key(|root| root.not_after) {
            return Ok(Found { cert: root.clone(), file: self.root_file.to_owned() });
        }
        match self.chain.iter().position(|link| link.cert != child.cert && child.cert.is_signed_by(&link.cert)) {
            // Taken out, so that no loop of certificates is followed twice.
            Some(index) => Ok(self.chain.swap_remove(index)),
            None => Err(PluggedError::NoPathToRoot {
                file: child.file.clone(),
                subject: child.cert.subject.clone(),
                issuer: child.cert.issuer.clone(),
                chain_file: self.chain_file.to_owned(),
                root_file: self.root_file.to_owned(),
            }),
        }
    }
}

fn check_authority(found: &Found, now: SystemTime) -> Result<(), PluggedError> {
    let (file, subject) = (found.file.clone(), found.cert.subject.clone());
    if !found.cert.is_ca || !found.cert.may_sign {
        return Err(PluggedError::NotAnAuthority { file, subject });
    }
    if now > found.cert.not_after {
        return Err(PluggedError::Expired { file, subject, at: display(found.cert.not_after) });
    }
    if now < found.cert.not_before {
        return Err(PluggedError::NotYetValid { file, subject, at: display(found.cert.not_before) });
    }
    Ok(())
}

/// Issues a certificate and verifies it as a peer would. It is thrown away, and its name is no workload's.
fn trial(authority: &LocalAuthority, domain: &TrustDomain, file: &str, now: SystemTime) -> Result<(), PluggedError> {
    let issue_failed = |source| PluggedError::Issue { file: file.to_owned(), source };
    let key = PrivateKey::generate(KeyKind::EcdsaP256).map_err(|_| issue_failed(IssueError::Library))?;
    let request =
        CertificateParams::default().serialize_request(&key).map_err(|_| issue_failed(IssueError::Library))?;
    let csr = ValidCsr::parse_der(request.der()).map_err(PluggedError::Trial)?;
    let grant = Grant::workload(SpiffeId::new(domain.clone(), "trial", "trial"));
    let issued = authority.issue(&csr, &grant, None, now).map_err(issue_failed)?;
    let intermediates: Vec<_> = issued.intermediates.iter().map(|cert| cert.der().clone()).collect();
    verify_chain(issued.leaf.der(), &intermediates, issued.bundle.ders(), now)
        .map_err(|source| PluggedError::Refused { file: file.to_owned(), source })
}

impl fmt::Debug for CaCerts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chain = self.cert_chain.as_ref().map(|file| &file.name);
        let files = [Some(&self.ca_cert.name), Some(&self.ca_key.name), chain, Some(&self.root_cert.name)];
        f.debug_list().entries(files.into_iter().flatten()).finish()
    }
}

impl CaCerts {
    /// Takes the entries of a Secret in Istio's layout (`cacerts`, `istio-ca-secret`) or in that of `kubernetes.io/tls`.
    /// `place` names the Secret in messages. Without roots the authority's own certificate is the root.
    ///
    /// # Errors
    /// When there is no such layout, or one of its entries is missing.
    pub fn from_entries(place: &str, entries: &Entries) -> Result<Self, PluggedError> {
        let there = |name: &str| entries.get(name).is_some_and(|content| !content.trim_ascii().is_empty());
        let (cert, key, chain, root) = if there("ca-cert.pem") {
            ("ca-cert.pem", "ca-key.pem", Some("cert-chain.pem"), "root-cert.pem")
        } else if there("tls.crt") {
            ("tls.crt", "tls.key", None, "ca.crt")
        } else {
            return Err(PluggedError::NoLayout { folder: place.to_owned() });
        };
        let name = |entry: &str| format!("{entry} of {place}");
        let get = |entry: &str| match entries.get(entry) {
            Some(content) => Ok(Input { name: name(entry), content: content.clone() }),
            None => Err(PluggedError::Missing { file: name(entry) }),
        };
        let public = |entry: &str| get(entry).map(|input| Input { name: input.name, content: input.content.to_vec() });
        let root = if there(root) { root } else { cert };
        Ok(Self {
            ca_cert: public(cert)?,
            ca_key: get(key)?,
            cert_chain: chain.filter(|chain| there(chain)).map(public).transpose()?,
            root_cert: public(root)?,
        })
    }
}

#[cfg(any(test, feature = "file"))]
impl CaCerts {
    /// Reads a folder in Istio's `cacerts` layout or in that of a `kubernetes.io/tls` secret.
    ///
    /// # Errors
    /// When there is no such layout, or one of its files cannot be read.
    pub fn read(folder: &std::path::Path) -> Result<Self, PluggedError> {
        let here = |name: &str| folder.join(name).exists();
        let (cert, key, chain, root) = if here("ca-cert.pem") {
            ("ca-cert.pem", "ca-key.pem", Some("cert-chain.pem"), "root-cert.pem")
        } else if here("tls.crt") {
            ("tls.crt", "tls.key", None, "ca.crt")
        } else {
            return Err(PluggedError::NoLayout { folder: folder.display().to_string() });
        };
        let read = |name: &str| {
            let file = folder.join(name);
            let name = file.display().to_string();
            match std::fs::read(&file) {
                Ok(content) => Ok(Input { name, content }),
                Err(source) => Err(PluggedError::Read { file: name, source }),
            }
        };
        let key = read(key)?;
        let cert_chain = chain.filter(|chain| here(chain)).map(read).transpose()?;
        Ok(Self {
            ca_cert: read(cert)?,
            ca_key: Input { name: key.name, content: Zeroizing::new(key.content) },
            cert_chain,
            root_cert: read(root)?,
        })
    }
}

#[cfg(test)]
mod tests;
