//! Links, addresses and routes of the sandbox, over rtnetlink. Each function works in the network namespace that the
//! calling thread is in when it is called.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

use futures::TryStreamExt;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::netns::protocol::Failure;

/// Name of the bridge in the sandbox's root network namespace.
const BRIDGE: &str = "mesh0";
/// Name of a workload's interface, as in a pod.
const INTERFACE: &str = "eth0";

/// Makes the bridge that joins the workloads; its address is their default gateway.
pub(super) fn make_bridge(gateway: Ipv4Addr, prefix: u8) -> Result<(), Failure> {
    run(async |net| {
        up(&net, "lo").await?;
        let bridge = net.link().add(LinkBridge::new(BRIDGE).up().build());
        step("make a network bridge", bridge.execute().await)?;
        add_address(&net, BRIDGE, gateway, prefix).await
    })
}

/// Makes a wire from the bridge to the network namespace `target`. `number` makes the names of its ends unique.
pub(super) fn make_wire(number: u32, target: &File) -> Result<(), Failure> {
    let (near, far) = (format!("veth{number}"), far_end(number));
    run(async |net| {
        let bridge = index(&net, BRIDGE).await?;
        let pair = net.link().add(LinkVeth::new(&near, &far).build());
        step("make a veth pair", pair.execute().await)?;
        let joined = LinkUnspec::new_with_name(&near).controller(bridge).up().build();
        step("join a veth pair to the bridge", net.link().set(joined).execute().await)?;
        let moved = LinkUnspec::new_with_name(&far).setns_by_fd(target.as_raw_fd()).build();
        step("move one end of a veth pair into a network namespace", net.link().set(moved).execute().await)
    })
}

/// Removes what [`make_wire`] made as far as it got.
pub(super) fn remove_wire(number: u32) -> Result<(), Failure> {
    run(async |net| {
        let link = index(&net, &format!("veth{number}")).await?;
        step("remove a veth pair", net.link().del(link).execute().await)
    })
}

/// Sets up a workload's network namespace, into which a wire has been moved.
pub(super) fn configure(number: u32, address: Ipv4Addr, prefix: u8, gateway: Ipv4Addr) -> Result<(), Failure> {
    run(async |net| {
        up(&net, "lo").await?;
        let link = index(&net, &far_end(number)).await?;
        let named = LinkUnspec::new_with_index(link).name(INTERFACE).build();
        step("name the workload's interface", net.link().set(named).execute().await)?;
        up(&net, INTERFACE).await?;
        add_address(&net, INTERFACE, address, prefix).await?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
        step("add a default route", net.route().add(route).execute().await)
    })
}

fn far_end(number: u32) -> String {
    format!("far{number}")
}

/// Opens a netlink connection in the present network namespace and runs `body` with it.
fn run<T>(body: impl AsyncFnOnce(Handle) -> Result<T, Failure>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.map_err(|error| Failure::new("start a runtime", &error))?;
    runtime.block_on(async {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|error| Failure::new("open a netlink connection", &error))?;
        let connection = tokio::spawn(connection);
        let result = body(handle).await;
        connection.abort();
        result
    })
}

async fn up(net: &Handle, link: &str) -> Result<(), Failure> {
    let message = LinkUnspec::new_with_name(link).up().build();
    step("set a network interface up", net.link().set(message).execute().await)
}

async fn add_address(net: &Handle, link: &str, address: Ipv4Addr, prefix: u8) -> Result<(), Failure> {
    let link = index(net, link).await?;
    let request = net.address().add(link, IpAddr::V4(address), prefix);
    step("give an interface its address", request.execute().await)
}

async fn index(net: &Handle, link: &str) -> Result<u32, Failure> {
    let found = net.link().get().match_name(link.to_owned()).execute().try_next().await;
    let found = step("find a network interface", found)?;
    let missing = || Failure::new(format!("find network interface {link}"), &io::ErrorKind::NotFound.into());
    found.map(|message| message.header.index).ok_or_else(missing)
}

fn step<T>(what: &str, result: Result<T, rtnetlink::Error>) -> Result<T, Failure> {
    result.map_err(|error| {
        let errno = match &error {
            rtnetlink::Error::NetlinkError(message) => message.code.map(|code| -code.get()),
            _ => None,
        };
        let message = errno.map_or_else(|| error.to_string(), |code| io::Error::from_raw_os_error(code).to_string());
        Failure { step: what.to_owned(), errno, message }
    })
}
