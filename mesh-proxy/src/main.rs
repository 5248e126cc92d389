//! Sidecar and gateway proxy.

fn main() {}
