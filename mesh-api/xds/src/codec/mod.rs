//! The internal representation as Envoy's messages, and back.

pub(crate) mod value;
