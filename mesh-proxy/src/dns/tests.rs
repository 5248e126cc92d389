use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mesh_api_xds::ir::names::{NameEntry, NameKind, NameTable};
use mesh_proxy_core::dns::table::Place;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::Names;
use super::resolv::ResolvConf;
use super::server::{Server, Sockets, serve};
use super::settings::DnsSettings;
use super::upstream::{read_message, write_message};

/// A server with one name of the mesh, `web.shop`, in front of name servers.
struct Bed {
    udp: SocketAddr,
    tcp: SocketAddr,
    names: Arc<Names>,
}

impl Bed {
    async fn start(servers: Vec<SocketAddr>, parallel: bool) -> Self {
        let names = Arc::<Names>::default();
        names.enable(Place::new("shop", "shop.svc.cluster.local", &[]));
        let addresses = vec!["127.0.0.1:0".parse().unwrap()];
        let resolv = ResolvConf { servers, search: Vec::new() };
        let settings = DnsSettings { addresses, resolv, parallel, mark: None };
        let sockets = Sockets::open(&settings, Sockets::default()).unwrap();
        let (udp, tcp) = sockets.address();
        tokio::spawn(serve(sockets, Server::new(settings, Arc::clone(&names))));
        Self { udp, tcp, names }
    }

    fn learn(&self) {
        let entry = NameEntry {
            host: "web.shop.svc.cluster.local".into(),
            addresses: (1..=60_u8).map(|n| IpAddr::from([10, 96, 0, n])).collect(),
            kind: NameKind::Kubernetes { short_name: "web".into(), namespace: "shop".into(), aliases: [].into() },
        };
        self.names.replace(NameTable::new([entry].into()));
    }

    async fn over_udp(&self, query: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(query, self.udp).await.unwrap();
        let mut buffer = vec![0; 65_535];
        let received = tokio::time::timeout(Duration::from_secs(20), socket.recv(&mut buffer)).await;
        buffer.truncate(received.expect("an answer").unwrap());
        buffer
    }

    async fn over_tcp(&self, stream: &mut TcpStream, query: &[u8]) -> Vec<u8> {
        write_message(stream, query).await.unwrap();
        read_message(stream).await.unwrap().expect("an answer")
    }
}

/// A look-up of the IPv4 addresses of a name.
fn query(name: &str) -> Vec<u8> {
    let mut bytes = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

const fn rcode(answer: &[u8]) -> u8 {
    answer[3] & 15
}

/// A name server that says that it has nothing, with its number as the last byte.
async fn name_server(number: u8) -> SocketAddr {
    // Of the ports that are free for datagrams, one that no other test has for connections.
    let (udp, tcp, address) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = udp.local_addr().unwrap();
        if let Ok(tcp) = TcpListener::bind(address).await {
            break (udp, tcp, address);
        }
    };
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        loop {
            let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
            // An answer to another query comes first, and is not taken.
            let mut answer = buffer[..length].to_vec();
            answer[2] |= 0x80;
            answer[0] ^= 1;
            udp.send_to(&answer, client).await.unwrap();
            answer[0] ^= 1;
            answer.push(number);
            udp.send_to(&answer, client).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let mut answer = read_message(&mut stream).await.unwrap().unwrap();
            answer[2] |= 0x80;
            // More than a client over UDP would take.
            answer.resize(2000, number);
            write_message(&mut stream, &answer).await.unwrap();
        }
    });
    address
}

/// A port where nobody answers.
async fn silent() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn names_of_the_mesh_are_answered_once_they_are_known() {
    let bed = Bed::start(vec![name_server(1).await], false).await;
    let names = &bed.names;
    assert!(names.are_missing());
    assert_eq!(rcode(&bed.over_udp(&query("web.shop")).await), 2);
    assert_eq!(rcode(&bed.over_udp(&query("example.com")).await), 2);
    assert_eq!(names.metrics.upstream.get(), 0);
    bed.learn();
    assert!(!names.are_missing());
    let answer = bed.over_udp(&query("web")).await;
    // Cut: 60 addresses of 16 bytes do not fit into 512.
    assert_eq!((rcode(&answer), answer[2] & 0x06), (0, 0x06));
    let mut stream = TcpStream::connect(bed.tcp).await.unwrap();
    let whole = bed.over_tcp(&mut stream, &query("web.shop.svc")).await;
    assert_eq!((whole[7], whole[2] & 2), (60, 0));
    // In another order each time; that two of 60! are equal is not to be expected.
    let again = bed.over_tcp(&mut stream, &query("web.shop.svc")).await;
    assert_ne!(whole, again);
    assert_eq!((names.metrics.requests.get(), names.metrics.upstream.get()), (5, 0));
    assert_eq!(names.dump()["table"]["web.shop.svc.cluster.local"]["registry"], "Kubernetes");
}

#[tokio::test]
async fn other_names_are_asked_elsewhere_as_they_came() {
    let bed = Bed::start(vec![name_server(9).await], false).await;
    bed.learn();
    let answer = bed.over_udp(&query("Example.com")).await;
    assert_eq!(answer.last(), Some(&9));
    assert_eq!(&answer[12..25], &query("Example.com")[12..25]);
    let mut stream = TcpStream::connect(bed.tcp).await.unwrap();
    assert_eq!(bed.over_tcp(&mut stream, &query("example.com")).await.len(), 2000);
    // Another type of a name of the mesh.
    let mut text = query("web.shop");
    let at = text.len() - 3;
    text[at] = 16;
    assert_eq!(bed.over_udp(&text).await.last(), Some(&9));
    assert_eq!(bed.names.metrics.upstream.get(), 3);
    assert_eq!(bed.names.metrics.failures.get(), 0);
}

#[tokio::test]
async fn a_server_that_is_slow_or_gone_is_not_waited_for_alone() {
    let (gone, gone_address) = silent().await;
    drop(gone);
    let (_silent, silent_address) = silent().await;
    let bed = Bed::start(vec![gone_address, silent_address, name_server(3).await], true).await;
    bed.learn();
    for _ in 0..8 {
        assert_eq!(bed.over_udp(&query("example.com")).await.last(), Some(&3));
    }
}

#[tokio::test]
async fn without_an_answer_the_client_is_told() {
    let (gone, address) = silent().await;
    drop(gone);
    let bed = Bed::start(vec![address], false).await;
    bed.learn();
    assert_eq!(rcode(&bed.over_udp(&query("example.com")).await), 2);
    assert_eq!(bed.names.metrics.failures.get(), 1);
    let none = Bed::start(Vec::new(), false).await;
    none.learn();
    assert_eq!(rcode(&none.over_udp(&query("example.com")).await), 2);
    // What is no query at all gets no answer, what cannot be read a refusal.
    let mut two = query("example.com");
    two[5] = 2;
    assert_eq!(rcode(&none.over_udp(&two).await), 1);
}
