//! Log levels of proxies, read and set.

use bytes::Bytes;
use http::Method;
use serde_json::{Map, Value};

use crate::context::Context;
use crate::error::CliError;
use crate::kube::find;
use crate::kube::proxy::PodProxy;
use crate::printer::Report;

/// The level of a proxy that was given none.
const DEFAULT_LEVEL: &str = "warning";

/// Which proxies, and which levels.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct LogArgs {
    /// Name of the proxy, as [kind/]name[.namespace]
    target: Option<String>,
    /// Label selector of the pods instead of a name
    #[arg(short = 'l', long, conflicts_with = "target")]
    selector: Option<String>,
    /// Level of all scopes, or SCOPE:LEVEL,… of some: trace, debug, info, warning, error, off
    #[arg(long, conflicts_with = "reset")]
    level: Option<String>,
    /// Set all scopes back to warning
    #[arg(short, long)]
    reset: bool,
    /// Port of the proxy's admin interface
    #[arg(long = "proxy-admin-port", value_name = "PORT")]
    admin_port: Option<u16>,
    #[command(flatten)]
    pub(super) output: crate::cmd::OutputArgs,
}

pub(super) fn run(context: &Context, args: &LogArgs) -> Result<Report, CliError> {
    let path = path(args);
    let answers = context.block_on(async {
        let kube = context.kube().await?;
        let pods = match (&args.target, &args.selector) {
            (Some(target), _) => vec![find::pod(&kube, target).await?],
            (None, Some(selector)) => find::selected(&kube, Some(&kube.namespace), selector).await?,
            (None, None) => return Err(CliError::user("which proxy?").hint("name a pod, or select some with -l")),
        };
        let mut answers: Vec<(String, Bytes)> = Vec::new();
        for pod in &pods {
            let proxy = PodProxy::of(pod, args.admin_port)?;
            answers.push((proxy.name(), proxy.page(&kube, Method::POST, &path).await?));
        }
        Ok(answers)
    })?;
    if answers.is_empty() {
        return Err(CliError::user("no pod has these labels"));
    }
    let mut text = String::new();
    let mut data = Map::new();
    for (name, page) in answers {
        let page = String::from_utf8_lossy(&page).into_owned();
        text.push_str(&format!("{name}:\n{}\n", page.trim_end()));
        data.insert(name, levels(&page));
    }
    Ok(Report { text, data: Value::Object(data), ..Report::default() })
}

/// Envoy's form: a bare level is that of all scopes, pairs are for some.
fn path(args: &LogArgs) -> String {
    let wanted = if args.reset { Some(DEFAULT_LEVEL) } else { args.level.as_deref() };
    let Some(wanted) = wanted else { return "/logging".to_owned() };
    let (pairs, bare): (Vec<&str>, Vec<&str>) = wanted.split(',').partition(|part| part.contains(':'));
    let bare = bare.last().map(|level| format!("level={level}"));
    let pairs = (!pairs.is_empty()).then(|| format!("paths={}", pairs.join(",")));
    format!("/logging?{}", bare.into_iter().chain(pairs).collect::<Vec<_>>().join("&"))
}

/// The lines `  scope: level`.
fn levels(page: &str) -> Value {
    let pairs = page.lines().filter(|line| line.starts_with(' ')).filter_map(|line| line.trim().rsplit_once(": "));
    Value::Object(pairs.map(|(scope, level)| (scope.to_owned(), Value::String(level.to_owned()))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(level: Option<&str>, reset: bool, expect: &str) {
        let args = LogArgs {
            target: None,
            selector: None,
            level: level.map(str::to_owned),
            reset,
            admin_port: None,
            output: crate::cmd::OutputArgs::default(),
        };
        assert_eq!(path(&args), expect);
    }

    #[test]
    fn levels_are_asked_for_as_envoy_takes_them() {
        check(None, false, "/logging");
        check(Some("debug"), false, "/logging?level=debug");
        check(Some("http:debug,upstream:trace"), false, "/logging?paths=http:debug,upstream:trace");
        check(Some("info,http:debug"), false, "/logging?level=info&paths=http:debug");
        check(None, true, "/logging?level=warning");
        assert_eq!(
            levels("active loggers:\n  default: info\n  a: off\n"),
            serde_json::json!({"default": "info", "a": "off"})
        );
    }
}
