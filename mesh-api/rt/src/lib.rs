//! What the two daemons share at run time: logging, metrics registry, admin server, drain, backoff.
