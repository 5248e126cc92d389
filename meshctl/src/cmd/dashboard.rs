//! `meshctl dashboard`: a web page of the mesh, reached through a port forward.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use kube::ResourceExt as _;
use mesh_api::names;

use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::kube::client::Kube;
use crate::kube::portforward::{PodPort, listen};
use crate::kube::proxy::PodProxy;
use crate::kube::{control, find};
use crate::printer::{Report, is_terminal, out};

/// Which page.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  meshctl dashboard proxy deploy/web\n  meshctl dashboard grafana --browser=false\n  \
    meshctl dash controlz --port 8080\n\nIt runs until Ctrl-C."
)]
pub struct DashboardArgs {
    /// Whose page
    #[arg(value_enum)]
    pub what: Page,
    /// Proxy or replica, as [kind/]name[.namespace]
    pub target: Option<String>,
    /// Port of this machine; 0 takes a free one
    #[arg(short, long, default_value_t = 0)]
    pub port: u16,
    /// Address of this machine
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub address: IpAddr,
    /// false: open no browser
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub browser: bool,
}

/// A page that can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Page {
    /// The admin interface of a proxy.
    #[value(alias = "envoy")]
    Proxy,
    /// Debug pages of the control plane.
    #[value(alias = "istiod-debug")]
    Controlz,
    /// Prometheus.
    Prometheus,
    /// Grafana.
    Grafana,
    /// Kiali.
    Kiali,
    /// Jaeger.
    Jaeger,
    /// Zipkin.
    Zipkin,
    /// Perses, SkyWalking's user interface.
    Skywalking,
}

impl Page {
    /// The label and port of an addon as Istio's samples install it, and its first page.
    const fn addon(self) -> Option<(&'static str, u16, &'static str)> {
        match self {
            Self::Proxy | Self::Controlz => None,
            Self::Prometheus => Some(("app.kubernetes.io/name=prometheus", 9090, "/")),
            Self::Grafana => Some(("app.kubernetes.io/name=grafana", 3000, "/")),
            Self::Kiali => Some(("app=kiali", 20001, "/kiali")),
            Self::Jaeger => Some(("app=jaeger", 16686, "/")),
            Self::Zipkin => Some(("app=zipkin", 9411, "/")),
            Self::Skywalking => Some(("app=skywalking-ui", 8080, "/")),
        }
    }
}

/// Forwards until it is interrupted.
///
/// # Errors
/// When there is no such pod, or the port is taken.
pub fn run(context: &Context, args: &DashboardArgs) -> Result<Report, CliError> {
    context.block_on(async {
        let kube = context.kube().await?;
        let (port, page) = find_port(&kube, args).await?;
        let listener = listen(SocketAddr::new(args.address, args.port)).await?;
        let bound = listener.local_addr().map_err(|error| CliError::internal("no address").because(&error))?;
        let url = format!("http://{bound}{page}");
        out(&format!("{url}\n")).map_err(|error| CliError::internal("cannot write").because(&error))?;
        context.printer.note(&format!("forwards to {port}; Ctrl-C ends it"));
        if args.browser && is_terminal() {
            open(context, &url);
        }
        tokio::select! {
            served = port.serve(&kube, listener) => served?,
            _ = tokio::signal::ctrl_c() => {}
        }
        Ok(Report { exit: Exit::Ok, ..Report::default() })
    })
}

async fn find_port(kube: &Kube, args: &DashboardArgs) -> Result<(PodPort, &'static str), CliError> {
    if let Some((selector, port, page)) = args.what.addon() {
        let pods = find::selected(kube, Some(&kube.istio_namespace), selector).await?;
        let pod = pods.into_iter().find(find::is_running).ok_or_else(|| {
            CliError::user(format!("no pod with {selector} runs in namespace {}", kube.istio_namespace))
                .hint("-i NAMESPACE names the namespace that it is installed in")
        })?;
        return Ok((PodPort { namespace: pod.namespace().unwrap_or_default(), pod: pod.name_any(), port }, page));
    }
    if args.what == Page::Controlz {
        let replicas = control::replicas(kube, None).await?;
        let wanted = |replica: &&control::Replica| args.target.as_ref().is_none_or(|name| replica.pod == *name);
        let replica = replicas.iter().find(wanted).ok_or_else(|| CliError::user("there is no such replica"))?;
        return Ok((replica.monitoring(), "/debug/"));
    }
    let target = args
        .target
        .as_deref()
        .ok_or_else(|| CliError::user("which proxy?").hint("meshctl dashboard proxy deploy/web"))?;
    let proxy = PodProxy::find(kube, target, Some(names::PROXY_ADMIN_PORT)).await?;
    Ok((proxy.admin, "/"))
}

/// Opens a browser as the desktop does it. That there is none is no error: the address is printed.
fn open(context: &Context, url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let started =
        Command::new(program).arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    if let Err(error) = started {
        context.printer.note(&format!("no browser was opened: {program}: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_page_but_ours_is_an_addon() {
        for page in Page::value_variants() {
            assert_eq!(page.addon().is_none(), matches!(page, Page::Proxy | Page::Controlz), "{page:?}");
        }
    }
}
