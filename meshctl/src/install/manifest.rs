//! All objects of an installation.

use serde_json::Value;

use super::component::{self, Component};
use super::object::Object;
use super::settings::Settings;
use crate::error::CliError;

/// An installation, rendered.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// What it was made of.
    pub settings: Settings,
    /// Its parts.
    pub components: Vec<Component>,
    /// Its objects, in the order of installation.
    pub objects: Vec<Object>,
}

impl Manifest {
    /// Renders every component.
    ///
    /// # Errors
    /// When a component cannot be, or two of them make the same object.
    pub fn render(settings: Settings) -> Result<Self, CliError> {
        let components = component::components(&settings)?;
        let mut objects = Vec::new();
        for component in &components {
            objects.extend(component.render(&settings)?);
        }
        objects.sort_by(Object::order);
        for pair in objects.windows(2) {
            if let [first, second] = pair
                && first.order(second).is_eq()
            {
                return Err(
                    CliError::user(format!("{first} would be made twice")).hint("give one of them another name")
                );
            }
        }
        Ok(Self { settings, components, objects })
    }

    /// YAML of all objects, the same for the same settings always.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        to_yaml(&self.objects)
    }
}

/// YAML documents of objects.
#[must_use]
pub fn to_yaml(objects: &[Object]) -> String {
    objects.iter().map(|object| format!("---\n{}", object.to_yaml())).collect()
}

/// Objects as a value, for `-o json`.
#[must_use]
pub fn to_value(objects: &[Object]) -> Value {
    objects.iter().map(|object| object.value().clone()).collect()
}

#[cfg(test)]
mod tests;
