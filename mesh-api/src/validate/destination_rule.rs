//! Rules of DestinationRule. istio/istio: pkg/config/validation/validation.go ValidateDestinationRule.

use super::{check::Check, load_balancer};
use crate::{
    codes::Code,
    crd::networking::destination_rule::{
        ClientTlsMode, ClientTlsSettings, ConnectionPoolSettings, DestinationRule, H2UpgradePolicy, HttpSettings,
        OutlierDetection, PortTrafficPolicy, RetryBudget, TcpKeepalive, TcpSettings, TrafficPolicy, TunnelSettings,
    },
};

pub(super) fn check(namespace: &str, spec: &DestinationRule, check: &mut Check) {
    if spec.host.is_empty() {
        check.required("host", false);
    } else {
        check.host("host", &spec.host);
    }
    check.some("trafficPolicy", spec.traffic_policy.as_ref(), traffic_policy);
    check.unique("subsets", "name", spec.subsets.iter().map(|s| &*s.name));
    check.each("subsets", &spec.subsets, |check, subset| {
        if subset.name.is_empty() {
            check.required("name", false);
        } else {
            check.dns_label("name", &subset.name);
        }
        check.field("labels", |check| check.labels(&subset.labels.0));
        check.some("trafficPolicy", subset.traffic_policy.as_ref(), traffic_policy);
    });
    check.export_to(namespace, &spec.export_to, false);
    check.some("workloadSelector", spec.workload_selector.as_ref(), |check, selector| {
        check.selector("matchLabels", &selector.match_labels);
    });
    if spec.workload_selector.is_some() && spec.export_to.iter().any(|to| *to != "." && *to != *namespace) {
        check.at(
            "exportTo",
            Code::Conflict,
            "a rule with a workloadSelector is private: exportTo must be '.' or absent",
        );
    }
}

fn traffic_policy(check: &mut Check, policy: &TrafficPolicy) {
    if *policy == TrafficPolicy::default() {
        check.here(Code::Required, "is empty: needs at least one field");
    }
    check.some("loadBalancer", policy.load_balancer.as_ref(), load_balancer::check);
    check.some("connectionPool", policy.connection_pool.as_ref(), connection_pool);
    check.some("outlierDetection", policy.outlier_detection.as_ref(), outlier_detection);
    check.some("tls", policy.tls.as_ref(), client_tls);
    check.each("portLevelSettings", &policy.port_level_settings, port_policy);
    let ports: Vec<String> =
        policy.port_level_settings.iter().filter_map(|p| p.port.as_ref().map(|port| port.number.to_string())).collect();
    check.once("portLevelSettings", "port.number", ports.iter().map(String::as_str));
    check.exclusive(&[("tunnel", policy.tunnel.is_some()), ("proxyProtocol", policy.proxy_protocol.is_some())]);
    check.some("tunnel", policy.tunnel.as_ref(), tunnel);
    check.some("retryBudget", policy.retry_budget.as_ref(), retry_budget);
}

fn port_policy(check: &mut Check, policy: &PortTrafficPolicy) {
    match &policy.port {
        Some(port) => check.port("port.number", port.number),
        None => check.required("port", false),
    }
    if *policy == (PortTrafficPolicy { port: policy.port.clone(), ..PortTrafficPolicy::default() }) {
        check.here(Code::Required, "has no policy: needs at least one field besides port");
    }
    check.some("loadBalancer", policy.load_balancer.as_ref(), load_balancer::check);
    check.some("connectionPool", policy.connection_pool.as_ref(), connection_pool);
    check.some("outlierDetection", policy.outlier_detection.as_ref(), outlier_detection);
    check.some("tls", policy.tls.as_ref(), client_tls);
}

pub(super) fn connection_pool(check: &mut Check, pool: &ConnectionPoolSettings) {
    if pool.tcp.is_none() && pool.http.is_none() {
        check.here(Code::Required, "is empty: needs tcp or http");
    }
    check.some("tcp", pool.tcp.as_ref(), tcp);
    check.some("http", pool.http.as_ref(), http);
}

fn tcp(check: &mut Check, tcp: &TcpSettings) {
    check.not_negative("maxConnections", tcp.max_connections);
    check.duration("connectTimeout", tcp.connect_timeout);
    check.duration("maxConnectionDuration", tcp.max_connection_duration);
    check.duration_or_zero("idleTimeout", tcp.idle_timeout);
    check.some("tcpKeepalive", tcp.tcp_keepalive.as_ref(), keepalive);
}

fn keepalive(check: &mut Check, keepalive: &TcpKeepalive) {
    for (field, value) in [("time", keepalive.time), ("interval", keepalive.interval)] {
        check.duration(field, value);
        // The socket options count in whole seconds.
        if value.is_some_and(|v| v.as_millis() > 0 && v.as_secs() == 0) {
            check.at(field, Code::Ineffective, "is shorter than 1s, the least that sockets know");
        }
    }
}

fn http(check: &mut Check, http: &HttpSettings) {
    for (field, value) in [
        ("http1MaxPendingRequests", http.http1_max_pending_requests),
        ("http2MaxRequests", http.http2_max_requests),
        ("maxRequestsPerConnection", http.max_requests_per_connection),
        ("maxRetries", http.max_retries),
        ("maxConcurrentStreams", http.max_concurrent_streams),
    ] {
        check.not_negative(field, value);
    }
    check.duration_or_zero("idleTimeout", http.idle_timeout);
    if http.use_client_protocol && http.h2_upgrade_policy == H2UpgradePolicy::Upgrade {
        check.at("useClientProtocol", Code::Conflict, "excludes h2UpgradePolicy UPGRADE");
    }
    check.some("http2KeepAlive", http.http2_keep_alive.as_ref(), |check, keep_alive| {
        check.required("interval", keep_alive.interval.is_some());
        check.required("timeout", keep_alive.timeout.is_some());
        check.duration("interval", keep_alive.interval);
        check.duration("timeout", keep_alive.timeout);
    });
}

pub(super) fn outlier_detection(check: &mut Check, outlier: &OutlierDetection) {
    if outlier.consecutive_errors != 0 {
        let hint = "use consecutive5xxErrors or consecutiveGatewayErrors";
        check.hinted("consecutiveErrors", Code::Deprecated, "has no effect, in Istio neither", hint);
    }
    check.duration("interval", outlier.interval);
    check.duration("baseEjectionTime", outlier.base_ejection_time);
    check.range("maxEjectionPercent", outlier.max_ejection_percent, 0, 100);
    check.range("minHealthPercent", outlier.min_health_percent, 0, 100);
    if !outlier.split_external_local_origin_errors && outlier.consecutive_local_origin_failures.is_some() {
        let message = "has an effect together with splitExternalLocalOriginErrors only";
        check.at("consecutiveLocalOriginFailures", Code::Ineffective, message);
    }
    check.each("outlierDetectionHttpErrorCodes", &outlier.outlier_detection_http_error_codes, |check, code| {
        check.range("", *code, 100, 599);
    });
}

fn client_tls(check: &mut Check, tls: &ClientTlsSettings) {
    let files = [
        ("clientCertificate", !tls.client_certificate.is_empty()),
        ("privateKey", !tls.private_key.is_empty()),
        ("caCertificates", !tls.ca_certificates.is_empty()),
        ("caCrl", !tls.ca_crl.is_empty()),
    ];
    let by_name = !tls.credential_name.is_empty();
    if matches!(tls.mode, ClientTlsMode::Disable | ClientTlsMode::IstioMutual) {
        for (field, _) in files.into_iter().chain([("credentialName", by_name)]).filter(|f| f.1) {
            let message = "has no effect in mode DISABLE (which is the default) and ISTIO_MUTUAL";
            check.hinted(field, Code::Ineffective, message, "use mode SIMPLE or MUTUAL");
        }
        return;
    }
    for (field, is_set) in files {
        check.exclusive(&[(field, is_set), ("credentialName", by_name)]);
    }
    let verifies = !tls.ca_certificates.is_empty() || !tls.subject_alt_names.is_empty();
    let skips = tls.insecure_skip_verify == Some(true);
    if skips && (verifies || (by_name && tls.mode == ClientTlsMode::Simple)) {
        let message =
            "excludes caCertificates, subjectAltNames and (in mode SIMPLE) credentialName: nothing is verified";
        check.at("insecureSkipVerify", Code::Conflict, message);
    }
    let has_client = !tls.client_certificate.is_empty() || !tls.private_key.is_empty();
    if tls.mode == ClientTlsMode::Mutual && !by_name {
        check.required("clientCertificate", !tls.client_certificate.is_empty());
        check.required("privateKey", !tls.private_key.is_empty());
    } else if tls.mode == ClientTlsMode::Simple && has_client {
        let message = "SIMPLE sends no client certificate";
        check.hinted("mode", Code::Ineffective, message, "use MUTUAL");
    }
}

fn tunnel(check: &mut Check, tunnel: &TunnelSettings) {
    if !["", "CONNECT", "POST"].contains(&&*tunnel.protocol) {
        check.at("protocol", Code::InvalidValue, "is neither CONNECT nor POST");
    }
    check.plain_host("targetHost", &tunnel.target_host);
    check.port("targetPort", tunnel.target_port);
}

fn retry_budget(check: &mut Check, budget: &RetryBudget) {
    if let Some(percent) = budget.percent {
        check.range("percent", percent, 0.0, 100.0);
    }
}
