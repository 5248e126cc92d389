//! What is known about objects and does not stand in them.

use std::time::SystemTime;

use meshd_core::analyze::message::{
    CERTIFICATE_EXPIRED, CERTIFICATE_EXPIRES_NOW, CERTIFICATE_EXPIRES_SOON, Message, NOT_CAPTURED,
};
use meshd_core::analyze::{Sort, Subject};

use crate::expiry::{self, Nearness};
use crate::live::{self, Live};
use crate::objects::Reading;

/// Pods whose traffic passes their proxy by.
pub(super) fn uncaptured(reading: &Reading, live: &Live) -> Vec<Message> {
    let is = |subject: &Subject, name: &str| {
        subject.sort == Some(Sort::POD) && format!("{}.{}", subject.name, subject.namespace) == name
    };
    let pods = live.uncaptured().filter_map(|name| reading.found.iter().position(|found| is(&found.subject, name)));
    pods.map(|subject| Message {
        code: &NOT_CAPTURED,
        subject,
        path: "metadata.name".to_owned(),
        text: live::NOT_CAPTURED.to_owned(),
    })
    .collect()
}

/// Certificates that end soon, or have ended.
pub(super) fn expiring(reading: &Reading, root: &str, now: SystemTime) -> Vec<Message> {
    let found = expiry::find(reading.found.iter().map(|found| &found.subject), root, now);
    let messages = found.into_iter().map(|expiring| Message {
        code: match expiring.nearness {
            Nearness::Expired => &CERTIFICATE_EXPIRED,
            Nearness::Urgent => &CERTIFICATE_EXPIRES_NOW,
            Nearness::Soon => &CERTIFICATE_EXPIRES_SOON,
        },
        subject: expiring.subject,
        path: expiring.path,
        text: expiring.text,
    });
    messages.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::objects::Found;

    #[test]
    fn it_is_told_of_the_pod() {
        let found = |kind: &str, name: &str| Found {
            subject: Subject::new(
                json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": name, "namespace": "shop" } }),
                "",
                Vec::new(),
            ),
            place: None,
        };
        let found = vec![found("Service", "web-1"), found("Pod", "web-1"), found("Pod", "web-2")];
        let reading = Reading { found, ..Reading::default() };
        let captured =
            [("web-1.shop".to_owned(), false), ("web-2.shop".to_owned(), true), ("gone.shop".to_owned(), false)];
        let live = Live { captured: captured.into(), ..Live::default() };
        let told = uncaptured(&reading, &live);
        assert_eq!(told.iter().map(|told| (told.subject, told.code.number)).collect::<Vec<_>>(), [(1, 4003)]);
    }
}
