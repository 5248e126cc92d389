//! The resource types that are exchanged, and the order in which they are sent.

use std::fmt;

/// A resource type of the discovery protocol.
///
/// The order of the variants is the order of sending: what others refer to goes first (clusters and their endpoints, then
/// listeners and routes, then secrets), the generation mark last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TypeUrl {
    /// `envoy.config.cluster.v3.Cluster` (CDS).
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment` (EDS).
    Endpoint,
    /// `envoy.config.listener.v3.Listener` (LDS).
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration` (RDS).
    RouteConfiguration,
    /// `envoy.config.route.v3.VirtualHost` (VHDS).
    VirtualHost,
    /// `envoy.extensions.transport_sockets.tls.v3.Secret` (SDS).
    Secret,
    /// `istio.networking.nds.v1.NameTable` (NDS): the names that a proxy answers for.
    NameTable,
    /// `lateen.v1.Generation`: the mark that ends a consistent set.
    Generation,
}

impl TypeUrl {
    /// All types in the order of sending.
    pub const ALL: [Self; 8] = [
        Self::Cluster,
        Self::Endpoint,
        Self::Listener,
        Self::RouteConfiguration,
        Self::VirtualHost,
        Self::Secret,
        Self::NameTable,
        Self::Generation,
    ];

    /// The types that carry configuration, in the order of sending: all but the mark.
    pub const CONFIG: [Self; 7] = [
        Self::Cluster,
        Self::Endpoint,
        Self::Listener,
        Self::RouteConfiguration,
        Self::VirtualHost,
        Self::Secret,
        Self::NameTable,
    ];

    /// The URL on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::RouteConfiguration => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::VirtualHost => "type.googleapis.com/envoy.config.route.v3.VirtualHost",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::NameTable => "type.googleapis.com/istio.networking.nds.v1.NameTable",
            Self::Generation => "type.googleapis.com/lateen.v1.Generation",
        }
    }

    /// The type that a URL names, if it is one of ours.
    #[must_use]
    pub fn parse(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == url)
    }

    /// The usual short word: `CDS`, `EDS`, `NDS`, …; `MARK` for the generation mark.
    #[must_use]
    pub const fn short(self) -> &'static str {
        match self {
            Self::Cluster => "CDS",
            Self::Endpoint => "EDS",
            Self::Listener => "LDS",
            Self::RouteConfiguration => "RDS",
            Self::VirtualHost => "VHDS",
            Self::Secret => "SDS",
            Self::NameTable => "NDS",
            Self::Generation => "MARK",
        }
    }

    /// Whether a first request without names asks for everything.
    ///
    /// xDS protocol, "How the client specifies what resources to return": the empty list is a wildcard for listeners and
    /// clusters only; of Istio's own types, names are asked for as a whole. All types accept an explicit `*`.
    #[must_use]
    pub const fn empty_means_all(self) -> bool {
        match self {
            Self::Cluster | Self::Listener | Self::NameTable | Self::Generation => true,
            Self::Endpoint | Self::RouteConfiguration | Self::VirtualHost | Self::Secret => false,
        }
    }

    /// Position in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Cluster => 0,
            Self::Endpoint => 1,
            Self::Listener => 2,
            Self::RouteConfiguration => 3,
            Self::VirtualHost => 4,
            Self::Secret => 5,
            Self::NameTable => 6,
            Self::Generation => 7,
        }
    }
}

impl fmt::Display for TypeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

/// One value for each type; indexed without a chance to miss.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PerType<T>([T; 8]);

impl<T> PerType<T> {
    /// Builds each value from its type.
    pub fn from_fn(mut f: impl FnMut(TypeUrl) -> T) -> Self {
        Self(TypeUrl::ALL.map(&mut f))
    }

    /// The value of a type.
    #[must_use]
    pub const fn of(&self, type_url: TypeUrl) -> &T {
        &self.0[type_url.index()]
    }

    /// The value of a type, to change it.
    pub const fn of_mut(&mut self, type_url: TypeUrl) -> &mut T {
        &mut self.0[type_url.index()]
    }

    /// All values in the order of sending.
    pub fn iter(&self) -> impl Iterator<Item = (TypeUrl, &T)> {
        TypeUrl::ALL.into_iter().zip(self.0.iter())
    }

    /// All values in the order of sending, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (TypeUrl, &mut T)> {
        TypeUrl::ALL.into_iter().zip(self.0.iter_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_positions_are_consistent() {
        for (position, type_url) in TypeUrl::ALL.into_iter().enumerate() {
            assert_eq!(TypeUrl::parse(type_url.as_str()), Some(type_url));
            assert_eq!(type_url.index(), position);
        }
        assert_eq!(TypeUrl::parse("type.googleapis.com/envoy.config.cluster.v3.cluster"), None);
    }

    #[test]
    fn sending_order_is_cds_eds_lds_rds_vhds_sds_nds_mark() {
        let words: Vec<_> = TypeUrl::ALL.iter().map(|t| t.short()).collect();
        assert_eq!(words, ["CDS", "EDS", "LDS", "RDS", "VHDS", "SDS", "NDS", "MARK"]);
        assert!(TypeUrl::ALL.is_sorted());
    }
}
