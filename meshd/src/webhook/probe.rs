//! Asks our own webhooks what the API server would ask, over the network and TLS, with the roots that the API server is told:
//! only when the answers are right is this control plane ready (a webhook that is announced before it serves refuses pods).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::{CONTENT_TYPE, HOST};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mesh_api_rt::drain::Watcher;
use mesh_ca::bundle::TrustBundle;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::server::MAX_BODY_BYTES;
use super::settings::{Presence, Settings};

/// Pause between two looks while something is wrong.
const SOON: Duration = Duration::from_secs(1);
/// And while all is well.
const LATER: Duration = Duration::from_secs(20);
/// Looks that must fail one after another before what was ready is not.
const FAILURES: u32 = 2;
/// Time for one look.
const DEADLINE: Duration = Duration::from_secs(5);

/// What is asked.
pub(crate) struct Probe {
    /// Where the webhooks listen.
    pub(crate) address: SocketAddr,
    /// The name that the API server uses.
    pub(crate) name: String,
    /// The roots it is told.
    pub(crate) bundle: watch::Receiver<TrustBundle>,
    /// Whether pods are injected here; `None` when objects are only checked.
    pub(crate) settings: Option<Arc<Settings>>,
}

/// Why the webhooks are not ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    /// The port is not reached.
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    /// The certificate is not accepted.
    #[error("the certificate is not accepted")]
    Tls(#[source] rustls::Error),
    /// The call failed.
    #[error("the call failed")]
    Call(#[source] hyper::Error),
    /// The request could not be made.
    #[error("the call could not be made")]
    Request(#[source] http::Error),
    /// It is too early to say.
    #[error("the configuration of injection is not read yet")]
    Unread,
    /// No answer in time.
    #[error("no answer in time")]
    Deadline,
    /// The answer is not what it must be.
    #[error("{path} answers {answer}")]
    Answer {
        /// What was asked.
        path: &'static str,
        /// What was said.
        answer: String,
    },
}

impl Probe {
    /// Looks again and again, and tells whether all is well, until the drain begins.
    pub(crate) async fn run(self, well: watch::Sender<bool>, mut drain: Watcher) {
        let mut failures = 0;
        loop {
            let error = match timeout(DEADLINE, self.look()).await {
                Ok(looked) => looked.err(),
                Err(_) => Some(ProbeError::Deadline),
            };
            match &error {
                None => failures = 0,
                Some(_) => failures += 1,
            }
            if let Some(error) = &error
                && (failures == FAILURES || failures % 30 == 0)
            {
                let error = mesh_api_rt::report::Report::new(error);
                tracing::warn!(%error, "Webhooks do not answer as they should; not ready");
            }
            let is_well = error.is_none() || (*well.borrow() && failures < FAILURES);
            if well.send_if_modified(|now| std::mem::replace(now, is_well) != is_well) && is_well {
                tracing::info!("Webhooks answer");
            }
            tokio::select! {
                () = drain.graceful() => return,
                () = sleep(if error.is_none() { LATER } else { SOON }) => {}
            }
        }
    }

    /// Asks once.
    ///
    /// # Errors
    /// What did not go as it must.
    pub(crate) async fn look(&self) -> Result<(), ProbeError> {
        let presence = self.settings.as_ref().map_or(Presence::Absent, |settings| settings.presence());
        if presence == Presence::Unknown {
            return Err(ProbeError::Unread);
        }
        if presence == Presence::Present {
            // A pod that does not want a proxy passes only where there is a configuration to know that by.
            let labels = json!({"sidecar.istio.io/inject": "false"});
            let pod = json!({"metadata": {"name": "probe", "labels": labels}, "spec": {"containers": []}});
            let answer = self.ask("/inject", "", "v1", "Pod", pod).await?;
            expect("/inject", &answer, true)?;
        }
        // A gateway without servers is one mistake that no release takes for right.
        let gateway = json!({"metadata": {"name": "probe"}, "spec": {}});
        let answer = self.ask("/validate", "networking.istio.io", "v1", "Gateway", gateway).await?;
        expect("/validate", &answer, false)
    }

    async fn ask(
        &self,
        path: &'static str,
        group: &str,
        version: &str,
        kind: &str,
        object: Value,
    ) -> Result<Value, ProbeError> {
        let kind = json!({"group": group, "version": version, "kind": kind});
        let request =
            json!({"uid": "probe", "kind": kind, "namespace": "probe", "operation": "CREATE", "object": object});
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
        let tcp = TcpStream::connect(self.reachable()).await.map_err(ProbeError::Connect)?;
        let tls = self.connector()?.connect(self.server_name()?, tcp).await.map_err(ProbeError::Connect)?;
        let (mut calls, connection) = http1::handshake(TokioIo::new(tls)).await.map_err(ProbeError::Call)?;
        let request = Request::post(path)
            .header(HOST, &self.name)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(review.to_string())))
            .map_err(ProbeError::Request)?;
        let call = async {
            let response = calls.send_request(request).await.map_err(ProbeError::Call)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            let unexpected =
                || ProbeError::Answer { path, answer: format!("{status} {}", String::from_utf8_lossy(&body)) };
            serde_json::from_slice(&body).map_err(|_| unexpected())
        };
        tokio::select! {
            answer = call => answer,
            ended = connection => Err(match ended {
                Ok(()) => ProbeError::Answer { path, answer: "nothing".to_owned() },
                Err(error) => ProbeError::Call(error),
            }),
        }
    }

    /// The listening address as one that can be connected to.
    fn reachable(&self) -> SocketAddr {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::new(ip, self.address.port())
    }

    fn server_name(&self) -> Result<ServerName<'static>, ProbeError> {
        let name = ServerName::try_from(self.name.clone());
        name.map_err(|_| ProbeError::Tls(rustls::Error::General(format!("{:?} is no name", self.name))))
    }

    fn connector(&self) -> Result<TlsConnector, ProbeError> {
        let mut roots = RootCertStore::empty();
        for root in self.bundle.borrow().ders() {
            roots.add(root.clone()).map_err(ProbeError::Tls)?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(ProbeError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

fn expect(path: &'static str, answer: &Value, allowed: bool) -> Result<(), ProbeError> {
    let response = &answer["response"];
    if response["allowed"] == allowed && response["uid"] == "probe" {
        return Ok(());
    }
    Err(ProbeError::Answer { path, answer: response.to_string().chars().take(512).collect() })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use mesh_api_rt::drain;
    use mesh_api_rt::metrics::Metrics;
    use mesh_ca::testing::TestCa;
    use tokio::net::TcpListener;

    use super::super::server::Server;
    use super::super::settings::tests::mk_settings;
    use super::*;
    use crate::kube::fake::Objects;
    use crate::tls::{Current, webhook_config};

    const NAME: &str = "istiod.istio-system.svc";

    async fn mk_server(settings: Arc<Settings>, ca: &TestCa, dns: &str) -> (SocketAddr, drain::Trigger) {
        let identity = ca.identity("istio-system", "istiod");
        let credential = ca.credential_for(&identity, &[dns], Duration::from_secs(600), SystemTime::now());
        let tls = Current::default();
        tls.store(Arc::new(Some(Arc::new(webhook_config(&credential).unwrap()))));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Metrics::new().register().unwrap();
        let (trigger, watcher) = drain::channel();
        tokio::spawn(
            Server { listener, tls, settings, native_sidecar: true, published: watch::channel(None).1, metrics }
                .run(watcher),
        );
        (address, trigger)
    }

    fn mk_probe(address: SocketAddr, ca: &TestCa) -> Probe {
        let bundle = watch::channel(ca.bundle().clone()).1;
        Probe { address, name: NAME.to_owned(), bundle, settings: Some(mk_settings()) }
    }

    #[tokio::test]
    async fn webhooks_that_serve_are_well() {
        let ca = TestCa::new(SystemTime::now());
        let (address, _drain) = mk_server(mk_settings(), &ca, NAME).await;
        mk_probe(address, &ca).look().await.unwrap();
    }

    #[tokio::test]
    async fn a_wrong_certificate_a_missing_configuration_and_a_closed_port_are_not() {
        let ca = TestCa::new(SystemTime::now());
        let (address, _a) = mk_server(mk_settings(), &ca, "other.istio-system.svc").await;
        assert!(matches!(mk_probe(address, &ca).look().await, Err(ProbeError::Connect(_))));
        let other = TestCa::new(SystemTime::now());
        assert!(matches!(mk_probe(address, &other).look().await, Err(ProbeError::Connect(_))));
        let empty = Settings::new(Objects::default().client());
        let (address, _b) = mk_server(empty, &ca, NAME).await;
        let error = mk_probe(address, &ca).look().await.unwrap_err().to_string();
        assert!(error.contains("istio-sidecar-injector"), "{error}");
        Probe { settings: None, ..mk_probe(address, &ca) }.look().await.unwrap();
        let unread = Some(Settings::new(Objects::default().client()));
        let error = Probe { settings: unread, ..mk_probe(address, &ca) }.look().await.unwrap_err();
        assert!(matches!(error, ProbeError::Unread), "{error}");
    }

    #[tokio::test]
    async fn what_is_well_is_told() {
        let ca = TestCa::new(SystemTime::now());
        let (address, _server) = mk_server(mk_settings(), &ca, NAME).await;
        let (well, mut is_well) = watch::channel(false);
        let (trigger, watcher) = drain::channel();
        let task = tokio::spawn(mk_probe(address, &ca).run(well, watcher));
        timeout(Duration::from_secs(20), is_well.wait_for(|well| *well)).await.unwrap().unwrap();
        trigger.advance(drain::Phase::Graceful);
        task.await.unwrap();
    }
}
