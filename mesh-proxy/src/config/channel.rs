//! gRPC channels to the control plane: TLS against the mesh's root, authenticated by certificate or token.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mesh_ca::client::Credential;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};

use crate::bootstrap::Bootstrap;
use crate::net::sockopt;

/// Time to establish a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Probing of quiet connections, so that a control plane that vanished is noticed (Istio's agent: 30 s and 10 s).
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Names of files as Istio's agent reads and writes them (security/pkg/nodeagent/cache).
pub const CHAIN_FILE: &str = "cert-chain.pem";
/// The key of the certificate in [`CHAIN_FILE`].
pub const KEY_FILE: &str = "key.pem";
/// The roots of the mesh.
pub const ROOT_FILE: &str = "root-cert.pem";
/// Largest token read, bytes.
const MAX_TOKEN_BYTES: u64 = 64 * 1024;

/// How the proxy proves who it is.
#[derive(Debug)]
pub enum Proof<'a> {
    /// By the workload certificate, in the TLS handshake.
    Certificate(&'a Credential),
    /// By the bootstrap token, with each call.
    Token(MetadataValue<Ascii>),
    /// By a certificate in files that was there before the proxy.
    Provisioned(Identity),
    /// Not at all: a plaintext control plane on loopback.
    None,
}

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// A file cannot be read.
    #[error("cannot read {path} ({what})")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What it is for.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The token is not one line of text.
    #[error("{0} does not hold a token")]
    Token(PathBuf),
    /// The address or TLS settings are not usable.
    #[error("control plane address {address} cannot be used")]
    Settings {
        /// The address.
        address: String,
        /// What is wrong.
        #[source]
        source: tonic::transport::Error,
    },
    /// No connection.
    #[error("cannot reach the control plane at {address}")]
    Connect {
        /// The address.
        address: String,
        /// What happened.
        #[source]
        source: tonic::transport::Error,
    },
}

/// Reads the bootstrap token.
///
/// # Errors
/// When the file is missing or holds no token.
pub fn read_token(path: &Path) -> Result<MetadataValue<Ascii>, ChannelError> {
    use std::io::Read as _;
    let read = |source| ChannelError::Read { path: path.to_owned(), what: "bootstrap token", source };
    let mut text = String::new();
    std::fs::File::open(path).map_err(read)?.take(MAX_TOKEN_BYTES).read_to_string(&mut text).map_err(read)?;
    let value = format!("Bearer {}", text.trim());
    let mut value: MetadataValue<Ascii> = value.parse().map_err(|_| ChannelError::Token(path.to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Reads the certificate of a folder (`PROV_CERT`), under the names that Istio's agent gives its files.
///
/// # Errors
/// When one of the files is missing.
pub fn read_provisioned(folder: &Path) -> Result<Identity, ChannelError> {
    let read = |name: &str, what| {
        let path = folder.join(name);
        std::fs::read(&path).map_err(|source| ChannelError::Read { path, what, source })
    };
    Ok(Identity::from_pem(read(CHAIN_FILE, "provisioned certificate")?, read(KEY_FILE, "provisioned key")?))
}

/// Opens a channel to `address`; `root_cert` has the anchors to trust there.
///
/// # Errors
/// When files are missing or the control plane cannot be reached.
pub async fn open(
    bootstrap: &Bootstrap,
    address: &str,
    root_cert: &Path,
    proof: &Proof<'_>,
) -> Result<Channel, ChannelError> {
    let settings = |source| ChannelError::Settings { address: address.to_owned(), source };
    let scheme = if matches!(proof, Proof::None) { "http" } else { "https" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
        .map_err(settings)?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    if !matches!(proof, Proof::None) {
        let roots = anchors(root_cert, proof)?;
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(roots))
            .domain_name(bootstrap.control_plane_name.clone());
        match proof {
            Proof::Certificate(credential) => {
                tls = tls.identity(Identity::from_pem(credential.chain_pem(), credential.key_pem().as_bytes()));
            }
            Proof::Provisioned(identity) => tls = tls.identity(identity.clone()),
            Proof::Token(_) | Proof::None => {}
        }
        endpoint = endpoint.tls_config(tls).map_err(settings)?;
    }
    let mark = bootstrap.socket_mark;
    let connector = tower::service_fn(move |uri: Uri| async move { dial(&uri, mark).await.map(TokioIo::new) });
    let connect = |source| ChannelError::Connect { address: address.to_owned(), source };
    endpoint.connect_with_connector(connector).await.map_err(connect)
}

/// The file is read each time, because the kubelet replaces it when roots change. To it comes the bundle of the certificate,
/// which may be newer, and which is there even if the file is lost.
fn anchors(path: &Path, proof: &Proof<'_>) -> Result<Vec<u8>, ChannelError> {
    let file = std::fs::read(path);
    let Proof::Certificate(credential) = proof else {
        let read = |source| ChannelError::Read { path: path.to_owned(), what: "trust anchors", source };
        return file.map_err(read);
    };
    let mut roots = credential.roots_pem().into_bytes();
    if let Ok(more) = file {
        roots.push(b'\n');
        roots.extend(more);
    }
    Ok(roots)
}

/// Connects with the proxy's mark, so that redirection lets the connection pass.
async fn dial(uri: &Uri, mark: Option<u32>) -> io::Result<TcpStream> {
    let missing = || io::Error::new(io::ErrorKind::InvalidInput, "address has no host or port");
    let host = uri.host().ok_or_else(missing)?.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().ok_or_else(missing)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "name has no address");
    for address in tokio::net::lookup_host((host, port)).await? {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(mark) = mark {
            sockopt::set_mark(&socket, mark).map_err(io::Error::other)?;
        }
        match TcpSocket::from_std_stream(socket.into()).connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
