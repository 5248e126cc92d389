//! Configuration that is not used, and why.
//!
//! The table of what happens to an invalid piece (design decision 8); it never opens a door:
//!
//! | Piece | Effect |
//! |---|---|
//! | route, or anything inside it | that route is cut |
//! | domain that another virtual host of the configuration has | that domain is cut |
//! | policy of an ALLOW rule | that policy is cut, the rule stays (and denies all if it becomes empty) |
//! | policy of a DENY rule | everything that the rule covers is denied |
//! | listener | not used; the version accepted last stays |

use mesh_api::text::Str;
use mesh_api_xds::ir::Origin;
use mesh_api_xds::type_url::TypeUrl;

/// A piece of a resource that is not used as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Type of the resource.
    pub type_url: TypeUrl,
    /// Its name.
    pub resource: Str,
    /// Where in it, for example `routes[3].match`.
    pub path: String,
    /// What is wrong.
    pub reason: Reason,
    /// What was done.
    pub effect: Effect,
    /// Object that asked for it.
    pub origin: Origin,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A regular expression.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
    /// A header value with format commands.
    #[error(transparent)]
    Format(#[from] BadFormat),
    /// Not a header name.
    #[error("{0:?} is not a header name")]
    FieldName(Str),
    /// A header that frames the message or names its host, which an edit may not touch so.
    #[error("header {0:?} cannot be edited: the proxy writes it itself")]
    OwnField(Str),
    /// Not a header value.
    #[error("{0:?} is not a header value")]
    FieldValue(Str),
    /// Not a virtual host domain.
    #[error("{0:?} is not a domain")]
    Domain(Str),
    /// Two virtual hosts of one route configuration have a domain.
    #[error("domain {domain:?} is already that of virtual host {owner:?}")]
    DuplicateDomain {
        /// The domain.
        domain: Str,
        /// The virtual host that has it.
        owner: Str,
    },
    /// No destination has a positive weight.
    #[error("no destination has a positive weight")]
    NoWeight,
    /// A status outside the range.
    #[error("{0} is not a status that can be answered with here")]
    Status(u16),
    /// Two chains would take the same connection.
    #[error("filter chains {first:?} and {second:?} match the same connections")]
    AmbiguousChains {
        /// One.
        first: Str,
        /// The other.
        second: Str,
    },
    /// The lists of a chain's criteria multiply to too many combinations.
    #[error("filter chain {0:?} has too many combinations of criteria")]
    TooManyCombinations(Str),
    /// A listener of this address exists.
    #[error("address {address} is already that of listener {owner:?}")]
    DuplicateAddress {
        /// The address.
        address: std::net::SocketAddr,
        /// The listener that has it.
        owner: Str,
    },
    /// A route configuration in a listener has its virtual hosts elsewhere.
    #[error("a route configuration inside a listener must hold its virtual hosts")]
    ApartInline,
    /// A rewrite by prefix on a regular expression.
    #[error("a prefix cannot be rewritten where the path condition is a regular expression")]
    PrefixOfRegex,
    /// A virtual host without `<route configuration>/` in its name.
    #[error("a virtual host that is sent apart is named <route configuration>/<virtual host>")]
    HostName,
}

/// Why a regular expression is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// It is too long.
    #[error("regular expression is longer than {most_chars} characters")]
    TooLong {
        /// The bound.
        most_chars: usize,
    },
    /// It does not parse.
    #[error("regular expression does not parse: {0}")]
    Syntax(String),
    /// It parses, but its program is too large.
    #[error("regular expression compiles to more than {most_bytes} bytes")]
    TooLarge {
        /// The bound.
        most_bytes: usize,
    },
}

/// Why a header value with format commands is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFormat {
    /// A `%` without its partner.
    #[error("{0:?} has a '%' without a closing one; write '%%' for a percent sign")]
    Unclosed(String),
    /// A command that is not known or not available in headers.
    #[error("%{0}% is not a format command that is supported in headers")]
    Unknown(String),
}

/// What was done with an invalid piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Left out; the rest is used.
    Cut,
    /// Replaced by a rule that denies everything it covers.
    Denies,
    /// The whole resource is not used; its last accepted version stays if there is one.
    KeptPrevious,
}

/// Collects rejections of one resource.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    type_url: TypeUrl,
    resource: Str,
    out: &'a mut Vec<Rejected>,
}

impl<'a> Report<'a> {
    pub(crate) const fn new(type_url: TypeUrl, resource: Str, out: &'a mut Vec<Rejected>) -> Self {
        Self { type_url, resource, out }
    }

    /// Rejections so far, of all resources.
    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    pub(crate) fn add(&mut self, path: String, reason: Reason, effect: Effect, origin: &Origin) {
        let (type_url, resource) = (self.type_url, self.resource.clone());
        self.out.push(Rejected { type_url, resource, path, reason, effect, origin: origin.clone() });
    }
}
