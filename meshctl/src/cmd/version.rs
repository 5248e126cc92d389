//! `meshctl version`: which build this is, and which builds run.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mesh_api_rt::build_info;
use serde_json::{Value, json};

use crate::cmd::OutputArgs;
use crate::context::Context;
use crate::error::CliError;
use crate::find::{self, WhereArgs};
use crate::http;
use crate::printer::Report;
use crate::table::Table;

/// Whose version.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:\n  meshctl version\n  meshctl version --mesh-dir /tmp/mesh -o json")]
pub struct VersionArgs {
    /// Monitoring address of a control plane to ask, too
    #[arg(long, value_name = "ADDRESS")]
    pub meshd: Option<SocketAddr>,
    /// Where the mesh is.
    #[command(flatten)]
    pub place: WhereArgs,
    /// How versions are shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Reports the client's version, and those of a mesh when it is said where that is.
///
/// # Errors
/// When the control plane does not answer.
pub fn run(context: &Context, args: &VersionArgs) -> Result<Report, CliError> {
    let info = build_info!("meshctl");
    let mut table = Table { padding: 1, ..Table::new(&["", ""]) };
    table.row(["client version:".to_owned(), format!("{} ({}, {})", info.version, info.revision, info.profile)]);
    let mut data = json!({ "clientVersion": info });
    if args.meshd.is_some() || args.place.mesh_dir.is_some() {
        let address = find::meshd(args.meshd, &args.place)?;
        let (control, proxies) =
            context.block_on(async { Ok((page(address, "/version").await?, page(address, "/debug/syncz").await?)) })?;
        let versions = by_version(&proxies);
        table.row(["control plane version:".to_owned(), control_version(&control)]);
        table.row(["data plane version:".to_owned(), data_plane(&versions)]);
        if let Some(fields) = data.as_object_mut() {
            fields.insert("meshVersion".to_owned(), json!([control]));
            fields.insert("dataPlaneVersion".to_owned(), json!(versions));
        }
    }
    Ok(Report { table, data, ..Report::default() })
}

async fn page(address: SocketAddr, path: &str) -> Result<Value, CliError> {
    let failed = || CliError::user("the control plane does not tell its version");
    let page = http::page(address, path).await.map_err(|error| failed().because(&error))?;
    serde_json::from_slice(&page).map_err(|error| failed().because(&error))
}

fn control_version(page: &Value) -> String {
    let text = |name: &str| page.get(name).and_then(Value::as_str).unwrap_or("unknown");
    format!("{} ({}, {})", text("version"), text("revision"), text("profile"))
}

/// How many proxies say to be of which version.
fn by_version(page: &Value) -> BTreeMap<String, usize> {
    let mut versions = BTreeMap::new();
    for proxy in page.get("proxies").and_then(Value::as_array).into_iter().flatten() {
        let version = proxy.get("version").and_then(Value::as_str).unwrap_or("unknown");
        *versions.entry(version.to_owned()).or_default() += 1;
    }
    versions
}

/// `1.2.3 (4 proxies)`, or `none`.
fn data_plane(versions: &BTreeMap<String, usize>) -> String {
    let all: Vec<String> = versions.iter().map(|(version, count)| format!("{version} ({count} proxies)")).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_counted_by_version() {
        let page = json!({ "proxies": [{ "version": "0.1.0" }, { "version": "0.2.0" }, { "version": "0.1.0" }] });
        assert_eq!(data_plane(&by_version(&page)), "0.1.0 (2 proxies), 0.2.0 (1 proxies)");
        assert_eq!(data_plane(&by_version(&json!({}))), "none");
        assert_eq!(control_version(&json!({ "version": "1" })), "1 (unknown, unknown)");
    }
}
