use std::collections::{BTreeMap, BTreeSet};

use mesh_api::access;
use serde_json::json;

use super::*;
use crate::install::settings::SettingsArgs;

fn render(sets: &[&str]) -> Manifest {
    let sets = sets.iter().map(|set| (*set).to_owned()).collect();
    let settings = Settings::load(&SettingsArgs { sets, ..SettingsArgs::default() }, "istio-system", None).unwrap();
    Manifest::render(settings).unwrap()
}

#[track_caller]
fn find<'a>(manifest: &'a Manifest, kind: &str, name: &str) -> &'a Value {
    let found = manifest.objects.iter().find(|object| object.kind() == kind && object.name() == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}")).value()
}

fn names(manifest: &Manifest, kind: &str) -> Vec<String> {
    let of_kind = manifest.objects.iter().filter(|object| object.kind() == kind);
    of_kind.map(|object| object.name().to_owned()).collect()
}

#[test]
fn profiles_differ_in_their_gateways() {
    assert_eq!(names(&render(&["profile=minimal"]), "Deployment"), ["istiod"]);
    assert_eq!(names(&render(&[]), "Deployment"), ["istio-ingressgateway", "istiod"]);
    let demo = render(&["profile=demo"]);
    assert_eq!(names(&demo, "Deployment"), ["istio-egressgateway", "istio-ingressgateway", "istiod"]);
    assert!(names(&demo, "HorizontalPodAutoscaler").is_empty());
    let mesh = find(&demo, "ConfigMap", "istio")["data"]["mesh"].as_str().unwrap();
    assert!(mesh.contains("accessLogFile: /dev/stdout"), "{mesh}");
}

#[test]
fn the_same_settings_give_the_same_bytes() {
    assert_eq!(render(&["profile=demo"]).to_yaml(), render(&["profile=demo"]).to_yaml());
}

#[test]
fn every_object_carries_our_mark_and_its_revision() {
    let manifest = render(&["profile=demo", "revision=canary", "revisionTags={prod}", "values.pilot.autoscaleMin=2"]);
    for object in &manifest.objects {
        assert!(object.is_ours(), "{object}");
        let shared = object.kind() == "CustomResourceDefinition" || object.name() == "istio-reader-service-account";
        assert_eq!(object.revision() == "canary", !shared, "{object}");
    }
    assert_eq!(
        names(&manifest, "MutatingWebhookConfiguration"),
        ["istio-revision-tag-prod", "istio-sidecar-injector-canary"]
    );
    assert!(names(&manifest, "ValidatingWebhookConfiguration") == ["istio-validator-canary-istio-system"]);
}

/// Whatever chooses pods of the control plane: its Service, its budget, its policy, its Deployment.
#[test]
fn revisions_do_not_answer_for_each_other() {
    let more = ["values.pilot.autoscaleMin=2", "values.global.networkPolicy.enabled=true"];
    let [default, canary] = ["", "revision=canary"].map(|revision| {
        render(&more.into_iter().chain((!revision.is_empty()).then_some(revision)).collect::<Vec<_>>())
    });
    let labels = |manifest: &Manifest, name: &str| {
        find(manifest, "Deployment", name)["spec"]["template"]["metadata"]["labels"].as_object().unwrap().clone()
    };
    let pods = [labels(&default, "istiod"), labels(&canary, "istiod-canary")];
    // Istio's default revision chooses its pods by these (istio/istio: manifests/charts/istio-control/istio-discovery).
    let istios = json!({"app": "istiod", "istio": "pilot"});
    let selectors = |manifest: &Manifest, name: &str| {
        let selector = |kind| find(manifest, kind, name)["spec"].clone();
        [
            selector("Service")["selector"].clone(),
            selector("PodDisruptionBudget")["selector"]["matchLabels"].clone(),
            selector("NetworkPolicy")["podSelector"]["matchLabels"].clone(),
            selector("Deployment")["selector"]["matchLabels"].clone(),
        ]
    };
    let chosen = |selector: &Value| {
        let wanted = selector.as_object().unwrap();
        pods.each_ref().map(|labels| wanted.iter().all(|(name, value)| labels.get(name) == Some(value)))
    };
    for selector in selectors(&default, "istiod").iter().chain([&istios]) {
        assert_eq!(chosen(selector), [true, false], "{selector}");
    }
    for selector in selectors(&canary, "istiod-canary") {
        assert_eq!(chosen(&selector), [false, true], "{selector}");
    }
}

/// Promise D7: a control plane that is down keeps neither itself nor the cluster from starting.
#[test]
fn webhooks_stay_away_from_the_control_plane_and_the_cluster() {
    let manifest =
        render(&["namespace=mesh", "revisionTags={prod}", "sidecarInjectorWebhook.enableNamespacesByDefault=true"]);
    let mut seen = BTreeSet::new();
    for object in manifest.objects.iter().filter(|object| object.kind() == "MutatingWebhookConfiguration") {
        for entry in object.value()["webhooks"].as_array().unwrap() {
            seen.insert(entry["name"].as_str().unwrap().to_owned());
            let spared = entry["namespaceSelector"]["matchExpressions"].as_array().unwrap().iter().any(|expression| {
                expression["key"] == "kubernetes.io/metadata.name"
                    && expression["operator"] == "NotIn"
                    && ["kube-system", "mesh"]
                        .iter()
                        .all(|name| expression["values"].as_array().unwrap().contains(&json!(name)))
            });
            assert!(spared, "{entry}");
        }
    }
    let entries = ["auto", "namespace", "object", "rev.namespace", "rev.object"];
    assert_eq!(seen, entries.map(|name| format!("{name}.sidecar-injector.istio.io")).into());
}

/// The entries of istio-surface 4.1, but for the namespaces that are spared.
#[test]
fn injection_is_asked_for_as_in_istio() {
    let manifest = render(&[]);
    let hook = find(&manifest, "MutatingWebhookConfiguration", "istio-sidecar-injector");
    let selectors: BTreeMap<String, String> = hook["webhooks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let text = |field: &str| {
                let all = entry[field]["matchExpressions"].as_array().unwrap().iter();
                let all = all.filter(|e| e["key"] != "kubernetes.io/metadata.name");
                let mut all: Vec<String> = all
                    .map(|e| {
                        let values = e["values"].as_array().map(|v| json!(v).to_string()).unwrap_or_default();
                        format!("{} {}{values}", e["key"].as_str().unwrap(), e["operator"].as_str().unwrap())
                    })
                    .collect();
                all.sort();
                all.join("; ")
            };
            let name = entry["name"].as_str().unwrap().trim_end_matches(".sidecar-injector.istio.io");
            (name.to_owned(), format!("{} | {}", text("namespaceSelector"), text("objectSelector")))
        })
        .collect();
    let expected = [
        (
            "rev.namespace",
            "istio-injection DoesNotExist; istio.io/rev In[\"default\"] | sidecar.istio.io/inject NotIn[\"false\"]",
        ),
        (
            "rev.object",
            "istio-injection DoesNotExist; istio.io/rev DoesNotExist | istio.io/rev In[\"default\"]; sidecar.istio.io/inject NotIn[\"false\"]",
        ),
        ("namespace", "istio-injection In[\"enabled\"] | sidecar.istio.io/inject NotIn[\"false\"]"),
        (
            "object",
            "istio-injection DoesNotExist; istio.io/rev DoesNotExist | istio.io/rev DoesNotExist; sidecar.istio.io/inject In[\"true\"]",
        ),
    ];
    assert_eq!(selectors, expected.map(|(name, text)| (name.to_owned(), text.to_owned())).into());
    assert!(hook["webhooks"].as_array().unwrap().iter().all(|entry| entry["failurePolicy"] == "Fail"));
}

/// Least privilege: what the table of kinds says is watched, and no wildcard.
#[test]
fn the_roles_name_what_is_watched() {
    let manifest = render(&[]);
    let rules = |kind: &str, name: &str| find(&manifest, kind, name)["rules"].as_array().unwrap().clone();
    let cluster = rules("ClusterRole", "istiod-clusterrole-istio-system");
    let own = rules("Role", "istiod");
    for (wanted, found) in [(access::cluster_rules(), &cluster), (access::control_plane_rules(), &own)] {
        for rule in wanted {
            let text = json!({ "apiGroups": [rule.group], "resources": rule.resources, "verbs": rule.verbs });
            assert!(found.contains(&text), "manifests/charts/istiod/templates lacks the rule {text}");
        }
    }
    for rule in cluster.iter().chain(&own) {
        assert!(!rule.to_string().contains("\"*\""), "{rule}");
        let reads_all =
            rule["resources"].as_array().unwrap().contains(&json!("secrets")) && rule.get("resourceNames").is_none();
        let writes = rule["verbs"]
            .as_array()
            .unwrap()
            .iter()
            .any(|verb| ["update", "patch", "delete"].iter().any(|v| verb == v));
        assert!(!(reads_all && writes), "{rule}");
    }
}

#[test]
fn pods_have_no_privilege_at_all() {
    for object in render(&["profile=demo"]).objects.iter().filter(|object| object.is_workload()) {
        let pod = &object.value()["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{object}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{object}");
        for container in pod["containers"].as_array().unwrap() {
            let context = &container["securityContext"];
            assert_eq!(context["readOnlyRootFilesystem"], true, "{object}");
            assert_eq!(context["allowPrivilegeEscalation"], false, "{object}");
            assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }), "{object}");
        }
    }
}

#[test]
fn settings_of_istio_reach_the_objects() {
    let manifest = render(&[
        "hub=h",
        "tag=t",
        "components.pilot.k8s.env[0].name=PILOT_PUSH_THROTTLE",
        "components.pilot.k8s.env[0].value=7",
        "components.pilot.k8s.hpaSpec.minReplicas=2",
        "components.ingressGateways[0].k8s.service.type=NodePort",
        "values.gateways.istio-ingressgateway.autoscaleMax=9",
        "values.global.networkPolicy.enabled=true",
    ]);
    let istiod = find(&manifest, "Deployment", "istiod")["spec"]["template"]["spec"]["containers"][0].clone();
    assert_eq!(istiod["image"], "h/meshd:t");
    assert!(istiod["env"].as_array().unwrap().contains(&json!({ "name": "PILOT_PUSH_THROTTLE", "value": "7" })));
    assert_eq!(find(&manifest, "HorizontalPodAutoscaler", "istiod")["spec"]["minReplicas"], 2);
    assert_eq!(names(&manifest, "PodDisruptionBudget"), ["istiod"]);
    assert_eq!(names(&manifest, "NetworkPolicy"), ["istio-ingressgateway", "istiod"]);
    assert_eq!(find(&manifest, "Service", "istio-ingressgateway")["spec"]["type"], "NodePort");
    assert_eq!(find(&manifest, "HorizontalPodAutoscaler", "istio-ingressgateway")["spec"]["maxReplicas"], 9);
    let gateway = &find(&manifest, "Deployment", "istio-ingressgateway")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(gateway["image"], "h/mesh-proxy:t");
}

#[test]
fn the_injector_understands_its_configuration() {
    let manifest = render(&["revision=canary", "values.sidecarInjectorWebhook.templates.mine=spec: {}"]);
    let data = &find(&manifest, "ConfigMap", "istio-sidecar-injector-canary")["data"];
    let (values, findings) = mesh_api::inject::values::InjectValues::parse(data["values"].as_str().unwrap()).unwrap();
    assert_eq!((values.revision.as_str(), values.tag.as_str()), ("canary", env!("CARGO_PKG_VERSION")));
    assert!(findings.is_empty(), "{findings:?}");
    let config = data["config"].as_str().unwrap();
    let (config, findings) = mesh_api::inject::config::InjectorConfig::parse(config).unwrap();
    assert_eq!(config.templates.len(), 1);
    assert!(findings.is_empty(), "{findings:?}");
    let mesh = find(&manifest, "ConfigMap", "istio-canary")["data"]["mesh"].as_str().unwrap();
    assert!(mesh.contains("istiod-canary.istio-system.svc:15012"), "{mesh}");
}

#[test]
fn components_that_there_are_not_are_refused() {
    let settings = |set: &str| {
        let args = SettingsArgs { sets: vec![set.to_owned()], ..SettingsArgs::default() };
        Settings::load(&args, "istio-system", None).and_then(Manifest::render).map(drop).unwrap_err().to_string()
    };
    assert!(settings("components.cni.enabled=true").contains("there is no component cni"));
    assert!(settings("components.pilot.k8s.securityContext.runAsUser=1").contains("cannot be set"));
}
