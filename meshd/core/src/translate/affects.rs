//! Which changes concern which proxies.
