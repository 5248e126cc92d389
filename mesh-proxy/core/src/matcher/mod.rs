//! Tests on strings, headers, query parameters and paths, compiled from the IR.

pub mod header;
pub mod host;
pub mod path;
pub mod pattern;
pub mod query;
pub mod string;
