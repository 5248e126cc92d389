//! How the mesh was set up: mesh configuration, settings of an installation, configuration of injection.

use std::collections::BTreeSet;

use mesh_api::inject::config::{GATEWAY_TEMPLATE, InjectorConfig, SIDECAR_TEMPLATE};
use mesh_api::mesh_config::MeshConfig;
use mesh_api::names;
use meshd_core::analyze::{Sort, Subject};

use super::{Row, Weight, of_finding, row, workloads};
use crate::install::files::Files;
use crate::install::known;
use crate::objects::{Found, OPERATOR};

/// Templates that Istio's own charts bring.
const ISTIOS_TEMPLATES: [&str; 8] = [
    SIDECAR_TEMPLATE,
    GATEWAY_TEMPLATE,
    "grpc-simple",
    "grpc-agent",
    "waypoint",
    "kube-gateway",
    "agentgateway",
    "agentgateway-waypoint",
];
/// The ConfigMap of an injector's configuration.
const INJECTOR_MAP: &str = "istio-sidecar-injector";
/// The key of an injector's configuration.
const INJECTOR_KEY: &str = "config";

pub(super) fn rows(found: &Found) -> Vec<Row> {
    let subject = &found.subject;
    if subject.kind == OPERATOR {
        return operator(found);
    }
    if let Some(text) = text_of(subject, names::MESH_CONFIG_MAP, names::MESH_CONFIG_KEY) {
        return mesh_config(found, &format!("data.{}.", names::MESH_CONFIG_KEY), text);
    }
    match text_of(subject, INJECTOR_MAP, INJECTOR_KEY) {
        Some(text) => injector(found, text),
        None => Vec::new(),
    }
}

/// A text of a ConfigMap, if it is the one of this name of some revision.
fn text_of<'a>(subject: &'a Subject, name: &str, key: &str) -> Option<&'a str> {
    let rest = subject.name.strip_prefix(name)?;
    if subject.sort != Some(Sort::CONFIG_MAP) || !(rest.is_empty() || rest.starts_with('-')) {
        return None;
    }
    subject.value.get("data")?.get(key)?.as_str()
}

/// Fields of the mesh configuration that do not act, or cannot be read; `at` is what stands before them.
fn mesh_config(found: &Found, at: &str, text: &str) -> Vec<Row> {
    let (config, findings) = match MeshConfig::parse(text) {
        Ok(parsed) => parsed,
        Err(error) => {
            let field = format!("{at}{}", error.path);
            return vec![row(found, Weight::Blocks, &field, error.message.as_str(), "mend the field")];
        }
    };
    let mut seen = BTreeSet::new();
    let once = findings.iter().filter(|finding| seen.insert(finding.path.clone()));
    let mut rows: Vec<Row> = once
        .filter_map(|finding| Some(Row { field: format!("{at}{}", finding.path), ..of_finding(found, finding)? }))
        .collect();
    if let Some(proxies) = &config.default_config {
        rows.extend(workloads::metadata(found, &format!("{at}defaultConfig"), proxies));
    }
    rows
}

/// Settings of an installation that ours would refuse.
fn operator(found: &Found) -> Vec<Row> {
    let Some(spec) = found.subject.value.get("spec") else { return Vec::new() };
    let mut rows = Vec::new();
    match known::unknown(spec, &Files::embedded()) {
        Ok(unknown) => rows.extend(unknown.into_iter().map(|(path, what, near)| {
            let todo = near.map_or_else(|| "leave it out".to_owned(), |near| format!("leave it out, or write {near}"));
            row(found, Weight::Blocks, &format!("spec.{path}"), what, todo)
        })),
        Err(error) => rows.push(row(found, Weight::Blocks, "spec", error.message, "mend the field")),
    }
    if let Some(config) = spec.get("meshConfig") {
        rows.extend(mesh_config(found, "spec.meshConfig.", &config.to_string()));
    }
    rows
}

/// What was changed of injection: an installation of ours does not find it by itself.
fn injector(found: &Found, text: &str) -> Vec<Row> {
    let Ok((config, _)) = InjectorConfig::parse(text) else { return Vec::new() };
    let field = |path: &str| format!("data.{INJECTOR_KEY}.{path}");
    let todo = "set sidecarInjectorWebhook.";
    let mut rows = Vec::new();
    for name in config.templates.keys().filter(|name| !ISTIOS_TEMPLATES.contains(&name.as_str())) {
        let todo = format!("{todo}templates.{name} at the installation, and try it with `meshctl inject`");
        rows.push(row(found, Weight::Differs, &field(&format!("templates.{name}")), "a template of one's own", todo));
    }
    let selectors = [
        ("neverInjectSelector", &config.never_inject_selector),
        ("alwaysInjectSelector", &config.always_inject_selector),
    ];
    for (name, _) in selectors.iter().filter(|(_, selectors)| !selectors.is_empty()) {
        rows.push(row(
            found,
            Weight::Differs,
            &field(name),
            "selectors of one's own",
            format!("{todo}{name} at the installation"),
        ));
    }
    if config.policy.as_deref() == Some("disabled") {
        rows.push(row(
            found,
            Weight::Differs,
            &field("policy"),
            "only pods that ask are injected",
            "set global.proxy.autoInject=disabled at the installation",
        ));
    }
    rows
}
