//! What Istio's agent does beside the proxy, for the same process: facts of the pod, probes of the application, merged
//! metrics, the commands that scripts call, and the order in which the proxy stops.

pub mod client;
pub mod commands;
pub mod log_levels;
pub mod pod;
pub mod probe;
pub mod scrape;
pub mod shutdown;
