//! DestinationRule.

use std::sync::Arc;
use std::time::Duration;

use mesh_api::codes::Code;
use mesh_api::crd::networking::destination_rule::{
    ClientTlsMode, ClientTlsSettings, ConnectionPoolSettings, DestinationRule as Spec, H2UpgradePolicy, HttpSettings,
    LoadBalancerSettings, OutlierDetection, PortTrafficPolicy, RetryBudget as ApiBudget, SimpleLb, Subset as ApiSubset,
    TcpKeepalive, TcpSettings, TrafficPolicy,
};
use mesh_api::duration::DurationText;
use mesh_api::finding::Finding;
use mesh_api::host::{Hostname, is_dns_label};
use mesh_api::ids::ClusterId;
use mesh_api::object::Object;
use mesh_api::text::Str;
use mesh_api_xds::ir::cluster::{Balance, Keepalive, Outlier, RetryBudget};

use super::Context;
use crate::snapshot::destination_rules::{
    Balancing, Blocks, ClientTls, DestinationRule, Origination, OutlierRule, Policy, Pool, Subset,
};
use crate::snapshot::mesh::Mesh;
use crate::snapshot::services::ExportTo;
use crate::snapshot::shard::Compiled;

/// Compiles a DestinationRule.
pub(crate) fn destination_rule(mesh: &Mesh, object: &Object<Spec>, cluster: &ClusterId) -> Compiled<DestinationRule> {
    let mut cx = Context::new(mesh, object.key(), cluster);
    let Spec { host, traffic_policy, subsets, export_to, workload_selector } = &object.spec;
    if let Err(error) = Hostname::parse(host) {
        cx.cut::<()>(Code::InvalidHost, "spec.host", format!("{host:?} {error}"));
        return Compiled { values: vec![], findings: cx.into_findings() };
    }
    let policy = traffic_policy.as_ref().map(|policy| self::policy(&mut cx, "spec.trafficPolicy", policy));
    let mut kept: Vec<Subset> = Vec::new();
    for (index, subset) in subsets.iter().enumerate() {
        kept.extend(self::subset(&mut cx, index, subset, &kept));
    }
    let selector = workload_selector.as_ref().map(|selector| selector.match_labels.clone());
    // A rule for some client workloads is private to its namespace, whatever it says.
    let export_to = if selector.is_some() {
        ExportTo::parse(["."], cx.namespace(), &ExportTo::None)
    } else {
        ExportTo::parse(export_to.iter().map(Str::as_str), cx.namespace(), &mesh.default_export.destination_rules)
    };
    let value = DestinationRule {
        key: cx.key.clone(),
        created: object.meta.creation_timestamp,
        host: mesh.expand(host, cx.namespace()),
        export_to,
        selector,
        policy,
        subsets: kept.into(),
        origin: cx.origin(),
    };
    Compiled { values: vec![value], findings: cx.into_findings() }
}

fn subset(cx: &mut Context<'_>, index: usize, subset: &ApiSubset, known: &[Subset]) -> Option<Subset> {
    let path = format!("spec.subsets[{index}]");
    let ApiSubset { name, labels, traffic_policy } = subset;
    if !is_dns_label(name) {
        return cx.cut(Code::InvalidName, &format!("{path}.name"), format!("{name:?} is not a DNS label"));
    }
    if known.iter().any(|subset| subset.name == *name) {
        return cx.cut(Code::Duplicate, &format!("{path}.name"), format!("the subset {name} is there already"));
    }
    let policy = traffic_policy.as_ref().map(|policy| self::policy(cx, &format!("{path}.trafficPolicy"), policy));
    Some(Subset { name: name.clone(), labels: labels.clone(), policy })
}

fn policy(cx: &mut Context<'_>, path: &str, policy: &TrafficPolicy) -> Policy {
    let TrafficPolicy {
        load_balancer,
        connection_pool,
        outlier_detection,
        tls,
        port_level_settings,
        tunnel,
        proxy_protocol,
        retry_budget,
    } = policy;
    if tunnel.is_some() {
        not_acting(cx, path, "tunnel", "connections are not tunnelled yet");
    }
    if proxy_protocol.is_some() {
        not_acting(cx, path, "proxyProtocol", "the PROXY protocol is not sent yet");
    }
    let retry_budget =
        retry_budget.as_ref().and_then(|budget| self::budget(cx, &format!("{path}.retryBudget"), budget));
    let blocks = blocks(
        cx,
        path,
        (load_balancer.as_ref(), connection_pool.as_ref(), outlier_detection.as_ref(), tls.as_ref()),
        retry_budget,
    );
    let mut ports: Vec<(u16, Blocks)> = Vec::new();
    for (index, settings) in port_level_settings.iter().enumerate() {
        let path = format!("{path}.portLevelSettings[{index}]");
        let PortTrafficPolicy { port, load_balancer, connection_pool, outlier_detection, tls } = settings;
        let Some(port) = port else {
            cx.cut::<()>(Code::Required, &format!("{path}.port"), "says for which port");
            continue;
        };
        let Some(number) = cx.port(&format!("{path}.port.number"), port.number) else { continue };
        if ports.iter().any(|(known, _)| *known == number) {
            cx.cut::<()>(Code::Duplicate, &format!("{path}.port.number"), "the port is there already");
            continue;
        }
        let parts = (load_balancer.as_ref(), connection_pool.as_ref(), outlier_detection.as_ref(), tls.as_ref());
        let blocks = self::blocks(cx, &path, parts, None);
        ports.push((number, blocks));
    }
    Policy { blocks, ports: ports.into() }
}

fn not_acting(cx: &mut Context<'_>, path: &str, field: &str, message: &str) {
    cx.report(Finding::new(Code::NotActing, format!("{path}.{field}"), message));
}

type Parts<'a> = (
    Option<&'a LoadBalancerSettings>,
    Option<&'a ConnectionPoolSettings>,
    Option<&'a OutlierDetection>,
    Option<&'a ClientTlsSettings>,
);

fn blocks(cx: &mut Context<'_>, path: &str, parts: Parts<'_>, retry_budget: Option<RetryBudget>) -> Blocks {
    let (balance, pool, outlier, tls) = parts;
    Blocks {
        balance: balance.map(|settings| balancing(cx, &format!("{path}.loadBalancer"), settings)),
        pool: pool.map(|settings| self::pool(cx, &format!("{path}.connectionPool"), settings)),
        outlier: outlier.map(|settings| self::outlier(cx, &format!("{path}.outlierDetection"), settings)),
        tls: tls.and_then(|settings| client_tls(cx, &format!("{path}.tls"), settings)),
        retry_budget,
    }
}

fn balancing(cx: &mut Context<'_>, path: &str, settings: &LoadBalancerSettings) -> Balancing {
    let LoadBalancerSettings {
        simple,
        consistent_hash,
        locality_lb_setting,
        zone_aware_lb_setting,
        warmup_duration_secs,
        warmup,
    } = settings;
    for (there, field) in [
        (consistent_hash.is_some(), "consistentHash"),
        (locality_lb_setting.is_some(), "localityLbSetting"),
        (zone_aware_lb_setting.is_some(), "zoneAwareLbSetting"),
        (warmup_duration_secs.is_some(), "warmupDurationSecs"),
        (warmup.is_some(), "warmup"),
    ] {
        if there {
            not_acting(cx, path, field, "does not act yet; requests are balanced without it");
        }
    }
    match simple.unwrap_or_default() {
        SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest => Balancing::Among(Balance::LeastRequest),
        SimpleLb::Random => Balancing::Among(Balance::Random),
        SimpleLb::RoundRobin => Balancing::Among(Balance::RoundRobin),
        SimpleLb::Passthrough => Balancing::Passthrough,
    }
}

fn time(text: Option<DurationText>) -> Option<Duration> {
    text.map(|text| text.0).filter(|time| !time.is_zero())
}

/// A limit; zero is none, a negative number is a finding.
fn limit(cx: &mut Context<'_>, path: &str, field: &str, value: i32) -> Option<u32> {
    match u32::try_from(value) {
        Ok(0) => None,
        Ok(value) => Some(value),
        Err(_) => cx.cut(Code::InvalidValue, &format!("{path}.{field}"), "is negative"),
    }
}

pub(super) fn keepalive(keepalive: &TcpKeepalive) -> Keepalive {
    let TcpKeepalive { probes, time: idle, interval } = keepalive;
    // The system counts whole seconds; less than one would mean "at once" to it.
    let whole = |text: Option<DurationText>| {
        time(text).map(|time| Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0)))
    };
    Keepalive { probes: (*probes > 0).then_some(*probes), time: whole(*idle), interval: whole(*interval) }
}

pub(super) fn pool(cx: &mut Context<'_>, path: &str, settings: &ConnectionPoolSettings) -> Pool {
    let mut pool = Pool::default();
    if let Some(TcpSettings {
        max_connections,
        connect_timeout,
        tcp_keepalive,
        max_connection_duration,
        idle_timeout,
    }) = &settings.tcp
    {
        let path = format!("{path}.tcp");
        pool.max_connections = limit(cx, &path, "maxConnections", *max_connections);
        pool.connect_timeout = time(*connect_timeout);
        pool.keepalive = tcp_keepalive.as_ref().map(keepalive);
        pool.max_connection_duration = time(*max_connection_duration);
        pool.tcp_idle_timeout = time(*idle_timeout);
    }
    if let Some(HttpSettings {
        http1_max_pending_requests,
        http2_max_requests,
        max_requests_per_connection,
        max_retries,
        idle_timeout,
        h2_upgrade_policy,
        use_client_protocol,
        max_concurrent_streams,
        http2_keep_alive,
    }) = &settings.http
    {
        let path = format!("{path}.http");
        pool.max_pending = limit(cx, &path, "http1MaxPendingRequests", *http1_max_pending_requests);
        pool.max_requests = limit(cx, &path, "http2MaxRequests", *http2_max_requests);
        pool.max_requests_per_connection = limit(cx, &path, "maxRequestsPerConnection", *max_requests_per_connection);
        pool.max_retries = limit(cx, &path, "maxRetries", *max_retries);
        pool.http_idle_timeout = time(*idle_timeout);
        pool.h2_upgrade = match h2_upgrade_policy {
            H2UpgradePolicy::Default => None,
            H2UpgradePolicy::DoNotUpgrade => Some(false),
            H2UpgradePolicy::Upgrade => Some(true),
        };
        pool.use_client_protocol = *use_client_protocol;
        if *use_client_protocol && pool.h2_upgrade == Some(true) {
            cx.cut::<()>(Code::Conflict, &path, "useClientProtocol and h2UpgradePolicy UPGRADE exclude each other");
            pool.h2_upgrade = None;
        }
        pool.max_concurrent_streams = limit(cx, &path, "maxConcurrentStreams", *max_concurrent_streams);
        if http2_keep_alive.is_some() {
            not_acting(cx, &path, "http2KeepAlive", "HTTP/2 pings are not sent yet");
        }
    }
    pool
}

fn outlier(cx: &mut Context<'_>, path: &str, detection: &OutlierDetection) -> OutlierRule {
    let OutlierDetection {
        consecutive_errors,
        split_external_local_origin_errors,
        consecutive_local_origin_failures,
        consecutive_gateway_errors,
        consecutive_5xx_errors,
        interval,
        base_ejection_time,
        max_ejection_percent,
        min_health_percent,
        outlier_detection_http_error_codes,
    } = detection;
    if *consecutive_errors != 0 {
        let finding = Finding::new(Code::Deprecated, format!("{path}.consecutiveErrors"), "has no effect");
        cx.report(finding.hint("use consecutive5xxErrors"));
    }
    if !outlier_detection_http_error_codes.is_empty() {
        not_acting(cx, path, "outlierDetectionHttpErrorCodes", "all 5xx count as errors");
    }
    let mut percent = |field: &str, value: i32, default: u32| match u32::try_from(value) {
        Ok(0) => default,
        Ok(value @ 1..=100) => value,
        _ => {
            cx.cut::<()>(Code::InvalidValue, &format!("{path}.{field}"), format!("{value} is not a percentage"));
            default
        }
    };
    let max_ejection_percent = percent("maxEjectionPercent", *max_ejection_percent, 10);
    let panic_percent = percent("minHealthPercent", *min_health_percent, 0);
    let base_ejection = time(*base_ejection_time).unwrap_or(Duration::from_secs(30));
    OutlierRule {
        outlier: Outlier {
            consecutive_5xx: consecutive_5xx_errors.unwrap_or(5),
            consecutive_gateway: consecutive_gateway_errors.unwrap_or(0),
            consecutive_local: consecutive_local_origin_failures.unwrap_or(5),
            split_local: *split_external_local_origin_errors,
            interval: time(*interval).unwrap_or(Duration::from_secs(10)),
            base_ejection,
            // Envoy's default: five minutes, or the base when that is longer.
            max_ejection: base_ejection.max(Duration::from_secs(300)),
            max_ejection_percent,
        },
        panic_percent,
    }
}

fn budget(cx: &mut Context<'_>, path: &str, budget: &ApiBudget) -> Option<RetryBudget> {
    let ApiBudget { percent, min_retry_concurrency, budget_interval } = budget;
    if budget_interval.is_some() {
        not_acting(cx, path, "budgetInterval", "the budget counts requests in flight");
    }
    let percent = percent.unwrap_or(20.0);
    if !(0.0..=100.0).contains(&percent) {
        return cx.cut(Code::InvalidValue, &format!("{path}.percent"), format!("{percent} is not a percentage"));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within 0 and 10,000 by the test above"
    )]
    let percent_hundredths = (percent * 100.0).round() as u32;
    Some(RetryBudget { percent_hundredths, min_concurrency: min_retry_concurrency.unwrap_or(3) })
}

fn client_tls(cx: &mut Context<'_>, path: &str, tls: &ClientTlsSettings) -> Option<ClientTls> {
    let ClientTlsSettings {
        mode,
        client_certificate,
        private_key,
        ca_certificates,
        credential_name,
        subject_alt_names,
        sni,
        insecure_skip_verify,
        ca_crl,
    } = tls;
    if !ca_crl.is_empty() {
        not_acting(cx, path, "caCrl", "revocation lists are not checked yet");
    }
    let sans: Arc<[Str]> = subject_alt_names.iter().cloned().collect();
    match mode {
        ClientTlsMode::Disable => Some(ClientTls::Disable),
        ClientTlsMode::IstioMutual => Some(ClientTls::Istio { sans, sni: sni.clone() }),
        ClientTlsMode::Simple | ClientTlsMode::Mutual => {
            let mutual = *mode == ClientTlsMode::Mutual;
            let credential = !credential_name.is_empty();
            let certificate = match (mutual, credential) {
                (false, _) => None,
                (true, true) => Some(Str::from(format!("kubernetes://{credential_name}"))),
                (true, false) if client_certificate.is_empty() || private_key.is_empty() => {
                    // Without this cut a client that must prove who it is would try without proof, or in plaintext.
                    cx.report(Finding::new(
                        Code::Required,
                        path,
                        "MUTUAL needs credentialName, or clientCertificate and privateKey; the server will refuse",
                    ));
                    None
                }
                (true, false) => Some(Str::from(format!("file-cert:{client_certificate}~{private_key}"))),
            };
            let trust = match (*insecure_skip_verify == Some(true), credential, ca_certificates.is_empty()) {
                (true, _, _) => None,
                (false, true, _) => Some(Str::from(format!("kubernetes://{credential_name}-cacert"))),
                (false, false, true) => Some(Str::from("file-root:system")),
                (false, false, false) => Some(Str::from(format!("file-root:{ca_certificates}"))),
            };
            Some(ClientTls::Origination(Origination { certificate, trust, sans, sni: sni.clone(), credential }))
        }
    }
}
