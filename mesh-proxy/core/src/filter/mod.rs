//! Filters and route actions on heads: what they need, what they decide.
//!
//! The order of filters is data of the listener; the shell walks it, runs the pure ones from here, and does I/O between.
//! A filter that looks only at heads costs nothing on bodies: each declares its [`Needs`], and their union over what is
//! configured for a route is the route's stage mask (`HttpPlan::needs`).

pub mod cors;
pub mod fault;
pub mod format;
pub mod forwarded;
pub mod headers;
pub mod normalize;
pub mod redirect;
pub mod request_id;
pub mod rewrite;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::fault::Fault;
use crate::head::known::KnownName;

/// What happens after a filter.
#[derive(Clone, Debug, PartialEq)]
pub enum Flow {
    /// The next filter.
    Continue,
    /// This answer; later filters and the upstream are not asked.
    Reply(Box<Reply>),
    /// The shell does this, then goes on with the next filter.
    Await(Call),
    /// The route is selected again, because the filter changed what it depends on.
    Reroute,
    /// The whole body is wanted, up to this many bytes; then the filter is asked again.
    NeedBody(usize),
}

/// Something only the shell can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Wait, as an injected delay asks for.
    Pause(Duration),
}

/// An answer by the proxy.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Something went wrong or is forbidden: `reply::reply_for` words it.
    Fault(Fault),
    /// A configured answer.
    Answer(Answer),
}

/// An answer that is no failure: a redirect, a direct response, a preflight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Fields besides `content-length`.
    pub headers: Vec<(KnownName, Cow<'static, [u8]>)>,
    /// Body.
    pub body: Arc<[u8]>,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: &'static str,
}

impl Answer {
    /// An answer without fields and body.
    #[must_use]
    pub fn new(status: u16, details: &'static str) -> Self {
        Self { status, headers: Vec::new(), body: Arc::default(), details }
    }

    /// The same with a field.
    #[must_use]
    pub fn with(mut self, name: KnownName, value: impl Into<Cow<'static, [u8]>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The same as a flow.
    #[must_use]
    pub fn into_flow(self) -> Flow {
        Flow::Reply(Box::new(Reply::Answer(self)))
    }
}

/// Parts of a message that a filter looks at: a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs(u8);

impl Needs {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Request head.
    pub const REQUEST_HEAD: Self = Self(1);
    /// Request body.
    pub const REQUEST_BODY: Self = Self(1 << 1);
    /// Request trailers.
    pub const REQUEST_TRAILERS: Self = Self(1 << 2);
    /// Response head.
    pub const RESPONSE_HEAD: Self = Self(1 << 3);
    /// Response body.
    pub const RESPONSE_BODY: Self = Self(1 << 4);
    /// Response trailers.
    pub const RESPONSE_TRAILERS: Self = Self(1 << 5);

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}
