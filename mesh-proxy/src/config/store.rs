//! What the workers run: one plan, published as a whole.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use mesh_api_xds::ir::secret::Secret;
use mesh_proxy_core::plan::Plan;
use tokio::sync::watch;

use super::held::Held;
use crate::dns::Names;
use crate::tls::store::Secrets;

/// One consistent state of configuration.
#[derive(Clone, Debug)]
pub struct Live {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Grows with each publication of this process.
    pub generation: u64,
    /// Grows when a secret changes.
    pub secrets_epoch: u64,
}

impl Live {
    /// Nothing yet.
    #[must_use]
    pub fn empty() -> Self {
        Self { plan: Arc::new(Plan::empty()), generation: 0, secrets_epoch: 0 }
    }

    /// Whether a consistent set was committed once. A server without marks has sent listeners then.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.plan.mark().generation > 0 || self.plan.listeners().next().is_some()
    }
}

impl Secrets for Live {
    fn secret(&self, name: &str) -> Option<&Arc<Secret>> {
        self.plan.secret(name)
    }
}

/// Publishes states to all workers.
#[derive(Debug)]
pub struct Store {
    sender: watch::Sender<Arc<Live>>,
    /// What was received, for dumps.
    pub held: Held,
    /// The names that look-ups are answered from.
    pub names: Arc<Names>,
    /// How the connection to the control plane fares.
    pub link: Link,
    /// Whether traffic of the workload is captured, as found out at the start; unset when that is not known.
    pub captured: OnceLock<bool>,
}

/// Numbers of the connection to the control plane: written by the configuration client, read by a scrape.
#[derive(Debug, Default)]
pub struct Link {
    /// Streams opened.
    pub opened: AtomicU64,
    /// Streams that could not be opened.
    pub failed: AtomicU64,
    /// A stream is open: 1.
    pub active: AtomicU64,
    /// Configurations in which something was not used.
    pub rejected: AtomicU64,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            sender: watch::Sender::new(Arc::new(Live::empty())),
            held: Held::default(),
            names: Arc::default(),
            link: Link::default(),
            captured: OnceLock::new(),
        }
    }
}

impl Store {
    /// The present state.
    #[must_use]
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.sender.borrow())
    }

    /// Sees every later state.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Live>> {
        self.sender.subscribe()
    }

    /// Replaces the state.
    pub fn publish(&self, plan: Arc<Plan>, secrets_changed: bool) -> Arc<Live> {
        let before = self.live();
        let live = Arc::new(Live {
            plan,
            generation: before.generation + 1,
            secrets_epoch: before.secrets_epoch + u64::from(secrets_changed),
        });
        self.sender.send_replace(Arc::clone(&live));
        live
    }
}
