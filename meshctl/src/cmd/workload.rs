//! `meshctl workload entry configure`: the files that a workload outside of Kubernetes needs to join the mesh, as
//! `istioctl experimental workload entry configure` writes them (istio-surface section 11.1).

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mesh_api::crd::networking::workload_entry::WorkloadEntry;
use mesh_api::crd::networking::workload_group::WorkloadGroup;
use mesh_api::identity::SpiffeId;
use mesh_api::mesh_config::MeshConfig;
use mesh_api::mesh_config::proxy::ProxyConfig;
use mesh_api::meta::Meta;
use mesh_api::object::AnyObject;
use mesh_api::object::Object;
use mesh_api::text::Str;
use mesh_api::{names, parse};
use mesh_ca::selfsigned::ROOTS_ENTRY;
use mesh_ca::store::file::FileStore;
use mesh_ca::token::{DEFAULT_TTL, TokenKeys};
use serde_json::json;

use crate::cmd::OutputArgs;
use crate::error::CliError;
use crate::files;
use crate::printer::{Format, Report};
use crate::table::Table;

/// Workloads outside of Kubernetes.
#[derive(clap::Args, Clone, Debug)]
pub struct WorkloadArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum What {
    /// One workload
    Entry {
        #[command(subcommand)]
        what: Entry,
    },
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Entry {
    /// Write the files that a workload needs to join the mesh
    Configure(Box<ConfigureArgs>),
}

/// Flags of `configure`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  meshctl workload entry configure -f workloadgroup.yaml -o ./vm \
    --state-dir ./state --config-dir ./mesh --ingressIP 192.0.2.7 --internalIP 192.0.2.20")]
struct ConfigureArgs {
    /// File with the WorkloadGroup
    #[arg(short = 'f', long)]
    file: PathBuf,
    /// Folder to write cluster.env, mesh.yaml, istio-token, root-cert.pem and hosts to
    #[arg(short = 'o', long = "output", value_name = "DIR")]
    folder: PathBuf,
    /// State folder of the control plane, which may be running: it has the keys of tokens and the root certificate
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// Configuration folder of the control plane, for the mesh's proxy defaults
    #[arg(long, value_name = "DIR")]
    config_dir: Option<PathBuf>,
    /// Cluster that the workload belongs to
    #[arg(long = "clusterID", default_value = names::DEFAULT_CLUSTER_ID)]
    cluster: String,
    /// Lifetime of the token in seconds
    #[arg(long = "tokenDuration", default_value_t = DEFAULT_TTL.as_secs(), value_parser = clap::value_parser!(u64).range(1..=86_400))]
    token_seconds: u64,
    /// Address at which the workload reaches the control plane
    #[arg(long = "ingressIP")]
    ingress: Option<IpAddr>,
    /// The workload's address, when it has several
    #[arg(long = "internalIP", conflicts_with = "external")]
    internal: Option<IpAddr>,
    /// The workload's address as others see it
    #[arg(long = "externalIP")]
    external: Option<IpAddr>,
}

/// Everything that files are made of.
struct Joining<'a> {
    args: &'a ConfigureArgs,
    meta: &'a Meta,
    template: WorkloadEntry,
    mesh: MeshConfig,
    config: ProxyConfig,
}

/// Writes the files.
///
/// # Errors
/// Names the file that cannot be read, used or written.
pub fn run(args: &WorkloadArgs) -> Result<Report, CliError> {
    let What::Entry { what: Entry::Configure(args) } = &args.what;
    let (group, mut notes) = group(&args.file)?;
    let mesh = match &args.config_dir {
        Some(folder) => mesh_config(folder)?,
        None => MeshConfig::default(),
    };
    let annotations = group.spec.metadata.as_ref().map(|metadata| &metadata.annotations);
    let mut config = mesh.proxy();
    for annotations in [Some(&group.meta.annotations), annotations].into_iter().flatten() {
        if let Some(text) = annotations.get(names::PROXY_CONFIG_ANNOTATION) {
            let parsed = ProxyConfig::parse(text);
            let (over, findings) = parsed.map_err(|error| {
                CliError::user(format!("the annotation {} cannot be used", names::PROXY_CONFIG_ANNOTATION))
                    .because(&*error)
            })?;
            notes.extend(findings.iter().map(ToString::to_string));
            config = config.overlaid(&over);
        }
    }
    if let Some(probe) = &group.spec.probe {
        config.readiness_probe = Some(probe.clone());
    }
    let template = group.spec.template.clone().unwrap_or_default();
    let joining = Joining { args, meta: &group.meta, template, mesh, config };
    let mut table = Table { padding: 3, ..Table::new(&["FILE", "CONTENT"]) };
    for (name, content, meaning) in joining.files()? {
        let path = args.folder.join(name);
        write(&path, content.as_bytes(), name == "istio-token")?;
        table.row([path.display().to_string(), meaning.to_owned()]);
    }
    notes.push(format!(
        "On the workload: root-cert.pem to var/run/secrets/istio/, istio-token to var/run/secrets/tokens/, hosts to the \
         end of /etc/hosts, then in the folder of var/:\n  set -a; . ./cluster.env; PROXY_CONFIG=\"$(sed -n 's/^  //p' \
         mesh.yaml)\" POD_NAME=$(hostname) INSTANCE_IP={} mesh-proxy proxy sidecar",
        joining.address().map_or_else(|| "ADDRESS".to_owned(), |address| address.to_string())
    ));
    let data = json!({ "files": table.rows.iter().filter_map(|row| row.first()).collect::<Vec<_>>() });
    Ok(Report { table, data, notes, ..Report::default() })
}

/// The WorkloadGroup of a file, with what is to be said about it.
fn group(file: &Path) -> Result<(Object<WorkloadGroup>, Vec<String>), CliError> {
    let name = file.display();
    let parsed = parse::parse(&files::read(file)?, "default");
    let mut notes = Vec::new();
    let mut found = None;
    for item in parsed.objects {
        let item = item.map_err(|error| CliError::user(format!("{name} cannot be used")).because(&error))?;
        if let AnyObject::WorkloadGroup(group) = item.object {
            let object = AnyObject::WorkloadGroup(group.clone());
            let findings = item.findings.into_iter().chain(mesh_api::validate::validate(&object));
            for finding in findings {
                if finding.is_error() {
                    return Err(CliError::user(format!("{name} cannot be used: {finding}")));
                }
                notes.push(finding.to_string());
            }
            found.get_or_insert(group);
        }
    }
    let group = found.ok_or_else(|| CliError::user(format!("{name} has no WorkloadGroup")))?;
    Ok((Object::clone(&group), notes))
}

/// The mesh configuration of a folder; the default without one.
fn mesh_config(folder: &Path) -> Result<MeshConfig, CliError> {
    for file in files::expand(&[folder.to_owned()])? {
        let parsed = parse::parse(&files::read(&file)?, "default");
        for item in parsed.objects.into_iter().flatten() {
            let AnyObject::ConfigMap(map) = &item.object else { continue };
            let is_mesh = map.meta.name.as_str() == names::MESH_CONFIG_MAP
                && map.meta.namespace.as_str() == names::ROOT_NAMESPACE;
            let text = map.spec.data.get(names::MESH_CONFIG_KEY).filter(|_| is_mesh);
            let Some(text) = text else { continue };
            let (config, _) = MeshConfig::parse(text).map_err(|error| {
                CliError::user(format!("the mesh configuration in {} cannot be used", file.display())).because(&*error)
            })?;
            return Ok(config);
        }
    }
    Ok(MeshConfig::default())
}

impl Joining<'_> {
    fn address(&self) -> Option<IpAddr> {
        self.args.internal.or(self.args.external)
    }

    fn account(&self) -> &str {
        match self.template.service_account.as_str() {
            "" => "default",
            account => account,
        }
    }

    /// Name, content and meaning of each file.
    fn files(&self) -> Result<[(&'static str, String, &'static str); 5], CliError> {
        let (token, roots) = self.secrets()?;
        Ok([
            ("cluster.env", self.environment(), "how the workload's traffic is captured"),
            ("mesh.yaml", self.mesh_yaml()?, "the proxy's configuration"),
            ("istio-token", token, "proves the identity once"),
            ("root-cert.pem", roots, "what the control plane's certificate leads to"),
            ("hosts", self.hosts(), "where the control plane is"),
        ])
    }

    fn environment(&self) -> String {
        let (name, namespace) = (&self.meta.name, &self.meta.namespace);
        let ports: Vec<String> = self.template.ports.values().map(ToString::to_string).collect();
        let metadata = self.config.proxy_metadata.iter().map(|(key, value)| (key.to_string(), value.to_string()));
        let mut all: BTreeMap<String, String> = metadata.collect();
        let mut set = |key: &str, value: String| drop(all.insert(key.to_owned(), value));
        set("ISTIO_INBOUND_PORTS", if ports.is_empty() { "*".to_owned() } else { ports.join(",") });
        set("ISTIO_NAMESPACE", namespace.to_string());
        set("ISTIO_SERVICE", format!("{name}.{namespace}"));
        set("ISTIO_SERVICE_CIDR", "*".to_owned());
        let own = [22, names::PROXY_METRICS_PORT, names::READINESS_PORT, self.config.status_port()];
        set("ISTIO_LOCAL_EXCLUDE_PORTS", own.map(|port| port.to_string()).join(","));
        set(names::POD_NAMESPACE_ENV, namespace.to_string());
        set(names::SERVICE_ACCOUNT_ENV, self.account().to_owned());
        if let Some(address) = self.address() {
            set("ISTIO_SVC_IP", address.to_string());
        }
        if self.args.external.is_some() {
            set("REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION", "true".to_owned());
        }
        all.iter().fold(String::new(), |text, (key, value)| text + key + "=" + &quoted(value) + "\n")
    }

    fn mesh_yaml(&self) -> Result<String, CliError> {
        let metadata = self.meta;
        let group = self.template.labels.iter().map(|(key, value)| (key.to_string(), value.to_string()));
        let labels: BTreeMap<String, String> = group.collect();
        let label = |keys: [&str; 3], default: &str| {
            let found = keys.into_iter().find_map(|key| labels.get(key).cloned());
            found.unwrap_or_else(|| default.to_owned())
        };
        let service =
            label([names::CANONICAL_NAME_LABEL, names::K8S_APP_NAME_LABEL, names::APP_LABEL], &metadata.name.0);
        let revision =
            label([names::CANONICAL_REVISION_LABEL, names::K8S_APP_VERSION_LABEL, names::VERSION_LABEL], "latest");
        let ports: Vec<_> =
            self.template.ports.iter().map(|(name, port)| json!({ "name": name, "containerPort": port })).collect();
        let domain = self.mesh.trust_domain().to_string();
        let mesh_id = self.config.mesh_id.clone().unwrap_or_else(|| Str::from(domain.as_str()));
        let mut config = self.config.clone();
        let mut set = |key: &str, value: String| drop(config.proxy_metadata.insert(Str::from(key), Str::from(value)));
        set("CANONICAL_SERVICE", service);
        set("CANONICAL_REVISION", revision);
        set(names::POD_NAMESPACE_ENV, metadata.namespace.to_string());
        set(names::SERVICE_ACCOUNT_ENV, self.account().to_owned());
        set(names::TRUST_DOMAIN_ENV, domain);
        set(names::META_CLUSTER_ID_ENV, self.args.cluster.clone());
        set("ISTIO_META_MESH_ID", mesh_id.to_string());
        set(names::META_NETWORK_ENV, self.template.network.to_string());
        set("ISTIO_META_WORKLOAD_NAME", metadata.name.to_string());
        set("ISTIO_METAJSON_LABELS", json!(labels).to_string());
        if !ports.is_empty() {
            set("ISTIO_META_POD_PORTS", json!(ports).to_string());
        }
        let text = serde_yaml_ng::to_string(&json!({ "defaultConfig": config }));
        text.map_err(|error| CliError::internal("cannot write mesh.yaml").because(&error))
    }

    /// The token and the roots.
    fn secrets(&self) -> Result<(String, String), CliError> {
        let folder = &self.args.state_dir;
        let failed = |error: &dyn std::error::Error| {
            CliError::user(format!("{} does not serve as the control plane's state folder", folder.display()))
                .because(error)
                .hint("it is the folder that meshd run --state-dir names")
        };
        let keys = TokenKeys::load(&FileStore::read_only(folder)).map_err(|error| failed(&error))?;
        let keys = keys.ok_or_else(|| failed(&std::io::Error::other("it holds no keys of tokens")))?;
        let identity = SpiffeId::new(self.mesh.trust_domain(), self.meta.namespace.as_str(), self.account());
        // Read back, since the names come from a user.
        let identity = SpiffeId::parse(&identity.to_string()).map_err(|error| {
            CliError::user(format!("{} and {:?} make no identity", self.meta.namespace, self.account())).because(&error)
        })?;
        let ttl = Duration::from_secs(self.args.token_seconds);
        let token = keys.mint(&identity, ttl, SystemTime::now()).map_err(|error| failed(&error))?;
        let roots = fs::read_to_string(folder.join(ROOTS_ENTRY)).map_err(|error| failed(&error))?;
        Ok((token.to_string(), roots))
    }

    fn hosts(&self) -> String {
        let address = self.config.discovery_address();
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        self.args.ingress.map(|ingress| format!("{ingress} {host}\n")).unwrap_or_default()
    }
}

/// A value as a shell reads it back.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "'\\''"))
}

fn write(path: &Path, content: &[u8], secret: bool) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::user(format!("cannot write {}", path.display())).because(&error);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let mode = if secret { 0o600 } else { 0o644 };
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(content)).map_err(failed)
}

/// The output flag means a folder here, as with istioctl; reports are tables.
impl WorkloadArgs {
    /// How the report is shown.
    #[must_use]
    pub const fn output(&self) -> OutputArgs {
        OutputArgs { output: Format::Table }
    }
}

#[cfg(test)]
mod tests {
    use mesh_api::identity::TrustDomain;
    use mesh_ca::selfsigned::{Options, SelfSigned};

    use super::*;

    const GROUP: &str = "apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata: {name: db, namespace: shop}\n\
        spec:\n  metadata:\n    annotations:\n      proxy.istio.io/config: |\n        statusPort: 15030\n  template:\n    \
        serviceAccount: db\n    network: 'a''b'\n    labels: {app: db}\n    ports: {tcp: 5432}\n";

    fn configure(group: &str, state: &Path, folder: &Path) -> Result<Report, CliError> {
        let file = folder.join("group.yaml");
        fs::write(&file, group).unwrap();
        let args = ConfigureArgs {
            file,
            folder: folder.join("out"),
            state_dir: state.to_owned(),
            config_dir: None,
            cluster: "west".to_owned(),
            token_seconds: 60,
            ingress: Some([192, 0, 2, 7].into()),
            internal: Some([192, 0, 2, 20].into()),
            external: None,
        };
        run(&WorkloadArgs { what: What::Entry { what: Entry::Configure(Box::new(args)) } })
    }

    #[test]
    fn the_files_are_istios_and_the_token_is_the_workloads() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let store = FileStore::open(&state).unwrap();
        let keys = TokenKeys::load_or_create(&store).unwrap();
        SelfSigned::open(&store, Options::new(TrustDomain::default()), SystemTime::now()).unwrap();
        configure(GROUP, &state, folder.path()).unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join("out").join(name)).unwrap();
        let env = read("cluster.env");
        assert!(env.contains("ISTIO_INBOUND_PORTS='5432'\n") && env.contains("ISTIO_SERVICE='db.shop'\n"), "{env}");
        assert!(env.contains("ISTIO_LOCAL_EXCLUDE_PORTS='22,15090,15021,15030'\n"), "{env}");
        assert_eq!(read("hosts"), "192.0.2.7 istiod.istio-system.svc\n");
        assert!(read("root-cert.pem").starts_with("-----BEGIN CERTIFICATE-----"));
        let claims = keys.verify(&read("istio-token"), SystemTime::now()).unwrap();
        assert_eq!(claims.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/db");
        let mesh: serde_json::Value = serde_yaml_ng::from_str(&read("mesh.yaml")).unwrap();
        let metadata = &mesh["defaultConfig"]["proxyMetadata"];
        assert_eq!(metadata["ISTIO_META_CLUSTER_ID"], "west");
        assert_eq!(metadata["CANONICAL_SERVICE"], "db");
        assert_eq!(metadata["ISTIO_METAJSON_LABELS"], "{\"app\":\"db\"}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = configure(GROUP, &folder.path().join("nothing"), folder.path()).unwrap_err().to_string();
        assert!(error.contains("state folder") && error.contains("hint: "), "{error}");
        let other = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
        let error = configure(other, folder.path(), folder.path()).unwrap_err().to_string();
        assert!(error.contains("has no WorkloadGroup"), "{error}");
    }

    #[test]
    fn values_survive_a_shell() {
        assert_eq!(quoted("a'b"), "'a'\\''b'");
    }
}
