//! What the process is: `/server_info`, `/memory`, `/certs`, `/listeners`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh_api_rt::admin::{Request, Response, Router};
use mesh_api_xds::ir::secret::SecretContent;
use serde_json::{Value, json};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{Pem, X509Certificate};

use super::Admin;
use super::clusters::socket_address;
use super::ready::NotReady;
use crate::handover::message;

/// Adds the pages.
pub(super) fn pages(router: Router, admin: &Arc<Admin>) -> Router {
    let (info, certs, listeners) = (Arc::clone(admin), Arc::clone(admin), Arc::clone(admin));
    router
        .get("/server_info", "Version, state and node, as JSON", move |_| Response::json(&info.server_info()))
        .get("/memory", "Memory of the process, as JSON", |_| Response::json(&memory()))
        .get("/certs", "Certificates in use, without keys, as JSON", move |_| Response::json(&certs.certs()))
        .get("/listeners", "Listeners: ?format=json", move |request| listeners.listeners(&request))
}

impl Admin {
    fn server_info(&self) -> Value {
        let bootstrap = &self.context.bootstrap;
        let node = &bootstrap.node;
        let state = match self.not_ready() {
            None | Some(NotReady::Failing) => "LIVE",
            Some(NotReady::Draining) => "DRAINING",
            Some(NotReady::Configuration | NotReady::Certificate | NotReady::Names) => "INITIALIZING",
        };
        let uptime = self.started.elapsed();
        let handover = &self.context.handover;
        let build = mesh_api_rt::build_info!("mesh-proxy");
        // A hash of at most 40 letters, the version, and words in Envoy's order.
        let profile = if cfg!(debug_assertions) { "DEBUG" } else { "RELEASE" };
        json!({
            "version": format!("{}/{}/Clean/{profile}/AWS-LC", build.revision, build.version),
            "state": state,
            "hot_restart_version": format!("lateen.{}", message::VERSION),
            "command_line_options": {
                "concurrency": bootstrap.workers,
                "service_cluster": &*node.service_cluster,
                "service_node": node.id(),
                "drain_time": format!("{}s", bootstrap.drain.duration.as_secs()),
                "restart_epoch": handover.generation(),
            },
            "node": self.node(),
            "uptime_current_epoch": format!("{}s", uptime.as_secs()),
            "uptime_all_epochs": format!("{}s", handover.since_the_first(SystemTime::now()).max(uptime).as_secs()),
        })
    }

    /// The node as in `envoy.config.core.v3.Node`.
    pub(super) fn node(&self) -> Value {
        let node = &self.context.bootstrap.node;
        json!({
            "id": node.id(),
            "cluster": &*node.service_cluster,
            "metadata": serde_json::to_value(&node.metadata).unwrap_or_default(),
            "locality": {
                "region": &*node.locality.region,
                "zone": &*node.locality.zone,
                "sub_zone": &*node.locality.subzone,
            },
            "user_agent_name": "mesh-proxy",
            "user_agent_version": env!("CARGO_PKG_VERSION"),
        })
    }

    /// `envoy.admin.v3.Certificates`.
    fn certs(&self) -> Value {
        let live = self.context.shared.store.live();
        let now = SystemTime::now();
        let mut own = Vec::new();
        let mut trusted = Vec::new();
        for secret in live.plan.secrets() {
            match &secret.content {
                SecretContent::Certificate { chain, .. } => own.extend(read_certificates(&secret.name, chain, now)),
                SecretContent::Trust(pem) => trusted.extend(read_certificates(&secret.name, pem, now)),
            }
        }
        json!({ "certificates": [{ "ca_cert": trusted, "cert_chain": own }] })
    }

    fn listeners(&self, request: &Request) -> Response {
        let live = self.context.shared.store.live();
        if request.param("format").as_deref() == Some("json") {
            let status = |listener: &Arc<mesh_proxy_core::plan::listener::ListenerPlan>| {
                json!({
                    "name": &*listener.name,
                    "local_address": socket_address(listener.address),
                    "additional_local_addresses":
                        listener.additional_addresses.iter().map(|address| socket_address(*address)).collect::<Vec<_>>(),
                })
            };
            let all: Vec<_> = live.plan.listeners().map(status).collect();
            return Response::json(&json!({ "listener_statuses": all }));
        }
        let line = |listener: &Arc<mesh_proxy_core::plan::listener::ListenerPlan>| {
            listener.addresses().fold(String::new(), |text, address| format!("{text}{}::{address}\n", listener.name))
        };
        Response::ok(live.plan.listeners().map(line).collect::<String>())
    }
}

/// Details of each certificate of a PEM text; what does not parse is left out.
fn read_certificates(name: &str, pem: &[u8], now: SystemTime) -> Vec<Value> {
    let blocks = Pem::iter_from_buffer(pem).filter_map(Result::ok);
    let details = |block: Pem| {
        let certificate = block.parse_x509().ok()?;
        let days = expires(&certificate).duration_since(now).unwrap_or_default().as_secs() / 86_400;
        Some(json!({
            "path": format!("<{name}>"),
            "serial_number": certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
            "subject_alt_names": names(&certificate),
            "days_until_expiration": days.to_string(),
            "valid_from": rfc3339(certificate.validity().not_before.timestamp()),
            "expiration_time": rfc3339(certificate.validity().not_after.timestamp()),
        }))
    };
    blocks.filter_map(details).collect()
}

fn names(certificate: &X509Certificate<'_>) -> Vec<Value> {
    let found = certificate.subject_alternative_name().ok().flatten();
    let names = found.iter().flat_map(|names| &names.value.general_names);
    names
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(json!({ "uri": uri })),
            GeneralName::DNSName(name) => Some(json!({ "dns": name })),
            _ => None,
        })
        .collect()
}

/// When a certificate ends; the epoch for one that ended before it.
pub(super) fn expires(certificate: &X509Certificate<'_>) -> SystemTime {
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A moment as protobuf's JSON has it.
pub(super) fn moment(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    rfc3339(i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// `2026-01-02T03:04:05Z`, by the civil calendar of Howard Hinnant's `civil_from_days`.
fn rfc3339(timestamp: i64) -> String {
    let (days, second) = (timestamp.div_euclid(86_400), timestamp.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Memory of the process in bytes, as far as the kernel knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Resident and of no file.
    pub(super) allocated: u64,
    /// Data pages.
    pub(super) heap: u64,
    /// Resident.
    pub(super) resident: u64,
}

impl Memory {
    /// What it is now; zero where the kernel does not say.
    pub(super) fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim_start_matches(':').trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
        };
        let bytes = |key: &str| kib(key).unwrap_or_default().saturating_mul(1024);
        Self { allocated: bytes("RssAnon"), heap: bytes("VmData"), resident: bytes("VmRSS") }
    }
}

/// `envoy.admin.v3.Memory`.
fn memory() -> Value {
    let Memory { allocated, heap, resident } = Memory::read();
    json!({
        "allocated": allocated.to_string(),
        "heap_size": heap.to_string(),
        "total_physical_bytes": resident.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_the_civil_calendar() {
        let check = |timestamp, expect: &str| assert_eq!(rfc3339(timestamp), expect);
        check(0, "1970-01-01T00:00:00Z");
        check(951_827_696, "2000-02-29T12:34:56Z");
        check(1_767_323_045, "2026-01-02T03:04:05Z");
        check(253_402_300_799, "9999-12-31T23:59:59Z");
        check(-1, "1969-12-31T23:59:59Z");
    }

    #[test]
    fn memory_is_known_on_this_system() {
        assert!(memory()["total_physical_bytes"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    }
}
