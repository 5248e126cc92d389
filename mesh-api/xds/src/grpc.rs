//! The gRPC side of the aggregated discovery service: server and client over [`crate::discovery`]'s messages.
//!
//! Written by hand instead of generated, because the messages carry shared bytes; the shells only pump streams.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::codegen::{Body, BoxFuture, BoxStream, Service, StdError, async_trait, http};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};

/// Full name of the service.
const SERVICE: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
/// Path of the state-of-the-world method.
const SOTW_PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
/// Path of the incremental method.
const DELTA_PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// Largest request that the server reads, in bytes. Source: istiod's `recv` limit, 4 MiB.
pub const MAX_REQUEST_BYTES: usize = 4 << 20;
/// Largest response that the client reads, in bytes. Source: our judgement; a first response may hold every cluster of a
/// mesh of 10,000 services at about 2 KiB each.
pub const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// What a control plane implements.
#[async_trait]
pub trait AggregatedDiscovery: Send + Sync + 'static {
    /// A state-of-the-world stream was opened.
    async fn sotw(
        &self,
        requests: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<BoxStream<DiscoveryResponse>>, Status>;

    /// An incremental stream was opened.
    async fn delta(
        &self,
        requests: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<BoxStream<DeltaDiscoveryResponse>>, Status>;
}

/// The service, to be added to a tonic server.
#[derive(Debug)]
pub struct AggregatedDiscoveryServer<T>(Arc<T>);

impl<T> AggregatedDiscoveryServer<T> {
    /// Serves with `inner`.
    #[must_use]
    pub const fn new(inner: Arc<T>) -> Self {
        Self(inner)
    }
}

impl<T> Clone for AggregatedDiscoveryServer<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> tonic::server::NamedService for AggregatedDiscoveryServer<T> {
    const NAME: &'static str = SERVICE;
}

impl<T, B> Service<http::Request<B>> for AggregatedDiscoveryServer<T>
where
    T: AggregatedDiscovery,
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
        let inner = Arc::clone(&self.0);
        match request.uri().path() {
            SOTW_PATH => Box::pin(async move { Ok(mk_server().streaming(Sotw(inner), request).await) }),
            DELTA_PATH => Box::pin(async move { Ok(mk_server().streaming(Delta(inner), request).await) }),
            _ => Box::pin(async { Ok(Status::unimplemented("no such method").into_http()) }),
        }
    }
}

fn mk_server<Out, In>() -> tonic::server::Grpc<ProstCodec<Out, In>>
where
    Out: prost::Message + Send + 'static,
    In: prost::Message + Default + Send + 'static,
{
    tonic::server::Grpc::new(ProstCodec::new()).max_decoding_message_size(MAX_REQUEST_BYTES)
}

/// The state-of-the-world method.
struct Sotw<T>(Arc<T>);

impl<T: AggregatedDiscovery> tonic::server::StreamingService<DiscoveryRequest> for Sotw<T> {
    type Response = DiscoveryResponse;
    type ResponseStream = BoxStream<DiscoveryResponse>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<DiscoveryRequest>>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.sotw(request).await })
    }
}

/// The incremental method.
struct Delta<T>(Arc<T>);

impl<T: AggregatedDiscovery> tonic::server::StreamingService<DeltaDiscoveryRequest> for Delta<T> {
    type Response = DeltaDiscoveryResponse;
    type ResponseStream = BoxStream<DeltaDiscoveryResponse>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.delta(request).await })
    }
}

/// The client, over any HTTP/2 channel.
#[derive(Clone, Debug)]
pub struct AggregatedDiscoveryClient<T>(tonic::client::Grpc<T>);

impl<T> AggregatedDiscoveryClient<T>
where
    T: tonic::client::GrpcService<tonic::body::Body>,
    T::ResponseBody: Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as Body>::Error: Into<StdError> + Send,
{
    /// A client over `channel`.
    pub fn new(channel: T) -> Self {
        Self(tonic::client::Grpc::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES))
    }

    /// A client over `channel` that speaks to `origin`, for channels that do not add scheme and authority themselves.
    pub fn with_origin(channel: T, origin: http::Uri) -> Self {
        Self(tonic::client::Grpc::with_origin(channel, origin).max_decoding_message_size(MAX_RESPONSE_BYTES))
    }

    /// Opens a state-of-the-world stream.
    ///
    /// # Errors
    /// When the channel is not ready or the server refuses.
    pub async fn sotw(
        &mut self,
        requests: impl tonic::IntoStreamingRequest<Message = DiscoveryRequest>,
    ) -> Result<Response<Streaming<DiscoveryResponse>>, Status> {
        self.open(requests, SOTW_PATH).await
    }

    /// Opens an incremental stream.
    ///
    /// # Errors
    /// When the channel is not ready or the server refuses.
    pub async fn delta(
        &mut self,
        requests: impl tonic::IntoStreamingRequest<Message = DeltaDiscoveryRequest>,
    ) -> Result<Response<Streaming<DeltaDiscoveryResponse>>, Status> {
        self.open(requests, DELTA_PATH).await
    }

    async fn open<In, Out>(
        &mut self,
        requests: impl tonic::IntoStreamingRequest<Message = In>,
        path: &'static str,
    ) -> Result<Response<Streaming<Out>>, Status>
    where
        In: prost::Message + Send + Sync + 'static,
        Out: prost::Message + Default + Send + Sync + 'static,
    {
        self.0.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let path = http::uri::PathAndQuery::from_static(path);
        self.0.streaming(requests.into_streaming_request(), path, ProstCodec::new()).await
    }
}

#[cfg(test)]
mod tests;
