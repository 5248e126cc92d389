//! Session state of one type.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_api::text::Str;

use super::{Nack, ServerAction};
use crate::ads::delta::{Held, Offer};
use crate::ads::nonce::Nonce;
use crate::ads::sub::{Subscription, WILDCARD};
use crate::ads::{MAX_REASON_BYTES, MAX_REJECTIONS, Rejection, bounded, rejections_of};
use crate::discovery::{DeltaDiscoveryRequest, GenerationMark, Status};
use crate::encoded::{TypeSet, Version};
use crate::type_url::TypeUrl;

/// What a session knows of one type.
#[derive(Debug, Default)]
pub(super) struct TypeState {
    pub(super) subscription: Subscription,
    pub(super) offer: Offer,
    /// State-of-the-world: version of what the client has.
    pub(super) whole: Option<Version>,
    pub(super) in_flight: Option<Sent>,
    pub(super) last_nonce: Option<Nonce>,
    /// The first request waits for a response, even an empty one.
    pub(super) owes_answer: bool,
    pub(super) sent: Option<u64>,
    pub(super) acked: Option<u64>,
    pub(super) nack: Option<Box<Nack>>,
    /// Versions of the resources that `nack` names, in its order.
    pub(super) rejected: Box<[Option<Version>]>,
    /// State-of-the-world: the subscription changed since the last comparison.
    pub(super) resubscribed: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) nonce: Nonce,
    pub(super) generation: u64,
}

impl TypeState {
    /// The first request of the type on this stream.
    pub(super) fn start_delta(
        &mut self,
        type_url: TypeUrl,
        request: &DeltaDiscoveryRequest,
        set: &TypeSet,
        renewed: &BTreeSet<Str>,
    ) {
        let names = &request.resource_names_subscribe;
        self.subscription.wildcard =
            names.iter().any(|name| name == WILDCARD) || (names.is_empty() && type_url.empty_means_all());
        for (name, version) in &request.initial_resource_versions {
            if !renewed.contains(name.as_str()) {
                self.offer.hold(Str::from(name), version);
            }
        }
        for name in names.iter().filter(|name| *name != WILDCARD).map(Str::from) {
            if self.offer.reported(&name).is_none() {
                // What was asked for under another name is held under its own.
                let held = set.find(&name).and_then(|item| self.offer.reported(&item.name));
                self.offer.hold_as(name.clone(), held.unwrap_or(Held::Nothing));
            }
            self.subscription.names.insert(name);
        }
        // Envoy waits for a first answer to a wildcard before it serves. One who reports what it holds, does not.
        self.owes_answer = self.subscription.wildcard && request.initial_resource_versions.is_empty();
        if type_url == TypeUrl::Generation {
            let held = request.initial_resource_versions.get(GenerationMark::NAME);
            self.sent = held.and_then(|version| version.parse().ok());
            self.acked = self.sent;
        }
    }

    /// A later request of the type: names come and go.
    pub(super) fn resubscribe(&mut self, request: &DeltaDiscoveryRequest, set: &TypeSet) {
        for name in &request.resource_names_unsubscribe {
            if name == WILDCARD {
                self.subscription.wildcard = false;
            } else if self.subscription.names.remove(name.as_str()) && self.subscription.wildcard {
                // xDS protocol, "Unsubscribing From Resources": the client must learn whether the wildcard still has it.
                self.offer.forget(Str::from(name));
            }
        }
        for name in &request.resource_names_subscribe {
            if name == WILDCARD {
                if !self.subscription.wildcard {
                    self.offer.widen(self.subscription.names.iter().cloned());
                }
                self.subscription.wildcard = true;
                continue;
            }
            // A name subscribed to again is sent again: the client may have dropped it.
            let name = set.get(name).map_or_else(|| Str::from(name), |item| item.name.clone());
            self.offer.forget(name.clone());
            self.subscription.names.insert(name);
        }
    }

    /// The answer to a response: an ACK, a NACK, or neither when the nonce is not that of the response in flight.
    pub(super) fn answer(&mut self, type_url: TypeUrl, nonce: &str, error: Option<&Status>) -> Option<ServerAction> {
        let sent = self.in_flight.take_if(|sent| sent.nonce.is(nonce))?;
        let standing = self.standing_rejections();
        let Some(error) = error else {
            self.acked = Some(sent.generation);
            if let Some(nack) = &mut self.nack {
                nack.rejections = standing;
            }
            self.nack.take_if(|nack| nack.rejections.is_empty());
            return Some(ServerAction::Acked { type_url, generation: sent.generation });
        };
        let nack = Nack {
            generation: sent.generation,
            reason: Str::from(bounded(&error.message, MAX_REASON_BYTES)),
            rejections: rejections_of(error),
        };
        let mut kept = nack.clone();
        if !kept.rejections.is_empty() {
            let known: BTreeSet<_> = nack.rejections.iter().map(|rejection| &rejection.name).collect();
            kept.rejections.extend(standing.into_iter().filter(|rejection| !known.contains(&rejection.name)));
            kept.rejections.truncate(MAX_REJECTIONS);
        }
        self.rejected = kept.rejections.iter().map(|rejection| self.offer.version_of(&rejection.name)).collect();
        self.nack = Some(Box::new(kept));
        Some(ServerAction::Nacked { type_url, nack })
    }

    /// Whether the client runs something older than what it was offered, because it rejected that.
    pub(super) fn keeps_old(&self) -> bool {
        let covers = |rejection: &Rejection| self.subscription.covers(&rejection.name);
        self.nack.as_ref().is_some_and(|nack| {
            !self.subscription.is_empty() && (nack.rejections.is_empty() || nack.rejections.iter().any(covers))
        })
    }

    /// Rejected resources that are still offered in the version that was rejected: an ACK of others does not clear them.
    fn standing_rejections(&self) -> Vec<Rejection> {
        let rejections = self.nack.iter().flat_map(|nack| &nack.rejections).zip(&self.rejected);
        rejections
            .filter(|(rejection, version)| version.is_some() && self.offer.version_of(&rejection.name) == **version)
            .map(|(rejection, _)| rejection.clone())
            .collect()
    }

    /// All that the subscription sees of `set` was offered.
    pub(super) fn settle(&mut self, set: &Arc<TypeSet>) {
        self.resubscribed = false;
        if !self.offer.is_settled(set) {
            self.offer.settle(set);
        }
    }

    pub(super) const fn record_sent(&mut self, nonce: Nonce, generation: u64) {
        self.in_flight = Some(Sent { nonce, generation });
        self.last_nonce = Some(nonce);
        self.sent = Some(generation);
        self.owes_answer = false;
    }
}
