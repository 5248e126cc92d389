//! The internal representation as Envoy's messages, and back.
//!
//! `decode(encode(x)) == x` for every `x` in canonical form; what Envoy has no field for travels in the metadata
//! namespace `lateen`, which Envoy ignores. Decoding is strict: a field that is set and not understood is an error that
//! names its place, because ignoring it could route or admit what its author did not mean.
//!
//! Canonical form, where the messages know less than the representation:
//! - the policies of an [`Authz`](crate::ir::authz::Authz) are ordered by name and unique; `All([])` is `Any`, `OneOf([])`
//!   is `Not(Any)`;
//! - a route has at most one setting for each filter, faults before CORS;
//! - a regular expression never has `ignore_case`, which it does not heed;
//! - durations that Envoy takes in seconds (TCP keep-alive, CORS age) are whole;
//! - "no limit" is `None` where the type offers it, never a zero.

mod access_log;
#[cfg(feature = "testing")]
pub mod bootstrap;
mod chain;
mod cluster;
mod common;
mod endpoint;
mod error;
mod filter;
mod http;
mod listener;
mod matcher;
mod metadata;
mod names;
mod node;
mod retry;
mod route;
mod route_config;
mod secret;
mod tls;
mod value;
mod vhost;

use std::sync::Arc;

use bytes::Bytes;
use mesh_api::text::Str;
use prost::Message;

use self::error::fail;
pub use self::error::{DecodeError, EncodeError};
use crate::encoded::{Encoded, Version};
use crate::ir::Resource;
use crate::type_url::TypeUrl;

/// The type under which a resource is sent.
#[must_use]
pub const fn type_of(resource: &Resource) -> TypeUrl {
    match resource {
        Resource::Cluster(_) => TypeUrl::Cluster,
        Resource::Endpoints(_) => TypeUrl::Endpoint,
        Resource::Listener(_) => TypeUrl::Listener,
        Resource::Routes(_) => TypeUrl::RouteConfiguration,
        Resource::VirtualHost(_) => TypeUrl::VirtualHost,
        Resource::Secret(_) => TypeUrl::Secret,
        Resource::Names(_) => TypeUrl::NameTable,
    }
}

/// Encodes a resource and computes its version.
///
/// # Errors
/// When it holds what Envoy's messages cannot say; the error names the place.
pub fn encode(resource: &Resource) -> Result<Encoded, EncodeError> {
    let bytes = match resource {
        Resource::Cluster(cluster) => cluster::encode(cluster)?.encode_to_vec(),
        Resource::Endpoints(endpoints) => endpoint::encode(endpoints).encode_to_vec(),
        Resource::Listener(listener) => listener::encode(listener)?.encode_to_vec(),
        Resource::Routes(routes) => route_config::encode(routes)?.encode_to_vec(),
        Resource::VirtualHost(host) => vhost::encode(host)?.encode_to_vec(),
        Resource::Secret(secret) => secret::encode(secret).encode_to_vec(),
        Resource::Names(names) => names::encode(names).encode_to_vec(),
    };
    Ok(Encoded {
        name: resource.name().clone(),
        aliases: aliases(resource),
        version: Version::of(resource),
        bytes: bytes.into(),
    })
}

/// Decodes a resource of a type.
///
/// # Errors
/// When the bytes are not such a message, or hold what we do not understand; the error names the place.
pub fn decode(type_url: TypeUrl, bytes: &Bytes) -> Result<Resource, DecodeError> {
    match type_url {
        TypeUrl::Cluster => cluster::decode(read(bytes)?).map(Resource::Cluster),
        TypeUrl::Endpoint => endpoint::decode(read(bytes)?).map(Resource::Endpoints),
        TypeUrl::Listener => listener::decode(read(bytes)?).map(Resource::Listener),
        TypeUrl::RouteConfiguration => route_config::decode(read(bytes)?).map(Resource::Routes),
        TypeUrl::VirtualHost => vhost::decode(read(bytes)?).map(Resource::VirtualHost),
        TypeUrl::Secret => secret::decode(read(bytes)?).map(Resource::Secret),
        TypeUrl::NameTable => names::decode(read(bytes)?).map(Resource::Names),
        TypeUrl::Generation => fail("a generation mark is no configuration"),
    }
}

fn read<M: Message + Default>(bytes: &Bytes) -> Result<M, DecodeError> {
    M::decode(bytes.clone()).or_else(|error| fail(format!("not a message of this type: {error}")))
}

/// Names under which a resource can be asked for besides its own: of a virtual host that is sent apart, its domains.
fn aliases(resource: &Resource) -> Arc<[Str]> {
    match resource {
        Resource::VirtualHost(host) => match host.name.split_once('/') {
            Some((routes, _)) => host.domains.iter().map(|domain| Str::from(format!("{routes}/{domain}"))).collect(),
            None => Arc::default(),
        },
        Resource::Cluster(_)
        | Resource::Endpoints(_)
        | Resource::Listener(_)
        | Resource::Routes(_)
        | Resource::Secret(_)
        | Resource::Names(_) => Arc::default(),
    }
}

#[cfg(test)]
mod tests;
