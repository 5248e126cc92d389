//! Namespaces, links and addresses for a case.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};
use socket2::{Domain, SockRef, Socket, Type};

/// Addresses of the workload under test.
pub const OWN: &str = "10.77.0.2";
pub const OWN_V6: &str = "fd77::2";
/// Somewhere else; there is a route and nobody there.
pub const ELSEWHERE: &str = "10.96.0.1";
pub const ELSEWHERE_V6: &str = "fd96::1";
/// The address of the neighbour that [`World::neighbour`] makes.
pub const NEIGHBOUR: &str = "10.77.0.3";

/// How long anything that must happen may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Enters a new user namespace, as its root, and a new network namespace in it.
pub fn enter() {
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    if unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).is_ok() {
        fs::write("/proc/self/setgroups", "deny").expect("deny setgroups");
        fs::write("/proc/self/uid_map", format!("0 {uid} 1")).expect("map the user");
        fs::write("/proc/self/gid_map", format!("0 {gid} 1")).expect("map the group");
        return;
    }
    // Where user namespaces are forbidden, real root can still have a network namespace.
    unshare(CloneFlags::CLONE_NEWNET).expect(
        "these tests need a network namespace: allow user namespaces (sysctl user.max_user_namespaces, \
         kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns) or run as root",
    );
}

/// The network of the workload under test: loopback, an interface with both its addresses, default routes.
pub fn workload() {
    netlink(async |net| {
        link_up(&net, "lo").await;
        // A wire whose other end no one reads.
        net.link().add(LinkVeth::new("eth0", "nobody").up().build()).execute().await.expect("add a veth pair");
        link_up(&net, "nobody").await;
        configure(&net, "eth0", &[(OWN, 16), (OWN_V6, 64)], &["10.77.0.1", "fd77::1"]).await;
    });
}

/// A neighbour of the workload under test, on the same wire.
pub struct Neighbour {
    here: File,
    there: File,
}

impl Neighbour {
    /// Makes the workload's network and a neighbour on the other end of a veth pair.
    pub fn beside_workload() -> Self {
        let here = current_netns();
        unshare(CloneFlags::CLONE_NEWNET).expect("make a second network namespace");
        let there = current_netns();
        setns(&here, CloneFlags::CLONE_NEWNET).expect("go back");
        let fd = there.as_raw_fd();
        netlink(async |net| {
            link_up(&net, "lo").await;
            net.link().add(LinkVeth::new("eth0", "peer").up().build()).execute().await.expect("add a veth pair");
            let away = LinkUnspec::new_with_name("peer").setns_by_fd(fd).build();
            net.link().set(away).execute().await.expect("move one end");
            configure(&net, "eth0", &[(OWN, 16)], &[]).await;
        });
        let neighbour = Self { here, there };
        neighbour.visit(|| {
            netlink(async |net| {
                link_up(&net, "peer").await;
                configure(&net, "peer", &[(NEIGHBOUR, 16)], &[]).await;
            });
        });
        neighbour
    }

    /// Runs `body` in the neighbour's network namespace; sockets it opens stay there.
    pub fn visit<R>(&self, body: impl FnOnce() -> R) -> R {
        setns(&self.there, CloneFlags::CLONE_NEWNET).expect("visit the neighbour");
        let result = body();
        setns(&self.here, CloneFlags::CLONE_NEWNET).expect("come back");
        result
    }
}

/// The network namespace of this thread.
pub fn current_netns() -> File {
    File::open("/proc/self/ns/net").expect("open the network namespace")
}

fn netlink(body: impl AsyncFnOnce(Handle)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().expect("a netlink connection");
        tokio::spawn(connection);
        body(handle).await;
    });
}

async fn index(net: &Handle, name: &str) -> u32 {
    use futures::TryStreamExt;

    let mut found = net.link().get().match_name(name.to_owned()).execute();
    found.try_next().await.expect("ask for a link").expect("the link is there").header.index
}

async fn link_up(net: &Handle, name: &str) {
    let up = LinkUnspec::new_with_name(name).up().build();
    net.link().set(up).execute().await.expect("set a link up");
}

async fn configure(net: &Handle, link: &str, addresses: &[(&str, u8)], gateways: &[&str]) {
    let index = index(net, link).await;
    for (address, prefix) in addresses {
        let mut request = net.address().add(index, address.parse().unwrap(), *prefix);
        // Duplicate address detection would keep an IPv6 address unusable for a second (IFA_F_NODAD).
        request.message_mut().header.flags = rtnetlink::packet_route::address::AddressHeaderFlags::Nodad;
        request.execute().await.expect("add an address");
    }
    for gateway in gateways {
        let route = match gateway.parse().unwrap() {
            IpAddr::V4(via) => RouteMessageBuilder::<std::net::Ipv4Addr>::new().gateway(via).build(),
            IpAddr::V6(via) => RouteMessageBuilder::<std::net::Ipv6Addr>::new().gateway(via).build(),
        };
        net.route().add(route).execute().await.expect("add a default route");
    }
}

/// Listens on `address`; accepting gives up when nothing comes.
pub fn listen(address: &str) -> TcpListener {
    let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("listen on {address}: {error}"));
    SockRef::from(&listener).set_read_timeout(Some(PATIENCE)).unwrap();
    listener
}

/// Connects, and gives up when no one answers.
pub fn connect(address: &str) -> TcpStream {
    TcpStream::connect_timeout(&address.parse().unwrap(), PATIENCE)
        .unwrap_or_else(|error| panic!("connect to {address}: {error}"))
}

/// A UDP socket on `address`, marked if wanted; receiving gives up when nothing comes.
pub fn udp(address: &str, mark: Option<u32>) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap_or_else(|error| panic!("bind {address}: {error}"));
    if let Some(mark) = mark {
        mesh_proxy::net::sockopt::set_mark(&socket, mark).unwrap();
    }
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Begins to connect and does not wait.
pub fn begin_connect(address: &str, mark: Option<u32>) -> Socket {
    let address: SocketAddr = address.parse().unwrap();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None).unwrap();
    if let Some(mark) = mark {
        mesh_proxy::net::sockopt::set_mark(&socket, mark).unwrap();
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => panic!("connect to {address}: {error}"),
        _ => socket,
    }
}

/// Whether nothing waits to be accepted.
pub fn is_idle(listener: &TcpListener) -> bool {
    listener.set_nonblocking(true).unwrap();
    let idle = matches!(listener.accept(), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
    listener.set_nonblocking(false).unwrap();
    idle
}
