//! `meshctl admin log`: log levels of the control plane, shown and set.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::cmd::OutputArgs;
use crate::context::Context;
use crate::error::CliError;
use crate::kube::control::{self, Replica};
use crate::printer::Report;
use crate::table::Table;

/// The control plane itself.
#[derive(clap::Args, Clone, Debug)]
pub struct AdminArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum What {
    /// Log levels, shown or set, of every replica
    #[command(visible_alias = "l")]
    Log(LogArgs),
}

/// Which replicas, and which levels.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:\n  meshctl admin log\n  meshctl admin log --level debug\n  \
    meshctl admin log --level meshd::push:debug,meshd::hub:trace\n  meshctl admin log --reset")]
struct LogArgs {
    /// Only the replica of this pod
    pod: Option<String>,
    /// Level of all scopes, or SCOPE:LEVEL,… of some: trace, debug, info, warning, error, off
    #[arg(long, conflicts_with = "reset")]
    level: Option<String>,
    /// Set all scopes back to info
    #[arg(long)]
    reset: bool,
    /// Only the control plane's revision of this name
    #[arg(short, long)]
    revision: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

impl AdminArgs {
    /// How the report is shown.
    #[must_use]
    pub const fn output(&self) -> OutputArgs {
        let What::Log(args) = &self.what;
        args.output
    }
}

/// Asks, or tells, the replicas.
///
/// # Errors
/// When there are none, or one refuses a level.
pub fn run(context: &Context, args: &AdminArgs) -> Result<Report, CliError> {
    let What::Log(args) = &args.what;
    let (method, path) = request(args.level.as_deref(), args.reset);
    let answers = context.block_on(async {
        let kube = context.kube().await?;
        let mut replicas = control::replicas(&kube, args.revision.as_deref()).await?;
        if let Some(pod) = &args.pod {
            replicas.retain(|replica| replica.pod == *pod);
        }
        if replicas.is_empty() {
            return Err(
                CliError::user("there is no such pod of the control plane").hint("meshctl proxy-status names them")
            );
        }
        let mut answers = Vec::new();
        for replica in replicas {
            let answer = replica.monitoring().ask(&kube, method.clone(), &path, Bytes::new()).await?;
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            if !answer.status.is_success() {
                return Err(CliError::user(format!("{replica} refuses: {}", said.trim())));
            }
            answers.push((replica, said));
        }
        Ok(answers)
    })?;
    Ok(report(&answers))
}

fn request(level: Option<&str>, reset: bool) -> (Method, String) {
    let wanted = if reset { Some("info") } else { level };
    let Some(level) = wanted else { return (Method::GET, "/logging".to_owned()) };
    // A scope is a path of modules: the last colon parts it from its level.
    let (pairs, bare): (Vec<&str>, Vec<&str>) = level.split(',').partition(|part| part.contains(':'));
    let bare = bare.last().map(|level| format!("level={level}"));
    let pairs = (!pairs.is_empty()).then(|| format!("paths={}", pairs.join(",")));
    (Method::POST, format!("/logging?{}", bare.into_iter().chain(pairs).collect::<Vec<_>>().join("&")))
}

fn report(answers: &[(Replica, String)]) -> Report {
    let mut table = Table { padding: 3, ..Table::new(&["POD", "ACTIVE SCOPE", "LOG LEVEL"]) };
    let mut data = BTreeMap::new();
    for (replica, page) in answers {
        let lines = page.lines().filter(|line| line.starts_with(' '));
        let levels: BTreeMap<&str, &str> = lines.filter_map(|line| line.trim().rsplit_once(": ")).collect();
        for (scope, level) in &levels {
            table.row([replica.pod.clone(), (*scope).to_owned(), (*level).to_owned()]);
        }
        data.insert(replica.pod.clone(), json!(levels));
    }
    Report { table, data: json!(data), ..Report::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_asked_for_by_scope_or_for_all() {
        assert_eq!(request(None, false), (Method::GET, "/logging".to_owned()));
        assert_eq!(request(None, true), (Method::POST, "/logging?level=info".to_owned()));
        let some = request(Some("warning,meshd::push:debug"), false);
        assert_eq!(some, (Method::POST, "/logging?level=warning&paths=meshd::push:debug".to_owned()));
    }

    #[test]
    fn each_replica_has_its_rows() {
        let replica = Replica { pod: "a".to_owned(), namespace: "n".to_owned(), revision: "r".to_owned(), ready: true };
        let rows =
            report(&[(replica, "active loggers:\n  default: info\n  meshd::push: debug\n".to_owned())]).table.rows;
        assert_eq!(rows, [["a", "default", "info"], ["a", "meshd::push", "debug"]]);
    }
}
