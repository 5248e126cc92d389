//! Tags: further names of a revision, and which revision is the default.

use mesh_api::names::{MANAGED_BY, MANAGED_BY_LABEL, REVISION_LABEL};
use serde_json::{Value, json};

use super::chart::Chart;
use super::cluster::{Cluster, Conflicts, Mode};
use super::files::Files;
use super::object::{DEFAULT_REVISION, Kind, Object, TAG_LABEL, is_default};
use super::wait::injector;
use crate::error::CliError;

/// The webhook that checks objects without a revision.
pub const DEFAULT_VALIDATOR: &str = "istiod-default-validator";
/// The tag whose revision is meant where none is named.
pub const DEFAULT_TAG: &str = "default";

/// With this label, which nothing has, istioctl makes entries apply to nobody.
const DEACTIVATED: &str = "istio.io/deactivated";

/// A tag that is to be.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Its name.
    pub tag: &'a str,
    /// The revision that it stands for.
    pub revision: &'a str,
    /// Namespace of the control plane.
    pub namespace: &'a str,
}

/// How a tag's webhook differs from the usual.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras {
    /// Whether namespaces without a label are injected.
    pub auto_inject: bool,
}

/// Whether an entry of an injection webhook is for those who name no revision.
#[must_use]
pub fn is_default_entry(entry: &Value) -> bool {
    let name = entry.get("name").and_then(Value::as_str).unwrap_or_default();
    let is_off = !entry["namespaceSelector"]["matchLabels"][DEACTIVATED].is_null();
    !is_off && ["namespace.", "object.", "auto."].iter().any(|prefix| name.starts_with(prefix))
}

/// The revision that is meant where none is named; `None` when there is none.
///
/// # Errors
/// When the cluster does not answer.
pub async fn default_revision(cluster: &Cluster) -> Result<Option<String>, CliError> {
    for hook in hooks(cluster).await? {
        if hook.label(TAG_LABEL) == DEFAULT_TAG {
            return Ok(Some(hook.revision().to_owned()));
        }
    }
    let default = hooks_of_revisions(cluster).await?.into_iter().find(|hook| {
        let entries = hook.value().get("webhooks").and_then(Value::as_array);
        entries.into_iter().flatten().any(is_default_entry)
    });
    Ok(default.map(|hook| hook.revision().to_owned()))
}

/// Webhooks of tags, of whoever made them.
///
/// # Errors
/// When the cluster does not answer.
pub async fn hooks(cluster: &Cluster) -> Result<Vec<Object>, CliError> {
    list(cluster, "MutatingWebhookConfiguration", TAG_LABEL).await
}

async fn hooks_of_revisions(cluster: &Cluster) -> Result<Vec<Object>, CliError> {
    list(cluster, "MutatingWebhookConfiguration", &format!("{REVISION_LABEL},!{TAG_LABEL}")).await
}

async fn list(cluster: &Cluster, kind: &str, selector: &str) -> Result<Vec<Object>, CliError> {
    match Kind::find(kind) {
        Some(kind) => cluster.list(kind, selector).await,
        None => Ok(Vec::new()),
    }
}

/// The webhooks of a tag, made from the revision's own.
///
/// # Errors
/// When there is no such revision, or the tag cannot be.
pub async fn objects(cluster: &Cluster, wish: &Wish<'_>, extras: Option<Extras>) -> Result<Vec<Object>, CliError> {
    let name = injector(wish.revision, wish.namespace);
    let Some(own) = cluster.find("MutatingWebhookConfiguration", "", &name).await? else {
        let known: Vec<String> =
            hooks_of_revisions(cluster).await?.iter().map(|hook| hook.revision().to_owned()).collect();
        let error = CliError::user(format!("there is no revision {}", wish.revision));
        return Err(match known.as_slice() {
            [] => error.hint("meshctl install installs one"),
            known => error.hint(format!("there are {}", known.join(", "))),
        });
    };
    if wish.tag != DEFAULT_TAG
        && cluster.find("MutatingWebhookConfiguration", "", &injector(wish.tag, wish.namespace)).await?.is_some()
    {
        return Err(
            CliError::user(format!("{} is the name of a revision", wish.tag)).hint("choose another name for the tag")
        );
    }
    if !own.is_ours() && own.label("app.kubernetes.io/part-of") != "lateen" {
        return Err(CliError::user(format!("the revision {} is not ours", wish.revision))
            .hint(format!("istioctl tag set {} --revision {}", wish.tag, wish.revision)));
    }
    render(wish, &own, extras.unwrap_or_default())
}

/// The charts' own text for tags, with the certificate and policy that the revision's webhook has.
fn render(wish: &Wish<'_>, own: &Object, extras: Extras) -> Result<Vec<Object>, CliError> {
    let files = Files::embedded();
    let first = own.value().pointer("/webhooks/0").cloned().unwrap_or_default();
    let text = |pointer: &str| first.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
    let revision = if is_default(wish.revision) { "" } else { wish.revision };
    let values = json!({
        "revision": revision,
        "revisionTags": [wish.tag],
        "global": { "istioNamespace": wish.namespace },
        "sidecarInjectorWebhook": {
            "reinvocationPolicy": text("/reinvocationPolicy").unwrap_or("Never"),
            "enableNamespacesByDefault": extras.auto_inject,
        },
    });
    let mut found = Chart::read(&files, "istiod")?.render("istiod", wish.namespace, &values)?;
    found.retain(|object| object.label(TAG_LABEL) == wish.tag);
    if wish.tag == DEFAULT_TAG {
        let revision = if is_default(wish.revision) { DEFAULT_REVISION } else { wish.revision };
        let values = json!({ "defaultRevision": revision, "global": { "istioNamespace": wish.namespace } });
        let base = Chart::read(&files, "base")?.render("istio-base", wish.namespace, &values)?;
        found.extend(base.into_iter().filter(|object| object.name() == DEFAULT_VALIDATOR));
    }
    let bundle = text("/clientConfig/caBundle").map(str::to_owned);
    for object in &mut found {
        let entries = object.value_mut().get_mut("webhooks").and_then(Value::as_array_mut);
        for entry in entries.into_iter().flatten() {
            if let (Some(bundle), Some(client)) =
                (&bundle, entry.get_mut("clientConfig").and_then(Value::as_object_mut))
            {
                client.insert("caBundle".to_owned(), bundle.as_str().into());
            }
        }
    }
    Ok(found)
}

/// Writes a tag's webhooks, and takes what makes it the default from others.
///
/// # Errors
/// When a webhook is somebody else's, or the cluster refuses it.
pub async fn set(cluster: &Cluster, wish: &Wish<'_>, objects: &[Object]) -> Result<(), CliError> {
    for object in objects {
        if let Some(live) = cluster.get(object).await?
            && !live.is_ours()
        {
            return Err(CliError::user(format!("{object} is not ours: {} looks after it", manager(&live)))
                .hint("a tag that istioctl made is moved by istioctl"));
        }
    }
    if wish.tag == DEFAULT_TAG
        && let Some(hook) = foreign_default(&hooks_of_revisions(cluster).await?)
    {
        return Err(CliError::user(format!(
            "{hook} injects pods that name no revision, and is not ours: two would do it"
        ))
        .hint(format!(
            "until that mesh is gone: kubectl label namespace NAME istio-injection- istio.io/rev={}",
            wish.revision
        )));
    }
    for object in objects {
        // The certificate is the control plane's field from its next write on.
        cluster.apply(object, Conflicts::TakeOver, Mode::Keep).await?;
    }
    if wish.tag != DEFAULT_TAG {
        return Ok(());
    }
    for hook in hooks_of_revisions(cluster).await? {
        let entries = hook.value().get("webhooks").and_then(Value::as_array).cloned().unwrap_or_default();
        let kept: Vec<&Value> = entries.iter().filter(|entry| !is_default_entry(entry)).collect();
        if kept.len() < entries.len() && hook.is_ours() {
            cluster.merge(&hook, &json!({ "webhooks": kept })).await?;
        }
    }
    Ok(())
}

/// The injection webhook of another mesh that is asked about pods that name no revision.
fn foreign_default(hooks: &[Object]) -> Option<&Object> {
    hooks.iter().filter(|hook| !hook.is_ours()).find(|hook| {
        let entries = hook.value().get("webhooks").and_then(Value::as_array);
        entries.into_iter().flatten().any(is_default_entry)
    })
}

fn manager(object: &Object) -> &str {
    match object.label(MANAGED_BY_LABEL) {
        "" => "somebody else",
        manager => manager,
    }
}

/// The webhooks of ours that a tag consists of.
///
/// # Errors
/// When the cluster does not answer.
pub async fn find(cluster: &Cluster, tag: &str) -> Result<Vec<Object>, CliError> {
    let selector = format!("{TAG_LABEL}={tag},{MANAGED_BY_LABEL}={MANAGED_BY}");
    let mut found = Vec::new();
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        found.extend(list(cluster, kind, &selector).await?);
    }
    Ok(found)
}

/// Namespaces that ask for a tag or revision by this name.
///
/// # Errors
/// When the cluster does not answer.
pub async fn namespaces(cluster: &Cluster, name: &str) -> Result<Vec<String>, CliError> {
    let mut found: Vec<String> = Vec::new();
    let mut selectors = vec![format!("{REVISION_LABEL}={name}")];
    if name == DEFAULT_TAG {
        selectors.push("istio-injection=enabled".to_owned());
    }
    for selector in selectors {
        found.extend(list(cluster, "Namespace", &selector).await?.iter().map(|object| object.name().to_owned()));
    }
    found.sort();
    found.dedup();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_that_name_no_revision_are_one_meshs() {
        let hook = |labels: Value, selector: Value| {
            let entry = json!({ "name": "namespace.sidecar-injector.istio.io", "namespaceSelector": selector });
            let metadata = json!({ "name": "istio-sidecar-injector", "labels": labels });
            Object::new(json!({ "kind": "MutatingWebhookConfiguration", "metadata": metadata, "webhooks": [entry] }))
                .unwrap()
        };
        let active =
            json!({ "matchExpressions": [{ "key": "istio-injection", "operator": "In", "values": ["enabled"] }] });
        let istios = json!({ "app.kubernetes.io/managed-by": "Helm", "istio.io/rev": "default" });
        assert!(foreign_default(&[hook(istios.clone(), active.clone())]).is_some());
        // As `istioctl tag set default` leaves it.
        let never = json!({ "matchLabels": { "istio.io/deactivated": "never-match" } });
        assert!(foreign_default(&[hook(istios, never)]).is_none());
        assert!(foreign_default(&[hook(json!({ MANAGED_BY_LABEL: MANAGED_BY }), active)]).is_none());
    }

    #[test]
    fn a_tag_points_to_its_revision_with_its_certificate() {
        let own = json!({ "kind": "MutatingWebhookConfiguration", "metadata": { "name": "x" }, "webhooks": [
            { "reinvocationPolicy": "IfNeeded", "clientConfig": { "caBundle": "Q0E=" } }] });
        let own = Object::new(own).unwrap();
        let wish = Wish { tag: "default", revision: "canary", namespace: "istio-system" };
        let made = render(&wish, &own, Extras { auto_inject: true }).unwrap();
        let names: Vec<&str> = made.iter().map(Object::name).collect();
        assert_eq!(names, ["istio-revision-tag-default", DEFAULT_VALIDATOR]);
        for object in &made {
            assert_eq!((object.revision(), object.label(TAG_LABEL)), ("canary", "default"), "{object}");
            for entry in object.value()["webhooks"].as_array().unwrap() {
                assert_eq!(entry["clientConfig"]["caBundle"], "Q0E=");
                assert_eq!(entry["clientConfig"]["service"]["name"], "istiod-canary");
            }
        }
        let entries = made[0].value()["webhooks"].as_array().unwrap();
        assert_eq!(entries.iter().filter(|entry| is_default_entry(entry)).count(), 3);
        assert!(entries.iter().all(|entry| entry["reinvocationPolicy"] == "IfNeeded"));
        let other = render(&Wish { tag: "prod", ..wish }, &own, Extras::default()).unwrap();
        assert_eq!(other.len(), 1);
        assert!(!other[0].value()["webhooks"].as_array().unwrap().iter().any(is_default_entry));
    }
}
