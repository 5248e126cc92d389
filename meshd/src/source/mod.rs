//! Where configuration comes from: each source says what there is, then that this was all, then what changes.
//!
//! A source knows nothing of the world and of other sources; the hub applies what it says, in the order in which it says it.

pub(crate) mod file;
pub(crate) mod kube;
mod stand_in;

use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use mesh_api::text::Str;
use mesh_api_rt::drain::Watcher;
use meshd_core::world::Change;
use tokio::sync::mpsc;

/// What a source tells the hub.
#[derive(Debug)]
pub(crate) enum Event {
    /// Something changed. All of it takes effect together and gets one change id.
    Changed {
        /// When the source learned of it: propagation times count from here.
        received: Instant,
        /// What is different.
        changes: Vec<Change>,
    },
    /// Everything that was there at the start has been told.
    Synced {
        /// Which source says so.
        source: Str,
    },
}

/// A future that borrows nothing.
pub(crate) type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A source of configuration.
pub(crate) trait Source: Send + 'static {
    /// Its name, for logs and readiness.
    fn name(&self) -> Str;

    /// Tells all there is, then [`Event::Synced`], then what changes, until the drain begins or nobody listens any more.
    fn run(self: Box<Self>, events: mpsc::Sender<Event>, drain: Watcher) -> Running;
}
