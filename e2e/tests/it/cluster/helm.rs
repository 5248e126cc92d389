//! Installed by real Helm instead of `meshctl`: `HELM=… cargo test -p e2e --test it peers_helm_installs -- --ignored`. What
//! `meshctl` installed goes before.

use std::process::Command;

use e2e::cluster::mesh::{SYSTEM, image, meshctl};
use e2e::cluster::{Cluster, ROLLOUT, wait, within};
use serde_json::json;

use super::main_path::{FRONT, deploy};

/// Releases and their charts, in the order of installation.
const RELEASES: [(&str, &str); 3] = [("istio-base", "base"), ("istiod", "istiod"), ("istio-ingressgateway", "gateway")];

#[track_caller]
fn helm(args: &[&str]) -> String {
    let helm = std::env::var_os("HELM").expect("HELM must name Helm's binary");
    let home = std::env::temp_dir().join("lateen-e2e-helm");
    let mut command = Command::new(helm);
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(variable, &home);
    }
    let output = command.args(args).args(["--namespace", SYSTEM, "--timeout", "120s"]).output().unwrap();
    assert!(output.status.success(), "helm {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn install(release: &str, chart: &str) {
    let charts = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/charts");
    let chart = format!("{charts}/{chart}");
    let proxy = image("mesh-proxy");
    let (hub, tag) = proxy.rsplit_once("/mesh-proxy:").unwrap();
    let (hub, tag) = (format!("global.hub={hub}"), format!("global.tag={tag}"));
    let mut args = vec!["install", release, &chart, "--create-namespace", "--wait"];
    let more = [&hub, &tag, "global.imagePullPolicy=IfNotPresent"];
    let small: &[&str] = match release {
        "istiod" => &["pilot.resources.requests.cpu=10m", "pilot.resources.requests.memory=64Mi"],
        "istio-ingressgateway" => &["resources.requests.cpu=10m", "resources.requests.memory=32Mi"],
        _ => &[],
    };
    // The base has no images to be told of.
    let more = if release == "istio-base" { &[][..] } else { &more[..] };
    args.extend(more.iter().chain(small).flat_map(|setting| ["--set", setting]));
    _ = helm(&args);
}

#[test]
#[ignore = "needs a cluster, and Helm, which the variable HELM names"]
fn peers_helm_installs_on_a_cluster() {
    let cluster = Cluster::connect();
    if cluster.find("apps/v1", "Deployment", Some(SYSTEM), "istiod").is_some() {
        _ = meshctl(&["uninstall", "--purge", "-y"]);
        cluster.remove_namespace(SYSTEM);
    }
    // Helm takes over nothing that it has not made.
    let definitions = cluster.list("apiextensions.k8s.io/v1", "CustomResourceDefinition", None, "");
    for definition in definitions.iter().filter_map(|definition| definition["metadata"]["name"].as_str()) {
        if definition.ends_with(".istio.io") {
            cluster.delete_and_wait("apiextensions.k8s.io/v1", "CustomResourceDefinition", None, definition);
        }
    }
    for (release, chart) in RELEASES {
        install(release, chart);
    }
    // From then on the control plane refuses wrong objects, and an upgrade must not take that back.
    wait("wrong objects are refused", || {
        let wrong =
            "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: wrong}, spec: {servers: [{}]}}";
        let wrong: serde_json::Value = serde_yaml_ng::from_str(wrong).unwrap();
        cluster.try_apply(Some("default"), &wrong).err().filter(|error| error.contains("denied")).ok_or("it is taken")
    });

    let shop = cluster.mesh_namespace("e2e-helm");
    deploy(&shop, &[("v1", 1)]);
    shop.synced();
    shop.apply(FRONT);
    let url = format!("http://istio-ingressgateway.{SYSTEM}/echo");
    let caller = shop.pod("app=caller");
    let seen = wait("the gateway leads to the catalogue", || {
        let figures = shop.shop(&caller, &["http", "--url", &url, "-H", "Host:shop.example", "--show"]);
        if figures["failed"] == 0 { Ok(figures.to_string()) } else { Err(figures.to_string()) }
    });
    assert!(seen.contains("/sa/istio-ingressgateway"), "the gateway has an identity: {seen}");

    // An upgrade changes what it is told to and keeps the rest; so does the control plane's own part of the webhooks.
    let charts = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/charts/istiod");
    _ = helm(&[
        "upgrade",
        "istiod",
        charts,
        "--reuse-values",
        "--set",
        "meshConfig.accessLogFile=/dev/stdout",
        "--wait",
    ]);
    cluster.restart(&shop.name, "catalogue-v1");
    shop.rolled_out("Deployment", "catalogue-v1");
    let figures = shop.shop(&caller, &["http", "--url", "http://catalogue/products", "-n", "20"]);
    assert_eq!((&figures["requests"], &figures["failed"]), (&json!(20), &json!(0)), "{figures}");

    drop(shop);
    for (release, _) in RELEASES.into_iter().rev() {
        _ = helm(&["uninstall", release, "--wait"]);
    }
    within(ROLLOUT, "no webhook is left to refuse pods", || {
        let kinds = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];
        let left: Vec<String> = kinds
            .into_iter()
            .flat_map(|kind| cluster.list("admissionregistration.k8s.io/v1", kind, None, ""))
            .filter_map(|object| object["metadata"]["name"].as_str().map(str::to_owned))
            .filter(|name| name.contains("istio"))
            .collect();
        if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
    });
    cluster.remove_namespace(SYSTEM);
}
