//! What the pod itself says about injected containers, and what an earlier injection did. istio/istio:
//! pkg/kube/inject/webhook.go reapplyOverwrittenContainers, reinsertOverrides, stripPod.

use serde_json::{Value, json};

use super::{INIT_CONTAINER, PROXY_CONTAINER, Refusal, VALIDATION_CONTAINER, merge, metrics, view};

/// What an earlier injection added.
pub(super) const STATUS: &str = "sidecar.istio.io/status";
/// What the pod said about injected containers before the first injection.
pub(super) const OVERRIDES: &str = "proxy.istio.io/overrides";
/// The image of a container that only overrides something: a container must have one.
const AUTO_IMAGE: &str = "auto";
/// Both kinds of containers.
const KINDS: [&str; 2] = ["containers", "initContainers"];

/// What an earlier injection left behind.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    /// What it added; `None` when there was none.
    status: Option<Value>,
    /// What the pod had said.
    overrides: Value,
}

impl Earlier {
    /// Reads the annotations of a pod.
    pub(super) fn of_pod(pod: &Value) -> Result<Self, Refusal> {
        // A status that cannot be read is that of somebody else: the pod counts as injected, by nothing that is known.
        let status = view::annotation(pod, STATUS).map(|text| serde_json::from_str(text).unwrap_or_else(|_| json!({})));
        let overrides = match view::annotation(pod, OVERRIDES) {
            None => json!({}),
            Some(text) => serde_json::from_str(text)
                .map_err(|error| Refusal::new(format!("annotation '{OVERRIDES}' is not JSON: {error}")))?,
        };
        Ok(Self { status, overrides })
    }

    /// Whether the pod was injected before.
    pub(super) fn injected(&self) -> bool {
        self.status.is_some()
    }

    /// Whether the container was added before.
    fn added(&self, kind: &str, name: &str) -> bool {
        let names = self.status.as_ref().and_then(|status| status.get(kind)).and_then(Value::as_array);
        names.is_some_and(|names| names.iter().any(|known| known == name))
    }

    /// What the pod had said about a container; the proxy may have been of the other kind then.
    fn said(&self, name: &str) -> Option<&Value> {
        KINDS.iter().find_map(|kind| view::find(self.overrides.get(kind)?.as_array()?, name))
    }

    /// The pod as it was before: what templates see.
    pub(super) fn stripped(&self, pod: &Value, status_port: u16) -> Value {
        let mut pod = pod.clone();
        if self.injected() {
            for kind in KINDS {
                if let Some(list) = view::list_mut(&mut pod, kind) {
                    list.retain(|container| !self.added(kind, view::name(container)));
                }
            }
            metrics::forget_own(&mut pod, status_port);
            view::annotations_mut(&mut pod).remove(STATUS);
        }
        for kind in KINDS {
            for said in self.overrides.get(kind).and_then(Value::as_array).into_iter().flatten() {
                let list = view::list_made(&mut pod, kind);
                if view::find(list, view::name(said)).is_none() {
                    list.push(said.clone());
                }
            }
        }
        pod
    }
}

/// Moves the pod's own istio-proxy to where the template has it, so that the two are merged.
pub(super) fn align_proxy(pod: &mut Value, template: &Value) {
    let has = |pod: &Value, kind: &str| view::find(view::list(pod, kind), PROXY_CONTAINER).is_some();
    for (from, to) in [("containers", "initContainers"), ("initContainers", "containers")] {
        if !has(template, to) || !has(pod, from) || has(pod, to) {
            continue;
        }
        let Some(list) = view::list_mut(pod, from) else { continue };
        let Some(at) = list.iter().position(|container| view::name(container) == PROXY_CONTAINER) else { continue };
        let mut proxy = list.remove(at);
        if to == "containers" {
            // Only an init container has a policy of its own, and hooks of the kinds differ.
            view::as_object(&mut proxy).retain(|field, _| field != "restartPolicy" && field != "lifecycle");
        }
        view::list_made(pod, to).push(proxy);
        return;
    }
}

/// Puts what the pod says about containers on top of what the template says, and notes it for a second injection.
pub(super) fn reapply(merged: Value, pod: &Value, template: &Value, earlier: &Earlier) -> Value {
    let mut merged = merged;
    let mut noted = json!({});
    for kind in KINDS {
        for name in view::list(template, kind).iter().map(view::name) {
            let own = || {
                if KINDS.iter().any(|kind| earlier.added(kind, name)) {
                    return None;
                }
                // A proxy that becomes an init container is written among the containers.
                let found = view::find(view::list(pod, "containers"), name);
                if kind == "initContainers" { found.or_else(|| view::find(view::list(pod, kind), name)) } else { found }
            };
            let Some(said) = earlier.said(name).or_else(own) else { continue };
            let mut said = said.clone();
            if view::text(&said, "/image") == Some(AUTO_IMAGE) {
                view::as_object(&mut said).remove("image");
            }
            merged = merge::merge(&merged, &json!({ "spec": { kind: [said] } }));
            if let Some(list) =
                view::object_mut(&mut noted, "list").entry(kind).or_insert_with(|| json!([])).as_array_mut()
            {
                list.push(said);
            }
        }
    }
    if let Some(noted) = noted.get("list")
        && !earlier.injected()
    {
        view::annotations_mut(&mut merged).insert(OVERRIDES.to_owned(), noted.to_string().into());
    }
    merged
}

/// Lets redirection know the user that the pod's own istio-proxy runs as. With TPROXY that must stay root.
pub(super) fn adjust_user(merged: &mut Value, pod: &Value, tproxy: bool) {
    let own = view::all_containers(pod).find(|container| view::name(container) == PROXY_CONTAINER);
    let id = |field: &str| own?.pointer("/securityContext")?.get(field)?.as_u64();
    let (uid, gid) = (id("runAsUser"), id("runAsGroup"));
    if uid.is_none() && gid.is_none() {
        return;
    }
    if tproxy
        && uid.is_some()
        && let Some(proxy) = view::proxy_mut(merged)
    {
        view::object_mut(proxy, "securityContext").insert("runAsUser".to_owned(), 0.into());
    }
    let Some(init) = view::list_mut(merged, "initContainers").and_then(|list| {
        list.iter_mut().find(|container| [INIT_CONTAINER, VALIDATION_CONTAINER].contains(&view::name(container)))
    }) else {
        return;
    };
    if !tproxy && view::name(init) == VALIDATION_CONTAINER {
        let context = view::object_mut(init, "securityContext");
        for (field, id) in [("runAsUser", uid), ("runAsGroup", gid)] {
            if let Some(id) = id {
                context.insert(field.to_owned(), id.into());
            }
        }
    }
    // A rule for root would let all of root's traffic pass.
    let Some(uid) = uid.filter(|uid| *uid != 0) else { return };
    let args = view::inner_list(init, "args");
    if let Some(at) = args.iter().position(|arg| arg == "-u")
        && let Some(value) = args.get_mut(at + 1)
    {
        *value = uid.to_string().into();
    }
}
