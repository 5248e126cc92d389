//! The proxy's decisions: plan, matching, balancing, retries, HTTP/1.1 machine. No I/O, no clock.
