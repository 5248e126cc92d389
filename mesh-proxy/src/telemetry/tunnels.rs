//! Tunnels that are open: their bytes are reported while they run, because a tunnel may last for days.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use slab::Slab;

use super::series::{Numbers, Series, TcpNumbers};
use crate::net::copy::TunnelBytes;

/// A worker's open tunnels.
#[derive(Debug, Default)]
pub(super) struct Tunnels(RefCell<Slab<Open>>);

#[derive(Debug)]
struct Open {
    bytes: Rc<TunnelBytes>,
    series: Arc<Series>,
    reported: Cell<Reported>,
}

/// Bytes of a tunnel that metrics know already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reported {
    /// From the client.
    pub(super) received: u64,
    /// To the client.
    pub(super) sent: u64,
}

impl Tunnels {
    /// Adds a tunnel whose bytes are added to `series`; gives its place.
    pub(super) fn open(&self, bytes: Rc<TunnelBytes>, series: Arc<Series>) -> usize {
        self.0.borrow_mut().insert(Open { bytes, series, reported: Cell::default() })
    }

    /// Reports what moved since the last time.
    pub(super) fn report(&self, mut touch: impl FnMut(&Series)) {
        for (_, open) in self.0.borrow().iter() {
            let Numbers::Tcp(numbers) = &open.series.numbers else { continue };
            let now = Reported { received: open.bytes.sent.get(), sent: open.bytes.received.get() };
            open.reported.replace(now).add_rest(now, numbers);
            // A tunnel that is open keeps its series from growing cold.
            touch(&open.series);
        }
    }

    /// Removes a tunnel; gives what was reported of it.
    pub(super) fn close(&self, place: usize) -> Reported {
        self.0.borrow_mut().try_remove(place).map(|open| open.reported.get()).unwrap_or_default()
    }
}

impl Reported {
    /// Adds what `now` has more than this.
    pub(super) fn add_rest(self, now: Self, numbers: &TcpNumbers) {
        numbers.received.add(now.received.saturating_sub(self.received));
        numbers.sent.add(now.sent.saturating_sub(self.sent));
    }
}
