//! The proxy's decisions: plan, matching, balancing, retries, HTTP/1.1 machine. No I/O, no clock, no randomness.
//!
//! Functions here take bytes, configuration, `now` and random numbers as arguments and return data. The shell (`mesh-proxy`)
//! owns sockets, tasks, TLS and clocks; the command line links the same functions to explain what a proxy would do.

pub mod detect;
pub mod dns;
pub mod fault;
pub mod flags;
pub mod h1;
pub mod head;
pub mod hello;
pub mod log_format;
pub mod reply;
pub mod stats;

pub mod authz;
pub mod balance;
pub mod chain;
pub mod draw;
pub mod endpoint;
pub mod facts;
pub mod filter;
pub mod health;
pub mod limit;
pub mod matcher;
pub mod plan;
pub mod rejected;
pub mod retry;
pub mod route;
pub mod trace;

#[cfg(test)]
mod testing;
