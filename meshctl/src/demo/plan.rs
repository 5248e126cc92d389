//! Who is in the demo's mesh, and at which addresses.

use std::net::{Ipv4Addr, SocketAddr};

/// How traffic gets into the proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    /// Real redirection rules, in one network namespace for each workload.
    Redirect,
    /// None: every listener has an address of its own, all on loopback.
    None,
}

/// Namespace of the shop.
pub const NAMESPACE: &str = "shop";
/// Namespace of the control plane and the ingress gateway.
pub const ROOT_NAMESPACE: &str = mesh_api::names::ROOT_NAMESPACE;
/// Port that HTTP services have.
pub const HTTP_PORT: u16 = 8080;
/// Port of the ingress gateway, as its configuration calls it.
pub const INGRESS_PORT: u16 = 8080;
/// HTTP proxy port of sidecars without capture.
pub const PROXY_PORT: u16 = 15080;
/// Name of the workload that only sends.
pub const SHOPPER: &str = "shopper-1";
/// Name of the ingress gateway's workload.
pub const INGRESS: &str = "ingress-1";
/// Name of the control plane's workload.
pub const CONTROL: &str = "meshd";
/// Name of the workload outside of the mesh.
pub const STRANGER: &str = "stranger";
/// Trust domain of the mesh.
pub const TRUST_DOMAIN: &str = "cluster.local";
/// Host of the service that a ServiceEntry describes.
pub const RATINGS_HOST: &str = "ratings.partners.internal";

/// How a service is described to the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Described {
    /// Service, EndpointSlice and Pod, as Kubernetes has them.
    Kubernetes,
    /// ServiceEntry and WorkloadEntry.
    Entries,
}

/// A service of the shop.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Its name, also its workloads' `app` label and service account.
    pub name: &'static str,
    /// Name of its port, whose prefix tells the protocol.
    pub port_name: &'static str,
    /// Its port.
    pub port: u16,
    /// Its virtual address where traffic is captured.
    pub vip: Ipv4Addr,
    /// How it is described.
    pub described: Described,
}

/// All services.
pub const SERVICES: [Service; 7] = [
    service("web", "http", HTTP_PORT, 11, Described::Kubernetes),
    service("catalogue", "http", HTTP_PORT, 12, Described::Kubernetes),
    service("reviews", "http", HTTP_PORT, 13, Described::Kubernetes),
    service("ratings", "http", HTTP_PORT, 14, Described::Entries),
    service("orders", "grpc", 9000, 15, Described::Kubernetes),
    service("tcp-echo", "tcp", 7000, 16, Described::Kubernetes),
    service("feed", "http", HTTP_PORT, 17, Described::Kubernetes),
];

const fn service(name: &'static str, port_name: &'static str, port: u16, number: u8, described: Described) -> Service {
    Service { name, port_name, port, vip: Ipv4Addr::new(10, 96, 0, number), described }
}

impl Service {
    /// The name that clients use.
    #[must_use]
    pub fn host(&self) -> String {
        match self.described {
            Described::Kubernetes => format!("{}.{NAMESPACE}.svc.cluster.local", self.name),
            Described::Entries => RATINGS_HOST.to_owned(),
        }
    }
}

/// What a workload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An instance of a service, with a sidecar.
    Server,
    /// Only sends, through a sidecar.
    Client,
    /// The ingress gateway.
    Gateway,
    /// The control plane.
    Control,
    /// Outside of the mesh.
    Stranger,
}

/// A workload: what is a pod in Kubernetes.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its name.
    pub name: String,
    /// Its `app` label and service account.
    pub app: &'static str,
    /// Its `version` label.
    pub version: &'static str,
    /// What it is.
    pub role: Role,
    /// Its address.
    pub address: Ipv4Addr,
    /// Where its sidecar listens for what it sends, when nothing is captured.
    pub outbound: Ipv4Addr,
}

/// Everything in the mesh.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How traffic gets into the proxies.
    pub capture: Capture,
    /// All workloads.
    pub workloads: Vec<Workload>,
}

impl Plan {
    /// The demo's mesh.
    #[must_use]
    pub fn new(capture: Capture) -> Self {
        let servers = [
            ("web-1", "web", "v1"),
            ("catalogue-1", "catalogue", "v1"),
            ("catalogue-2", "catalogue", "v1"),
            ("reviews-v1-1", "reviews", "v1"),
            ("reviews-v2-1", "reviews", "v2"),
            ("reviews-v3-1", "reviews", "v3"),
            ("ratings-1", "ratings", "v1"),
            ("orders-1", "orders", "v1"),
            ("tcp-echo-1", "tcp-echo", "v1"),
            ("feed-1", "feed", "v1"),
        ];
        let others = [
            (SHOPPER, "shopper", "v1", Role::Client),
            (INGRESS, "istio-ingressgateway", "latest", Role::Gateway),
            (CONTROL, "istiod", "latest", Role::Control),
            (STRANGER, "stranger", "v1", Role::Stranger),
        ];
        let servers = servers.into_iter().map(|(name, app, version)| (name, app, version, Role::Server));
        let all = (2..).zip(servers.chain(others));
        let workloads = all.map(|(number, (name, app, version, role))| {
            let (address, outbound) = match capture {
                Capture::Redirect => (Ipv4Addr::new(10, 77, 1, number), Ipv4Addr::UNSPECIFIED),
                Capture::None => (Ipv4Addr::new(127, 77, 1, number), Ipv4Addr::new(127, 77, 2, number)),
            };
            Workload { name: name.to_owned(), app, version, role, address, outbound }
        });
        Self { capture, workloads: workloads.collect() }
    }

    /// The workload called `name`.
    #[must_use]
    pub fn workload(&self, name: &str) -> Option<&Workload> {
        self.workloads.iter().find(|workload| workload.name == name)
    }

    /// The workloads of a service.
    pub fn servers(&self, app: &str) -> impl Iterator<Item = &Workload> {
        self.workloads.iter().filter(move |workload| workload.role == Role::Server && workload.app == app)
    }

    /// Workloads with a proxy, gateways included.
    pub fn proxied(&self) -> impl Iterator<Item = &Workload> {
        self.workloads.iter().filter(|workload| workload.has_proxy())
    }

    /// Where `from` finds `service`, as the shop's programs take it: a URL, with the address to connect to where names
    /// do not lead there.
    #[must_use]
    pub fn url(&self, from: &Workload, service: &Service) -> String {
        self.url_of(from, service, "")
    }

    /// The same with a path.
    #[must_use]
    pub fn url_of(&self, from: &Workload, service: &Service, path: &str) -> String {
        let url = format!("http://{}:{}{path}", service.host(), service.port);
        match self.capture {
            Capture::Redirect => url,
            Capture::None => format!("{url}@{}", SocketAddr::from((from.outbound, service.port))),
        }
    }

    /// Where `from` finds `service` when it speaks TCP.
    #[must_use]
    pub fn endpoint(&self, from: &Workload, service: &Service) -> String {
        match self.capture {
            Capture::Redirect => format!("{}:{}", service.host(), service.port),
            Capture::None => format!("{}:{}", from.outbound, service.port),
        }
    }

    /// Where the program of `workload` listens.
    #[must_use]
    pub fn app_address(&self, workload: &Workload, service: &Service) -> SocketAddr {
        match self.capture {
            Capture::Redirect => (Ipv4Addr::UNSPECIFIED, service.port).into(),
            Capture::None => (workload.address, app_port(service)).into(),
        }
    }
}

impl Workload {
    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &'static str {
        match self.role {
            Role::Server | Role::Client | Role::Stranger => NAMESPACE,
            Role::Gateway | Role::Control => ROOT_NAMESPACE,
        }
    }

    /// Whether a proxy runs beside it or as it.
    #[must_use]
    pub fn has_proxy(&self) -> bool {
        matches!(self.role, Role::Server | Role::Client | Role::Gateway)
    }

    /// Its identity.
    #[must_use]
    pub fn identity(&self) -> String {
        format!("spiffe://{TRUST_DOMAIN}/ns/{}/sa/{}", self.namespace(), self.app)
    }

    /// What makes it: the name without the instance's number.
    #[must_use]
    pub fn workload_name(&self) -> &str {
        self.name.rsplit_once('-').map_or(&self.name, |(name, _)| name)
    }

    /// The service it is an instance of.
    #[must_use]
    pub fn service(&self) -> Option<&'static Service> {
        SERVICES.iter().find(|service| self.role == Role::Server && service.name == self.app)
    }
}

/// Where a program listens behind its sidecar when nothing is captured: the service's own port is the sidecar's.
#[must_use]
pub fn app_port(service: &Service) -> u16 {
    service.port + 10_000
}

/// The service called `name`.
#[must_use]
pub fn service_named(name: &str) -> Option<&'static Service> {
    SERVICES.iter().find(|service| service.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_workload_has_a_name_and_an_address_of_its_own() {
        for capture in [Capture::Redirect, Capture::None] {
            let plan = Plan::new(capture);
            let names: BTreeSet<_> = plan.workloads.iter().map(|workload| &workload.name).collect();
            let addresses: BTreeSet<_> = plan.workloads.iter().map(|workload| workload.address).collect();
            assert_eq!((names.len(), addresses.len()), (plan.workloads.len(), plan.workloads.len()));
            assert!(SERVICES.iter().all(|service| plan.servers(service.name).count() > 0));
        }
    }

    #[test]
    fn without_capture_addresses_stand_beside_names() {
        let plan = Plan::new(Capture::None);
        let (web, reviews) = (plan.workload("web-1").unwrap(), service_named("reviews").unwrap());
        assert_eq!(plan.url(web, reviews), "http://reviews.shop.svc.cluster.local:8080@127.77.2.2:8080");
        let plan = Plan::new(Capture::Redirect);
        assert_eq!(plan.url(web, reviews), "http://reviews.shop.svc.cluster.local:8080");
    }
}
