//! Rules of WorkloadGroup.

use super::{check::Check, workload_entry};
use crate::{
    codes::Code,
    crd::networking::workload_group::{ReadinessProbe, WorkloadGroup},
};

pub(super) fn check(spec: &WorkloadGroup, check: &mut Check) {
    check.required("template", spec.template.is_some());
    check.some("template", spec.template.as_ref(), |check, template| {
        workload_entry::check(template, check, false);
        if !template.address.is_empty() {
            check.at("address", Code::Ineffective, "is each member's own; that of the template has no effect");
        }
    });
    check.some("metadata", spec.metadata.as_ref(), |check, metadata| {
        check.field("labels", |check| check.labels(&metadata.labels));
    });
    check.some("probe", spec.probe.as_ref(), probe);
}

pub(super) fn probe(check: &mut Check, probe: &ReadinessProbe) {
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        check.not_negative(field, value);
    }
    let ways = [
        ("httpGet", probe.http_get.is_some()),
        ("tcpSocket", probe.tcp_socket.is_some()),
        ("exec", probe.exec.is_some()),
        ("grpc", probe.grpc.is_some()),
    ];
    check.exclusive(&ways);
    if ways.iter().all(|way| !way.1) {
        check.here(Code::Required, "needs one of httpGet, tcpSocket, exec and grpc");
    }
    check.some("httpGet", probe.http_get.as_ref(), |check, http| {
        check.port("port", http.port);
        if !["", "HTTP", "HTTPS"].contains(&&*http.scheme) {
            check.at("scheme", Code::InvalidValue, "is neither HTTP nor HTTPS");
        }
        check.each("httpHeaders", &http.http_headers, |check, header| {
            check.required("name", !header.name.is_empty());
        });
    });
    check.some("tcpSocket", probe.tcp_socket.as_ref(), |check, tcp| check.port("port", tcp.port));
    check.some("exec", probe.exec.as_ref(), |check, exec| check.required("command", !exec.command.is_empty()));
    check.some("grpc", probe.grpc.as_ref(), |check, grpc| check.port("port", grpc.port));
}
