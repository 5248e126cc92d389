//! `meshctl proxy-config`: what a proxy holds, from its admin interface or from a saved dump.

mod cluster;
mod dump;
mod endpoint;
mod listener;
mod route;
mod secret;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;

use crate::cmd::OutputArgs;
use crate::context::Context;
use crate::error::CliError;
use crate::files;
use crate::find::{self, WhereArgs};
use crate::http;
use crate::printer::Report;

pub use self::secret::chain as certificate_chain;

/// What to show.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  meshctl proxy-config cluster web-1\n  meshctl pc route web-1.shop --name 8080 -o json\n  \
    meshctl pc endpoint web-1 --cluster 'outbound|8080||reviews.shop.svc.cluster.local'\n  \
    curl -s 127.0.0.1:15000/config_dump > dump.json; meshctl pc listener -f dump.json"
)]
pub struct ConfigArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum What {
    /// Clusters: services as clients see them
    #[command(aliases = ["clusters", "c"])]
    Cluster {
        #[command(flatten)]
        from: From,
        #[command(flatten)]
        filter: cluster::Filter,
    },
    /// Listeners, and which connections go where
    #[command(aliases = ["listeners", "l"])]
    Listener {
        #[command(flatten)]
        from: From,
        #[command(flatten)]
        filter: listener::Filter,
    },
    /// Routes of HTTP requests
    #[command(aliases = ["routes", "r"])]
    Route {
        #[command(flatten)]
        from: From,
        #[command(flatten)]
        filter: route::Filter,
    },
    /// Endpoints with their health
    #[command(aliases = ["endpoints", "ep"])]
    Endpoint {
        #[command(flatten)]
        from: From,
        #[command(flatten)]
        filter: endpoint::Filter,
    },
    /// Certificates and roots
    #[command(aliases = ["secrets", "s"])]
    Secret {
        #[command(flatten)]
        from: From,
    },
}

/// Which proxy.
#[derive(clap::Args, Clone, Debug)]
struct From {
    /// Name of the proxy, as [pod/]name[.namespace]
    target: Option<String>,
    /// Read a saved answer of the admin interface instead, - for the standard input
    #[arg(short, long, conflicts_with = "target")]
    file: Option<PathBuf>,
    /// Address of the proxy's admin interface
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["target", "file"])]
    admin: Option<SocketAddr>,
    #[command(flatten)]
    place: WhereArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl ConfigArgs {
    /// How the report is shown.
    #[must_use]
    pub const fn output(&self) -> OutputArgs {
        match &self.what {
            What::Cluster { from, .. }
            | What::Listener { from, .. }
            | What::Route { from, .. }
            | What::Endpoint { from, .. }
            | What::Secret { from } => from.output,
        }
    }
}

/// Shows what is asked for.
///
/// # Errors
/// When the proxy cannot be found or read.
pub fn run(context: &Context, args: &ConfigArgs) -> Result<Report, CliError> {
    match &args.what {
        What::Cluster { from, filter } => Ok(cluster::report(&from.load(context, "/config_dump")?, filter)),
        What::Listener { from, filter } => Ok(listener::report(&from.load(context, "/config_dump")?, filter)),
        What::Route { from, filter } => Ok(route::report(&from.load(context, "/config_dump")?, filter)),
        What::Endpoint { from, filter } => Ok(endpoint::report(&from.load(context, "/clusters?format=json")?, filter)),
        What::Secret { from } => Ok(secret::report(&from.load(context, "/config_dump")?)),
    }
}

impl From {
    fn load(&self, context: &Context, path: &str) -> Result<Value, CliError> {
        let (text, name) = if let Some(file) = &self.file {
            (files::read(file)?.into_bytes(), file.display().to_string())
        } else {
            let address = match (self.admin, &self.target) {
                (Some(address), _) => address,
                (None, Some(target)) => find::proxy(target, &self.place)?,
                (None, None) => {
                    return Err(CliError::user("which proxy?")
                        .hint("meshctl proxy-config cluster NAME --mesh-dir DIR")
                        .hint("or --admin ADDRESS, or -f config_dump.json"));
                }
            };
            let page = context.block_on(async {
                http::page(address, path)
                    .await
                    .map_err(|error| CliError::user("the proxy's admin interface cannot be read").because(&error))
            })?;
            (page.to_vec(), address.to_string())
        };
        serde_json::from_slice(&text)
            .map_err(|error| CliError::user(format!("{name} holds no configuration dump")).because(&error))
    }
}
