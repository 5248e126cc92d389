//! Filters that Istio adds to Envoy. A plain Envoy does not have them, so they are marked as optional and it leaves them out.

use serde_json::{Map, Value, json};

use crate::codec::common::{any, unpack};
use crate::codec::error::{DecodeError, fail};
use crate::codec::value::{struct_from_json, struct_to_json};
use crate::ir::filter::{HttpFilter, PeerMetadata, Reporter, Stats};
use crate::pb;
use crate::pb::hcm::http_filter::ConfigType;

const PEER_METADATA: &str = "istio.peer_metadata";
const ALPN: &str = "istio.alpn";
const STATS: &str = "istio.stats";

fn optional(name: &str, config: Value) -> pb::hcm::HttpFilter {
    // The type is the filter's own; `TypedStruct` is what Envoy can carry without knowing it.
    let content = pb::TypedStruct {
        type_url: format!("type.googleapis.com/lateen.v1.{name}"),
        value: Some(struct_from_json(config)),
    };
    pb::hcm::HttpFilter {
        name: name.to_owned(),
        is_optional: true,
        config_type: Some(ConfigType::TypedConfig(any(&content))),
        ..pb::hcm::HttpFilter::default()
    }
}

pub(super) fn peer_metadata(side: PeerMetadata) -> pb::hcm::HttpFilter {
    let side = match side {
        PeerMetadata::Server => "server",
        PeerMetadata::Client => "client",
        PeerMetadata::ClientMeshOnly => "client_mesh_only",
    };
    optional(PEER_METADATA, json!({"side": side}))
}

pub(super) fn alpn() -> pb::hcm::HttpFilter {
    optional(ALPN, Value::Object(Map::new()))
}

pub(super) fn stats(stats: Stats) -> pb::hcm::HttpFilter {
    let reporter = match stats.reporter {
        Reporter::Source => "source",
        Reporter::Destination => "destination",
    };
    optional(STATS, json!({"reporter": reporter}))
}

/// One of these filters; none when the name is another's.
pub(super) fn decode(name: &str, config: &pb::protobuf::Any) -> Result<Option<HttpFilter>, DecodeError> {
    if ![PEER_METADATA, ALPN, STATS].contains(&name) {
        return Ok(None);
    }
    let content: pb::TypedStruct = unpack(config)?;
    let config = struct_to_json(content.value.unwrap_or_default());
    let word = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default();
    let filter = match (name, word("side"), word("reporter")) {
        (PEER_METADATA, "server", _) => HttpFilter::PeerMetadata(PeerMetadata::Server),
        (PEER_METADATA, "client", _) => HttpFilter::PeerMetadata(PeerMetadata::Client),
        (PEER_METADATA, "client_mesh_only", _) => HttpFilter::PeerMetadata(PeerMetadata::ClientMeshOnly),
        (ALPN, ..) => HttpFilter::Alpn,
        (STATS, _, "source") => HttpFilter::Stats(Stats { reporter: Reporter::Source }),
        (STATS, _, "destination") => HttpFilter::Stats(Stats { reporter: Reporter::Destination }),
        _ => return fail(format!("the settings of {name} are not understood")),
    };
    Ok(Some(filter))
}
