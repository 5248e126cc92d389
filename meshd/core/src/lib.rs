//! The control plane's decisions: world, snapshot, translation. No I/O, no clock.
