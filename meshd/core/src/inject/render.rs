//! The way of a pod through injection.

use std::collections::BTreeMap;

use mesh_api::mesh_config::proxy::{InterceptionMode, ProxyConfig};
use serde_json::{Value, json};

use super::{
    Facts, Injected, Injector, Owner, Refusal, annotations, image, merge, metrics, order,
    overrides::{self, Earlier},
    platform, probes, template, view,
};

/// Variables and annotation about cluster and network.
const CLUSTER_ID: &str = "ISTIO_META_CLUSTER_ID";
const NETWORK: &str = "ISTIO_META_NETWORK";
const NETWORK_LABEL: &str = mesh_api::names::NETWORK_LABEL;

/// Injects a pod.
pub(super) fn inject(injector: &Injector, pod: &Value, facts: &Facts) -> Result<Injected, Refusal> {
    if view::list(pod, "containers").is_empty() {
        return Err(Refusal::new("the pod has no containers (spec.containers)"));
    }
    let mut warnings = annotations::check(pod)?;
    warnings.extend(remarks(pod));
    warnings.extend(platform::shared_ids(pod, platform::proxy_ids(facts)));
    let (proxy, more) = proxy_config(injector, pod, facts)?;
    warnings.extend(more);
    let port = proxy.status_port.and_then(|port| u16::try_from(port).ok()).unwrap_or(injector.values.proxy.status_port);
    let port = match view::annotation(pod, "status.sidecar.istio.io/port") {
        Some(text) => annotations::port(text).map_err(Refusal::new)?,
        None => port,
    };
    let earlier = Earlier::of_pod(pod)?;
    let stripped = earlier.stripped(pod, port);
    let owner = facts.owner.clone().unwrap_or_else(|| Owner::of_pod(pod, &facts.namespace));
    let native = match view::annotation(pod, "sidecar.istio.io/nativeSidecar") {
        Some(text) => text == "true",
        None => facts.native_sidecar,
    };
    let data = template::Data {
        injector,
        pod: &stripped,
        owner: &owner,
        proxy: &proxy,
        native,
        ids: platform::proxy_ids(facts),
        proxy_image: image::reference(&injector.values, &injector.values.proxy.image, wish(&stripped, &proxy, true))?,
        init_image: image::reference(&injector.values, &injector.values.init_image, wish(&stripped, &proxy, false))?,
    };
    let (mut merged, template) = apply_templates(pod, &data)?;
    merged = overrides::reapply(merged, pod, &template, &earlier);
    let tproxy = proxy.interception_mode() == InterceptionMode::Tproxy
        || view::annotation(pod, "sidecar.istio.io/interceptionMode") == Some("TPROXY");
    overrides::adjust_user(&mut merged, pod, tproxy);
    let network = set_cluster(&mut merged, injector, pod, facts);
    if port != 0 {
        metrics::merge(&mut merged, &injector.mesh, port)?;
        if rewrites_probes(injector, pod) {
            probes::rewrite(&mut merged, port);
        }
    }
    if let Some(network) = network {
        view::labels_mut(&mut merged).insert(NETWORK_LABEL.to_owned(), network.into());
    }
    let annotations = view::annotations_mut(&mut merged);
    annotations.insert(overrides::STATUS.to_owned(), status(&template, &injector.revision).into());
    for (name, value) in &injector.config.injected_annotations {
        annotations.insert(name.to_string(), value.as_str().into());
    }
    let hold = proxy.hold_application_until_proxy_starts == Some(true) || injector.values.proxy.hold_application;
    order::reorder(&mut merged, hold);
    Ok(Injected { pod: merged, warnings })
}

/// What is worth knowing about a pod, though it is injected.
fn remarks(pod: &Value) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(policy) = view::text(pod, "/spec/dnsPolicy").filter(|policy| !matches!(*policy, "" | "ClusterFirst")) {
        remarks.push(format!("dnsPolicy is {policy}: the proxy may not find the control plane, which is a Service"));
    }
    if let Some(image) = view::annotation(pod, "sidecar.istio.io/proxyImage").filter(|image| !image.contains('/')) {
        remarks.push(format!(
            "annotation 'sidecar.istio.io/proxyImage' has no effect: {image:?} is no whole reference (it has no '/')"
        ));
    }
    remarks
}

/// The mesh's configuration of proxies with the namespace's and the pod's on top. Older annotations for single fields come
/// between.
fn proxy_config(injector: &Injector, pod: &Value, facts: &Facts) -> Result<(ProxyConfig, Vec<String>), Refusal> {
    let mut config = injector.mesh.default_config.clone().unwrap_or_default();
    let (configs, root) = (&facts.proxy_configs, injector.mesh.root_namespace());
    let own = view::text(pod, "/metadata/namespace").filter(|namespace| !namespace.is_empty());
    let namespace = own.unwrap_or(&facts.namespace);
    // In the root namespace the mesh's is the namespace's.
    for namespace in [Some(root), Some(namespace).filter(|namespace| *namespace != root)].into_iter().flatten() {
        if let Some(wider) = configs.of_namespace(namespace) {
            config = config.overlaid(wider);
        }
    }
    if let Some(address) = view::annotation(pod, "sidecar.istio.io/discoveryAddress").filter(|text| !text.is_empty()) {
        config.discovery_address = Some(address.into());
    }
    let mut warnings = Vec::new();
    if let Some(text) = view::annotation(pod, "proxy.istio.io/config") {
        let (own, more) = annotations::proxy_config(text).map_err(Refusal::new)?;
        config = config.overlaid(&own);
        warnings = more;
    }
    if let Some(selecting) = configs.of_labels(namespace, &view::labels(pod)) {
        config = config.overlaid(selecting);
    }
    // The agent must listen where probes and rules are led to.
    let port = view::annotation(pod, "status.sidecar.istio.io/port").and_then(|text| annotations::port(text).ok());
    let port = port.or_else(|| config.status_port.is_none().then_some(injector.values.proxy.status_port));
    if let Some(port) = port.filter(|port| *port != 0) {
        config.status_port = Some(u32::from(port));
    }
    Ok((config, warnings))
}

fn wish<'a>(pod: &'a Value, proxy: &'a ProxyConfig, of_proxy: bool) -> image::Wish<'a> {
    image::Wish {
        image: view::annotation(pod, "sidecar.istio.io/proxyImage"),
        variant: view::annotation(pod, "sidecar.istio.io/proxyImageType"),
        configured: proxy.image.as_ref().map(|image| image.image_type.as_str()).filter(|_| of_proxy),
    }
}

/// The pod with all templates on top, and the templates by themselves.
fn apply_templates(pod: &Value, data: &template::Data<'_>) -> Result<(Value, Value), Refusal> {
    let (mut merged, mut all) = (pod.clone(), json!({}));
    for name in chosen(data.injector, pod) {
        let rendered = render(&name, data)?;
        all = merge::merge(&all, &rendered);
        overrides::align_proxy(&mut merged, &all);
        merged = merge::merge(&merged, &rendered);
    }
    Ok((merged, all))
}

/// The names of the templates that the pod asks for, or of the default ones, aliases resolved.
fn chosen(injector: &Injector, pod: &Value) -> Vec<String> {
    let asked: Vec<&str> = match view::annotation(pod, "inject.istio.io/templates") {
        Some(names) => names.split(',').map(str::trim).collect(),
        None => injector.config.default_templates(),
    };
    let resolved = asked.into_iter().flat_map(|name| match injector.config.aliases.iter().find(|(a, _)| *a == name) {
        Some((_, names)) => names.iter().map(ToString::to_string).collect(),
        None => vec![name.to_owned()],
    });
    resolved.collect()
}

/// Renders a template: one of the configuration, else a built-in one.
fn render(name: &str, data: &template::Data<'_>) -> Result<Value, Refusal> {
    let custom = &data.injector.custom;
    custom.render(name, data).or_else(|| template::render(name, data)).unwrap_or_else(|| {
        let known: Vec<&str> = template::BUILT_IN.into_iter().chain(custom.names()).collect();
        Err(Refusal::new(format!("requested template {name:?} not found; have {}", known.join(", "))))
    })
}

/// Sets cluster and network as the webhook's path, the pod's label and the values say it. Gives the network.
fn set_cluster(merged: &mut Value, injector: &Injector, pod: &Value, facts: &Facts) -> Option<String> {
    let mut env: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, value) in [(CLUSTER_ID, &injector.values.cluster_name), (NETWORK, &injector.values.network)] {
        if !value.is_empty() {
            env.insert(name, value);
        }
    }
    let by_path =
        facts.env.iter().filter(|(name, value)| !value.is_empty() || ![CLUSTER_ID, NETWORK].contains(&name.as_str()));
    env.extend(by_path.map(|(name, value)| (name.as_str(), value.as_str())));
    if let Some(network) = view::filled_label(pod, NETWORK_LABEL) {
        env.insert(NETWORK, network);
    }
    if let Some(proxy) = view::proxy_mut(merged) {
        let list = view::inner_list(proxy, "env");
        for (name, value) in &env {
            let variable = json!({ "name": name, "value": value });
            match list.iter_mut().find(|known| view::name(known) == *name) {
                // In place, so that a second injection changes nothing.
                Some(known) => *known = variable,
                None => list.push(variable),
            }
        }
    }
    env.get(NETWORK).map(|network| (*network).to_owned())
}

fn rewrites_probes(injector: &Injector, pod: &Value) -> bool {
    let annotated = view::annotation(pod, "sidecar.istio.io/rewriteAppHTTPProbers").and_then(view::go_bool);
    annotated.unwrap_or(injector.values.rewrite_probes)
}

/// What was added, for a second injection and for tools: a JSON object of names.
fn status(template: &Value, revision: &str) -> String {
    let names = |field: &str| -> Value {
        let names: Vec<&str> = view::list(template, field).iter().map(view::name).collect();
        if names.is_empty() { Value::Null } else { json!(names) }
    };
    json!({
        "initContainers": names("initContainers"),
        "containers": names("containers"),
        "volumes": names("volumes"),
        "imagePullSecrets": names("imagePullSecrets"),
        "revision": revision,
    })
    .to_string()
}
