//! What the injection webhook follows: its own configuration, the mesh's, and the namespaces' annotations that count.
//!
//! A configuration that cannot be used changes nothing: the last good one injects on, and the log says why.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Client;
use kube::api::{Api, ListParams, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use mesh_api::mesh_config::MeshConfig;
use mesh_api::names::{MESH_CONFIG_KEY, MESH_CONFIG_MAP};
use mesh_api_rt::drain::Watcher;
use mesh_api_rt::report::Report;
use meshd_core::inject::Injector;
use tokio::sync::watch;
use tokio::time::{Duration, timeout};
use tokio_stream::StreamExt as _;

use crate::kube::said;
use crate::owner::Owner;

/// The ConfigMap of the injector; each revision has its own.
pub(crate) const INJECTOR_CONFIG_MAP: &str = "istio-sidecar-injector";
/// Annotations of namespaces that injection reads.
const ANNOTATIONS: &str = "openshift.io/";
/// Time for one request.
const DEADLINE: Duration = Duration::from_secs(5);

/// Annotations of a namespace that count.
pub(crate) type Annotations = BTreeMap<String, String>;

/// What is followed.
pub(crate) struct Settings {
    injector: ArcSwapOption<Injector>,
    presence: watch::Sender<Presence>,
    namespaces: Mutex<HashMap<String, Annotations>>,
    client: Client,
}

/// Whether there is a configuration of injection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Not known yet.
    Unknown,
    /// There is none: nobody expects pods to be injected.
    Absent,
    /// There is one.
    Present,
}

/// The texts that an injector is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Texts {
    config: String,
    values: String,
    mesh: String,
}

impl Settings {
    /// Nothing known yet.
    pub(crate) fn new(client: Client) -> Arc<Self> {
        let presence = watch::Sender::new(Presence::Unknown);
        Arc::new(Self { injector: ArcSwapOption::empty(), presence, namespaces: Mutex::default(), client })
    }

    /// Whether there is a configuration of injection.
    pub(crate) fn presence(&self) -> Presence {
        *self.presence.borrow()
    }

    /// The injector of the moment.
    pub(crate) fn injector(&self) -> Option<Arc<Injector>> {
        self.injector.load_full()
    }

    /// The annotations of a namespace; read at once for one that is so new that its watch has not shown it.
    ///
    /// # Errors
    /// What the API server said.
    pub(crate) async fn annotations(&self, namespace: &str) -> Result<Annotations, String> {
        if let Some(known) = self.namespaces().get(namespace) {
            return Ok(known.clone());
        }
        let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(self.client.clone());
        // A list of one: what we may do with namespaces is to list and watch them.
        let one = ListParams::default().fields(&format!("metadata.name={namespace}"));
        match timeout(DEADLINE, namespaces.list(&one)).await {
            Ok(Ok(found)) => {
                let mut found = found.items.into_iter().map(|found| found.metadata);
                let found = found.find(|found| found.name.as_deref() == Some(namespace));
                Ok(of_interest(found.and_then(|found| found.annotations)))
            }
            Ok(Err(error)) => Err(said(&error)),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// Follows the ConfigMaps of this control plane and the namespaces until the drain begins.
    pub(crate) async fn follow(self: Arc<Self>, owner: Owner, mut drain: Watcher) {
        tokio::select! {
            () = drain.graceful() => {}
            () = self.follow_config(&owner) => {}
            () = self.follow_namespaces() => {}
        }
    }

    async fn follow_config(&self, owner: &Owner) {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &owner.namespace);
        let mut events = std::pin::pin!(watcher::watcher(maps, watcher::Config::default()).default_backoff());
        let (injector, mesh) = (owner.name(INJECTOR_CONFIG_MAP), owner.name(MESH_CONFIG_MAP));
        let (mut texts, mut used, mut listed) = (Texts::default(), None, false);
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Apply(map) | Event::InitApply(map)) => {
                    let name = map.metadata.name.unwrap_or_default();
                    let mut data = map.data.unwrap_or_default();
                    if name == injector {
                        texts.config = data.remove("config").unwrap_or_default();
                        texts.values = data.remove("values").unwrap_or_default();
                    } else if name == mesh {
                        texts.mesh = data.remove(MESH_CONFIG_KEY).unwrap_or_default();
                    }
                }
                // The last one injects on.
                Ok(Event::Delete(map)) if map.metadata.name.as_deref() == Some(injector.as_str()) => {
                    tracing::error!(
                        config_map = injector,
                        "Injection configuration was deleted; pods get the last one"
                    );
                }
                Ok(Event::Delete(_) | Event::Init) => {}
                Ok(Event::InitDone) => listed = true,
                Err(error) => tracing::debug!(%error, "Watch of injection configuration failed"),
            }
            if listed && used.as_ref() != Some(&texts) {
                self.make(&texts, &owner.revision, &injector);
                used = Some(texts.clone());
            }
        }
    }

    /// Makes the injector anew.
    fn make(&self, texts: &Texts, revision: &str, name: &str) {
        if texts.config.is_empty() && texts.values.is_empty() {
            tracing::warn!(config_map = name, "Injection configuration is not there; pods are refused until it is");
            self.presence.send_replace(Presence::Absent);
            return;
        }
        self.presence.send_replace(Presence::Present);
        let mesh = match MeshConfig::parse(&texts.mesh) {
            Ok((mesh, _)) => mesh,
            Err(error) => {
                tracing::error!(error = %Report::new(&*error), "Mesh configuration cannot be used; injection stays as it is");
                return;
            }
        };
        match Injector::from_config(&texts.config, &texts.values, &mesh, revision) {
            Ok(injector) => {
                for finding in injector.findings() {
                    tracing::warn!(%finding, "Injection configuration has a finding");
                }
                tracing::info!(config_map = name, "Injection configuration is in use");
                self.injector.store(Some(Arc::new(injector)));
            }
            Err(error) => {
                tracing::error!(error = %Report::new(&error), config_map = name, "Injection configuration cannot be used");
            }
        }
    }

    async fn follow_namespaces(&self) {
        let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(self.client.clone());
        let events = watcher::watcher(namespaces, watcher::Config::default()).default_backoff();
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Apply(namespace) | Event::InitApply(namespace)) => {
                    let annotations = of_interest(namespace.metadata.annotations);
                    self.namespaces().insert(namespace.metadata.name.unwrap_or_default(), annotations);
                }
                Ok(Event::Delete(namespace)) => {
                    self.namespaces().remove(&namespace.metadata.name.unwrap_or_default());
                }
                // What is gone since is asked for again, should it come back.
                Ok(Event::Init) => self.namespaces().clear(),
                Ok(Event::InitDone) => {}
                Err(error) => tracing::debug!(%error, "Watch of namespaces failed"),
            }
        }
    }

    fn namespaces(&self) -> MutexGuard<'_, HashMap<String, Annotations>> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of_interest(annotations: Option<Annotations>) -> Annotations {
    let mut annotations = annotations.unwrap_or_default();
    annotations.retain(|key, _| key.starts_with(ANNOTATIONS));
    annotations
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::kube::fake::Objects;

    /// Settings with the chart's defaults.
    pub(crate) fn mk_settings() -> Arc<Settings> {
        let settings = Settings::new(Objects::default().client());
        settings.make(&Texts { config: "policy: enabled".into(), ..Texts::default() }, "default", "x");
        settings
    }

    #[tokio::test]
    async fn what_cannot_be_used_changes_nothing() {
        let settings = mk_settings();
        let first = settings.injector().unwrap();
        let broken = Texts { config: "policy: [".into(), ..Texts::default() };
        settings.make(&broken, "default", "x");
        settings.make(
            &Texts { mesh: "]".into(), config: "policy: disabled".into(), ..Texts::default() },
            "default",
            "x",
        );
        settings.make(&Texts::default(), "default", "x");
        assert!(Arc::ptr_eq(&first, &settings.injector().unwrap()));
        settings.make(&Texts { config: "policy: disabled".into(), ..Texts::default() }, "default", "x");
        assert!(!Arc::ptr_eq(&first, &settings.injector().unwrap()));
    }

    #[tokio::test]
    async fn a_namespace_that_is_new_is_read() {
        let objects = Objects::default();
        let annotations = serde_json::json!({"openshift.io/sa.scc.uid-range": "1/2", "other": "x"});
        let namespace = serde_json::json!({"metadata": {"name": "shop", "annotations": annotations}});
        objects.put("/api/v1/namespaces/shop", namespace);
        let settings = Settings::new(objects.client());
        assert_eq!(settings.annotations("shop").await.unwrap().len(), 1);
        assert!(settings.annotations("gone").await.unwrap().is_empty());
    }
}
