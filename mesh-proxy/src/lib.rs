//! The proxy as a library, so that other programs and tests can run parts of it.
//!
//! Rooms: [`capture`] leads traffic to the proxy, [`net`] owns its sockets, [`tls`] secures them.

pub mod buffers;
pub mod capture;
pub mod http;
pub mod net;
pub mod tls;
pub mod upstream;
