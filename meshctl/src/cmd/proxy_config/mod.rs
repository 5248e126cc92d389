//! `meshctl proxy-config`: what a proxy holds, from its admin interface or from a saved dump.

mod bootstrap;
mod cluster;
mod endpoint;
mod listener;
mod log;
mod route;
mod secret;

use std::net::SocketAddr;
use std::path::PathBuf;

use ::http::Method;
use futures::future::try_join;
use serde_json::{Map, Value};

use crate::cmd::OutputArgs;
use crate::context::Context;
use crate::error::CliError;
use crate::files;
use crate::find::{self, WhereArgs};
use crate::http;
use crate::kube::client::Kube;
use crate::kube::proxy::PodProxy;
use crate::printer::Report;

/// What to show.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  meshctl proxy-config cluster deploy/web\n  meshctl pc route web-1.shop --name 8080 -o json\n  \
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
    /// What the proxy started with
    #[command(aliases = ["b"])]
    Bootstrap {
        #[command(flatten)]
        from: From,
    },
    /// Extensions that came by themselves
    #[command(aliases = ["ec"])]
    Ecds {
        #[command(flatten)]
        from: From,
    },
    /// Everything: clusters, listeners, routes, endpoints and certificates
    #[command(aliases = ["a"])]
    All {
        #[command(flatten)]
        from: From,
    },
    /// Log levels, shown or set
    #[command(aliases = ["o"])]
    Log(log::LogArgs),
    /// Whether two proxies trust the same roots
    #[command(aliases = ["rc"])]
    RootcaCompare {
        /// One proxy, as [kind/]name[.namespace]
        one: String,
        /// The other
        other: String,
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// Which proxy.
#[derive(clap::Args, Clone, Debug)]
struct From {
    /// Name of the proxy, as [kind/]name[.namespace]; the first pod of a deploy/NAME
    target: Option<String>,
    /// Read a saved answer of the admin interface instead, - for the standard input
    #[arg(short, long, conflicts_with = "target")]
    file: Option<PathBuf>,
    /// Address of the proxy's admin interface
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["target", "file"])]
    admin: Option<SocketAddr>,
    /// Port of the admin interface of a proxy in a cluster
    #[arg(long = "proxy-admin-port", value_name = "PORT")]
    admin_port: Option<u16>,
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
            | What::Secret { from }
            | What::Bootstrap { from }
            | What::Ecds { from }
            | What::All { from } => from.output,
            What::Log(args) => args.output,
            What::RootcaCompare { output, .. } => *output,
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
        What::Bootstrap { from } => Ok(bootstrap::report(&from.load(context, "/config_dump")?)),
        What::Ecds { from } => Ok(bootstrap::extensions(&from.load(context, "/config_dump?include_eds")?)),
        What::All { from } => all(&from.load(context, "/config_dump?include_eds")?),
        What::Log(args) => log::run(context, args),
        What::RootcaCompare { one, other, .. } => {
            let dumps = context.block_on(async {
                let kube = context.kube().await?;
                try_join(dump_of(&kube, one, None, DUMP), dump_of(&kube, other, None, DUMP)).await
            })?;
            let parse = |(page, name): &(Vec<u8>, String)| parse(page, name);
            secret::compare(&parse(&dumps.0)?, &parse(&dumps.1)?, [&dumps.0.1, &dumps.1.1])
        }
    }
}

const DUMP: &str = "/config_dump";

/// All tables below each other, and all of them by their names.
fn all(dump: &Value) -> Result<Report, CliError> {
    let mut text = String::new();
    let mut data = Map::new();
    let parts = [
        ("bootstrap", bootstrap::report(dump)),
        ("clusters", cluster::report(dump, &cluster::Filter::default())),
        ("listeners", listener::report(dump, &listener::Filter::all())),
        ("routes", route::report(dump, &route::Filter::all())),
        ("secrets", secret::report(dump)),
        ("ecds", bootstrap::extensions(dump)),
    ];
    for (name, part) in parts {
        if !part.table.rows.is_empty() {
            text.push_str(&format!("{}\n{}\n", name.to_uppercase(), part.table));
        }
        data.insert(name.to_owned(), part.data);
    }
    Ok(Report { text, data: Value::Object(data), ..Report::default() })
}

/// A page of the proxy that `target` names, and the proxy's name.
async fn dump_of(kube: &Kube, target: &str, port: Option<u16>, path: &str) -> Result<(Vec<u8>, String), CliError> {
    let proxy = PodProxy::find(kube, target, port).await?;
    Ok((proxy.page(kube, Method::GET, path).await?.to_vec(), proxy.name()))
}

fn parse(page: &[u8], name: &str) -> Result<Value, CliError> {
    serde_json::from_slice(page)
        .map_err(|error| CliError::user(format!("{name} holds no configuration dump")).because(&error))
}

impl From {
    fn load(&self, context: &Context, path: &str) -> Result<Value, CliError> {
        let (text, name) = if let Some(file) = &self.file {
            (files::read(file)?.into_bytes(), file.display().to_string())
        } else if let Some(address) = self.address()? {
            let page = context.block_on(async {
                http::page(address, path)
                    .await
                    .map_err(|error| CliError::user("the proxy's admin interface cannot be read").because(&error))
            })?;
            (page.to_vec(), address.to_string())
        } else if let Some(target) = &self.target {
            context.block_on(async { dump_of(&context.kube().await?, target, self.admin_port, path).await })?
        } else {
            return Err(CliError::user("which proxy?")
                .hint("meshctl proxy-config cluster deploy/NAME, or NAME --mesh-dir DIR")
                .hint("or --admin ADDRESS, or -f config_dump.json"));
        };
        parse(&text, &name)
    }

    /// Where the proxy's interface is, when it is on this machine.
    fn address(&self) -> Result<Option<SocketAddr>, CliError> {
        match (&self.admin, &self.target, &self.place.mesh_dir) {
            (Some(address), _, _) => Ok(Some(*address)),
            (None, Some(target), Some(_)) => find::proxy(target, &self.place).map(Some),
            _ => Ok(None),
        }
    }
}
