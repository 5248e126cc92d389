//! Volumes of the proxy, and where they are mounted.

use serde_json::{Value, json};

use super::{Data, empty_dir, mount};
use crate::inject::{Refusal, annotations, view};

/// Volumes of both templates, in the order of Istio's. `crl` adds the list of revoked certificates.
pub(super) fn volumes(data: &Data<'_>, crl: bool) -> Vec<Value> {
    let values = &data.injector.values;
    let field = |path: &str, field: &str| json!({ "path": path, "fieldRef": { "fieldPath": field } });
    let token = json!({ "path": "istio-token", "expirationSeconds": 43200, "audience": values.token_audience });
    let mut volumes = vec![
        empty_dir("workload-socket"),
        empty_dir("credential-socket"),
        empty_dir("workload-certs"),
        json!({ "name": "istio-envoy", "emptyDir": { "medium": "Memory" } }),
        empty_dir("istio-data"),
        json!({
            "name": "istio-podinfo",
            "downwardAPI": {
                "items": [field("labels", "metadata.labels"), field("annotations", "metadata.annotations")],
            },
        }),
        json!({ "name": "istio-token", "projected": { "sources": [{ "serviceAccountToken": token }] } }),
    ];
    if values.cert_provider == "istiod" {
        let name = |default: &str| match values.trust_bundle_name.as_str() {
            "" => default.to_owned(),
            named => named.to_owned(),
        };
        volumes.push(if values.cluster_trust_bundle {
            let bundle = format!("istio.io:istiod-ca:{}", name("root-cert"));
            let source = json!({ "clusterTrustBundle": { "name": bundle, "path": "root-cert.pem" } });
            json!({ "name": "istiod-ca-cert", "projected": { "sources": [source] } })
        } else {
            json!({ "name": "istiod-ca-cert", "configMap": { "name": name("istio-ca-root-cert") } })
        });
    }
    if crl {
        let map = json!({ "name": values.crl_config_map, "optional": true });
        volumes.push(json!({ "name": "istio-ca-crl", "configMap": map }));
    }
    volumes
}

/// Where the proxy finds them.
pub(super) fn mounts(data: &Data<'_>, crl: bool) -> Vec<Value> {
    let mut mounts = vec![
        mount("workload-socket", "/var/run/secrets/workload-spiffe-uds"),
        mount("credential-socket", "/var/run/secrets/credential-uds"),
        mount("workload-certs", "/var/run/secrets/workload-spiffe-credentials"),
    ];
    if data.injector.values.cert_provider == "istiod" {
        mounts.push(mount("istiod-ca-cert", "/var/run/secrets/istio"));
        if crl {
            mounts.push(mount("istio-ca-crl", "/var/run/secrets/istio/crl"));
        }
    }
    mounts.push(mount("istio-data", "/var/lib/istio/data"));
    mounts.push(mount("istio-envoy", "/etc/istio/proxy"));
    mounts.push(mount("istio-token", "/var/run/secrets/tokens"));
    mounts.push(mount("istio-podinfo", "/etc/istio/pod"));
    mounts
}

/// Volumes or mounts that an annotation of the pod adds, a JSON object by name.
pub(super) fn of_user(data: &Data<'_>, annotation: &str) -> Result<Vec<Value>, Refusal> {
    let Some(text) = view::annotation(data.pod, annotation) else { return Ok(Vec::new()) };
    let objects = annotations::objects(text)
        .map_err(|why| Refusal::new(format!("invalid value '{text}' for annotation '{annotation}': {why}")))?;
    let named = objects.into_iter().map(|(name, mut fields)| {
        fields.insert("name".to_owned(), name.into());
        Value::Object(fields)
    });
    Ok(named.collect())
}
