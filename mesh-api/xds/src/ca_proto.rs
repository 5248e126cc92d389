//! The certificate service, `istio.v1.auth.IstioCertificateService`: messages, server and client.
//!
//! Source: istio/api `security/v1alpha1/ca.proto`.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::codegen::{Body, BoxFuture, Service, StdError, async_trait, http};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// Full name of the service.
const SERVICE: &str = "istio.v1.auth.IstioCertificateService";
/// Path of its method.
const CREATE_PATH: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// Largest message of either side, in bytes. Source: our judgement; a request holds one key, a response a short chain.
const MAX_MESSAGE_BYTES: usize = 256 << 10;

/// A request for a certificate.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IstioCertificateRequest {
    /// Certificate request, PEM. Only its key and the caller's identity count.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// Wanted lifetime in seconds; 0 is the server's default.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// Facts about the caller, for logs: `ClusterID`, `WorkloadName`, `WorkloadIP`.
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<prost_types::Struct>,
}

/// An issued certificate.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct IstioCertificateResponse {
    /// PEM: the leaf, its intermediates, the root last.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

/// What an authority implements.
#[async_trait]
pub trait CertificateService: Send + Sync + 'static {
    /// Issues a certificate for the authenticated caller.
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status>;
}

/// The service, to be added to a tonic server.
pub struct CertificateServer<T>(Arc<T>);

impl<T> CertificateServer<T> {
    /// Serves with `inner`.
    #[must_use]
    pub const fn new(inner: Arc<T>) -> Self {
        Self(inner)
    }
}

impl<T> Clone for CertificateServer<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for CertificateServer<T> {
    /// Without the authority, which holds keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateServer")
    }
}

impl<T> tonic::server::NamedService for CertificateServer<T> {
    const NAME: &'static str = SERVICE;
}

impl<T, B> Service<http::Request<B>> for CertificateServer<T>
where
    T: CertificateService,
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() != CREATE_PATH {
            return Box::pin(async { Ok(Status::unimplemented("no such method").into_http()) });
        }
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let codec = ProstCodec::<IstioCertificateResponse, IstioCertificateRequest>::new();
            let mut server = tonic::server::Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE_BYTES);
            Ok(server.unary(Create(inner), request).await)
        })
    }
}

/// The method as a unary service.
struct Create<T>(Arc<T>);

impl<T: CertificateService> tonic::server::UnaryService<IstioCertificateRequest> for Create<T> {
    type Response = IstioCertificateResponse;
    type Future = BoxFuture<Response<IstioCertificateResponse>, Status>;

    fn call(&mut self, request: Request<IstioCertificateRequest>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.create_certificate(request).await })
    }
}

/// The client, over any HTTP/2 channel.
#[derive(Clone, Debug)]
pub struct CertificateClient<T>(tonic::client::Grpc<T>);

impl<T> CertificateClient<T>
where
    T: tonic::client::GrpcService<tonic::body::Body>,
    T::ResponseBody: Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as Body>::Error: Into<StdError> + Send,
{
    /// A client over `channel`.
    pub fn new(channel: T) -> Self {
        Self(tonic::client::Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// A client over `channel` that speaks to `origin`, for channels that do not add scheme and authority themselves.
    pub fn with_origin(channel: T, origin: http::Uri) -> Self {
        Self(tonic::client::Grpc::with_origin(channel, origin).max_decoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// Asks for a certificate.
    ///
    /// # Errors
    /// When the channel is not ready or the authority refuses.
    pub async fn create_certificate(
        &mut self,
        request: impl tonic::IntoRequest<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.0.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let path = http::uri::PathAndQuery::from_static(CREATE_PATH);
        self.0.unary(request.into_request(), path, ProstCodec::new()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    #[async_trait]
    impl CertificateService for Echo {
        async fn create_certificate(
            &self,
            request: Request<IstioCertificateRequest>,
        ) -> Result<Response<IstioCertificateResponse>, Status> {
            let request = request.into_inner();
            if request.csr.is_empty() {
                return Err(Status::invalid_argument("no request"));
            }
            Ok(Response::new(IstioCertificateResponse { cert_chain: vec![request.csr, "root".into()] }))
        }
    }

    #[tokio::test]
    async fn requests_reach_the_authority_and_its_word_the_caller() {
        let origin = http::Uri::from_static("http://meshd");
        let mut client = CertificateClient::with_origin(CertificateServer::new(Arc::new(Echo)), origin);
        let request = IstioCertificateRequest { csr: "key".into(), validity_duration: 3600, metadata: None };
        assert_eq!(client.create_certificate(request).await.unwrap().into_inner().cert_chain, ["key", "root"]);
        let refused = client.create_certificate(IstioCertificateRequest::default()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }

    #[test]
    fn field_numbers_are_istios() {
        let request = IstioCertificateRequest {
            csr: "c".into(),
            validity_duration: 5,
            metadata: Some(prost_types::Struct::default()),
        };
        assert_eq!(prost::Message::encode_to_vec(&request), [0x0a, 1, b'c', 0x18, 5, 0x22, 0]);
    }
}
