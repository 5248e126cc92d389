//! Bounds of what a peer may make us read and keep, and how it is read.

use crate::head::NameCase;

/// Most fields that any configuration can admit: the tokenizer's records stand on the stack.
pub const MAX_FIELDS: usize = 256;

/// Bounds for the messages of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Start line and field lines, in bytes. Default 60 KiB, as Envoy's `max_request_headers_kb`.
    pub max_head_bytes: usize,
    /// Field lines of a head or trailer section; at most [`MAX_FIELDS`] act. Default 100, as Envoy's `max_headers_count`.
    pub max_fields: usize,
    /// Trailer section in bytes. Default 16 KiB.
    pub max_trailer_bytes: usize,
    /// Chunk extensions of one message in bytes, all chunks together. Default 16 KiB, as Go's net/http since CVE-2023-39326.
    pub max_extension_bytes: usize,
    /// Whether requests may be HTTP/1.0.
    pub http10: Http10,
    /// Case of field names.
    pub names: NameCase,
}

/// What becomes of HTTP/1.0 requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Http10 {
    /// Answered with 426, as Istio does by default.
    #[default]
    Refuse,
    /// Served; `PILOT_HTTP10` in Istio.
    Accept,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_head_bytes: 60 << 10,
            max_fields: 100,
            max_trailer_bytes: 16 << 10,
            max_extension_bytes: 16 << 10,
            http10: Http10::Refuse,
            names: NameCase::Lower,
        }
    }
}
