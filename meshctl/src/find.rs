//! Finding running proxies and the control plane: by address, or by the folder that a demo writes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use mesh_api::names::MONITORING_PORT;
use serde::Deserialize;

use crate::context::Context;
use crate::error::CliError;
use crate::http;
use crate::kube::control::{self, Replica};

/// The file of a mesh's folder that says where everything is.
pub const ADDRESSES_FILE: &str = "proxies.json";

/// Where everything of a mesh on this machine is.
#[derive(Clone, Debug, Deserialize)]
pub struct Addresses {
    /// The control plane's monitoring port.
    pub meshd: SocketAddr,
    /// Admin ports of proxies, by `name.namespace`.
    pub proxies: BTreeMap<String, SocketAddr>,
}

/// Flags that say where the mesh is.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct WhereArgs {
    /// Folder of a running demo
    #[arg(long, env = "LATEEN_MESH_DIR", value_name = "DIR")]
    pub mesh_dir: Option<PathBuf>,
}

impl WhereArgs {
    /// The addresses that the folder tells; `None` without a folder.
    ///
    /// # Errors
    /// When the folder has no such file, or it cannot be read.
    pub fn addresses(&self) -> Result<Option<Addresses>, CliError> {
        self.mesh_dir.as_deref().map(read).transpose()
    }
}

fn read(folder: &Path) -> Result<Addresses, CliError> {
    let path = folder.join(ADDRESSES_FILE);
    let text = std::fs::read_to_string(&path).map_err(|error| {
        CliError::user(format!("{} is no folder of a running mesh", folder.display()))
            .because(&error)
            .hint("meshctl demo prints its folder when it starts")
    })?;
    serde_json::from_str(&text)
        .map_err(|error| CliError::user(format!("{} cannot be read", path.display())).because(&error))
}

/// The control plane's monitoring address: the one given, else the folder's; `None` without either, then it is in a cluster.
///
/// # Errors
/// When the folder cannot be read.
pub fn meshd(given: Option<SocketAddr>, place: &WhereArgs) -> Result<Option<SocketAddr>, CliError> {
    if given.is_some() {
        return Ok(given);
    }
    Ok(place.addresses()?.map(|addresses| addresses.meshd))
}

/// A page of the control plane: of the address that is given or that the folder tells; else of every replica in the cluster;
/// and without any cluster of the one on this machine. With the names of those who answered, and what to note of the others.
///
/// # Errors
/// When nobody answers.
pub async fn control_pages(
    context: &Context,
    given: Option<SocketAddr>,
    place: &WhereArgs,
    revision: Option<&str>,
    path: &str,
) -> Result<(Vec<(Option<Replica>, Bytes)>, Vec<String>), CliError> {
    let unknown = |error: &dyn std::error::Error| {
        CliError::user(format!("the control plane does not show {path}"))
            .because(error)
            .hint("--meshd ADDRESS names its monitoring port; --mesh-dir DIR the folder of a running demo")
    };
    let address = match meshd(given, place)? {
        Some(address) => address,
        None => match context.kube().await {
            Ok(kube) => {
                let (answers, silent) = control::answers(control::pages(&kube, revision, path).await?)?;
                return Ok((answers.into_iter().map(|(replica, page)| (Some(replica), page)).collect(), silent));
            }
            Err(error) if context.kube.is_given() || std::env::var_os("KUBECONFIG").is_some() => return Err(error),
            Err(_) => ([127, 0, 0, 1], MONITORING_PORT).into(),
        },
    };
    let page = http::page(address, path).await.map_err(|error| unknown(&error))?;
    Ok((vec![(None, page)], Vec::new()))
}

/// The admin address of a proxy that is called `[pod/]name[.namespace]`.
///
/// # Errors
/// When no folder says where proxies are, or none, or several, have the name.
pub fn proxy(name: &str, place: &WhereArgs) -> Result<SocketAddr, CliError> {
    let Some(Addresses { proxies, .. }) = place.addresses()? else {
        return Err(CliError::user(format!("where is the proxy {name}?"))
            .hint("--mesh-dir DIR or LATEEN_MESH_DIR names the folder of a running demo")
            .hint("--admin ADDRESS names the proxy's admin port itself"));
    };
    let wanted = name.rsplit_once('/').map_or(name, |(_, name)| name);
    let fits = |known: &str| known == wanted || known.rsplit_once('.').is_some_and(|(bare, _)| bare == wanted);
    let mut found = proxies.iter().filter(|(known, _)| fits(known));
    match (found.next(), found.next()) {
        (Some((_, address)), None) => Ok(*address),
        (Some((first, _)), Some((second, _))) => {
            Err(CliError::user(format!("{name} may be {first} or {second}")).hint("name its namespace too"))
        }
        (None, _) => {
            let known: Vec<&str> = proxies.keys().map(String::as_str).collect();
            let error = CliError::user(format!("there is no proxy {name}"));
            Err(error.hint(format!("there are {}", known.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, WhereArgs) {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"meshd": "127.0.0.1:1", "proxies":
            {"web-1.shop": "127.0.0.1:2", "web-2.shop": "127.0.0.1:3", "web-2.other": "127.0.0.1:4"}}"#;
        std::fs::write(folder.path().join(ADDRESSES_FILE), text).unwrap();
        let place = WhereArgs { mesh_dir: Some(folder.path().to_owned()) };
        (folder, place)
    }

    #[test]
    fn proxies_are_found_by_name_and_namespace() {
        let (_folder, place) = folder();
        let port = |name| proxy(name, &place).map(|address| address.port());
        assert_eq!(port("web-1"), Ok(2));
        assert_eq!(port("pod/web-1.shop"), Ok(2));
        assert_eq!(port("web-2.other"), Ok(4));
        assert!(port("web-2").unwrap_err().to_string().contains("web-2.other or web-2.shop"));
        assert!(port("wob").unwrap_err().to_string().contains("there are web-1.shop, "));
        assert!(proxy("web-1", &WhereArgs::default()).unwrap_err().to_string().contains("--mesh-dir"));
    }

    #[test]
    fn the_control_plane_is_where_the_flag_or_the_folder_says() {
        let (_folder, place) = folder();
        let port = |given, place| meshd(given, place).map(|address| address.map(|address| address.port()));
        assert_eq!(port(None, &place), Ok(Some(1)));
        assert_eq!(port(Some(([127, 0, 0, 1], 9).into()), &place), Ok(Some(9)));
        assert_eq!(port(None, &WhereArgs::default()), Ok(None), "then it is in a cluster");
    }
}
