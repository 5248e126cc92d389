//! The template `gateway`: a proxy that is the pod's only container. Ports are the user's.

use serde_json::{Value, json};

use super::{Data, environment, view, volumes};
use crate::inject::PROXY_CONTAINER;

/// Renders it.
pub(super) fn render(data: &Data<'_>) -> Value {
    let values = &data.injector.values;
    // Listening below 1024 needs neither root nor a capability when the namespace says so.
    let unprivileged = || json!({ "sysctls": [{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "0" }] });
    let mut spec = json!({
        "securityContext": values.gateway_security_context.clone().unwrap_or_else(unprivileged),
        "containers": [container(data)],
        "volumes": volumes::volumes(data, false),
    });
    if let Some(secrets) = data.pull_secrets() {
        view::as_object(&mut spec).insert("imagePullSecrets".into(), secrets);
    }
    let (labels, annotations) = data.metadata();
    json!({ "metadata": { "labels": labels, "annotations": annotations }, "spec": spec })
}

fn container(data: &Data<'_>) -> Value {
    let proxy = &data.injector.values.proxy;
    let mut env = environment::variables(data);
    env.extend(environment::identity(data, &data.owner.name));
    let mut container = json!({
        "name": PROXY_CONTAINER,
        "image": data.proxy_image,
        "ports": [{ "containerPort": 15090, "protocol": "TCP", "name": "http-envoy-prom" }],
        "args": data.proxy_args("router"),
        "securityContext": { "runAsUser": data.ids.0, "runAsGroup": data.ids.1 },
        "env": env,
        "readinessProbe": {
            "httpGet": { "path": "/healthz/ready", "port": 15021 },
            "initialDelaySeconds": proxy.readiness_initial_delay_seconds,
            "periodSeconds": proxy.readiness_period_seconds,
            "timeoutSeconds": 3,
            "failureThreshold": proxy.readiness_failure_threshold,
        },
        "volumeMounts": volumes::mounts(data, false),
    });
    if let Some(lifecycle) = &proxy.lifecycle {
        view::as_object(&mut container).insert("lifecycle".into(), lifecycle.clone());
    }
    data.finish(&mut container);
    container
}
