//! `/debug/syncz`: what `meshctl proxy-status` reads. Its form is stable; fields may be added.
//!
//! ```json
//! {
//!   "controlPlane": {"name": "meshd", "version": "0.1.0", "generation": 1763720000001, "change": "12",
//!     "certificates": [{"what": "root", "notAfter": "2036-01-31T12:00:00Z", "state": "fine"}]},
//!   "proxies": [{
//!     "proxy": "web-1.shop", "node": "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local", "connection": "sidecar~…-7",
//!     "type": "sidecar", "flavor": "lateen", "namespace": "shop", "name": "web-1", "clusterId": "Kubernetes",
//!     "version": "0.1.0", "identity": "spiffe://cluster.local/ns/shop/sa/web", "peer": "10.0.0.1:40404",
//!     "protocol": "delta", "connectedAt": "2026-01-31T12:00:00Z", "captured": true,
//!     "types": {
//!       "CDS": {
//!         "status": "SYNCED",
//!         "sent": {"version": "1763720000001", "nonce": "4", "at": "2026-01-31T12:00:01Z"},
//!         "acked": {"version": "1763720000001", "nonce": "4", "at": "2026-01-31T12:00:01Z"},
//!         "wildcard": true, "names": 0
//!       },
//!       "RDS": {"status": "ERROR", "error": {"version": "…", "nonce": "…", "at": "…", "reason": "…",
//!                                            "resources": [{"name": "80", "reason": "…"}]}}
//!     },
//!     "waitingFor": ["12"]
//!   }],
//!   "changes": [{"id": "12", "objects": ["VirtualService/shop/web"], "expected": 2, "confirmed": 1, "lost": 0,
//!                "waiting": ["sidecar~…-7"], "rejected": [], "tookMs": 3.2, "done": false}],
//!   "convergence": {"count": 2, "p50Ms": 3.2, "p90Ms": 4.0, "p99Ms": 4.0, "maxMs": 4.0}
//! }
//! ```
//!
//! `status` is one of `SYNCED` (the last response was accepted, or the proxy connected with what it should have), `STALE` (it
//! was not answered yet, or a newer state is on its way), `ERROR` (it was rejected; the proxy keeps what it had) and `NOT SENT`
//! (the proxy did not ask). `types` has all of `CDS`,
//! `EDS`, `LDS`, `RDS`, `VHDS`, `SDS` and `MARK`. Versions of responses are generations of the control plane (incremental) or
//! hashes of content (state of the world). `generation` is that of the last snapshot that every proxy it concerns has or shows
//! as `STALE`. `changes` are the last 100, oldest first. `captured` is there when the proxy says whether its workload's traffic
//! is led through it. `certificates` are the authority's, `state` one of `fine`, `soon` (30 days), `urgent` (seven) and `expired`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use mesh_api::text::Str;
use mesh_api_xds::ads::Protocol;
use mesh_api_xds::type_url::TypeUrl;
use mesh_ca::time::display;
use meshd_core::proxy::{Flavor, ProxyType};
use meshd_core::rollout::{ChangeId, ProxyKey, Rollout};
use serde::Serialize;

use crate::ca::expiry::Expiry;
use crate::published::Published;
use crate::push::registry::{Connection, Exchange, Registry, TypeInfo};

/// Changes shown.
const MAX_CHANGES: usize = 100;

/// The page.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    control_plane: ControlPlane,
    proxies: Vec<Proxy>,
    changes: Vec<Change>,
    convergence: Convergence,
}

#[derive(Debug, Serialize)]
struct ControlPlane {
    name: &'static str,
    version: &'static str,
    generation: Option<u64>,
    change: Option<String>,
    certificates: Vec<Certificate>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Certificate {
    what: &'static str,
    not_after: String,
    state: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Proxy {
    proxy: String,
    node: Str,
    connection: Str,
    r#type: &'static str,
    flavor: &'static str,
    namespace: Str,
    name: Str,
    cluster_id: Str,
    version: Str,
    identity: Option<String>,
    peer: Str,
    protocol: &'static str,
    connected_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    captured: Option<bool>,
    types: BTreeMap<&'static str, Type>,
    waiting_for: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Type {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<Answer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acked: Option<Answer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Error>,
    wildcard: bool,
    names: usize,
}

#[derive(Debug, Serialize)]
struct Answer {
    version: Str,
    nonce: Str,
    at: String,
}

#[derive(Debug, Serialize)]
struct Error {
    version: Str,
    nonce: Str,
    at: String,
    reason: Str,
    resources: Vec<Rejected>,
}

#[derive(Debug, Serialize)]
struct Rejected {
    name: Str,
    reason: Str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    id: String,
    objects: Vec<String>,
    expected: usize,
    confirmed: usize,
    lost: usize,
    waiting: Vec<Str>,
    rejected: Vec<Str>,
    took_ms: Option<f64>,
    done: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Convergence {
    count: usize,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// The page now.
pub(super) fn page(registry: &Registry, published: Option<&Published>, expiries: &[Expiry], now: SystemTime) -> Page {
    // First the generation: what is said of a proxy after that is not older.
    let generation = registry.queued();
    let connections = registry.connections();
    let rollout = registry.rollout();
    let ids: Vec<ChangeId> = rollout.changes().collect();
    let recent = ids.get(ids.len().saturating_sub(MAX_CHANGES)..).unwrap_or_default();
    let changes: Vec<Change> = recent.iter().filter_map(|id| change(&rollout, *id)).collect();
    let convergence = rollout.convergence();
    drop(rollout);
    let proxies = connections.iter().map(|connection| proxy(connection, &changes)).collect();
    Page {
        control_plane: ControlPlane {
            name: "meshd",
            version: env!("CARGO_PKG_VERSION"),
            generation,
            change: published.map(|published| published.through.0.to_string()),
            certificates: expiries
                .iter()
                .map(|expiry| Certificate {
                    what: expiry.what,
                    not_after: display(expiry.not_after),
                    state: expiry.nearness(now).as_str(),
                })
                .collect(),
        },
        proxies,
        changes,
        convergence: Convergence {
            count: convergence.count,
            p50_ms: millis(convergence.p50),
            p90_ms: millis(convergence.p90),
            p99_ms: millis(convergence.p99),
            max_ms: millis(convergence.max),
        },
    }
}

impl Page {
    /// The page with the streams of one proxy.
    pub(super) fn only(mut self, id: &str) -> Self {
        self.proxies.retain(|proxy| proxy.connection == *id || proxy.node == *id || proxy.proxy == id);
        self
    }
}

fn proxy(connection: &Connection, changes: &[Change]) -> Proxy {
    let (view, facts) = (&connection.view, &connection.facts);
    let waits = |change: &&Change| change.waiting.contains(&connection.key.0);
    // Before the types: what is sent in between is then seen there.
    let behind = connection.is_behind();
    let types = connection.types();
    Proxy {
        proxy: format!("{}.{}", view.name, view.namespace),
        node: view.id.clone(),
        connection: connection.key.0.clone(),
        r#type: match view.kind {
            ProxyType::Sidecar => "sidecar",
            ProxyType::Router => "router",
        },
        flavor: match view.flavor {
            Flavor::Lateen => "lateen",
            Flavor::Envoy => "envoy",
        },
        namespace: view.namespace.0.clone(),
        name: view.name.0.clone(),
        cluster_id: view.cluster.0.clone(),
        version: facts.version.clone(),
        identity: facts.identity.as_ref().map(ToString::to_string),
        peer: facts.peer.clone(),
        protocol: match facts.protocol {
            Protocol::Delta => "delta",
            Protocol::Sotw => "sotw",
        },
        connected_at: display(facts.since),
        captured: facts.captured,
        types: TypeUrl::ALL
            .into_iter()
            .map(|type_url| (type_url.short(), of_type(types.of(type_url), behind)))
            .collect(),
        waiting_for: changes.iter().filter(waits).map(|change| change.id.clone()).collect(),
    }
}

/// `behind`: a newer state is on its way to the proxy.
fn of_type(info: &TypeInfo, behind: bool) -> Type {
    let status = match (&info.nack, &info.sent, &info.acked) {
        (Some(_), ..) => "ERROR",
        // It came back with just what it should have, and said so: there was nothing to send.
        (None, None, _) if (info.wildcard || info.names > 0) && !behind => "SYNCED",
        (None, None, _) => "NOT SENT",
        (None, Some(sent), Some(acked)) if sent.nonce == acked.nonce && !behind => "SYNCED",
        (None, Some(_), _) => "STALE",
    };
    let answer = |exchange: &Exchange| Answer {
        version: exchange.version.clone(),
        nonce: exchange.nonce.clone(),
        at: display(exchange.at),
    };
    Type {
        status,
        sent: info.sent.as_ref().map(answer),
        acked: info.acked.as_ref().map(answer),
        error: info.nack.as_ref().map(|nack| Error {
            version: nack.of.version.clone(),
            nonce: nack.of.nonce.clone(),
            at: display(nack.of.at),
            reason: nack.reason.clone(),
            resources: nack
                .resources
                .iter()
                .map(|(name, reason)| Rejected { name: name.clone(), reason: reason.clone() })
                .collect(),
        }),
        wildcard: info.wildcard,
        names: info.names,
    }
}

fn change(rollout: &Rollout, id: ChangeId) -> Option<Change> {
    let status = rollout.change_status(id)?;
    let keys = |keys: Vec<ProxyKey>| keys.into_iter().map(|key| key.0).collect();
    Some(Change {
        id: id.0.to_string(),
        objects: status.objects.iter().map(ToString::to_string).collect(),
        expected: status.expected,
        confirmed: status.confirmed,
        lost: status.lost,
        waiting: keys(status.waiting),
        rejected: keys(status.nacked),
        took_ms: status.took.map(millis),
        done: status.done,
    })
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::registry::NackInfo;

    fn mk_exchange(nonce: &str) -> Exchange {
        Exchange { nonce: Str::from(nonce), version: Str::from("1"), at: SystemTime::UNIX_EPOCH }
    }

    #[track_caller]
    fn check(info: &TypeInfo, expect: &str) {
        assert_eq!(of_type(info, false).status, expect);
    }

    #[test]
    fn the_words_are_istioctls() {
        let mut info = TypeInfo::default();
        check(&info, "NOT SENT");
        info.wildcard = true;
        check(&info, "SYNCED");
        assert_eq!(of_type(&info, true).status, "NOT SENT", "it is on its way");
        info.sent = Some(mk_exchange("1"));
        check(&info, "STALE");
        info.acked = info.sent.clone();
        check(&info, "SYNCED");
        assert_eq!(of_type(&info, true).status, "STALE", "something newer is on its way");
        info.sent = Some(mk_exchange("2"));
        check(&info, "STALE");
        info.nack = Some(NackInfo { of: mk_exchange("2"), reason: Str::from("bad"), resources: vec![] });
        check(&info, "ERROR");
    }
}
