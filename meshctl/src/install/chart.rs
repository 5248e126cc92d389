//! Rendering a chart as Helm does, without a cluster.

use mesh_api_gotmpl::{Templates, yaml};
use serde_json::{Map, Value, json};

use super::files::Files;
use super::object::Object;
use super::set::with_defaults;
use crate::error::CliError;

/// The Kubernetes version that charts are rendered for when no cluster is asked: the oldest that is supported.
pub const KUBE_VERSION: &str = "v1.32.0";

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    name: String,
    metadata: Value,
    /// Its own values, which users' are laid upon.
    pub values: Value,
    templates: Vec<(String, String)>,
    files: Map<String, Value>,
}

impl Chart {
    /// Reads the chart `name`.
    ///
    /// # Errors
    /// When a file lacks or cannot be read.
    pub fn read(files: &Files, name: &str) -> Result<Self, CliError> {
        let folder = format!("charts/{name}");
        let part = |file: &str| {
            let path = format!("{folder}/{file}");
            let text = files.get(&path).ok_or_else(|| CliError::user(format!("there is no {path}")))?;
            yaml::from_str(text).map_err(|error| CliError::user(format!("{path} is no YAML: {error}")))
        };
        let mut chart = Self {
            name: name.to_owned(),
            metadata: part("Chart.yaml")?,
            values: part("values.yaml")?,
            templates: Vec::new(),
            files: Map::new(),
        };
        for (path, text) in files.below(&folder) {
            if path.starts_with("templates/") {
                chart.templates.push((path.to_owned(), text.to_owned()));
            } else if path != "Chart.yaml" && path != "values.yaml" {
                chart.files.insert(path.to_owned(), text.into());
            }
        }
        Ok(chart)
    }

    /// The objects that the chart makes with these values on top of its own, in the order of its files.
    ///
    /// # Errors
    /// When a template cannot be read or run, or gives something else than objects.
    pub fn render(&self, release: &str, namespace: &str, values: &Value) -> Result<Vec<Object>, CliError> {
        let failed = |error: &mesh_api_gotmpl::Error| {
            CliError::user(format!("chart {} cannot be rendered", self.name)).because(error)
        };
        let mut templates = self.engine();
        let name_of = |path: &str| format!("{}/{path}", self.name);
        for (path, text) in &self.templates {
            templates.add(&name_of(path), text).map_err(|error| failed(&error))?;
        }
        let values = with_defaults(&self.values, values);
        let mut objects = Vec::new();
        for (path, _) in &self.templates {
            let last = path.rsplit('/').next().unwrap_or(path);
            if last.starts_with('_') || last == "NOTES.txt" {
                continue;
            }
            let data = self.data(release, namespace, &values, &name_of(path));
            let text = templates.render(&name_of(path), &data).map_err(|error| failed(&error))?;
            let documents = yaml::documents(&text).map_err(|error| {
                CliError::user(format!("chart {}: what {path} gives is no YAML: {error}", self.name))
            })?;
            for document in documents {
                let object = Object::new(document).ok_or_else(|| {
                    CliError::user(format!("chart {}: {path} gives something that is no object", self.name))
                })?;
                objects.push(object);
            }
        }
        Ok(objects)
    }

    fn engine(&self) -> Templates {
        let text = |arguments: &[Value], at: usize| {
            arguments.get(at).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| "takes a text".to_owned())
        };
        let (files, lines, matching) = (self.files.clone(), self.files.clone(), self.files.clone());
        Templates::new()
            .method("Get", move |a| Ok(files.get(&text(a, 1)?).cloned().unwrap_or_else(|| "".into())))
            .method("Lines", move |a| {
                let whole = lines.get(&text(a, 1)?).and_then(Value::as_str).unwrap_or_default();
                Ok(whole.trim_end_matches('\n').split('\n').collect())
            })
            .method("Glob", move |a| {
                let pattern = text(a, 1)?;
                let found = matching.iter().filter(|(path, _)| fits(&pattern, path));
                Ok(Value::Object(found.map(|(path, text)| (path.clone(), text.clone())).collect()))
            })
            .method("Has", move |a| {
                let wanted = a.get(1).cloned().unwrap_or_default();
                Ok(a.first().and_then(Value::as_array).is_some_and(|known| known.contains(&wanted)).into())
            })
    }

    fn data(&self, release: &str, namespace: &str, values: &Value, template: &str) -> Value {
        let field = |name: &str| self.metadata.get(name).cloned().unwrap_or_default();
        let (_, version) = KUBE_VERSION.split_at(1);
        let mut numbers = version.split('.');
        json!({
            "Values": values,
            "Release": {
                "Name": release, "Namespace": namespace, "Service": "Helm", "Revision": 1,
                "IsInstall": true, "IsUpgrade": false,
            },
            "Chart": {
                "Name": field("name"), "Version": field("version"), "AppVersion": field("appVersion"),
                "Description": field("description"), "Type": field("type"), "KubeVersion": field("kubeVersion"),
            },
            "Capabilities": {
                "KubeVersion": { "Version": KUBE_VERSION, "Major": numbers.next(), "Minor": numbers.next() },
                "APIVersions": ["v1", "apps/v1", "autoscaling/v2", "policy/v1", "networking.k8s.io/v1"],
            },
            "Files": {},
            "Template": { "Name": template, "BasePath": format!("{}/templates", self.name) },
        })
    }
}

/// Whether a path fits a pattern: `*` stands for anything but `/`.
fn fits(pattern: &str, path: &str) -> bool {
    let (patterns, parts) = (pattern.split('/'), path.split('/'));
    patterns.clone().count() == parts.clone().count()
        && patterns.zip(parts).all(|(pattern, part)| match pattern.split_once('*') {
            None => pattern == part,
            Some((before, after)) => {
                part.len() >= before.len() + after.len() && part.starts_with(before) && part.ends_with(after)
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_files_of_one_folder() {
        assert!(fits("files/crds/*.yaml", "files/crds/a.yaml"));
        assert!(!fits("files/*.yaml", "files/crds/a.yaml"));
        assert!(!fits("files/crds/*.yaml", "files/crds/a.txt"));
    }

    #[test]
    fn every_chart_can_be_rendered_with_its_own_values() {
        for (name, count) in [("istiod", 14), ("gateway", 6)] {
            let chart = Chart::read(&Files::embedded(), name).unwrap();
            assert_eq!(chart.render("x", "istio-system", &json!({})).unwrap().len(), count, "{name}");
        }
        let base = Chart::read(&Files::embedded(), "base").unwrap().render("x", "istio-system", &json!({})).unwrap();
        let kinds = mesh_api::kinds::Kind::ALL.iter().filter(|kind| kind.is_mesh()).count();
        assert_eq!(base.iter().filter(|object| object.kind() == "CustomResourceDefinition").count(), kinds);
    }

    #[test]
    fn a_broken_template_is_named_with_its_line() {
        let mut chart = Chart::read(&Files::embedded(), "gateway").unwrap();
        chart.templates.push(("templates/bad.yaml".to_owned(), "a: b\n{{ .Values.no.such }}".to_owned()));
        let error = chart.render("x", "n", &json!({})).unwrap_err().to_string();
        assert!(error.contains("gateway/templates/bad.yaml, line 2"), "{error}");
    }
}
