//! Authorization (`envoy.config.rbac.v3.RBAC`), for connections and for requests.

use std::sync::Arc;

use mesh_api::text::Str;
use serde::Serialize;

use super::matcher::{Cidr, HeaderMatch, StringMatch};

/// A set of policies with one action.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Authz {
    /// What a match means.
    pub action: AuthzAction,
    /// Policies, any of which may match. With `Allow` and no match the request is denied.
    pub policies: Arc<[AuthzPolicy]>,
}

/// Meaning of a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum AuthzAction {
    /// Permit; everything unmatched is denied.
    Allow,
    /// Refuse; everything unmatched passes.
    Deny,
}

/// One named policy: it matches when both predicates hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct AuthzPolicy {
    /// `ns[<namespace>]-policy[<name>]-rule[<n>]`, as Istio names them.
    pub name: Str,
    /// What is asked for.
    pub permission: Predicate,
    /// Who asks.
    pub principal: Predicate,
}

/// A condition on a connection or request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Predicate {
    /// Always.
    Any,
    /// All hold; true when empty.
    All(Arc<[Self]>),
    /// One holds; false when empty.
    OneOf(Arc<[Self]>),
    /// Does not hold.
    Not(Arc<Self>),
    /// The peer's authenticated SPIFFE URI passes, as text without the `spiffe://` prefix stripped.
    PeerIdentity(StringMatch),
    /// The peer is authenticated at all.
    Authenticated,
    /// Direct peer address.
    PeerAddress(Cidr),
    /// Client address after trusted proxies (`x-forwarded-for`).
    RemoteAddress(Cidr),
    /// Destination address.
    DestinationAddress(Cidr),
    /// Destination port.
    DestinationPort(u16),
    /// Server name of the TLS connection.
    ServerName(StringMatch),
    /// A request header or pseudo header; never true on a connection.
    Header(HeaderMatch),
    /// Normalised path without query; never true on a connection.
    Path(StringMatch),
}
