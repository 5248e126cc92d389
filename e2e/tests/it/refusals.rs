//! `loop_*`, `interop_*`: applications that end while clients and the control plane still know them. Nobody withdraws their
//! endpoints here, so that each request to them has to find its way by itself.

use e2e::client::{Load, url};
use e2e::mesh::{CATALOGUE, ORDERS, Security};

use crate::world::{Backend, Kind, World};

/// Two replicas of two services, all of them with proxies of ours, and a caller.
fn shop(security: Security, caller: Kind) -> World {
    let mut world = World::new(security, caller);
    for service in [CATALOGUE, ORDERS] {
        for version in ["v1", "v2"] {
            world.serve(service, version, Kind::Ours, &[]);
        }
    }
    for version in ["v1", "v2"] {
        world.wait_for("/healthz", &[], |answer| answer.header("x-version") == version);
    }
    world
}

/// Requests of every sort that may not be sent twice, and some that may.
fn steady(world: &World) -> Vec<(&'static str, Load)> {
    let (http, grpc) = (url("catalogue", "/echo", world.at(CATALOGUE)), url("orders", "", world.at(ORDERS)));
    let all: [(&str, &[&str]); 3] = [
        ("GET", &["http", "--url", &http]),
        ("POST", &["http", "--url", &http, "-X", "POST", "--body-bytes", "2000"]),
        ("gRPC", &["grpc", "--url", &grpc]),
    ];
    let pace = ["-n", "0", "--rate", "100", "-c", "4", "--duration", "60s"];
    all.into_iter().map(|(name, args)| (name, Load::start(&[args, &pace[..]].concat()))).collect()
}

#[track_caller]
fn lost_nothing(loads: Vec<(&'static str, Load)>) {
    for (name, load) in loads {
        load.interrupt();
        let report = load.finish();
        assert!(report["requests"].as_u64() > Some(20), "{name}: {report}");
        assert_eq!(report["failed"], 0, "{name}: {report}");
    }
}

/// Ends the applications of v1, which neither wait nor tell anybody.
fn end_applications(world: &mut World, version: &str) {
    for backend in &mut world.backends {
        if backend.workload.labels["version"] == version {
            backend.app.stop();
        }
    }
}

#[test]
#[ignore = "needs built binaries: cargo xtask ci interop"]
fn loop_applications_that_end_lose_no_request() {
    let mut world = shop(Security::Strict, Kind::Ours);
    let loads = steady(&world);
    world.wait_for_flow();
    end_applications(&mut world, "v1");
    world.wait_for_flow();
    world.wait_for_flow();
    lost_nothing(loads);

    // Who is left without any is told why, and not how proxies speak among themselves.
    end_applications(&mut world, "v2");
    let answer = world.get("/echo", &[]).unwrap();
    assert_eq!((answer.status, answer.header("x-mesh-code")), (503, "LTN-3002"), "{answer:?}");
    assert_eq!(answer.header("x-mesh-resend"), "", "{answer:?}");
}

#[test]
#[ignore = "needs built binaries: cargo xtask ci interop"]
fn interop_envoy_sends_refused_streams_elsewhere() {
    let mut world = shop(Security::Strict, Kind::Envoy);
    end_applications(&mut world, "v1");
    let grpc = url("orders", "", world.at(ORDERS));
    let report = e2e::client::shop(&["grpc", "--url", &grpc, "-n", "200"]);
    // For a retry Envoy draws a host up to five times, and may draw the one that refused each time, twice.
    assert!(report["failed"].as_u64() <= Some(4), "{report}");
    let is_gone =
        |backend: &&Backend| backend.workload.account == ORDERS.name && backend.workload.labels["version"] == "v1";
    let gone = world.backends.iter().find(is_gone).unwrap();
    let refused = World::counted(&gone.workload);
    assert!(refused > 20.0, "{refused} of 200 came to the application that is gone");
}
