//! The demo shop's services; links no mesh crate.

fn main() {}
