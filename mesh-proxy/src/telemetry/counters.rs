//! A worker's own counters, declared once in a table.

use mesh_proxy_core::fault::{Code, FaultKind};

use super::series::Counter;

/// Declares the plain counters.
macro_rules! counts {
    ($($variant:ident = $name:literal, $doc:literal;)+) => {
        /// Something that a worker counts.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Count {
            $(
                #[doc = $doc]
                $variant,
            )+
        }

        impl Count {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Name in the exposition.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Help text.
            #[must_use]
            pub const fn doc(self) -> &'static str {
                match self { $(Self::$variant => $doc,)+ }
            }
        }
    };
}

counts! {
    Connections = "mesh_proxy_connections_accepted_total",
        "Connections accepted from clients.";
    Parked = "mesh_proxy_connections_parked_total",
        "Connections that waited for the first configuration.";
    Requests = "mesh_proxy_requests_total",
        "HTTP requests that ended, whether reported to Istio's metrics or not.";
    Retries = "mesh_proxy_retries_total",
        "Attempts after the first, of HTTP requests.";
    PoolReused = "mesh_proxy_pool_reused_total",
        "HTTP/1.1 requests that found a pooled connection.";
    UpstreamOpened = "mesh_proxy_upstream_connections_opened_total",
        "Connections opened to upstreams.";
    UpstreamFailed = "mesh_proxy_upstream_connections_failed_total",
        "Connections to upstreams that could not be opened or secured.";
    Panics = "mesh_proxy_panics_total",
        "Connections and streams that a mistake in this program ended; the log says which.";
    LogLines = "mesh_proxy_access_log_lines_total",
        "Access log lines written by workers, dropped ones included.";
}

/// Numbers of one worker.
#[derive(Debug)]
pub struct Counters {
    counts: [Counter; Count::ALL.len()],
    /// By place in [`FaultKind::ALL`].
    replies: Box<[Counter]>,
    refusals: Box<[Counter]>,
}

impl Default for Counters {
    fn default() -> Self {
        let each_kind = || FaultKind::ALL.iter().map(|_| Counter::default()).collect();
        Self { counts: Default::default(), replies: each_kind(), refusals: each_kind() }
    }
}

impl Counters {
    /// Adds to a counter. On the owner's thread only.
    pub fn add(&self, count: Count, amount: u64) {
        if let Some(counter) = self.counts.get(count as usize) {
            counter.add(amount);
        }
    }

    /// Value of a counter.
    #[must_use]
    pub fn get(&self, count: Count) -> u64 {
        self.counts.get(count as usize).map_or(0, Counter::get)
    }

    /// Counts an answer of the proxy's own, or a failure that cut a response.
    pub fn reply(&self, code: Code) {
        bump(&self.replies, code);
    }

    /// Counts a connection, or a request that could not be understood, that was refused.
    pub fn refusal(&self, code: Code) {
        bump(&self.refusals, code);
    }

    /// Local replies by kind; those that happened.
    pub fn replies(&self) -> impl Iterator<Item = (FaultKind, u64)> {
        happened(&self.replies)
    }

    /// Refusals by kind; those that happened.
    pub fn refusals(&self) -> impl Iterator<Item = (FaultKind, u64)> {
        happened(&self.refusals)
    }
}

/// Kinds are ordered by number.
fn bump(counters: &[Counter], code: Code) {
    let place = FaultKind::ALL.binary_search_by_key(&code, |kind| kind.code());
    if let Some(counter) = place.ok().and_then(|place| counters.get(place)) {
        counter.add(1);
    }
}

fn happened(counters: &[Counter]) -> impl Iterator<Item = (FaultKind, u64)> {
    let numbers = counters.iter().map(Counter::get);
    FaultKind::ALL.iter().copied().zip(numbers).filter(|(_, number)| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_counter() {
        let counters = Counters::default();
        for kind in FaultKind::ALL {
            counters.reply(kind.code());
        }
        counters.refusal(FaultKind::AccessDenied.code());
        assert_eq!(counters.replies().filter(|(_, number)| *number == 1).count(), FaultKind::ALL.len());
        assert_eq!(counters.refusals().collect::<Vec<_>>(), [(FaultKind::AccessDenied, 1)]);
    }

    #[test]
    fn names_are_unique_and_explained() {
        for (place, count) in Count::ALL.iter().enumerate() {
            assert_eq!(*count as usize, place);
            assert!(count.doc().ends_with('.') && count.name().ends_with("_total"), "{count:?}");
            assert_eq!(Count::ALL.iter().filter(|other| other.name() == count.name()).count(), 1, "{count:?}");
        }
    }
}
