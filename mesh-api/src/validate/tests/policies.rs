//! All kinds but VirtualService.

use super::check;
use crate::kinds::Kind;

/// A DestinationRule for web with this traffic policy.
#[track_caller]
fn policy(flow: &str, expect: &[&str]) {
    check(Kind::DestinationRule, &format!("host: web\ntrafficPolicy: {flow}\n"), expect);
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
        &["InvalidHost host", "Ineffective workloadSelector.matchLabels", "Conflict exportTo"],
    );
    policy("{}", &["Required trafficPolicy"]);
    policy("{connectionPool: {}}", &["Required trafficPolicy.connectionPool"]);
    policy(
        "{connectionPool: {tcp: {maxConnections: -1, connectTimeout: 0s, tcpKeepalive: {time: 1ms}}, http: {maxRetries: -2, useClientProtocol: true, h2UpgradePolicy: UPGRADE, http2KeepAlive: {interval: 1s}}}}",
        &[
            "InvalidValue trafficPolicy.connectionPool.tcp.maxConnections",
            "InvalidValue trafficPolicy.connectionPool.tcp.connectTimeout",
            "Ineffective trafficPolicy.connectionPool.tcp.tcpKeepalive.time",
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
            "Ineffective trafficPolicy.portLevelSettings[1].port.number",
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
    policy("{tls: {mode: SIMPLE, privateKey: /k}}", &["Ineffective trafficPolicy.tls.mode"]);
    policy("{tls: {caCertificates: /a}}", &["Ineffective trafficPolicy.tls.caCertificates"]);
    policy(
        "{tls: {mode: SIMPLE, insecureSkipVerify: true, subjectAltNames: ['']}}",
        &["Conflict trafficPolicy.tls.insecureSkipVerify"],
    );
}

#[test]
fn balancing() {
    policy("{loadBalancer: {simple: LEAST_CONN}}", &["Deprecated trafficPolicy.loadBalancer.simple"]);
    policy(
        "{loadBalancer: {simple: RANDOM, consistentHash: {}}}",
        &["Conflict trafficPolicy.loadBalancer.simple", "Ineffective trafficPolicy.loadBalancer.consistentHash"],
    );
    policy(
        "{loadBalancer: {consistentHash: {useSourceIp: true, httpCookie: {}, ringHash: {}, maglev: {tableSize: 6}}}}",
        &[
            "Conflict trafficPolicy.loadBalancer.consistentHash.httpCookie",
            "Required trafficPolicy.loadBalancer.consistentHash.httpCookie.name",
            "Conflict trafficPolicy.loadBalancer.consistentHash.ringHash",
            "InvalidValue trafficPolicy.loadBalancer.consistentHash.maglev.tableSize",
        ],
    );
    policy(
        "{loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 50, c: 40}}], failover: [{from: a, to: a}]}, warmup: {aggression: 0}, simple: RANDOM}}",
        &[
            "Conflict trafficPolicy.loadBalancer.localityLbSetting.distribute",
            "InvalidValue trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to",
            "InvalidValue trafficPolicy.loadBalancer.localityLbSetting.failover[0].to",
            "Required trafficPolicy.loadBalancer.warmup.duration",
            "InvalidValue trafficPolicy.loadBalancer.warmup.aggression",
            "Ineffective trafficPolicy.loadBalancer.warmup",
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
    tls("mode: AUTO_PASSTHROUGH", &[]);
    tls(
        "httpsRedirect: true, credentialName: c",
        &["Ineffective servers[0].tls.httpsRedirect", "Ineffective servers[0].tls"],
    );
    tls(
        "mode: SIMPLE, credentialName: c, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2",
        &["InvalidValue servers[0].tls.minProtocolVersion"],
    );
    tls(
        "mode: SIMPLE, credentialName: c, minProtocolVersion: TLSV1_0",
        &["Ineffective servers[0].tls.minProtocolVersion"],
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
        &["InvalidHost hosts[0]", "Conflict hosts[0]", "Conflict hosts[1]", "Ineffective hosts[3]"],
    );
    check(
        se,
        "hosts: [a, b]\naddresses: [10.0.0.0/8, x]\nports: [{number: 80, name: a}]\nresolution: DNS_ROUND_ROBIN\nendpoints: [{address: a.b}, {address: a.c}]",
        &["Conflict addresses[0]", "InvalidValue addresses[1]", "Conflict ports[0]", "Conflict endpoints"],
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
        &[
            "Conflict workloadSelector",
            "Ineffective workloadSelector",
            "Ineffective workloadSelector.labels",
            "Conflict endpoints",
        ],
    );
}

#[test]
fn workloads() {
    let we = Kind::WorkloadEntry;
    check(we, "address: 10.0.0.1\nports: {http: 8080}\nlabels: {app: web}\nserviceAccount: web\nlocality: a/b/c", &[]);
    check(
        we,
        "ports: {http: 0}\nlocality: a/b/c/d\nserviceAccount: A_B",
        &["Required address", "InvalidValue ports.http", "Ineffective locality", "Ineffective serviceAccount"],
    );
    check(we, "address: unix://x\nports: {a: 1}", &["InvalidValue address", "Conflict ports"]);
    let wg = Kind::WorkloadGroup;
    check(wg, "template: {serviceAccount: web}", &[]);
    check(
        wg,
        "template: {address: 10.0.0.1}\nprobe: {periodSeconds: -1}",
        &["Ineffective template.address", "InvalidValue probe.periodSeconds", "Required probe"],
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
            "Ineffective egress[0].hosts[2]",
            "NotActing egress[0].hosts[4]",
            "NotActing egress[1].bind",
            "Ineffective egress[0].hosts[6]",
            "Ineffective egress[0].hosts",
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
            "Ineffective egress[0].bind",
            "Ineffective egress[0].captureMode",
            "Required outboundTrafficPolicy.egressProxy.port",
            "Conflict outboundTrafficPolicy.egressProxy",
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
    check(ap, "action: CUSTOM", &["Required rules", "Required provider.name"]);
    check(ap, "provider: {name: x}", &["Conflict provider"]);
    check(
        ap,
        "selector: {}\ntargetRefs: [{kind: Gateway, name: a, namespace: other}]",
        &["Conflict selector", "InvalidValue targetRefs[0].namespace"],
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
        &["InvalidValue rules[0].when[1].key", "InvalidValue rules[0].when[2].notValues[0]"],
    );
    check(
        ap,
        "action: CUSTOM\nprovider: {name: x}\nrules: [{from: [{source: {namespaces: [a]}}], when: [{key: source.principal, values: [a]}]}]",
        &["Conflict rules[0].from[0].source.namespaces", "Conflict rules[0].when[0].key"],
    );
}
