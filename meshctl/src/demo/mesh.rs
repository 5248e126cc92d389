//! Starting the demo's mesh, and what is known of it while it runs.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use mesh_api::identity::SpiffeId;
use mesh_api::names;
use mesh_ca::store::file::FileStore;
use mesh_ca::token::{DEFAULT_TTL, TokenKeys};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::time::Instant;

use super::dirs::Dirs;
use super::host::{Host, Task};
use super::place::Binaries;
use super::plan::{
    CONTROL, Capture, INGRESS_PORT, PROXY_PORT, Plan, ROOT_NAMESPACE, Role, TRUST_DOMAIN, Workload, service_named,
};
use super::sockets::{Sockets, address_of, copy};
use super::yaml;
use crate::dump::certificate_chain;
use crate::error::CliError;
use crate::http;
use crate::netns::{Exit, ProcessSpec};

/// Mark of the proxies' own connections, as Istio uses 1337 for user and group.
const MARK: u32 = 1337;
/// Time for a part of the mesh to be ready.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);
/// Time for processes to end when asked.
const GRACE: Duration = Duration::from_secs(5);

/// A running mesh.
#[derive(Debug)]
pub struct Mesh {
    /// Where processes run.
    pub host: Host,
    /// Who is in it.
    pub plan: Plan,
    /// Its files.
    pub dirs: Dirs,
    /// Its programs.
    pub binaries: Binaries,
    /// Where the user reaches the ingress gateway.
    pub ingress: SocketAddr,
    /// Where the user reaches the control plane's debug pages.
    pub monitoring: SocketAddr,
    /// Where the user reaches each proxy's admin pages.
    pub admin: BTreeMap<String, SocketAddr>,
    /// Certificate lifetime asked for by the proxy of a workload, where it is not the default.
    pub short_lived: Option<(&'static str, Duration)>,
    sockets: Sockets,
    meshd: Option<Task>,
    apps: BTreeMap<String, Task>,
    proxies: BTreeMap<String, Task>,
    /// Whatever else was started.
    others: Vec<Task>,
    /// Outputs of clients so far.
    outputs: u64,
}

impl Mesh {
    /// Opens what is handed to processes; nothing is started yet.
    ///
    /// # Errors
    /// When a port or a file cannot be had.
    pub fn prepare(host: Host, dirs: Dirs, binaries: Binaries) -> Result<Self, CliError> {
        let plan = Plan::new(host.capture());
        let sockets = Sockets::open(&plan)?;
        let mut admin = BTreeMap::new();
        for workload in plan.proxied() {
            let address = sockets.at(&workload.name, names::PROXY_ADMIN_PORT);
            admin.insert(workload.name.clone(), address.ok_or_else(|| CliError::internal("an admin port is missing"))?);
        }
        yaml::write(&dirs.config(), &plan)
            .map_err(|error| CliError::internal("cannot write the demo's configuration").because(&error))?;
        for workload in &plan.workloads {
            host.add(workload)?;
        }
        let mesh = Self {
            ingress: address_of(&sockets.ingress)?,
            monitoring: address_of(&sockets.monitoring)?,
            host,
            plan,
            dirs,
            binaries,
            admin,
            short_lived: None,
            sockets,
            meshd: None,
            apps: BTreeMap::new(),
            proxies: BTreeMap::new(),
            others: Vec::new(),
            outputs: 0,
        };
        mesh.write_addresses()?;
        Ok(mesh)
    }

    /// Tells `meshctl proxy-status` and `proxy-config` where everything is.
    fn write_addresses(&self) -> Result<(), CliError> {
        let proxies: BTreeMap<String, SocketAddr> = self
            .plan
            .proxied()
            .filter_map(|workload| {
                let admin = self.admin.get(&workload.name)?;
                Some((format!("{}.{}", workload.name, workload.namespace()), *admin))
            })
            .collect();
        let text = json!({ "meshd": self.monitoring, "proxies": proxies });
        self.dirs.write(&self.dirs.file("proxies.json"), format!("{text:#}\n").as_bytes())
    }

    /// Starts the control plane and waits until it serves.
    ///
    /// # Errors
    /// When it does not.
    pub async fn start_meshd(&mut self) -> Result<(), CliError> {
        let monitoring: SocketAddr = (Ipv4Addr::UNSPECIFIED, names::MONITORING_PORT).into();
        let mut spec = self
            .binaries
            .spec("meshd")
            .args(["run", "--grpc-addr", "none", "--config-dir"])
            .args([self.dirs.config().display().to_string()])
            .args(["--state-dir".to_owned(), self.dirs.state().display().to_string()])
            .socket(monitoring, copy(&self.sockets.monitoring)?);
        if let Some(secure) = &self.sockets.secure {
            spec = spec.socket((Ipv4Addr::UNSPECIFIED, names::XDS_TLS_PORT).into(), copy(secure)?);
        }
        let task = self.host.spawn(CONTROL, self.logged(spec, "meshd")?)?;
        self.meshd = Some(task.clone());
        self.wait_for_page("meshd", self.monitoring, "/ready", &task).await
    }

    /// Kills the control plane, as a crash would.
    pub async fn kill_meshd(&mut self) {
        if let Some(task) = self.meshd.take() {
            task.signal(Signal::SIGKILL);
            task.wait(GRACE).await;
        }
    }

    /// Starts every workload and waits until all are ready.
    ///
    /// # Errors
    /// Names the one that is not.
    pub async fn start_workloads(&mut self) -> Result<(), CliError> {
        self.write_secrets()?;
        if self.plan.capture == Capture::Redirect {
            self.capture().await?;
        }
        let workloads: Vec<Workload> = self.plan.proxied().cloned().collect();
        for workload in &workloads {
            self.start_proxy(workload)?;
            self.start_app(workload)?;
        }
        for workload in &workloads {
            self.wait_for_proxy(&workload.name).await?;
        }
        Ok(())
    }

    /// Waits until the proxy of a workload may be sent traffic.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub async fn wait_for_proxy(&self, workload: &str) -> Result<(), CliError> {
        let missing = || CliError::internal(format!("there is no proxy {workload}"));
        let task = self.proxies.get(workload).ok_or_else(missing)?;
        let admin = self.admin.get(workload).ok_or_else(missing)?;
        self.wait_for_page(&format!("{workload}.proxy"), *admin, "/ready", task).await
    }

    /// Waits until the shop answers through the ingress gateway.
    ///
    /// # Errors
    /// When it does not in time; with the last answer.
    pub async fn wait_for_shop(&self) -> Result<(), CliError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let why = match http::ask(self.ingress, "/", &[]).await {
                Ok(answer) if answer.status.is_success() => return Ok(()),
                Ok(answer) => format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body).trim()),
                Err(error) => error.to_string(),
            };
            if let Some(casualty) = self.casualty() {
                return Err(casualty);
            }
            if Instant::now() >= until {
                let message = format!("the shop did not answer at http://{} within {PATIENCE:?}: {why}", self.ingress);
                return Err(CliError::internal(message).hint("meshctl demo --keep-dir DIR keeps all logs in DIR/logs"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// What a workload outside of Kubernetes gets once: a token and the mesh's root.
    fn write_secrets(&self) -> Result<(), CliError> {
        let state = self.dirs.state();
        let store = FileStore::read_only(&state);
        let no_token = || CliError::internal("cannot mint bootstrap tokens");
        let keys = TokenKeys::load(&store).map_err(|error| no_token().because(&error))?;
        let keys = keys.ok_or_else(|| no_token().hint(format!("see {}/logs/meshd.log", self.dirs.root().display())))?;
        let roots = state.join(mesh_ca::selfsigned::ROOTS_ENTRY);
        let roots = std::fs::read(&roots)
            .map_err(|error| CliError::internal(format!("cannot read {}", roots.display())).because(&error))?;
        for workload in self.plan.proxied() {
            let identity = SpiffeId::parse(&workload.identity()).map_err(|error| no_token().because(&error))?;
            let token = keys.mint(&identity, DEFAULT_TTL, SystemTime::now());
            let token = token.map_err(|error| no_token().because(&error))?;
            let folder = self.dirs.workload(workload);
            self.dirs.write(&folder.join("istio-token"), token.as_bytes())?;
            self.dirs.write(&folder.join("root-cert.pem"), &roots)?;
        }
        Ok(())
    }

    /// Writes the certificate chain that each proxy holds beside its token, for who keeps the folder.
    ///
    /// # Errors
    /// Names the proxy that does not tell.
    pub async fn save_certificates(&self) -> Result<(), CliError> {
        for workload in self.plan.proxied() {
            let Some(admin) = self.admin.get(&workload.name) else { continue };
            let failed = || CliError::internal(format!("{} does not tell its certificate", workload.name));
            let dump = http::page(*admin, "/config_dump").await.map_err(|error| failed().because(&error))?;
            let dump = serde_json::from_slice(&dump).map_err(|error| failed().because(&error))?;
            let chain = certificate_chain(&dump, "default").ok_or_else(failed)?;
            self.dirs.write(&self.dirs.workload(workload).join("cert-chain.pem"), &chain)?;
        }
        Ok(())
    }

    /// Writes the redirection rules of every workload with a sidecar.
    async fn capture(&self) -> Result<(), CliError> {
        let mut running = Vec::new();
        for workload in self.plan.proxied().filter(|workload| workload.role != Role::Gateway) {
            // Tools of the user's shell reach the admin pages through handed-in sockets, which capture does not see.
            let spec = self.binaries.spec("mesh-proxy").args(["init", "-u", "", "--proxy-mark"]);
            let spec = spec.args([MARK.to_string()]);
            running.push(self.host.spawn(&workload.name, self.logged(spec, &format!("{}.init", workload.name))?)?);
        }
        for task in running {
            match task.wait(PATIENCE).await {
                Some(exit) if exit.success() => {}
                other => return Err(self.died(&format!("{}.init", task.name()), other)),
            }
        }
        Ok(())
    }

    /// Starts the proxy of a workload.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_proxy(&mut self, workload: &Workload) -> Result<(), CliError> {
        let role = if workload.role == Role::Gateway { "router" } else { "sidecar" };
        let mut spec = self.binaries.spec("mesh-proxy").args(["proxy", role]);
        for (name, value) in self.proxy_env(workload) {
            spec = spec.env(name, value);
        }
        for (name, socket) in self.sockets.proxies.get(&workload.name).into_iter().flatten() {
            spec = spec.socket(*name, copy(socket)?);
        }
        if workload.role == Role::Gateway {
            spec = spec.socket((Ipv4Addr::UNSPECIFIED, INGRESS_PORT).into(), copy(&self.sockets.ingress)?);
        }
        let task = self.host.spawn(&workload.name, self.logged(spec, &format!("{}.proxy", workload.name))?)?;
        self.proxies.insert(workload.name.clone(), task);
        Ok(())
    }

    fn proxy_env(&self, workload: &Workload) -> Vec<(&'static str, String)> {
        let folder = self.dirs.workload(workload);
        let labels: BTreeMap<_, _> = yaml::labels(workload).into_iter().collect();
        let discovery = match self.sockets.secure.as_ref().and_then(|socket| socket.local_addr().ok()) {
            Some(address) => address.to_string(),
            None => format!("istiod.{ROOT_NAMESPACE}.svc:{}", names::XDS_TLS_PORT),
        };
        let (mode, mark) = match self.plan.capture {
            Capture::Redirect => ("REDIRECT", MARK),
            Capture::None => ("NONE", 0),
        };
        let mut env = vec![
            (names::POD_NAME_ENV, workload.name.clone()),
            (names::POD_NAMESPACE_ENV, workload.namespace().to_owned()),
            (names::INSTANCE_IP_ENV, workload.address.to_string()),
            (names::SERVICE_ACCOUNT_ENV, workload.app.to_owned()),
            (names::TRUST_DOMAIN_ENV, TRUST_DOMAIN.to_owned()),
            (names::PROXY_CONFIG_ENV, format!("discoveryAddress: {discovery}\nterminationDrainDuration: 1s\n")),
            (names::META_CLUSTER_ID_ENV, names::DEFAULT_CLUSTER_ID.to_owned()),
            ("ISTIOD_SAN", format!("istiod.{ROOT_NAMESPACE}.svc")),
            ("ISTIO_META_WORKLOAD_NAME", workload.workload_name().to_owned()),
            ("ISTIO_META_MESH_ID", TRUST_DOMAIN.to_owned()),
            ("ISTIO_META_INTERCEPTION_MODE", mode.to_owned()),
            ("ISTIO_METAJSON_LABELS", json!(labels).to_string()),
            ("XDS_ROOT_CA", folder.join("root-cert.pem").display().to_string()),
            ("LATEEN_TOKEN_FILE", folder.join("istio-token").display().to_string()),
            ("LATEEN_SOCKET_MARK", mark.to_string()),
        ];
        if let Some((name, ttl)) = self.short_lived
            && name == workload.name
        {
            env.push(("SECRET_TTL", format!("{}s", ttl.as_secs())));
        }
        env
    }

    /// Starts the program of a workload, if it has one.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_app(&mut self, workload: &Workload) -> Result<(), CliError> {
        let Some(service) = workload.service() else { return Ok(()) };
        let url = |name: &str| service_named(name).map_or_else(String::new, |known| self.plan.url(workload, known));
        let mut args = vec![service.name.to_owned()];
        for (flag, value) in [
            ("--listen", self.plan.app_address(workload, service).to_string()),
            ("--version", workload.version.to_owned()),
            ("--instance", workload.name.clone()),
        ] {
            args.extend([flag.to_owned(), value]);
        }
        match service.name {
            "web" => {
                for name in ["catalogue", "reviews", "orders"] {
                    args.extend([format!("--{name}"), url(name)]);
                }
            }
            "reviews" => args.extend(["--ratings".to_owned(), url("ratings")]),
            "tcp-echo" => args.push("--banner".to_owned()),
            _ => {}
        }
        // One of two ways to reach others without capture; the other is the listeners' own addresses.
        if service.name == "reviews"
            && let Some(proxy) = self.sockets.at(&workload.name, PROXY_PORT)
        {
            args.extend(["--http-proxy".to_owned(), proxy.to_string()]);
        }
        let spec = self.binaries.spec("e2e-shop").args(args);
        let task = self.host.spawn(&workload.name, self.logged(spec, &workload.name)?)?;
        self.apps.insert(workload.name.clone(), task);
        Ok(())
    }

    /// Kills a workload, program and proxy, as the loss of a machine would.
    pub async fn kill(&mut self, workload: &str) {
        let tasks: Vec<Task> =
            [self.apps.remove(workload), self.proxies.remove(workload)].into_iter().flatten().collect();
        for task in &tasks {
            task.signal(Signal::SIGKILL);
        }
        for task in tasks {
            task.wait(GRACE).await;
        }
    }

    /// Tells the proxy of a workload to start its successor.
    pub fn replace_proxy(&self, workload: &str) {
        if let Some(task) = self.proxies.get(workload) {
            task.signal(Signal::SIGUSR2);
        }
    }

    /// Starts something besides the mesh in a workload; `None` is outside, where the user is.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&mut self, workload: Option<&str>, spec: ProcessSpec) -> Result<Task, CliError> {
        let task = match workload {
            Some(workload) => self.host.spawn(workload, spec)?,
            None => Host::spawn_outside(spec)?,
        };
        self.others.retain(|task| task.exit().is_none());
        self.others.push(task.clone());
        Ok(task)
    }

    /// A name and a file for the output of the next client.
    pub fn next_output(&mut self) -> (String, PathBuf) {
        self.outputs += 1;
        let name = format!("client-{}", self.outputs);
        let path = self.dirs.root().join("out").join(format!("{name}.json"));
        (name, path)
    }

    /// The first process of the mesh that has ended without having been told to.
    #[must_use]
    pub fn casualty(&self) -> Option<CliError> {
        let named = |tasks: &BTreeMap<String, Task>, suffix: &str| {
            let ended = tasks.iter().find_map(|(name, task)| Some((name, task.exit()?)));
            ended.map(|(name, exit)| self.died(&format!("{name}{suffix}"), Some(exit)))
        };
        let meshd = self.meshd.as_ref().and_then(Task::exit).map(|exit| self.died("meshd", Some(exit)));
        meshd.or_else(|| named(&self.proxies, ".proxy")).or_else(|| named(&self.apps, ""))
    }

    /// Ends everything in good order: clients first, then programs and proxies, then the control plane.
    pub async fn stop(mut self) {
        let apps = std::mem::take(&mut self.apps);
        let proxies = std::mem::take(&mut self.proxies);
        let groups: [Vec<Task>; 3] = [
            std::mem::take(&mut self.others),
            apps.into_values().chain(proxies.into_values()).collect(),
            self.meshd.take().into_iter().collect(),
        ];
        for group in groups {
            for task in &group {
                task.signal(Signal::SIGTERM);
            }
            for task in &group {
                if task.wait(GRACE).await.is_none() {
                    task.signal(Signal::SIGKILL);
                }
            }
        }
    }

    fn logged(&self, spec: ProcessSpec, name: &str) -> Result<ProcessSpec, CliError> {
        let log = self.dirs.log(name)?;
        spec.log(log).map_err(|error| CliError::internal(format!("cannot open the log of {name}")).because(&error))
    }

    fn died(&self, name: &str, exit: Option<Exit>) -> CliError {
        let what = exit.map_or_else(|| "did not end".to_owned(), |exit| format!("ended with {exit}"));
        let path = self.dirs.root().join("logs").join(format!("{name}.log"));
        let log = std::fs::read_to_string(&path).unwrap_or_default();
        let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        CliError::internal(format!("{name} {what}: {last}"))
            .hint("meshctl demo --keep-dir DIR keeps its whole log in DIR/logs")
    }

    async fn wait_for_page(&self, name: &str, address: SocketAddr, path: &str, task: &Task) -> Result<(), CliError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let why = match http::ask(address, path, &[]).await {
                Ok(answer) if answer.status.is_success() => return Ok(()),
                Ok(answer) => String::from_utf8_lossy(&answer.body).trim().to_owned(),
                Err(error) => error.to_string(),
            };
            if let Some(exit) = task.exit() {
                return Err(self.died(name, Some(exit)));
            }
            if Instant::now() >= until {
                return Err(CliError::internal(format!("{name} was not ready within {PATIENCE:?}: {why}"))
                    .hint("meshctl demo --keep-dir DIR keeps its log in DIR/logs"));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
