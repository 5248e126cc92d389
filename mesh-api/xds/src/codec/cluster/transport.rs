//! Transport sockets of a cluster.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::codec::common::any;
use crate::codec::endpoint::{SOCKET_MATCH, TLS_MODE, TLS_MODE_ISTIO};
use crate::codec::error::{At, DecodeError, fail, required};
use crate::codec::metadata::Metadata;
use crate::codec::{tls, value};
use crate::ir::cluster::Transport;
use crate::pb;
use crate::pb::cluster::cluster::TransportSocketMatch;

/// Names of the two transport sockets of automatic mTLS, as Istio has them.
const MATCH_TLS: &str = "tlsMode-istio";
const MATCH_PLAIN: &str = "tlsMode-disabled";
/// Name of Envoy's plaintext transport socket.
const RAW_BUFFER: &str = "envoy.transport_sockets.raw_buffer";

pub(super) fn encode(transport: &Transport, message: &mut pb::cluster::Cluster, metadata: &mut Metadata) {
    let (Transport::Tls(context) | Transport::Auto(context)) = transport else { return };
    if context.alpn_override {
        metadata.set("alpn_override", true);
    }
    let socket = tls::upstream(context);
    if matches!(transport, Transport::Tls(_)) {
        message.transport_socket = Some(socket);
        return;
    }
    let mode = pb::protobuf::Struct {
        fields: HashMap::from([(
            TLS_MODE.to_owned(),
            pb::protobuf::Value { kind: Some(pb::protobuf::value::Kind::StringValue(TLS_MODE_ISTIO.to_owned())) },
        )]),
    };
    let plain = pb::core::TransportSocket {
        name: RAW_BUFFER.to_owned(),
        config_type: Some(pb::core::transport_socket::ConfigType::TypedConfig(any(&pb::raw_buffer::RawBuffer {}))),
    };
    message.transport_socket_matches = vec![
        TransportSocketMatch { name: MATCH_TLS.to_owned(), r#match: Some(mode), transport_socket: Some(socket) },
        TransportSocketMatch {
            name: MATCH_PLAIN.to_owned(),
            r#match: Some(pb::protobuf::Struct::default()),
            transport_socket: Some(plain),
        },
    ];
}

pub(super) fn decode(
    message: &mut pb::cluster::Cluster,
    from_host: bool,
    metadata: &Metadata,
) -> Result<Transport, DecodeError> {
    let alpn_override = metadata.get("alpn_override").is_some();
    let matches = std::mem::take(&mut message.transport_socket_matches);
    let socket = message.transport_socket.take();
    let read = |socket| tls::read_upstream(socket, from_host, alpn_override).map(Arc::new);
    match (socket, matches.len()) {
        (None, 0) => Ok(Transport::Plaintext),
        (Some(socket), 0) => Ok(Transport::Tls(read(socket).at("transport_socket")?)),
        (None, 2) => {
            let [with_tls, plain] = <[_; 2]>::try_from(matches).unwrap_or_default();
            let expect = [(TLS_MODE, Value::from(TLS_MODE_ISTIO))];
            let expect: serde_json::Map<_, _> =
                expect.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            let found = value::struct_to_json(with_tls.r#match.unwrap_or_default());
            let raw = plain.transport_socket.is_some_and(|socket| socket.name == RAW_BUFFER);
            if found != Value::Object(expect) || !plain.r#match.unwrap_or_default().fields.is_empty() || !raw {
                return fail(format!("only {SOCKET_MATCH}.{TLS_MODE} is supported")).at("transport_socket_matches");
            }
            let socket = required(with_tls.transport_socket, "transport_socket_matches[0].transport_socket")?;
            Ok(Transport::Auto(read(socket).at("transport_socket_matches[0].transport_socket")?))
        }
        (_, _) => fail("only TLS with a plaintext fallback is supported").at("transport_socket_matches"),
    }
}
