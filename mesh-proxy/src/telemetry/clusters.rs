//! Requests by upstream cluster, for the few `envoy_cluster_*` series that dashboards read.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use mesh_api::text::Str;

use super::series::Counter;

/// Places of the direct-mapped table; a power of two.
const PLACES: usize = 64;
/// Clusters counted by one worker. Original destinations share one cluster, so clients cannot make more.
const MOST_CLUSTERS: usize = 8192;

/// Numbers of one cluster, of one worker.
#[derive(Debug, Default)]
pub struct ClusterNumbers {
    /// Name of the cluster.
    pub name: Str,
    /// Attempts sent to it.
    pub attempts: Counter,
    /// Attempts after the first.
    pub retries: Counter,
    /// Connections opened to it.
    pub opened: Counter,
    /// Connections to it that could not be opened or secured.
    pub failed: Counter,
    /// Requests that it did not answer in time.
    pub timeouts: Counter,
    /// Responses delivered, by hundreds of their status: 1xx to 5xx.
    pub classes: [Counter; 5],
}

/// A worker's clusters.
#[derive(Debug)]
pub struct ClusterTable {
    places: RefCell<Box<[Option<Arc<ClusterNumbers>>]>>,
    by_name: RefCell<HashMap<Str, Arc<ClusterNumbers>>>,
    shelf: Arc<ClusterShelf>,
}

/// The same, as the scrape sees them.
#[derive(Debug, Default)]
pub struct ClusterShelf(Mutex<Vec<Arc<ClusterNumbers>>>);

impl ClusterShelf {
    /// The clusters now.
    #[must_use]
    pub fn clusters(&self) -> Vec<Arc<ClusterNumbers>> {
        self.lock().clone()
    }

    /// Held when a cluster is used for the first time, and by a scrape.
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<ClusterNumbers>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClusterTable {
    /// A table whose clusters appear on `shelf`.
    #[must_use]
    pub fn new(shelf: Arc<ClusterShelf>) -> Self {
        Self { places: RefCell::new((0..PLACES).map(|_| None).collect()), by_name: RefCell::default(), shelf }
    }

    /// Counts a request that was sent to `name` in `attempts` attempts and answered with `status`.
    pub fn request(&self, name: &Str, attempts: u32, status: u16) {
        self.with(name, |cluster| cluster.count(attempts, status));
    }

    /// Counts a request that `name` did not answer in time.
    pub fn timeout(&self, name: &Str) {
        self.with(name, |cluster| cluster.timeouts.add(1));
    }

    /// Counts an attempt to connect to `name`.
    pub fn connected(&self, name: &Str, succeeded: bool) {
        self.with(name, |cluster| if succeeded { cluster.opened.add(1) } else { cluster.failed.add(1) });
    }

    fn with(&self, name: &Str, count: impl FnOnce(&ClusterNumbers)) {
        let place = (name.as_ptr().addr() >> 4) % PLACES;
        if let Some(Some(known)) = self.places.borrow().get(place)
            && known.name == *name
        {
            return count(known);
        }
        let Some(found) = self.find(name) else { return };
        count(&found);
        if let Some(place) = self.places.borrow_mut().get_mut(place) {
            *place = Some(found);
        }
    }

    /// Forgets clusters that `is_current` refuses; called after a change of configuration.
    pub fn retain(&self, is_current: impl Fn(&str) -> bool) {
        self.by_name.borrow_mut().retain(|name, _| is_current(name));
        self.shelf.lock().retain(|cluster| is_current(&cluster.name));
        self.places.borrow_mut().fill_with(|| None);
    }

    fn find(&self, name: &Str) -> Option<Arc<ClusterNumbers>> {
        let mut by_name = self.by_name.borrow_mut();
        if let Some(found) = by_name.get(name) {
            return Some(Arc::clone(found));
        }
        if by_name.len() >= MOST_CLUSTERS {
            return None;
        }
        let made = Arc::new(ClusterNumbers { name: name.clone(), ..ClusterNumbers::default() });
        by_name.insert(name.clone(), Arc::clone(&made));
        self.shelf.lock().push(Arc::clone(&made));
        Some(made)
    }
}

impl ClusterNumbers {
    fn count(&self, attempts: u32, status: u16) {
        self.attempts.add(u64::from(attempts));
        self.retries.add(u64::from(attempts.saturating_sub(1)));
        if let Some(class) = usize::from(status / 100).checked_sub(1).and_then(|class| self.classes.get(class)) {
            class.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_cluster_until_it_goes() {
        let shelf = Arc::<ClusterShelf>::default();
        let table = ClusterTable::new(Arc::clone(&shelf));
        for (name, attempts, status) in [("a", 1, 200), ("b", 3, 503), ("a", 1, 0), ("a", 2, 404)] {
            table.request(&Str::from(name), attempts, status);
        }
        let read = || -> Vec<(String, u64, u64, Vec<u64>)> {
            let of = |cluster: &Arc<ClusterNumbers>| {
                let classes = cluster.classes.iter().map(Counter::get).collect();
                (cluster.name.to_string(), cluster.attempts.get(), cluster.retries.get(), classes)
            };
            shelf.clusters().iter().map(of).collect()
        };
        assert_eq!(read(), [("a".into(), 4, 1, vec![0, 1, 0, 1, 0]), ("b".into(), 3, 2, vec![0, 0, 0, 0, 1])]);
        table.retain(|name| name == "b");
        assert_eq!(read().len(), 1);
    }
}
