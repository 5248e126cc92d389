//! The services, one file each.

pub(crate) mod catalogue;
pub(crate) mod feed;
pub(crate) mod orders;
pub(crate) mod ratings;
pub(crate) mod reviews;
pub(crate) mod tcp_echo;
pub(crate) mod web;
