//! Peers' metadata, decoded once per peer and worker.
//!
//! A peer sends the same few hundred bytes with each request. They are the key: what they say is remembered, also that
//! they say nothing.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use hashbrown::HashMap;
use mesh_proxy_core::stats::Workload;

/// Peers remembered.
const MOST_PEERS: usize = 1024;
/// Bytes of header values remembered; Istio's are about 500 bytes each.
const MOST_BYTES: usize = 1 << 20;

/// What a value said; `None` when it was nonsense.
type Peer = Option<Arc<Workload>>;

/// A worker's memory of peers.
#[derive(Debug, Default)]
pub struct PeerCache {
    known: RefCell<HashMap<Box<[u8]>, Peer>>,
    /// Length of all keys together.
    bytes: Cell<usize>,
    decoded: Cell<u64>,
}

impl PeerCache {
    /// The workload that a value of `x-envoy-peer-metadata` describes; `None` when it is not one.
    pub fn decode(&self, value: &[u8]) -> Option<Arc<Workload>> {
        if let Some(known) = self.known.borrow().get(value) {
            return known.clone();
        }
        self.decoded.set(self.decoded.get() + 1);
        let workload = Workload::from_header(value).map(Arc::new);
        if value.len() > MOST_BYTES / 8 {
            return workload;
        }
        let mut known = self.known.borrow_mut();
        if known.len() >= MOST_PEERS || self.bytes.get() + value.len() > MOST_BYTES {
            // Peers that still talk are back after one request each; keeping account of age would cost every request.
            known.clear();
            self.bytes.set(0);
        }
        self.bytes.set(self.bytes.get() + value.len());
        known.insert(value.into(), workload.clone());
        workload
    }

    /// Values decoded so far: everything else was remembered.
    #[must_use]
    pub fn decoded(&self) -> u64 {
        self.decoded.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_header(instance: &str) -> String {
        Workload { instance: instance.into(), name: "web".into(), ..Workload::default() }.to_header()
    }

    #[test]
    fn a_peer_is_decoded_once_also_when_it_is_nonsense() {
        let cache = PeerCache::default();
        let header = mk_header("web-1");
        let first = cache.decode(header.as_bytes()).unwrap();
        let again = cache.decode(header.as_bytes()).unwrap();
        assert!(Arc::ptr_eq(&first, &again) && first.name == "web");
        assert_eq!((cache.decode(b"%%%"), cache.decode(b"%%%"), cache.decoded()), (None, None, 2));
    }

    #[test]
    fn memory_is_bounded() {
        let cache = PeerCache::default();
        for peer in 0..3 * MOST_PEERS {
            cache.decode(mk_header(&format!("web-{peer}")).as_bytes());
            assert!(cache.known.borrow().len() <= MOST_PEERS);
        }
        for peer in 0..200 {
            cache.decode(format!("{peer:060000}").as_bytes());
            assert!(cache.bytes.get() <= MOST_BYTES);
        }
        cache.decode(&[b'x'; MOST_BYTES]);
        assert!(cache.bytes.get() <= MOST_BYTES);
    }
}
