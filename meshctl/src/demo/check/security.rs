//! Who talks to whom, and who is kept out.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use mesh_api::identity::{SpiffeId, TrustDomain};
use mesh_ca::authority::Authority as _;
use mesh_ca::caller::Grant;
use mesh_ca::client::CertificateRequest;
use mesh_ca::csr::ValidCsr;
use mesh_ca::key::KeyKind;
use mesh_ca::selfsigned::{Options, ROOTS_ENTRY, SelfSigned};
use mesh_ca::store::Store;
use mesh_ca::store::file::FileStore;

use super::Check;
use super::support::{all_well, ensure, wrong};
use crate::demo::plan::{NAMESPACE, Role, STRANGER, TRUST_DOMAIN, Workload};
use crate::demo::probe::{ProbeRequest, Seen};
use crate::error::CliError;

/// Lifetime of a probe's own certificate.
const PROBE_TTL: Duration = Duration::from_secs(600);
/// The workload whose certificates live shortest, which shows their rotation.
pub(crate) const SHORT_LIVED: &str = "ratings-1";
/// Lifetime of its certificates: the shortest that the authority gives.
pub(crate) const SHORT_TTL: Duration = Duration::from_secs(60);
/// Time for a rotation to be seen: more than half of that lifetime.
const ROTATION_LIMIT: Duration = Duration::from_secs(60);

impl Check<'_> {
    /// Where a workload's sidecar takes connections of others.
    fn port_of(&self, workload: &Workload) -> Option<SocketAddr> {
        Some((workload.address, workload.service()?.port).into())
    }

    fn request(&self, address: SocketAddr, credential: Option<(PathBuf, PathBuf)>) -> ProbeRequest {
        let roots = self.mesh.dirs.state().join(ROOTS_ENTRY);
        // What mesh clients offer: the first words tell that a proxy calls, the others what it speaks.
        let alpn = ["istio-http/1.1", "istio-peer-exchange", "istio", "http/1.1"].map(str::to_owned).to_vec();
        ProbeRequest { address, alpn, roots, credential }
    }

    /// Certificate and key of the authority in `store`, for an identity of the mesh's trust domain.
    fn credential(&self, name: &str, store: &dyn Store, account: &str) -> Result<(PathBuf, PathBuf), CliError> {
        let failed = |error: &dyn std::error::Error| {
            CliError::internal(format!("cannot make the certificate of {name}")).because(error)
        };
        let domain = TrustDomain::parse(TRUST_DOMAIN).map_err(|error| failed(&error))?;
        let now = SystemTime::now();
        let (ca, _) = SelfSigned::open(store, Options::new(domain.clone()), now).map_err(|error| failed(&error))?;
        let identity = SpiffeId::new(domain, NAMESPACE, account);
        let asked = CertificateRequest::new(identity.clone(), KeyKind::EcdsaP256).map_err(|error| failed(&error))?;
        let csr = ValidCsr::parse(asked.csr()).map_err(|error| failed(&error))?;
        let grant = Grant { identity, dns_names: Vec::new(), max_ttl: None };
        let issued = ca.authority().issue(&csr, &grant, Some(PROBE_TTL), now).map_err(|error| failed(&error))?;
        let credential = asked.finish(&issued.to_answer(), now).map_err(|error| failed(&error))?;
        let folder = self.mesh.dirs.root().join("probes");
        let (chain, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}-key.pem")));
        self.mesh.dirs.write(&chain, credential.chain_pem().as_bytes())?;
        self.mesh.dirs.write(&key, credential.key_pem().as_bytes())?;
        Ok((chain, key))
    }

    /// What the port of a workload shows.
    async fn look_at(&mut self, workload: &Workload) -> Result<Seen, CliError> {
        let Some(address) = self.port_of(workload) else { return wrong(format!("{} has no port", workload.name)) };
        let request = self.request(address, None);
        self.probe(STRANGER, &request).await
    }
}

pub(super) async fn certificates(check: &mut Check<'_>) -> Result<String, CliError> {
    let servers: Vec<Workload> =
        check.mesh.plan.workloads.iter().filter(|workload| workload.role == Role::Server).cloned().collect();
    let mut versions = std::collections::BTreeSet::new();
    for workload in &servers {
        let seen = check.look_at(workload).await?;
        let expected = workload.identity();
        ensure(seen.uris == [expected.clone()] && seen.trusted, || {
            format!(
                "{} shows {:?}, trusted: {}, instead of {expected} ({})",
                workload.name, seen.uris, seen.trusted, seen.refused
            )
        })?;
        versions.insert(seen.version);
    }
    let example = servers.first().map(Workload::identity).unwrap_or_default();
    Ok(format!("{} ports show their own SPIFFE names, such as {example}, over {versions:?}", servers.len()))
}

pub(super) async fn identities(check: &mut Check<'_>) -> Result<String, CliError> {
    // Every hop is used once; what servers' proxies then count says who came, and how.
    let url = format!("http://{}/", check.mesh.ingress);
    all_well(&check.outside(&["http", "--url", &url, "--count", "40", "-H", "end-user: ada"]).await?)?;
    let url = format!("http://{}/api/orders", check.mesh.ingress);
    all_well(&check.outside(&["http", "--url", &url, "--count", "5"]).await?)?;
    let hops = [
        ("web-1", "istio-ingressgateway"),
        ("catalogue-1", "web"),
        ("catalogue-2", "web"),
        ("reviews-v3-1", "web"),
        ("ratings-1", "reviews"),
        ("orders-1", "web"),
    ];
    for (server, client) in hops {
        let samples = check.metrics(server, "istio_requests_total").await?;
        let inbound: Vec<_> = samples.iter().filter(|sample| sample.label("reporter") == "destination").collect();
        let end = format!("/sa/{client}");
        ensure(inbound.iter().any(|sample| sample.label("source_principal").ends_with(&end)), || {
            format!("{server} counted no request of {client}")
        })?;
        let plain = inbound.iter().find(|sample| {
            sample.label("response_code") == "200" && sample.label("connection_security_policy") != "mutual_tls"
        });
        ensure(plain.is_none(), || format!("{server} answered without mutual TLS: {plain:?}"))?;
    }
    let echo = crate::http::ask(check.mesh.ingress, "/echo", &[]).await;
    let echo = echo.map_err(|error| CliError::user("no echo").because(&error))?;
    let text = String::from_utf8_lossy(&echo.body).into_owned();
    let gateway = "URI=spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway";
    ensure(text.contains(gateway), || format!("web was not told who calls it: {text}"))?;
    Ok(format!("{} hops, all mutual_tls with the caller's principal; web saw {gateway}", hops.len()))
}

pub(super) async fn plaintext(check: &mut Check<'_>) -> Result<String, CliError> {
    let mut text = Vec::new();
    for (server, service) in [("catalogue-1", "catalogue"), ("ratings-1", "ratings")] {
        let workload = check.workload(server)?;
        let Some(address) = check.port_of(&workload) else { return wrong(format!("{server} has no port")) };
        let url = format!("http://{service}.{NAMESPACE}:{}/healthz@{address}", address.port());
        let args = ["http", "--url", &url, "--count", "5", "--no-keepalive"];
        let figures = super::super::client::run(check.mesh, Some(STRANGER), &args).await?;
        ensure(figures.by_status.is_empty() && figures.failed == figures.requests && figures.requests == 5, || {
            format!("{server} answered plaintext: {:?}", figures.by_status)
        })?;
        text.push(format!("{server}: {:?}", figures.errors));
    }
    Ok(format!("no answer to 5 requests each ({})", text.join(", ")))
}

pub(super) async fn stranger(check: &mut Check<'_>) -> Result<String, CliError> {
    let workload = check.workload("catalogue-1")?;
    let Some(address) = check.port_of(&workload) else { return wrong("catalogue-1 has no port") };
    let own = FileStore::read_only(&check.mesh.dirs.state());
    let genuine = check.credential("genuine", &own, "web")?;
    let foreign = FileStore::open(&check.mesh.dirs.root().join("foreign-authority"));
    let foreign = foreign.map_err(|error| CliError::internal("cannot make a foreign authority").because(&error))?;
    // The same name as the genuine one, by an authority that nobody knows.
    let stranger = check.credential("stranger", &foreign, "web")?;
    let request = check.request(address, Some(genuine));
    let accepted = check.probe(STRANGER, &request).await?;
    ensure(accepted.refused.is_empty() && accepted.answer.contains("200"), || {
        format!("even a genuine certificate is refused: {} {}", accepted.answer, accepted.refused)
    })?;
    let request = check.request(address, Some(stranger));
    let refused = check.probe(STRANGER, &request).await?;
    ensure(!refused.refused.is_empty() && refused.answer.is_empty(), || {
        format!("a stranger's certificate was accepted: {}", refused.answer)
    })?;
    let none = check.look_at(&workload).await?;
    ensure(!none.refused.is_empty() && none.answer.is_empty(), || {
        format!("no certificate was accepted: {}", none.answer)
    })?;
    Ok(format!("genuine: {}; stranger: {}; none: {}", accepted.answer, refused.refused, none.refused))
}

pub(super) async fn rotation(check: &mut Check<'_>) -> Result<String, CliError> {
    let workload = check.workload(SHORT_LIVED)?;
    // Ada's reviews ask ratings: every request crosses the proxy whose certificate changes.
    let url = format!("http://{}/api/reviews", check.mesh.ingress);
    let args = [
        "http",
        "--url",
        &url,
        "--count",
        "0",
        "--duration",
        "600s",
        "--rate",
        "100",
        "--concurrency",
        "8",
        "-H",
        "end-user: ada",
    ];
    let load = super::super::client::Client::start(check.mesh, None, &args)?;
    let before = check.look_at(&workload).await?;
    let start = tokio::time::Instant::now();
    let mut after = before.clone();
    while after.serial == before.serial && start.elapsed() < ROTATION_LIMIT {
        tokio::time::sleep(Duration::from_millis(500)).await;
        after = check.look_at(&workload).await?;
    }
    // A moment of load with the new one.
    let served = check.serve_more(SHORT_LIVED, 100).await;
    let figures = load.stop().await?;
    served?;
    ensure(after.serial != before.serial && !before.serial.is_empty(), || {
        format!("still serial {} after {ROTATION_LIMIT:?}", before.serial)
    })?;
    ensure(after.trusted, || "the new certificate does not lead to the mesh's roots".to_owned())?;
    all_well(&figures)?;
    let short = |serial: &str| serial.chars().take(8).collect::<String>();
    Ok(format!(
        "{SHORT_LIVED}: serial {}… became {}… after {:.0} s; {} requests, none failed",
        short(&before.serial),
        short(&after.serial),
        start.elapsed().as_secs_f64(),
        figures.requests
    ))
}
