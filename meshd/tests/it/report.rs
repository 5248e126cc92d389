//! What a user can see: readiness, status, findings, and errors of the start.

use mesh_api_rt::listen::ListenerTable;
use meshd::app::App;

use crate::bed::{Bed, Link, Proxy, get, get_json, node, route, soon, stop};

#[tokio::test(flavor = "multi_thread")]
async fn a_change_can_be_followed_to_every_proxy() {
    let bed = Bed::with_shop();
    let app = bed.start().await;
    let monitoring = app.addresses().monitoring;
    assert_eq!(get(monitoring, "/ready").await, (200, "ready\n".to_owned()));
    let mut proxies =
        [Proxy::new(&node("web-1", "shop", [10, 0, 0, 1])), Proxy::new(&node("web-2", "shop", [10, 0, 0, 2]))];
    for proxy in &mut proxies {
        proxy.connect(&Link::Plain(app.addresses().grpc.unwrap()), None).await.unwrap();
        proxy.commit().await.unwrap();
    }
    bed.write("route.yaml", &route("reviews", "3s"));
    let mut changes = Vec::new();
    for proxy in &mut proxies {
        changes.extend(proxy.commit().await.unwrap().changes);
    }
    assert_eq!(changes[0], changes[1], "one edit is one change");
    let page = soon("both answers", async {
        loop {
            let page = get_json(monitoring, "/debug/syncz").await;
            let done = page["changes"].as_array().unwrap().iter().any(|change| {
                change["id"] == changes[0].as_str() && change["confirmed"] == 2 && change["done"] == true
            });
            if done {
                return page;
            }
        }
    })
    .await;
    let change = page["changes"].as_array().unwrap().last().unwrap();
    assert_eq!(change["objects"], serde_json::json!(["VirtualService/shop/reviews"]));
    assert!(change["tookMs"].as_f64().unwrap() > 0.0);
    assert_eq!(page["convergence"]["count"], 2);
    for proxy in page["proxies"].as_array().unwrap() {
        for (type_url, status) in proxy["types"].as_object().unwrap() {
            let expect =
                if ["SDS", "NDS"].contains(&type_url.as_str()) { ["SYNCED", "NOT SENT"] } else { ["SYNCED", "SYNCED"] };
            assert!(expect.contains(&status["status"].as_str().unwrap()), "{type_url}: {status}");
        }
    }
    let one = get_json(monitoring, "/debug/syncz?proxyID=web-2.shop").await;
    assert_eq!(one["proxies"].as_array().unwrap().len(), 1);
    let dump = get(monitoring, "/debug/config_dump?proxyID=web-1.shop").await.1;
    assert!(dump.contains("virtualInbound") && !dump.contains("\"error\""), "{dump}");
    assert!(get(monitoring, "/debug/edsz?proxyID=web-1.shop").await.1.contains("10.0.1.1"));
    assert!(get(monitoring, "/debug/endpointz").await.1.contains("10.0.1.1:8080"));
    assert!(get(monitoring, "/debug/configz").await.1.contains("\"VirtualService\""));
    assert!(get(monitoring, "/version").await.1.contains("meshd"));
    let metrics = get(monitoring, "/metrics").await.1;
    for name in ["pilot_xds{version=\"unknown\"} 2", "pilot_proxy_convergence_time_count 2", "pilot_services 2"] {
        assert!(metrics.contains(name), "{name}\n{metrics}");
    }
    drop(proxies);
    stop(app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_what_and_why() {
    let start = async |config| {
        let error = App::start(config, &mut ListenerTable::new(), None).await.unwrap_err();
        format!("{error:#}")
    };
    let bed = Bed::with_shop();
    let mut config = bed.config();
    config.config_dir = Some(bed.state().join("nowhere"));
    let said = start(config).await;
    assert!(said.contains("nowhere (--config-dir)") && said.contains("No such file"), "{said}");

    let app = bed.start().await;
    let said = start(bed.config()).await;
    assert!(said.contains("--state-dir") && said.contains("stop the other process"), "{said}");
    let other = Bed::with_shop();
    let mut config = other.config();
    config.monitoring = app.addresses().monitoring;
    let said = start(config).await;
    assert!(said.contains("--monitoring-addr") && said.contains("is in use"), "{said}");
    stop(app).await;

    let mut config = other.config();
    config.trust_domain = Some("example.org".parse().unwrap());
    let said = start(config).await;
    assert!(said.contains("trustDomain: example.org"), "{said}");
}
