//! VirtualService.

use super::check;
use crate::{kinds::Kind, validate::http_route::grpc_status};

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

#[test]
fn virtual_service_as_a_whole() {
    let vs = Kind::VirtualService;
    let route = "route: [{destination: {host: web}}]";
    check(vs, &format!("hosts: [web, '*.shop.io', 10.0.0.1]\nhttp: [{{{route}}}]"), &[]);
    check(vs, "hosts: [web]", &["Required spec"]);
    check(vs, &format!("http: [{{{route}}}]"), &["NotActing hosts"]);
    check(vs, &format!("gateways: [g]\nhttp: [{{{route}}}]"), &["Required hosts"]);
    check(vs, &format!("hosts: ['*']\nhttp: [{{{route}}}]"), &["InvalidHost hosts[0]"]);
    check(vs, &format!("hosts: ['*']\ngateways: [g, mesh]\nhttp: [{{{route}}}]"), &["Ineffective hosts[0]"]);
    check(vs, &format!("hosts: ['*']\ngateways: [ns/g]\nhttp: [{{{route}}}]"), &[]);
    check(
        vs,
        &format!("hosts: [a.b, '*.b', a..c, 'a b']\nhttp: [{{{route}}}]"),
        &["Duplicate hosts[1]", "InvalidHost hosts[2]", "InvalidHost hosts[3]"],
    );
    check(
        vs,
        &format!("hosts: [web]\ngateways: [a/b/c, A, g, g]\nhttp: [{{{route}}}]"),
        &["InvalidName gateways[0]", "InvalidName gateways[1]"],
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
    check(vs, &with("delegate: {name: other}"), &[]);
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
    check(vs, &with("{destination: {host: '*.a'}}"), &["Ineffective http[0].route[0].destination.host"]);
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
        &["Ineffective http[0].route[0].headers.request"],
    );
}

#[test]
fn matches() {
    route(
        "match: [{uri: {exact: /a}, method: {regex: 'GET|PUT'}, headers: {x-a: {}, end-user: {exact: j}}, queryParams: {q: {}}, port: 80, ignoreUriCase: true}]",
        &[],
    );
    route("match: [{}]", &["Ineffective http[0].match[0]"]);
    route("match: [{uri: {}}]", &["Ineffective http[0].match[0].uri"]);
    route("match: [{uri: {prefix: ''}}]", &[]);
    route("match: [{method: {prefix: ''}}]", &["InvalidValue http[0].match[0].method"]);
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
    route("match: [{uri: {regex: /.*}}]\nrewrite: {uri: /a}", &["Ineffective http[0].rewrite.uri"]);
    route(
        "headers: {request: {set: {x-a: \"1\\n2\"}, remove: [host, 'a b']}}",
        &[
            "InvalidValue http[0].headers.request.set.x-a",
            "InvalidValue http[0].headers.request.remove[0]",
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
        ],
    );
    route(
        "corsPolicy: {allowOrigin: [a], allowOrigins: [{regex: '['}], allowHeaders: ['*', 'a b'], maxAge: 1.5s}",
        &[
            "Deprecated http[0].corsPolicy.allowOrigin",
            "InvalidRegex http[0].corsPolicy.allowOrigins[0].regex",
            "InvalidName http[0].corsPolicy.allowHeaders[1]",
            "InvalidValue http[0].corsPolicy.maxAge",
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
        &["Ineffective http[0].fault.delay.fixedDelay", "InvalidValue http[0].fault.delay.percentage.value"],
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
    route("fault: {abort: {percentage: {value: 1}}}", &["Ineffective http[0].fault.abort"]);
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
        assert_eq!(grpc_status(text), expect, "{text}");
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
        ],
    );
}

#[test]
fn header_values_are_formats() {
    let check = |value: &str, good: bool| {
        let expect: &[&str] = if good { &[] } else { &["InvalidValue http[0].headers.response.add.x-a"] };
        route(&format!("headers: {{response: {{add: {{x-a: \"{value}\"}}}}}}"), expect);
    };
    for value in ["plain", "100%%", "%PROTOCOL%", "a %REQ(X-B?:PATH):10% b", "%START_TIME(%Y/%m)%"] {
        check(value, true);
    }
    for value in ["100%", "%%%", "%lower%", "%REQ(x%", "%A b%"] {
        check(value, false);
    }
    route(
        "headers: {response: {set: {host: a}}, request: {set: {':path': a}, add: {host: a}}}\nrewrite: {authority: b}",
        &[
            "InvalidValue http[0].headers.response.set.host",
            "InvalidValue http[0].headers.request.set.:path",
            "Conflict http[0].headers.request",
        ],
    );
}
