//! Where the pods are in an object.

use serde_json::{Map, Value, json};

/// A pod, or the template of pods, in an object.
#[derive(Debug)]
pub(super) struct Template {
    /// Where its metadata and specification are: a JSON pointer.
    pub(super) pointer: &'static str,
}

/// The pod template of an object; none when it has no pods.
pub(super) fn template(object: &Value) -> Option<Template> {
    let kind = object.get("kind").and_then(Value::as_str)?;
    let pointer = match kind {
        "Pod" => "",
        "CronJob" => "/spec/jobTemplate/spec/template",
        _ => "/spec/template",
    };
    let containers = object.pointer(pointer)?.get("spec")?.get("containers")?.as_array()?;
    (!containers.is_empty()).then_some(Template { pointer })
}

impl Template {
    /// The pod that the object makes.
    pub(super) fn pod(&self, object: &Value) -> Value {
        let part = |field: &str| object.pointer(self.pointer).and_then(|pod| pod.get(field)).cloned();
        let mut pod = Map::new();
        pod.insert("metadata".to_owned(), part("metadata").filter(Value::is_object).unwrap_or_else(|| json!({})));
        pod.insert("spec".to_owned(), part("spec").unwrap_or_default());
        Value::Object(pod)
    }

    /// Puts the pod back.
    pub(super) fn put(&self, object: &mut Value, mut pod: Value) {
        let Some(place) = object.pointer_mut(self.pointer).and_then(Value::as_object_mut) else { return };
        for field in ["metadata", "spec"] {
            if let Some(value) = pod.get_mut(field) {
                place.insert(field.to_owned(), value.take());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(object: &Value, pointer: Option<&str>) {
        assert_eq!(template(object).map(|found| found.pointer), pointer, "{object}");
    }

    #[test]
    fn pods_are_found_in_every_kind_that_has_them() {
        let pod = json!({"spec": {"containers": [{"name": "a"}]}});
        check(&json!({"kind": "Pod", "spec": pod["spec"]}), Some(""));
        for kind in ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "Rollout"]
        {
            check(&json!({"kind": kind, "spec": {"template": pod}}), Some("/spec/template"));
        }
        let cron = json!({"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": pod}}}});
        check(&cron, Some("/spec/jobTemplate/spec/template"));
    }

    #[test]
    fn other_objects_have_none() {
        check(&json!({"kind": "Service", "spec": {"ports": []}}), None);
        check(&json!({"kind": "Certificate", "spec": {"template": {"spec": {"dnsNames": []}}}}), None);
        check(&json!({"spec": {"containers": [{"name": "a"}]}}), None);
    }
}
