//! Facts of the pod: labels and annotations that the kubelet writes to files, and the addresses of its interfaces.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_api::text::Str;
use tokio::time::{Interval, MissedTickBehavior};

use crate::bootstrap::read_small;

/// Folder of the downward API's files.
pub const FOLDER: &str = "./etc/istio/pod";

/// How often the files are read again. The kubelet writes them about once a minute.
const PERIOD: Duration = Duration::from_secs(10);

/// Most entries that are read of one file.
const MOST_ENTRIES: usize = 4096;

/// Annotation that holds a copy of a whole manifest: nobody reads it here, and it may be as large as everything else.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What the files say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Labels of the pod.
    pub labels: BTreeMap<Str, Str>,
    /// Annotations of the pod.
    pub annotations: BTreeMap<Str, Str>,
}

/// Sees the files change.
#[derive(Debug)]
pub struct Watch {
    folder: PathBuf,
    /// What they said last.
    known: Facts,
    ticks: Interval,
}

impl Watch {
    /// Watches `folder` from what it says now. Needs a runtime with time.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { folder: folder.to_owned(), known: read(folder).unwrap_or_default(), ticks }
    }

    /// What the files said before and what they say now, once that differs. Cancel-safe.
    pub async fn changed(&mut self) -> (Facts, Facts) {
        loop {
            self.ticks.tick().await;
            // A file that is being replaced, or is gone, says nothing: what was known counts.
            if let Some(now) = read(&self.folder).filter(|now| *now != self.known) {
                return (std::mem::replace(&mut self.known, now.clone()), now);
            }
        }
    }
}

fn read(folder: &Path) -> Option<Facts> {
    let of = |name| parse(&read_small(&folder.join(name)).ok()??).ok();
    Some(Facts { labels: of("labels")?, annotations: of("annotations")? })
}

/// `known` with the entries of a file replaced; what did not come from the file stays.
pub fn replace(known: &mut BTreeMap<Str, Str>, before: &BTreeMap<Str, Str>, now: &BTreeMap<Str, Str>) {
    known.retain(|key, _| !before.contains_key(key));
    known.extend(now.iter().map(|(key, value)| (key.clone(), value.clone())));
}

/// Reads a file of the downward API: one `key="value"` a line, the value quoted as Go quotes strings.
///
/// # Errors
/// The number of the first line that is not of that form.
pub fn parse(text: &str) -> Result<BTreeMap<Str, Str>, usize> {
    let mut entries = BTreeMap::new();
    for (number, line) in text.lines().enumerate().take(MOST_ENTRIES) {
        if line.trim().is_empty() {
            continue;
        }
        let entry = line.split_once('=').and_then(|(key, value)| Some((key, unquote(value)?)));
        let Some((key, value)) = entry.filter(|(key, _)| !key.is_empty()) else { return Err(number + 1) };
        if key != LAST_APPLIED {
            entries.insert(Str::from(key), Str::from(value));
        }
    }
    Ok(entries)
}

/// The text that Go's `strconv.Quote` wrote.
fn unquote(text: &str) -> Option<String> {
    let inner = text.trim_end().strip_prefix('"')?.strip_suffix('"')?;
    // Bytes, because `\x` gives bytes that only together make a character.
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(character) = rest.next() {
        if character != '\\' {
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        match rest.next()? {
            'a' => bytes.push(7),
            'b' => bytes.push(8),
            'f' => bytes.push(12),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(11),
            '\\' => bytes.push(b'\\'),
            '"' => bytes.push(b'"'),
            'x' => bytes.push(u8::try_from(number(&mut rest, 2)?).ok()?),
            'u' => bytes.extend_from_slice(char::from_u32(number(&mut rest, 4)?)?.encode_utf8(&mut [0; 4]).as_bytes()),
            'U' => bytes.extend_from_slice(char::from_u32(number(&mut rest, 8)?)?.encode_utf8(&mut [0; 4]).as_bytes()),
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn number(rest: &mut std::str::Chars<'_>, digits: usize) -> Option<u32> {
    let mut value = 0;
    for _ in 0..digits {
        value = value * 16 + rest.next()?.to_digit(16)?;
    }
    Some(value)
}

/// Addresses of this network namespace's interfaces that others may reach it at: neither loopback nor of the link only.
/// Empty when the system does not tell.
#[must_use]
pub fn addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let mut found = Vec::new();
    for address in interfaces.filter_map(|interface| interface.address) {
        let ip = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => IpAddr::V4(v4.ip()),
            (_, Some(v6)) => IpAddr::V6(v6.ip()),
            (None, None) => continue,
        };
        if is_reachable(ip) && !found.contains(&ip) {
            found.push(ip);
        }
    }
    found
}

fn is_reachable(ip: IpAddr) -> bool {
    let link_only = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(link_only || ip.is_loopback() || ip.is_multicast() || ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kubelet_writes_is_read() {
        let text = "app=\"web\"\ntopology.istio.io/network=\"net\\\"1\\\\\"\nnote=\"two\\nlines \\u00e9 \\xc3\\xa9 a=b\"\nempty=\"\"\n\n\
                    kubectl.kubernetes.io/last-applied-configuration=\"{}\"";
        let read = parse(text).unwrap();
        let found: Vec<_> = read.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let expect =
            [("app", "web"), ("empty", ""), ("note", "two\nlines é é a=b"), ("topology.istio.io/network", "net\"1\\")];
        assert_eq!(found, expect);
    }

    #[test]
    fn what_is_no_such_file_is_told_by_line() {
        for (text, line) in
            [("a", 1), ("a=\"b\"\nc=d", 2), ("=\"x\"", 1), ("a=\"\\q\"", 1), ("a=\"\\u12\"", 1), ("a=\"", 1)]
        {
            assert_eq!(parse(text), Err(line), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_labels_is_seen_and_what_is_no_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("labels", "app=\"web\"\nversion=\"v1\"\n");
        write("annotations", "");
        let mut watch = Watch::new(folder.path());
        let minute = Duration::from_secs(60);
        assert!(tokio::time::timeout(minute, watch.changed()).await.is_err());
        std::fs::remove_file(folder.path().join("labels")).unwrap();
        assert!(tokio::time::timeout(minute, watch.changed()).await.is_err());
        write("labels", "app=\"web\"\nversion=\"v2\"\n");
        let (before, now) = watch.changed().await;
        let mut known = BTreeMap::from([("own".into(), "1".into()), ("app".into(), "web".into())]);
        known.insert("version".into(), "v1".into());
        known.insert("gone".into(), "x".into());
        let before = BTreeMap::from([("gone".into(), "x".into())]).into_iter().chain(before.labels).collect();
        replace(&mut known, &before, &now.labels);
        let found: Vec<_> = known.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(found, [("app", "web"), ("own", "1"), ("version", "v2")]);
        assert!(tokio::time::timeout(minute, watch.changed()).await.is_err());
    }

    #[test]
    fn only_addresses_that_others_reach_count() {
        let reachable = |text: &str| is_reachable(text.parse().unwrap());
        assert!(reachable("10.0.0.1") && reachable("fd00::1") && reachable("8.8.8.8"));
        for text in ["127.0.0.1", "::1", "169.254.1.1", "fe80::1", "0.0.0.0", "224.0.0.1", "ff02::1"] {
            assert!(!reachable(text), "{text}");
        }
        assert!(addresses().into_iter().all(is_reachable));
    }
}
