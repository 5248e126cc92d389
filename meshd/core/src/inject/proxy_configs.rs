//! The ProxyConfigs of a cluster, and which of them apply to a pod. istio/istio: pilot/pkg/model/proxy_config.go.
//!
//! From the widest to the narrowest: the mesh configuration, the ProxyConfig of the root namespace, that of the pod's, the
//! annotation `proxy.istio.io/config`, the ProxyConfig that selects the pod. Of several of one width the oldest counts.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use mesh_api::crd::networking::proxy_config::ProxyConfig as Spec;
use mesh_api::ids::Namespace;
use mesh_api::labels::{Labels, Selector};
use mesh_api::mesh_config::proxy::{ProxyConfig, ProxyImage};
use mesh_api::meta::Meta;
use mesh_api::object::Object;

/// All of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProxyConfigs {
    /// Oldest first.
    by_namespace: BTreeMap<Namespace, Vec<Scoped>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Scoped {
    /// `None` for the whole namespace.
    selector: Option<Selector>,
    config: ProxyConfig,
}

impl ProxyConfigs {
    /// Takes objects in any order.
    pub fn new<'a>(objects: impl IntoIterator<Item = &'a Object<Spec>>) -> Self {
        let mut all: Vec<&Object<Spec>> = objects.into_iter().collect();
        all.sort_by(|a, b| -> Ordering { Meta::by_age(&a.meta, &b.meta) });
        let mut by_namespace: BTreeMap<Namespace, Vec<Scoped>> = BTreeMap::new();
        for object in all {
            let selector = object.spec.selector.as_ref().map(|selector| selector.match_labels.clone());
            let scoped = Scoped { selector, config: config(&object.spec) };
            by_namespace.entry(object.meta.namespace.clone()).or_default().push(scoped);
        }
        Self { by_namespace }
    }

    /// That of a whole namespace.
    pub(super) fn of_namespace(&self, namespace: &str) -> Option<&ProxyConfig> {
        let found = self.within(namespace).find(|scoped| scoped.selector.is_none());
        found.map(|scoped| &scoped.config)
    }

    /// That which selects pods with these labels. An empty selector selects nothing.
    pub(super) fn of_labels(&self, namespace: &str, labels: &Labels) -> Option<&ProxyConfig> {
        let selects = |scoped: &&Scoped| {
            scoped.selector.as_ref().is_some_and(|selector| !selector.is_empty() && selector.matches(labels))
        };
        self.within(namespace).find(selects).map(|scoped| &scoped.config)
    }

    fn within(&self, namespace: &str) -> impl Iterator<Item = &Scoped> {
        self.by_namespace.get(namespace).into_iter().flatten()
    }
}

/// What an object says, in the form of the mesh configuration.
fn config(spec: &Spec) -> ProxyConfig {
    ProxyConfig {
        concurrency: spec.concurrency,
        proxy_metadata: spec.environment_variables.clone(),
        image: spec.image.as_ref().map(|image| ProxyImage { image_type: image.image_type.clone() }),
        ..ProxyConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use mesh_api::object::AnyObject;
    use mesh_api::parse::parse;

    use super::*;

    fn mk(text: &str) -> ProxyConfigs {
        let objects: Vec<_> = parse(text, "shop")
            .objects
            .into_iter()
            .map(|item| match item.unwrap().object {
                AnyObject::ProxyConfig(object) => object,
                other => panic!("{other:?}"),
            })
            .collect();
        ProxyConfigs::new(objects.iter().map(|object| &**object))
    }

    #[test]
    fn the_oldest_of_a_width_counts() {
        let object = |name: &str, year: u32, spec: &str| {
            format!(
                "apiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\nmetadata: {{name: {name}, namespace: shop, \
                 creationTimestamp: {year}-01-01T00:00:00Z}}\nspec: {spec}\n---\n"
            )
        };
        let text = [
            object("young", 2025, "{concurrency: 1}"),
            object("old", 2024, "{concurrency: 2}"),
            object("web", 2025, "{selector: {matchLabels: {app: web}}, concurrency: 3}"),
            object("nothing", 2020, "{selector: {}, concurrency: 4}"),
        ]
        .concat();
        let configs = mk(&text);
        let concurrency = |config: Option<&ProxyConfig>| config.and_then(|config| config.concurrency);
        let labels = |app: &str| Labels::default().with("app", app);
        assert_eq!(concurrency(configs.of_namespace("shop")), Some(2));
        assert_eq!(concurrency(configs.of_namespace("other")), None);
        assert_eq!(concurrency(configs.of_labels("shop", &labels("web"))), Some(3));
        assert_eq!(concurrency(configs.of_labels("shop", &labels("orders"))), None);
        assert_eq!(concurrency(configs.of_labels("other", &labels("web"))), None);
    }
}
