//! `/config_dump` in the shape of Envoy's `admin.v3.ConfigDump`, as `istioctl proxy-config` reads it.
//!
//! Parameters are Envoy's: `resource` (one repeated field, its elements only), `mask` (fields of sections), `name_regex`,
//! `include_eds`. Secrets come without their keys.

mod json;
mod schema;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::StatusCode;
use mesh_api::text::Str;
use mesh_api_rt::admin::{Request, Response, Router};
use mesh_api_xds::encoded::Version;
use mesh_api_xds::ir::secret::{Secret, SecretContent};
use mesh_api_xds::type_url::TypeUrl;
use regex::Regex;
use serde_json::{Map, Value, json};

use self::schema::Schema;
use super::{Admin, server_info};
use crate::config::held::Resource;

/// Longest regular expression in a parameter, bytes.
const MAX_REGEX_BYTES: usize = 1024;

/// A list of a section, with its field.
type List = (&'static str, Vec<Value>);

/// A section of the dump, and the names of its lists.
struct Section {
    message: &'static str,
    /// All fields that a mask may name; only those of the dynamic resources ever hold something.
    fields: &'static [&'static str],
    fill: fn(&Dump<'_>) -> Vec<List>,
}

const SECTIONS: [Section; 6] = [
    Section { message: "BootstrapConfigDump", fields: &["bootstrap", "last_updated"], fill: |_| Vec::new() },
    Section {
        message: "ClustersConfigDump",
        fields: &["version_info", "static_clusters", "dynamic_active_clusters", "dynamic_warming_clusters"],
        fill: |dump| vec![dump.clusters()],
    },
    Section {
        message: "EndpointsConfigDump",
        fields: &["static_endpoint_configs", "dynamic_endpoint_configs"],
        fill: |dump| vec![dump.endpoints()],
    },
    Section {
        message: "ListenersConfigDump",
        fields: &["version_info", "static_listeners", "dynamic_listeners"],
        fill: |dump| vec![dump.listeners()],
    },
    Section {
        message: "RoutesConfigDump",
        fields: &["static_route_configs", "dynamic_route_configs"],
        fill: |dump| vec![dump.routes()],
    },
    Section {
        message: "SecretsConfigDump",
        fields: &["static_secrets", "dynamic_active_secrets", "dynamic_warming_secrets"],
        fill: |dump| vec![dump.secrets()],
    },
];

/// Adds the page.
pub(super) fn pages(router: Router, admin: &Arc<Admin>) -> Router {
    let admin = Arc::clone(admin);
    router.get(
        "/config_dump",
        "Configuration, as JSON: ?resource=, ?mask=, ?name_regex=, ?include_eds",
        move |request| match answer(&admin, &request) {
            Ok(value) => Response::json(&value),
            Err(problem) => Response::text(StatusCode::BAD_REQUEST, format!("{problem}\n")),
        },
    )
}

/// What is asked for.
#[derive(Debug, Default)]
struct Asked {
    resource: Option<String>,
    mask: Vec<String>,
    include_eds: bool,
}

/// What a dump is made of.
struct Dump<'a> {
    admin: &'a Admin,
    schema: Schema,
    names: Option<Regex>,
}

fn answer(admin: &Admin, request: &Request) -> Result<Value, String> {
    let mut asked = Asked::default();
    let mut names = None;
    for (key, value) in request.query() {
        match &*key {
            "resource" => asked.resource = Some(value.into_owned()),
            "mask" => asked.mask.extend(value.split(',').map(str::to_owned)),
            "include_eds" => asked.include_eds = true,
            "name_regex" if value.len() > MAX_REGEX_BYTES => return Err("name_regex is too long".to_owned()),
            "name_regex" => {
                names = Some(Regex::new(&value).map_err(|error| format!("name_regex: {error}"))?);
            }
            other => return Err(format!("unknown parameter {other}; known: resource, mask, name_regex, include_eds")),
        }
    }
    let dump = Dump { admin, schema: Schema::read(), names };
    match &asked.resource {
        Some(resource) => dump.elements(resource, &asked),
        None => dump.sections(&asked),
    }
}

impl Dump<'_> {
    /// All sections, with the fields that the mask leaves.
    fn sections(&self, asked: &Asked) -> Result<Value, String> {
        let known = |field: &String| SECTIONS.iter().any(|section| section.fields.contains(&field.as_str()));
        if let Some(unknown) = asked.mask.iter().find(|field| !known(field)) {
            return Err(format!("mask names {unknown}, which no section has"));
        }
        let wanted = |field: &str| asked.mask.is_empty() || asked.mask.iter().any(|masked| masked == field);
        let mut configs = Vec::new();
        for section in &SECTIONS {
            let by_mask = !asked.mask.is_empty() && section.fields.iter().any(|field| wanted(field));
            let by_default = asked.mask.is_empty() && (section.message != "EndpointsConfigDump" || asked.include_eds);
            if !(by_mask || by_default) {
                continue;
            }
            let mut object = Map::new();
            object.insert("@type".to_owned(), type_of(section.message));
            if section.message == "BootstrapConfigDump" {
                object.extend(self.bootstrap().into_iter().filter(|(field, _)| wanted(field)));
            }
            if section.fields.contains(&"version_info") && wanted("version_info") {
                object.insert("version_info".to_owned(), Value::from(self.generation()));
            }
            for (field, elements) in (section.fill)(self) {
                if wanted(field) {
                    object.insert(field.to_owned(), Value::Array(elements));
                }
            }
            configs.push(Value::Object(object));
        }
        Ok(json!({ "configs": configs }))
    }

    /// The elements of one list, each with its type and the fields that the mask leaves.
    fn elements(&self, resource: &str, asked: &Asked) -> Result<Value, String> {
        let section = SECTIONS
            .iter()
            .find(|section| section.fields.contains(&resource))
            .ok_or_else(|| format!("{resource} not found in config dump"))?;
        let element = match resource {
            "static_clusters" => "StaticCluster",
            "dynamic_active_clusters" | "dynamic_warming_clusters" => "DynamicCluster",
            "static_endpoint_configs" => "StaticEndpointConfig",
            "dynamic_endpoint_configs" => "DynamicEndpointConfig",
            "static_listeners" => "StaticListener",
            "dynamic_listeners" => "DynamicListener",
            "static_route_configs" => "StaticRouteConfig",
            "dynamic_route_configs" => "DynamicRouteConfig",
            "static_secrets" => "StaticSecret",
            "dynamic_active_secrets" | "dynamic_warming_secrets" => "DynamicSecret",
            single => return Err(format!("{single} is not a repeated field; use mask={single}")),
        };
        let lists = (section.fill)(self);
        let elements = lists.into_iter().filter(|(field, _)| *field == resource).flat_map(|(_, elements)| elements);
        let configs: Vec<_> = elements
            .map(|mut value| {
                if let Value::Object(object) = &mut value {
                    if !asked.mask.is_empty() {
                        object.retain(|field, _| asked.mask.iter().any(|mask| first_field(mask) == field));
                    }
                    object.insert("@type".to_owned(), type_of(&format!("{}.{element}", section.message)));
                }
                value
            })
            .collect();
        Ok(json!({ "configs": configs }))
    }

    fn bootstrap(&self) -> Map<String, Value> {
        let settings = &self.admin.context.bootstrap;
        let (address, port) = settings.admin;
        let admin = super::clusters::socket_address((address, port).into());
        let started = server_info::moment(self.admin.started_at);
        let bootstrap = json!({ "node": self.admin.node(), "admin": { "address": admin } });
        [("bootstrap".to_owned(), bootstrap), ("last_updated".to_owned(), Value::from(started))].into_iter().collect()
    }

    fn generation(&self) -> String {
        self.admin.context.shared.store.live().plan.mark().generation.to_string()
    }

    fn clusters(&self) -> List {
        ("dynamic_active_clusters", self.held(TypeUrl::Cluster, "cluster"))
    }

    fn endpoints(&self) -> List {
        ("dynamic_endpoint_configs", self.held(TypeUrl::Endpoint, "endpoint_config"))
    }

    fn listeners(&self) -> List {
        let resources = self.admin.context.shared.store.held.of(TypeUrl::Listener);
        let wanted = resources.into_iter().filter(|(name, _)| self.is_wanted(name));
        let listeners = wanted.map(|(name, resource)| {
            let mut state = self.element(TypeUrl::Listener, "listener", &resource);
            // Of a listener, the error belongs beside its state.
            let error = state.remove("error_state");
            let client_status = state.remove("client_status");
            let mut listener = Map::new();
            listener.insert("name".to_owned(), Value::from(&*name));
            listener.insert("active_state".to_owned(), Value::Object(state));
            listener.extend(error.map(|error| ("error_state".to_owned(), error)));
            listener.extend(client_status.map(|status| ("client_status".to_owned(), status)));
            Value::Object(listener)
        });
        ("dynamic_listeners", listeners.collect())
    }

    /// Route configurations whose virtual hosts were sent apart are put together again.
    fn routes(&self) -> List {
        let hosts = self.admin.context.shared.store.held.of(TypeUrl::VirtualHost);
        let mut routes = self.held(TypeUrl::RouteConfiguration, "route_config");
        for config in routes.iter_mut().filter_map(|route| route.get_mut("route_config")?.as_object_mut()) {
            if config.remove("vhds").is_none() {
                continue;
            }
            let prefix = format!("{}/", config.get("name").and_then(Value::as_str).unwrap_or_default());
            let own = hosts.iter().filter(|(name, _)| name.starts_with(&prefix));
            let own: Vec<_> = own
                .map(|(_, host)| {
                    let mut host = self.message(TypeUrl::VirtualHost, host);
                    host.as_object_mut().map(|host| host.remove("@type"));
                    host
                })
                .collect();
            config.insert("virtual_hosts".to_owned(), Value::Array(own));
        }
        ("dynamic_route_configs", routes)
    }

    fn secrets(&self) -> List {
        let live = self.admin.context.shared.store.live();
        let wanted = live.plan.secrets().filter(|secret| self.is_wanted(&secret.name));
        ("dynamic_active_secrets", wanted.map(|secret| secret_entry(secret)).collect())
    }

    fn held(&self, type_url: TypeUrl, field: &str) -> Vec<Value> {
        let resources = self.admin.context.shared.store.held.of(type_url);
        let wanted = resources.iter().filter(|(name, _)| self.is_wanted(name));
        wanted.map(|(_, resource)| Value::Object(self.element(type_url, field, resource))).collect()
    }

    fn is_wanted(&self, name: &Str) -> bool {
        self.names.as_ref().is_none_or(|names| names.is_match(name))
    }

    fn element(&self, type_url: TypeUrl, field: &str, resource: &Resource) -> Map<String, Value> {
        let mut object = Map::new();
        let received = server_info::moment(resource.received);
        object.insert("version_info".to_owned(), Value::from(&*resource.version));
        object.insert(field.to_owned(), self.message(type_url, resource));
        object.insert("last_updated".to_owned(), Value::from(received.clone()));
        let status = if resource.rejected.is_some() { "NACKED" } else { "ACKED" };
        object.insert("client_status".to_owned(), Value::from(status));
        if let Some(details) = &resource.rejected {
            let error = json!({
                "details": details,
                "last_update_attempt": received,
                "version_info": &*resource.version,
            });
            object.insert("error_state".to_owned(), error);
        }
        object
    }

    fn message(&self, type_url: TypeUrl, resource: &Resource) -> Value {
        json::any(&self.schema, type_url.as_str(), &resource.bytes)
            .unwrap_or_else(|error| json!({ "@type": type_url.as_str(), "error": error.to_string() }))
    }
}

/// A mask of an element may name a path; its first step decides.
fn first_field(mask: &str) -> &str {
    mask.split('.').next().unwrap_or_default()
}

fn type_of(message: &str) -> Value {
    Value::from(format!("type.googleapis.com/envoy.admin.v3.{message}"))
}

/// `SecretsConfigDump.DynamicSecret`, without the key.
fn secret_entry(secret: &Secret) -> Value {
    let bytes = |content: &[u8]| json!({ "inline_bytes": BASE64.encode(content) });
    let mut message = json!({
        "@type": TypeUrl::Secret.as_str(),
        "name": &*secret.name,
    });
    let (field, content) = match &secret.content {
        SecretContent::Certificate { chain, .. } => {
            ("tls_certificate", json!({ "certificate_chain": bytes(chain), "private_key": bytes(b"[redacted]") }))
        }
        SecretContent::Trust(pem) => ("validation_context", json!({ "trusted_ca": bytes(pem) })),
    };
    if let Some(message) = message.as_object_mut() {
        message.insert(field.to_owned(), content);
    }
    // The version must not give away a hash of the key.
    let version = match &secret.content {
        SecretContent::Certificate { chain, .. } => Version::of(chain),
        SecretContent::Trust(pem) => Version::of(pem),
    };
    json!({
        "name": &*secret.name,
        "version_info": version.to_string(),
        "secret": message,
    })
}
