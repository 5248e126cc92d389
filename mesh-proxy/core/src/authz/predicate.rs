//! Compiled conditions of policies.

use std::net::IpAddr;

use mesh_api_xds::ir::authz as ir;
use mesh_api_xds::ir::matcher::Cidr;

use crate::facts::{ConnFacts, RequestFacts};
use crate::head::Head;
use crate::matcher::header::HeaderTest;
use crate::matcher::string::StringTest;
use crate::rejected::Reason;

/// A compiled condition.
#[derive(Clone, Debug)]
pub enum Predicate {
    /// Always.
    Any,
    /// All hold.
    All(Box<[Self]>),
    /// One holds.
    OneOf(Box<[Self]>),
    /// Does not hold.
    Not(Box<Self>),
    /// The peer's first URI name passes.
    PeerIdentity(StringTest),
    /// The peer presented a verified certificate.
    Authenticated,
    /// Direct peer address.
    PeerAddress(Cidr),
    /// Client address after trusted proxies.
    RemoteAddress(Cidr),
    /// Destination address.
    DestinationAddress(Cidr),
    /// Destination port.
    DestinationPort(u16),
    /// SNI.
    ServerName(StringTest),
    /// A header; false on a connection.
    Header(HeaderTest),
    /// Path without query; false on a connection.
    Path(StringTest),
}

/// What is asked about: a connection, or a request on it.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// A connection.
    Connection(&'a ConnFacts),
    /// A request.
    Request(RequestFacts<'a>, &'a Head),
}

impl Predicate {
    /// Compiles a condition.
    ///
    /// # Errors
    /// For a bad regular expression or header name.
    pub fn compile(predicate: &ir::Predicate) -> Result<Self, Reason> {
        let many = |list: &[ir::Predicate]| list.iter().map(Self::compile).collect::<Result<Box<[_]>, _>>();
        Ok(match predicate {
            ir::Predicate::Any => Self::Any,
            ir::Predicate::All(list) => Self::All(many(list)?),
            ir::Predicate::OneOf(list) => Self::OneOf(many(list)?),
            ir::Predicate::Not(inner) => Self::Not(Box::new(Self::compile(inner)?)),
            ir::Predicate::PeerIdentity(test) => Self::PeerIdentity(StringTest::compile(test)?),
            ir::Predicate::Authenticated => Self::Authenticated,
            ir::Predicate::PeerAddress(cidr) => Self::PeerAddress(*cidr),
            ir::Predicate::RemoteAddress(cidr) => Self::RemoteAddress(*cidr),
            ir::Predicate::DestinationAddress(cidr) => Self::DestinationAddress(*cidr),
            ir::Predicate::DestinationPort(port) => Self::DestinationPort(*port),
            ir::Predicate::ServerName(test) => Self::ServerName(StringTest::compile(test)?),
            ir::Predicate::Header(test) => Self::Header(HeaderTest::compile(test)?),
            ir::Predicate::Path(test) => Self::Path(StringTest::compile(test)?),
        })
    }

    /// Whether it holds.
    #[must_use]
    pub fn holds(&self, subject: &Subject<'_>) -> bool {
        let conn = subject.conn();
        match self {
            Self::Any => true,
            Self::All(list) => list.iter().all(|inner| inner.holds(subject)),
            Self::OneOf(list) => list.iter().any(|inner| inner.holds(subject)),
            Self::Not(inner) => !inner.holds(subject),
            Self::PeerIdentity(test) => {
                conn.peer.as_ref().is_some_and(|peer| peer.uris.iter().any(|uri| test.matches(uri.as_bytes())))
            }
            Self::Authenticated => conn.peer.is_some(),
            Self::PeerAddress(cidr) => cidr.contains(canonical(conn.source.ip())),
            Self::RemoteAddress(cidr) => cidr.contains(canonical(subject.client())),
            Self::DestinationAddress(cidr) => cidr.contains(canonical(conn.destination.ip())),
            Self::DestinationPort(port) => conn.destination.port() == *port,
            Self::ServerName(test) => test.matches(conn.server_name.as_deref().unwrap_or_default().as_bytes()),
            Self::Header(test) => subject.head().is_some_and(|head| test.matches(head)),
            Self::Path(test) => subject.head().is_some_and(|head| test.matches(head.path())),
        }
    }
}

impl<'a> Subject<'a> {
    const fn conn(&self) -> &'a ConnFacts {
        match self {
            Self::Connection(conn) => conn,
            Self::Request(facts, _) => facts.conn,
        }
    }

    const fn client(&self) -> IpAddr {
        match self {
            Self::Connection(conn) => conn.source.ip(),
            Self::Request(facts, _) => facts.client.ip(),
        }
    }

    const fn head(&self) -> Option<&'a Head> {
        match self {
            Self::Connection(_) => None,
            Self::Request(_, head) => Some(head),
        }
    }
}

/// An IPv4 address that a dual-stack socket shows as IPv6 is the IPv4 address: a policy on `10.0.0.0/8` must not be
/// evaded by the kind of socket.
fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}
