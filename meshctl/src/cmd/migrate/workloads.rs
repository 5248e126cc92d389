//! What pod templates say about their proxies: images of another proxy, variables and fields that it would not take.

use mesh_api::inject::variables::Refused;
use mesh_api::mesh_config::proxy::ProxyConfig;
use mesh_api::names::PROXY_CONFIG_ANNOTATION;
use serde_json::Value;

use super::{Row, Weight, of_finding, row};
use crate::objects::Found;

/// Where pod templates are.
const TEMPLATES: [&str; 2] = ["/spec/template", "/spec/jobTemplate/spec/template"];
/// The proxy's container.
const PROXY: &str = "istio-proxy";
/// What is in the names of Istio's proxy images.
const ISTIOS_IMAGE: &str = "/proxyv2";
const IMAGE_ANNOTATION: &str = "sidecar.istio.io/proxyImage";

pub(super) fn rows(found: &Found) -> Vec<Row> {
    let mut rows = Vec::new();
    for place in TEMPLATES {
        let Some(template) = found.subject.value.pointer(place) else { continue };
        let at = place.trim_start_matches('/').replace('/', ".");
        let annotation = |name: &str| template["metadata"]["annotations"][name].as_str();
        if let Some(image) = annotation(IMAGE_ANNOTATION) {
            rows.extend(of_image(found, &format!("{at}.metadata.annotations.{IMAGE_ANNOTATION}"), image));
        }
        if let Some(text) = annotation(PROXY_CONFIG_ANNOTATION) {
            rows.extend(proxy_config(found, &format!("{at}.metadata.annotations.{PROXY_CONFIG_ANNOTATION}"), text));
        }
        for list in ["initContainers", "containers"] {
            let all = template["spec"][list].as_array().into_iter().flatten().enumerate();
            for (index, container) in all.filter(|(_, container)| container["name"] == PROXY) {
                rows.extend(of_container(found, &format!("{at}.spec.{list}[{index}]"), container));
            }
        }
    }
    rows
}

fn of_image(found: &Found, field: &str, image: &str) -> Option<Row> {
    let todo = "leave the image to injection: no annotation, and `image: auto` for a gateway";
    image.contains(ISTIOS_IMAGE).then(|| row(found, Weight::Blocks, field, "the image is Istio's proxy", todo))
}

fn of_container(found: &Found, at: &str, container: &Value) -> Vec<Row> {
    let image = container["image"].as_str().unwrap_or_default();
    let mut rows: Vec<Row> = of_image(found, &format!("{at}.image"), image).into_iter().collect();
    for (index, variable) in container["env"].as_array().into_iter().flatten().enumerate() {
        let [name, value] = ["name", "value"].map(|field| variable[field].as_str().unwrap_or_default());
        rows.extend(of_variable(found, &format!("{at}.env[{index}]"), name, value));
    }
    rows
}

fn of_variable(found: &Found, field: &str, name: &str, value: &str) -> Option<Row> {
    let refused = Refused::find(name, value)?;
    Some(row(found, Weight::Blocks, field, format!("proxies with {name} do not start"), refused.instead))
}

/// A ProxyConfig in YAML; `field` is where its text stands.
pub(super) fn proxy_config(found: &Found, field: &str, text: &str) -> Vec<Row> {
    match ProxyConfig::parse(text) {
        Ok((config, findings)) => {
            let named = findings.iter().filter_map(|finding| of_finding(found, finding));
            let named = named.map(|named| Row { field: format!("{field}: {}", named.field), ..named });
            named.chain(metadata(found, field, &config)).collect()
        }
        Err(error) => {
            let field = format!("{field}: {}", error.path);
            vec![row(found, Weight::Blocks, &field, error.message.as_str(), "mend the field")]
        }
    }
}

/// Variables that a ProxyConfig gives to its proxies.
pub(super) fn metadata<'a>(
    found: &'a Found,
    field: &'a str,
    config: &'a ProxyConfig,
) -> impl Iterator<Item = Row> + 'a {
    config
        .proxy_metadata
        .iter()
        .filter_map(move |(name, value)| of_variable(found, &format!("{field}: proxyMetadata.{name}"), name, value))
}
