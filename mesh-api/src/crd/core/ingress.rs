//! Ingress and IngressClass: Kubernetes' own way of naming what enters a cluster.

use crate::{crd::api, text::Str};

api! {
    /// Routes of requests that enter the cluster.
    pub struct Ingress {
        /// Who serves it; the annotation `kubernetes.io/ingress.class` is its older form.
        pub ingress_class_name: Option<Str>,
        /// Where requests go that no rule takes.
        pub default_backend: Option<IngressBackend>,
        /// Certificates by host.
        pub tls: Vec<IngressTls>,
        /// Routes by host.
        pub rules: Vec<IngressRule>,
    }

    /// A certificate for some hosts.
    pub struct IngressTls {
        /// The hosts; all when empty.
        pub hosts: Vec<Str>,
        /// The Secret with the certificate.
        pub secret_name: Str,
    }

    /// The routes of a host.
    pub struct IngressRule {
        /// The host, which may begin with `*.`; any when empty.
        pub host: Str,
        /// The routes.
        pub http: Option<IngressHttp>,
    }

    /// Routes by path.
    pub struct IngressHttp {
        /// The routes.
        pub paths: Vec<IngressPath>,
    }

    /// A route.
    pub struct IngressPath {
        /// The path; all when empty.
        pub path: Str,
        /// `Exact`, `Prefix` or `ImplementationSpecific`.
        pub path_type: Str,
        /// Where requests go.
        pub backend: IngressBackend,
    }

    /// Where requests go.
    pub struct IngressBackend {
        /// A Service of the same namespace.
        pub service: Option<IngressService>,
        /// Another object, which Istio does not support either.
        pub resource: Option<IngressResource>,
    }

    /// A Service and one of its ports.
    pub struct IngressService {
        /// The name.
        pub name: Str,
        /// The port.
        pub port: IngressPort,
    }

    /// A port by number or by name.
    pub struct IngressPort {
        /// The number; 0 when it is named.
        pub number: u32,
        /// The name.
        pub name: Str,
    }

    /// An object by kind and name.
    pub struct IngressResource {
        /// Its kind.
        pub kind: Str,
        /// Its name.
        pub name: Str,
    }

    /// Where an Ingress can be reached.
    pub struct IngressStatus {
        /// The addresses.
        pub load_balancer: IngressLoadBalancer,
    }

    /// Addresses of a load balancer.
    pub struct IngressLoadBalancer {
        /// The addresses.
        pub ingress: Vec<IngressAddress>,
    }

    /// An address of a load balancer.
    pub struct IngressAddress {
        /// As a number.
        pub ip: Str,
        /// As a name.
        pub hostname: Str,
    }

    /// Who serves the Ingresses of a class.
    pub struct IngressClass {
        /// The controller, e.g. `istio.io/ingress-controller`.
        pub controller: Str,
    }
}
