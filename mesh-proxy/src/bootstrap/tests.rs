//! Environments as the injector makes them.

use std::collections::HashMap;

use super::*;
use crate::args::Role;

#[derive(Default)]
struct Pod {
    variables: BTreeMap<String, String>,
    files: HashMap<PathBuf, String>,
    interfaces: Vec<IpAddr>,
}

impl Env for Pod {
    fn get(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn all(&self) -> Vec<(String, String)> {
        self.variables.clone().into_iter().collect()
    }

    fn file(&self, path: &Path) -> io::Result<Option<String>> {
        Ok(self.files.get(path).cloned())
    }

    fn interfaces(&self) -> Vec<IpAddr> {
        self.interfaces.clone()
    }
}

/// Variables and files of an injected pod.
fn mk_pod() -> Pod {
    let variables = [
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("PILOT_CERT_PROVIDER", "istiod"),
        ("CA_ADDR", "istiod.istio-system.svc:15012"),
        ("POD_NAME", "web-7d4b9-x2x"),
        ("POD_NAMESPACE", "shop"),
        ("INSTANCE_IP", "10.244.1.7"),
        ("SERVICE_ACCOUNT", "web"),
        ("HOST_IP", "192.168.1.2"),
        ("ISTIO_CPU_LIMIT", "2"),
        ("PROXY_CONFIG", "{}\n"),
        ("ISTIO_META_POD_PORTS", r#"[{"containerPort":8080,"protocol":"TCP"}]"#),
        ("ISTIO_META_APP_CONTAINERS", "web"),
        ("ISTIO_META_CLUSTER_ID", "Kubernetes"),
        ("ISTIO_META_NODE_NAME", "node-1"),
        ("ISTIO_META_INTERCEPTION_MODE", "REDIRECT"),
        ("ISTIO_META_WORKLOAD_NAME", "web"),
        ("ISTIO_META_OWNER", "kubernetes://apis/apps/v1/namespaces/shop/deployments/web"),
        ("ISTIO_META_MESH_ID", "cluster.local"),
        ("TRUST_DOMAIN", "cluster.local"),
    ];
    let mut pod = Pod::default();
    for (name, value) in variables {
        pod.variables.insert(name.to_owned(), value.to_owned());
    }
    pod.write("labels", "app=\"web\"\nversion=\"v1\"\n");
    pod.write("annotations", "prometheus.istio.io/scrape-targets=\"8080:/metrics\"\n");
    pod.interfaces = vec!["10.244.1.7".parse().unwrap(), "fd00::7".parse().unwrap()];
    pod
}

impl Pod {
    fn write(&mut self, name: &str, text: &str) {
        self.files.insert(Path::new(pod::FOLDER).join(name), text.to_owned());
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    fn read(&self) -> Bootstrap {
        read(&ProxyArgs::new(Role::Sidecar), self).unwrap()
    }

    #[track_caller]
    fn refused(&self, expect: &str) {
        let error = read(&ProxyArgs::new(Role::Sidecar), self).unwrap_err();
        let text = mesh_api_rt::report::Report::new(&error).to_string();
        assert!(text.contains(expect), "{text}");
    }
}

#[test]
fn an_injected_pod_makes_the_node_that_istiod_expects() {
    let bootstrap = mk_pod().read();
    assert_eq!(bootstrap.node.id(), "sidecar~10.244.1.7~web-7d4b9-x2x.shop~shop.svc.cluster.local");
    assert_eq!(&*bootstrap.node.service_cluster, "web.shop");
    assert_eq!(bootstrap.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/web");
    let metadata = serde_json::to_value(&bootstrap.node.metadata).unwrap();
    let expect = serde_json::json!({
        "NAME": "web-7d4b9-x2x", "NAMESPACE": "shop", "WORKLOAD_NAME": "web", "SERVICE_ACCOUNT": "web",
        "OWNER": "kubernetes://apis/apps/v1/namespaces/shop/deployments/web",
        "LABELS": { "app": "web", "version": "v1" },
        "ANNOTATIONS": { "prometheus.istio.io/scrape-targets": "8080:/metrics" },
        "CLUSTER_ID": "Kubernetes", "MESH_ID": "cluster.local", "ISTIO_VERSION": env!("CARGO_PKG_VERSION"),
        "INSTANCE_IPS": "10.244.1.7,fd00::7", "NODE_NAME": "node-1",
        "POD_PORTS": r#"[{"containerPort":8080,"protocol":"TCP"}]"#, "APP_CONTAINERS": "web",
    });
    assert_eq!(metadata, expect);
    assert_eq!(bootstrap.drain, DrainSettings { duration: Duration::from_secs(5), until_idle: None });
    assert_eq!(bootstrap.root_cert, Path::new("./var/run/secrets/istio/root-cert.pem"));
    assert_eq!(bootstrap.token, Path::new("./var/run/secrets/tokens/istio-token"));
    assert_eq!(bootstrap.application.scrape_targets.as_deref(), Some("8080:/metrics"));
}

#[test]
fn the_configuration_of_mesh_variable_and_annotation_are_laid_over_each_other() {
    let mut pod = mk_pod().set(
        "PROXY_CONFIG",
        r#"{"discoveryAddress":"a.svc:15012","terminationDrainDuration":"20s","proxyMetadata":{"ISTIO_META_X":"1","SECRET_TTL":"1h"}}"#,
    );
    pod.files.insert(
        "./etc/istio/config/mesh".into(),
        "defaultConfig: {discoveryAddress: 'm.svc:15012', statusPort: 16020, concurrency: 3}".into(),
    );
    pod.write(
        "annotations",
        "proxy.istio.io/config=\"discoveryAddress: b.svc:15012\\nproxyMetadata: {ISTIO_META_Y: '2'}\\n\"",
    );
    let bootstrap = pod.read();
    assert_eq!(bootstrap.discovery_address, "b.svc:15012");
    assert_eq!(bootstrap.control_plane_name, "b.svc");
    assert_eq!((bootstrap.status_port, bootstrap.workers), (16020, 3));
    assert_eq!((bootstrap.drain.duration, bootstrap.cert_ttl), (Duration::from_secs(20), Duration::from_secs(3600)));
    let other = &bootstrap.node.metadata.other;
    assert_eq!((other["X"].as_str(), other["Y"].as_str()), (Some("1"), Some("2")));
    let config = bootstrap.node.metadata.proxy_config.unwrap();
    assert_eq!(config["statusPort"], 16020);
}

#[test]
fn the_pods_address_comes_first_and_both_families_are_told() {
    let check = |pod: &Pod, expect: &[&str]| {
        let found: Vec<_> = pod.read().node.metadata.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(found, expect);
    };
    check(&mk_pod().set("INSTANCE_IP", "fd00::7"), &["fd00::7", "10.244.1.7"]);
    check(&mk_pod().set("INSTANCE_IPS", "10.244.1.7,fd00::9"), &["10.244.1.7", "fd00::9"]);
    check(&mk_pod().set("ISTIO_META_INSTANCE_IPS", "10.244.1.7, fd00::8"), &["10.244.1.7", "fd00::8"]);
    // Another address of the same family is no address of the workload.
    let mut pod = mk_pod();
    pod.interfaces = vec!["10.9.9.9".parse().unwrap()];
    check(&pod, &["10.244.1.7"]);
    pod.variables.remove("INSTANCE_IP");
    check(&pod, &["10.9.9.9"]);
    pod.interfaces.clear();
    check(&pod, &["127.0.0.1", "::1"]);
    assert_eq!(mk_pod().set("INSTANCE_IP", "fd00::7").read().admin.0, IpAddr::V6(Ipv6Addr::LOCALHOST));
}

#[test]
fn workers_follow_the_limit() {
    let workers = |pod: &Pod, concurrency, cpus, quota| {
        let layered = Layered { process: pod, metadata: BTreeMap::new() };
        let args = ProxyArgs { concurrency, ..ProxyArgs::new(Role::Sidecar) };
        workers(&args, &layered, &ProxyConfig::default(), CpuBudget { cpus, quota }).unwrap()
    };
    let pod = mk_pod();
    assert_eq!(workers(&pod, None, 8, None), 2);
    assert_eq!(workers(&pod, Some(0), 8, None), 2);
    assert_eq!(workers(&pod, Some(5), 8, None), 5);
    assert_eq!(workers(&pod, None, 8, Some(0.5)), 1);
    // The CPUs of the node are no limit.
    let unlimited = mk_pod().set("ISTIO_CPU_LIMIT", "8");
    assert_eq!(workers(&unlimited, None, 8, None), DEFAULT_WORKERS);
    assert_eq!(workers(&unlimited, Some(0), 8, None), 8);
    mk_pod().set("ISTIO_CPU_LIMIT", "many").refused("ISTIO_CPU_LIMIT");
}

#[test]
fn endings_keys_and_places_follow_their_variables() {
    let bootstrap = mk_pod()
        .set("TERMINATION_DRAIN_DURATION_SECONDS", "7")
        .set("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "true")
        .set("MINIMUM_DRAIN_DURATION", "3s")
        .set("ECC_SIGNATURE_ALGORITHM", "ECDSA")
        .set("ECC_CURVE", "P384")
        .set("JWT_POLICY", "first-party-jwt")
        .set("PILOT_CERT_PROVIDER", "kubernetes")
        .set("OUTPUT_CERTS", "/etc/certs")
        .set("SECRET_GRACE_PERIOD_RATIO", "0.2")
        .read();
    let drain = DrainSettings { duration: Duration::from_secs(7), until_idle: Some(Duration::from_secs(3)) };
    assert_eq!(bootstrap.drain, drain);
    assert_eq!(bootstrap.key_kind, KeyKind::EcdsaP384);
    assert_eq!(bootstrap.token, Path::new("./var/run/secrets/kubernetes.io/serviceaccount/token"));
    assert_eq!(bootstrap.root_cert, Path::new("./var/run/secrets/kubernetes.io/serviceaccount/ca.crt"));
    assert_eq!(bootstrap.output_certs.as_deref(), Some(Path::new("/etc/certs")));
    assert!((bootstrap.renewal.grace_ratio - 0.2).abs() < 1e-9);
    assert_eq!(bootstrap.node.metadata.other["EXIT_ON_ZERO_ACTIVE_CONNECTIONS"], "true");
}

#[test]
fn what_cannot_act_ends_the_start_with_its_name() {
    for (name, value) in [
        ("FILE_MOUNTED_CERTS", "true"),
        ("DISABLE_ENVOY", "true"),
        ("CA_PROVIDER", "GoogleCA"),
        ("ISTIO_BOOTSTRAP_OVERRIDE", "/etc/istio/custom-bootstrap/custom_bootstrap.json"),
        ("JWT_POLICY", "none"),
        ("PILOT_CERT_PROVIDER", "none"),
        ("ECC_CURVE", "P521"),
        ("SECRET_TTL", "a day"),
        ("INSTANCE_IP", "here"),
        ("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "maybe"),
    ] {
        mk_pod().set(name, value).refused(name);
    }
    mk_pod()
        .set("FILE_MOUNTED_CERTS", "false")
        .set("CA_PROVIDER", "Citadel")
        .set("ENVOY_SECURE_METRICS_PORT", "0")
        .read();
    let mut pod = mk_pod();
    pod.write("labels", "app=web");
    pod.refused("line 1");
}

#[test]
fn the_service_is_named_as_istio_names_it() {
    let check = |pod: &Pod, args: &ProxyArgs, expect: &str| {
        assert_eq!(&*read(args, pod).unwrap().node.service_cluster, expect);
    };
    let plain = ProxyArgs::new(Role::Sidecar);
    let flag = ProxyArgs { service_cluster: "flag.shop".to_owned(), ..plain.clone() };
    check(&mk_pod(), &flag, "flag.shop");
    check(&mk_pod().set("PROXY_CONFIG", "serviceCluster: said"), &flag, "said");
    let mut pod = mk_pod();
    pod.write("labels", "service.istio.io/canonical-name=\"front\"\napp=\"web\"");
    pod = pod.set("PROXY_CONFIG", "tracingServiceName: CANONICAL_NAME_AND_NAMESPACE");
    check(&pod, &plain, "front.shop");
    pod.write("labels", "");
    check(&pod, &plain, "web.shop");
    pod.variables.remove("ISTIO_META_WORKLOAD_NAME");
    check(&pod, &plain, "istio-proxy.shop");
}
