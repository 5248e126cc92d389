//! Services of every registry in one form.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_api::host::Hostname;
use mesh_api::ids::{Namespace, ObjectKey};
use mesh_api::labels::Selector;
use mesh_api::meta::Timestamp;
use mesh_api::text::Str;
use mesh_api_xds::ir::matcher::Cidr;

/// A service: one host with its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Object it comes from.
    pub key: ObjectKey,
    /// Age, for the order of precedence; `None` (a folder gives no times) is the oldest.
    pub created: Option<Timestamp>,
    /// Full host name, possibly a wildcard.
    pub host: Hostname,
    /// Short name, for telemetry and names.
    pub name: Str,
    /// Namespace.
    pub namespace: Namespace,
    /// Who knows it.
    pub registry: Registry,
    /// Virtual addresses; empty when there is none.
    pub addresses: Arc<[Cidr]>,
    /// Ports, in the order of the object.
    pub ports: Arc<[Port]>,
    /// Where its endpoints come from.
    pub resolution: Resolution,
    /// Outside the mesh: never mutual TLS.
    pub external: bool,
    /// Who sees it.
    pub export_to: ExportTo,
    /// Additional names its endpoints may present.
    pub sans: Arc<[Str]>,
    /// Labels of its workloads; `None` when endpoints are given otherwise.
    pub selector: Option<Selector>,
    /// Endpoints count as ready before they are.
    pub publish_not_ready: bool,
    /// Which endpoints are preferred.
    pub distribution: Distribution,
}

/// Which endpoints of a service are preferred. The others take over when those are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Distribution {
    /// As the mesh and the DestinationRule say.
    #[default]
    Unset,
    /// Those of the client's zone, then of its region.
    SameZone,
    /// Those of the client's sub-zone, then of its zone and region.
    SameSubzone,
}

impl Distribution {
    /// Reads `spec.trafficDistribution`, and where that says nothing known the annotation, whose case does not matter.
    /// istio/istio: pilot/pkg/model/service.go GetTrafficDistribution.
    #[must_use]
    pub fn parse(spec: &str, annotation: &str) -> Self {
        match spec {
            "PreferClose" | "PreferSameZone" => return Self::SameZone,
            "PreferSameNode" => return Self::SameSubzone,
            _ => {}
        }
        match annotation.to_ascii_lowercase().as_str() {
            "preferclose" | "prefersamezone" => Self::SameZone,
            "prefersamenode" => Self::SameSubzone,
            _ => Self::Unset,
        }
    }
}

/// Who knows a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Registry {
    /// A Kubernetes Service: wins over others of the same host.
    Kubernetes,
    /// A `ServiceEntry`.
    ServiceEntry,
}

/// A service port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Port {
    /// Name.
    pub name: Str,
    /// Number that clients use.
    pub number: u16,
    /// Port at the endpoints.
    pub target: TargetPort,
    /// What is spoken.
    pub protocol: Protocol,
}

/// Port at the endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetPort {
    /// This one.
    Number(u16),
    /// The container port of this name.
    Named(Str),
}

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/2.
    Http2,
    /// gRPC: HTTP/2 with its own statuses.
    Grpc,
    /// TLS that is passed through; routed by server name.
    Tls,
    /// Bytes.
    Tcp,
    /// Told by the first bytes.
    Auto,
    /// Not proxied.
    Udp,
}

impl Protocol {
    /// Declared as HTTP of any version.
    #[must_use]
    pub const fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc)
    }

    /// Declared as HTTP/2.
    #[must_use]
    pub const fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc)
    }

    /// May turn out to be HTTP.
    #[must_use]
    pub const fn may_be_http(self) -> bool {
        self.is_http() || matches!(self, Self::Auto)
    }

    /// Protocol of a Kubernetes service port: `appProtocol`, else the prefix of its name, else by well-known number,
    /// else by detection (istio-surface section 3.4).
    #[must_use]
    pub fn of_service_port(transport: &str, app_protocol: Option<&str>, name: &str, number: u16) -> Self {
        if transport.eq_ignore_ascii_case("UDP") {
            return Self::Udp;
        }
        let named = match app_protocol {
            Some("kubernetes.io/h2c") => Some(Self::Http2),
            Some("kubernetes.io/ws") => Some(Self::Http),
            Some("kubernetes.io/wss") => Some(Self::Tls),
            Some(text) => Self::of_name(text),
            None => Self::of_name(name),
        };
        match (named, number) {
            (Some(protocol), _) => protocol,
            (None, 25 | 53 | 3306 | 27017) => Self::Tcp,
            (None, _) => Self::Auto,
        }
    }

    /// Protocol of a declared word or of a port name `<protocol>[-suffix]`; `None` when it says nothing.
    #[must_use]
    pub fn of_name(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        // `grpc-web` is the one protocol with a hyphen of its own; it is HTTP to us.
        let word = if lower.starts_with("grpc-web") { "grpc-web" } else { lower.split('-').next().unwrap_or_default() };
        match word {
            "http" | "grpc-web" => Some(Self::Http),
            "http2" => Some(Self::Http2),
            "grpc" => Some(Self::Grpc),
            "https" | "tls" => Some(Self::Tls),
            "tcp" | "mongo" | "mysql" | "redis" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            _ => None,
        }
    }
}

/// Where endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// The registry lists them.
    Registry,
    /// The client addresses them itself: headless services, `resolution: NONE`.
    Passthrough,
    /// Proxies resolve names; every address is an endpoint.
    Dns,
    /// Another name of this host (`ExternalName`).
    Alias(Hostname),
}

/// Who may see an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum ExportTo {
    /// Everyone.
    #[default]
    All,
    /// No one.
    None,
    /// These namespaces.
    Only(BTreeSet<Namespace>),
}

impl ExportTo {
    /// Reads a list such as `[".", "prod"]`; an empty one is `default`. `own` is the object's namespace.
    pub fn parse<'a>(list: impl IntoIterator<Item = &'a str>, own: &Namespace, default: &Self) -> Self {
        let mut namespaces = BTreeSet::new();
        let mut hidden = false;
        for item in list.into_iter().map(str::trim).filter(|item| !item.is_empty()) {
            match item {
                "*" => return Self::All,
                "~" => hidden = true,
                "." => _ = namespaces.insert(own.clone()),
                other => _ = namespaces.insert(Namespace::from(other)),
            }
        }
        match (hidden, namespaces.is_empty()) {
            (_, false) => Self::Only(namespaces),
            (true, true) => Self::None,
            (false, true) => default.clone(),
        }
    }

    /// Whether `namespace` sees it.
    #[must_use]
    pub fn reaches(&self, namespace: &Namespace) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Only(namespaces) => namespaces.contains(namespace),
        }
    }
}

impl Service {
    /// The port of this number.
    #[must_use]
    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// Order of precedence: Kubernetes before others, then age, name, namespace.
    #[must_use]
    pub fn by_precedence(a: &Self, b: &Self) -> std::cmp::Ordering {
        let rank = |s: &Self| matches!(s.registry, Registry::ServiceEntry);
        (rank(a), a.created, &a.key.name, &a.key.namespace, &a.host).cmp(&(
            rank(b),
            b.created,
            &b.key.name,
            &b.key.namespace,
            &b.host,
        ))
    }

    /// Order of age: creation time, then name, then namespace.
    #[must_use]
    pub fn by_age(a: &Self, b: &Self) -> std::cmp::Ordering {
        (a.created, &a.key.name, &a.key.namespace, &a.host).cmp(&(b.created, &b.key.name, &b.key.namespace, &b.host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_told_by_app_protocol_then_name_then_number() {
        #[track_caller]
        fn check(transport: &str, app: Option<&str>, name: &str, number: u16, expect: Protocol) {
            assert_eq!(Protocol::of_service_port(transport, app, name, number), expect);
        }
        check("TCP", None, "http", 80, Protocol::Http);
        check("TCP", None, "http-web", 80, Protocol::Http);
        check("TCP", None, "HTTP2-x", 80, Protocol::Http2);
        check("TCP", None, "grpc", 80, Protocol::Grpc);
        check("TCP", None, "grpc-web", 80, Protocol::Http);
        check("TCP", None, "grpc-web-x", 80, Protocol::Http);
        check("TCP", None, "https", 443, Protocol::Tls);
        check("TCP", None, "tls-x", 443, Protocol::Tls);
        check("TCP", None, "mysql", 1, Protocol::Tcp);
        check("TCP", None, "web", 3306, Protocol::Tcp);
        check("TCP", None, "web", 80, Protocol::Auto);
        check("TCP", None, "", 80, Protocol::Auto);
        check("TCP", None, "httpx", 80, Protocol::Auto);
        check("UDP", None, "http", 80, Protocol::Udp);
        check("TCP", Some("http"), "tcp", 80, Protocol::Http);
        check("TCP", Some("kubernetes.io/h2c"), "tcp", 80, Protocol::Http2);
        check("TCP", Some("kubernetes.io/wss"), "tcp", 80, Protocol::Tls);
        check("TCP", Some("unknown"), "http", 80, Protocol::Auto);
    }

    #[test]
    fn exports_follow_istio() {
        let own = Namespace::from("shop");
        let check = |list: &[&str], seen_by: &str, expect: bool| {
            let export = ExportTo::parse(list.iter().copied(), &own, &ExportTo::All);
            assert_eq!(export.reaches(&Namespace::from(seen_by)), expect, "{list:?} {seen_by}");
        };
        check(&[], "x", true);
        check(&["."], "shop", true);
        check(&["."], "x", false);
        check(&["*"], "x", true);
        check(&["~"], "shop", false);
        check(&["x", "y"], "x", true);
        check(&["x", "y"], "shop", false);
        let private = ExportTo::parse(["."], &own, &ExportTo::All);
        assert!(!ExportTo::parse([], &own, &private).reaches(&Namespace::from("x")));
    }
}
