//! HTTP: codecs behind one vocabulary of events, and the request pipeline above them.

pub mod attempt;
pub mod call;
pub mod downstream;
pub mod event;
pub mod exchange;
pub mod h1;
pub mod h2;
pub mod prepare;
pub mod pump;
pub mod reply;
pub mod retry;
pub mod serve;
pub mod transfer;
