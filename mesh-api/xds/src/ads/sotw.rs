//! Whole states of one type (state-of-the-world variant, server side).

use std::sync::Arc;

use super::sub::Subscription;
use crate::discovery::{Any, DiscoveryResponse};
use crate::encoded::{Encoded, TypeSet, Version};
use crate::type_url::TypeUrl;

/// The resources of `set` that are subscribed to, in the order of their names.
fn covered<'a>(subscription: &Subscription, set: &'a TypeSet) -> Vec<&'a Arc<Encoded>> {
    if subscription.wildcard {
        return set.items().iter().collect();
    }
    let mut found: Vec<_> = subscription.names.iter().filter_map(|name| set.find(name)).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found.dedup_by(|a, b| a.name == b.name);
    found
}

/// Version of what a subscription sees of a set: equal content gives an equal version on every replica.
pub(super) fn version(subscription: &Subscription, set: &TypeSet) -> Version {
    let pairs: Vec<_> = covered(subscription, set).into_iter().map(|item| (&item.name, item.version)).collect();
    Version::of(&pairs)
}

/// The message that carries what a subscription sees of a set.
pub(super) fn response(
    type_url: TypeUrl,
    subscription: &Subscription,
    set: &TypeSet,
    version: Version,
    nonce: String,
) -> DiscoveryResponse {
    let any = |item: &Arc<Encoded>| Any { type_url: type_url.as_str().to_owned(), value: item.bytes.clone() };
    DiscoveryResponse {
        version_info: version.to_string(),
        resources: covered(subscription, set).into_iter().map(any).collect(),
        type_url: type_url.as_str().to_owned(),
        nonce,
    }
}
