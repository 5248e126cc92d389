//! The translators: a bounded number of tasks that take one proxy after the other from the queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use mesh_api::text::Str;
use mesh_api_rt::drain::Watcher;
use mesh_api_xds::encoded::ResourceSet;
use mesh_api_xds::type_url::TypeUrl;
use meshd_core::translate::Wanted;
use tokio::sync::watch;

use super::queue::Queue;
use super::registry::Connection;
use super::slot::Pending;
use super::translate::Translate;
use crate::metrics::{PushMetrics, seconds};
use crate::published::Published;

/// What a worker needs.
#[derive(Clone)]
pub(crate) struct Worker {
    /// Where it takes proxies from.
    pub(crate) queue: Arc<Queue>,
    /// What it translates.
    pub(crate) published: watch::Receiver<Option<Published>>,
    /// How.
    pub(crate) translate: Arc<dyn Translate>,
    /// Where it counts.
    pub(crate) metrics: PushMetrics,
}

impl Worker {
    /// Works until the drain begins.
    pub(crate) async fn run(self, mut drain: Watcher) {
        loop {
            let (connection, pending) = tokio::select! {
                () = drain.graceful() => return,
                next = self.queue.next(now) => next,
            };
            self.serve(&connection, &pending);
            self.queue.done(&connection);
            // A translation does not wait for anything; let the streams have the thread before the next one.
            tokio::task::yield_now().await;
        }
    }

    fn serve(&self, connection: &Arc<Connection>, pending: &Pending) {
        // It left while it waited.
        if connection.is_closed() {
            return;
        }
        // Streams are admitted only after the first snapshot.
        let Some(published) = self.published.borrow().clone() else { return };
        let begun = now();
        self.metrics.translations.inc();
        let translated = catch_unwind(AssertUnwindSafe(|| self.translate(&published, connection, pending)));
        self.metrics.push_time.observe(seconds(now().saturating_duration_since(begun)));
        match translated {
            Ok(set) => connection.deliver(set, published.through),
            // The panic hook has told where. The proxy keeps what it has, all others are served.
            Err(_) => {
                self.metrics.internal_errors.inc();
                tracing::error!(proxy = %connection.key.0, "Translation failed, the proxy keeps what it has");
            }
        }
    }

    /// The state that follows the one last delivered.
    fn translate(&self, published: &Published, connection: &Connection, pending: &Pending) -> ResourceSet {
        let changes = pending.changes.iter().map(|id| Str::from(id.0.to_string()));
        let mut set = connection.delivered().next(published.snapshot.generation, changes);
        // Type by type, so that what is found wrong can be replaced type by type.
        // Keys of gateways go to callers who proved who they are, and the plaintext port asks nobody (as istiod: secrets need
        // a verified identity).
        let trusted = |type_url: TypeUrl| type_url != TypeUrl::Secret || connection.facts.identity.is_some();
        let wanted = TypeUrl::CONFIG.into_iter().filter(|type_url| pending.wanted.has(*type_url));
        for type_url in wanted.filter(|type_url| trusted(*type_url)) {
            let wanted = Wanted::NOTHING.with(type_url);
            let mut translation = self.translate.translate(&published.snapshot, &connection.view, wanted);
            if let Some(resources) = translation.sets.of_mut(type_url).take() {
                set = set.with(type_url, resources);
            }
            connection.set_findings(type_url, translation.findings);
        }
        set
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
