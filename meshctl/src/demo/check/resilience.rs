//! What happens when parts die or input is broken.

use serde_json::Value;
use tokio::time::Instant;

use super::Check;
use super::support::{all_well, ensure, ms, traffic, until};
use crate::demo::plan::INGRESS;
use crate::demo::yaml;
use crate::error::CliError;
use crate::http;

/// The instance that dies.
const VICTIM: &str = "catalogue-2";
/// The cluster it is in, as web's proxy calls it.
const CLUSTER: &str = "outbound|8080||catalogue.shop.svc.cluster.local";

pub(super) async fn killed_instance(check: &mut Check<'_>) -> Result<String, CliError> {
    let victim = check.workload(VICTIM)?;
    let load = traffic(check, "/api/catalogue", 200)?;
    let address = victim.address.to_string();
    served_by(check, VICTIM).await?;
    let retried_before = retries(check).await?;
    let killed = Instant::now();
    check.mesh.kill(VICTIM).await;
    let ejected = until("web's proxy has ejected the dead instance", || is_ejected(check, &address, true)).await;
    let ejected_after = killed.elapsed();
    let retried = retries(check).await? - retried_before;
    // It comes back as a restarted pod would: same name, same address.
    check.mesh.start_proxy(&victim)?;
    check.mesh.start_app(&victim)?;
    check.mesh.wait_for_proxy(VICTIM).await?;
    let back = Instant::now();
    let returned = served_by(check, VICTIM).await;
    let figures = load.stop().await?;
    ejected?;
    returned?;
    all_well(&figures)?;
    ensure(retried >= 1.0, || "web's proxy counted no retry".to_owned())?;
    check.wait_for_sync().await?;
    Ok(format!(
        "ejected after {}, {retried:.0} retries; {} requests, none failed; back in service after {}",
        ms(ejected_after),
        figures.requests,
        ms(back.elapsed())
    ))
}

/// Waits until the ingress sees an answer of this instance of catalogue.
async fn served_by(check: &Check<'_>, instance: &str) -> Result<(), CliError> {
    let ingress = check.mesh.ingress;
    until(&format!("{instance} answers"), || async move {
        let answer = http::ask(ingress, "/api/catalogue", &[]).await;
        let answer = answer.map_err(|error| CliError::user("no answer").because(&error))?;
        Ok(answer.headers.get("x-catalogue-instance").is_some_and(|name| name == instance))
    })
    .await
    .map(drop)
}

async fn is_ejected(check: &Check<'_>, address: &str, expected: bool) -> Result<bool, CliError> {
    let text = check.admin_page("web-1", "/clusters?format=json").await?;
    let page: Value =
        serde_json::from_str(&text).map_err(|error| CliError::user("/clusters is no JSON").because(&error))?;
    let clusters = page.get("cluster_statuses").and_then(Value::as_array);
    let cluster = clusters.and_then(|all| all.iter().find(|cluster| cluster.get("name") == Some(&CLUSTER.into())));
    let hosts = cluster.and_then(|cluster| cluster.get("host_statuses")).and_then(Value::as_array);
    let host = hosts.and_then(|all| {
        all.iter().find(|host| host.pointer("/address/socket_address/address") == Some(&address.into()))
    });
    let failed = host.and_then(|host| host.pointer("/health_status/failed_outlier_check")).and_then(Value::as_bool);
    Ok(host.is_some() && failed.unwrap_or_default() == expected)
}

/// How many retries web's proxy has made.
async fn retries(check: &Check<'_>) -> Result<f64, CliError> {
    let samples = check.metrics("web-1", "mesh_proxy_retries_total").await?;
    Ok(samples.iter().map(|sample| sample.value).sum())
}

pub(super) async fn control_plane(check: &mut Check<'_>) -> Result<String, CliError> {
    let sent_before = resources_sent(check).await?;
    ensure(sent_before > 0, || "meshd counts no resource as sent".to_owned())?;
    let load = traffic(check, "/", 100)?;
    check.mesh.kill_meshd().await;
    // Traffic goes on without it, and long enough to be noticed.
    let alone = check.serve_more("web-1", 100).await;
    let started = Instant::now();
    check.mesh.start_meshd().await?;
    let synced = check.wait_for_sync().await;
    let took = started.elapsed();
    let resent = resources_sent(check).await?;
    let figures = load.stop().await?;
    alone?;
    synced?;
    all_well(&figures)?;
    ensure(resent == 0, || format!("{resent} resources were sent again to proxies that hold them"))?;
    // The new one does not only listen: a change arrives.
    let moved = super::routing::live_edit(check).await?;
    Ok(format!(
        "all in step {} after the start; {sent_before} resources sent before, none again; {} requests, none failed; then {moved}",
        ms(took),
        figures.requests
    ))
}

/// Resources that the present control plane has sent, generation marks left out.
async fn resources_sent(check: &Check<'_>) -> Result<u64, CliError> {
    let page = http::page(check.mesh.monitoring, "/metrics").await;
    let page = page.map_err(|error| CliError::user("meshd's metrics cannot be read").because(&error))?;
    let samples = crate::demo::metrics::parse(&String::from_utf8_lossy(&page), "meshd_xds_resources_sent_total");
    let sent: f64 = samples.iter().map(|sample| sample.value).sum();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are whole and positive")]
    Ok(sent as u64)
}

/// Whose proxies are replaced: the way in, and one that serves and calls.
const REPLACED: [&str; 2] = [INGRESS, "web-1"];

pub(super) async fn successors(check: &mut Check<'_>) -> Result<String, CliError> {
    let load = traffic(check, "/", 200)?;
    check.serve_more("web-1", 50).await?;
    let mut took = Vec::new();
    for name in REPLACED {
        let before = generation(check, name).await?;
        check.mesh.replace_proxy(name);
        let what = format!("the next process of {name}'s proxy serves");
        took.push(ms(until(&what, || async { Ok(generation(check, name).await? == before + 1) }).await?));
    }
    let served = check.serve_more("web-1", 50).await;
    let figures = load.stop().await?;
    served?;
    all_well(&figures)?;
    // The old processes leave the control plane when nothing is to be taken back any more.
    check.wait_for_sync().await?;
    Ok(format!("ready and serving after {}; {} requests, none failed", took.join(" and "), figures.requests))
}

/// How many processes of a workload's proxy came before the one that serves.
async fn generation(check: &Check<'_>, workload: &str) -> Result<u64, CliError> {
    let page = check.admin_page(workload, "/handover").await?;
    let page: Value =
        serde_json::from_str(&page).map_err(|error| CliError::user("/handover is no JSON").because(&error))?;
    let generation = page.get("generation").and_then(Value::as_u64);
    generation.ok_or_else(|| CliError::user("/handover names no generation"))
}

/// Metric series of one proxy that the whole scenario may leave behind. Measured: 561 in the sidecar of web; the budget
/// leaves room for chance, and none for a label without bounds.
const SERIES_BUDGET: usize = 1000;

pub(super) async fn series(check: &Check<'_>) -> Result<String, CliError> {
    let mut counts = Vec::new();
    for name in check.mesh.admin.keys() {
        let page = check.admin_page(name, "/stats/prometheus").await?;
        let series = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
        counts.push((series, name.clone()));
    }
    let sum: usize = counts.iter().map(|(series, _)| series).sum();
    let (most, name) = counts.into_iter().max().unwrap_or_default();
    ensure(most > 0 && most <= SERIES_BUDGET, || format!("{name} has {most} series, more than {SERIES_BUDGET}"))?;
    Ok(format!("{sum} in all, at most {most} ({name}) of {SERIES_BUDGET}"))
}

pub(super) async fn broken_file(check: &mut Check<'_>) -> Result<String, CliError> {
    let load = traffic(check, "/", 100)?;
    check.serve_more("web-1", 20).await?;
    let path = check.mesh.dirs.config().join("broken.yaml");
    let name = "broken.yaml";
    let write = yaml::replace(&path, "apiVersion: v1\nkind: Service\nmetadata: {name: x\n");
    write.map_err(|error| CliError::internal("cannot write a broken file").because(&error))?;
    let reported = until("meshd reports the broken file", || async { Ok(reports(check, name).await?.is_some()) }).await;
    let finding = reports(check, name).await?;
    // The good files still work while the broken one lies there.
    let edited = super::routing::header(check).await;
    drop(std::fs::remove_file(&path));
    let gone = until("the finding goes with the file", || async { Ok(reports(check, name).await?.is_none()) }).await;
    let figures = load.stop().await?;
    let reported = reported?;
    edited?;
    gone?;
    all_well(&figures)?;
    Ok(format!("{} after {}; {} requests, none failed", finding.unwrap_or_default(), ms(reported), figures.requests))
}

/// The first finding about a file.
async fn reports(check: &Check<'_>, file: &str) -> Result<Option<String>, CliError> {
    let page = check.debug_page("/debug/findings").await?;
    let findings = page.get("findings").and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |finding: &Value, field: &str| finding.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let found = findings.iter().find(|finding| text(finding, "origin").contains(file));
    Ok(found
        .map(|finding| format!("{} {} {}", text(finding, "code"), text(finding, "origin"), text(finding, "message"))))
}
