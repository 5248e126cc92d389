//! The two meshes, and a shop in each.

use std::path::Path;
use std::process::{Command, Output};

use e2e::cluster::mesh::{INJECTED, SYSTEM, deployment, install, meshctl, service};
use e2e::cluster::{Cluster, Namespace, wait};
use serde::Deserialize as _;
use serde_json::{Value, json};

/// Our revision beside Istio's default one.
pub(crate) const OURS: &str = "lateen";
/// What asks for injection by ours.
pub(crate) const BY_OURS: (&str, &str) = ("istio.io/rev", OURS);
/// What asks for injection by Istio's.
pub(crate) const BY_ISTIO: (&str, &str) = INJECTED;
/// Longest that one call of Istio's tool or of the script may take, in seconds.
const SECONDS: &str = "300";

/// Where `e2e/cluster/istio.sh` puts what it builds.
fn peers_home() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let cache = || variable("XDG_CACHE_HOME").or_else(|| Some(format!("{}/.cache", variable("HOME")?)));
    let home = variable("PEERS_HOME").or_else(|| Some(format!("{}/lateen-peers", cache()?)));
    home.unwrap_or_else(|| panic!("neither PEERS_HOME nor HOME is set"))
}

fn run(program: &str, args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new("timeout");
    command.arg(SECONDS).arg(program).args(args).envs(variables.iter().copied());
    command.output().unwrap_or_else(|error| panic!("{program} {args:?}: {error}"))
}

#[track_caller]
fn succeed(program: &str, args: &[&str], variables: &[(&str, &str)]) -> String {
    let output = run(program, args, variables);
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success(), "{program} {args:?}: {}\n{stdout}{stderr}", output.status);
    stdout
}

/// What the real `istioctl` printed.
#[track_caller]
pub(crate) fn istioctl(args: &[&str]) -> String {
    succeed(&format!("{}/bin/istioctl", peers_home()), args, &[])
}

/// Installs or removes the real Istio.
#[track_caller]
pub(crate) fn istio(what: &str) {
    istio_with(what, &[]);
}

/// As [`istio`], with variables of the script.
#[track_caller]
pub(crate) fn istio_with(what: &str, variables: &[(&str, &str)]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/istio.sh");
    _ = succeed(&script.to_string_lossy(), &[what], variables);
}

/// Installs what is missing of the two meshes: Istio first, as it is with those who come to us.
#[track_caller]
pub(crate) fn both(cluster: &Cluster) {
    let found = cluster.find("apps/v1", "Deployment", Some(SYSTEM), "istiod");
    let labels = |deployment: &Value| deployment["metadata"]["labels"]["app.kubernetes.io/managed-by"].clone();
    match &found {
        Some(deployment) if labels(deployment) == "lateen" => {
            panic!("the default revision of this cluster is ours: meshctl uninstall --purge, or another cluster")
        }
        Some(_) => {}
        None => istio("install"),
    }
    cluster.rolled_out("Deployment", SYSTEM, "istiod");
    if cluster.find("apps/v1", "Deployment", Some(SYSTEM), "istiod-lateen").is_none() {
        install_ours();
    }
    cluster.rolled_out("Deployment", SYSTEM, "istiod-lateen");
    // Left by a test that failed.
    let hook = "istio-revision-tag-default";
    if cluster.find("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", None, hook).is_some() {
        _ = meshctl(&["tag", "remove", "default", "-y"]);
    }
}

/// Installs our revision, with nothing but the control plane.
#[track_caller]
pub(crate) fn install_ours() {
    install(&["--revision", OURS, "--set", "profile=minimal"]);
}

/// A namespace of one mesh with a caller and a catalogue in `versions`.
#[track_caller]
pub(crate) fn shop(cluster: &Cluster, name: &str, by: (&str, &str), versions: &[&str]) -> Namespace {
    let shop = cluster.namespace(name, &[by]);
    shop.apply(&service("catalogue", "http", 80));
    for version in versions {
        deploy(&shop, "catalogue", version);
    }
    deploy(&shop, "caller", "v1");
    for version in versions {
        shop.rolled_out("Deployment", &format!("catalogue-{version}"));
    }
    shop.rolled_out("Deployment", "caller-v1");
    shop
}

/// A deployment whose pods serve on for a moment when they are told to end, as workloads under Istio are advised to: its
/// proxies and the node learn at different times that a pod goes.
fn deploy(shop: &Namespace, name: &str, version: &str) {
    for document in serde_yaml_ng::Deserializer::from_str(&deployment(name, version, "catalogue", 1)) {
        let mut object = Value::deserialize(document).unwrap();
        if object["kind"] == "Deployment" {
            let app = &mut object["spec"]["template"]["spec"]["containers"][0];
            app["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 3}}});
        }
        shop.cluster.apply_object(Some(&shop.name), object);
    }
}

/// Moves a namespace to another mesh; its pods stay as they are until they are made anew.
pub(crate) fn relabel(shop: &Namespace, by: (&str, &str)) {
    let mut labels = json!({"istio-injection": null, "istio.io/rev": null});
    labels[by.0] = json!(by.1);
    shop.cluster.merge("v1", "Namespace", None, &shop.name, &json!({"metadata": {"labels": labels}}));
}

/// Asks from a caller of one namespace for a page of the catalogue of another, until it is answered with `status`.
#[track_caller]
pub(crate) fn ask(from: &Namespace, to: &Namespace, path: &str, status: u16) -> Value {
    let caller = from.pod("app=caller");
    let url = format!("http://catalogue.{}{path}", to.name);
    wait(&format!("{} calls {url}", from.name), || {
        let figures = from.shop(&caller, &["http", "--url", &url, "--show", "--timeout", "2s"]);
        if figures["by_status"][status.to_string()] == 1 {
            Ok(figures["last"].clone())
        } else {
            Err(figures.to_string())
        }
    })
}

/// A header of the request as the catalogue saw it.
pub(crate) fn seen(answer: &Value, name: &str) -> Option<String> {
    let headers = answer["body"]["headers"].as_array().into_iter().flatten();
    let found = headers.filter(|header| header[0] == name).filter_map(|header| header[1].as_str());
    found.map(str::to_owned).next()
}

/// Whether a pod's proxy is Istio's, by the image it was given.
pub(crate) fn is_istios(pod: &Value) -> bool {
    let lists = ["initContainers", "containers"].map(|list| pod["spec"][list].as_array());
    let proxy = lists.into_iter().flatten().flatten().find(|container| container["name"] == "istio-proxy");
    let image = proxy.and_then(|proxy| proxy["image"].as_str()).unwrap_or_else(|| panic!("no proxy in {pod}"));
    image.contains("/proxyv2")
}
