//! Which objects of the cluster are a control plane's to write: those of its revision, and of the tags that stand for it.
//!
//! An object without a revision is the default revision's: that of the tag `default` where there is one, which is how the last
//! step from another mesh, or from an old revision, is taken.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::Client;
use kube::api::{Api, ListParams};
use mesh_api::names::{REVISION_LABEL, TAG_LABEL};
use tokio::time::{Instant, timeout};

use crate::config::DEFAULT_REVISION;
use crate::owner::Owner;

/// How long what was learned is believed.
const FRESH: Duration = Duration::from_secs(10);
/// Time for one request.
const DEADLINE: Duration = Duration::from_secs(10);
/// Most tags that are looked at: each is a webhook that the API server calls.
const MOST: u32 = 500;

/// What is looked after, as far as it is known.
pub(crate) struct Standing {
    client: Client,
    known: Mutex<(Names, Option<Instant>)>,
}

/// A revision and the tags of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    revision: String,
    /// Which revision each tag stands for.
    tags: BTreeMap<String, String>,
}

impl Names {
    /// Whether an object with this label is looked after here.
    pub(crate) fn looks_after(&self, label: Option<&str>) -> bool {
        let wanted = label.unwrap_or(DEFAULT_REVISION);
        self.tags.get(wanted).map_or(wanted, String::as_str) == self.revision
    }
}

impl Standing {
    /// Of this control plane; tags are not known yet.
    pub(crate) fn new(client: Client, owner: &Owner) -> Self {
        let names = Names { revision: owner.revision.clone(), tags: BTreeMap::new() };
        Self { client, known: Mutex::new((names, None)) }
    }

    /// The names as they are now, asked for if they were not for a while. What was known stays when there is no answer.
    pub(crate) async fn names(&self) -> Names {
        let (mut names, at) = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if at.is_some_and(|at| at.elapsed() < FRESH) {
            return names;
        }
        match timeout(DEADLINE, self.tags()).await {
            Ok(Ok(tags)) => names.tags = tags,
            Ok(Err(error)) => tracing::debug!(error = %error, "Revision tags not read"),
            Err(_) => tracing::debug!("Revision tags not read in time"),
        }
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = (names.clone(), Some(Instant::now()));
        names
    }

    async fn tags(&self) -> Result<BTreeMap<String, String>, kube::Error> {
        let webhooks: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let found = webhooks.list_metadata(&ListParams::default().labels(TAG_LABEL).limit(MOST)).await?;
        let labels = found.items.into_iter().filter_map(|webhook| webhook.metadata.labels);
        Ok(labels.filter_map(|mut labels| Some((labels.remove(TAG_LABEL)?, labels.remove(REVISION_LABEL)?))).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kube::fake::Objects;

    const HOOKS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";

    #[tokio::test(start_paused = true)]
    async fn what_has_no_revision_is_that_of_the_default_tag() {
        let objects = Objects::default();
        let of = |revision: &str| Standing::new(objects.client(), &Owner::new("istio-system", revision));
        let (default, canary) = (of("default"), of("canary"));
        // Without a tag, the revision of that name.
        assert!(default.names().await.looks_after(None) && !canary.names().await.looks_after(None));

        let labels = json!({"istio.io/tag": "default", "istio.io/rev": "canary"});
        let hook = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "istio-revision-tag-default", "labels": labels}});
        objects.put(&format!("{HOOKS}/istio-revision-tag-default"), hook);
        assert!(default.names().await.looks_after(None), "asked a moment ago");
        tokio::time::advance(FRESH).await;
        for label in [None, Some("default")] {
            assert!(!default.names().await.looks_after(label) && canary.names().await.looks_after(label), "{label:?}");
        }
        assert!(canary.names().await.looks_after(Some("canary")));
        assert!(!canary.names().await.looks_after(Some("other")));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_known_stays_when_there_is_no_answer() {
        let client = crate::kube::fake::answering(|_| (503, json!({"kind": "Status", "code": 503})));
        let standing = Standing::new(client, &Owner::new("istio-system", "canary"));
        assert!(standing.names().await.looks_after(Some("canary")));
    }
}
