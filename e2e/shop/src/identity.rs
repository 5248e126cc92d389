//! Who answers.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use crate::cli;
use crate::proto;

/// The service, version and instance that every answer names.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Identity {
    pub(crate) service: &'static str,
    pub(crate) version: String,
    pub(crate) instance: String,
}

pub(crate) const SERVICE: HeaderName = HeaderName::from_static("x-service");
pub(crate) const VERSION: HeaderName = HeaderName::from_static("x-version");
pub(crate) const INSTANCE: HeaderName = HeaderName::from_static("x-instance");

impl Identity {
    pub(crate) fn new(service: &'static str, args: &cli::Service) -> Self {
        let instance = args.instance.clone().unwrap_or_else(host_name);
        Self { service, version: args.version.clone(), instance }
    }

    /// Adds `x-service`, `x-version`, `x-instance`.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        for (name, value) in [(SERVICE, self.service), (VERSION, &self.version), (INSTANCE, &self.instance)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
    }

    pub(crate) fn message(&self) -> proto::Server {
        let Self { service, version, instance } = self.clone();
        proto::Server { service: service.to_owned(), version, instance }
    }

    /// `reviews v2 reviews-1`: for protocols that carry text only.
    pub(crate) fn line(&self) -> String {
        format!("{} {} {}", self.service, self.version, self.instance)
    }
}

/// The name of this host or UTS namespace, as the kernel has it.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "unknown".to_owned(),
        name => name.to_owned(),
    }
}
