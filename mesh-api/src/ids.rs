//! Newtypes for every id, and the key of an object.
//!
//! The types hold any text: whether a name is well formed is a question for [`crate::validate`], so that an object with
//! a bad name can still be named in a finding.

use std::{borrow::Borrow, fmt, ops::Deref};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{kinds::Kind, text::Str};

macro_rules! text_id {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        #[schemars(transparent)]
        pub struct $name(pub Str);

        impl $name {
            /// The id as plain text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(Str::from(text))
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(Str::from(text))
            }
        }

        impl From<Str> for $name {
            fn from(text: Str) -> Self {
                Self(text)
            }
        }

        impl From<&Str> for $name {
            fn from(text: &Str) -> Self {
                Self(text.clone())
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == *other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == **other
            }
        }
    )*};
}

text_id! {
    /// A namespace. Empty for objects that live in none.
    Namespace;
    /// The name of an object, a service account or a port.
    Name;
    /// The cluster an object was read from; `Kubernetes` is what a single Istio cluster is called.
    ClusterId;
    /// The network a workload is reachable in without a gateway.
    NetworkId;
    /// A control plane revision (`istio.io/rev`).
    Revision;
}

/// What identifies an object in the whole mesh.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectKey {
    /// The cluster or folder the object came from.
    pub cluster: ClusterId,
    /// What the object is.
    pub kind: Kind,
    /// Its namespace; empty for a kind without one.
    pub namespace: Namespace,
    /// Its name.
    pub name: Name,
}

impl ObjectKey {
    /// A key in the cluster with the empty name, which is what a parser knows before a source adds its own.
    pub fn new(kind: Kind, namespace: impl Into<Namespace>, name: impl Into<Name>) -> Self {
        Self { cluster: ClusterId::default(), kind, namespace: namespace.into(), name: name.into() }
    }

    /// The same object as seen in `cluster`.
    #[must_use]
    pub fn in_cluster(mut self, cluster: impl Into<ClusterId>) -> Self {
        self.cluster = cluster.into();
        self
    }
}

impl fmt::Display for ObjectKey {
    /// `kind/namespace/name`, or `kind/name` for a kind without a namespace.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}/{}", self.kind, self.name)
        } else {
            write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ObjectKey;
    use crate::kinds::Kind;

    #[test]
    fn a_key_reads_as_kind_namespace_name() {
        assert_eq!(ObjectKey::new(Kind::VirtualService, "shop", "web").to_string(), "VirtualService/shop/web");
        assert_eq!(ObjectKey::new(Kind::Namespace, "", "shop").to_string(), "Namespace/shop");
    }

    #[test]
    fn keys_of_two_clusters_differ() {
        let key = ObjectKey::new(Kind::Service, "a", "b");
        assert_ne!(key.clone().in_cluster("west"), key.in_cluster("east"));
    }
}
