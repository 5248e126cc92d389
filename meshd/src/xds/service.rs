//! The two gRPC services of a connection.

use std::sync::Arc;
use std::time::SystemTime;

use mesh_api_rt::drain::Trigger;
use mesh_api_xds::ads::{Protocol, Request as AdsRequest, Response as AdsResponse};
use mesh_api_xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};
use mesh_api_xds::grpc::AggregatedDiscovery;
use mesh_ca::caller::CallerError;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::{BoxStream, async_trait};
use tonic::{Request, Response, Status, Streaming};

use super::stream::{BUFFERED, Opened, Requests, Streams};
use crate::auth::{Authenticator, Peer};
use crate::metrics::ByType;

/// The discovery service.
#[derive(Debug)]
pub(crate) struct Discovery {
    /// What all streams share.
    pub(crate) streams: Arc<Streams>,
    /// Who may open one.
    pub(crate) authenticator: Arc<Authenticator>,
    /// Ends the streams.
    pub(crate) drain: Arc<Trigger>,
}

impl Discovery {
    async fn open<T: Sync>(
        &self,
        request: &Request<T>,
        protocol: Protocol,
        requests: impl FnOnce() -> Requests,
    ) -> Result<ReceiverStream<Result<AdsResponse, Status>>, Status> {
        let peer =
            request.extensions().get::<Peer>().cloned().ok_or_else(|| Status::internal("a stream without a peer"))?;
        let identity = self.authenticator.stream(&peer, request.metadata(), SystemTime::now()).await;
        let identity = identity.map_err(|error| {
            self.streams.server.refused.get_or_create(&ByType { r#type: "unauthenticated" }).inc();
            tracing::info!(peer = %peer.address, error = %report(&error), "Discovery stream refused");
            unauthenticated(&error)
        })?;
        let (out, answers) = mpsc::channel(BUFFERED);
        let streams = Arc::clone(&self.streams);
        let opened = Opened { streams, peer, identity, protocol, requests: requests(), out };
        // The watcher that the task holds is what the drain waits for.
        tokio::spawn(opened.run(self.drain.watcher()));
        Ok(ReceiverStream::new(answers))
    }
}

/// Says who was not believed and why, without the words of the credential itself.
pub(crate) fn unauthenticated(error: &CallerError) -> Status {
    match error {
        // Clients try again by themselves then.
        CallerError::ServiceAccount(cause) if cause.is_transient() => Status::unavailable(report(error)),
        _ => Status::unauthenticated(report(error)),
    }
}

#[async_trait]
impl AggregatedDiscovery for Discovery {
    async fn sotw(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<BoxStream<DiscoveryResponse>>, Status> {
        let (metadata, extensions, messages) = request.into_parts();
        let head = Request::from_parts(metadata, extensions, ());
        let requests = || -> Requests { Box::pin(messages.map(|message| message.map(AdsRequest::Sotw))) };
        let answers = self.open(&head, Protocol::Sotw, requests).await?.filter_map(|answer| match answer {
            Ok(AdsResponse::Sotw(answer)) => Some(Ok(answer)),
            // A session answers in its own variant only.
            Ok(AdsResponse::Delta(_)) => None,
            Err(status) => Some(Err(status)),
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn delta(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<BoxStream<DeltaDiscoveryResponse>>, Status> {
        let (metadata, extensions, messages) = request.into_parts();
        let head = Request::from_parts(metadata, extensions, ());
        let requests = || -> Requests { Box::pin(messages.map(|message| message.map(AdsRequest::Delta))) };
        let answers = self.open(&head, Protocol::Delta, requests).await?.filter_map(|answer| match answer {
            Ok(AdsResponse::Delta(answer)) => Some(Ok(answer)),
            Ok(AdsResponse::Sotw(_)) => None,
            Err(status) => Some(Err(status)),
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

fn report(error: &dyn std::error::Error) -> String {
    mesh_api_rt::report::Report::new(error).to_string()
}
