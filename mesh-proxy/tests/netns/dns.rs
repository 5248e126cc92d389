//! Look-ups of a workload on their whole way: captured, answered or passed on, answered as if by the server asked.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_api_xds::ir::names::{NameEntry, NameKind, NameTable};
use mesh_proxy::dns::Names;
use mesh_proxy::dns::resolv::ResolvConf;
use mesh_proxy::dns::server;
use mesh_proxy::dns::settings::DnsSettings;
use mesh_proxy::worker::DrainPhase;
use mesh_proxy_core::dns::table::Place;
use tokio::sync::watch;

use crate::capture;
use crate::world::{self, NEIGHBOUR, Neighbour};

/// A look-up of the IPv4 address of a name of one label.
fn query(name: &str) -> Vec<u8> {
    let mut bytes = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, u8::try_from(name.len()).unwrap()];
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

pub fn names_of_the_mesh_are_answered_and_others_passed_on() {
    let neighbour = Neighbour::beside_workload();
    let name_server: SocketAddr = format!("{NEIGHBOUR}:53").parse().unwrap();
    let upstream = neighbour.visit(|| world::udp(&name_server.to_string(), None));
    capture::init(&["--redirect-dns", "--capture-all-dns"]);
    let names = Arc::<Names>::default();
    names.enable(Place::new("shop", "shop.svc.cluster.local", &[]));
    let entry = NameEntry { host: "web".into(), addresses: [[10, 96, 0, 1].into()].into(), kind: NameKind::Other };
    names.replace(NameTable::new([entry].into()));
    let settings = DnsSettings {
        addresses: vec!["127.0.0.1:15053".parse().unwrap()],
        resolv: ResolvConf { servers: vec![name_server], search: Vec::new() },
        parallel: false,
        mark: Some(1337),
    };
    let held = server::Held::new(server::Sockets::open(&settings, server::Sockets::default()).unwrap());
    let phases = watch::Sender::new(DrainPhase::Running);
    server::start(settings, Arc::clone(&names), Arc::new(held), phases.subscribe()).unwrap();
    let workload = world::udp("0.0.0.0:0", None);
    let mut buffer = [0; 512];
    workload.send_to(&query("web"), name_server).unwrap();
    let (length, from) = workload.recv_from(&mut buffer).expect("an answer from the table");
    assert_eq!((from, &buffer[length - 4..length]), (name_server, &[10, 96, 0, 1][..]));
    // Not the mesh's: the name server is asked by the proxy, and the workload hears what it says.
    workload.send_to(&query("other"), name_server).unwrap();
    let (length, proxy) = upstream.recv_from(&mut buffer).expect("the name server is asked");
    assert_ne!(proxy.port(), workload.local_addr().unwrap().port());
    assert_eq!(buffer[..length], query("other"));
    let answer = [&[7, 7, 0x81, 0x83][..], &query("other")[4..]].concat();
    upstream.send_to(&answer, proxy).unwrap();
    let (length, from) = workload.recv_from(&mut buffer).expect("the name server's answer");
    assert_eq!((from, &buffer[..length]), (name_server, &answer[..]));
}
