//! `meshctl` on a cluster: what it tells of proxies, pods, objects and the mesh as a whole.

use e2e::cluster::mesh::{meshctl, try_meshctl};
use e2e::cluster::{Cluster, wait};
use serde_json::Value;

use super::main_path::shop;

fn json(args: &[&str]) -> Value {
    let text = meshctl(args);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_cli_tells_of_proxies_by_the_names_kubectl_takes() {
    let cluster = Cluster::connect();
    let shop = shop(&cluster, "e2e-cli", &[("v1", 1)]);
    let pod = shop.pod("app=catalogue");

    // Every replica is asked, and each proxy tells which one it is connected to.
    let status = json(&["proxy-status", "-n", "e2e-cli", "-o", "json"]);
    let proxies = status["proxies"].as_array().unwrap();
    assert_eq!(proxies.len(), 2, "{status}");
    assert!(
        proxies.iter().all(|proxy| proxy["istiod"].as_str().is_some_and(|pod| pod.starts_with("istiod-"))),
        "{status}"
    );

    for target in [pod.clone(), format!("{pod}.e2e-cli"), "deploy/catalogue-v1".to_owned(), "svc/catalogue".to_owned()]
    {
        let clusters = meshctl(&["proxy-config", "cluster", &target, "-n", "e2e-cli"]);
        assert!(clusters.contains("catalogue.e2e-cli.svc.cluster.local"), "{target}: {clusters}");
    }
    for what in ["listener", "route", "endpoint", "secret", "bootstrap", "all"] {
        let shown = meshctl(&["proxy-config", what, "deploy/catalogue-v1.e2e-cli"]);
        assert!(shown.lines().count() > 1, "{what}: {shown}");
        assert!(!shown.contains("PRIVATE KEY"), "{what}");
    }
    let same = meshctl(&["proxy-config", "rootca-compare", "deploy/catalogue-v1.e2e-cli", "deploy/caller-v1.e2e-cli"]);
    assert!(same.contains("in common"), "{same}");

    let set = meshctl(&["proxy-config", "log", "deploy/catalogue-v1.e2e-cli", "--level", "debug"]);
    assert!(set.contains("default: debug"), "{set}");
    let reset = meshctl(&["proxy-config", "log", "deploy/catalogue-v1.e2e-cli", "--reset"]);
    assert!(reset.contains("default: warn"), "{reset}");

    let absent = try_meshctl(&["proxy-config", "cluster", "deploy/nobody.e2e-cli"]);
    let said = String::from_utf8_lossy(&absent.stderr).into_owned();
    assert!(absent.status.code() == Some(1) && said.contains("there is no deployment/nobody in e2e-cli"), "{said}");
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_cli_finds_what_is_wrong_and_waits_for_what_is_right() {
    let cluster = Cluster::connect();
    let shop = shop(&cluster, "e2e-cli-find", &[("v1", 1)]);
    shop.apply(
        "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: wrong}, \
         spec: {hosts: [catalogue], http: [{route: [{destination: {host: nobody}}]}]}}",
    );
    let found = try_meshctl(&["analyze", "-n", "e2e-cli-find", "-o", "json"]);
    assert_eq!(found.status.code(), Some(1), "{}", String::from_utf8_lossy(&found.stderr));
    let messages: Value = serde_json::from_slice(&found.stdout).unwrap();
    let told = messages
        .as_array()
        .unwrap()
        .iter()
        .any(|message| message["code"] == "IST0101" && message["origin"] == "VirtualService e2e-cli-find/wrong");
    assert!(told, "{messages}");
    cluster.delete("networking.istio.io/v1", "VirtualService", Some("e2e-cli-find"), "wrong");

    shop.apply(
        "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: right}, \
         spec: {hosts: [catalogue], http: [{timeout: 7s, route: [{destination: {host: catalogue}}]}]}}",
    );
    wait("the change is with every proxy", || {
        let done = try_meshctl(&["wait", "virtualservice", "right", "-n", "e2e-cli-find", "--timeout", "10"]);
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        if done.status.success() && said.contains("Applied") { Ok(()) } else { Err(said) }
    });
    let routes = meshctl(&["proxy-config", "route", "deploy/caller-v1", "-n", "e2e-cli-find", "-o", "json"]);
    assert!(routes.contains("7s"), "{routes}");

    let described = meshctl(&["describe", "pod", "deploy/catalogue-v1", "-n", "e2e-cli-find"]);
    for line in ["Service: catalogue.e2e-cli-find", "VirtualService: right.e2e-cli-find", "Workload mTLS mode: "] {
        assert!(described.contains(line), "{described}");
    }
    let absent = try_meshctl(&["wait", "virtualservice", "nobody", "-n", "e2e-cli-find"]);
    assert_eq!(absent.status.code(), Some(1));
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_cli_reports_without_secrets() {
    let cluster = Cluster::connect();
    let _shop = shop(&cluster, "e2e-cli-report", &[("v1", 1)]);
    let version = json(&["version", "-o", "json"]);
    assert!(version["dataPlaneVersion"].as_object().is_some_and(|versions| !versions.is_empty()), "{version}");
    assert_eq!(
        json(&["precheck", "-o", "json"]).as_array().map(|all| all.iter().any(|one| one["level"] == "Error")),
        Some(false)
    );
    assert!(meshctl(&["admin", "log"]).contains("default"));
    _ = json(&["migrate", "check", "-n", "e2e-cli-report", "-o", "json"]);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.tar.gz");
    let listed = meshctl(&["bug-report", "-n", "e2e-cli-report", "--output-file", file.to_str().unwrap()]);
    assert!(listed.contains("syncz.json") && listed.contains("config_dump.json"), "{listed}");
    let unpacked = std::process::Command::new("tar").arg("-xzOf").arg(&file).output().unwrap();
    let text = String::from_utf8_lossy(&unpacked.stdout);
    assert!(text.len() > 1000 && !text.contains("PRIVATE KEY"), "{} bytes", text.len());

    let secret = meshctl(&["create-remote-secret", "--name", "west", "--service-account", "istiod", "--hours", "1"]);
    assert!(secret.contains("istio-remote-secret-west"), "the secret has no name");
    let refused = try_meshctl(&["ztunnel-config", "workload"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no ambient mode"));
}
