//! `meshctl proxy-status`: whether proxies hold what was made for them.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use mesh_ca::time::from_unix;
use serde_json::{Value, json};

use crate::cmd::OutputArgs;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::find::{self, WhereArgs};
use crate::live;
use crate::printer::Report;
use crate::table::Table;

/// Which proxies, and how much of them.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:\n  meshctl proxy-status\n  meshctl ps web-1 -v 0\n  meshctl ps -n shop -o json")]
pub struct StatusArgs {
    /// Only the proxy of this name, as name[.namespace]
    pub target: Option<String>,
    /// Only proxies of the control plane's revision of this name
    #[arg(short, long)]
    pub revision: Option<String>,
    /// 0: which types proxies subscribe to; 1: the state of each
    #[arg(short = 'v', long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1))]
    pub verbosity: u8,
    /// Monitoring address of the control plane (default: what --mesh-dir says, else every replica in the cluster)
    #[arg(long, value_name = "ADDRESS")]
    pub meshd: Option<SocketAddr>,
    /// Where the mesh is.
    #[command(flatten)]
    pub place: WhereArgs,
    /// How the states are shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// istioctl's columns, and our types in them: virtual hosts are routes.
const COLUMNS: [(&str, &[&str]); 5] =
    [("CDS", &["CDS"]), ("LDS", &["LDS"]), ("EDS", &["EDS"]), ("RDS", &["RDS", "VHDS"]), ("ECDS", &["ECDS"])];

/// Asks the control plane: every replica of it, for each proxy is connected to one.
///
/// # Errors
/// When it does not answer, or knows no such proxy.
pub fn run(context: &Context, args: &StatusArgs) -> Result<Report, CliError> {
    let revision = args.revision.as_deref();
    let asked = find::control_pages(context, args.meshd, &args.place, revision, "/debug/syncz");
    let (pages, silent) = context.block_on(asked)?;
    let mut answers = Vec::new();
    for (replica, page) in pages {
        let name = replica.map(|replica| replica.pod);
        let page: Value = serde_json::from_slice(&page).map_err(|error| {
            let of = name.as_deref().unwrap_or("the control plane");
            CliError::user(format!("/debug/syncz of {of} is no JSON")).because(&error)
        })?;
        answers.push((name, page));
    }
    let mut report = report(&answers, args, context.kube.namespace.as_deref(), SystemTime::now())?;
    if !silent.is_empty() {
        report.exit = Exit::Internal;
        report.notes.extend(silent);
    }
    Ok(report)
}

fn report(
    answers: &[(Option<String>, Value)],
    args: &StatusArgs,
    within: Option<&str>,
    now: SystemTime,
) -> Result<Report, CliError> {
    let mut controls = Vec::new();
    let mut proxies = Vec::new();
    for (replica, page) in answers {
        let mut control = page.get("controlPlane").cloned().unwrap_or_else(|| json!({ "name": "istiod" }));
        let istiod = replica.clone().unwrap_or_else(|| text(&control, "name"));
        set(&mut control, "pod", replica.clone().map_or(Value::Null, Value::String));
        controls.push(control);
        let theirs = page.as_array().map(|all| all.iter().map(of_istiod).collect());
        let known = theirs.or_else(|| page.get("proxies").and_then(Value::as_array).cloned());
        for mut proxy in known.unwrap_or_default().into_iter().filter(|proxy| is_wanted(proxy, args, within)) {
            set(&mut proxy, "istiod", Value::String(istiod.clone()));
            proxies.push(proxy);
        }
    }
    proxies.sort_by_cached_key(|proxy| (text(proxy, "proxy"), text(proxy, "connectedAt")));
    if let Some(target) = &args.target
        && proxies.is_empty()
    {
        return Err(
            CliError::user(format!("no proxy {target} is connected")).hint("meshctl proxy-status lists all that are")
        );
    }
    let table = if args.verbosity == 0 { short(&proxies) } else { long(&proxies, now) };
    let mut notes = if answers.len() > 1 { vec![sum(&proxies, answers.len())] } else { Vec::new() };
    let passed_by = proxies.iter().filter(|proxy| live::is_captured(proxy) == Some(false));
    notes.extend(passed_by.map(|proxy| format!("WARNING: {}: {}", text(proxy, "proxy"), live::NOT_CAPTURED)));
    notes.extend(controls.iter().flat_map(certificates));
    let control = controls.first().cloned().unwrap_or_default();
    let data = json!({ "controlPlane": control, "controlPlanes": controls, "proxies": proxies });
    Ok(Report { table, data, notes, ..Report::default() })
}

/// What a control plane says of its certificates that end soon.
fn certificates(control: &Value) -> Vec<String> {
    let all = control.get("certificates").and_then(Value::as_array).into_iter().flatten();
    let near = all.filter(|certificate| !matches!(text(certificate, "state").as_str(), "" | "fine"));
    let who = Some(text(control, "pod")).filter(|pod| !pod.is_empty()).unwrap_or_else(|| text(control, "name"));
    near.map(|certificate| {
        let (what, end) = (text(certificate, "what"), text(certificate, "notAfter"));
        let word = if text(certificate, "state") == "expired" { "expired" } else { "expires" };
        format!("WARNING: {who}: the {what} certificate of the mesh {word} at {end}")
    })
    .collect()
}

/// What all replicas together say.
fn sum(proxies: &[Value], replicas: usize) -> String {
    let is = |proxy: &&Value, wanted: &[&str]| {
        let types = proxy.get("types").and_then(Value::as_object);
        types.into_iter().flatten().any(|(_, kind)| wanted.contains(&text(kind, "status").as_str()))
    };
    let rejecting = proxies.iter().filter(|proxy| is(proxy, &["ERROR", "NACKED"])).count();
    let waiting = proxies.iter().filter(|proxy| is(proxy, &["STALE"])).count();
    format!("{} proxies at {replicas} replicas: {waiting} wait, {rejecting} reject", proxies.len())
}

fn set(value: &mut Value, field: &str, content: Value) {
    if let (Some(fields), false) = (value.as_object_mut(), content.is_null()) {
        fields.insert(field.to_owned(), content);
    }
}

/// A proxy as Istio's control plane lists it (istio/istio: pilot/pkg/xds/debug.go, `SyncStatus`), in our form.
fn of_istiod(status: &Value) -> Value {
    let kinds =
        [("CDS", "cluster"), ("LDS", "listener"), ("RDS", "route"), ("EDS", "endpoint"), ("ECDS", "extensionconfig")];
    let types: serde_json::Map<String, Value> = kinds
        .iter()
        .map(|(kind, field)| {
            let (sent, acked) = (text(status, &format!("{field}_sent")), text(status, &format!("{field}_acked")));
            let state = match (sent.is_empty(), sent == acked) {
                (true, _) => "NOT SENT",
                (false, true) => "SYNCED",
                (false, false) => "STALE",
            };
            ((*kind).to_owned(), json!({ "status": state }))
        })
        .collect();
    let proxy = text(status, "proxy");
    let (name, namespace) = proxy.rsplit_once('.').unwrap_or((&proxy, ""));
    let version = [text(status, "istio_version"), text(status, "proxy_version")];
    json!({
        "proxy": proxy, "name": name, "namespace": namespace, "clusterId": text(status, "cluster_id"),
        "version": version.into_iter().find(|version| !version.is_empty()), "types": types,
    })
}

fn is_wanted(proxy: &Value, args: &StatusArgs, within: Option<&str>) -> bool {
    let (full, name, namespace) = (text(proxy, "proxy"), text(proxy, "name"), text(proxy, "namespace"));
    let named = args.target.as_deref().is_none_or(|target| {
        let target = target.strip_prefix("pod/").unwrap_or(target);
        target == full || target == name
    });
    named && within.is_none_or(|wanted| wanted == namespace)
}

fn short(proxies: &[Value]) -> Table {
    let mut table = Table::new(&["NAME", "CLUSTER", "ISTIOD", "VERSION", "SUBSCRIBED TYPES"]);
    for proxy in proxies {
        let types: Vec<&str> = COLUMNS
            .iter()
            .filter(|(_, keys)| keys.iter().any(|key| proxy.pointer(&format!("/types/{key}")).is_some()))
            .map(|(column, _)| *column)
            .collect();
        table.row([
            text(proxy, "proxy"),
            text(proxy, "clusterId"),
            text(proxy, "istiod"),
            text(proxy, "version"),
            format!("{} ({})", types.len(), types.join(",")),
        ]);
    }
    table
}

fn long(proxies: &[Value], now: SystemTime) -> Table {
    let mut table = Table::new(&["NAME", "CLUSTER", "CDS", "LDS", "EDS", "RDS", "ECDS", "ISTIOD", "VERSION"]);
    for proxy in proxies {
        let [cds, lds, eds, rds, ecds] = COLUMNS.map(|(_, keys)| state(proxy, keys, now));
        table.row([
            text(proxy, "proxy"),
            text(proxy, "clusterId"),
            cds,
            lds,
            eds,
            rds,
            ecds,
            text(proxy, "istiod"),
            text(proxy, "version"),
        ]);
    }
    table
}

/// The worst state of some types, and since when: `SYNCED (5m)`.
fn state(proxy: &Value, keys: &[&str], now: SystemTime) -> String {
    let rank = |status: &str| match status {
        "ERROR" | "NACKED" => 3,
        "STALE" => 2,
        "SYNCED" => 1,
        _ => 0,
    };
    let types = keys.iter().filter_map(|key| proxy.pointer(&format!("/types/{key}")));
    let Some(worst) = types.max_by_key(|kind| rank(&text(kind, "status"))) else { return "IGNORED".to_owned() };
    let status = text(worst, "status");
    let moment = match status.as_str() {
        "SYNCED" => "/acked/at",
        _ => "/sent/at",
    };
    match worst.pointer(moment).and_then(Value::as_str).and_then(seconds_of) {
        Some(at) => format!("{status} ({})", age(now.duration_since(at).unwrap_or_default())),
        None => status,
    }
}

/// The moment that RFC 3339 text in UTC with whole seconds names, as the control plane writes it.
fn seconds_of(text: &str) -> Option<SystemTime> {
    let part = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (part(0..4)?, part(5..7)?, part(8..10)?);
    let (hour, minute, second) = (part(11..13)?, part(14..16)?, part(17..19)?);
    // Days since 1970 of the proleptic Gregorian calendar, the year beginning in March.
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let days = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let days = days + (month * 153 + 2) / 5 + day - 1 - 719_468;
    Some(from_unix(days * 86_400 + hour * 3600 + minute * 60 + second))
}

/// As kubectl writes ages: `7s`, `5m`, `3h`, `2d`.
fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(target: Option<&str>, verbosity: u8) -> StatusArgs {
        StatusArgs {
            target: target.map(str::to_owned),
            verbosity,
            revision: None,
            meshd: None,
            place: WhereArgs::default(),
            output: OutputArgs::default(),
        }
    }

    fn page() -> Vec<(Option<String>, Value)> {
        let state = |status: &str| json!({ "status": status, "sent": { "at": "2026-11-21T12:47:41Z" }, "acked": { "at": "2026-11-21T12:47:41Z" } });
        let page = json!({ "controlPlane": { "name": "meshd" }, "proxies": [
            { "proxy": "web-1.shop", "name": "web-1", "namespace": "shop", "clusterId": "Kubernetes", "version": "0.1.0",
              "types": { "CDS": state("SYNCED"), "RDS": state("SYNCED"), "VHDS": state("STALE") } },
            { "proxy": "gate-1.edge", "name": "gate-1", "namespace": "edge", "clusterId": "Kubernetes", "version": "0.1.0",
              "types": {} },
        ] });
        vec![(None, page)]
    }

    #[test]
    fn moments_are_read_and_ages_short() {
        let at = seconds_of("2026-11-21T12:47:41Z").unwrap();
        assert_eq!(at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(), 1_795_265_261);
        assert_eq!(seconds_of("1970-01-01T00:00:00Z"), Some(SystemTime::UNIX_EPOCH));
        assert_eq!(seconds_of("soon"), None);
        assert_eq!(age(Duration::from_secs(300)), "5m");
    }

    #[test]
    fn the_worst_state_of_routes_is_shown() {
        let now = seconds_of("2026-11-21T12:48:00Z").unwrap();
        let report = report(&page(), &args(None, 1), None, now).unwrap();
        assert_eq!(report.table.rows[1][2..7], ["SYNCED (19s)", "IGNORED", "IGNORED", "STALE (19s)", "IGNORED"]);
        assert_eq!(report.table.rows[0][0], "gate-1.edge");
    }

    #[test]
    fn replicas_are_summed_and_istiods_own_are_read() {
        let mut answers = page();
        answers[0].0 = Some("istiod-a".to_owned());
        let theirs = json!([{ "cluster_id": "Kubernetes", "proxy": "old-1.shop", "istio_version": "1.31.0",
            "cluster_sent": "n1", "cluster_acked": "n1", "listener_sent": "n2", "listener_acked": "n1" }]);
        answers.push((Some("istiod-b".to_owned()), theirs));
        let report = report(&answers, &args(None, 1), Some("shop"), SystemTime::UNIX_EPOCH).unwrap();
        let rows = &report.table.rows;
        assert_eq!(rows[0][..4], ["old-1.shop", "Kubernetes", "SYNCED", "STALE"]);
        assert_eq!([&rows[0][7], &rows[0][8], &rows[1][7]], ["istiod-b", "1.31.0", "istiod-a"]);
        assert_eq!(report.notes, ["2 proxies at 2 replicas: 2 wait, 0 reject"]);
    }

    #[test]
    fn a_proxy_that_traffic_passes_by_is_warned_of() {
        let mut answers = page();
        answers[0].1["proxies"][0]["captured"] = json!(false);
        answers[0].1["proxies"][1]["captured"] = json!(true);
        let certificate = |what, state| json!({ "what": what, "notAfter": "2026-12-01T00:00:00Z", "state": state });
        answers[0].1["controlPlane"]["certificates"] =
            json!([certificate("root", "fine"), certificate("issuer", "urgent")]);
        let report = report(&answers, &args(None, 1), None, SystemTime::UNIX_EPOCH).unwrap();
        let certificate =
            "WARNING: meshd: the issuer certificate of the mesh expires at 2026-12-01T00:00:00Z".to_owned();
        assert_eq!(report.notes, [format!("WARNING: web-1.shop: {}", live::NOT_CAPTURED), certificate]);
    }

    #[test]
    fn one_proxy_can_be_asked_for() {
        let now = SystemTime::UNIX_EPOCH;
        let one = report(&page(), &args(Some("web-1"), 0), None, now).unwrap();
        assert_eq!(one.table.rows, [["web-1.shop", "Kubernetes", "meshd", "0.1.0", "2 (CDS,RDS)"]]);
        assert!(report(&page(), &args(Some("nobody"), 0), None, now).is_err());
    }
}
