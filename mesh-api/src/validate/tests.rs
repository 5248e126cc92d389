//! Each case is a spec and the findings it must give, as `code path`.

use super::validate;
use crate::{finding::Finding, kinds::Kind, parse::parse};
use proptest::prelude::*;

fn findings_of(kind: Kind, spec: &str) -> Vec<Finding> {
    let indented: String = spec.trim_matches('\n').lines().map(|line| format!("  {line}\n")).collect();
    let api = kind.info().api_version();
    let text = format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: x, namespace: shop}}\nspec:\n{indented}");
    let mut parsed = parse(&text, "default");
    assert_eq!(parsed.objects.len(), 1, "{text}");
    let item = parsed.objects.remove(0).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
    assert!(item.findings.is_empty(), "{:?}\n{text}", item.findings);
    validate(&item.object)
}

#[track_caller]
fn check(kind: Kind, spec: &str, expect: &[&str]) {
    let findings = findings_of(kind, spec);
    let mut found: Vec<String> =
        findings.iter().map(|f| format!("{:?} {}", f.code, f.path.strip_prefix("spec.").unwrap_or(&f.path))).collect();
    found.sort_unstable();
    let mut expect: Vec<&str> = expect.to_vec();
    expect.sort_unstable();
    let all: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(found, expect, "\n{spec}\n{}", all.join("\n"));
    assert!(findings.iter().all(|f| f.key.is_some() && !f.message.is_empty() && !f.message.ends_with('.')));
}

/// A VirtualService with one HTTP route to web, and these lines in it.
#[track_caller]
fn route(lines: &str, expect: &[&str]) {
    let lines: String = lines.trim_matches('\n').lines().map(|line| format!("  {line}\n")).collect();
    check(
        Kind::VirtualService,
        &format!("hosts: [web]\nhttp:\n-\n{lines}  route: [{{destination: {{host: web}}}}]\n"),
        expect,
    );
}

/// A DestinationRule for web with this traffic policy.
#[track_caller]
fn policy(flow: &str, expect: &[&str]) {
    check(Kind::DestinationRule, &format!("host: web\ntrafficPolicy: {flow}\n"), expect);
}

#[test]
fn metadata() {
    let text = "apiVersion: networking.istio.io/v1
kind: Sidecar
metadata:
  name: Bad_Name
  namespace: a.b
  labels: {'a b': x, good: 'x y', example.com/fine: v-1}
  annotations: {internal.istio.io/parents: x}
spec: {egress: [{hosts: ['*/*']}]}
";
    let parsed = parse(text, "default");
    let findings = validate(&parsed.objects[0].as_ref().unwrap().object);
    let found: Vec<String> = findings.iter().map(|f| format!("{:?} {}", f.code, f.path)).collect();
    assert_eq!(
        found,
        [
            "InvalidName metadata.name",
            "InvalidName metadata.namespace",
            "InvalidName metadata.labels.a b",
            "InvalidName metadata.labels.good",
            "InternalAnnotation metadata.annotations.internal.istio.io/parents",
        ]
    );
}

#[test]
fn virtual_service_as_a_whole() {
    let vs = Kind::VirtualService;
    let route = "route: [{destination: {host: web}}]";
    check(vs, &format!("hosts: [web, '*.shop.io', 10.0.0.1]\nhttp: [{{{route}}}]"), &[]);
    check(vs, "hosts: [web]", &["Required spec"]);
    check(vs, &format!("http: [{{{route}}}]"), &["NotActing hosts"]);
    check(vs, &format!("gateways: [g]\nhttp: [{{{route}}}]"), &["Required hosts"]);
    check(vs, &format!("hosts: ['*']\nhttp: [{{{route}}}]"), &["InvalidHost hosts[0]"]);
    check(vs, &format!("hosts: ['*']\ngateways: [g, mesh]\nhttp: [{{{route}}}]"), &["InvalidHost hosts[0]"]);
    check(vs, &format!("hosts: ['*']\ngateways: [ns/g]\nhttp: [{{{route}}}]"), &[]);
    check(
        vs,
        &format!("hosts: [a.b, '*.b', a..c, 'a b']\nhttp: [{{{route}}}]"),
        &["Duplicate hosts[1]", "InvalidHost hosts[2]", "InvalidHost hosts[3]"],
    );
    check(
        vs,
        &format!("hosts: [web]\ngateways: [a/b/c, A, g, g]\nhttp: [{{{route}}}]"),
        &["InvalidName gateways[0]", "InvalidName gateways[1]", "Duplicate gateways[3]"],
    );
    check(
        vs,
        &format!("hosts: [web]\nexportTo: ['*', ., shop, '~', X]\nhttp: [{{{route}}}]"),
        &["Conflict exportTo", "Duplicate exportTo", "InvalidValue exportTo[3]", "InvalidName exportTo[4]"],
    );
}

#[test]
fn unreachable_routes() {
    let vs = Kind::VirtualService;
    let text = |first: &str| {
        format!(
            "hosts: [web]\nhttp: [{{{first} route: [{{destination: {{host: a}}}}]}}, {{route: [{{destination: {{host: b}}}}]}}]"
        )
    };
    for first in ["", "match: [{uri: {prefix: /}}],", "match: [{uri: {prefix: /a}}, {uri: {regex: '.*'}}],"] {
        check(vs, &text(first), &["Ineffective http[1]"]);
    }
    for first in ["match: [{uri: {prefix: /a}}],", "match: [{uri: {prefix: /}, port: 80}],"] {
        check(vs, &text(first), &[]);
    }
}

#[test]
fn actions() {
    let vs = Kind::VirtualService;
    let with = |route: &str| format!("hosts: [web]\nhttp: [{{{route}}}]");
    let to = "route: [{destination: {host: web}}]";
    check(vs, &with("timeout: 1s"), &["Required http[0]"]);
    check(vs, &with(&format!("{to}, redirect: {{uri: /a}}")), &["Conflict http[0].redirect"]);
    check(vs, &with("redirect: {uri: /a}, directResponse: {status: 200}"), &["Conflict http[0].redirect"]);
    check(vs, &with("redirect: {uri: /a}, rewrite: {uri: /b}"), &["Conflict http[0].rewrite"]);
    check(
        vs,
        &with("directResponse: {status: 200}, fault: {delay: {fixedDelay: 1s, percentage: {value: 1}}}"),
        &["Conflict http[0].fault"],
    );
    check(vs, &with("delegate: {name: other}"), &["NotActing http[0].delegate"]);
}

#[test]
fn destinations_and_weights() {
    let vs = Kind::VirtualService;
    let with = |route: &str| format!("hosts: [web]\nhttp: [{{route: [{route}]}}]");
    check(
        vs,
        &with(
            "{destination: {host: a, subset: v1, port: {number: 80}}, weight: 90}, {destination: {host: b}, weight: 10}",
        ),
        &[],
    );
    check(vs, &with("{destination: {}}"), &["Required http[0].route[0].destination.host"]);
    check(vs, &with("{destination: {host: '*.a'}}"), &["InvalidHost http[0].route[0].destination.host"]);
    check(
        vs,
        &with("{destination: {host: a, port: {}, subset: V_1}}"),
        &["InvalidValue http[0].route[0].destination.port.number", "InvalidName http[0].route[0].destination.subset"],
    );
    check(
        vs,
        &with("{destination: {host: a}, weight: -1}, {destination: {host: b}, weight: 2}"),
        &["InvalidValue http[0].route[0].weight"],
    );
    check(vs, &with("{destination: {host: a}}, {destination: {host: b}}"), &["InvalidValue http[0].route"]);
    check(
        vs,
        "hosts: [web]\nhttp: [{headers: {request: {set: {Host: x}}}, route: [{destination: {host: a}, headers: {request: {add: {':authority': y}}}}]}]",
        &["Conflict http[0].route[0].headers.request"],
    );
}

#[test]
fn matches() {
    route(
        "match: [{uri: {exact: /a}, method: {regex: 'GET|PUT'}, headers: {x-a: {}, end-user: {exact: j}}, queryParams: {q: {}}, port: 80, ignoreUriCase: true}]",
        &[],
    );
    route("match: [{}]", &["Required http[0].match[0]"]);
    route("match: [{uri: {}}]", &["Required http[0].match[0].uri"]);
    route("match: [{uri: {prefix: ''}}]", &["InvalidValue http[0].match[0].uri"]);
    route("match: [{uri: {regex: '('}}]", &["InvalidRegex http[0].match[0].uri.regex"]);
    route("match: [{uri: {regex: ''}}]", &["InvalidRegex http[0].match[0].uri.regex"]);
    route("match: [{headers: {'a b': {exact: x}}}]", &["InvalidName http[0].match[0].headers.a b"]);
    route("match: [{headers: {X-A: {regex: '*'}}}]", &["Deprecated http[0].match[0].headers.X-A"]);
    route("match: [{withoutHeaders: {method: {exact: GET}}}]", &["Ineffective http[0].match[0].withoutHeaders.method"]);
    route(
        "match: [{headers: {'@request.auth.claims.sub': {exact: x}}}]",
        &[
            "NotActing http[0].match[0].headers.@request.auth.claims.sub",
            "Conflict http[0].match[0].headers.@request.auth.claims.sub",
        ],
    );
    route(
        "match: [{port: 70000, sourceNamespace: A, sourceLabels: {app: 'x y'}, gateways: [mesh]}]",
        &[
            "InvalidValue http[0].match[0].port",
            "InvalidName http[0].match[0].sourceNamespace",
            "InvalidName http[0].match[0].sourceLabels.app",
            "Ineffective http[0].match[0].sourceLabels",
        ],
    );
    route("match: [{uri: {regex: /a}, ignoreUriCase: true}]", &["Ineffective http[0].match[0].ignoreUriCase"]);
}

#[test]
fn route_details() {
    route("timeout: 0s", &[]);
    route("timeout: 100us", &["InvalidValue http[0].timeout"]);
    route("retries: {attempts: 3, perTryTimeout: 1s, retryOn: '5xx, connect-failure,503', backoff: 10ms}", &[]);
    route(
        "retries: {attempts: -1, retryOn: '5xx,conect-failure,99', backoff: 0s}",
        &[
            "InvalidValue http[0].retries.attempts",
            "InvalidValue http[0].retries.retryOn",
            "InvalidValue http[0].retries.retryOn",
            "InvalidValue http[0].retries.backoff",
        ],
    );
    route("retries: {attempts: 0}", &[]);
    route("retries: {retryOn: 5xx}", &["Ineffective http[0].retries.attempts"]);
    route("rewrite: {}", &["Required http[0].rewrite"]);
    route(
        "rewrite: {uri: /a, uriRegexRewrite: {match: '(', rewrite: a}}",
        &["Conflict http[0].rewrite.uri", "InvalidRegex http[0].rewrite.uriRegexRewrite.match"],
    );
    route("match: [{uri: {regex: /.*}}]\nrewrite: {uri: /a}", &["Conflict http[0].rewrite.uri"]);
    route(
        "headers: {request: {set: {x-a: \"1\\n2\"}, remove: [host, 'a b']}}",
        &[
            "InvalidValue http[0].headers.request.set.x-a",
            "Ineffective http[0].headers.request.remove[0]",
            "InvalidName http[0].headers.request.remove[1]",
        ],
    );
    route(
        "mirror: {host: a}\nmirrors: [{destination: {host: b}, percentage: {value: 101}}]\nmirrorPercent: 200",
        &[
            "Conflict http[0].mirror",
            "InvalidValue http[0].mirrors[0].percentage.value",
            "Deprecated http[0].mirrorPercent",
            "InvalidValue http[0].mirrorPercent",
            "NotActing http[0].mirror",
            "NotActing http[0].mirrors",
            "NotActing http[0].mirrorPercent",
        ],
    );
    route(
        "corsPolicy: {allowOrigin: [a], allowOrigins: [{regex: '['}], allowHeaders: ['*', 'a b'], maxAge: 1.5s}",
        &[
            "Deprecated http[0].corsPolicy.allowOrigin",
            "InvalidRegex http[0].corsPolicy.allowOrigins[0].regex",
            "InvalidName http[0].corsPolicy.allowHeaders[1]",
            "InvalidValue http[0].corsPolicy.maxAge",
            "NotActing http[0].corsPolicy",
        ],
    );
}

#[test]
fn faults() {
    route(
        "fault: {delay: {fixedDelay: 1s, percentage: {value: 0.1}}, abort: {grpcStatus: UNAVAILABLE, percentage: {value: 100}}}",
        &[],
    );
    route("fault: {}", &["Required http[0].fault"]);
    route(
        "fault: {delay: {percentage: {value: -1}}}",
        &["Required http[0].fault.delay.fixedDelay", "InvalidValue http[0].fault.delay.percentage.value"],
    );
    route(
        "fault: {delay: {fixedDelay: 1s, percent: 101}}",
        &["Deprecated http[0].fault.delay.percent", "InvalidValue http[0].fault.delay.percent"],
    );
    route(
        "fault: {delay: {fixedDelay: 1s, exponentialDelay: 1s}}",
        &["InvalidValue http[0].fault.delay.exponentialDelay", "Ineffective http[0].fault.delay.percentage"],
    );
    route(
        "fault: {abort: {httpStatus: 700, grpcStatus: OK}}",
        &[
            "Conflict http[0].fault.abort.httpStatus",
            "InvalidValue http[0].fault.abort.httpStatus",
            "Ineffective http[0].fault.abort.percentage",
        ],
    );
    route(
        "fault: {abort: {grpcStatus: NOPE, percentage: {value: 1}}}",
        &["InvalidValue http[0].fault.abort.grpcStatus"],
    );
    route("fault: {abort: {percentage: {value: 1}}}", &["Required http[0].fault.abort"]);
}

#[test]
fn grpc_statuses_have_many_spellings() {
    for (text, expect) in [
        ("UNAVAILABLE", Some(14)),
        ("DeadlineExceeded", Some(4)),
        ("not-found", Some(5)),
        ("Canceled", Some(1)),
        ("16", Some(16)),
        ("17", None),
        ("", None),
    ] {
        assert_eq!(super::http_route::grpc_status(text), expect, "{text}");
    }
}

#[test]
fn redirects_and_fixed_answers() {
    let vs = Kind::VirtualService;
    let with = |route: &str| format!("hosts: [web]\nhttp: [{{{route}}}]");
    check(vs, &with("redirect: {uri: /a, redirectCode: 302, scheme: https, port: 443}"), &[]);
    check(vs, &with("redirect: {}"), &["Required http[0].redirect"]);
    check(
        vs,
        &with(
            "redirect: {uri: /a, prefixRewrite: /b, port: 0, derivePort: FROM_REQUEST_PORT, scheme: ftp, redirectCode: 304}",
        ),
        &[
            "Conflict http[0].redirect.uri",
            "Conflict http[0].redirect.port",
            "Conflict http[0].redirect.prefixRewrite",
            "InvalidValue http[0].redirect.port",
            "InvalidValue http[0].redirect.scheme",
            "InvalidValue http[0].redirect.redirectCode",
        ],
    );
    check(vs, &with("match: [{uri: {prefix: /a}}], redirect: {prefixRewrite: /b}"), &[]);
    check(vs, &with("directResponse: {status: 503, body: {string: hello}}"), &[]);
    check(
        vs,
        &with("directResponse: {status: 99, body: {bytes: '?'}}"),
        &["InvalidValue http[0].directResponse.status", "InvalidValue http[0].directResponse.body.bytes"],
    );
    check(vs, &with("directResponse: {status: 200, body: {}}"), &["Required http[0].directResponse.body"]);
    let body = |size: usize| with(&format!("directResponse: {{status: 200, body: {{string: {}}}}}", "x".repeat(size)));
    check(vs, &body(200_000), &["Ineffective http[0].directResponse.body"]);
    check(vs, &body(2_000_000), &["InvalidValue http[0].directResponse.body"]);
}

#[test]
fn tls_and_tcp_routes() {
    let vs = Kind::VirtualService;
    check(
        vs,
        "hosts: ['*.shop.io']\ntls: [{match: [{sniHosts: [a.shop.io], port: 443}], route: [{destination: {host: a}}]}]",
        &[],
    );
    check(
        vs,
        "hosts: [shop.io]\ntls: [{}, {match: [{}, {sniHosts: [a.shop.io, 10.0.0.1]}], route: [{destination: {host: a}}]}]",
        &[
            "Required tls[0].match",
            "Required tls[0].route",
            "Required tls[1].match[0].sniHosts",
            "InvalidValue tls[1].match[1].sniHosts[0]",
            "Ineffective tls[1].match[1].sniHosts[1]",
        ],
    );
    check(
        vs,
        "hosts: [db]\ntcp: [{match: [{destinationSubnets: [10.0.0.0/33], sourceSubnet: a, port: 5432}], route: []}]",
        &[
            "InvalidValue tcp[0].match[0].destinationSubnets[0]",
            "Ineffective tcp[0].match[0].sourceSubnet",
            "Required tcp[0].route",
            "NotActing tcp[0].match[0].destinationSubnets",
        ],
    );
}

#[test]
fn destination_rules() {
    let dr = Kind::DestinationRule;
    check(dr, "host: web\nsubsets: [{name: v1, labels: {version: v1}}]", &[]);
    check(
        dr,
        "subsets: [{name: v1}, {name: v1}, {name: V_2}, {}]",
        &["Required host", "Duplicate subsets[1].name", "InvalidName subsets[2].name", "Required subsets[3].name"],
    );
    check(
        dr,
        "host: a b\nworkloadSelector: {}\nexportTo: [other]",
        &["InvalidHost host", "Required workloadSelector.matchLabels", "Conflict exportTo"],
    );
    policy("{}", &["Required trafficPolicy"]);
    policy("{connectionPool: {}}", &["Required trafficPolicy.connectionPool"]);
    policy(
        "{connectionPool: {tcp: {maxConnections: -1, connectTimeout: 0s, tcpKeepalive: {time: 1ms}}, http: {maxRetries: -2, useClientProtocol: true, h2UpgradePolicy: UPGRADE, http2KeepAlive: {interval: 1s}}}}",
        &[
            "InvalidValue trafficPolicy.connectionPool.tcp.maxConnections",
            "InvalidValue trafficPolicy.connectionPool.tcp.connectTimeout",
            "InvalidValue trafficPolicy.connectionPool.tcp.tcpKeepalive.time",
            "InvalidValue trafficPolicy.connectionPool.http.maxRetries",
            "Conflict trafficPolicy.connectionPool.http.useClientProtocol",
            "Required trafficPolicy.connectionPool.http.http2KeepAlive.timeout",
        ],
    );
    policy(
        "{outlierDetection: {consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 10s, maxEjectionPercent: 100}}",
        &[],
    );
    policy(
        "{outlierDetection: {consecutiveErrors: 3, maxEjectionPercent: 101, minHealthPercent: -1, consecutiveLocalOriginFailures: 2, outlierDetectionHttpErrorCodes: [600]}}",
        &[
            "Deprecated trafficPolicy.outlierDetection.consecutiveErrors",
            "InvalidValue trafficPolicy.outlierDetection.maxEjectionPercent",
            "InvalidValue trafficPolicy.outlierDetection.minHealthPercent",
            "Ineffective trafficPolicy.outlierDetection.consecutiveLocalOriginFailures",
            "InvalidValue trafficPolicy.outlierDetection.outlierDetectionHttpErrorCodes[0]",
        ],
    );
    policy(
        "{portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}, {port: {number: 80}}, {loadBalancer: {simple: RANDOM}}]}",
        &[
            "Duplicate trafficPolicy.portLevelSettings[1].port.number",
            "Required trafficPolicy.portLevelSettings[1]",
            "Required trafficPolicy.portLevelSettings[2].port",
        ],
    );
    policy(
        "{tunnel: {protocol: GET, targetHost: '*.a'}, proxyProtocol: {version: V2}, retryBudget: {percent: 120}}",
        &[
            "Conflict trafficPolicy.tunnel",
            "InvalidValue trafficPolicy.tunnel.protocol",
            "InvalidHost trafficPolicy.tunnel.targetHost",
            "InvalidValue trafficPolicy.tunnel.targetPort",
            "InvalidValue trafficPolicy.retryBudget.percent",
            "NotActing trafficPolicy.tunnel",
            "NotActing trafficPolicy.proxyProtocol",
            "NotActing trafficPolicy.retryBudget",
        ],
    );
}

#[test]
fn client_tls() {
    policy("{tls: {mode: ISTIO_MUTUAL}}", &[]);
    policy("{tls: {mode: SIMPLE, sni: a.io, subjectAltNames: [a.io], caCertificates: /a}}", &[]);
    policy(
        "{tls: {mode: MUTUAL}}",
        &["Required trafficPolicy.tls.clientCertificate", "Required trafficPolicy.tls.privateKey"],
    );
    policy("{tls: {mode: MUTUAL, credentialName: a, privateKey: /k}}", &["Conflict trafficPolicy.tls.privateKey"]);
    policy("{tls: {mode: SIMPLE, privateKey: /k}}", &["Conflict trafficPolicy.tls.mode"]);
    policy("{tls: {caCertificates: /a}}", &["Conflict trafficPolicy.tls.caCertificates"]);
    policy(
        "{tls: {mode: SIMPLE, insecureSkipVerify: true, subjectAltNames: ['']}}",
        &["Conflict trafficPolicy.tls.insecureSkipVerify", "Required trafficPolicy.tls.subjectAltNames[0]"],
    );
}

#[test]
fn balancing() {
    policy("{loadBalancer: {simple: LEAST_CONN}}", &["Deprecated trafficPolicy.loadBalancer.simple"]);
    policy(
        "{loadBalancer: {simple: RANDOM, consistentHash: {}}}",
        &[
            "Conflict trafficPolicy.loadBalancer.simple",
            "Required trafficPolicy.loadBalancer.consistentHash",
            "NotActing trafficPolicy.loadBalancer.consistentHash",
        ],
    );
    policy(
        "{loadBalancer: {consistentHash: {useSourceIp: true, httpCookie: {}, ringHash: {}, maglev: {tableSize: 6}}}}",
        &[
            "Conflict trafficPolicy.loadBalancer.consistentHash.httpCookie",
            "Required trafficPolicy.loadBalancer.consistentHash.httpCookie.name",
            "Conflict trafficPolicy.loadBalancer.consistentHash.ringHash",
            "InvalidValue trafficPolicy.loadBalancer.consistentHash.maglev.tableSize",
            "NotActing trafficPolicy.loadBalancer.consistentHash",
        ],
    );
    policy(
        "{loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 50, c: 40}}], failover: [{from: a, to: a}]}, warmup: {aggression: 0}, simple: RANDOM}}",
        &[
            "Conflict trafficPolicy.loadBalancer.localityLbSetting.distribute",
            "InvalidValue trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to",
            "InvalidValue trafficPolicy.loadBalancer.localityLbSetting.failover[0].to",
            "NotActing trafficPolicy.loadBalancer.localityLbSetting",
            "Required trafficPolicy.loadBalancer.warmup.duration",
            "InvalidValue trafficPolicy.loadBalancer.warmup.aggression",
            "Ineffective trafficPolicy.loadBalancer.warmup",
            "NotActing trafficPolicy.loadBalancer.warmup",
        ],
    );
}

#[test]
fn gateways() {
    let gw = Kind::Gateway;
    let with = |server: &str| format!("selector: {{istio: ingressgateway}}\nservers: [{{{server}}}]");
    check(gw, &with("port: {number: 80, protocol: HTTP, name: http}, hosts: ['*', ./a.io, ns/*.b.io, '*/c.io']"), &[]);
    check(gw, "{}", &["Required servers", "Ineffective selector"]);
    check(
        gw,
        &with("hosts: [a..b, A/b, '']"),
        &[
            "Required servers[0].port",
            "InvalidHost servers[0].hosts[0]",
            "InvalidName servers[0].hosts[1]",
            "InvalidHost servers[0].hosts[2]",
        ],
    );
    check(
        gw,
        &with("port: {number: 0, protocol: HTPP}, bind: x"),
        &[
            "Required servers[0].hosts",
            "Required servers[0].port.name",
            "InvalidValue servers[0].port.number",
            "InvalidValue servers[0].port.protocol",
            "InvalidValue servers[0].bind",
            "NotActing servers[0].bind",
        ],
    );
    check(gw, &with("port: {number: 443, protocol: HTTPS, name: a}, hosts: [a.io]"), &["Required servers[0].tls"]);
    check(gw, &with("port: {number: 80, protocol: HTTP, name: a}, hosts: [a.io], tls: {httpsRedirect: true}"), &[]);
    check(
        gw,
        &with("port: {number: 80, protocol: HTTP, name: a}, hosts: [a.io], tls: {mode: SIMPLE, credentialName: c}"),
        &["Conflict servers[0].tls"],
    );
    let tls = |tls: &str, expect: &[&str]| {
        check(
            gw,
            &with(&format!("port: {{number: 443, protocol: HTTPS, name: a}}, hosts: [a.io], tls: {{{tls}}}")),
            expect,
        );
    };
    tls("mode: SIMPLE, credentialName: c", &[]);
    tls("mode: SIMPLE", &["Required servers[0].tls"]);
    tls("mode: SIMPLE, privateKey: /k", &["Required servers[0].tls.serverCertificate"]);
    tls("mode: MUTUAL, serverCertificate: /c, privateKey: /k", &["Required servers[0].tls.caCertificates"]);
    tls(
        "mode: SIMPLE, credentialName: c, privateKey: /k, serverCertificate: /c",
        &["Conflict servers[0].tls.serverCertificate"],
    );
    tls("mode: ISTIO_MUTUAL", &[]);
    tls("mode: ISTIO_MUTUAL, credentialName: c", &["Conflict servers[0].tls"]);
    tls("mode: PASSTHROUGH, credentialName: c", &["Ineffective servers[0].tls"]);
    tls("mode: AUTO_PASSTHROUGH", &["NotActing servers[0].tls.mode"]);
    tls(
        "httpsRedirect: true, credentialName: c",
        &["Conflict servers[0].tls.httpsRedirect", "Conflict servers[0].tls.httpsRedirect"],
    );
    tls(
        "mode: SIMPLE, credentialName: c, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2",
        &["InvalidValue servers[0].tls.minProtocolVersion"],
    );
    tls(
        "mode: SIMPLE, credentialName: c, minProtocolVersion: TLSV1_0",
        &["InvalidValue servers[0].tls.minProtocolVersion"],
    );
    check(
        gw,
        "selector: {a: b}\nservers: [{name: x, port: {number: 80, protocol: HTTP, name: p}, hosts: [a]}, {name: x, port: {number: 81, protocol: HTTP, name: p}, hosts: [a]}]",
        &["Duplicate servers[1].port.name", "Duplicate servers[1].name"],
    );
}

#[test]
fn service_entries() {
    let se = Kind::ServiceEntry;
    check(se, "hosts: [api.io]\nports: [{number: 443, name: tls, protocol: TLS}]\nresolution: DNS", &[]);
    check(
        se,
        "ports: [{number: 80, name: a, protocol: HTTP}, {number: 80, name: a, protocol: HTTP}, {protocol: XYZ}]",
        &[
            "Required hosts",
            "Duplicate ports[1].name",
            "Duplicate ports[1].number",
            "Required ports[2].name",
            "InvalidValue ports[2].number",
            "InvalidValue ports[2].protocol",
            "Ineffective ports[2]",
        ],
    );
    check(
        se,
        "hosts: ['*', '*.a', b, b]\nports: [{number: 80, name: a, protocol: HTTP}]\nresolution: DNS",
        &["InvalidHost hosts[0]", "Conflict hosts[0]", "Conflict hosts[1]", "Duplicate hosts[3]"],
    );
    check(
        se,
        "hosts: [a, b]\naddresses: [10.0.0.0/8, x]\nports: [{number: 80, name: a}]\nresolution: DNS_ROUND_ROBIN\nendpoints: [{address: a.b}, {address: a.c}]",
        &[
            "Conflict addresses[0]",
            "InvalidValue addresses[1]",
            "Ineffective ports[0]",
            "Conflict endpoints",
            "NotActing resolution",
        ],
    );
    check(
        se,
        "hosts: [a.b]\nports: [{number: 80, name: http, protocol: HTTP}]\nresolution: STATIC\nendpoints: [{address: a.b, ports: {x: 70000}}, {address: 10.0.0.1}, {network: n}, {}, {address: 'unix:x', weight: 1}]",
        &[
            "Conflict endpoints[0].address",
            "InvalidValue endpoints[0].ports.x",
            "InvalidValue endpoints[0].ports.x",
            "Required endpoints[3].address",
            "InvalidHost endpoints[4].address",
        ],
    );
    check(
        se,
        "hosts: [a.b]\nports: [{number: 80, name: http, protocol: HTTP}]\nresolution: STATIC",
        &["Ineffective endpoints"],
    );
    check(
        se,
        "hosts: [a.b]\nports: [{number: 80, name: http, protocol: HTTP}]\nendpoints: [{address: 10.0.0.1}]\nworkloadSelector: {}",
        &["Conflict workloadSelector", "Required workloadSelector.labels", "Conflict endpoints"],
    );
}

#[test]
fn workloads() {
    let we = Kind::WorkloadEntry;
    check(we, "address: 10.0.0.1\nports: {http: 8080}\nlabels: {app: web}\nserviceAccount: web\nlocality: a/b/c", &[]);
    check(
        we,
        "ports: {http: 0}\nlocality: a/b/c/d\nserviceAccount: A_B",
        &["Required address", "InvalidValue ports.http", "InvalidValue locality", "InvalidName serviceAccount"],
    );
    check(we, "address: unix://x\nports: {a: 1}", &["InvalidValue address", "Conflict ports"]);
    let wg = Kind::WorkloadGroup;
    check(wg, "template: {serviceAccount: web}", &[]);
    check(
        wg,
        "template: {address: 10.0.0.1}\nprobe: {periodSeconds: -1}",
        &["Conflict template.address", "InvalidValue probe.periodSeconds", "Required probe", "NotActing probe"],
    );
    check(wg, "metadata: {labels: {a: 'b c'}}", &["Required template", "InvalidName metadata.labels.a"]);
}

#[test]
fn sidecars() {
    let sc = Kind::Sidecar;
    check(sc, "{}", &["Ineffective spec"]);
    check(
        sc,
        "workloadSelector: {labels: {app: web}}\ningress: [{port: {number: 80, protocol: HTTP, name: h}, defaultEndpoint: '127.0.0.1:8080'}]\negress: [{port: {number: 3306, protocol: MYSQL, name: m}, bind: 127.0.0.1, captureMode: NONE, hosts: ['*/db']}, {hosts: [./*, istio-system/*]}]",
        &[],
    );
    check(
        sc,
        "ingress: [{defaultEndpoint: '10.0.0.1:80', bind: x}, {port: {number: 80}, bind: 'unix:///x'}, {port: {number: 80}}]",
        &[
            "Ineffective ingress",
            "Required ingress[0].port",
            "InvalidValue ingress[0].bind",
            "InvalidValue ingress[0].defaultEndpoint",
            "InvalidValue ingress[1].bind",
            "Duplicate ingress[2].port.number",
        ],
    );
    check(
        sc,
        "egress: [{hosts: [web, A/b, '~/x', '~/*', '~ns/a.b', '*/*', '*/*']}, {port: {number: 80}, captureMode: IPTABLES, bind: 'unix:///x', hosts: []}]",
        &[
            "InvalidHost egress[0].hosts[0]",
            "InvalidName egress[0].hosts[1]",
            "InvalidHost egress[0].hosts[2]",
            "NotActing egress[0].hosts[4]",
            "Duplicate egress[0].hosts[6]",
            "Conflict egress[0].hosts",
            "Conflict egress[0].port",
            "Conflict egress[1].port.number",
            "Conflict egress[1].captureMode",
            "Required egress[1].hosts",
        ],
    );
    check(
        sc,
        "egress: [{bind: 127.0.0.1, captureMode: NONE, hosts: ['*/*']}]\noutboundTrafficPolicy: {egressProxy: {host: a}}",
        &[
            "Conflict egress[0].bind",
            "Conflict egress[0].captureMode",
            "Required outboundTrafficPolicy.egressProxy.port",
            "Conflict outboundTrafficPolicy.egressProxy",
            "NotActing outboundTrafficPolicy.egressProxy",
        ],
    );
}

#[test]
fn peer_authentications() {
    let pa = Kind::PeerAuthentication;
    check(pa, "mtls: {mode: STRICT}", &[]);
    check(pa, "selector: {matchLabels: {app: web}}\nportLevelMtls: {8080: {mode: DISABLE}}", &[]);
    check(
        pa,
        "selector: {}\nportLevelMtls: {'0': {mode: DISABLE}}",
        &["Conflict portLevelMtls", "InvalidValue portLevelMtls.0"],
    );
}

#[test]
fn authorization_policies() {
    let ap = Kind::AuthorizationPolicy;
    let rules = |rule: &str, expect: &[&str]| check(ap, &format!("rules: [{{{rule}}}]"), expect);
    check(ap, "{}", &[]);
    check(ap, "rules: [{}]", &[]);
    check(ap, "action: DENY", &["Ineffective rules"]);
    check(ap, "action: CUSTOM", &["Required rules", "Required provider.name", "NotActing action"]);
    check(ap, "provider: {name: x}", &["Conflict provider"]);
    check(
        ap,
        "selector: {}\ntargetRefs: [{kind: Gateway, name: a, namespace: other}]",
        &["Conflict selector", "InvalidValue targetRefs[0].namespace", "NotActing targetRefs"],
    );
    rules(
        "from: [{source: {principals: ['*', a/*, '*/b'], namespaces: [shop], ipBlocks: [10.0.0.0/8]}}], to: [{operation: {methods: [GET], paths: [/a*, '/b/{*}/c/{**}'], hosts: ['*.io'], ports: ['80']}}], when: [{key: source.ip, values: [10.0.0.1]}]",
        &[],
    );
    rules(
        "from: [{}, {source: {}}], to: [{}, {operation: {}}], when: [{}]",
        &[
            "Required rules[0].from[0].source",
            "Required rules[0].from[1].source",
            "Required rules[0].to[0].operation",
            "Required rules[0].to[1].operation",
            "Required rules[0].when[0].key",
            "Required rules[0].when[0]",
        ],
    );
    rules(
        "from: [{source: {principals: ['', 'a*b'], ipBlocks: [x], serviceAccounts: [a/b/c]}}]",
        &[
            "Required rules[0].from[0].source.principals[0]",
            "Ineffective rules[0].from[0].source.principals[1]",
            "InvalidValue rules[0].from[0].source.ipBlocks[0]",
            "Conflict rules[0].from[0].source.serviceAccounts",
            "InvalidName rules[0].from[0].source.serviceAccounts[0]",
            "NotActing rules[0].from[0].source.serviceAccounts",
        ],
    );
    rules(
        "to: [{operation: {ports: ['0', http], paths: ['', 'a{*}', '/{*}x', '/{**}/{**}']}}]",
        &[
            "InvalidValue rules[0].to[0].operation.ports[0]",
            "InvalidValue rules[0].to[0].operation.ports[1]",
            "Required rules[0].to[0].operation.paths[0]",
            "InvalidValue rules[0].to[0].operation.paths[1]",
            "InvalidValue rules[0].to[0].operation.paths[2]",
            "InvalidValue rules[0].to[0].operation.paths[3]",
        ],
    );
    rules(
        "when: [{key: 'request.headers[x]', values: [a]}, {key: source.ipp, values: [a]}, {key: destination.port, notValues: [x]}]",
        &[
            "NotActing rules[0].when[0].key",
            "InvalidValue rules[0].when[1].key",
            "InvalidValue rules[0].when[2].notValues[0]",
        ],
    );
    check(
        ap,
        "action: CUSTOM\nprovider: {name: x}\nrules: [{from: [{source: {namespaces: [a]}}], when: [{key: source.principal, values: [a]}]}]",
        &["Conflict rules[0].from[0].source.namespaces", "Conflict rules[0].when[0].key", "NotActing action"],
    );
}

#[test]
fn dry_run_is_named() {
    let text = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: x, annotations: {istio.io/dry-run: 'true'}}
spec: {action: DENY, rules: [{}]}
";
    let findings = validate(&parse(text, "default").objects[0].as_ref().unwrap().object);
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].path, "metadata.annotations.istio.io/dry-run");
}

#[test]
fn core_kinds() {
    let svc = Kind::Service;
    check(svc, "clusterIP: None\nports: [{port: 80}]", &[]);
    check(
        svc,
        "clusterIP: x\nports: [{port: 0, name: a}, {port: 1}, {port: 2, name: a}]\ntype: ExternalName",
        &[
            "InvalidValue clusterIP",
            "InvalidValue ports[0].port",
            "Required ports[1].name",
            "Duplicate ports[2].name",
            "Required externalName",
        ],
    );
}

proptest! {
    /// Whatever can be read can be validated.
    #[test]
    fn never_panics(
        kind in proptest::sample::select(Kind::ALL.iter().copied().filter(|k| k.is_mesh()).collect::<Vec<_>>()),
        words in proptest::collection::vec("[a*/.~{}\\[(:0-]{0,6}", 8),
        numbers in proptest::collection::vec(-3..70_000i64, 4),
    ) {
        let w = |i: usize| format!("{:?}", words[i]);
        let spec = format!(
            "{{hosts: [{a}, {b}], host: {a}, gateways: [{c}], exportTo: [{d}], address: {a}, addresses: [{e}],
              http: [{{match: [{{uri: {{regex: {f}}}, headers: {{{g}: {{prefix: {h}}}}}}}],
                       route: [{{destination: {{host: {a}}}, weight: {n}}}]}}],
              egress: [{{hosts: [{a}, {b}]}}], ingress: [{{bind: {c}, defaultEndpoint: {d}}}],
              servers: [{{hosts: [{e}], bind: {f}}}],
              rules: [{{from: [{{source: {{principals: [{a}], ipBlocks: [{b}]}}}}],
                        to: [{{operation: {{paths: [{c}], ports: [{d}]}}}}], when: [{{key: {e}, values: [{f}]}}]}}]}}",
            a = w(0), b = w(1), c = w(2), d = w(3), e = w(4), f = w(5), g = w(6), h = w(7), n = numbers[0],
        );
        let api = kind.info().api_version();
        let text = format!("{{apiVersion: {api}, kind: {kind}, metadata: {{name: {}}}, spec: {spec}}}", w(0));
        for item in parse(&text, "default").objects.iter().flatten() {
            let _ = validate(&item.object);
        }
    }
}
