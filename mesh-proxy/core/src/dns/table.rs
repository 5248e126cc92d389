//! The names that the mesh answers for, and how they may be written (istio/istio: pkg/dns/client/dns.go).
//!
//! - A Kubernetes service of the proxy's own domain is also known by its name and namespace, with and without the first part
//!   of the domain (`web.shop`, `web.shop.svc`), and in its own namespace by its name alone.
//! - A name followed by the first search domain of `resolv.conf` stands for the name: resolvers ask for it first.
//! - A host that begins with `*.` answers for everything below it; the host with most labels wins.
//!
//! A known name without an address of the family that is asked for has an answer without records: an error would tell
//! resolvers that the name does not exist at all.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use mesh_api_xds::ir::names::{NameKind, NameTable};

use super::message::RecordType;

/// Where the proxy is, as far as names depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Namespace of the workload.
    pub namespace: String,
    /// Domain of services without the namespace, such as `svc.cluster.local`.
    pub domain: String,
    /// First search domain, if there is one.
    pub search: Option<String>,
}

impl Place {
    /// From a proxy's `--domain`, `<namespace>.svc.cluster.local`, and the search list of `resolv.conf`.
    #[must_use]
    pub fn new(namespace: &str, domain: &str, search: &[String]) -> Self {
        let domain = lower(domain);
        let own = domain.strip_prefix(namespace).and_then(|rest| rest.strip_prefix('.'));
        Self {
            namespace: namespace.to_owned(),
            domain: own.unwrap_or(&domain).to_owned(),
            search: search.first().map(|first| lower(first)).filter(|first| !first.is_empty()),
        }
    }
}

/// All names with their addresses.
#[derive(Debug, Default)]
pub struct Table {
    place: Place,
    names: HashMap<Box<str>, Addresses>,
    hosts: usize,
}

/// Addresses by family; shared by all forms of a name.
#[derive(Clone, Debug, Default)]
struct Addresses {
    v4: Arc<[IpAddr]>,
    v6: Arc<[IpAddr]>,
}

impl Addresses {
    fn of(&self, kind: RecordType) -> &[IpAddr] {
        if kind == RecordType::A { &self.v4 } else { &self.v6 }
    }
}

/// What is known of a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// The mesh does not know it, or not this type of record: name servers may.
    Elsewhere,
    /// The mesh answers for it.
    Known {
        /// The name that it stands for.
        alias: Option<String>,
        /// Its addresses of the family asked for; there may be none.
        addresses: &'a [IpAddr],
    },
}

impl Table {
    /// A table of these names for a proxy at `place`.
    #[must_use]
    pub fn new(names: &NameTable, place: Place) -> Self {
        let mut forms = HashMap::new();
        let mut hosts: HashMap<Box<str>, Addresses> = HashMap::new();
        for entry in names.entries.iter().filter(|entry| !entry.addresses.is_empty()) {
            let of = |v4: bool| entry.addresses.iter().copied().filter(|ip| ip.is_ipv4() == v4).collect();
            let addresses = Addresses { v4: of(true), v6: of(false) };
            let host = lower(&entry.host);
            if let NameKind::Kubernetes { short_name, namespace, aliases } = &entry.kind {
                for form in place.forms(&host, short_name, namespace, aliases.iter()) {
                    forms.insert(form.into(), addresses.clone());
                }
            }
            hosts.insert(host.into(), addresses);
        }
        let count = hosts.len();
        // The full name of one host may be a short form of another: whose it is has it.
        forms.extend(hosts);
        Self { place, names: forms, hosts: count }
    }

    /// Number of hosts.
    #[must_use]
    pub const fn hosts(&self) -> usize {
        self.hosts
    }

    /// What the mesh knows of `name`, which is in lower case without a final dot.
    #[must_use]
    pub fn find(&self, name: &str, kind: RecordType) -> Found<'_> {
        if !matches!(kind, RecordType::A | RecordType::AAAA) {
            return Found::Elsewhere;
        }
        if let Some(found) = self.names.get(name) {
            return Found::Known { alias: None, addresses: found.of(kind) };
        }
        if let Some(base) = self.without_search(name)
            && let Some(found) = self.names.get(base).or_else(|| self.wildcard(base))
        {
            let addresses = found.of(kind);
            // Without an address the alias would lead nowhere.
            let alias = (!addresses.is_empty()).then(|| base.to_owned());
            return Found::Known { alias, addresses };
        }
        match self.wildcard(name) {
            Some(found) => Found::Known { alias: None, addresses: found.of(kind) },
            None => Found::Elsewhere,
        }
    }

    /// The name without the search domain that a resolver put behind it.
    fn without_search<'a>(&self, name: &'a str) -> Option<&'a str> {
        let search = self.place.search.as_deref()?;
        let base = name.strip_suffix(search)?.strip_suffix('.')?;
        (!base.is_empty()).then_some(base)
    }

    /// The host `*.…` with most labels that `name` is below.
    fn wildcard(&self, name: &str) -> Option<&Addresses> {
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(found) = self.names.get(format!("*.{parent}").as_str()) {
                return Some(found);
            }
            rest = parent;
        }
        None
    }
}

impl Place {
    /// Other forms of a service's name. None for services of other domains: two clusters may have one name each.
    fn forms<'a>(
        &self,
        host: &str,
        short_name: &str,
        namespace: &str,
        aliases: impl IntoIterator<Item = &'a mesh_api::text::Str>,
    ) -> Vec<String> {
        if self.domain.is_empty() || short_name.is_empty() || !is_below(host, &self.domain) {
            return Vec::new();
        }
        let mut forms = vec![lower(&format!("{short_name}.{namespace}"))];
        if namespace == self.namespace {
            forms.push(lower(short_name));
        }
        if let Some(first) = self.domain.split('.').next() {
            forms.push(lower(&format!("{short_name}.{namespace}.{first}")));
        }
        forms.extend(aliases.into_iter().map(|alias| lower(alias)));
        forms
    }
}

fn is_below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

fn lower(text: &str) -> String {
    text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase()
}
