//! TLS in both directions.

use std::sync::Arc;

use mesh_api::identity::SpiffeId;
use mesh_api::names::{ISTIO_ALPN, ISTIO_H2_ALPN, ISTIO_HTTP10_ALPN, ISTIO_HTTP11_ALPN, ISTIO_PEER_EXCHANGE_ALPN};
use mesh_api::text::Str;
use mesh_api_xds::ir::chain::{ClientCertificate, DownstreamTls, TlsVersion, TlsVersions, Validation};
use mesh_api_xds::ir::cluster::{Sni, Transport, UpstreamProtocol, UpstreamTls};
use mesh_api_xds::ir::matcher::{StringMatch, StringPattern};

use super::keys::{AutoTls, ClusterKey};
use super::names;
use crate::proxy::Flavor;
use crate::snapshot::destination_rules::{Blocks, ClientTls, Origination};
use crate::snapshot::mesh::Mesh;
use crate::snapshot::secrets::{MESH_ROOTS, WORKLOAD_CERTIFICATE};
use crate::snapshot::services::Service;

/// ALPN of any mesh TLS: what tells it from the application's own (istio-surface section 7.1).
pub(crate) const MESH_ALPN: &[&str] =
    &[ISTIO_ALPN, ISTIO_PEER_EXCHANGE_ALPN, ISTIO_HTTP10_ALPN, ISTIO_HTTP11_ALPN, ISTIO_H2_ALPN];
/// ALPN of mesh TLS that carries HTTP.
pub(crate) const MESH_HTTP_ALPN: &[&str] = &[ISTIO_HTTP10_ALPN, ISTIO_HTTP11_ALPN, ISTIO_H2_ALPN];
/// ALPN of mesh TLS that carries anything else.
pub(crate) const MESH_TCP_ALPN: &[&str] = &[ISTIO_ALPN, ISTIO_PEER_EXCHANGE_ALPN];

pub(crate) fn texts(words: &[&str]) -> Arc<[Str]> {
    words.iter().map(|word| Str::from(*word)).collect()
}

/// Security of a cluster's connections.
pub(crate) fn upstream(key: &ClusterKey, blocks: &Blocks, protocol: UpstreamProtocol) -> Transport {
    let own = &key.service.sans;
    match &blocks.tls {
        Some(ClientTls::Disable) => Transport::Plaintext,
        Some(ClientTls::Istio { sans, sni }) => Transport::Tls(Arc::new(mesh_tls(key, sans, sni, protocol))),
        Some(ClientTls::Origination(origination)) => {
            Transport::Tls(Arc::new(origination_tls(key, origination, own, protocol)))
        }
        None => match key.auto {
            AutoTls::Off => Transport::Plaintext,
            AutoTls::PerEndpoint => Transport::Auto(Arc::new(mesh_tls(key, &[], "", protocol))),
            AutoTls::All => Transport::Tls(Arc::new(mesh_tls(key, &[], "", protocol))),
        },
    }
}

/// Mutual TLS with workload certificates. `sans` and `sni` override what the endpoints and the service give.
fn mesh_tls(key: &ClusterKey, sans: &[Str], sni: &str, protocol: UpstreamProtocol) -> UpstreamTls {
    let ClusterKey { mesh, service, port, subset, .. } = key;
    let sans = if sans.is_empty() { peer_names(mesh, service, key) } else { sans.to_vec() };
    let sni = if sni.is_empty() { names::sni(port.number, subset, &service.host) } else { Str::from(sni) };
    // `istio-peer-exchange` promises a preamble on TCP connections, which a stock Envoy does not speak. Requests have
    // headers for it: their connections override this list.
    let alpn: &[&str] = match (key.flavor, protocol) {
        (Flavor::Lateen, UpstreamProtocol::Http2) => &[ISTIO_ALPN, "h2"],
        (Flavor::Lateen, _) => &[ISTIO_PEER_EXCHANGE_ALPN, ISTIO_ALPN],
        // A stock Envoy has no filter that would set the ALPN by request.
        (Flavor::Envoy, UpstreamProtocol::Http2) => &[ISTIO_H2_ALPN, ISTIO_ALPN, "h2"],
        (Flavor::Envoy, UpstreamProtocol::Http1) if port.protocol.is_http() => {
            &[ISTIO_HTTP11_ALPN, ISTIO_ALPN, "http/1.1"]
        }
        (Flavor::Envoy, _) => &[ISTIO_ALPN],
    };
    UpstreamTls {
        certificate: Some(Str::from(WORKLOAD_CERTIFICATE)),
        validation: Some(Validation {
            trust: Str::from(MESH_ROOTS),
            sans: sans.iter().map(|name| StringMatch::exact(name)).collect(),
        }),
        sni: Sni::Name(sni),
        alpn: texts(alpn),
        alpn_override: true,
        versions: TlsVersions { min: mesh.mesh_tls_min, max: TlsVersion::V1_3 },
    }
}

/// Identities of the service accounts behind a service, in every trust domain of the mesh, and its own names.
fn peer_names(mesh: &Mesh, service: &Service, key: &ClusterKey) -> Vec<Str> {
    let domains = || std::iter::once(&mesh.trust_domain).chain(mesh.trust_domain_aliases.iter());
    let accounts = key.accounts.iter().flat_map(|(namespace, account)| {
        domains()
            .map(move |domain| Str::from(SpiffeId::new(domain.clone(), namespace.clone(), account.clone()).to_string()))
    });
    let mut names: Vec<Str> = accounts.chain(service.sans.iter().chain(key.added_sans.iter()).cloned()).collect();
    names.sort();
    names.dedup();
    names
}

fn origination_tls(
    key: &ClusterKey,
    origination: &Origination,
    own: &[Str],
    protocol: UpstreamProtocol,
) -> UpstreamTls {
    let Origination { certificate, trust, sans, sni, credential: _ } = origination;
    let mut sans = if sans.is_empty() { own.to_vec() } else { sans.to_vec() };
    let sni = match (sni.is_empty(), key.port.protocol.may_be_http()) {
        (false, _) => Sni::Name(sni.clone()),
        (true, true) => Sni::FromHost,
        // Without requests there is no host but the service's.
        (true, false) if key.service.host.is_wildcard() => Sni::None,
        (true, false) => {
            if sans.is_empty() {
                sans.push(key.service.host.text().clone());
            }
            Sni::Name(key.service.host.text().clone())
        }
    };
    let alpn: &[&str] = match protocol {
        UpstreamProtocol::Http2 => &["h2"],
        UpstreamProtocol::Http1 | UpstreamProtocol::Downstream => &[],
    };
    UpstreamTls {
        certificate: certificate.clone(),
        validation: trust
            .clone()
            .map(|trust| Validation { trust, sans: sans.iter().map(|name| StringMatch::exact(name)).collect() }),
        sni,
        alpn: texts(alpn),
        alpn_override: false,
        versions: TlsVersions::default(),
    }
}

/// Mutual TLS of a workload's inbound chains: the client must have a certificate of the mesh.
pub(crate) fn inbound(mesh: &Mesh, flavor: Flavor, http: bool) -> Arc<DownstreamTls> {
    let domains = std::iter::once(&mesh.trust_domain).chain(mesh.trust_domain_aliases.iter());
    let sans = domains
        .map(|domain| StringMatch::new(StringPattern::Prefix(Str::from(format!("spiffe://{domain}/")))))
        .collect();
    // The client's `istio…` protocols say what is inside, they are never selected but for the exchange of who is who; an
    // application protocol is.
    let alpn: &[&str] = match (http, flavor) {
        (true, _) => &["h2", "http/1.1"],
        (false, Flavor::Lateen) => &[ISTIO_PEER_EXCHANGE_ALPN],
        (false, Flavor::Envoy) => &[],
    };
    Arc::new(DownstreamTls {
        certificates: [Str::from(WORKLOAD_CERTIFICATE)].into(),
        client: ClientCertificate::Required(Validation { trust: Str::from(MESH_ROOTS), sans }),
        alpn: texts(alpn),
        versions: TlsVersions { min: mesh.mesh_tls_min, max: TlsVersion::V1_3 },
        handshake_timeout: std::time::Duration::ZERO,
    })
}
