//! The client of the API server, from the flags that every command has.

use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;
use kube::api::{Api, DynamicObject, ListParams};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::core::ApiResource;
use kube::{Client, Error};
use mesh_api::names;

use crate::error::CliError;

/// Time to connect to the API server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Objects of one page of a list: what the API server answers at once, as kubectl asks.
const PAGE_SIZE: u32 = 500;
/// Objects of one kind read at most.
const MAX_OBJECTS: usize = 200_000;

/// Which cluster, and who asks.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Cluster")]
pub struct KubeArgs {
    /// Kubernetes configuration file (default: KUBECONFIG, ~/.kube/config, or the pod's own account)
    #[arg(short = 'c', long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the Kubernetes configuration to use
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace (default: the context's)
    #[arg(short = 'n', long, global = true)]
    pub namespace: Option<String>,
    /// Namespace of the control plane
    #[arg(
        short = 'i',
        long = "istioNamespace",
        alias = "istio-namespace",
        global = true,
        value_name = "NAMESPACE",
        env = "ISTIOCTL_ISTIONAMESPACE",
        default_value = names::ROOT_NAMESPACE
    )]
    pub istio_namespace: String,
    /// User to act as
    #[arg(long = "as", global = true, value_name = "USER")]
    pub user: Option<String>,
    /// Group to act as; repeatable
    #[arg(long = "as-group", global = true, value_name = "GROUP", requires = "user")]
    pub groups: Vec<String>,
}

impl Default for KubeArgs {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            context: None,
            namespace: None,
            istio_namespace: names::ROOT_NAMESPACE.to_owned(),
            user: None,
            groups: Vec::new(),
        }
    }
}

impl KubeArgs {
    /// Whether the user said which cluster: then commands that work without one ask it.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some() || self.user.is_some()
    }
}

/// A cluster.
#[derive(Clone)]
pub struct Kube {
    /// The client.
    pub client: Client,
    /// The namespace of the flag, else of the context, else `default`.
    pub namespace: String,
    /// Where the control plane is.
    pub istio_namespace: String,
    /// The API server's address, for messages.
    pub server: String,
}

impl std::fmt::Debug for Kube {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kube").field("server", &self.server).field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Kube {
    /// Makes the client. Nothing is asked yet, so that a cluster that is away shows with the first question.
    ///
    /// # Errors
    /// When no configuration says where the cluster is, or it cannot be used.
    pub async fn connect(args: &KubeArgs) -> Result<Self, CliError> {
        let mut config = config(args).await?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        if let Some(user) = &args.user {
            config.auth_info.impersonate = Some(user.clone());
            config.auth_info.impersonate_groups = (!args.groups.is_empty()).then(|| args.groups.clone());
        }
        let server = config.cluster_url.to_string();
        let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| failed("cannot make a client of the cluster", &error))?;
        Ok(Self { client, namespace, istio_namespace: args.istio_namespace.clone(), server })
    }

    /// All objects of a kind in a namespace, or in all of them, page by page. A kind that the cluster does not have, has
    /// none.
    ///
    /// # Errors
    /// When the cluster does not answer, or denies it.
    pub async fn list(
        &self,
        resource: &ApiResource,
        namespace: Option<&str>,
        selector: Option<&str>,
    ) -> Result<Vec<DynamicObject>, CliError> {
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        };
        let mut params = ListParams::default().limit(PAGE_SIZE);
        params.label_selector = selector.map(str::to_owned);
        let mut found = Vec::new();
        loop {
            let page = match api.list(&params).await {
                Ok(page) => page,
                Err(Error::Api(status)) if status.code == StatusCode::NOT_FOUND => break,
                Err(error) => return Err(failed(format!("cannot list {}", resource.plural), &error)),
            };
            found.extend(page.items);
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                break;
            }
            if found.len() > MAX_OBJECTS {
                return Err(CliError::user(format!("more than {MAX_OBJECTS} {}", resource.plural))
                    .hint("-n NAMESPACE reads those of one namespace"));
            }
        }
        Ok(found)
    }
}

async fn config(args: &KubeArgs) -> Result<Config, CliError> {
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let Some(path) = &args.kubeconfig else {
        if args.context.is_some() {
            return Config::from_kubeconfig(&options).await.map_err(|error| {
                CliError::user("the context cannot be used").because(&error).hint("kubectl config get-contexts")
            });
        }
        return Config::infer().await.map_err(|error| {
            CliError::user("no cluster to ask")
                .because(&error)
                .hint("--kubeconfig FILE or KUBECONFIG says where the cluster is")
        });
    };
    let unusable = |error: &dyn std::error::Error| {
        CliError::user(format!("{} cannot be used as a Kubernetes configuration", path.display())).because(error)
    };
    let read = Kubeconfig::read_from(path).map_err(|error| unusable(&error))?;
    Config::from_custom_kubeconfig(read, &options).await.map_err(|error| unusable(&error))
}

/// What the API server's error means to a user.
#[must_use]
pub fn failed(what: impl Into<String>, error: &Error) -> CliError {
    let what = what.into();
    match error {
        Error::Api(status) => {
            let error = CliError::user(format!("{what}: {}", status.message));
            match StatusCode::from_u16(status.code) {
                Ok(StatusCode::UNAUTHORIZED) => {
                    error.hint("the cluster does not know who you are: check the user of your Kubernetes configuration")
                }
                Ok(StatusCode::FORBIDDEN) => error.hint("kubectl auth can-i --list shows what you may do"),
                _ => error,
            }
        }
        Error::HyperError(_) | Error::Service(_) => CliError::internal(format!("{what}: the cluster does not answer"))
            .because(error)
            .hint("kubectl cluster-info"),
        Error::UpgradeConnection(_) => CliError::user(what).because(error),
        Error::Auth(_) => {
            CliError::user(what).because(error).hint("the user of your Kubernetes configuration cannot sign in")
        }
        other => CliError::internal(what).because(other),
    }
}

/// The error as a user sees it, `None` when the object is just not there.
///
/// # Errors
/// Every error but "not found".
pub fn optional<T>(what: impl Into<String>, result: Result<T, Error>) -> Result<Option<T>, CliError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Api(status)) if status.code == StatusCode::NOT_FOUND => Ok(None),
        Err(error) => Err(failed(what, &error)),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    const CONFIG: &str = "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters:\n\
        - {name: a, cluster: {server: 'http://127.0.0.1:1'}}\ncontexts:\n\
        - {name: a, context: {cluster: a, user: a, namespace: shop}}\n\
        - {name: b, context: {cluster: a, user: a}}\nusers:\n- {name: a, user: {}}\n";

    fn args(folder: &tempfile::TempDir) -> KubeArgs {
        let path = folder.path().join("config");
        std::fs::write(&path, CONFIG).unwrap();
        KubeArgs { kubeconfig: Some(path), ..KubeArgs::default() }
    }

    #[tokio::test]
    async fn the_namespace_is_the_flags_the_contexts_or_default() {
        let folder = tempfile::tempdir().unwrap();
        let mut args = args(&folder);
        assert_eq!(Kube::connect(&args).await.unwrap().namespace, "shop");
        args.context = Some("b".to_owned());
        assert_eq!(Kube::connect(&args).await.unwrap().namespace, "default");
        args.namespace = Some("other".to_owned());
        assert_eq!(Kube::connect(&args).await.unwrap().namespace, "other");
        args.context = Some("c".to_owned());
        assert!(Kube::connect(&args).await.unwrap_err().to_string().contains("cannot be used"));
    }

    #[tokio::test]
    async fn a_cluster_that_is_away_is_named_with_the_first_question() {
        let folder = tempfile::tempdir().unwrap();
        let kube = Kube::connect(&args(&folder)).await.unwrap();
        let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
        let error = kube.list(&resource, None, None).await.unwrap_err().to_string();
        assert!(error.contains("cannot list pods: the cluster does not answer"), "{error}");
    }

    #[test]
    fn what_the_cluster_denies_is_said_with_its_words() {
        let denied = Status { code: 403, message: "pods is forbidden".to_owned(), ..Status::default() };
        let text = failed("cannot list pods", &Error::Api(denied.boxed())).to_string();
        assert!(text.contains("cannot list pods: pods is forbidden") && text.contains("can-i"), "{text}");
        let absent = Status { code: 404, ..Status::default() };
        assert!(optional::<()>("x", Err(Error::Api(absent.boxed()))).unwrap().is_none());
    }
}
