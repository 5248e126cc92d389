//! A TLS client that looks at what a port shows on the wire, and tries what a stranger would. Runs as a process of its
//! own inside the mesh's network.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_ca::bundle::TrustBundle;
use mesh_ca::cert::{Cert, verify_chain};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, Stream};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use serde::{Deserialize, Serialize};

use crate::printer;

/// First argument of this program when it is a probe.
pub const PROBE_ARG: &str = "demo-probe";
/// Time for connecting and for each answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a probe is asked to do: JSON in its second argument.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProbeRequest {
    /// Where to connect.
    pub address: SocketAddr,
    /// Application protocols to offer.
    pub alpn: Vec<String>,
    /// The mesh's roots.
    pub roots: PathBuf,
    /// Certificate chain and key to show, if any.
    pub credential: Option<(PathBuf, PathBuf)>,
}

/// What it saw: JSON on its standard output.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    /// Names in the server's certificate.
    pub uris: Vec<String>,
    /// Its serial number.
    pub serial: String,
    /// Whether it leads to the mesh's roots.
    pub trusted: bool,
    /// Version of TLS.
    pub version: String,
    /// Protocol that was agreed on.
    pub alpn: String,
    /// What came back over the connection, at first.
    pub answer: String,
    /// Why there was no connection or no answer.
    pub refused: String,
}

/// When this process was started as a probe, is one; otherwise nothing.
#[must_use]
pub fn probe_main() -> Option<ExitCode> {
    let mut args = std::env::args().skip(1);
    if args.next()? != PROBE_ARG {
        return None;
    }
    let seen = match serde_json::from_str(&args.next()?) {
        Ok(request) => probe(&request),
        Err(error) => Seen { refused: error.to_string(), ..Seen::default() },
    };
    let text = serde_json::to_string(&seen).unwrap_or_default();
    Some(if printer::out(&(text + "\n")).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn probe(request: &ProbeRequest) -> Seen {
    let mut seen = Seen::default();
    if let Err(error) = look(request, &mut seen) {
        seen.refused = error.to_string();
    }
    seen
}

fn look(request: &ProbeRequest, seen: &mut Seen) -> Result<(), Box<dyn std::error::Error>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    // What is shown is judged below, so that it is seen even when it is wrong.
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Onlooker(provider)));
    let mut config = match &request.credential {
        Some((chain, key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(chain)?.collect();
            builder.with_client_auth_cert(chain?, PrivateKeyDer::from_pem_file(key)?)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = request.alpn.iter().map(|name| name.clone().into_bytes()).collect();
    let name = ServerName::IpAddress(request.address.ip().into());
    let mut session = ClientConnection::new(Arc::new(config), name)?;
    let mut socket = TcpStream::connect_timeout(&request.address, TIMEOUT)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    while session.is_handshaking() {
        session.complete_io(&mut socket)?;
    }
    note_certificates(request, &session, seen)?;
    // With TLS 1.3 a client learns only now whether its own certificate was accepted.
    let mut stream = Stream::new(&mut session, &mut socket);
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: probe\r\nconnection: close\r\n\r\n")?;
    let mut bytes = [0; 256];
    let count = stream.read(&mut bytes)?;
    let text = String::from_utf8_lossy(bytes.get(..count).unwrap_or_default()).into_owned();
    seen.answer = text.lines().next().unwrap_or_default().to_owned();
    if count == 0 {
        "the connection was closed without an answer".clone_into(&mut seen.refused);
    }
    Ok(())
}

fn note_certificates(
    request: &ProbeRequest,
    session: &ClientConnection,
    seen: &mut Seen,
) -> Result<(), Box<dyn std::error::Error>> {
    let certificates = session.peer_certificates().unwrap_or_default();
    let (leaf, intermediates) = certificates.split_first().ok_or("the server showed no certificate")?;
    let cert = Cert::parse(leaf.clone().into_owned())?;
    let roots = TrustBundle::parse(&std::fs::read(&request.roots)?)?;
    seen.trusted = verify_chain(leaf, intermediates, roots.ders(), SystemTime::now()).is_ok();
    seen.uris = cert.uris;
    seen.serial = cert.serial;
    seen.version = session.protocol_version().map(|version| format!("{version:?}")).unwrap_or_default();
    seen.alpn = String::from_utf8_lossy(session.alpn_protocol().unwrap_or_default()).into_owned();
    Ok(())
}

/// Accepts any certificate whose holder has its key.
#[derive(Debug)]
struct Onlooker(Arc<CryptoProvider>);

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
