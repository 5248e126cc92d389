use serde_json::json;

use super::*;
use meshd_core::analyze::Subject;

fn subject(api: &str, kind: &str, name: &str, spec: serde_json::Value) -> Subject {
    let value =
        json!({ "apiVersion": api, "kind": kind, "metadata": { "name": name, "namespace": "shop" }, "spec": spec });
    Subject::new(value, "", Vec::new())
}

#[test]
fn a_pod_is_described_in_istioctls_order() {
    let networking = "networking.istio.io/v1";
    let all = [
        subject(
            "v1",
            "Service",
            "web",
            json!({ "selector": { "app": "web" },
            "ports": [{ "name": "http", "port": 80, "targetPort": "serve" }, { "port": 90 }] }),
        ),
        subject("v1", "Service", "other", json!({ "selector": { "app": "other" }, "ports": [{ "port": 1 }] })),
        subject(
            networking,
            "DestinationRule",
            "web",
            json!({ "host": "web", "trafficPolicy": { "tls": { "mode": "ISTIO_MUTUAL" },
            "outlierDetection": {} }, "subsets": [{ "name": "v1", "labels": { "version": "v1" } },
            { "name": "v2", "labels": { "version": "v2" } }] }),
        ),
        subject(
            networking,
            "VirtualService",
            "web",
            json!({ "hosts": ["web"], "http": [
            { "match": [{ "uri": { "prefix": "/a" }, "headers": { "x": { "exact": "y" } } }],
              "route": [{ "destination": { "host": "web", "subset": "v1" }, "weight": 90 },
                        { "destination": { "host": "web", "subset": "v9" }, "weight": 10 }] },
            { "route": [{ "destination": { "host": "other" } }] }] }),
        ),
        subject("security.istio.io/v1", "PeerAuthentication", "strict", json!({ "mtls": { "mode": "STRICT" } })),
        subject("security.istio.io/v1", "AuthorizationPolicy", "allow", json!({ "rules": [{}, {}] })),
    ];
    let pod = json!({ "metadata": { "name": "web-1", "namespace": "shop", "labels": { "app": "web", "version": "v1" } },
        "spec": { "containers": [{ "name": "web", "ports": [{ "name": "serve", "containerPort": 8080 }] },
                                 { "name": "istio-proxy", "ports": [{ "containerPort": 15090 }] }] } });
    let facts = Facts { all: all.iter().collect(), root: "istio-system", captured: None };
    let text = facts.describe(Some(&pod), None);
    let expect = "Pod: web-1.shop
   Pod Ports: 8080 (web), 15090 (istio-proxy)
--------------------
Service: web.shop
   Port: http 80/HTTP targets pod port 8080
   Port: 90/auto-detect targets pod port 90
DestinationRule: web.shop for \"web\"
   Matching subsets: v1
   Non-matching subsets: v2
   Traffic Policy TLS Mode: ISTIO_MUTUAL
   Policies: outlier detection
VirtualService: web.shop
   Route to host \"web\" subset \"v1\" with weight 90%
   Route to host \"web\" subset \"v9\" with weight 10%
   Match: /a* when headers are x=y
   WARNING: no DestinationRule defines subset \"v9\" of \"web\"
   1 additional destination(s) that will not reach this pod
RBAC policies: ns[shop]-policy[allow]-rule[0], ns[shop]-policy[allow]-rule[1]
Effective PeerAuthentication:
   Workload mTLS mode: STRICT
Applied PeerAuthentication:
   strict.shop
";
    assert_eq!(text, expect);
    assert!(facts.describe(None, Some("shop/other")).starts_with("Service: other.shop\n"));
    let facts = Facts { captured: Some(false), ..facts };
    assert!(facts.describe(Some(&pod), None).contains("\nWARNING: traffic of this workload is not led through"));
}
