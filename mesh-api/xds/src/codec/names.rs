//! The table of names (NDS).
//!
//! Istio's own message, which is not among Envoy's (istio/istio: pkg/dns/proto/nds.proto); its map is ordered here, so that
//! equal tables are equal bytes.

use std::collections::BTreeMap;

use super::error::{At, DecodeError, each, fail};
use crate::ir::names::{NameEntry, NameKind, NameTable};

/// `istio.networking.nds.v1.NameTable`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Message {
    #[prost(btree_map = "string, message", tag = "1")]
    table: BTreeMap<String, NameInfo>,
}

/// `istio.networking.nds.v1.NameTable.NameInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct NameInfo {
    #[prost(string, repeated, tag = "1")]
    ips: Vec<String>,
    #[prost(string, tag = "2")]
    registry: String,
    #[prost(string, tag = "3")]
    shortname: String,
    #[prost(string, tag = "4")]
    namespace: String,
    #[prost(string, repeated, tag = "5")]
    alt_hosts: Vec<String>,
}

/// The registry whose hosts have shorter forms (istio/istio: pilot/pkg/serviceregistry/provider).
const KUBERNETES: &str = "Kubernetes";
/// What Istio calls the registry of ServiceEntries.
const EXTERNAL: &str = "External";

pub(super) fn encode(table: &NameTable) -> Message {
    let info = |entry: &NameEntry| {
        let mut info = NameInfo {
            ips: entry.addresses.iter().map(ToString::to_string).collect(),
            registry: EXTERNAL.to_owned(),
            ..NameInfo::default()
        };
        if let NameKind::Kubernetes { short_name, namespace, aliases } = &entry.kind {
            info.registry = KUBERNETES.to_owned();
            info.shortname = short_name.to_string();
            info.namespace = namespace.to_string();
            info.alt_hosts = aliases.iter().map(ToString::to_string).collect();
        }
        (entry.host.to_string(), info)
    };
    Message { table: table.entries.iter().map(info).collect() }
}

pub(super) fn decode(message: Message) -> Result<NameTable, DecodeError> {
    let entries: Vec<NameEntry> = each("table", message.table, |(host, info)| read(&host, &info).at(&host))?;
    Ok(NameTable::new(entries.into()))
}

fn read(host: &str, info: &NameInfo) -> Result<NameEntry, DecodeError> {
    let address = |text: &String| text.parse().or_else(|_| fail(format!("{text:?} is no IP address")));
    let kind = if info.registry == KUBERNETES {
        NameKind::Kubernetes {
            short_name: info.shortname.as_str().into(),
            namespace: info.namespace.as_str().into(),
            aliases: info.alt_hosts.iter().map(|alias| alias.as_str().into()).collect(),
        }
    } else {
        NameKind::Other
    };
    let addresses: Vec<_> = each("ips", &info.ips, address)?;
    Ok(NameEntry { host: host.into(), addresses: addresses.into(), kind })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn istios_bytes_are_read() {
        // NameTable{Table: {"web.shop.svc.cluster.local": {Ips: ["10.1.0.1", "fd00::1"], Registry: "Kubernetes",
        // Shortname: "web", Namespace: "shop"}, "db.example.com": {Ips: ["240.240.0.1"], Registry: "External"}}}
        let mut info = Vec::new();
        for (tag, text) in [(1, "10.1.0.1"), (1, "fd00::1"), (2, "Kubernetes"), (3, "web"), (4, "shop")] {
            info.extend(field(tag, text.as_bytes()));
        }
        let other = [field(1, b"240.240.0.1"), field(2, b"External")].concat();
        let pair = |host: &str, info: &[u8]| field(1, &[field(1, host.as_bytes()), field(2, info)].concat());
        let bytes = [pair("web.shop.svc.cluster.local", &info), pair("db.example.com", &other)].concat();
        let table = decode(Message::decode(&bytes[..]).unwrap()).unwrap();
        let hosts: Vec<_> = table.entries.iter().map(|entry| entry.host.as_str()).collect();
        assert_eq!(hosts, ["db.example.com", "web.shop.svc.cluster.local"]);
        assert_eq!(table.entries[0].kind, NameKind::Other);
        assert_eq!(table.entries[1].addresses.len(), 2);
        let web = NameKind::Kubernetes { short_name: "web".into(), namespace: "shop".into(), aliases: [].into() };
        assert_eq!(table.entries[1].kind, web);
        assert_eq!(encode(&table).encode_to_vec().len(), bytes.len());
    }

    /// A length-delimited field shorter than 128 bytes.
    fn field(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
    }

    #[test]
    fn a_text_that_is_no_address_is_refused_with_its_place() {
        let info = NameInfo { ips: vec!["10.0.0.0/8".to_owned()], ..NameInfo::default() };
        let error = decode(Message { table: [("a.b".to_owned(), info)].into() }).unwrap_err();
        assert_eq!(error.to_string(), "table[0].a.b.ips[0]: \"10.0.0.0/8\" is no IP address");
    }
}
