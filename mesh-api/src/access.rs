//! What the control plane must be allowed to read of a cluster, derived from the table of kinds.
//!
//! Least privilege: each rule names its resources, and only `list` and `watch`, since a watch never asks for single objects.
//! The charts' rules are compared with these.

use std::collections::BTreeMap;

use crate::kinds::Kind;

/// Where the objects are that are read of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// In the whole cluster.
    Cluster,
    /// In the namespace of the control plane only.
    ControlPlane,
}

/// A rule of a Role or a ClusterRole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// Plural names, ordered.
    pub resources: Vec<&'static str>,
    /// What may be done, ordered.
    pub verbs: &'static [&'static str],
}

/// What a watch does.
pub const WATCH_VERBS: &[&str] = &["list", "watch"];

impl Kind {
    /// Where the source of a cluster reads objects of this kind.
    #[must_use]
    pub const fn reach(self) -> Reach {
        match self {
            Self::ConfigMap => Reach::ControlPlane,
            _ => Reach::Cluster,
        }
    }
}

/// What the source of a cluster reads in all namespaces: the rules of its ClusterRole, ordered by group.
#[must_use]
pub fn cluster_rules() -> Vec<Rule> {
    rules(Reach::Cluster)
}

/// What it reads in the namespace of the control plane: the rules of a Role there, ordered by group.
#[must_use]
pub fn control_plane_rules() -> Vec<Rule> {
    rules(Reach::ControlPlane)
}

/// What it reads besides the kinds of the table: the webhooks that give revisions further names.
#[must_use]
pub fn tag_rule() -> Rule {
    Rule { group: "admissionregistration.k8s.io", resources: vec!["mutatingwebhookconfigurations"], verbs: WATCH_VERBS }
}

fn rules(reach: Reach) -> Vec<Rule> {
    let mut groups: BTreeMap<&'static str, Vec<&'static str>> = BTreeMap::new();
    for kind in Kind::ALL.iter().filter(|kind| kind.reach() == reach) {
        groups.entry(kind.info().group).or_default().push(kind.info().plural);
    }
    let rule = |(group, mut resources): (_, Vec<_>)| {
        resources.sort_unstable();
        Rule { group, resources, verbs: WATCH_VERBS }
    };
    groups.into_iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_in_exactly_one_rule() {
        let (cluster, own) = (cluster_rules(), control_plane_rules());
        for kind in Kind::ALL {
            let info = kind.info();
            let named = |rules: &[Rule]| {
                rules.iter().filter(|rule| rule.group == info.group && rule.resources.contains(&info.plural)).count()
            };
            assert_eq!(named(&cluster) + named(&own), 1, "{kind}");
        }
    }

    #[test]
    fn config_maps_are_read_in_the_namespace_of_the_control_plane_only() {
        assert_eq!(control_plane_rules(), [Rule { group: "", resources: vec!["configmaps"], verbs: WATCH_VERBS }]);
        let core = &cluster_rules()[0];
        assert_eq!(
            (core.group, core.resources.as_slice()),
            ("", &["namespaces", "nodes", "pods", "secrets", "services"][..])
        );
    }
}
