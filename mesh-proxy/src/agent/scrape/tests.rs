//! Against applications on ports that the kernel chose.

use std::net::{SocketAddr, TcpListener};

use mesh_api_rt::admin::{AdminServer, Router};

use super::*;

fn app(content_type: &'static str, body: &'static str) -> (AdminServer, u16) {
    let router = Router::new().get("/metrics", "", move |request| {
        assert_eq!(request.header("user-agent"), Some("Prometheus/3"));
        Response::new(StatusCode::OK, content_type, body)
    });
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    (AdminServer::start("app", vec![(socket, router)]).unwrap(), port)
}

fn mk_merged(several: &str, local_only: bool) -> Merged {
    let mut metrics = Metrics::new();
    let counters: ScrapeMetrics = metrics.register().unwrap();
    let targets = Targets::parse(None, Some(several), 15020).unwrap();
    Merged::new(metrics.share(), counters, targets, local_only)
}

async fn scrape(merged: &Merged) -> (StatusCode, String, String) {
    scrape_from(merged, [127, 0, 0, 1]).await
}

async fn scrape_from(merged: &Merged, peer: [u8; 4]) -> (StatusCode, String, String) {
    let request = http::Request::get("/stats/prometheus").header("user-agent", "Prometheus/3");
    let (head, ()) = request.body(()).unwrap().into_parts();
    let answer = merged.answer(&Request::new(head, Bytes::new(), SocketAddr::from((peer, 4000)))).await;
    let content_type = answer.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
    (answer.status(), content_type, String::from_utf8(answer.body().to_vec()).unwrap())
}

#[tokio::test]
async fn the_application_follows_the_proxy_and_failures_are_counted() {
    let (_first, first) = app("text/plain; version=0.0.4", "app_one 1");
    let (_second, second) = app("text/plain", "app_two 2\n");
    let merged = mk_merged(&format!("{first}:/metrics,{first}:/nothing,{second}"), false);
    let (status, content_type, text) = scrape(&merged).await;
    assert_eq!((status, content_type.as_str()), (StatusCode::OK, Format::Prometheus.content_type()));
    assert!(text.starts_with("# HELP istio_agent_scrape"), "{text}");
    assert!(text.ends_with("app_one 1\napp_two 2\n"), "{text}");
    assert!(text.contains("istio_agent_scrapes_total 1\n"), "{text}");
    assert!(text.contains("istio_agent_scrape_failures_total{type=\"application\"} 1\n"), "{text}");
}

#[tokio::test]
async fn the_format_follows_an_application_that_speaks_openmetrics() {
    let (_open, open) =
        app("application/openmetrics-text; version=1.0.0", "# TYPE a counter\na_total 1 # {t=\"1\"} 1\n# EOF\n");
    let (_plain, plain) = app("text/plain", "# TYPE b_total counter\nb_total 2\n");
    let (_, content_type, text) = scrape(&mk_merged(&format!("{plain},{open}"), false)).await;
    assert_eq!(content_type, Format::OpenMetrics.content_type());
    assert!(
        text.contains("# TYPE istio_agent_scrapes counter\n") && text.contains("istio_agent_scrapes_total 1\n"),
        "{text}"
    );
    assert!(
        text.ends_with("# TYPE b counter\nb_total 2\n# TYPE a counter\na_total 1 # {t=\"1\"} 1\n# EOF\n"),
        "{text}"
    );
}

#[tokio::test]
async fn metrics_may_be_for_this_host_only() {
    let merged = mk_merged("", true);
    assert_eq!(scrape_from(&merged, [10, 0, 0, 9]).await.0, StatusCode::FORBIDDEN);
    assert_eq!(scrape(&merged).await.0, StatusCode::OK);
}

#[test]
fn places_are_read_and_the_proxys_ports_refused() {
    let one = |text| Targets::parse(Some(text), None, 16020);
    let place = |port, path: &str| Ok(Targets(vec![Target { port, path: path.to_owned() }]));
    assert_eq!(one("{}"), place(80, "/metrics"));
    assert_eq!(one(r#"{"scrape":"true","path":"stats","port":"8080"}"#), place(8080, "/stats"));
    assert_eq!(one(r#"{"scrape":"false","port":"8080"}"#), Ok(Targets::default()));
    assert_eq!(one(r#"{"port":"15020"}"#), Err(TargetError::Reserved(15020)));
    assert_eq!(one(r#"{"port":"16020"}"#), Err(TargetError::Reserved(16020)));
    assert_eq!(one(r#"{"port":"http"}"#), Err(TargetError::Port("http".to_owned())));
    assert!(matches!(one("scrape"), Err(TargetError::Json(_))));
    assert_eq!(Targets::parse(None, None, 15020), Ok(Targets::default()));
    let many = (1000..1017).map(|port| port.to_string()).collect::<Vec<_>>().join(",");
    assert_eq!(Targets::parse(None, Some(&many), 15020), Err(TargetError::TooMany));
}

#[test]
fn the_application_gets_less_time_than_the_scrape() {
    let check = |text: &'static str, expect| {
        let headers = [(TIMEOUT_HEADER, http::HeaderValue::from_static(text))].into_iter().collect();
        assert_eq!(limit(&headers), expect, "{text}");
    };
    check("10", Duration::from_millis(9500));
    check("0.1", RESERVE);
    check("1e9", MOST_TIMEOUT - RESERVE);
    check("-1", DEFAULT_TIMEOUT);
    check("soon", DEFAULT_TIMEOUT);
}
