//! ProxyConfigs: those of the cluster, and on top of them those among the files, as if they were applied.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::core::ApiResource;
use mesh_api::crd::networking::proxy_config::ProxyConfig;
use mesh_api::kinds::Kind;
use mesh_api::object::{AnyObject, Object};
use mesh_api::parse;
use mesh_api::received::received;
use meshd_core::inject::ProxyConfigs;

use crate::error::CliError;
use crate::exit::Exit;
use crate::kube::client::Kube;

/// An object, shared.
type Config = Arc<Object<ProxyConfig>>;

/// All ProxyConfigs of a cluster, and what to note: a cluster may not have the kind, and not everybody may list it.
pub(super) async fn of_cluster(kube: &Kube) -> Result<(Vec<Config>, Vec<String>), CliError> {
    let info = Kind::ProxyConfig.info();
    let resource = ApiResource {
        group: info.group.to_owned(),
        version: info.versions.first().copied().unwrap_or_default().to_owned(),
        api_version: info.api_version(),
        kind: info.name.to_owned(),
        plural: info.plural.to_owned(),
    };
    let objects = match kube.list(&resource, None, None).await {
        Ok(objects) => objects,
        Err(error) if error.exit == Exit::User => {
            return Ok((
                Vec::new(),
                vec![format!("note: ProxyConfigs of the cluster do not count: {}", error.message)],
            ));
        }
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for object in objects {
        let text = serde_json::to_string(&object).unwrap_or_default();
        if let Ok(AnyObject::ProxyConfig(config)) = received(Kind::ProxyConfig, &text).map(|received| received.object) {
            found.push(config);
        }
    }
    Ok((found, Vec::new()))
}

/// Those of the cluster with those of the texts on top; `namespace` is that of objects that name none.
pub(super) fn of(cluster: Vec<Config>, texts: &[(String, String)], namespace: &str) -> ProxyConfigs {
    let key = |config: &Config| (config.meta.namespace.clone(), config.meta.name.clone());
    let mut all: BTreeMap<_, Config> = cluster.into_iter().map(|config| (key(&config), config)).collect();
    // Most files have none: nobody waits for all of them to be parsed.
    for (_, text) in texts.iter().filter(|(_, text)| text.contains(Kind::ProxyConfig.as_str())) {
        for item in parse::parse(text, namespace).objects.into_iter().flatten() {
            if let AnyObject::ProxyConfig(config) = item.object {
                all.insert(key(&config), config);
            }
        }
    }
    ProxyConfigs::new(all.values().map(|config| &**config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str, concurrency: u32) -> (String, String) {
        let text = format!(
            "kind: Deployment\n---\napiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\n\
             metadata: {{name: {name}}}\nspec: {{concurrency: {concurrency}}}\n"
        );
        ("a.yaml".to_owned(), text)
    }

    #[test]
    fn files_count_as_if_they_were_applied() {
        let parsed = parse::parse(&text("one", 1).1, "shop").objects;
        let cluster: Vec<Config> = parsed
            .into_iter()
            .flatten()
            .filter_map(|item| match item.object {
                AnyObject::ProxyConfig(config) => Some(config),
                _ => None,
            })
            .collect();
        assert_eq!(cluster.len(), 1);
        let same = of(cluster.clone(), &[], "shop");
        assert_eq!(of(cluster.clone(), &[text("one", 1)], "shop"), same);
        assert_ne!(of(cluster.clone(), &[text("one", 2)], "shop"), same, "replaced");
        assert_ne!(of(cluster, &[text("two", 1)], "shop"), same, "beside it");
    }
}
