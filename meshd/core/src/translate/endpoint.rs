//! Endpoint sets.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::labels::Selector;
use mesh_api::text::Str;
use mesh_api_xds::ir::endpoint::{Endpoint, EndpointSet, Locality, LocalityEndpoints};

use super::memo::ByPtr;
use crate::snapshot::endpoints::Instance;

/// Everything an endpoint set is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EndpointKey {
    /// Cluster name.
    pub(crate) cluster: Str,
    /// Endpoints of the service port.
    pub(crate) instances: ByPtr<[Instance]>,
    /// Labels of the subset.
    pub(crate) subset: Option<Selector>,
    /// Where the client is, when nearness counts.
    pub(crate) near: Option<Near>,
}

/// Where a client is, and how closely that is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Near {
    pub(crate) place: Locality,
    /// Sub-zones of a zone are told apart.
    pub(crate) subzones: bool,
}

/// Makes an endpoint set.
pub(crate) fn endpoint_set(key: &EndpointKey) -> EndpointSet {
    let mut groups: BTreeMap<(u32, Locality), Vec<Endpoint>> = BTreeMap::new();
    let chosen = key.instances.iter().filter(|i| key.subset.as_ref().is_none_or(|subset| subset.matches(&i.labels)));
    for instance in chosen {
        let distance = key.near.as_ref().map_or(0, |near| distance(near, &instance.locality));
        groups.entry((distance, instance.locality.clone())).or_default().push(Endpoint {
            address: instance.address.clone(),
            weight: instance.weight,
            health: instance.health(),
            tls: instance.tls(),
            workload: instance.workload(),
        });
    }
    // Priorities are contiguous: a level without endpoints does not exist.
    let mut levels: Vec<u32> = groups.keys().map(|(distance, _)| *distance).collect();
    levels.dedup();
    let localities = groups.into_iter().map(|((distance, locality), endpoints)| {
        let priority = levels.iter().position(|level| *level == distance).unwrap_or_default();
        LocalityEndpoints {
            locality,
            priority: u32::try_from(priority).unwrap_or(u32::MAX),
            weight: 0,
            endpoints: endpoints.into(),
        }
    });
    EndpointSet { cluster: key.cluster.clone(), localities: localities.collect() }
}

/// 0 the same sub-zone, 1 the same zone, 2 the same region, 3 elsewhere.
fn distance(near: &Near, locality: &Locality) -> u32 {
    let Near { place, subzones } = near;
    if place.region != locality.region {
        3
    } else if place.zone != locality.zone {
        2
    } else if *subzones && place.subzone != locality.subzone {
        1
    } else {
        0
    }
}

/// The endpoints of a port nobody serves; one address for all, so that keys are equal.
pub(crate) fn no_instances() -> Arc<[Instance]> {
    static NONE: std::sync::OnceLock<Arc<[Instance]>> = std::sync::OnceLock::new();
    Arc::clone(NONE.get_or_init(|| Arc::from([])))
}
