//! Connections and requests by listener, for the `envoy_listener_*` series that dashboards read.
//!
//! A connection finds its listener's numbers once, when it is accepted, and keeps them: a request only adds.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use mesh_api::text::Str;

use super::series::Counter;

/// Listeners counted by one worker; those beyond it share the last.
const MOST_LISTENERS: usize = 8192;

/// Numbers of one listener, of one worker.
#[derive(Debug, Default)]
pub struct ListenerNumbers {
    /// Name of the listener.
    pub name: Str,
    /// Connections taken.
    pub opened: Counter,
    /// Of these, those that have ended.
    pub closed: Counter,
    /// Requests answered, by hundreds of their status: 1xx to 5xx.
    pub classes: [Counter; 5],
}

impl ListenerNumbers {
    /// Counts a request that was answered with `status`.
    pub fn request(&self, status: u16) {
        if let Some(class) = usize::from(status / 100).checked_sub(1).and_then(|class| self.classes.get(class)) {
            class.add(1);
        }
    }
}

/// A connection of a listener: counted as open until it is dropped.
#[derive(Debug)]
pub struct Listened(Rc<Numbers>);

#[derive(Debug)]
struct Numbers(Arc<ListenerNumbers>);

impl Listened {
    /// Counts a request of this connection.
    pub fn request(&self, status: u16) {
        self.0.0.request(status);
    }
}

impl Drop for Listened {
    fn drop(&mut self) {
        self.0.0.closed.add(1);
    }
}

/// A worker's listeners.
#[derive(Debug, Default)]
pub struct ListenerTable {
    by_name: RefCell<HashMap<Str, Rc<Numbers>>>,
    shelf: Arc<ListenerShelf>,
}

/// The same, as the scrape sees them.
#[derive(Debug, Default)]
pub struct ListenerShelf(Mutex<Vec<Arc<ListenerNumbers>>>);

impl ListenerShelf {
    /// The listeners now.
    #[must_use]
    pub fn listeners(&self) -> Vec<Arc<ListenerNumbers>> {
        self.lock().clone()
    }

    /// Held when a listener takes its first connection, and by a scrape.
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<ListenerNumbers>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ListenerTable {
    /// A table whose listeners appear on `shelf`.
    #[must_use]
    pub fn new(shelf: Arc<ListenerShelf>) -> Self {
        Self { by_name: RefCell::default(), shelf }
    }

    /// Counts a connection of the listener `name`.
    pub fn accepted(&self, name: &Str) -> Listened {
        let numbers = self.find(name);
        numbers.0.opened.add(1);
        Listened(numbers)
    }

    /// Forgets listeners that `is_current` refuses and that have no connection; called after a change of configuration.
    pub fn retain(&self, is_current: impl Fn(&str) -> bool) {
        let keep = |numbers: &ListenerNumbers| is_current(&numbers.name) || numbers.opened.get() > numbers.closed.get();
        self.by_name.borrow_mut().retain(|_, numbers| keep(&numbers.0));
        self.shelf.lock().retain(|numbers| keep(numbers));
    }

    fn find(&self, name: &Str) -> Rc<Numbers> {
        let mut by_name = self.by_name.borrow_mut();
        if let Some(found) = by_name.get(name) {
            return Rc::clone(found);
        }
        let name = if by_name.len() >= MOST_LISTENERS { Str::from("other") } else { name.clone() };
        if let Some(found) = by_name.get(&name) {
            return Rc::clone(found);
        }
        let made = Arc::new(ListenerNumbers { name: name.clone(), ..ListenerNumbers::default() });
        self.shelf.lock().push(Arc::clone(&made));
        let made = Rc::new(Numbers(made));
        by_name.insert(name, Rc::clone(&made));
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_open_until_they_are_dropped_and_keep_their_listener() {
        let shelf = Arc::<ListenerShelf>::default();
        let table = ListenerTable::new(Arc::clone(&shelf));
        let read = || -> Vec<(String, u64, u64, u64)> {
            let of = |numbers: &Arc<ListenerNumbers>| {
                (numbers.name.to_string(), numbers.opened.get(), numbers.closed.get(), numbers.classes[1].get())
            };
            shelf.listeners().iter().map(of).collect()
        };
        let first = table.accepted(&"a".into());
        drop(table.accepted(&"a".into()));
        drop(table.accepted(&"b".into()));
        for status in [200, 204, 0, 700] {
            first.request(status);
        }
        assert_eq!(read(), [("a".into(), 2, 1, 2), ("b".into(), 1, 1, 0)]);
        table.retain(|_| false);
        assert_eq!(read(), [("a".into(), 2, 1, 2)]);
        drop(first);
        table.retain(|_| false);
        assert_eq!(read(), []);
    }
}
