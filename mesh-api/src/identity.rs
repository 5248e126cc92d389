//! SPIFFE identities as Istio writes them: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.

use std::{fmt, ops::Deref, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    ids::{Name, Namespace},
    text::Str,
};

/// The trust domain of a mesh, e.g. `cluster.local`: lower-case letters, digits, `.`, `-` and `_`, 1 to 255 characters
/// (SPIFFE-ID, section 2.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(transparent)]
pub struct TrustDomain(Str);

/// The identity of a workload.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    /// Who vouches for it.
    pub trust_domain: TrustDomain,
    /// Where it lives.
    pub namespace: Namespace,
    /// As what it runs.
    pub service_account: Name,
}

/// Why a text is not an identity of the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// No `spiffe://` in front.
    #[error("does not start with spiffe://")]
    Scheme,
    /// Empty, too long, or with a character that a trust domain cannot hold.
    #[error("has an invalid trust domain")]
    TrustDomain,
    /// The path is not `/ns/<namespace>/sa/<service account>`, or a part of it is empty or has an illegal character.
    #[error("does not have the path /ns/<namespace>/sa/<service account>")]
    Path,
}

impl TrustDomain {
    /// Checks the characters and the length.
    ///
    /// # Errors
    /// [`IdentityError::TrustDomain`] when it is empty, longer than 255 characters or holds an illegal character.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if (1..=255).contains(&text.len()) && text.bytes().all(legal) {
            Ok(Self(Str::from(text)))
        } else {
            Err(IdentityError::TrustDomain)
        }
    }

    /// The domain as plain text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `self` is the mesh's own domain or one of its aliases, whose workloads are trusted as its own.
    #[must_use]
    pub fn is_one_of(&self, own: &Self, aliases: &[Self]) -> bool {
        self == own || aliases.contains(self)
    }
}

impl Default for TrustDomain {
    /// `cluster.local`, Istio's default.
    fn default() -> Self {
        Self(Str::from("cluster.local"))
    }
}

impl Deref for TrustDomain {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for TrustDomain {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        Self::parse(text)
    }
}

impl<'de> Deserialize<'de> for TrustDomain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Str::deserialize(deserializer)?;
        Self::parse(&text).map_err(|error| de::Error::custom(format_args!("{text:?} {error}")))
    }
}

impl SpiffeId {
    /// An identity from its parts, which the caller has checked.
    pub fn new(trust_domain: TrustDomain, namespace: impl Into<Namespace>, service_account: impl Into<Name>) -> Self {
        Self { trust_domain, namespace: namespace.into(), service_account: service_account.into() }
    }

    /// Reads `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    ///
    /// # Errors
    /// Says which part is wrong. Nothing is normalised: an identity that needs it is not ours.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        let rest = text.strip_prefix("spiffe://").ok_or(IdentityError::Scheme)?;
        let (domain, path) = rest.split_once('/').ok_or(IdentityError::Path)?;
        let trust_domain = TrustDomain::parse(domain)?;
        let mut parts = path.split('/');
        let mut part = || parts.next().ok_or(IdentityError::Path);
        let (ns, namespace, sa, account) = (part()?, part()?, part()?, part()?);
        let ends = parts.next().is_none();
        if ns != "ns" || sa != "sa" || !ends || !is_segment(namespace) || !is_segment(account) {
            return Err(IdentityError::Path);
        }
        Ok(Self::new(trust_domain, namespace, account))
    }

    /// The form of `AuthorizationPolicy` principals and of `X-Forwarded-Client-Cert` consumers: without `spiffe://`.
    #[must_use]
    pub fn principal(&self) -> String {
        format!("{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

/// SPIFFE-ID section 2.2: letters, digits, `.`, `-`, `_`; no empty segment, no `.` and no `..`.
fn is_segment(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !text.is_empty() && text != "." && text != ".." && text.bytes().all(legal)
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SpiffeId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        Self::parse(text)
    }
}

impl Serialize for SpiffeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SpiffeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Str::deserialize(deserializer)?;
        Self::parse(&text).map_err(|error| de::Error::custom(format_args!("{text:?} {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::{IdentityError, SpiffeId, TrustDomain};
    use proptest::prelude::*;

    #[test]
    fn reads_and_writes_istio_identities() {
        let text = "spiffe://cluster.local/ns/shop/sa/web";
        let id = SpiffeId::parse(text).unwrap();
        assert_eq!(id, SpiffeId::new(TrustDomain::default(), "shop", "web"));
        assert_eq!(id.to_string(), text);
        assert_eq!(id.principal(), "cluster.local/ns/shop/sa/web");
    }

    #[test]
    fn refuses_what_is_not_exactly_one() {
        for (text, error) in [
            ("", IdentityError::Scheme),
            ("https://td/ns/a/sa/b", IdentityError::Scheme),
            ("SPIFFE://td/ns/a/sa/b", IdentityError::Scheme),
            ("spiffe://td", IdentityError::Path),
            ("spiffe:///ns/a/sa/b", IdentityError::TrustDomain),
            ("spiffe://TD/ns/a/sa/b", IdentityError::TrustDomain),
            ("spiffe://td:80/ns/a/sa/b", IdentityError::TrustDomain),
            ("spiffe://td/ns/a/sa", IdentityError::Path),
            ("spiffe://td/ns/a/sa/", IdentityError::Path),
            ("spiffe://td/ns//sa/b", IdentityError::Path),
            ("spiffe://td/ns/../sa/b", IdentityError::Path),
            ("spiffe://td/ns/a/sa/b/", IdentityError::Path),
            ("spiffe://td/ns/a/sa/b?x", IdentityError::Path),
            ("spiffe://td/ns/a%2e/sa/b", IdentityError::Path),
        ] {
            assert_eq!(SpiffeId::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn aliases_count_as_own() {
        let [own, old, other] = ["a.io", "b.io", "c.io"].map(|t| TrustDomain::parse(t).unwrap());
        assert!(own.is_one_of(&own, &[]));
        assert!(old.is_one_of(&own, std::slice::from_ref(&old)));
        assert!(!other.is_one_of(&own, &[old]));
    }

    proptest! {
        #[test]
        fn round_trip(td in "[a-z0-9._-]{1,20}", ns in "[a-z0-9]{1,10}", sa in "[A-Za-z0-9_-]{1,10}") {
            let id = SpiffeId::new(TrustDomain::parse(&td).unwrap(), ns.as_str(), sa.as_str());
            prop_assert_eq!(SpiffeId::parse(&id.to_string()).unwrap(), id);
        }

        #[test]
        fn what_parses_prints_the_same(text in "spiffe://[a-z./]{0,8}/ns/[a-z./]{0,3}/sa/[a-z./]{0,3}") {
            if let Ok(id) = SpiffeId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
