//! Reading Rust source well enough to check its shape: tokens, functions, paths.
//!
//! Not a parser: no types, no macros expanded. It is exact about what matters here (comments, strings, raw strings,
//! lifetimes against characters, nesting), costs no dependency and reads the whole tree in a fraction of a second.

pub(crate) mod functions;
pub(crate) mod lex;
pub(crate) mod paths;
