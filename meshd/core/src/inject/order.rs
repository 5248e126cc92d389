//! The order of containers. istio/istio: pkg/kube/inject/webhook.go reorderPod.

use serde_json::Value;

use super::{INIT_CONTAINER, PROXY_CONTAINER, VALIDATION_CONTAINER, view};

/// Puts the injected containers where they belong.
///
/// A native proxy comes right after redirection and before all init containers of the workload, which so have a network. A
/// classic one comes last, so that `kubectl exec` means the workload, or first when the workload waits for it; and its
/// redirection comes last of the init containers, because before the proxy runs nothing redirected arrives anywhere.
pub(super) fn reorder(pod: &mut Value, hold: bool) {
    let native = view::find(view::list(pod, "initContainers"), PROXY_CONTAINER).is_some();
    if let Some(containers) = view::list_mut(pod, "containers") {
        if hold { to_front(containers, PROXY_CONTAINER) } else { to_back(containers, PROXY_CONTAINER) }
    }
    let Some(inits) = view::list_mut(pod, "initContainers") else { return };
    if native {
        to_front(inits, PROXY_CONTAINER);
        to_front(inits, VALIDATION_CONTAINER);
        to_front(inits, INIT_CONTAINER);
    } else {
        to_front(inits, VALIDATION_CONTAINER);
        to_back(inits, INIT_CONTAINER);
    }
}

fn take(list: &mut Vec<Value>, name: &str) -> Option<Value> {
    let at = list.iter().position(|item| view::name(item) == name)?;
    Some(list.remove(at))
}

fn to_front(list: &mut Vec<Value>, name: &str) {
    if let Some(item) = take(list, name) {
        list.insert(0, item);
    }
}

fn to_back(list: &mut Vec<Value>, name: &str) {
    if let Some(item) = take(list, name) {
        list.push(item);
    }
}
