//! Revision tags: further names of a revision. Each is a webhook of its own, whose labels say which revision it means.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;

use ::kube::api::PartialObjectMeta;
use ::kube::runtime::WatchStreamExt as _;
use ::kube::runtime::watcher::{self, Event};
use ::kube::{Api, Client};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use mesh_api::ids::Revision;
use mesh_api::names::{REVISION_LABEL, TAG_LABEL};
use mesh_api::text::Str;
use mesh_api_rt::report::Report;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;

use super::watch::Told;

type Webhook = PartialObjectMeta<MutatingWebhookConfiguration>;

/// The tags of all revisions, by webhook.
#[derive(Default)]
struct Tags {
    known: BTreeMap<String, (Str, Str)>,
    /// What a list has so far.
    listed: Option<BTreeMap<String, (Str, Str)>>,
}

/// Tells the tags of a revision whenever they change, first when all are known, until nobody listens.
pub(super) async fn follow(client: Client, revision: Revision, tell: mpsc::Sender<Told>) {
    let api: Api<Webhook> = Api::all(client);
    let settings = watcher::Config::default().labels(TAG_LABEL);
    let mut events = pin!(watcher::watcher(api, settings).default_backoff());
    let mut tags = Tags::default();
    let mut told = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => tags.take(event),
            Err(error) => {
                tracing::warn!(error = %Report::new(&error), "Watch of revision tags fails");
                continue;
            }
        }
        let now = tags.of(&revision);
        if now.is_some() && now != told {
            told.clone_from(&now);
            if tell.send(Told::Tags(now.unwrap_or_default())).await.is_err() {
                return;
            }
        }
    }
}

impl Tags {
    fn take(&mut self, event: Event<Webhook>) {
        match event {
            Event::Init => self.listed = Some(BTreeMap::new()),
            Event::InitApply(webhook) => self.listed.get_or_insert_default().extend(entry(&webhook)),
            Event::InitDone => self.known = self.listed.take().unwrap_or_default(),
            Event::Apply(webhook) => {
                self.known.remove(name(&webhook));
                self.known.extend(entry(&webhook));
            }
            Event::Delete(webhook) => _ = self.known.remove(name(&webhook)),
        }
    }

    /// The tags of a revision; `None` while a list is under way.
    fn of(&self, revision: &Revision) -> Option<BTreeSet<Str>> {
        let tags = self.known.values().filter(|(_, of)| of.as_str() == revision.as_str());
        self.listed.is_none().then(|| tags.map(|(tag, _)| tag.clone()).collect())
    }
}

fn name(webhook: &Webhook) -> &str {
    webhook.metadata.name.as_deref().unwrap_or_default()
}

fn entry(webhook: &Webhook) -> Option<(String, (Str, Str))> {
    let labels = webhook.metadata.labels.as_ref()?;
    let label =
        |label: &str| labels.get(label).filter(|value| !value.is_empty()).map(|value| Str::from(value.as_str()));
    Some((name(webhook).to_owned(), (label(TAG_LABEL)?, label(REVISION_LABEL)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_webhook(name: &str, tag: &str, revision: &str) -> Webhook {
        let labels = [(TAG_LABEL.to_owned(), tag.to_owned()), (REVISION_LABEL.to_owned(), revision.to_owned())];
        let mut webhook = Webhook::default();
        webhook.metadata.name = Some(name.to_owned());
        webhook.metadata.labels = Some(labels.into());
        webhook
    }

    #[test]
    fn tags_follow_their_webhooks() {
        let mut tags = Tags::default();
        let revision = Revision::from("canary");
        let mut check = |event, expect: Option<&[&str]>| {
            tags.take(event);
            let found = tags.of(&revision);
            assert_eq!(found, expect.map(|expect| expect.iter().copied().map(Str::from).collect()));
        };
        check(Event::Init, None);
        check(Event::InitApply(mk_webhook("a", "prod", "canary")), None);
        check(Event::InitApply(mk_webhook("b", "test", "default")), None);
        check(Event::InitDone, Some(&["prod"]));
        check(Event::Apply(mk_webhook("b", "test", "canary")), Some(&["prod", "test"]));
        check(Event::Apply(mk_webhook("a", "prod", "default")), Some(&["test"]));
        check(Event::Delete(mk_webhook("b", "test", "canary")), Some(&[]));
        check(Event::Init, None);
        check(Event::InitDone, Some(&[]));
    }
}
