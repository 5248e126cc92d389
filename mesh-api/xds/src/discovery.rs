//! The discovery messages, wire-compatible with `envoy.service.discovery.v3`.
//!
//! They are our own prost structs because a resource's content is carried as [`Bytes`]: one encoding is shared by every
//! stream that sends it, and a received one is kept without a copy. Fields that neither side acts on are left out; prost skips
//! them when they arrive. Source: envoy `api/envoy/service/discovery/v3/discovery.proto`.

use std::collections::BTreeMap;

use bytes::Bytes;

/// Variant of the protocol; fixed for a stream by the gRPC method that opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Incremental (`DeltaAggregatedResources`).
    Delta,
    /// State of the world (`StreamAggregatedResources`).
    Sotw,
}

/// `google.protobuf.Any` with shared content.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Any {
    /// Type URL of the content.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// Encoded content.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// `google.rpc.Status`, the reason of a NACK.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Status {
    /// gRPC status code; 3 (`INVALID_ARGUMENT`) for rejected configuration.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
    /// For programs; we put [`Rejections`] here.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// State-of-the-world request.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DiscoveryRequest {
    /// Version of the last accepted response.
    #[prost(string, tag = "1")]
    pub version_info: String,
    /// Encoded `envoy.config.core.v3.Node`, see [`crate::node`].
    #[prost(bytes = "bytes", tag = "2")]
    pub node: Bytes,
    /// All names subscribed to.
    #[prost(string, repeated, tag = "3")]
    pub resource_names: Vec<String>,
    /// Type asked for.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// Nonce of the response that this answers; empty at first.
    #[prost(string, tag = "5")]
    pub response_nonce: String,
    /// Set when that response was rejected.
    #[prost(message, optional, tag = "6")]
    pub error_detail: Option<Status>,
}

/// State-of-the-world response.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DiscoveryResponse {
    /// Version of the whole.
    #[prost(string, tag = "1")]
    pub version_info: String,
    /// All resources.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Any>,
    /// Their type.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// To be repeated in the answer.
    #[prost(string, tag = "5")]
    pub nonce: String,
}

/// Incremental request.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeltaDiscoveryRequest {
    /// Encoded `envoy.config.core.v3.Node`, see [`crate::node`].
    #[prost(bytes = "bytes", tag = "1")]
    pub node: Bytes,
    /// Type asked for.
    #[prost(string, tag = "2")]
    pub type_url: String,
    /// Names subscribed to from now on.
    #[prost(string, repeated, tag = "3")]
    pub resource_names_subscribe: Vec<String>,
    /// Names no longer subscribed to.
    #[prost(string, repeated, tag = "4")]
    pub resource_names_unsubscribe: Vec<String>,
    /// On the first request of a stream: what the client holds, name to version.
    #[prost(btree_map = "string, string", tag = "5")]
    pub initial_resource_versions: BTreeMap<String, String>,
    /// Nonce of the response that this answers; empty otherwise.
    #[prost(string, tag = "6")]
    pub response_nonce: String,
    /// Set when that response was rejected.
    #[prost(message, optional, tag = "7")]
    pub error_detail: Option<Status>,
}

/// Incremental response.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeltaDiscoveryResponse {
    /// Version of the whole, for people.
    #[prost(string, tag = "1")]
    pub system_version_info: String,
    /// New and changed resources.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Resource>,
    /// Their type.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// To be repeated in the answer.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Names of resources that are gone or do not exist.
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
}

/// One resource of an incremental response.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Resource {
    /// Version of this resource.
    #[prost(string, tag = "1")]
    pub version: String,
    /// Content; absent when the name is known not to exist.
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Any>,
    /// Name.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Other names under which it was asked for (virtual hosts: `<route configuration>/<host>`).
    #[prost(string, repeated, tag = "4")]
    pub aliases: Vec<String>,
}

/// Content of the mark that ends a consistent set (`lateen.v1.Generation`).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GenerationMark {
    /// Generation of the set.
    #[prost(uint64, tag = "1")]
    pub generation: u64,
    /// Ids of the changes that led to it.
    #[prost(string, repeated, tag = "2")]
    pub changes: Vec<String>,
}

impl GenerationMark {
    /// The mark's resource name.
    pub const NAME: &'static str = "generation";
}

/// Details of a NACK that name each rejected resource (`lateen.v1.Rejections`).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Rejections {
    /// The rejected resources; all others of the response were accepted.
    #[prost(message, repeated, tag = "1")]
    pub rejections: Vec<RejectionMessage>,
}

impl Rejections {
    /// Type URL in [`Status::details`].
    pub const TYPE_URL: &'static str = "type.googleapis.com/lateen.v1.Rejections";
}

/// One rejected resource.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RejectionMessage {
    /// Resource name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Place in the resource, for example `virtual_hosts[2].routes[0].match`; empty when it is the whole.
    #[prost(string, tag = "2")]
    pub path: String,
    /// Why.
    #[prost(string, tag = "3")]
    pub reason: String,
}
