//! A whole control plane in this process: a folder of files, sockets on loopback, and the protocol's own client.

mod authority;
mod bed;
mod proxies;
mod report;
