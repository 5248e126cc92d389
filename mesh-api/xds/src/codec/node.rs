//! Nodes: what a proxy says of itself in the first request of a stream.

use bytes::Bytes;
use mesh_api::text::Str;
use prost::Message as _;

use super::value::{struct_from_json, struct_to_json};
use crate::ir::endpoint::Locality;
use crate::node::{MAX_NODE_BYTES, NodeError, NodeInfo, NodeMetadata, ProxyKind};
use crate::pb;

/// Word in `client_features` that announces generation marks.
const FEATURE_MARKS: &str = "lateen.generation-marks";

impl NodeInfo {
    /// Reads the node of a request.
    ///
    /// # Errors
    /// When it is not a node, or not one of Istio's convention.
    pub fn decode(bytes: &Bytes) -> Result<Self, NodeError> {
        if bytes.len() > MAX_NODE_BYTES {
            return Err(NodeError::TooLarge(bytes.len()));
        }
        let node = pb::core::Node::decode(bytes.clone()).map_err(NodeError::Malformed)?;
        let metadata = struct_to_json(node.metadata.unwrap_or_default());
        let metadata: NodeMetadata = serde_json::from_value(metadata).map_err(NodeError::Metadata)?;
        let parts: Vec<_> = node.id.split('~').collect();
        let [kind, address, name, dns_domain] = parts.as_slice() else { return Err(NodeError::Id(node.id)) };
        let (Some(kind), Some((name, namespace))) = (ProxyKind::parse(kind), name.rsplit_once('.')) else {
            return Err(NodeError::Id(node.id));
        };
        let address = address.parse().ok().or_else(|| metadata.addresses.first().copied());
        let Some(address) = address else { return Err(NodeError::NoAddress(node.id)) };
        let locality = node.locality.unwrap_or_default();
        Ok(Self {
            kind,
            address,
            name: Str::from(name),
            // Istio lets the metadata win: ids of other agents may have dots in the name.
            namespace: if metadata.namespace.is_empty() { Str::from(namespace) } else { metadata.namespace.clone() },
            dns_domain: Str::from(*dns_domain),
            service_cluster: Str::from(node.cluster),
            locality: Locality {
                region: Str::from(locality.region),
                zone: Str::from(locality.zone),
                subzone: Str::from(locality.sub_zone),
            },
            takes_marks: node.client_features.iter().any(|feature| feature == FEATURE_MARKS),
            metadata,
        })
    }

    /// The node of our own requests.
    ///
    /// # Errors
    /// When the metadata cannot be written as JSON, which only a `Value` of the caller's making can cause.
    pub fn encode(&self) -> Result<Bytes, NodeError> {
        let metadata = serde_json::to_value(&self.metadata).map_err(NodeError::Metadata)?;
        let node = pb::core::Node {
            id: self.id(),
            cluster: self.service_cluster.to_string(),
            metadata: Some(struct_from_json(metadata)),
            locality: Some(pb::core::Locality {
                region: self.locality.region.to_string(),
                zone: self.locality.zone.to_string(),
                sub_zone: self.locality.subzone.to_string(),
            }),
            client_features: self.takes_marks.then(|| FEATURE_MARKS.to_owned()).into_iter().collect(),
            ..pb::core::Node::default()
        };
        Ok(node.encode_to_vec().into())
    }

    /// The id in Istio's form.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}~{}~{}.{}~{}", self.kind.as_str(), self.address, self.name, self.namespace, self.dns_domain)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use serde_json::{Value, json};

    use super::*;
    use crate::node::InterceptionMode;

    fn mk_node(id: &str, metadata: Value) -> Bytes {
        let node = pb::core::Node {
            id: id.into(),
            cluster: "web.shop".into(),
            metadata: Some(struct_from_json(metadata)),
            ..Default::default()
        };
        node.encode_to_vec().into()
    }

    #[test]
    fn an_istio_agent_is_understood_and_its_other_keys_are_kept() {
        let metadata = json!({
            "NAME": "web-1", "NAMESPACE": "shop", "LABELS": {"app": "web"}, "SERVICE_ACCOUNT": "web",
            "INSTANCE_IPS": "10.0.0.1,fd00::1", "INTERCEPTION_MODE": "TPROXY", "HTTP_PROXY_PORT": "15080",
            "REQUESTED_NETWORK_VIEW": "n1, n2", "DNS_CAPTURE": "true", "ENABLE_HBONE": true, "HTTP10": "1",
            "PROXY_CONFIG": {"concurrency": 2.0}, "PILOT_SAN": ["istiod.istio-system.svc"], "STS_PORT": 15463.0,
        });
        let node = NodeInfo::decode(&mk_node("sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local", metadata)).unwrap();
        assert_eq!(node.kind, ProxyKind::Sidecar);
        assert_eq!(node.address, IpAddr::from([10, 0, 0, 1]));
        assert_eq!((node.name.as_str(), node.namespace.as_str()), ("web-1", "shop"));
        assert_eq!(node.service_cluster, "web.shop");
        assert!(!node.takes_marks);
        let metadata = &node.metadata;
        assert_eq!(metadata.addresses.len(), 2);
        assert_eq!(metadata.interception_mode, InterceptionMode::Tproxy);
        assert_eq!(metadata.http_proxy_port, 15080);
        assert_eq!(metadata.requested_network_view, ["n1", "n2"]);
        assert!(metadata.dns_capture && metadata.enable_hbone && metadata.http10);
        assert_eq!(metadata.other.get("PILOT_SAN"), Some(&json!(["istiod.istio-system.svc"])));
        assert_eq!(metadata.other.get("STS_PORT"), Some(&json!(15463.0)));

        let marked = NodeInfo { takes_marks: true, ..node };
        assert_eq!(NodeInfo::decode(&marked.encode().unwrap()).unwrap(), marked);
    }

    #[test]
    fn an_id_without_address_falls_back_to_the_instance_addresses() {
        let node = mk_node("router~~gw-1.infra~infra.svc.cluster.local", json!({"INSTANCE_IPS": "10.0.0.9"}));
        assert_eq!(NodeInfo::decode(&node).unwrap().address, IpAddr::from([10, 0, 0, 9]));
        let node = mk_node("router~~gw-1.infra~infra.svc.cluster.local", json!({}));
        assert!(matches!(NodeInfo::decode(&node), Err(NodeError::NoAddress(_))));
    }

    #[test]
    fn bad_nodes_are_refused_with_their_reason() {
        for id in
            ["", "sidecar~10.0.0.1~web~x", "spaceship~10.0.0.1~web.shop~x", "sidecar~10.0.0.1~web.shop", "a~b~c.d~e~f"]
        {
            assert!(matches!(NodeInfo::decode(&mk_node(id, json!({}))), Err(NodeError::Id(_))), "{id}");
        }
        let id = "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local";
        for metadata in
            [json!({"HTTP_PROXY_PORT": "70000"}), json!({"DNS_CAPTURE": "maybe"}), json!({"INSTANCE_IPS": "x"})]
        {
            assert!(matches!(NodeInfo::decode(&mk_node(id, metadata)), Err(NodeError::Metadata(_))));
        }
        assert!(matches!(NodeInfo::decode(&Bytes::from_static(&[0xff, 1])), Err(NodeError::Malformed(_))));
        assert!(matches!(NodeInfo::decode(&vec![0; MAX_NODE_BYTES + 1].into()), Err(NodeError::TooLarge(_))));
    }
}
