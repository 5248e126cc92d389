//! What capture settings leave to the machine: its addresses, name servers and groups.

use std::net::{IpAddr, Ipv6Addr};

use super::rules;

/// The machine, as far as settings depend on it.
pub trait Host {
    /// Whether this network namespace has an IPv6 address that traffic from elsewhere can use.
    fn has_ipv6(&self) -> bool;
    /// The servers that look-ups go to.
    fn name_servers(&self) -> Vec<IpAddr>;
    /// The number of a group.
    fn group(&self, name: &str) -> Option<u32>;
}

/// The machine this process runs on.
#[derive(Clone, Copy, Debug)]
pub struct ThisHost;

impl Host for ThisHost {
    fn has_ipv6(&self) -> bool {
        // A kernel without IPv6 has no such file.
        std::fs::read_to_string("/proc/self/net/if_inet6").is_ok_and(|table| lists_routable(&table))
    }

    fn name_servers(&self) -> Vec<IpAddr> {
        std::fs::read_to_string("/etc/resolv.conf").map(|text| name_servers(&text)).unwrap_or_default()
    }

    fn group(&self, name: &str) -> Option<u32> {
        group(&std::fs::read_to_string("/etc/group").ok()?, name)
    }
}

/// Reads the kernel's table of IPv6 addresses: one per line, the address as 32 hexadecimal digits first.
fn lists_routable(table: &str) -> bool {
    table.lines().filter_map(|line| line.split_ascii_whitespace().next()).any(|digits| {
        u128::from_str_radix(digits, 16).map(Ipv6Addr::from_bits).is_ok_and(|address| {
            !address.is_loopback() && !address.is_unicast_link_local() && address != rules::PASSTHROUGH_V6
        })
    })
}

/// The `nameserver` lines of a `resolv.conf` (resolv.conf(5)); a scope (`%eth0`) is left out.
fn name_servers(text: &str) -> Vec<IpAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let value = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        value.split('%').next()?.parse().ok()
    });
    servers.take(MAX_SERVERS).collect()
}

/// Name servers read, at most. The C library takes 3.
const MAX_SERVERS: usize = 16;

/// Reads the number of a group in the syntax of group(5).
fn group(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_routable_addresses_count_as_ipv6() {
        let loopback = "00000000000000000000000000000001 01 80 10 80       lo\n";
        let link_local = "fe800000000000000000000000000002 02 40 20 80     eth0\n";
        let routable = "fd000000000000000000000000000002 02 40 00 80     eth0\n";
        assert!(!lists_routable(""));
        assert!(!lists_routable(&format!("{loopback}{link_local}")));
        assert!(lists_routable(&format!("{loopback}{link_local}{routable}")));
        assert!(!lists_routable("rubbish\n\n"));
    }

    #[test]
    fn files_of_the_machine_are_read() {
        let text =
            "# comment\nsearch a b\nnameserver 10.96.0.10\n nameserver\tfe80::1%eth0 \nnameserver x\nnameserver\n";
        let expect: [IpAddr; 2] = ["10.96.0.10".parse().unwrap(), "fe80::1".parse().unwrap()];
        assert_eq!(name_servers(text), expect);
        let groups = "root:x:0:\nstaff:x:50:a,b\nodd\n";
        assert_eq!((group(groups, "staff"), group(groups, "odd"), group(groups, "none")), (Some(50), None, None));
    }
}
