//! Answers to look-ups of names: messages as bytes and the table of names that the mesh knows.
//!
//! Only what a proxy between a workload and its name servers needs: to read one question, and to answer it from the table.
//! Look-ups of other names are passed on as the bytes they are. No sockets here; the shell owns them.

pub mod message;
pub mod table;

#[cfg(test)]
mod tests;
