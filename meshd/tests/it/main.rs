//! A whole control plane in this process: a folder of files, sockets on loopback, and the protocol's own client.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is the right report")]

mod authority;
mod bed;
mod files;
mod proxies;
mod report;
mod scale;
