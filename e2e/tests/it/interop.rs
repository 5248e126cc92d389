//! A stock Envoy in the mesh: as sidecar of either side, with peers of ours, and as gateway.

use e2e::assert::{eventually, share};
use e2e::client::{self, Answer, shop, url};
use e2e::mesh::{CATALOGUE, SERVICES, Security, TCP_ECHO, ok};

use crate::envoy::expect_nothing_rejected;
use crate::world::{Kind, World, expect_fine, start};

/// Two versions of the catalogue: nine of ten requests to the first, those of `jason` to the second.
const ROUTES: &str = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: catalogue, namespace: shop}
spec:
  host: catalogue
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: catalogue, namespace: shop}
spec:
  hosts: [catalogue, shop.example.com]
  gateways: [mesh, front]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    route: [{destination: {host: catalogue, subset: v2}}]
  - route:
    - {destination: {host: catalogue, subset: v1}, weight: 90}
    - {destination: {host: catalogue, subset: v2}, weight: 10}
";

/// What the gateway serves.
const HOST: &str = "shop.example.com";

/// All services behind proxies of one kind, called through one of another.
fn pair(security: Security, caller: Kind, server: Kind) -> World {
    let mut world = World::new(security, caller);
    for service in SERVICES {
        world.serve(service, "v1", server, &[]);
    }
    world.call_all();
    if caller == Kind::Envoy {
        expect_nothing_rejected(&world.mesh, &world.caller);
    }
    for backend in &world.backends {
        if server == Kind::Envoy {
            expect_nothing_rejected(&world.mesh, &backend.workload);
        }
    }
    world
}

/// The identity of the caller as the service was told it.
fn caller_seen(world: &World) -> String {
    let headers = world.get("/echo", &[]).unwrap().json()["headers"].clone();
    let found = headers.as_array().unwrap().iter().find(|header| header[0] == "x-forwarded-client-cert");
    found.map_or_else(String::new, |header| header[1].as_str().unwrap().to_owned())
}

fn version(answer: Answer) -> String {
    answer.header("x-version").to_owned()
}

/// Nobody gets in without a certificate.
#[track_caller]
fn expect_plaintext_refused(world: &World) {
    for backend in &world.backends {
        for service in SERVICES.iter().filter(|service| backend.workload.account == service.name) {
            let at = backend.workload.at(service.target());
            let answer = client::get(at, "/healthz");
            assert!(answer.is_err(), "{} answers in plaintext: {answer:?}", service.name);
        }
    }
}

#[test]
#[ignore = "needs built binaries and a real Envoy: cargo xtask ci interop"]
fn interop_envoy_calls_our_proxies_over_mtls() {
    let world = pair(Security::Strict, Kind::Envoy, Kind::Ours);
    let seen = caller_seen(&world);
    assert!(seen.contains("URI=spiffe://cluster.local/ns/shop/sa/caller"), "{seen}");
    expect_plaintext_refused(&world);
}

#[test]
#[ignore = "needs built binaries and a real Envoy: cargo xtask ci interop"]
fn interop_our_proxy_calls_envoys_over_mtls() {
    let world = pair(Security::Strict, Kind::Ours, Kind::Envoy);
    let seen = caller_seen(&world);
    assert!(seen.contains("URI=spiffe://cluster.local/ns/shop/sa/caller"), "{seen}");
    expect_plaintext_refused(&world);
}

#[test]
#[ignore = "needs built binaries and a real Envoy: cargo xtask ci interop"]
fn interop_envoy_calls_envoys_over_mtls() {
    let world = pair(Security::Strict, Kind::Envoy, Kind::Envoy);
    assert!(caller_seen(&world).contains("sa/caller"));
    expect_plaintext_refused(&world);
}

#[test]
#[ignore = "needs built binaries and a real Envoy: cargo xtask ci interop"]
fn interop_both_ways_in_plaintext() {
    pair(Security::Plaintext, Kind::Envoy, Kind::Ours);
    pair(Security::Plaintext, Kind::Ours, Kind::Envoy);
}

#[test]
#[ignore = "needs built binaries and a real Envoy: cargo xtask ci interop"]
fn interop_envoy_routes_and_follows_edits() {
    let mut world = World::new(Security::Strict, Kind::Envoy);
    world.serve(CATALOGUE, "v1", Kind::Ours, &[]);
    world.serve(CATALOGUE, "v2", Kind::Ours, &[]);
    world.serve(TCP_ECHO, "v1", Kind::Ours, &[]);
    world.mesh.write("routes", ROUTES);
    world.wait_for_version("v2", &["-H", "end-user: jason"]);
    let report = world.load("/healthz", &["-n", "2000", "-c", "8"]);
    expect_fine(&report, 2000);
    share(report["by_group"]["v2"].as_u64().unwrap_or(0), 2000, 0.1);
    // An edit under load: no request fails, and the new shares hold.
    let edit = url(CATALOGUE.name, "/healthz", world.at(CATALOGUE));
    let load = client::Load::start(&["http", "--url", &edit, "-n", "0", "-c", "4", "--duration", "60s"]);
    world.mesh.write("routes", &ROUTES.replace("weight: 90", "weight: 0").replace("weight: 10", "weight: 100"));
    world.wait_for_version("v2", &[]);
    load.interrupt();
    let report = load.finish();
    assert_eq!(report["failed"], 0, "{report}");
    eventually("the echo answers", || crate::world::fine(&shop(&["tcp", "--addr", &world.at(TCP_ECHO).to_string()])));
    expect_nothing_rejected(&world.mesh, &world.caller);
}

#[test]
#[ignore = "needs built binaries and a real Envoy: cargo xtask ci interop"]
fn interop_envoy_is_a_gateway() {
    let mut world = World::new(Security::Strict, Kind::Ours);
    world.serve(CATALOGUE, "v1", Kind::Ours, &[]);
    world.serve(CATALOGUE, "v2", Kind::Envoy, &[]);
    let gateway = world.mesh.gateway("gateway");
    let _proxy = start(&world.mesh, &gateway, Kind::Envoy);
    world.mesh.write("routes", ROUTES);
    let front = gateway.at(8080);
    eventually("the gateway answers", || ok(client::request(front, "GET", HOST, "/healthz", &[])));
    let ask = || client::request(front, "GET", HOST, "/healthz", &[("end-user", "jason")]);
    eventually("the routes are followed", || {
        let versions: Vec<_> = (0..20).map(|_| ask().map_or_else(|error| error.to_string(), version)).collect();
        if versions.iter().all(|version| version == "v2") { Ok(()) } else { Err(format!("{versions:?}")) }
    });
    let url = url(HOST, "/healthz", front);
    let report = shop(&["http", "--url", &url, "-n", "1000", "-c", "8"]);
    expect_fine(&report, 1000);
    share(report["by_group"]["v2"].as_u64().unwrap_or(0), 1000, 0.1);
    expect_nothing_rejected(&world.mesh, &gateway);
}
