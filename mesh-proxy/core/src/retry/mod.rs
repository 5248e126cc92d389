//! Whether, when and how often a request is sent again.

pub mod backoff;
pub mod budget;
pub mod policy;
pub mod requested;
pub mod resend;
