//! `loop_*`: the control plane under load: edits, restarts, certificates, broken files.

use std::io::{Read, Write};
use std::net::TcpStream;

use e2e::assert::{PATIENCE, eventually, within};
use e2e::client::{self, Load, url};
use e2e::mesh::{CATALOGUE, Security, ok};
use serde_json::Value;

use crate::world::{Kind, World, expect_fine};

/// The catalogue's routes with a share for the second version.
fn weights(second: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: catalogue, namespace: shop}}\n\
         spec:\n  host: catalogue\n  \
         subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]\n---\n\
         apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: catalogue, namespace: shop}}\n\
         spec:\n  hosts: [catalogue]\n  http:\n  - route:\n    \
         - {{destination: {{host: catalogue, subset: v1}}, weight: {}}}\n    \
         - {{destination: {{host: catalogue, subset: v2}}, weight: {second}}}\n",
        100 - second
    )
}

fn two_versions() -> World {
    let mut world = World::new(Security::Strict, Kind::Ours);
    world.serve(CATALOGUE, "v1", Kind::Ours, &[]);
    world.serve(CATALOGUE, "v2", Kind::Ours, &[]);
    world.wait_for_catalogue();
    world
}

/// Requests until told to end.
fn steady(world: &World) -> Load {
    let url = url(CATALOGUE.name, "/bytes/200", world.at(CATALOGUE));
    let load = Load::start(&["http", "--url", &url, "-n", "0", "-c", "4", "--duration", "120s"]);
    world.wait_for_flow();
    load
}

#[track_caller]
fn end(load: Load) -> Value {
    load.interrupt();
    let report = load.finish();
    assert_eq!(report["failed"], 0, "{report}");
    assert_ne!(report["requests"], 0);
    report
}

/// Serial numbers of the certificates that the caller's proxy uses, roots included.
fn serials(world: &World) -> Vec<String> {
    let page = client::get(world.caller.admin(), "/certs").unwrap().json();
    let mut found = Vec::new();
    collect(&page, "serial_number", &mut found);
    found
}

fn collect(value: &Value, name: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                match field {
                    Value::String(text) if key == name => found.push(text.clone()),
                    other => collect(other, name, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, name, found)),
        _ => {}
    }
}

#[test]
#[ignore = "needs built binaries: cargo xtask ci interop"]
fn loop_edits_under_load_fail_no_request() {
    let world = two_versions();
    let load = steady(&world);
    for round in 0..6 {
        let second = if round % 2 == 0 { 100 } else { 0 };
        world.mesh.write("routes", &weights(second));
        world.wait_for_version(if second == 100 { "v2" } else { "v1" }, &[]);
    }
    world.mesh.remove("routes");
    eventually("both versions answer", || {
        let groups = world.load("/healthz", &["-n", "50"])["by_group"].clone();
        if groups["v1"].is_u64() && groups["v2"].is_u64() { Ok(()) } else { Err(groups.to_string()) }
    });
    end(load);
}

#[test]
#[ignore = "needs built binaries: cargo xtask ci interop"]
fn loop_objects_in_any_order_fail_no_request() {
    let world = two_versions();
    let load = steady(&world);
    let both = weights(100);
    let (subsets, routes) = both.split_once("---\n").unwrap();
    let both_versions = || {
        eventually("both versions answer", || {
            let groups = world.load("/healthz", &["-n", "50"])["by_group"].clone();
            if groups["v1"].is_u64() && groups["v2"].is_u64() { Ok(()) } else { Err(groups.to_string()) }
        });
    };
    // A change is taken when the control plane has heard of it from all proxies.
    let settled = || {
        eventually("all proxies have the change", || {
            let page = world.mesh.syncz();
            let changes = page["changes"].as_array().cloned().unwrap_or_default();
            if changes.iter().all(|change| change["done"] == true) { Ok(()) } else { Err(page["changes"].to_string()) }
        });
    };
    for first_is_routes in [true, false] {
        let files = [("a-routes", routes), ("b-subsets", subsets)];
        let order = if first_is_routes { [0, 1] } else { [1, 0] };
        for file in order {
            let (name, text) = files[file];
            world.mesh.write(name, text);
            settled();
        }
        world.wait_for_version("v2", &[]);
        for file in order {
            world.mesh.remove(files[file].0);
            settled();
        }
        both_versions();
    }
    end(load);
}

#[test]
#[ignore = "needs built binaries: cargo xtask ci interop"]
fn loop_a_restarted_control_plane_sends_nothing_again() {
    let mut world = two_versions();
    world.mesh.write("routes", &weights(100));
    world.wait_for_version("v2", &[]);
    let load = steady(&world);
    world.mesh.meshd.kill();
    // Proxies go on with what they have.
    expect_fine(&world.load("/healthz", &["-n", "200"]), 200);
    world.mesh.restart_meshd();
    let page = eventually("all proxies are back", || {
        let page = world.mesh.syncz();
        let proxies = page["proxies"].as_array().map_or(0, Vec::len);
        if proxies == 3 { Ok(page) } else { Err(page.to_string()) }
    });
    end(load);
    // Versions are hashes of content, so that the new process knows what the proxies hold.
    for proxy in page["proxies"].as_array().unwrap() {
        let states = proxy["types"].as_object().unwrap();
        assert!(states.values().all(|state| state["status"] != "ERROR"), "{proxy}");
    }
    let metrics = client::get(world.mesh.monitoring(), "/metrics").unwrap().body;
    assert!(metrics.contains("# TYPE meshd_xds_resources_sent_total "), "{metrics}");
    let sent = metrics.lines().filter(|line| line.starts_with("meshd_xds_resources_sent_total{"));
    let sent: Vec<_> = sent.filter(|line| !line.contains("\"mark\"") && !line.ends_with(" 0")).collect();
    assert!(sent.is_empty(), "{sent:?}");
    // And edits reach them again.
    world.mesh.write("routes", &weights(0));
    world.wait_for_version("v1", &[]);
}

#[test]
#[ignore = "needs built binaries: cargo xtask ci interop"]
fn loop_certificates_rotate_under_load() {
    // The shortest lifetime there is: proxies renew at half of it.
    let mut world = World::with(Security::Strict, &[("SECRET_TTL", "60s")]);
    world.serve(CATALOGUE, "v1", Kind::Ours, &[]);
    world.wait_for_catalogue();
    let load = steady(&world);
    let first = serials(&world);
    assert!(!first.is_empty());
    within(2 * PATIENCE, "the caller has another certificate", || {
        let now = serials(&world);
        if now == first { Err(format!("{now:?}")) } else { Ok(()) }
    });
    // New connections shake hands with the new ones.
    expect_fine(&world.load("/healthz", &["-n", "50", "--no-keepalive"]), 50);
    end(load);
}

#[test]
#[ignore = "needs built binaries: cargo xtask ci interop"]
fn loop_a_broken_file_is_reported_and_nothing_else_stops() {
    let world = two_versions();
    world.mesh.write("routes", &weights(100));
    world.wait_for_version("v2", &[]);
    let load = steady(&world);
    world.mesh.write("routes", "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: [broken\n");
    let findings = || ok(client::get(world.mesh.monitoring(), "/debug/findings"));
    eventually("the file is reported", || {
        findings().and_then(|page| if page.body.contains("routes.yaml") { Ok(()) } else { Err(page.body) })
    });
    // The last good version stays.
    let report = world.load("/healthz", &["-n", "50"]);
    assert_eq!(report["by_group"]["v2"], 50, "{report}");
    // Other files are still followed, and the file itself once it is whole.
    world.mesh.write("routes", &weights(0));
    world.wait_for_version("v1", &[]);
    eventually("the report is gone", || {
        findings().and_then(|page| if page.body.contains("routes.yaml") { Err(page.body) } else { Ok(()) })
    });
    end(load);
}

#[test]
#[ignore = "needs built binaries: cargo xtask ci interop"]
fn loop_a_broken_connection_ends_alone() {
    let mut world = two_versions();
    let load = steady(&world);
    let huge = format!("GET / HTTP/1.1\r\nhost: catalogue\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    let broken: [&[u8]; 6] = [
        b"\x16\x03\x01\xff\xff\x01garbage that claims to be a handshake",
        b"GET / HTTP/1.1\r\nhost: catalogue\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"GET / HTTP/1.1\r\nhost: catalogue\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\xff\xff\xff\xff\xff\xff",
        b"\0\0\0\0\0\0\0\0",
        huge.as_bytes(),
    ];
    let server = world.backends[0].workload.at(CATALOGUE.target());
    for at in [world.at(CATALOGUE), server] {
        for bytes in broken {
            let mut stream = TcpStream::connect(at).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            // It may be closed before all is written, and with bytes unread; both are an end.
            _ = stream.write_all(bytes);
            _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            _ = stream.read_to_end(&mut answer);
            assert!(!answer.starts_with(b"HTTP/1.1 200"), "{at}: {:?}", String::from_utf8_lossy(bytes));
        }
    }
    end(load);
    world.proxy.expect_alive();
    world.backends[0].proxy.expect_alive();
}

/// Resident memory of a process, in KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

/// Edits the routes and waits until the caller's proxy has acknowledged.
fn edit(world: &World, second: u32) {
    let count = |page: &Value| {
        let changes = page["changes"].as_array().unwrap();
        let of_route = |change: &&Value| change["objects"].to_string().contains("VirtualService/shop/catalogue");
        let last = changes.iter().rfind(of_route).filter(|change| change["done"] == true);
        last.and_then(|change| change["id"].as_str()?.parse::<u64>().ok()).unwrap_or(0)
    };
    let before = count(&world.mesh.syncz());
    world.mesh.write("routes", &weights(second));
    eventually("the edit is in force", || {
        let page = world.mesh.syncz();
        if count(&page) > before { Ok(()) } else { Err(page["changes"].to_string()) }
    });
}

#[test]
#[ignore = "needs built binaries: cargo xtask ci interop"]
fn loop_idle_connections_keep_no_old_configuration() {
    const CONNECTIONS: usize = 1_000;
    /// What an allocator may keep for itself: far less than one configuration a swap, or one a connection.
    const GROWTH_KIB: u64 = 1_024;
    // A little more than what standard streams, logs and polling take.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let wanted =
        rustix::process::Rlimit { current: limit.maximum.map_or(Some(8_192), |most| Some(most.min(8_192))), ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, wanted).unwrap();
    let world = two_versions();
    edit(&world, 50);
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(world.at(CATALOGUE)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: catalogue\r\n\r\n").unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
        idle.push(stream);
    }
    // Buffers reach their size in the first rounds.
    (0..20).for_each(|round| edit(&world, 10 + round));
    let before = resident_kib(world.proxy.pid());
    (0..100).for_each(|round| edit(&world, 40 + round % 40));
    let after = resident_kib(world.proxy.pid());
    assert!(after <= before + GROWTH_KIB, "{before} KiB before 100 edits, {after} KiB after");
    // They were alive all the time.
    for stream in &mut idle {
        stream.set_nonblocking(true).unwrap();
        let mut rest = [0; 4_096];
        let mut ended = false;
        while let Ok(read) = stream.read(&mut rest) {
            ended = read == 0;
            if ended {
                break;
            }
        }
        assert!(!ended, "the proxy closed an idle connection");
    }
}
