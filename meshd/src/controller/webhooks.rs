//! The webhook configurations that lead to us: the API server is told our roots, again whenever they change, and validation
//! begins to refuse (`failurePolicy: Fail`) once a wrong object was seen to be refused.
//!
//! Touched are configurations with our revision's label, and in them only entries whose service is ours: those of a live Istio
//! beside us, or of another revision, are theirs. Nothing but `caBundle` and `failurePolicy` is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Error as ClientError, Resource};
use mesh_api::kinds::Kind;
use mesh_api::names::REVISION_LABEL;
use mesh_ca::bundle::TrustBundle;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::StreamExt as _;

use crate::kube::said;
use crate::metrics::{ByType, ControllerMetrics};
use crate::owner::Owner;

/// Time for one request.
const DEADLINE: Duration = Duration::from_secs(10);
/// Pause before what failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// Everything is compared anew this often.
const SWEEP: Duration = Duration::from_secs(300);
/// What it writes, in metrics.
const WHAT: ByType = ByType { r#type: "webhook" };
/// Base name of the Service in front of us.
const SERVICE: &str = "istiod";
/// The policy under which a webhook that does not answer refuses.
const FAIL: &str = "Fail";

/// The controller.
pub(crate) struct Webhooks {
    client: Client,
    owner: Owner,
    bundle: watch::Receiver<TrustBundle>,
    metrics: ControllerMetrics,
}

/// An entry of a configuration, reduced to what counts.
#[derive(Clone, Debug, Default, PartialEq)]
struct Entry {
    name: String,
    client: WebhookClientConfig,
    policy: Option<String>,
    selector: Option<LabelSelector>,
}

/// A configuration of either kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Which {
    Mutating,
    Validating,
}

type Configurations = BTreeMap<(Which, String), Vec<Entry>>;

/// What a watch says.
enum Seen {
    Mutating(Event<MutatingWebhookConfiguration>),
    Validating(Event<ValidatingWebhookConfiguration>),
}

impl Webhooks {
    /// A controller that announces these roots.
    pub(crate) fn new(
        client: Client,
        owner: Owner,
        bundle: watch::Receiver<TrustBundle>,
        metrics: ControllerMetrics,
    ) -> Self {
        Self { client, owner, bundle, metrics }
    }

    /// Works for as long as it is polled: while this replica leads.
    pub(crate) async fn run(&self) {
        let ours = watcher::Config::default().labels(&format!("{REVISION_LABEL}={}", self.owner.revision));
        let mutating = watcher::watcher(Api::all(self.client.clone()), ours.clone()).default_backoff();
        let validating = watcher::watcher(Api::all(self.client.clone()), ours).default_backoff();
        let seen =
            mutating.map(|event| event.map(Seen::Mutating)).merge(validating.map(|event| event.map(Seen::Validating)));
        let mut seen = std::pin::pin!(seen);
        let mut bundle = self.bundle.clone();
        bundle.mark_unchanged();
        let mut all = Configurations::new();
        let mut dirty = BTreeSet::new();
        let mut look = Instant::now() + SWEEP;
        loop {
            tokio::select! {
                event = seen.next() => match event {
                    Some(Ok(event)) => dirty.extend(take_in(&mut all, event)),
                    Some(Err(error)) => tracing::debug!(%error, "Watch of webhook configurations failed"),
                    None => return,
                },
                changed = bundle.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    dirty.extend(all.keys().cloned());
                }
                () = sleep_until(look) => {
                    look = Instant::now() + SWEEP;
                    dirty.extend(all.keys().cloned());
                }
            }
            let mut failed = BTreeSet::new();
            while let Some(key) = dirty.pop_first() {
                let Some(entries) = all.get(&key) else { continue };
                if !self.look(&key, entries).await {
                    failed.insert(key);
                }
            }
            if !failed.is_empty() {
                look = look.min(Instant::now() + AGAIN);
                // Looked at with all others then.
            }
        }
    }

    /// Puts one configuration right; whether there is nothing left to do.
    async fn look(&self, key: &(Which, String), entries: &[Entry]) -> bool {
        let (which, name) = key;
        let pem = self.bundle.borrow().to_pem();
        let stale = entries.iter().filter(|entry| self.is_ours(&entry.client) && !has_bundle(&entry.client, &pem));
        let changes: Vec<Value> = stale
            .map(
                |entry| json!({"name": entry.name, "clientConfig": {"caBundle": ByteString(pem.clone().into_bytes())}}),
            )
            .collect();
        if !changes.is_empty() {
            // The watch shows the outcome, and brings us here again.
            return self.patch(*which, name, changes).await;
        }
        if *which == Which::Mutating {
            return true;
        }
        let lax: Vec<&Entry> = entries
            .iter()
            .filter(|entry| self.is_ours(&entry.client) && entry.policy.as_deref() != Some(FAIL))
            .collect();
        let mut changes = Vec::new();
        for entry in &lax {
            match self.refuses(entry.selector.as_ref()).await {
                Ok(true) => changes.push(json!({"name": entry.name, "failurePolicy": FAIL})),
                Ok(false) => tracing::debug!(webhook = entry.name, "A wrong object was not refused yet"),
                Err(error) => tracing::warn!(webhook = entry.name, error, "Validation was not tried, stays lenient"),
            }
        }
        let all = changes.len() == lax.len();
        (changes.is_empty() || self.patch(*which, name, changes).await) && all
    }

    async fn patch(&self, which: Which, name: &str, webhooks: Vec<Value>) -> bool {
        // Entries of a list are merged by their names.
        let patch = Patch::Strategic(json!({"webhooks": webhooks}));
        let patched = match which {
            Which::Mutating => self.send::<MutatingWebhookConfiguration>(name, &patch).await,
            Which::Validating => self.send::<ValidatingWebhookConfiguration>(name, &patch).await,
        };
        match patched {
            Ok(()) => {
                self.metrics.writes.get_or_create(&WHAT).inc();
                tracing::info!(configuration = name, "Webhook configuration patched");
                true
            }
            Err(error) => {
                self.metrics.failures.get_or_create(&WHAT).inc();
                tracing::warn!(configuration = name, error, "Webhook configuration not patched, trying again");
                false
            }
        }
    }

    async fn send<K>(&self, name: &str, patch: &Patch<Value>) -> Result<(), String>
    where
        K: Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let api: Api<K> = Api::all(self.client.clone());
        match timeout(DEADLINE, api.patch(name, &PatchParams::default(), patch)).await {
            Ok(Ok(_)) => Ok(()),
            // It went away meanwhile.
            Ok(Err(ClientError::Api(status))) if status.code == 404 => Ok(()),
            Ok(Err(error)) => Err(said(&error)),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// Whether a wrong object is refused by the webhook with this selector: tried without storing anything.
    async fn refuses(&self, selector: Option<&LabelSelector>) -> Result<bool, String> {
        let info = Kind::Gateway.info();
        let version = info.versions.first().copied().unwrap_or_default();
        let kind = GroupVersionKind::gvk(info.group, version, info.name);
        let resource = ApiResource::from_gvk_with_plural(&kind, info.plural);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.owner.namespace, &resource);
        let mut object = DynamicObject::new("lateen-invalid", &resource).data(json!({"spec": {}}));
        object.metadata.labels = Some(labels_for(selector));
        let params = PostParams { dry_run: true, ..PostParams::default() };
        match timeout(DEADLINE, api.create(&params, &object)).await {
            Ok(Ok(_)) => Ok(false),
            Ok(Err(ClientError::Api(status))) => match status.code {
                // Whoever else refused it, it is not stored; but only a webhook says so in these words.
                400 | 403 | 422 if status.message.contains("admission webhook") => Ok(true),
                404 => Err(format!("kind {} is not installed", info.name)),
                _ => Err(status.message.clone()),
            },
            Ok(Err(error)) => Err(said(&error)),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// Whether a webhook leads to us. One with a URL does by its label alone.
    fn is_ours(&self, client: &WebhookClientConfig) -> bool {
        match &client.service {
            Some(service) => service.namespace == self.owner.namespace && service.name == self.owner.name(SERVICE),
            None => client.url.is_some(),
        }
    }
}

/// Takes in what a watch says; the names of what must be looked at.
fn take_in(all: &mut Configurations, event: Seen) -> Option<(Which, String)> {
    match event {
        Seen::Mutating(Event::Apply(found) | Event::InitApply(found)) => {
            let key = (Which::Mutating, found.metadata.name.unwrap_or_default());
            let entries = found.webhooks.unwrap_or_default().into_iter().map(|webhook| Entry {
                name: webhook.name,
                client: webhook.client_config,
                policy: webhook.failure_policy,
                selector: webhook.object_selector,
            });
            all.insert(key.clone(), entries.collect());
            Some(key)
        }
        Seen::Validating(Event::Apply(found) | Event::InitApply(found)) => {
            let key = (Which::Validating, found.metadata.name.unwrap_or_default());
            let entries = found.webhooks.unwrap_or_default().into_iter().map(|webhook| Entry {
                name: webhook.name,
                client: webhook.client_config,
                policy: webhook.failure_policy,
                selector: webhook.object_selector,
            });
            all.insert(key.clone(), entries.collect());
            Some(key)
        }
        Seen::Mutating(Event::Delete(gone)) => {
            all.remove(&(Which::Mutating, gone.metadata.name.unwrap_or_default()));
            None
        }
        Seen::Validating(Event::Delete(gone)) => {
            all.remove(&(Which::Validating, gone.metadata.name.unwrap_or_default()));
            None
        }
        // What is gone is patched in vain once, which does no harm.
        Seen::Mutating(Event::Init | Event::InitDone) | Seen::Validating(Event::Init | Event::InitDone) => None,
    }
}

fn has_bundle(client: &WebhookClientConfig, pem: &str) -> bool {
    client.ca_bundle.as_ref().is_some_and(|bundle| bundle.0 == pem.as_bytes())
}

/// Labels that a selector selects, as far as equality and lists of values say so.
fn labels_for(selector: Option<&LabelSelector>) -> BTreeMap<String, String> {
    let Some(selector) = selector else { return BTreeMap::new() };
    let mut labels = selector.match_labels.clone().unwrap_or_default();
    for expression in selector.match_expressions.iter().flatten().filter(|expression| expression.operator == "In") {
        if let Some(value) = expression.values.iter().flatten().next() {
            labels.insert(expression.key.clone(), value.clone());
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use k8s_openapi::api::admissionregistration::v1::ServiceReference;
    use mesh_api_rt::metrics::Metrics;
    use mesh_ca::testing::TestCa;

    use super::*;
    use crate::kube::fake;

    fn mk_client(service: &str, bundle: Option<&TrustBundle>) -> WebhookClientConfig {
        WebhookClientConfig {
            ca_bundle: bundle.map(|bundle| ByteString(bundle.to_pem().into_bytes())),
            service: Some(ServiceReference {
                name: service.to_owned(),
                namespace: "istio-system".to_owned(),
                ..ServiceReference::default()
            }),
            url: None,
        }
    }

    fn mk_entry(name: &str, client: WebhookClientConfig, policy: &str) -> Entry {
        Entry { name: name.to_owned(), client, policy: Some(policy.to_owned()), selector: None }
    }

    /// A controller, and what it sends: method, path and body.
    fn mk_webhooks(
        created: u16,
        message: &str,
    ) -> (Webhooks, TrustBundle, std::sync::Arc<std::sync::Mutex<Vec<Value>>>) {
        let sent = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let (log, message) = (std::sync::Arc::clone(&sent), message.to_owned());
        let client = fake::answering(move |request| {
            let body: Value = serde_json::from_slice(request.body()).unwrap();
            log.lock().unwrap().push(json!([request.method().as_str(), request.uri().to_string(), body.clone()]));
            if request.method() == http::Method::PATCH {
                return (200, json!({"metadata": {"name": "x"}}));
            }
            match created {
                201 => (201, body),
                code => (code, json!({"kind": "Status", "status": "Failure", "code": code, "message": message})),
            }
        });
        let bundle = TestCa::new(SystemTime::now()).bundle().clone();
        let owner = Owner::new("istio-system", "canary");
        let told = watch::channel(bundle.clone()).1;
        (Webhooks::new(client, owner, told, Metrics::new().register().unwrap()), bundle, sent)
    }

    fn key(which: Which) -> (Which, String) {
        (which, "c".to_owned())
    }

    #[tokio::test]
    async fn only_entries_that_lead_to_us_are_told_our_roots() {
        let (webhooks, bundle, sent) = mk_webhooks(201, "");
        let other = TestCa::new(SystemTime::now()).bundle().clone();
        let entries = [
            mk_entry("stale", mk_client("istiod-canary", Some(&other)), FAIL),
            mk_entry("new", mk_client("istiod-canary", None), FAIL),
            mk_entry("right", mk_client("istiod-canary", Some(&bundle)), FAIL),
            mk_entry("istios", mk_client("istiod", Some(&other)), FAIL),
        ];
        assert!(webhooks.look(&key(Which::Mutating), &entries).await);
        let sent = sent.lock().unwrap().clone();
        assert_eq!(sent.len(), 1);
        let names: Vec<&str> =
            sent[0][2]["webhooks"].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["stale", "new"]);
        let text = sent[0].to_string();
        assert!(!text.contains("failurePolicy") && text.contains("/mutatingwebhookconfigurations/c"), "{text}");
    }

    #[tokio::test]
    async fn validation_becomes_strict_when_a_wrong_object_was_refused() {
        let denied = "admission webhook \"x\" denied the request: MESH2001 spec.servers: is missing";
        let (webhooks, bundle, sent) = mk_webhooks(400, denied);
        let entries = [mk_entry("v", mk_client("istiod-canary", Some(&bundle)), "Ignore")];
        assert!(webhooks.look(&key(Which::Validating), &entries).await);
        let sent = sent.lock().unwrap().clone();
        assert!(sent[0][1].as_str().unwrap().contains("dryRun=All"), "nothing is stored: {}", sent[0]);
        assert_eq!(sent[1][2], json!({"webhooks": [{"name": "v", "failurePolicy": "Fail"}]}));
    }

    #[tokio::test]
    async fn validation_stays_lenient_while_wrong_objects_come_in() {
        for (code, message) in
            [(201, ""), (404, "not found"), (403, "gateways is forbidden"), (500, "webhook timed out")]
        {
            let (webhooks, bundle, sent) = mk_webhooks(code, message);
            let entries = [mk_entry("v", mk_client("istiod-canary", Some(&bundle)), "Ignore")];
            assert!(!webhooks.look(&key(Which::Validating), &entries).await, "{code}: to be tried again");
            assert_eq!(sent.lock().unwrap().len(), 1, "{code}: no patch");
        }
    }

    #[test]
    fn the_trial_object_is_one_that_the_webhook_looks_at() {
        let selector: LabelSelector = serde_json::from_value(json!({"matchExpressions": [
            {"key": "istio.io/rev", "operator": "In", "values": ["canary", "x"]},
            {"key": "other", "operator": "DoesNotExist"},
        ]}))
        .unwrap();
        assert_eq!(labels_for(Some(&selector)), [("istio.io/rev".to_owned(), "canary".to_owned())].into());
        assert!(labels_for(None).is_empty());
    }
}
