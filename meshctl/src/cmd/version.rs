//! `meshctl version`: which build this is, and which builds run.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use futures::future::try_join;
use mesh_api_rt::build_info;
use serde_json::{Value, json};

use crate::cmd::OutputArgs;
use crate::context::Context;
use crate::error::CliError;
use crate::find::{self, WhereArgs};
use crate::printer::Report;
use crate::table::Table;

/// Whose version.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  meshctl version\n  meshctl version --remote=false\n  meshctl version --mesh-dir /tmp/mesh -o json"
)]
pub struct VersionArgs {
    /// false: only of this program
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub remote: bool,
    /// Only the control plane's revision of this name
    #[arg(short, long)]
    pub revision: Option<String>,
    /// Monitoring address of a control plane to ask instead of that of the cluster
    #[arg(long, value_name = "ADDRESS")]
    pub meshd: Option<SocketAddr>,
    /// Where the mesh is.
    #[command(flatten)]
    pub place: WhereArgs,
    /// How versions are shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Reports the client's version, and those of the mesh when one can be asked.
///
/// # Errors
/// When the control plane that the user named does not answer.
pub fn run(context: &Context, args: &VersionArgs) -> Result<Report, CliError> {
    let info = build_info!("meshctl");
    let mut table = Table { padding: 1, ..Table::new(&["", ""]) };
    table.row(["client version:".to_owned(), format!("{} ({}, {})", info.version, info.revision, info.profile)]);
    let mut report = Report { table, data: json!({ "clientVersion": info }), ..Report::default() };
    if !args.remote {
        return Ok(report);
    }
    let named = args.meshd.is_some() || args.place.mesh_dir.is_some() || context.kube.is_given();
    match context
        .block_on(async { try_join(pages(context, args, "/version"), pages(context, args, "/debug/syncz")).await })
    {
        Ok(((control, mut notes), (proxies, _))) => {
            report.notes.append(&mut notes);
            show(&control, &proxies, &mut report);
        }
        Err(error) if named => return Err(error),
        // Without a cluster the client's version is the answer.
        Err(error) => report.notes.push(format!("no control plane to ask: {}", error.message)),
    }
    Ok(report)
}

fn show(control: &[Value], proxies: &[Value], report: &mut Report) {
    let versions = by_version(proxies);
    let mut known: Vec<String> = control.iter().map(control_version).collect();
    known.sort();
    known.dedup();
    for version in known {
        report.table.row(["control plane version:".to_owned(), version]);
    }
    report.table.row(["data plane version:".to_owned(), data_plane(&versions)]);
    if let Some(fields) = report.data.as_object_mut() {
        fields.insert("meshVersion".to_owned(), json!(control));
        fields.insert("dataPlaneVersion".to_owned(), json!(versions));
    }
}

/// A page of every replica, each with the replica's name, and what to note.
async fn pages(context: &Context, args: &VersionArgs, path: &str) -> Result<(Vec<Value>, Vec<String>), CliError> {
    let revision = args.revision.as_deref();
    let (answers, silent) = find::control_pages(context, args.meshd, &args.place, revision, path).await?;
    let mut pages = Vec::new();
    for (replica, page) in answers {
        // Istio's own answers as text: `1.31.0-…-Clean`.
        let text = || json!({ "version": String::from_utf8_lossy(&page).trim() });
        let mut page: Value = serde_json::from_slice(&page).unwrap_or_else(|_| text());
        if let (Some(replica), Some(fields)) = (replica, page.as_object_mut()) {
            fields.insert("pod".to_owned(), json!(replica.pod));
            fields.insert("meshRevision".to_owned(), json!(replica.revision));
        }
        pages.push(page);
    }
    Ok((pages, silent))
}

fn control_version(page: &Value) -> String {
    let text = |name: &str| page.get(name).and_then(Value::as_str).unwrap_or("unknown");
    format!("{} ({}, {})", text("version"), text("revision"), text("profile"))
}

/// How many proxies say to be of which version.
fn by_version(pages: &[Value]) -> BTreeMap<String, usize> {
    let mut versions = BTreeMap::new();
    let of = |page| Value::as_array(page).or_else(|| page.get("proxies")?.as_array());
    for proxy in pages.iter().filter_map(of).flatten() {
        let version = proxy.get("version").or_else(|| proxy.get("istio_version"));
        let version = version.and_then(Value::as_str).unwrap_or("unknown");
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
        assert_eq!(data_plane(&by_version(&[page])), "0.1.0 (2 proxies), 0.2.0 (1 proxies)");
        assert_eq!(data_plane(&by_version(&[json!({})])), "none");
        assert_eq!(control_version(&json!({ "version": "1" })), "1 (unknown, unknown)");
    }
}
