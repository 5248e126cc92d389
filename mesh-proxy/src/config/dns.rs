//! Resolves the names of clusters that are discovered by DNS, again and again.
//!
//! A name that fails to resolve keeps its last addresses: stale is not empty.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_api::text::Str;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Shortest time between two look-ups of a name.
const LEAST_REFRESH: Duration = Duration::from_secs(1);
/// Time for one look-up.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses kept of one name.
const MOST_ADDRESSES: usize = 1024;

/// The names that are wanted, and the look-ups under way.
#[derive(Debug, Default)]
pub struct Resolver {
    wanted: BTreeMap<Str, Wanted>,
    running: JoinSet<(Str, std::io::Result<Vec<IpAddr>>)>,
}

#[derive(Debug)]
struct Wanted {
    refresh: Duration,
    due: Option<Instant>,
    known: Arc<[IpAddr]>,
}

impl Resolver {
    /// Sets the names to resolve, each with its time between look-ups.
    pub fn want(&mut self, names: BTreeMap<Str, Duration>) {
        self.wanted.retain(|name, _| names.contains_key(name));
        for (name, refresh) in names {
            let refresh = refresh.max(LEAST_REFRESH);
            let now = Instant::now();
            self.wanted.entry(name).and_modify(|wanted| wanted.refresh = refresh).or_insert_with(|| Wanted {
                refresh,
                due: Some(now),
                known: Arc::default(),
            });
        }
    }

    /// The next name whose addresses have changed. Cancel-safe; pending while nothing is wanted.
    pub async fn next(&mut self) -> (Str, Arc<[IpAddr]>) {
        loop {
            self.start_due();
            let due = self.wanted.values().filter_map(|wanted| wanted.due).min();
            tokio::select! {
                Some(done) = self.running.join_next() => {
                    if let Ok((name, result)) = done
                        && let Some(changed) = self.finish(&name, result)
                    {
                        return (name, changed);
                    }
                }
                () = sleep_until(due) => {}
            }
        }
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        for (name, wanted) in &mut self.wanted {
            if wanted.due.take_if(|due| *due <= now).is_some() {
                let name = name.clone();
                self.running.spawn(async move {
                    let result = look_up(&name).await;
                    (name, result)
                });
            }
        }
    }

    fn finish(&mut self, name: &Str, result: std::io::Result<Vec<IpAddr>>) -> Option<Arc<[IpAddr]>> {
        let wanted = self.wanted.get_mut(name)?;
        wanted.due = Some(Instant::now() + wanted.refresh);
        match result {
            Ok(addresses) if *addresses == *wanted.known => None,
            Ok(addresses) => {
                wanted.known = addresses.into();
                Some(Arc::clone(&wanted.known))
            }
            Err(error) => {
                tracing::warn!(%name, %error, kept = wanted.known.len(), "Name not resolved");
                None
            }
        }
    }
}

async fn look_up(name: &str) -> std::io::Result<Vec<IpAddr>> {
    let found = tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((name, 0))).await;
    let found = found.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    let mut addresses: Vec<_> = found.map(|address| address.ip()).take(MOST_ADDRESSES).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_resolved_once_it_is_wanted_and_reported_only_when_it_changes() {
        let mut resolver = Resolver::default();
        resolver.want(BTreeMap::from([(Str::from("localhost"), Duration::from_secs(60))]));
        let (name, addresses) = resolver.next().await;
        assert_eq!(name, "localhost");
        assert!(addresses.iter().all(IpAddr::is_loopback) && !addresses.is_empty());
        assert!(resolver.finish(&name, Ok(addresses.to_vec())).is_none());
        assert!(resolver.finish(&name, Err(std::io::ErrorKind::NotFound.into())).is_none());
        assert_eq!(resolver.finish(&name, Ok(vec![])).unwrap().len(), 0);
        resolver.want(BTreeMap::new());
        assert!(resolver.finish(&name, Ok(addresses.to_vec())).is_none());
    }
}
