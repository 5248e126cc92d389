//! What a change costs in a mesh of some size, in exact counts.

use mesh_api_xds::type_url::TypeUrl;

use crate::bed::{Bed, Link, Proxy, get, node, service, soon, stop};

const SERVICES: usize = 200;
const PROXIES: u8 = 20;

/// Value of a metric without labels, or with exactly these.
fn value(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.trim().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_endpoint_change_is_one_resource_to_each_proxy() {
    let bed = Bed::new();
    for number in 0..SERVICES {
        let (high, low) = (number / 250, number % 250 + 1);
        let text = service(&format!("s{number}"), &format!("10.1.{high}.{low}"));
        bed.write(&format!("{number}.yaml"), &text.replace("10.96.0.", &format!("10.96.{high}.{low}0")));
    }
    let app = bed.start().await;
    let (grpc, monitoring) = (app.addresses().grpc.unwrap(), app.addresses().monitoring);
    let mut proxies = Vec::new();
    for number in 1..=PROXIES {
        let mut proxy = Proxy::new(&node(&format!("p-{number}"), "shop", [10, 0, 0, number]));
        proxy.connect(&Link::Plain(grpc), None).await.unwrap();
        proxies.push(proxy);
    }
    for proxy in &mut proxies {
        proxy.commit().await.unwrap();
    }
    let before = get(monitoring, "/metrics").await.1;
    let text = service("s7", "10.2.0.1").replace("10.96.0.", "10.96.0.80");
    bed.write("7.yaml", &text);
    for proxy in &mut proxies {
        let commit = proxy.commit().await.unwrap();
        assert_eq!(commit.upserts, [(TypeUrl::Endpoint, "outbound|80||s7.shop.svc.cluster.local".into())]);
    }
    let after = soon("every acknowledgement", async {
        loop {
            let after = get(monitoring, "/metrics").await.1;
            if value(&after, "pilot_proxy_convergence_time_count") == u64::from(PROXIES) {
                return after;
            }
        }
    })
    .await;
    let grew = |name: &str| value(&after, name) - value(&before, name);
    assert_eq!(grew("meshd_translations_total"), u64::from(PROXIES));
    assert_eq!(grew("meshd_xds_resources_sent_total{type=\"eds\"}"), u64::from(PROXIES));
    for other in ["cds", "lds", "rds", "vhds"] {
        assert_eq!(grew(&format!("meshd_xds_resources_sent_total{{type=\"{other}\"}}")), 0, "{other}");
    }
    drop(proxies);
    stop(app).await;
}
