use super::*;

#[test]
fn tracing_headers_travel_on_and_others_do_not() {
    let mut headers = HeaderMap::new();
    for name in ["traceparent", "x-b3-traceid", "end-user", "authorization", "x-forwarded-for"] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static("a"));
    }
    headers.append("cookie", HeaderValue::from_static("b"));
    headers.append("cookie", HeaderValue::from_static("c"));
    let onward = passed_on(&headers);
    let mut names: Vec<&str> = onward.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["cookie", "end-user", "traceparent", "x-b3-traceid"]);
    assert_eq!(onward.get_all("cookie").iter().count(), 2);
}

#[test]
fn header_flags_are_split_at_the_first_colon() {
    let parsed = headers(&["x-a: 1:2".to_owned(), "Host:b".to_owned()]).unwrap();
    assert_eq!((parsed["x-a"].as_bytes(), parsed["host"].as_bytes()), (&b"1:2"[..], &b"b"[..]));
    assert!(headers(&["nothing".to_owned()]).is_err());
    assert!(headers(&["bad name: x".to_owned()]).is_err());
}

fn upstream(proxy: Option<SocketAddr>) -> Upstream {
    Upstream::new("http://reviews:9080/own@127.0.0.1:1".parse().unwrap(), proxy, true, Duration::from_secs(1))
}

#[test]
fn requests_name_the_host_and_only_the_path() {
    let request = upstream(None).request(Method::GET, None, &HeaderMap::new(), Bytes::new()).unwrap();
    assert_eq!(
        (request.uri().to_string().as_str(), &request.headers()[HOST]),
        ("/own", &HeaderValue::from_static("reviews:9080"))
    );
    let given = headers(&["Host: other".to_owned()]).unwrap();
    let request = upstream(None).request(Method::GET, Some("/a?b"), &given, Bytes::new()).unwrap();
    assert_eq!((request.uri().to_string().as_str(), request.headers().get_all(HOST).iter().count()), ("/a?b", 1));
    assert_eq!(request.headers()[HOST], "other");
}

#[test]
fn a_proxy_gets_the_whole_url() {
    let proxy = Some("127.0.0.1:15080".parse().unwrap());
    let request = upstream(proxy).request(Method::GET, Some("/a"), &HeaderMap::new(), Bytes::new()).unwrap();
    assert_eq!(request.uri().to_string(), "http://reviews:9080/a");
}
