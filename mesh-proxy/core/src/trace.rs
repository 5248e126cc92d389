//! Why a candidate lost: what `explain` prints.
//!
//! Every matcher exists twice: a linear one that reports each step to a [`Trace`] and is the specification, and an indexed
//! one for the request path. [`Silent`] chooses the indexed one at compile time; property tests hold the two equal.

use mesh_api_xds::ir::authz::AuthzAction;

/// Receives the steps of a decision.
pub trait Trace {
    /// Whether steps are wanted; false lets the indexed matcher be used.
    const ON: bool = true;

    /// One step.
    fn step(&mut self, step: Step<'_>);
}

/// One candidate, and why it lost if it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A filter chain.
    Chain {
        /// Its name.
        name: &'a str,
        /// The criterion in which another was more specific or it did not match; `None`: chosen.
        lost: Option<ChainCriterion>,
    },
    /// A virtual host's domain.
    Domain {
        /// Virtual host.
        host: &'a str,
        /// Domain.
        domain: &'a str,
        /// Why not; `None`: chosen.
        lost: Option<DomainLost>,
    },
    /// A route.
    Route {
        /// Position in its virtual host.
        position: usize,
        /// Its name.
        name: &'a str,
        /// Why not; `None`: chosen.
        lost: Option<RouteLost<'a>>,
    },
    /// An authorization policy that was asked.
    Policy {
        /// Its name.
        name: &'a str,
        /// Meaning of a match.
        action: AuthzAction,
        /// Whether what is asked for matched.
        permission: bool,
        /// Whether who asks matched; not asked when the permission did not match.
        principal: Option<bool>,
    },
}

/// Criteria of a filter chain in the order in which they are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChainCriterion {
    /// Destination port.
    DestinationPort,
    /// Destination address.
    DestinationAddress,
    /// SNI.
    ServerName,
    /// TLS or plaintext.
    Transport,
    /// ALPN.
    ApplicationProtocol,
    /// Direct peer address.
    SourceAddress,
}

/// Why a domain lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainLost {
    /// It does not cover the host.
    NotCovered,
    /// It covers the host, but another one is more specific.
    LessSpecific,
}

/// Why a route lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteLost<'a> {
    /// Its path condition.
    Path,
    /// The condition on this header.
    Header(&'a str),
    /// The condition on this query parameter.
    Query(&'a str),
    /// An earlier route had matched.
    Later,
}

/// Nobody listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Trace for Silent {
    const ON: bool = false;

    fn step(&mut self, _: Step<'_>) {}
}

/// Keeps every step as text.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    /// One line a step.
    pub lines: Vec<String>,
}

impl Trace for Recorder {
    fn step(&mut self, step: Step<'_>) {
        self.lines.push(format!("{step:?}"));
    }
}
