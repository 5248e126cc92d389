//! Who the proxy is: the node of a stream's first request.
//!
//! Istio's convention (pilot/pkg/model/context.go): the id is `<type>~<address>~<name>.<namespace>~<dns domain>`, the rest is in
//! the metadata. Keys that have no field here are kept as they came.

use std::collections::BTreeMap;
use std::net::IpAddr;

use mesh_api::text::Str;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use crate::ir::endpoint::Locality;

/// A proxy, as it introduces itself.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeInfo {
    /// Kind of proxy.
    pub kind: ProxyKind,
    /// Its address: that of the id, else the first of the metadata's `INSTANCE_IPS`.
    pub address: IpAddr,
    /// Pod or workload name.
    pub name: Str,
    /// Namespace.
    pub namespace: Str,
    /// DNS domain, `<namespace>.svc.<cluster domain>`.
    pub dns_domain: Str,
    /// Service cluster (`--service-cluster`), `app.namespace` by convention.
    pub service_cluster: Str,
    /// Where it runs.
    pub locality: Locality,
    /// It commits configuration by generation marks.
    pub takes_marks: bool,
    /// Everything else.
    pub metadata: NodeMetadata,
}

/// Kind of proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyKind {
    /// Beside a workload.
    Sidecar,
    /// A gateway.
    Router,
    /// A waypoint.
    Waypoint,
    /// A node proxy.
    Ztunnel,
}

impl ProxyKind {
    /// The word in the id.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Router => "router",
            Self::Waypoint => "waypoint",
            Self::Ztunnel => "ztunnel",
        }
    }

    /// The kind that a word names.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Sidecar, Self::Router, Self::Waypoint, Self::Ztunnel].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// Metadata of a node, under Istio's keys. Empty and absent are the same.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", default)]
pub struct NodeMetadata {
    /// Pod or workload name.
    #[serde(skip_serializing_if = "is_default")]
    pub name: Str,
    /// Namespace.
    #[serde(skip_serializing_if = "is_default")]
    pub namespace: Str,
    /// Workload name, for telemetry.
    #[serde(skip_serializing_if = "is_default")]
    pub workload_name: Str,
    /// `kubernetes://apis/apps/v1/namespaces/<ns>/deployments/<name>`.
    #[serde(skip_serializing_if = "is_default")]
    pub owner: Str,
    /// Service account.
    #[serde(skip_serializing_if = "is_default")]
    pub service_account: Str,
    /// Labels of the workload.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<Str, Str>,
    /// Annotations of the workload.
    #[serde(skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<Str, Str>,
    /// Cluster that the workload runs in.
    #[serde(skip_serializing_if = "is_default")]
    pub cluster_id: Str,
    /// Network that the workload runs in.
    #[serde(skip_serializing_if = "is_default")]
    pub network: Str,
    /// Mesh.
    #[serde(skip_serializing_if = "is_default")]
    pub mesh_id: Str,
    /// Version of the proxy.
    #[serde(skip_serializing_if = "is_default")]
    pub istio_version: Str,
    /// Revision of the control plane that it belongs to.
    #[serde(skip_serializing_if = "is_default")]
    pub istio_revision: Str,
    /// All its addresses; on the wire one text with commas.
    #[serde(rename = "INSTANCE_IPS", with = "comma_list", skip_serializing_if = "is_default")]
    pub addresses: Vec<IpAddr>,
    /// Kubernetes node.
    #[serde(skip_serializing_if = "is_default")]
    pub node_name: Str,
    /// How traffic reaches it.
    #[serde(skip_serializing_if = "is_default")]
    pub interception_mode: InterceptionMode,
    /// Port of the HTTP proxy listener; 0 is none.
    #[serde(with = "number_text", skip_serializing_if = "is_default")]
    pub http_proxy_port: u16,
    /// Networks whose endpoints it asks for; all when empty.
    #[serde(with = "comma_list", skip_serializing_if = "is_default")]
    pub requested_network_view: Vec<Str>,
    /// `grpc` for proxyless gRPC; empty for Envoy and us.
    #[serde(skip_serializing_if = "is_default")]
    pub generator: Str,
    /// HTTP/1.0 is served.
    #[serde(with = "flag_text", skip_serializing_if = "is_default")]
    pub http10: bool,
    /// DNS is captured.
    #[serde(with = "flag_text", skip_serializing_if = "is_default")]
    pub dns_capture: bool,
    /// It understands HBONE.
    #[serde(with = "flag_text", skip_serializing_if = "is_default")]
    pub enable_hbone: bool,
    /// It may not bind ports below 1024.
    #[serde(with = "flag_text", skip_serializing_if = "is_default")]
    pub unprivileged_pod: bool,
    /// Its `ProxyConfig`, in JSON form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_config: Option<Value>,
    /// All other keys.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl NodeMetadata {
    /// Whether the proxy answers look-ups of names: captured ones (`DNS_CAPTURE`), or those that it is sent
    /// (`ENABLE_DNS_SERVER`, of gateways).
    #[must_use]
    pub fn serves_names(&self) -> bool {
        self.dns_capture || self.enables_dns_server()
    }

    /// Whether the proxy answers look-ups that it is sent (`ENABLE_DNS_SERVER`).
    #[must_use]
    pub fn enables_dns_server(&self) -> bool {
        let said = self.other.get("ENABLE_DNS_SERVER").and_then(Value::as_str);
        matches!(said, Some("true" | "1" | "t" | "T" | "True" | "TRUE"))
    }
}

/// How traffic reaches a sidecar (`INTERCEPTION_MODE`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum InterceptionMode {
    /// Redirected, the source address replaced.
    #[default]
    Redirect,
    /// Redirected with the source address kept.
    Tproxy,
    /// The application is configured to use the proxy.
    None,
}

/// A node that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Larger than [`MAX_NODE_BYTES`].
    #[error("the node has {0} bytes, more than {MAX_NODE_BYTES}")]
    TooLarge(usize),
    /// Not a `Node` message.
    #[error("the node is not a Node message")]
    Malformed(#[source] prost::DecodeError),
    /// The id has not the four parts `type~address~name.namespace~domain`.
    #[error("the node id {0:?} is not of the form type~address~name.namespace~domain")]
    Id(String),
    /// Neither the id nor `INSTANCE_IPS` hold an address.
    #[error("the node {0:?} has no address, neither in its id nor in INSTANCE_IPS")]
    NoAddress(String),
    /// A metadata key has a value of the wrong form.
    #[error("the node metadata does not parse")]
    Metadata(#[source] serde_json::Error),
}

/// Largest encoded node, in bytes. Source: our judgement; Kubernetes bounds annotations to 256 KiB, the rest is small.
pub const MAX_NODE_BYTES: usize = 1 << 20;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A list as one text with commas; a JSON list is understood too.
mod comma_list {
    use super::{Deserialize, Deserializer, Serializer, de};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        List(Vec<String>),
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, T>(deserializer: D) -> Result<Vec<T>, D::Error>
    where
        T: ListItem,
    {
        let items = match Either::deserialize(deserializer)? {
            Either::Text(text) => text.split(',').map(|item| item.trim().to_owned()).collect(),
            Either::List(items) => items,
        };
        let items = items.iter().filter(|item| !item.is_empty());
        items
            .map(|item| T::parse_item(item).ok_or_else(|| de::Error::custom(format!("{item:?} is not {}", T::WHAT))))
            .collect()
    }

    pub(super) fn serialize<S: Serializer, T: ToString>(items: &[T], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&items.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
    }

    /// An element of such a list.
    pub(super) trait ListItem: Sized {
        const WHAT: &'static str;
        fn parse_item(text: &str) -> Option<Self>;
    }

    impl ListItem for std::net::IpAddr {
        const WHAT: &'static str = "an IP address";

        fn parse_item(text: &str) -> Option<Self> {
            text.parse().ok()
        }
    }

    impl ListItem for mesh_api::text::Str {
        const WHAT: &'static str = "a text";

        fn parse_item(text: &str) -> Option<Self> {
            Some(Self::from(text))
        }
    }
}

/// A number as text, as environment variables give it; a JSON number is understood too.
mod number_text {
    use super::{Deserialize, Deserializer, Serializer, de};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Number(f64),
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
        let text = match Either::deserialize(deserializer)? {
            Either::Text(text) if text.is_empty() => return Ok(0),
            Either::Text(text) => text,
            // The shortest text of a whole number has no fraction.
            Either::Number(number) => number.to_string(),
        };
        text.parse().map_err(|_| de::Error::custom(format!("{text:?} is not a port")))
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(number: &u16, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&number.to_string())
    }
}

/// A flag as text, as environment variables give it (`true`, `1`); a JSON boolean is understood too.
mod flag_text {
    use super::{Deserialize, Deserializer, Serializer, de};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Flag(bool),
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
        match Either::deserialize(deserializer)? {
            Either::Flag(flag) => Ok(flag),
            Either::Text(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "1" => Ok(true),
                "false" | "0" | "" => Ok(false),
                _ => Err(de::Error::custom(format!("{text:?} is neither true nor false"))),
            },
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(flag: &bool, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if *flag { "true" } else { "false" })
    }
}
