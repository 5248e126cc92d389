//! Both sides against each other over a pipe in memory.

mod envoy;

use std::collections::VecDeque;

use bytes::Bytes;
use tonic::codegen::tokio_stream::StreamExt as _;

use super::*;
use crate::ads::server::{ServerAction, ServerOptions, ServerSession};
use crate::ads::{Protocol, Request as AdsRequest, Response as AdsResponse};
use crate::discovery::Any;
use crate::encoded::{Encoded, ResourceSet, TypeSet, Version};
use crate::type_url::TypeUrl;

/// Serves one cluster with the real session.
struct OneCluster(Arc<ResourceSet>);

impl OneCluster {
    fn answers(session: &mut ServerSession, request: AdsRequest) -> VecDeque<AdsResponse> {
        let actions = session.on_request(request).into_iter();
        let messages =
            actions.filter_map(|action| if let ServerAction::Send(message) = action { Some(message) } else { None });
        messages.collect()
    }
}

#[async_trait]
impl AggregatedDiscovery for OneCluster {
    async fn sotw(
        &self,
        requests: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<BoxStream<DiscoveryResponse>>, Status> {
        let mut session =
            ServerSession::new(ServerOptions { protocol: Protocol::Sotw, marks: false }, Arc::clone(&self.0));
        let answers = requests.into_inner().filter_map(move |request| {
            let AdsResponse::Sotw(answer) = Self::answers(&mut session, AdsRequest::Sotw(request.ok()?)).pop_front()?
            else {
                return None;
            };
            Some(Ok(answer))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn delta(
        &self,
        requests: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<BoxStream<DeltaDiscoveryResponse>>, Status> {
        if requests.metadata().get("authorization").is_none() {
            return Err(Status::unauthenticated("who are you"));
        }
        let mut session =
            ServerSession::new(ServerOptions { protocol: Protocol::Delta, marks: false }, Arc::clone(&self.0));
        let answers = requests.into_inner().filter_map(move |request| {
            let AdsResponse::Delta(answer) =
                Self::answers(&mut session, AdsRequest::Delta(request.ok()?)).pop_front()?
            else {
                return None;
            };
            Some(Ok(answer))
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

fn mk_client() -> AggregatedDiscoveryClient<AggregatedDiscoveryServer<OneCluster>> {
    let cluster = Encoded {
        name: "a".into(),
        aliases: Arc::default(),
        version: Version::of("a"),
        bytes: Bytes::from_static(b"content"),
    };
    let set = ResourceSet::new(1, []).with(TypeUrl::Cluster, TypeSet::new([Arc::new(cluster)]));
    let server = AggregatedDiscoveryServer::new(Arc::new(OneCluster(Arc::new(set))));
    AggregatedDiscoveryClient::with_origin(server, http::Uri::from_static("http://meshd"))
}

#[tokio::test]
async fn resources_cross_the_incremental_method() {
    let first = DeltaDiscoveryRequest { type_url: TypeUrl::Cluster.as_str().into(), ..Default::default() };
    let mut requests = Request::new(tonic::codegen::tokio_stream::iter([first]));
    requests.metadata_mut().insert("authorization", "Bearer x".parse().unwrap());
    let mut responses = mk_client().delta(requests).await.unwrap().into_inner();
    let response = responses.message().await.unwrap().unwrap();
    let resource = response.resources.first().unwrap();
    assert_eq!((resource.name.as_str(), resource.version.clone()), ("a", Version::of("a").to_string()));
    let content = Any { type_url: TypeUrl::Cluster.as_str().into(), value: Bytes::from_static(b"content") };
    assert_eq!(resource.resource, Some(content));
    assert_eq!(responses.message().await.unwrap(), None);
}

#[tokio::test]
async fn resources_cross_the_state_of_the_world_method() {
    let first = DiscoveryRequest { type_url: TypeUrl::Cluster.as_str().into(), ..Default::default() };
    let requests = tonic::codegen::tokio_stream::iter([first]);
    let mut responses = mk_client().sotw(requests).await.unwrap().into_inner();
    assert_eq!(responses.message().await.unwrap().unwrap().resources.len(), 1);
}

#[tokio::test]
async fn a_refusal_reaches_the_client() {
    let requests = tonic::codegen::tokio_stream::iter([DeltaDiscoveryRequest::default()]);
    let status = mk_client().delta(requests).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (tonic::Code::Unauthenticated, "who are you"));
}

#[tokio::test]
async fn other_methods_are_unimplemented() {
    let mut server = AggregatedDiscoveryServer::new(Arc::new(OneCluster(Arc::default())));
    let request = http::Request::post("/envoy.service.discovery.v3.AggregatedDiscoveryService/Fetch");
    let response = server.call(request.body(tonic::body::Body::empty()).unwrap()).await.unwrap();
    let status = response.headers().get("grpc-status").unwrap();
    assert_eq!(status, &(tonic::Code::Unimplemented as i32).to_string().as_str());
}
