//! Kubernetes Services and ServiceEntries.

use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::codes::Code;
use mesh_api::crd::common::IntOrText;
use mesh_api::crd::core::service::{Service as KubeSpec, ServicePort as KubePort};
use mesh_api::crd::networking::service_entry::{
    Location, Resolution as ApiResolution, ServiceEntry as EntrySpec, ServicePort as EntryPort,
};
use mesh_api::finding::Finding;
use mesh_api::host::{Hostname, is_dns_label};
use mesh_api::ids::ClusterId;
use mesh_api::meta::Meta;
use mesh_api::names::{EXPORT_TO_ANNOTATION, TRAFFIC_DISTRIBUTION_ANNOTATION};
use mesh_api::object::Object;
use mesh_api::text::Str;
use mesh_api_xds::ir::matcher::Cidr;

use super::Context;
use crate::snapshot::mesh::Mesh;
use crate::snapshot::services::{Distribution, ExportTo, Port, Protocol, Registry, Resolution, Service, TargetPort};
use crate::snapshot::shard::Compiled;

/// Compiles a Kubernetes Service.
pub(crate) fn kube_service(mesh: &Mesh, object: &Object<KubeSpec>, cluster: &ClusterId) -> Compiled<Service> {
    let mut cx = Context::new(mesh, object.key(), cluster);
    let KubeSpec {
        cluster_ip,
        cluster_ips,
        ports,
        selector,
        kind,
        external_name,
        publish_not_ready_addresses,
        traffic_distribution,
    } = &object.spec;
    let host = mesh.expand(&object.meta.name, cx.namespace());
    if !is_dns_label(&object.meta.name) || !is_dns_label(cx.namespace()) {
        let message = format!("{:?} is not a host: a Service's name and namespace are DNS labels", host.as_str());
        cx.cut::<()>(Code::InvalidName, "metadata.name", message);
        return Compiled { values: vec![], findings: cx.into_findings() };
    }
    let resolution = if kind == "ExternalName" {
        match Hostname::parse(external_name) {
            Ok(host) => Resolution::Alias(host),
            Err(error) => {
                cx.cut::<()>(Code::InvalidHost, "spec.externalName", format!("{external_name:?} {error}"));
                return Compiled { values: vec![], findings: cx.into_findings() };
            }
        }
    } else if object.spec.is_headless() {
        Resolution::Passthrough
    } else {
        Resolution::Registry
    };
    let mut addresses: Vec<Cidr> = Vec::new();
    for text in cluster_ips.iter().chain([cluster_ip]).filter(|text| !text.is_empty() && *text != "None") {
        match text.parse::<IpAddr>() {
            Ok(ip) if !addresses.contains(&Cidr::host(ip)) => addresses.push(Cidr::host(ip)),
            Ok(_) => {}
            Err(_) => {
                cx.cut::<()>(Code::InvalidValue, "spec.clusterIP", format!("{text:?} is not an address"));
            }
        }
    }
    let ports = ports.iter().enumerate().filter_map(|(index, port)| kube_port(&mut cx, index, port)).collect();
    let export = object.meta.annotations.get(EXPORT_TO_ANNOTATION).map(Str::as_str).unwrap_or_default();
    let service = Service {
        key: cx.key.clone(),
        created: object.meta.creation_timestamp,
        host,
        name: object.meta.name.0.clone(),
        namespace: cx.namespace().clone(),
        registry: Registry::Kubernetes,
        addresses: addresses.into(),
        ports,
        resolution,
        external: false,
        export_to: ExportTo::parse(export.split(','), cx.namespace(), &mesh.default_export.services),
        sans: Arc::default(),
        selector: selector.clone().filter(|selector| !selector.is_empty()),
        publish_not_ready: *publish_not_ready_addresses,
        distribution: distribution(traffic_distribution, &object.meta),
    };
    Compiled { values: vec![service], findings: cx.into_findings() }
}

fn distribution(spec: &str, meta: &Meta) -> Distribution {
    let annotation = meta.annotations.get(TRAFFIC_DISTRIBUTION_ANNOTATION).map(Str::as_str).unwrap_or_default();
    Distribution::parse(spec, annotation)
}

fn kube_port(cx: &mut Context<'_>, index: usize, port: &KubePort) -> Option<Port> {
    let path = format!("spec.ports[{index}]");
    let KubePort { name, protocol, port: number, target_port, app_protocol } = port;
    let number = cx.port(&format!("{path}.port"), *number)?;
    let target = match target_port {
        None => TargetPort::Number(number),
        Some(IntOrText::Int(0)) => TargetPort::Number(number),
        Some(IntOrText::Int(target)) => TargetPort::Number(cx.port(&format!("{path}.targetPort"), *target)?),
        Some(IntOrText::Text(name)) => TargetPort::Named(name.clone()),
    };
    // Neither UDP nor SCTP goes through the proxy.
    let transport = if protocol == "SCTP" { "UDP" } else { protocol };
    let app_protocol = (!app_protocol.is_empty()).then_some(app_protocol.as_str());
    let protocol = Protocol::of_service_port(transport, app_protocol, name, number);
    Some(Port { name: name.clone(), number, target, protocol })
}

/// Compiles a ServiceEntry: one service for each of its hosts.
pub(crate) fn service_entry(mesh: &Mesh, object: &Object<EntrySpec>, cluster: &ClusterId) -> Compiled<Service> {
    let mut cx = Context::new(mesh, object.key(), cluster);
    let EntrySpec {
        hosts,
        addresses,
        ports,
        location,
        resolution,
        endpoints,
        workload_selector,
        export_to,
        subject_alt_names,
    } = &object.spec;
    let resolution = match resolution {
        ApiResolution::None => Some(Resolution::Passthrough),
        ApiResolution::Static => Some(Resolution::Registry),
        ApiResolution::Dns => Some(Resolution::Dns),
        ApiResolution::DnsRoundRobin => {
            let message = "every address that DNS gives is an endpoint, as with DNS";
            cx.report(Finding::new(Code::NotActing, "spec.resolution", message));
            Some(Resolution::Dns)
        }
        ApiResolution::DynamicDns => cx.cut(Code::NotActing, "spec.resolution", "DYNAMIC_DNS does not act yet"),
    };
    if workload_selector.is_some() && !endpoints.is_empty() {
        let message = "endpoints and workloadSelector exclude each other; the selector counts";
        cx.report(Finding::new(Code::Conflict, "spec.endpoints", message));
    }
    let ports: Arc<[Port]> =
        ports.iter().enumerate().filter_map(|(index, port)| entry_port(&mut cx, index, port)).collect();
    let virtual_addresses = entry_addresses(&mut cx, addresses);
    let export_to = ExportTo::parse(export_to.iter().map(Str::as_str), cx.namespace(), &mesh.default_export.services);
    let mut values = Vec::new();
    for (index, host) in hosts.iter().enumerate() {
        let Some(resolution) = &resolution else { break };
        let path = format!("spec.hosts[{index}]");
        let parsed = match Hostname::parse(host) {
            Ok(host) if host == "*" => {
                cx.cut::<()>(Code::InvalidHost, &path, "the host * would take everything");
                continue;
            }
            Ok(host) => host,
            Err(error) => {
                cx.cut::<()>(Code::InvalidHost, &path, format!("{host:?} {error}"));
                continue;
            }
        };
        let resolvable = !endpoints.is_empty() || workload_selector.is_some();
        if *resolution == Resolution::Dns && parsed.is_wildcard() && !resolvable {
            cx.cut::<()>(Code::InvalidHost, &path, "a wildcard cannot be resolved; list endpoints");
            continue;
        }
        let allocated = object.status.iter().flat_map(|status| &status.addresses).filter(|a| a.host == *host);
        let allocated = allocated.filter_map(|a| Cidr::parse(&a.value));
        let addresses = if virtual_addresses.is_empty() { allocated.collect() } else { virtual_addresses.clone() };
        values.push(Service {
            key: cx.key.clone(),
            created: object.meta.creation_timestamp,
            name: Str::from(parsed.as_str()),
            host: parsed,
            namespace: cx.namespace().clone(),
            registry: Registry::ServiceEntry,
            addresses: addresses.into(),
            ports: ports.clone(),
            resolution: resolution.clone(),
            external: *location == Location::MeshExternal,
            export_to: export_to.clone(),
            sans: subject_alt_names.iter().cloned().collect(),
            selector: workload_selector.as_ref().map(|selector| selector.labels.clone()),
            publish_not_ready: false,
            distribution: distribution("", &object.meta),
        });
    }
    Compiled { values, findings: cx.into_findings() }
}

fn entry_addresses(cx: &mut Context<'_>, addresses: &[Str]) -> Vec<Cidr> {
    let mut known = Vec::new();
    for (index, text) in addresses.iter().enumerate() {
        match Cidr::parse(text) {
            Some(cidr) if !known.contains(&cidr) => known.push(cidr),
            Some(_) => {}
            None => {
                let message = format!("{text:?} is neither an address nor a range");
                cx.cut::<()>(Code::InvalidValue, &format!("spec.addresses[{index}]"), message);
            }
        }
    }
    known
}

fn entry_port(cx: &mut Context<'_>, index: usize, port: &EntryPort) -> Option<Port> {
    let path = format!("spec.ports[{index}]");
    let EntryPort { number, protocol, name, target_port } = port;
    let number = cx.port(&format!("{path}.number"), *number)?;
    let target = match target_port {
        0 => number,
        target => cx.port(&format!("{path}.targetPort"), *target)?,
    };
    let protocol = if protocol.is_empty() {
        Protocol::Auto
    } else {
        match Protocol::of_name(protocol) {
            Some(protocol) => protocol,
            None => {
                let message = format!("{protocol:?} is not a protocol such as HTTP, GRPC, TLS or TCP");
                return cx.cut(Code::InvalidValue, &format!("{path}.protocol"), message);
            }
        }
    };
    Some(Port { name: name.clone(), number, target: TargetPort::Number(target), protocol })
}
