//! The shop's real binary: services on loopback, driven by its own clients.
#![expect(clippy::unwrap_used, reason = "tests")]

mod shop;

use serde_json::{Value, json};
use shop::{Service, client};

#[test]
fn the_page_shows_what_all_services_say() {
    let ratings = Service::start("ratings", &[]);
    let reviews = Service::start("reviews", &["--version", "v3", "--ratings", &ratings.url("ratings")]);
    let catalogue = Service::start("catalogue", &["--instance", "shelf"]);
    let web =
        Service::start("web", &["--catalogue", &catalogue.url("catalogue"), "--reviews", &reviews.url("reviews")]);
    let report = client(&["http", "--url", &web.url("web"), "--show", "--group-by", "x-reviews-version"]);
    assert_eq!((&report["by_status"], &report["by_group"]), (&json!({ "200": 1 }), &json!({ "v3": 1 })), "{report}");
    let body = &report["last"]["body"];
    assert_eq!((&body["service"], &body["version"]), (&json!("web"), &json!("v1")));
    assert_eq!(body["catalogue"]["instance"], "shelf");
    let stars = &body["reviews"]["body"]["ratings"];
    assert_eq!((&stars["colour"], &stars["from"]["service"]), (&json!("red"), &json!("ratings")));
}

#[test]
fn a_missing_upstream_is_an_error_on_the_page_and_stars_are_not() {
    let gone = { Service::start("ratings", &[]).url("ratings") };
    let reviews = Service::start("reviews", &["--version", "v2", "--ratings", &gone]);
    let web = Service::start("web", &["--catalogue", &gone, "--reviews", &reviews.url("reviews")]);
    let report = client(&["http", "--url", &web.url("web"), "--show"]);
    assert_eq!(report["by_status"], json!({ "502": 1 }));
    let body = &report["last"]["body"];
    assert!(body["catalogue"]["error"].as_str().unwrap().starts_with("refused"), "{body}");
    assert_eq!(body["reviews"]["status"], 200);
    assert!(body["reviews"]["body"]["ratings"]["error"].is_string());
    let alone = client(&["http", "--url", &format!("http://web/api/reviews@{}", web.address)]);
    assert_eq!(alone["by_status"], json!({ "200": 1 }));
}

#[test]
fn tracing_headers_reach_the_last_service_and_the_host_names_the_service() {
    let echo = Service::start("catalogue", &[]);
    let web = Service::start("web", &["--catalogue", &echo.url("catalogue"), "--reviews", &echo.url("reviews")]);
    // The pass-through keeps the rest of the path, so `/products/../echo` is not normalised away on the way.
    let url = format!("http://shop.example/echo@{}", echo.address);
    let report = client(&["http", "--url", &url, "--show", "-H", "traceparent: 00-1-2-01", "-H", "Host: other"]);
    let headers = report["last"]["body"]["headers"].to_string();
    assert!(headers.contains(r#"["host","other"]"#) && headers.contains(r#"["traceparent","00-1-2-01"]"#), "{headers}");
    let page = client(&["http", "--url", &web.url("web")]);
    assert_eq!(page["failed"], 1, "{page}");
}

#[test]
fn failures_and_delays_are_as_asked() {
    let failing = Service::start("ratings", &["--fail-rate", "1", "--fail-status", "500"]);
    let url = format!("http://ratings/ratings/0@{}", failing.address);
    let report = client(&["http", "--url", &url, "-n", "20", "-c", "4"]);
    assert_eq!((&report["by_status"], &report["failed"]), (&json!({ "500": 20 }), &json!(20)));
    let healthy = client(&["http", "--url", &format!("http://ratings/healthz@{}", failing.address)]);
    assert_eq!(healthy["by_status"], json!({ "200": 1 }), "probes are not failed");
    let slow = Service::start("ratings", &["--delay", "150ms"]);
    let report = client(&["http", "--url", &format!("http://ratings/ratings/0@{}", slow.address)]);
    assert!(report["latency_ms"]["p50"].as_f64().unwrap() >= 150.0, "{report}");
    let late = format!("http://ratings/ratings/0@{}", slow.address);
    let report = client(&["http", "--url", &late, "--timeout", "20ms"]);
    assert_eq!(report["errors"], json!({ "timeout": 1 }));
}

#[test]
fn grpc_in_all_three_ways() {
    let orders = Service::start("orders", &["--version", "v7", "--instance", "desk"]);
    for method in ["unary", "stream", "bidi"] {
        let url = orders.url("orders");
        let report = client(&["grpc", "--url", &url, "--method", method, "-n", "50", "-c", "8", "--connections", "2"]);
        assert_eq!((&report["by_status"], &report["failed"]), (&json!({ "OK": 50 }), &json!(0)), "{method}: {report}");
        assert_eq!((&report["by_group"], &report["by_instance"]), (&json!({ "v7": 50 }), &json!({ "desk": 50 })));
    }
    let healthy = client(&["http", "--url", &format!("http://orders/healthz@{}", orders.address)]);
    assert_eq!(healthy["by_status"], json!({ "200": 1 }));
    let failing = Service::start("orders", &["--fail-rate", "1"]);
    let report = client(&["grpc", "--url", &failing.url("orders")]);
    assert_eq!(report["by_status"], json!({ "UNAVAILABLE": 1 }));
}

#[test]
fn the_page_places_orders() {
    let orders = Service::start("orders", &["--instance", "desk"]);
    let nobody = orders.url("nobody");
    let web = Service::start("web", &["--catalogue", &nobody, "--reviews", &nobody, "--orders", &orders.url("orders")]);
    let url = format!("http://web/api/orders@{}", web.address);
    let report = client(&["http", "--url", &url, "-n", "2", "--show", "--group-by", "x-orders-instance"]);
    assert_eq!(report["by_group"], json!({ "desk": 2 }), "{report}");
    assert_eq!(report["last"]["body"]["order"], "desk-2");
}

#[test]
fn lines_are_echoed_with_and_without_a_banner() {
    for flags in [&[][..], &["--banner"]] {
        let echo = Service::start("tcp-echo", flags);
        let args = [&["tcp", "--addr", &echo.address, "-n", "40", "-c", "4", "--bytes", "300"], flags].concat();
        let report = client(&args);
        assert_eq!(
            (&report["by_status"], &report["by_group"]),
            (&json!({ "echo": 40 }), &json!({ "v1": 40 })),
            "{report}"
        );
    }
}

#[test]
fn messages_are_echoed_between_ticks() {
    let feed = Service::start("feed", &["--interval", "5ms", "--version", "v2"]);
    let url = format!("http://feed/feed@{}", feed.address);
    let report = client(&["ws", "--url", &url, "-n", "200", "-c", "2"]);
    assert_eq!(
        (&report["by_status"], &report["by_group"]),
        (&json!({ "echo": 200 }), &json!({ "v2": 200 })),
        "{report}"
    );
    let plain = client(&["http", "--url", &url]);
    assert_eq!(plain["by_status"], json!({ "426": 1 }));
}

#[test]
fn a_proxy_gets_the_whole_url() {
    let proxy = Service::start("catalogue", &[]);
    let report = client(&["http", "--url", "http://reviews:9080/echo", "--http-proxy", &proxy.address, "--show"]);
    assert_eq!(report["last"]["body"]["uri"], "http://reviews:9080/echo", "{report}");
}

#[test]
fn nobody_there_is_told_apart_from_an_answer() {
    let gone = { Service::start("ratings", &[]).url("ratings") };
    let report = client(&["http", "--url", &gone, "-n", "3"]);
    assert_eq!((&report["errors"], &report["by_status"]), (&json!({ "refused": 3 }), &json!({})));
    let orders = client(&["grpc", "--url", &gone]);
    assert_eq!(orders["by_status"], json!({ "UNAVAILABLE": 1 }));
}

#[test]
fn requests_in_flight_end_after_the_order_to_stop() {
    let ratings = Service::start("ratings", &[]);
    let url = format!("http://ratings/delay/1500@{}", ratings.address);
    let load = shop::start_client(&["http", "--url", &url, "-n", "4", "-c", "4"]);
    ratings.wait_for_requests(4);
    let code = ratings.stop();
    let report: Value = shop::finish(load);
    assert_eq!((code, &report["by_status"]), (Some(0), &json!({ "200": 4 })), "{report}");
}

#[test]
fn an_open_feed_is_closed_politely_when_told_to_stop() {
    let feed = Service::start("feed", &["--interval", "10ms", "--drain", "5s"]);
    let url = format!("http://feed/feed@{}", feed.address);
    let load = shop::start_client(&["ws", "--url", &url, "-n", "0", "--rate", "1", "--duration", "30s"]);
    feed.wait_for_connections(1);
    let start = tokio::time::Instant::now();
    assert_eq!(feed.stop(), Some(0));
    assert!(start.elapsed().as_secs() < 5, "it waited for a conversation that nobody had ended");
    shop::interrupt(&load);
    assert!(shop::finish(load)["requests"].as_u64().unwrap() >= 1);
}
