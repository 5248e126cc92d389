//! `meshctl create-remote-secret`: what another cluster's control plane needs to read this one (istio-surface 5.5).

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::api::{Api, PostParams};
use mesh_api::names;
use serde_json::json;

use crate::context::Context;
use crate::error::CliError;
use crate::kube::client::{Kube, failed, optional};
use crate::printer::Report;

/// Of which cluster.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  meshctl create-remote-secret --context west --name west | kubectl apply --context east -f -"
)]
pub struct RemoteSecretArgs {
    /// Name of this cluster for the others
    #[arg(long, default_value = names::DEFAULT_CLUSTER_ID)]
    pub name: String,
    /// Account that the others act as
    #[arg(long, default_value = "istio-reader-service-account")]
    pub service_account: String,
    /// Address of this cluster's API server, as the others reach it (default: that of the Kubernetes configuration)
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// Hours that the account's token is good for; the API server may give fewer
    #[arg(long, default_value_t = 8760, value_parser = clap::value_parser!(u64).range(1..=87_600))]
    pub hours: u64,
}

/// Makes the Secret, as YAML.
///
/// # Errors
/// When the account is not there, or no token may be made for it.
pub fn run(context: &Context, args: &RemoteSecretArgs) -> Result<Report, CliError> {
    context.block_on(async {
        let kube = context.kube().await?;
        let token = token(&kube, args).await?;
        let authority = authority(&kube).await?;
        let server = args.server.clone().unwrap_or_else(|| kube.server.trim_end_matches('/').to_owned());
        let text = secret(&kube.istio_namespace, &args.name, &server, &authority, &token)?;
        let note = "it holds a token: whoever has it can read this cluster's Services, Pods and Secrets of the account";
        Ok(Report { text, notes: vec![note.to_owned()], ..Report::default() })
    })
}

async fn token(kube: &Kube, args: &RemoteSecretArgs) -> Result<String, CliError> {
    let api: Api<ServiceAccount> = Api::namespaced(kube.client.clone(), &kube.istio_namespace);
    let name = &args.service_account;
    let what = format!("cannot read ServiceAccount {name} in {}", kube.istio_namespace);
    if optional(what, api.get(name).await)?.is_none() {
        return Err(CliError::user(format!("there is no ServiceAccount {name} in {}", kube.istio_namespace))
            .hint("--service-account names another; the chart `base` makes istio-reader-service-account"));
    }
    let seconds = i64::try_from(Duration::from_secs(args.hours * 3600).as_secs()).ok();
    let wanted = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: seconds, ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let made = api.create_token_request(name, &PostParams::default(), &wanted).await;
    let made = made.map_err(|error| failed(format!("cannot make a token of {name}"), &error))?;
    made.status.map(|status| status.token).ok_or_else(|| CliError::internal(format!("no token was made for {name}")))
}

/// The certificate authority of this cluster's API server, as every pod is told it.
async fn authority(kube: &Kube) -> Result<String, CliError> {
    const MAP: &str = "kube-root-ca.crt";
    let api: Api<ConfigMap> = Api::namespaced(kube.client.clone(), &kube.istio_namespace);
    let map = optional(format!("cannot read ConfigMap {MAP}"), api.get(MAP).await)?;
    let found = map.and_then(|map| map.data?.remove("ca.crt"));
    found.ok_or_else(|| CliError::user(format!("there is no ConfigMap {MAP} in {}", kube.istio_namespace)))
}

fn secret(namespace: &str, name: &str, server: &str, authority: &str, token: &str) -> Result<String, CliError> {
    use base64::Engine as _;
    let authority = base64::engine::general_purpose::STANDARD.encode(authority);
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": name,
        "clusters": [{ "name": name, "cluster": { "certificate-authority-data": authority, "server": server } }],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": name } }],
        "users": [{ "name": name, "user": { "token": token } }],
    });
    let failed = |error: &dyn std::error::Error| CliError::internal("cannot write the Secret").because(error);
    let config = serde_yaml_ng::to_string(&config).map_err(|error| failed(&error))?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {
            "name": format!("istio-remote-secret-{}", name.to_ascii_lowercase()), "namespace": namespace,
            "labels": { "istio/multiCluster": "true" }, "annotations": { "networking.istio.io/cluster": name },
        },
        "stringData": { name: config },
    });
    serde_yaml_ng::to_string(&secret).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_one_that_istio_reads() {
        let text = secret("istio-system", "West", "https://west:6443", "CA", "token").unwrap();
        let secret: serde_json::Value = serde_yaml_ng::from_str(&text).unwrap();
        assert_eq!(secret["metadata"]["name"], "istio-remote-secret-west");
        assert_eq!(secret["metadata"]["labels"]["istio/multiCluster"], "true");
        let config: serde_json::Value =
            serde_yaml_ng::from_str(secret["stringData"]["West"].as_str().unwrap()).unwrap();
        assert_eq!(config["clusters"][0]["cluster"]["certificate-authority-data"], "Q0E=");
        assert_eq!(config["users"][0]["user"]["token"], "token");
    }
}
