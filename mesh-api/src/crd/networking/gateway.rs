//! Gateway: ports and hosts a gateway proxy opens. istio/api: networking/v1alpha3/gateway.proto.

use crate::{
    crd::{api, api_enum, common::TlsProtocol},
    labels::Selector,
    text::Str,
};

api! {
    /// Ports and hosts a gateway proxy opens.
    pub struct Gateway {
        /// The ports.
        pub servers: Vec<Server>,
        /// The gateway workloads, by labels, in any namespace.
        pub selector: Selector,
    }

    /// One port and its hosts.
    pub struct Server {
        /// The port.
        pub port: Option<Port>,
        /// The address to listen at; any when empty.
        pub bind: Str,
        /// Hosts, each with an optional `namespace/` of the VirtualServices that may use it.
        pub hosts: Vec<Str>,
        /// TLS towards clients.
        pub tls: Option<ServerTlsSettings>,
        /// Not implemented in Istio.
        pub default_endpoint: Str,
        /// A name for statistics.
        pub name: Str,
    }

    /// A port with its protocol.
    pub struct Port {
        /// 1 to 65535.
        pub number: u32,
        /// HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, MONGO, TCP or TLS.
        pub protocol: Str,
        /// A name.
        pub name: Str,
        /// Deprecated and without effect.
        pub target_port: u32,
    }

    /// TLS towards clients.
    pub struct ServerTlsSettings {
        /// Answer plaintext requests with a redirect to https.
        pub https_redirect: bool,
        /// What is done with TLS.
        pub mode: ServerTlsMode,
        /// File of the server's certificate chain.
        pub server_certificate: Str,
        /// File of the server's key.
        pub private_key: Str,
        /// File of the roots that vouch for clients.
        pub ca_certificates: Str,
        /// File of revoked certificates.
        pub ca_crl: Str,
        /// Secret with the server's certificate.
        pub credential_name: Str,
        /// Secrets with the server's certificates, at most two.
        pub credential_names: Vec<Str>,
        /// Secret or ConfigMap with the roots that vouch for clients.
        pub ca_cert_credential_name: Str,
        /// Certificates by file, at most two.
        pub tls_certificates: Vec<TlsCertificate>,
        /// Names of which a client's certificate must hold one.
        pub subject_alt_names: Vec<Str>,
        /// Base64 SHA-256 hashes of accepted client keys.
        pub verify_certificate_spki: Vec<Str>,
        /// Hex SHA-256 hashes of accepted client certificates.
        pub verify_certificate_hash: Vec<Str>,
        /// Oldest version; TLSV1_2 when TLS_AUTO.
        pub min_protocol_version: TlsProtocol,
        /// Newest version; TLSV1_3 when TLS_AUTO.
        pub max_protocol_version: TlsProtocol,
        /// Allowed cipher suites; the default set when empty.
        pub cipher_suites: Vec<Str>,
        /// Ask for a client certificate, but accept any.
        pub insecure_skip_verify: Option<bool>,
        /// Allowed key exchange groups; the default set when empty.
        pub ecdh_curves: Vec<Str>,
    }

    /// A certificate by file.
    pub struct TlsCertificate {
        /// File of the certificate chain.
        pub server_certificate: Str,
        /// File of the key.
        pub private_key: Str,
        /// File of the roots that vouch for clients.
        pub ca_certificates: Str,
    }
}

api_enum! {
    /// What a gateway does with TLS.
    pub enum ServerTlsMode {
        /// Routes by server name, does not terminate.
        Passthrough,
        /// Terminates.
        Simple,
        /// Terminates and demands a client certificate.
        Mutual,
        /// Routes to the destination that the server name spells.
        AutoPassthrough,
        /// Terminates the mesh's own mutual TLS.
        IstioMutual,
        /// Terminates and verifies a client certificate if there is one.
        OptionalMutual,
    }
}
