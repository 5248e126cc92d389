//! The aggregated discovery protocol as state machines without I/O: messages in, actions out.
//!
//! [`server`] decides what a proxy is sent and when, [`client`] what a proxy asks for and reports. Both speak the incremental
//! and the state-of-the-world variant. The shells only pump the actions; ACK, NACK, stale nonces, subscriptions and the order
//! of types are decided here, once.
//!
//! Invariants:
//! - at most one response of a type is in flight; what changes meanwhile is coalesced into the next one;
//! - types are sent in the order of [`TypeUrl::ALL`](crate::type_url::TypeUrl::ALL);
//! - a client that takes generation marks is sent whole states only: all that changed, then the mark; nothing of the next
//!   state before the last one was answered;
//! - what was offered is not offered again until it changes, accepted or not;
//! - a client without marks loses a cluster only after the routes that led to it (incremental variant).

pub mod client;
mod delta;
mod nonce;
pub mod server;
mod sotw;
pub mod sub;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use mesh_api::text::Str;
use prost::Message as _;

use crate::codec::DecodeError;
use crate::discovery::{
    Any, DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, RejectionMessage,
    Rejections, Status,
};
use crate::type_url::TypeUrl;

pub use crate::discovery::Protocol;

/// A message from the proxy to the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Incremental.
    Delta(DeltaDiscoveryRequest),
    /// State of the world.
    Sotw(DiscoveryRequest),
}

impl Request {
    /// The encoded node; empty on all but a stream's first request.
    #[must_use]
    pub const fn node(&self) -> &Bytes {
        match self {
            Self::Delta(request) => &request.node,
            Self::Sotw(request) => &request.node,
        }
    }
}

/// A message from the control plane to the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// Incremental.
    Delta(DeltaDiscoveryResponse),
    /// State of the world.
    Sotw(DiscoveryResponse),
}

impl Response {
    /// Type URL of the resources.
    #[must_use]
    pub fn type_url(&self) -> &str {
        match self {
            Self::Delta(response) => &response.type_url,
            Self::Sotw(response) => &response.type_url,
        }
    }

    /// The nonce that the answer repeats.
    #[must_use]
    pub fn nonce(&self) -> &str {
        match self {
            Self::Delta(response) => &response.nonce,
            Self::Sotw(response) => &response.nonce,
        }
    }
}

/// A resource that a proxy refused, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rejection {
    /// Resource name.
    pub name: Str,
    /// Place in the resource; empty when it is the whole.
    pub path: Str,
    /// Why.
    pub reason: Str,
}

impl Rejection {
    /// The rejection of a resource that cannot be decoded.
    #[must_use]
    pub fn undecodable(name: Str, error: &DecodeError) -> Self {
        Self { name, path: Str::from(&error.path), reason: Str::from(&error.reason) }
    }
}

/// Why a stream has to be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// A message of the other protocol variant.
    #[error("a message of the other protocol variant on this stream")]
    WrongProtocol,
    /// More names than [`MAX_NAMES`] of one type.
    #[error("more than {MAX_NAMES} {0} names subscribed to")]
    TooManyNames(TypeUrl),
    /// A name longer than [`MAX_NAME_BYTES`].
    #[error("a {0} name is longer than {MAX_NAME_BYTES} bytes")]
    NameTooLong(TypeUrl),
    /// More than [`MAX_UNANSWERED`] responses of a type without waiting for an answer.
    #[error("more than {MAX_UNANSWERED} unanswered {0} responses")]
    TooManyResponses(TypeUrl),
}

/// Most names that one stream may subscribe to, for each type. Source: our judgement, ten times the largest mesh that Istio
/// documents (10,000 services).
pub const MAX_NAMES: usize = 100_000;
/// Longest resource name in bytes. Source: our judgement; the longest of Istio's names (`outbound|port|subset|host`) stays
/// under 600.
pub const MAX_NAME_BYTES: usize = 2048;
/// Longest text of a NACK that is kept or sent, in bytes.
pub const MAX_REASON_BYTES: usize = 4096;
/// Most rejected resources named in one NACK.
pub const MAX_REJECTIONS: usize = 256;
/// Most responses of a type that a client lets wait for its answer.
pub const MAX_UNANSWERED: usize = 64;

/// gRPC status `INVALID_ARGUMENT`, the code of a NACK.
const INVALID_ARGUMENT: i32 = 3;

/// Text cut to a bound at a character boundary.
fn bounded(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}

/// The error detail of a NACK.
fn nack_status(reason: &str, rejections: &[Rejection]) -> Status {
    let message = Rejections {
        rejections: rejections
            .iter()
            .take(MAX_REJECTIONS)
            .map(|rejection| RejectionMessage {
                name: rejection.name.to_string(),
                path: bounded(&rejection.path, MAX_REASON_BYTES).to_owned(),
                reason: bounded(&rejection.reason, MAX_REASON_BYTES).to_owned(),
            })
            .collect(),
    };
    let details = Any { type_url: Rejections::TYPE_URL.to_owned(), value: message.encode_to_vec().into() };
    Status {
        code: INVALID_ARGUMENT,
        message: bounded(reason, MAX_REASON_BYTES).to_owned(),
        details: if rejections.is_empty() { Vec::new() } else { vec![details] },
    }
}

/// The rejected resources that a NACK names; none when it is not one of ours.
fn rejections_of(status: &Status) -> Vec<Rejection> {
    let details = status.details.iter().find(|detail| detail.type_url == Rejections::TYPE_URL);
    let message = details.and_then(|detail| Rejections::decode(detail.value.clone()).ok()).unwrap_or_default();
    let rejections = message.rejections.into_iter().take(MAX_REJECTIONS);
    rejections
        .map(|rejection| Rejection {
            name: Str::from(bounded(&rejection.name, MAX_NAME_BYTES)),
            path: Str::from(bounded(&rejection.path, MAX_REASON_BYTES)),
            reason: Str::from(bounded(&rejection.reason, MAX_REASON_BYTES)),
        })
        .collect()
}
