//! Encoded resources and the sets that are served: shared by all proxies that receive them.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use mesh_api::text::Str;
use xxhash_rust::xxh3::Xxh3Default;

use crate::type_url::{PerType, TypeUrl};

/// Version of a resource: a stable hash of its internal representation.
///
/// Never of its bytes, because the generated Envoy messages hold hash maps, whose order differs from process to process.
/// Written as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    /// The version of a value. Equal values give equal versions on every machine that runs the same build.
    pub fn of(value: &(impl Hash + ?Sized)) -> Self {
        let mut hasher = StableHasher(Xxh3Default::new());
        value.hash(&mut hasher);
        Self(hasher.finish())
    }

    /// Parses what [`fmt::Display`] writes; `None` for versions that are not ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if plain { u64::from_str_radix(text, 16).ok().map(Self) } else { None }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// XXH3 behind `Hasher`, independent of the machine's word size and byte order.
struct StableHasher(Xxh3Default);

impl Hasher for StableHasher {
    fn finish(&self) -> u64 {
        self.0.digest()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn write_u16(&mut self, i: u16) {
        self.write(&i.to_le_bytes());
    }

    fn write_u32(&mut self, i: u32) {
        self.write(&i.to_le_bytes());
    }

    fn write_u64(&mut self, i: u64) {
        self.write(&i.to_le_bytes());
    }

    fn write_u128(&mut self, i: u128) {
        self.write(&i.to_le_bytes());
    }

    fn write_usize(&mut self, i: usize) {
        self.write(&(i as u64).to_le_bytes());
    }

    fn write_isize(&mut self, i: isize) {
        self.write(&(i as i64).to_le_bytes());
    }
}

/// One resource, ready to be sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Resource name.
    pub name: Str,
    /// Other names under which it can be asked for. Of a virtual host: `<route configuration>/<domain>` for each domain,
    /// wildcards included.
    pub aliases: Arc<[Str]>,
    /// Stable hash of the internal representation.
    pub version: Version,
    /// The message, without an `Any` around it.
    pub bytes: Bytes,
}

impl fmt::Debug for Encoded {
    /// Without the content, which may hold a private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoded({} @{}, {} bytes)", self.name, self.version, self.bytes.len())
    }
}

/// All resources of one type, ordered by name. Immutable; successive sets share what did not change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeSet {
    items: Vec<Arc<Encoded>>,
    /// Alias to position, ordered; the first resource in name order wins an alias.
    aliases: Vec<(Str, usize)>,
}

impl TypeSet {
    /// A set of these resources; the last of a name wins.
    #[must_use]
    pub fn new(items: impl IntoIterator<Item = Arc<Encoded>>) -> Self {
        let mut items: Vec<_> = items.into_iter().collect();
        // Reversed first, so that the stable sort leaves the last of each name in front, which `dedup` keeps.
        items.reverse();
        items.sort_by(|a, b| a.name.cmp(&b.name));
        items.dedup_by(|later, first| later.name == first.name);
        let mut aliases: Vec<_> = items
            .iter()
            .enumerate()
            .flat_map(|(position, item)| item.aliases.iter().map(move |alias| (alias.clone(), position)))
            .collect();
        aliases.sort();
        aliases.dedup_by(|later, first| later.0 == first.0);
        Self { items, aliases }
    }

    /// This set with some resources added or replaced and some removed.
    #[must_use]
    pub fn edited(&self, upserts: impl IntoIterator<Item = Arc<Encoded>>, removals: &[Str]) -> Self {
        let kept = self.items.iter().filter(|item| !removals.contains(&item.name)).cloned();
        Self::new(kept.chain(upserts))
    }

    /// The resource of exactly this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Encoded>> {
        let position = self.items.binary_search_by(|item| item.name.as_str().cmp(name)).ok()?;
        self.items.get(position)
    }

    /// The resource that answers a request for `name`: of that name, else of that alias, else, for `<scope>/<host>`, the one
    /// whose wildcard domain fits best (longest suffix `*…`, then longest prefix `…*`, then `*`), as Envoy's route
    /// configurations choose virtual hosts.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Arc<Encoded>> {
        if let Some(found) = self.get(name).or_else(|| self.by_alias(name)) {
            return Some(found);
        }
        if self.aliases.is_empty() || name.len() > MAX_HOST_NAME_BYTES {
            return None;
        }
        let (scope, authority) = name.rsplit_once('/')?;
        let host = without_port(authority);
        let exact = if host == authority { None } else { self.by_alias(&format!("{scope}/{host}")) };
        exact
            .or_else(|| (1..host.len()).find_map(|start| self.by_alias(&format!("{scope}/*{}", host.get(start..)?))))
            .or_else(|| (1..host.len()).rev().find_map(|end| self.by_alias(&format!("{scope}/{}*", host.get(..end)?))))
            .or_else(|| self.by_alias(&format!("{scope}/*")))
    }

    fn by_alias(&self, alias: &str) -> Option<&Arc<Encoded>> {
        let found = self.aliases.binary_search_by(|(known, _)| known.as_str().cmp(alias)).ok()?;
        self.items.get(self.aliases.get(found)?.1)
    }

    /// All resources in the order of their names.
    #[must_use]
    pub fn items(&self) -> &[Arc<Encoded>] {
        &self.items
    }

    /// Number of resources.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// Longest `<scope>/<host>` for which wildcard domains are tried (a DNS name has at most 255 bytes).
const MAX_HOST_NAME_BYTES: usize = 1024;

/// The host of an authority, without its port.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => authority,
    }
}

/// Everything that proxies of one scope are served: one consistent state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceSet {
    /// Generation of the state; grows with each one that a server publishes.
    pub generation: u64,
    /// Ids of the changes that led here from the set before.
    pub changes: Arc<[Str]>,
    types: PerType<Arc<TypeSet>>,
}

impl ResourceSet {
    /// A set without resources.
    #[must_use]
    pub fn new(generation: u64, changes: impl IntoIterator<Item = Str>) -> Self {
        Self { generation, changes: changes.into_iter().collect(), types: PerType::default() }
    }

    /// This state with the resources of one type replaced. The mark has no resources of its own.
    #[must_use]
    pub fn with(mut self, type_url: TypeUrl, resources: impl Into<Arc<TypeSet>>) -> Self {
        if type_url != TypeUrl::Generation {
            *self.types.of_mut(type_url) = resources.into();
        }
        self
    }

    /// The same resources under a new generation: the start of the next state.
    #[must_use]
    pub fn next(&self, generation: u64, changes: impl IntoIterator<Item = Str>) -> Self {
        Self { generation, changes: changes.into_iter().collect(), types: self.types.clone() }
    }

    /// The resources of a type.
    #[must_use]
    pub const fn of(&self, type_url: TypeUrl) -> &Arc<TypeSet> {
        self.types.of(type_url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_encoded(name: &str, aliases: &[&str]) -> Arc<Encoded> {
        Arc::new(Encoded {
            name: Str::from(name),
            aliases: aliases.iter().map(|a| Str::from(*a)).collect(),
            version: Version::of(name),
            bytes: Bytes::new(),
        })
    }

    #[test]
    fn version_text_round_trips_and_foreign_versions_are_told_apart() {
        let version = Version::of("reviews");
        assert_eq!(Version::parse(&version.to_string()), Some(version));
        for foreign in ["", "1", "2024-01-01T00:00:00Z/12", "+00000000000000f", "ABCDEFABCDEFABCD"] {
            assert_eq!(Version::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn versions_are_the_same_in_every_process() {
        // Written down once: a change of this value re-sends every resource to every proxy after an upgrade.
        assert_eq!(Version::of(&("a", 1u32, [1u8, 2], Some('x'))).to_string(), "14e782fdc9e7fd04");
        assert_ne!(Version::of(&("ab", "c")), Version::of(&("a", "bc")));
    }

    #[test]
    fn the_last_resource_of_a_name_wins() {
        let old = mk_encoded("a", &[]);
        let new = Arc::new(Encoded { version: Version::of("newer"), ..Encoded::clone(&old) });
        let set = TypeSet::new([mk_encoded("b", &[]), old, new.clone()]);
        assert_eq!(set.len(), 2);
        assert_eq!(set.get("a"), Some(&new));
        let set = set.edited([mk_encoded("c", &[])], &[Str::from("a")]);
        let names: Vec<_> = set.items().iter().map(|item| item.name.as_str()).collect();
        assert_eq!(names, ["b", "c"]);
    }

    #[test]
    fn virtual_hosts_are_found_by_their_most_specific_domain() {
        let set = TypeSet::new([
            mk_encoded("80/reviews.default:80", &["80/reviews", "80/reviews.default"]),
            mk_encoded("80/wild", &["80/*.example.com"]),
            mk_encoded("80/deep", &["80/*.a.example.com"]),
            mk_encoded("80/prefix", &["80/shop.*"]),
            mk_encoded("80/all", &["80/*"]),
            mk_encoded("90/v6", &["90/[::1]"]),
        ]);
        let check = |name: &str, expect: Option<&str>| {
            assert_eq!(set.find(name).map(|found| found.name.as_str()), expect, "{name}");
        };
        check("80/reviews.default:80", Some("80/reviews.default:80"));
        check("80/reviews", Some("80/reviews.default:80"));
        check("80/reviews:80", Some("80/reviews.default:80"));
        check("80/x.example.com", Some("80/wild"));
        check("80/x.a.example.com:8080", Some("80/deep"));
        check("80/shop.local", Some("80/prefix"));
        check("80/nobody", Some("80/all"));
        check("90/[::1]:443", Some("90/v6"));
        check("90/nobody", None);
        check("nothing", None);
    }
}
