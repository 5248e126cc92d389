//! What a control plane knows of a cluster: `meshd --kubernetes` beside it, asked by its debug pages. No proxy, no pod.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use e2e::client;
use e2e::cluster::{Cluster, wait};
use e2e::process::{Process, Spec, binary};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use mesh_api::access::{self, Rule};
use mesh_api::crd::core::secret::SecretBytes;
use serde::Deserialize as _;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A control plane outside of the cluster.
struct ControlPlane {
    process: Process,
    at: SocketAddr,
    _folder: TempDir,
}

/// Somebody else leads in a namespace, so that a control plane there reads and writes nothing elsewhere: the cluster may
/// have another mesh.
fn led_by_another(cluster: &Cluster, namespace: &str) {
    let now = serde_json::to_value(MicroTime(Timestamp::now())).unwrap();
    for name in ["lateen-leader", "lateen-leader-canary"] {
        let spec = json!({"holderIdentity": "e2e", "leaseDurationSeconds": 300, "acquireTime": now, "renewTime": now});
        let lease =
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": spec});
        cluster.apply_object(Some(namespace), lease);
    }
}

impl ControlPlane {
    /// Starts one whose own namespace is this. `kubeconfig` is that of the environment unless given.
    fn start(cluster: &Cluster, namespace: &str, kubeconfig: Option<&Value>, more: &[&str]) -> Self {
        led_by_another(cluster, namespace);
        let folder = tempfile::tempdir().unwrap();
        let path = match kubeconfig {
            Some(config) => {
                let path = folder.path().join("kubeconfig");
                fs::write(&path, config.to_string()).unwrap();
                path
            }
            None => std::env::var_os("KUBECONFIG").unwrap().into(),
        };
        let spec = Spec::new("meshd", binary("meshd")).args(["run", "--kubernetes", "--namespace", namespace]);
        let spec = spec.args(["--kubeconfig".as_ref(), path.as_os_str()]);
        let spec = spec.args(["--state-dir".as_ref(), folder.path().join("state").as_os_str()]);
        let spec = spec.args(["--grpc-addr", "none", "--secure-grpc-addr", "127.0.0.1:0"]);
        let spec = spec.args(["--monitoring-addr", "127.0.0.1:0"]).args(more);
        let mut process = spec.start(folder.path());
        let at = wait("meshd serves", || {
            process.expect_alive();
            monitoring(&process.log()).ok_or_else(|| process.log())
        });
        Self { process, at, _folder: folder }
    }

    fn page(&self, path: &str) -> Value {
        client::get(self.at, path).map_err(|error| error.to_string()).unwrap().json()
    }

    /// The object that it knows.
    fn knows(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let page = self.page("/debug/configz");
        let all = page.as_array().or_else(|| page["configs"].as_array()).unwrap().clone();
        all.into_iter().find(|object| {
            let meta = &object["metadata"];
            object["kind"] == kind && meta["name"] == name && meta["namespace"].as_str().unwrap_or("") == namespace
        })
    }

    #[track_caller]
    fn learns(&self, kind: &str, namespace: &str, name: &str) -> Value {
        wait(&format!("meshd knows {kind}/{namespace}/{name}"), || {
            self.knows(kind, namespace, name).ok_or("it does not")
        })
    }

    #[track_caller]
    fn forgets(&self, kind: &str, namespace: &str, name: &str) {
        wait(&format!("meshd forgets {kind}/{namespace}/{name}"), || match self.knows(kind, namespace, name) {
            Some(object) => Err(object.to_string()),
            None => Ok(()),
        });
    }

    fn findings(&self) -> String {
        self.page("/debug/findings").to_string()
    }
}

/// The address of the debug pages, from the line that says that all is there.
fn monitoring(log: &str) -> Option<SocketAddr> {
    let line = log.lines().find(|line| line.contains("Control plane serves"))?;
    let (_, rest) = line.split_once("monitoring: ")?;
    rest.split([' ', '}']).next()?.parse().ok()
}

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{name: http, port: {port}}}]}}\n"
    )
}

fn install_kinds(cluster: &Cluster) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds");
    for file in fs::read_dir(folder).unwrap() {
        cluster.apply(None, &fs::read_to_string(file.unwrap().path()).unwrap());
    }
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_source_follows_objects_and_kinds_that_come_later() {
    let cluster = Cluster::connect();
    let space = cluster.namespace("e2e-source-follow", &[]);
    space.apply(&service("before", 80));
    let meshd = ControlPlane::start(&cluster, &space.name, None, &[]);
    let name = space.name.as_str();
    assert_eq!(meshd.learns("Service", name, "before")["spec"]["ports"][0]["port"], 80);
    space.apply(&service("after", 81));
    meshd.learns("Service", name, "after");
    space.apply(&service("after", 82));
    wait("the port changes", || match meshd.learns("Service", name, "after")["spec"]["ports"][0]["port"] {
        Value::Number(ref port) if port.as_u64() == Some(82) => Ok(()),
        ref other => Err(other.to_string()),
    });
    cluster.delete("v1", "Service", Some(name), "after");
    meshd.forgets("Service", name, "after");
    // The mesh's kinds may come long after the control plane.
    install_kinds(&cluster);
    let route = json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "web"},
        "spec": {"hosts": ["web"], "http": [{"route": [{"destination": {"host": "nowhere"}}]}]}});
    wait("the kind is served", || cluster.try_apply(Some(name), &route));
    meshd.learns("VirtualService", name, "web");
    wait("the destination is missed", || {
        let findings = meshd.findings();
        if findings.contains("nowhere") { Ok(()) } else { Err(findings) }
    });
    cluster.delete("networking.istio.io/v1", "VirtualService", Some(name), "web");
    meshd.forgets("VirtualService", name, "web");
    wait("the finding goes", || {
        let findings = meshd.findings();
        if findings.contains("nowhere") { Err(findings) } else { Ok(()) }
    });
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_source_sees_its_namespaces_and_its_revision_only() {
    let cluster = Cluster::connect();
    install_kinds(&cluster);
    let own = cluster.namespace("e2e-source-own", &[("e2e-source", "yes")]);
    let other = cluster.namespace("e2e-source-other", &[]);
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio-canary"},
        "data": {"mesh": "discoverySelectors: [{matchLabels: {e2e-source: 'yes'}}]"}});
    cluster.apply_object(Some(&own.name), config);
    own.apply(&service("seen", 80));
    other.apply(&service("hidden", 80));
    for (name, revision) in [("mine", "canary"), ("theirs", "default")] {
        let policy = json!({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
            "metadata": {"name": name, "labels": {"istio.io/rev": revision}},
            "spec": {"selector": {"matchLabels": {"a": name}}}});
        wait("the kind is served", || cluster.try_apply(Some(&own.name), &policy));
    }
    let meshd = ControlPlane::start(&cluster, &own.name, None, &["--revision", "canary"]);
    meshd.learns("Service", &own.name, "seen");
    meshd.learns("PeerAuthentication", &own.name, "mine");
    assert_eq!(meshd.knows("PeerAuthentication", &own.name, "theirs"), None);
    assert_eq!(meshd.knows("Service", &other.name, "hidden"), None);
    assert_eq!(meshd.knows("Service", "default", "kubernetes"), None);
    // A namespace that is selected brings its objects along.
    let labels = |value: Value| json!({"metadata": {"labels": {"e2e-source": value}}});
    cluster.merge("v1", "Namespace", None, &other.name, &labels(json!("yes")));
    meshd.learns("Service", &other.name, "hidden");
    cluster.merge("v1", "Namespace", None, &other.name, &labels(Value::Null));
    meshd.forgets("Service", &other.name, "hidden");
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_source_needs_no_more_than_its_rules() {
    let cluster = Cluster::connect();
    install_kinds(&cluster);
    let space = cluster.namespace("e2e-source-rules", &[]);
    let account = Account::make(&cluster, &space.name);
    let secret = |name: &str, kind: &str, data: &Value| {
        let object =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": kind, "data": data});
        cluster.apply_object(Some(&space.name), object);
    };
    secret("cert", "kubernetes.io/tls", &json!({"tls.crt": "eA==", "tls.key": "eQ=="}));
    secret("password", "Opaque", &json!({"password": "eA=="}));
    let meshd = ControlPlane::start(&cluster, &space.name, Some(&account.kubeconfig()), &[]);
    let known = meshd.learns("Secret", &space.name, "cert");
    assert!(!known.to_string().contains("eQ=="), "{known}");
    // What is not a credential never came in, the account's own token among it.
    assert_eq!(meshd.knows("Secret", &space.name, "password"), None);
    assert_eq!(meshd.knows("Secret", &space.name, ACCOUNT), None);
    assert!(!meshd.findings().contains("cannot be read"), "{}", meshd.findings());
    assert!(!meshd.process.log().contains("Watch fails"), "{}", meshd.process.log());
}

/// A service account that may read what the source reads, and write in its own namespace.
struct Account<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
}

/// Name of the account, its token and its rights.
const ACCOUNT: &str = "e2e-source";
const RBAC: &str = "rbac.authorization.k8s.io/v1";

impl<'a> Account<'a> {
    fn make(cluster: &'a Cluster, namespace: &'a str) -> Self {
        let rule = |rule: &Rule| json!({"apiGroups": [rule.group], "resources": rule.resources, "verbs": rule.verbs});
        let rules = |rules: &[Rule]| rules.iter().map(rule).collect::<Vec<_>>();
        let mut own = rules(&access::control_plane_rules());
        // What the authority and the election keep is not the source's.
        own.push(json!({"apiGroups": ["", "coordination.k8s.io"], "resources": ["secrets", "leases"], "verbs": ["*"]}));
        own.push(json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "update", "patch"]}));
        let subjects = json!([{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}]);
        let bind = |kind: &str, role: &str| {
            let to = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": ACCOUNT});
            json!({"apiVersion": RBAC, "kind": kind, "metadata": {"name": ACCOUNT}, "roleRef": to, "subjects": subjects})
        };
        let role = |kind: &str, rules: Vec<Value>| json!({"apiVersion": RBAC, "kind": kind, "metadata": {"name": ACCOUNT}, "rules": rules});
        let token = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": {"name": ACCOUNT, "annotations": {"kubernetes.io/service-account.name": ACCOUNT}}});
        let inside = Some(namespace);
        cluster
            .apply_object(inside, json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}}));
        cluster.apply_object(inside, token);
        cluster.apply_object(inside, role("Role", own));
        cluster.apply_object(inside, bind("RoleBinding", "Role"));
        let mut all = rules(&access::cluster_rules());
        all.push(rule(&access::tag_rule()));
        cluster.apply_object(None, role("ClusterRole", all));
        cluster.apply_object(None, bind("ClusterRoleBinding", "ClusterRole"));
        Self { cluster, namespace }
    }

    /// How the account reaches the cluster.
    fn kubeconfig(&self) -> Value {
        let token = wait("the account has a token", || {
            let secret = self.cluster.find("v1", "Secret", Some(self.namespace), ACCOUNT).ok_or("no secret")?;
            secret["data"]["token"].as_str().map(str::to_owned).ok_or("no token")
        });
        let decoded = SecretBytes::deserialize(json!(token)).unwrap();
        let token = String::from_utf8(decoded.to_vec()).unwrap();
        let path = std::env::var_os("KUBECONFIG").unwrap();
        let mut config: Value = serde_yaml_ng::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let name = config["contexts"][0]["context"]["user"].clone();
        config["users"] = json!([{"name": name, "user": {"token": token}}]);
        config
    }
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        for kind in ["ClusterRoleBinding", "ClusterRole"] {
            self.cluster.delete(RBAC, kind, None, ACCOUNT);
        }
    }
}
