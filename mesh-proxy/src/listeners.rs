//! Keeps the open sockets equal to the listeners of the plan.
//!
//! Runs on the first worker. A socket that stays wanted is never closed, whatever changes about its listener; one that is no
//! longer wanted stops accepting and its connections drain. A socket that cannot be opened is tried again.
//!
//! While the process waits to take over, nothing is accepted; once it has handed over, nothing is accepted either, and the sockets
//! stay open until they are let go, so that it can be taken back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_api::text::Str;
use mesh_api_rt::listen::ListenerTable;
use mesh_api_rt::report::Report;
use mesh_api_xds::ir::listener::Binding;
use tokio::sync::oneshot;

use crate::config::store::Live;
use crate::net::accept::{Dispatcher, accept_loop};
use crate::net::sockopt;
use crate::worker::{DrainPhase, Worker};

/// Time before a socket that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The table of listening sockets: the first worker's, but for a hand-over. Never locked while connections are served.
pub type SharedTable = Arc<Mutex<ListenerTable>>;

/// A table for the first worker.
#[must_use]
pub fn shared(table: ListenerTable) -> SharedTable {
    Arc::new(Mutex::new(table))
}

/// Looks at the table. A panic elsewhere leaves it whole.
pub fn lock(table: &Mutex<ListenerTable>) -> MutexGuard<'_, ListenerTable> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Open sockets with their accept loops.
struct Open {
    table: SharedTable,
    /// Sockets take connections for any destination (TPROXY).
    transparent: bool,
    loops: BTreeMap<SocketAddr, Accepting>,
    /// Addresses whose failure was reported.
    failed: BTreeMap<SocketAddr, Str>,
}

/// An accept loop; ends when this is dropped.
struct Accepting {
    listener: Str,
    _stop: oneshot::Sender<()>,
}

/// Runs until the process drains.
pub async fn run(worker: Rc<Worker>, table: SharedTable, dispatcher: Dispatcher) {
    let transparent = worker.shared.client_mark.is_some();
    let mut open = Open { table, transparent, loops: BTreeMap::new(), failed: BTreeMap::new() };
    let mut states = worker.shared.store.subscribe();
    let mut phases = worker.shared.drain.subscribe();
    loop {
        let live = Arc::clone(&states.borrow_and_update());
        let phase = *phases.borrow_and_update();
        let wanted = wanted(&live, phase, &worker.shared.early);
        drop(live);
        let complete = open.reconcile(&wanted, phase, &dispatcher);
        let retry = if complete { Duration::MAX } else { RETRY };
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            changed = phases.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(retry.min(Duration::from_secs(3600))) => {}
        }
    }
}

/// Addresses to listen on. While inbound connections drain, both sides still accept: peers learn later than we that this
/// workload ends, and the application may need the other side to finish its work.
fn wanted(live: &Live, phase: DrainPhase, early: &[(Str, SocketAddr)]) -> BTreeMap<SocketAddr, Str> {
    let mut wanted = BTreeMap::new();
    if !live.is_configured() && phase == DrainPhase::Running {
        wanted.extend(early.iter().map(|(name, address)| (*address, name.clone())));
    }
    for listener in live.plan.listeners() {
        if phase.accepts(listener.direction) && listener.binding == Binding::Socket {
            for address in listener.addresses() {
                wanted.entry(address).or_insert_with(|| listener.name.clone());
            }
        }
    }
    wanted
}

impl Open {
    /// Opens and closes what differs. False: something could not be opened.
    fn reconcile(&mut self, wanted: &BTreeMap<SocketAddr, Str>, phase: DrainPhase, dispatcher: &Dispatcher) -> bool {
        let mut table = lock(&self.table);
        self.loops.retain(|address, accepting| match wanted.get(address) {
            Some(name) if *name == accepting.listener => true,
            // Another listener has this address now: the socket stays, its connections get the new name.
            Some(_) => false,
            // Another process accepts on it now.
            None if phase == DrainPhase::HandedOver => false,
            None => {
                table.close(*address);
                tracing::info!(listener = %accepting.listener, %address, "Listener closed");
                false
            }
        });
        drop(table);
        self.failed.retain(|address, _| wanted.contains_key(address));
        let mut complete = true;
        for (address, name) in wanted {
            if !self.loops.contains_key(address) {
                complete &= self.open(*address, name, dispatcher);
            }
        }
        complete
    }

    fn open(&mut self, address: SocketAddr, name: &Str, dispatcher: &Dispatcher) -> bool {
        let opened = lock(&self.table).listen(address);
        match opened {
            Ok(socket) => {
                // Asked at the start, so that it does not fail here; a socket without it would take nothing that was captured.
                if self.transparent
                    && let Err(error) = sockopt::set_transparent(&socket)
                {
                    tracing::error!(listener = %name, %address, error = %Report::new(&error), "Listener takes no captured connections");
                }
                let (stop, stopped) = oneshot::channel();
                tokio::task::spawn_local(accept_loop(socket, name.clone(), dispatcher.clone(), stopped));
                self.loops.insert(address, Accepting { listener: name.clone(), _stop: stop });
                self.failed.remove(&address);
                tracing::info!(listener = %name, %address, "Listener opened");
                true
            }
            Err(error) => {
                if self.failed.insert(address, name.clone()).is_none() {
                    tracing::error!(listener = %name, %address, error = %Report::new(&error), "Listener not opened, trying again");
                }
                false
            }
        }
    }
}
