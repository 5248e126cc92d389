//! The proxy's sockets: where they come from, how they are set up, and what the kernel knows about them.

pub mod accept;
pub mod copy;
pub mod inspect;
pub mod io;
pub mod orig_dst;
pub mod sockopt;
pub mod stream;
