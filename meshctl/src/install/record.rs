//! What was asked for, kept in the cluster, so that an upgrade keeps it: ConfigMap `lateen-install[-REV]`.

use mesh_api::names::{MANAGED_BY, MANAGED_BY_LABEL, REVISION_LABEL};
use mesh_api_gotmpl::yaml;
use serde_json::{Value, json};

use super::cluster::{Cluster, Conflicts, Mode};
use super::object::{Object, PART_OF_LABEL, suffix};
use super::settings::Settings;
use crate::error::CliError;

/// Key of what the user asked for.
const SPEC_KEY: &str = "spec";
/// Key of the release that installed it.
const VERSION_KEY: &str = "version";

/// The record of a revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What the user asked for, without the profile.
    pub user: Value,
    /// The release that installed it.
    pub version: String,
}

fn name(revision: &str) -> String {
    format!("lateen-install{}", suffix(revision))
}

/// The record as an object.
fn object(settings: &Settings) -> Option<Object> {
    Object::new(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name(&settings.revision),
            "namespace": settings.namespace,
            "labels": { MANAGED_BY_LABEL: MANAGED_BY, PART_OF_LABEL: "lateen", REVISION_LABEL: settings.revision },
        },
        "data": { SPEC_KEY: yaml::to_string(&settings.user), VERSION_KEY: env!("CARGO_PKG_VERSION") },
    }))
}

/// Writes the record of what was installed.
///
/// # Errors
/// When the cluster does not take it.
pub async fn write(cluster: &Cluster, settings: &Settings) -> Result<(), CliError> {
    match object(settings) {
        Some(object) => cluster.apply(&object, Conflicts::TakeOver, Mode::Keep).await.map(drop),
        None => Ok(()),
    }
}

/// Reads the record of a revision.
///
/// # Errors
/// When the cluster does not answer, or the record cannot be read.
pub async fn read(cluster: &Cluster, revision: &str, namespace: &str) -> Result<Option<Record>, CliError> {
    let Some(found) = cluster.find("ConfigMap", namespace, &name(revision)).await? else { return Ok(None) };
    let text = |key: &str| {
        found.value().get("data").and_then(|data| data.get(key)).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let user = yaml::from_str(&text(SPEC_KEY)).ok().filter(Value::is_object).ok_or_else(|| {
        CliError::user(format!("{found} cannot be read"))
            .hint("meshctl install writes it anew, with all settings given")
    })?;
    Ok(Some(Record { user, version: text(VERSION_KEY) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::settings::SettingsArgs;

    #[test]
    fn a_record_holds_what_was_asked_for() {
        let args = SettingsArgs { sets: vec!["revision=canary".to_owned()], ..SettingsArgs::default() };
        let object = object(&Settings::load(&args, "mesh", None).unwrap()).unwrap();
        assert_eq!(object.to_string(), "ConfigMap mesh/lateen-install-canary");
        assert!(object.is_ours());
        assert_eq!(object.value()["data"]["spec"], "revision: canary\n");
    }
}
