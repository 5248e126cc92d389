//! Rules of single objects. Everything wrong is collected; nothing stops at the first.

pub mod not_acting;
