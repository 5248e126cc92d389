//! What is wrong with objects together: references to what is not there, two that claim the same, what never acts.
//!
//! The codes, levels and words are those of `istioctl analyze`, for scripts and people know them. Each check is one file
//! below [`checks`] and one row of [`checks::ALL`]; it sees all objects ([`Objects`]) and tells ([`Messages`]). Rules of
//! single objects are `mesh_api::validate`'s; they come in with each object as findings and are told as Istio's schema
//! messages.
//!
//! Objects are untyped here: a check looks at kinds that this release reads and at kinds that it does not (Deployments,
//! webhooks, EnvoyFilters), and an object that is broken in one place is still looked at in the others.

mod annotations;
pub mod checks;
mod hosts;
pub mod message;
mod objects;
mod sorts;
mod view;

use std::collections::BTreeSet;

pub use self::message::{Code, Level, Message, Messages};
pub use self::objects::{Objects, Subject};
pub use self::sorts::Sort;

/// What is analysed.
#[derive(Debug)]
pub struct Input {
    /// All objects.
    pub subjects: Vec<Subject>,
    /// The namespace of mesh-wide policies.
    pub root_namespace: String,
    /// Kinds of which there may be more objects: a check that depends on one of them is left out, lest it guess.
    pub unknown: BTreeSet<Sort>,
    /// What was found out otherwise about these objects: told beside what the checks tell, and suppressed like it.
    pub known: Vec<Message>,
}

impl Input {
    /// Some files, which need not be all of a mesh: a kind of which they have nothing is unknown.
    #[must_use]
    pub fn of_files(subjects: Vec<Subject>, root_namespace: String) -> Self {
        let known: BTreeSet<Sort> = subjects.iter().filter_map(|subject| subject.sort).collect();
        let unknown = Sort::ALL.iter().copied().filter(|sort| !known.contains(sort)).collect();
        Self { subjects, root_namespace, unknown, known: Vec::new() }
    }
}

/// What the checks tell, in the order of the objects, with what an object's own annotation suppresses left out.
#[must_use]
pub fn analyze(input: Input) -> Vec<Message> {
    let Input { subjects, root_namespace, unknown, known } = input;
    let objects = Objects::new(subjects, root_namespace);
    let mut messages = Messages::default();
    for check in checks::ALL {
        if check.needs.iter().all(|sort| !unknown.contains(sort)) {
            (check.run)(&objects, &mut messages);
        }
    }
    let mut all = messages.into_vec();
    all.extend(known);
    all.retain(|message| objects.get(message.subject).is_none_or(|subject| !is_suppressed(subject, message)));
    all.sort_by(|a, b| (a.subject, a.code.number, &a.path, &a.text).cmp(&(b.subject, b.code.number, &b.path, &b.text)));
    all.dedup();
    all
}

/// `galley.istio.io/analyze-suppress: IST0101,IST0102` or `*`.
fn is_suppressed(subject: &Subject, message: &Message) -> bool {
    let Some(list) = subject.annotation("galley.istio.io/analyze-suppress") else { return false };
    let code = message.code.to_string();
    let listed: BTreeSet<&str> = list.split(',').map(str::trim).collect();
    listed.contains("*") || listed.contains(code.as_str())
}
