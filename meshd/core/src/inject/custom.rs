//! Templates of one's own: Go template text in the injector's configuration. istio/istio: pkg/kube/inject/template.go.
//!
//! What a template sees has Go's names (`.Spec.Containers`, `.ObjectMeta.Annotations`): the data hold both those and the
//! names of JSON, and what is written out as JSON or YAML gets the latter only.

mod data;
mod functions;

use std::collections::BTreeMap;

use mesh_api::{inject::config::InjectorConfig, parse, text::Str};
use mesh_api_gotmpl::{Missing, Templates};
use serde_json::Value;

use super::{ConfigError, Refusal, template};

/// The texts of a configuration, read once.
#[derive(Clone, Debug, Default)]
pub(super) struct Custom {
    templates: BTreeMap<Str, Templates>,
}

impl Custom {
    /// Reads all templates.
    pub(super) fn parse(config: &InjectorConfig) -> Result<Self, ConfigError> {
        let mut templates = BTreeMap::new();
        for (name, text) in &config.templates {
            // Each text has its own definitions, as in Istio.
            let mut engine = functions::all(Templates::new());
            engine.missing = Missing::Empty;
            engine.add(name, text).map_err(|source| ConfigError::Template { name: name.clone(), source })?;
            templates.insert(name.clone(), engine);
        }
        Ok(Self { templates })
    }

    /// Names of the templates.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.templates.keys().map(Str::as_str)
    }

    /// Renders a template; `None` when there is none of that name.
    pub(super) fn render(&self, name: &str, data: &template::Data<'_>) -> Option<Result<Value, Refusal>> {
        let (name, engine) = self.templates.iter().find(|(own, _)| *own == name)?;
        let failed = |why: String| Refusal::new(format!("template {name:?} of the injector's configuration: {why}"));
        Some(engine.render(name, &data::of(data)).map_err(|error| failed(error.to_string())).and_then(|text| {
            match parse::parse_value(&text, "rendered template") {
                Ok(value @ Value::Object(_)) => Ok(value),
                Ok(Value::Null) => Ok(Value::Object(serde_json::Map::new())),
                Ok(_) => Err(failed("it does not render to a pod".to_owned())),
                Err(error) => Err(failed(format!("what it renders to is no YAML: {error}"))),
            }
        }))
    }
}
