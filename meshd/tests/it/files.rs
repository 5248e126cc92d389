//! The folder as people and machines change it.

use std::fs;
use std::os::unix::fs::symlink;

use mesh_api_xds::type_url::TypeUrl;
use meshd::app::App;

use crate::bed::{Bed, Link, Proxy, node, service, stop};

async fn connected(bed: &Bed) -> (App, Proxy) {
    let app = bed.start().await;
    let mut proxy = Proxy::new(&node("web-1", "shop", [10, 0, 0, 1]));
    proxy.connect(&Link::Plain(app.addresses().grpc.unwrap()), None).await.unwrap();
    proxy.commit().await.unwrap();
    (app, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_written_in_place_is_never_seen_half() {
    let bed = Bed::with_shop();
    let (app, mut proxy) = connected(&bed).await;
    let path = bed.folder().join("reviews.yaml");
    for last in 2..6 {
        // Truncated first, then written.
        fs::write(&path, service("reviews", &format!("10.0.1.{last}"))).unwrap();
        let commit = proxy.commit().await.unwrap();
        let endpoints = (TypeUrl::Endpoint, "outbound|80||reviews.shop.svc.cluster.local".into());
        assert_eq!(commit.upserts, [endpoints]);
        assert!(commit.removals.is_empty());
    }
    drop(proxy);
    stop(app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_folder_with_files_is_read() {
    let bed = Bed::with_shop();
    let (app, mut proxy) = connected(&bed).await;
    let folder = bed.folder().join("team/stock");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("stock.yaml"), service("stock", "10.0.3.1")).unwrap();
    proxy.commit().await.unwrap();
    assert!(proxy.names(TypeUrl::Cluster).contains(&"outbound|80||stock.shop.svc.cluster.local"));
    drop(proxy);
    stop(app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_config_map_changes_as_a_whole() {
    let bed = Bed::new();
    let root = bed.folder();
    let generation = |number: u8| {
        let folder = root.join(format!("..{number}"));
        fs::create_dir(&folder).unwrap();
        for name in ["reviews", "stock"] {
            let text = service(name, &format!("10.0.{}.{number}", name.len()));
            fs::write(folder.join(format!("{name}.yaml")), text).unwrap();
        }
        symlink(format!("..{number}"), root.join("..new")).unwrap();
        fs::rename(root.join("..new"), root.join("..data")).unwrap();
    };
    generation(1);
    for name in ["reviews.yaml", "stock.yaml"] {
        symlink(format!("..data/{name}"), root.join(name)).unwrap();
    }
    let (app, mut proxy) = connected(&bed).await;
    generation(2);
    let commit = proxy.commit().await.unwrap();
    let names: Vec<_> = commit.upserts.iter().map(|(type_url, name)| (*type_url, name.as_str())).collect();
    let endpoints = |name| (TypeUrl::Endpoint, name);
    assert_eq!(
        names,
        [
            endpoints("outbound|80||reviews.shop.svc.cluster.local"),
            endpoints("outbound|80||stock.shop.svc.cluster.local")
        ]
    );
    assert_eq!(commit.changes.len(), 1, "one swap is one change");
    drop(proxy);
    stop(app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_folder_within_the_configuration_is_no_configuration() {
    let bed = Bed::with_shop();
    let mut config = bed.config();
    config.state_dir = bed.folder().join("state");
    let start =
        async || App::start(config.clone(), &mut mesh_api_rt::listen::ListenerTable::new(), None).await.unwrap();
    stop(start().await).await;
    let app = start().await;
    let page = crate::bed::get_json(app.addresses().monitoring, "/debug/findings").await;
    assert_eq!(page["findings"], serde_json::json!([]));
    stop(app).await;
}
