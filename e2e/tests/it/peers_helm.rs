//! Our charts, rendered by us and by real Helm: the same objects, null and absent being one. Helm is built from its Go
//! module (`helm.sh/helm/v4`), and the variable HELM names it: `HELM=… cargo test -p e2e --test it peers_helm -- --ignored`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use meshctl::install::component::{self, Component};
use meshctl::install::diff;
use meshctl::install::settings::{Settings, SettingsArgs};
use serde::Deserialize as _;
use serde_json::Value;

/// Settings beside the profiles: together they reach every template and most of their branches.
const SETTINGS: &[&[&str]] = &[
    &["profile=minimal"],
    &["profile=default"],
    &["profile=demo"],
    &["profile=demo", "revision=canary", "revisionTags={prod,default}", "hub=registry.example/mesh", "tag=1.2"],
    &[
        "namespace=mesh",
        "values.global.networkPolicy.enabled=true",
        "values.global.logAsJson=true",
        "values.global.imagePullSecrets={a,b}",
        "values.global.priorityClassName=system-cluster-critical",
        "values.global.network=n1",
        "values.global.meshID=m",
        "values.global.proxy.image=registry.example/own/proxy:7",
        "values.sidecarInjectorWebhook.enableNamespacesByDefault=true",
        "values.sidecarInjectorWebhook.templates.mine=spec: {}\nmore: |\n  text",
        "values.sidecarInjectorWebhook.neverInjectSelector[0].matchLabels.a=b",
        "values.pilot.autoscaleMin=2",
        "values.pilot.plaintextDiscovery=true",
        "values.pilot.memory.targetAverageUtilization=70",
        "values.pilot.podLabels.x=on",
        "values.pilot.podAnnotations.y=007",
        "values.pilot.serviceAnnotations.z=true",
        "values.pilot.ipFamilyPolicy=PreferDualStack",
        "values.pilot.ipFamilies={IPv6,IPv4}",
        "values.pilot.tolerations[0].key=k",
        "values.pilot.tolerations[0].operator=Exists",
        "values.pilot.nodeSelector.disk=ssd",
        "values.pilot.extraContainerArgs={--log-level=debug}",
        "values.base.excludedCRDs={sidecars.networking.istio.io}",
        "components.pilot.k8s.env[0].name=PILOT_PUSH_THROTTLE",
        "components.pilot.k8s.env[0].value=7",
        "components.ingressGateways[0].k8s.replicaCount=3",
        "components.ingressGateways[0].k8s.service.type=NodePort",
        "components.ingressGateways[0].k8s.service.externalTrafficPolicy=Local",
        "components.ingressGateways[0].k8s.podDisruptionBudget.maxUnavailable=1",
        "values.gateways.istio-ingressgateway.kind=DaemonSet",
        "values.gateways.istio-ingressgateway.env.MINE=on",
        "meshConfig.accessLogFile=/dev/stdout",
        "meshConfig.defaultConfig.concurrency=2",
        "meshConfig.defaultConfig.proxyMetadata.A=b<c>&d",
        "meshConfig.trustDomain=example.org",
    ],
    &[
        "values.global.configValidation=false",
        "values.base.enableCRDTemplates=false",
        "values.pilot.autoscaleEnabled=false",
    ],
];

type Objects = BTreeMap<(String, String, String), Value>;

fn keyed(objects: impl IntoIterator<Item = Value>) -> Objects {
    let key =
        |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let all = objects.into_iter().map(|value| {
        let name = (key(&value, "/kind"), key(&value, "/metadata/namespace"), key(&value, "/metadata/name"));
        (name, parsed_texts(value))
    });
    all.collect()
}

/// ConfigMaps hold YAML and JSON as text, which the two write differently and mean the same.
fn parsed_texts(mut value: Value) -> Value {
    if value["kind"] == "ConfigMap" {
        for text in value["data"].as_object_mut().unwrap().values_mut() {
            *text = serde_yaml_ng::from_str(text.as_str().unwrap()).unwrap();
        }
    }
    value
}

fn by_helm(helm: &str, component: &Component) -> Objects {
    let charts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/charts");
    let folder = tempfile::tempdir().unwrap();
    let values = folder.path().join("values.json");
    std::fs::write(&values, component.values.to_string()).unwrap();
    let mut command = Command::new(helm);
    command.args(["template", &component.release]).arg(charts.join(component.chart));
    command.args(["--namespace", &component.namespace, "--kube-version", "v1.32.0", "--values"]).arg(&values);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{component:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let documents = serde_yaml_ng::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap());
    keyed(documents.filter(|document| !document.is_null()))
}

#[test]
#[ignore = "needs Helm, which the variable HELM names"]
fn charts_are_rendered_as_helm_does() {
    let helm = std::env::var("HELM").expect("HELM must name Helm's binary");
    let mut compared = 0;
    for sets in SETTINGS {
        let args = SettingsArgs { sets: sets.iter().map(|set| (*set).to_owned()).collect(), ..SettingsArgs::default() };
        let settings = Settings::load(&args, "istio-system", None).unwrap();
        for component in component::components(&settings).unwrap() {
            let ours = keyed(component.render(&settings).unwrap().into_iter().map(|object| object.value().clone()));
            let theirs = by_helm(&helm, &component);
            assert_eq!(
                ours.keys().collect::<Vec<_>>(),
                theirs.keys().collect::<Vec<_>>(),
                "{sets:?} {}",
                component.release
            );
            for (name, object) in &ours {
                let other = &theirs[name];
                let differ = diff::fields(object, other);
                assert!(differ.is_empty(), "{sets:?} {name:?}: before is ours, after is Helm's: {differ:#?}");
                compared += 1;
            }
        }
    }
    assert!(compared > 100, "{compared}");
}
