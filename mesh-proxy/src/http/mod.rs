//! HTTP: codecs behind one vocabulary of events, and the request pipeline above them.

pub mod event;
pub mod h1;
pub mod h2;
pub mod pump;
