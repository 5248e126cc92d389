//! Discovery: what a proxy is sent, when, and when not.

use mesh_api_xds::type_url::TypeUrl;

use crate::bed::{Bed, Link, Proxy, get, get_json, node, route, service, soon, stop};

async fn connected(bed: &Bed) -> (meshd::app::App, Proxy) {
    let app = bed.start().await;
    let mut proxy = Proxy::new(&node("web-1", "shop", [10, 0, 0, 1]));
    proxy.connect(&Link::Plain(app.addresses().grpc.unwrap()), None).await.unwrap();
    (app, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_gets_its_world_and_then_only_what_an_edit_changes() {
    let bed = Bed::with_shop();
    let (app, mut proxy) = connected(&bed).await;
    proxy.commit().await.unwrap();
    let clusters = proxy.names(TypeUrl::Cluster);
    assert!(clusters.contains(&"outbound|80||reviews.shop.svc.cluster.local"), "{clusters:?}");
    assert!(clusters.contains(&"inbound|8080||"), "{clusters:?}");
    assert!(proxy.names(TypeUrl::Listener).contains(&"virtualOutbound"));
    assert!(proxy.names(TypeUrl::RouteConfiguration).contains(&"80"));
    let hosts = proxy.names(TypeUrl::VirtualHost);
    assert!(hosts.iter().any(|name| name.contains("reviews.shop")), "{hosts:?}");
    let before = proxy.generation;

    // An endpoint: one endpoint set, nothing else.
    bed.write("reviews.yaml", &service("reviews", "10.0.1.2"));
    let commit = proxy.commit().await.unwrap();
    let endpoints = "outbound|80||reviews.shop.svc.cluster.local".into();
    assert_eq!(commit.upserts, [(TypeUrl::Endpoint, endpoints)]);
    assert!(commit.removals.is_empty() && proxy.generation > before);
    assert_eq!(commit.changes.len(), 1);

    // A route: one virtual host.
    bed.write("route.yaml", &route("reviews", "3s"));
    let commit = proxy.commit().await.unwrap();
    let [(TypeUrl::VirtualHost, host)] = commit.upserts.as_slice() else { panic!("{commit:?}") };
    assert!(host.contains("reviews.shop"), "{host}");

    // And gone again.
    bed.remove("route.yaml");
    let commit = proxy.commit().await.unwrap();
    let names: Vec<_> = commit.upserts.iter().map(|(type_url, name)| (*type_url, name.as_str())).collect();
    assert_eq!(names, [(TypeUrl::VirtualHost, host.as_str())]);
    drop(proxy);
    stop(app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_nothing_is_sent_that_is_held() {
    let bed = Bed::with_shop();
    let (app, mut proxy) = connected(&bed).await;
    proxy.commit().await.unwrap();
    let (held, generation) = (proxy.held.clone(), proxy.generation);
    proxy.disconnect();
    stop(app).await;
    bed.write("reviews.yaml", &service("reviews", "10.0.1.9"));
    let app = bed.start().await;
    proxy.connect(&Link::Plain(app.addresses().grpc.unwrap()), None).await.unwrap();
    let commit = proxy.commit().await.unwrap();
    let endpoints = "outbound|80||reviews.shop.svc.cluster.local".into();
    assert_eq!(commit.upserts, [(TypeUrl::Endpoint, endpoints)], "only what changed meanwhile");
    assert!(commit.removals.is_empty());
    assert_eq!(held.len(), proxy.held.len());
    assert!(proxy.generation > generation, "generations grow over restarts");
    drop(proxy);
    stop(app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_is_reported_and_everything_stays() {
    let bed = Bed::with_shop();
    bed.write("route.yaml", &route("reviews", "3s"));
    let (app, mut proxy) = connected(&bed).await;
    proxy.commit().await.unwrap();
    let (held, monitoring) = (proxy.held.clone(), app.addresses().monitoring);
    bed.write("route.yaml", &route("reviews", "[soon"));
    // A change beside it comes through, and with it proof that the broken file was seen before.
    bed.write("z.yaml", &service("stock", "10.0.2.1"));
    proxy.commit().await.unwrap();
    let mut kept = proxy.held.clone();
    kept.retain(|key, _| held.contains_key(key));
    let routes = |held: &std::collections::BTreeMap<(TypeUrl, mesh_api::text::Str), bytes::Bytes>| -> Vec<_> {
        held.iter()
            .filter(|((type_url, name), _)| *type_url == TypeUrl::VirtualHost && name.contains("reviews"))
            .map(|(_, bytes)| bytes.clone())
            .collect()
    };
    assert_eq!(routes(&kept), routes(&held));
    let findings = get(monitoring, "/debug/findings").await.1;
    assert!(findings.contains("route.yaml:") && findings.contains("last good version stays"), "{findings}");

    // Also after a restart.
    proxy.disconnect();
    stop(app).await;
    let app = bed.start().await;
    proxy.connect(&Link::Plain(app.addresses().grpc.unwrap()), None).await.unwrap();
    let commit = proxy.commit().await.unwrap();
    assert!(commit.upserts.is_empty() && commit.removals.is_empty(), "{commit:?}");
    drop(proxy);
    stop(app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_is_told_and_the_next_version_repairs_it() {
    let bed = Bed::with_shop();
    bed.write("route.yaml", &route("reviews", "3s"));
    let (app, mut proxy) = connected(&bed).await;
    proxy.commit().await.unwrap();
    let host = proxy.names(TypeUrl::VirtualHost).into_iter().find(|name| name.contains("reviews")).unwrap();
    proxy.refuses = Some(host.into());
    bed.write("route.yaml", &route("reviews", "4s"));
    proxy.commit().await.unwrap();
    let monitoring = app.addresses().monitoring;
    let status = |page: serde_json::Value| page["proxies"][0]["types"]["VHDS"].clone();
    let vhds = soon("the rejection", async {
        loop {
            let vhds = status(get_json(monitoring, "/debug/syncz").await);
            if vhds["status"] == "ERROR" {
                return vhds;
            }
        }
    })
    .await;
    assert_eq!(vhds["error"]["reason"], "a resource was refused");
    assert_eq!(vhds["error"]["resources"][0]["reason"], "not today");
    let metrics = get(monitoring, "/metrics").await.1;
    assert!(metrics.contains("pilot_xds_rds_reject 1") && metrics.contains("pilot_total_xds_rejects{type=\"vhds\"} 1"));
    proxy.refuses = None;
    bed.write("route.yaml", &route("reviews", "5s"));
    proxy.commit().await.unwrap();
    soon("the repair", async { while status(get_json(monitoring, "/debug/syncz").await)["status"] != "SYNCED" {} })
        .await;
    assert!(get(monitoring, "/metrics").await.1.contains("pilot_xds_rds_reject 0"));
    drop(proxy);
    stop(app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_another_namespace_is_spared_what_it_cannot_see() {
    let bed = Bed::with_shop();
    let (app, mut near) = connected(&bed).await;
    let mut far = Proxy::new(&node("far-1", "bank", [10, 9, 0, 1]));
    far.connect(&Link::Plain(app.addresses().grpc.unwrap()), None).await.unwrap();
    near.commit().await.unwrap();
    far.commit().await.unwrap();
    let private = service("reviews", "10.0.1.1").replacen(
        "namespace: shop}",
        "namespace: shop, annotations: {networking.istio.io/exportTo: \".\"}}",
        1,
    );
    bed.write("reviews.yaml", &private);
    near.commit().await.ok();
    let gone = far.commit().await.unwrap();
    assert!(gone.removals.iter().any(|(_, name)| name.contains("reviews")), "{gone:?}");
    // From now on its endpoints are nobody's business there.
    bed.write("reviews.yaml", &private.replace("10.0.1.1", "10.0.1.7"));
    near.commit().await.unwrap();
    assert!(get(app.addresses().monitoring, "/metrics").await.1.contains("meshd_push_spared_total 1"));
    drop((near, far));
    stop(app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_tells_proxies_to_go_elsewhere() {
    let bed = Bed::with_shop();
    let (app, mut proxy) = connected(&bed).await;
    proxy.commit().await.unwrap();
    stop(app).await;
    let status = proxy.commit().await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
}
