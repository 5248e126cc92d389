//! Dumps of configuration that went through the codec, read back as a tool would.

use mesh_api_xds::ads::Rejection;
use mesh_api_xds::ir::Origin;
use mesh_api_xds::ir::Resource;
use mesh_api_xds::ir::route::{
    Action, Destination, Forward, HeaderEdits, PathMatch, PathRewrite, Route, RouteConfig, RouteHosts, RouteMatch,
    VirtualHost,
};
use std::time::Duration;

use super::super::tests::{Proxy, mk_certificate, mk_endpoints};
use super::*;
use crate::telemetry::testing::{mk_cluster, mk_listener};

const REVIEWS: &str = "outbound|9080||reviews.shop.svc.cluster.local";

fn mk_host(name: &str) -> VirtualHost {
    let forward = Forward {
        to: Destination::Cluster(REVIEWS.into()),
        timeout: Some(Duration::from_millis(1500)),
        max_grpc_timeout: None,
        retry: None,
        rewrite: PathRewrite::Keep,
        host_rewrite: None,
        mirrors: Arc::default(),
    };
    let route = Route {
        name: "default".into(),
        matches: RouteMatch {
            path: PathMatch::Prefix("/".into()),
            case_sensitive: true,
            headers: Arc::default(),
            query: Arc::default(),
        },
        action: Action::Forward(forward),
        headers: HeaderEdits::default(),
        filters: Arc::default(),
        origin: Origin("VirtualService/shop/reviews".into()),
    };
    VirtualHost {
        name: name.into(),
        domains: ["reviews".into(), "reviews.shop.svc.cluster.local".into()].into_iter().collect(),
        routes: [route].into_iter().collect(),
        require_tls: false,
        attempt_count: true,
    }
}

fn mk_proxy() -> Proxy {
    let proxy = Proxy::start();
    proxy.apply(vec![
        Resource::Cluster(mk_cluster(REVIEWS)),
        mk_endpoints(REVIEWS, &[1, 2]),
        Resource::Listener(mk_listener("virtualInbound", ([0, 0, 0, 0], 15006).into())),
        Resource::Routes(RouteConfig { name: "9080".into(), hosts: RouteHosts::Apart, ignore_port: true }),
        Resource::VirtualHost(mk_host("9080/reviews.shop.svc.cluster.local:9080")),
        mk_certificate("default"),
    ]);
    proxy
}

fn section<'a>(dump: &'a Value, message: &str) -> Option<&'a Value> {
    let wanted = type_of(message);
    dump["configs"].as_array().unwrap().iter().find(|section| section["@type"] == wanted)
}

#[tokio::test]
async fn a_dump_has_envoys_sections_and_names() {
    let proxy = mk_proxy();
    let dump = proxy.json("/config_dump").await;
    let sections: Vec<_> = dump["configs"].as_array().unwrap().iter().map(|config| config["@type"].clone()).collect();
    assert_eq!(
        sections,
        ["BootstrapConfigDump", "ClustersConfigDump", "ListenersConfigDump", "RoutesConfigDump", "SecretsConfigDump"]
            .map(type_of)
    );
    let bootstrap = &section(&dump, "BootstrapConfigDump").unwrap()["bootstrap"];
    assert_eq!(bootstrap["node"]["metadata"]["WORKLOAD_NAME"], "reviews-v1");

    let cluster = &section(&dump, "ClustersConfigDump").unwrap()["dynamic_active_clusters"][0];
    assert_eq!(cluster["cluster"]["@type"], "type.googleapis.com/envoy.config.cluster.v3.Cluster");
    assert_eq!((&cluster["cluster"]["name"], &cluster["cluster"]["type"]), (&json!(REVIEWS), &json!("EDS")));
    assert_eq!(cluster["cluster"]["connect_timeout"], "10s");
    let service = &cluster["cluster"]["metadata"]["filter_metadata"]["istio"]["services"][0];
    assert_eq!(service["host"], "reviews.shop.svc.cluster.local");
    assert_eq!(cluster["last_updated"], "1970-01-01T00:00:00Z");

    let listener = &section(&dump, "ListenersConfigDump").unwrap()["dynamic_listeners"][0];
    let state = &listener["active_state"]["listener"];
    assert_eq!((&listener["name"], &state["traffic_direction"]), (&json!("virtualInbound"), &json!("INBOUND")));
    assert_eq!(state["address"]["socket_address"]["port_value"], 15006);
    let manager = &state["filter_chains"][0]["filters"][0]["typed_config"];
    assert!(manager["@type"].as_str().unwrap().ends_with(".HttpConnectionManager"), "{manager}");
    assert_eq!(manager["rds"]["route_config_name"], "9080");
}

#[tokio::test]
async fn virtual_hosts_sent_apart_are_part_of_their_routes() {
    let dump = mk_proxy().json("/config_dump").await;
    let route = &section(&dump, "RoutesConfigDump").unwrap()["dynamic_route_configs"][0]["route_config"];
    assert_eq!((&route["name"], route.get("vhds")), (&json!("9080"), None));
    let host = &route["virtual_hosts"][0];
    assert_eq!(host["domains"], json!(["reviews", "reviews.shop.svc.cluster.local"]));
    let first = &host["routes"][0];
    assert_eq!(first["match"]["prefix"], "/");
    assert_eq!((&first["route"]["cluster"], &first["route"]["timeout"]), (&json!(REVIEWS), &json!("1.500s")));
    assert_eq!(host.get("@type"), None);
}

#[tokio::test]
async fn endpoints_are_shown_when_asked_for() {
    let proxy = mk_proxy();
    assert!(section(&proxy.json("/config_dump").await, "EndpointsConfigDump").is_none());
    let dump = proxy.json("/config_dump?include_eds=true").await;
    let set = &section(&dump, "EndpointsConfigDump").unwrap()["dynamic_endpoint_configs"][0]["endpoint_config"];
    assert_eq!(set["cluster_name"], REVIEWS);
    let endpoints = set["endpoints"][0]["lb_endpoints"].as_array().unwrap();
    let address = &endpoints[1]["endpoint"]["address"]["socket_address"];
    assert_eq!((&address["address"], &address["port_value"]), (&json!("10.1.0.2"), &json!(9080)));
}

#[tokio::test]
async fn secrets_come_without_keys() {
    let proxy = mk_proxy();
    let text = proxy.get("/config_dump?include_eds").await;
    let dump: Value = serde_json::from_str(&text).unwrap();
    let secret = &section(&dump, "SecretsConfigDump").unwrap()["dynamic_active_secrets"][0];
    assert_eq!((&secret["name"], &secret["secret"]["name"]), (&json!("default"), &json!("default")));
    let certificate = &secret["secret"]["tls_certificate"];
    let decode = |field: &str| {
        let bytes = BASE64.decode(certificate[field]["inline_bytes"].as_str().unwrap()).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    assert!(decode("certificate_chain").starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(decode("private_key"), "[redacted]");
}

#[tokio::test]
async fn masks_and_filters_choose() {
    let proxy = mk_proxy();
    let mask = "/config_dump?mask=dynamic_active_clusters,dynamic_warming_clusters,static_clusters";
    let dump = proxy.json(mask).await;
    let [only] = dump["configs"].as_array().unwrap().as_slice() else { panic!("{dump}") };
    let fields: Vec<_> = only.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["@type", "dynamic_active_clusters"]);

    let dump = proxy.json("/config_dump?resource=dynamic_listeners").await;
    let [listener] = dump["configs"].as_array().unwrap().as_slice() else { panic!("{dump}") };
    assert_eq!(listener["@type"], type_of("ListenersConfigDump.DynamicListener"));
    assert_eq!(listener["name"], "virtualInbound");
    let dump = proxy.json("/config_dump?resource=dynamic_active_clusters&mask=cluster.name").await;
    assert_eq!(dump["configs"][0].as_object().unwrap().keys().collect::<Vec<_>>(), ["@type", "cluster"]);
    let dump = proxy.json("/config_dump?resource=dynamic_active_clusters&name_regex=ratings").await;
    assert_eq!(dump, json!({ "configs": [] }));
    for wrong in ["resource=nothing", "mask=nothing", "resource=bootstrap", "name_regex=%5B", "what=1"] {
        let (head, ()) = http::Request::builder().uri(format!("/config_dump?{wrong}")).body(()).unwrap().into_parts();
        let request = Request::new(head, bytes::Bytes::new(), ([127, 0, 0, 1], 1).into());
        assert!(answer(&proxy.admin, &request).is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn what_is_not_used_says_why() {
    let proxy = mk_proxy();
    let rejection = Rejection { name: REVIEWS.into(), path: "lb_policy".into(), reason: "not supported".into() };
    proxy.admin.context.shared.store.held.reject(TypeUrl::Cluster, &[rejection]);
    let dump = proxy.json("/config_dump").await;
    let cluster = &section(&dump, "ClustersConfigDump").unwrap()["dynamic_active_clusters"][0];
    assert_eq!(cluster["client_status"], "NACKED");
    assert_eq!(cluster["error_state"]["details"], "lb_policy: not supported");
}
