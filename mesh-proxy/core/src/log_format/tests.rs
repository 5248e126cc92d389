use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::*;
use crate::flags::ResponseFlag;

fn mk_request() -> Head {
    let mut head = Head::request();
    for (name, value) in [
        (":method", "GET"),
        (":path", "/rewritten?b=1"),
        (":authority", "reviews:9080"),
        ("x-envoy-original-path", "/reviews/0?b=1"),
        ("user-agent", "curl/8 \"quoted\\\""),
        ("x-request-id", "5f0c"),
    ] {
        head.set(name, value.as_bytes()).unwrap();
    }
    head
}

fn mk_response() -> Head {
    let mut head = Head::response();
    head.set_status(200).unwrap();
    head.append("x-envoy-upstream-service-time", b"7").unwrap();
    head
}

fn mk_record<'a>(request: &'a Head, response: &'a Head) -> AccessRecord<'a> {
    AccessRecord {
        request: Some(request),
        response: Some(response),
        protocol: Some(Version::Http11),
        response_code: 200,
        response_code_details: "via_upstream",
        bytes_received: 0,
        bytes_sent: 375,
        duration: Duration::from_micros(8_900),
        upstream_host: "10.1.0.7:9080".parse().ok(),
        upstream_cluster_raw: "outbound|9080||reviews.default.svc.cluster.local",
        upstream_local_address: "10.1.0.3:45678".parse().ok(),
        downstream_local_address: "10.96.0.9:9080".parse().ok(),
        downstream_remote_address: "[fd00::3]:50000".parse().ok(),
        route_name: "default",
        ..AccessRecord::new(UNIX_EPOCH + Duration::from_millis(1_767_323_045_678))
    }
}

fn render(format: &LogFormat, record: &AccessRecord<'_>) -> String {
    let mut out = Vec::new();
    format.render(record, &mut out);
    String::from_utf8(out).unwrap()
}

#[track_caller]
fn check(format: &str, record: &AccessRecord<'_>, expect: &str) {
    assert_eq!(render(&LogFormat::text(format).unwrap(), record), expect, "{format}");
}

#[test]
fn istios_text_format() {
    let (request, response) = (mk_request(), mk_response());
    let format = LogFormat::text(DEFAULT_TEXT).unwrap();
    assert_eq!(
        render(&format, &mk_record(&request, &response)),
        "[2026-01-02T03:04:05.678Z] \"GET /reviews/0?b=1 HTTP/1.1\" 200 - via_upstream - \"-\" 0 375 8 7 \"-\" \
         \"curl/8 \"quoted\\\"\" \"5f0c\" \"reviews:9080\" \"10.1.0.7:9080\" \
         outbound|9080||reviews.default.svc.cluster.local 10.1.0.3:45678 10.96.0.9:9080 [fd00::3]:50000 - default\n"
    );
    let tcp = AccessRecord {
        flags: ResponseFlag::UpstreamConnectFailure.into(),
        connection_termination_details: "rbac_access_denied",
        upstream_transport_failure_reason: "TLS error:\nbad\x1b[31m",
        requested_server_name: "outbound_.9000_._.db",
        ..AccessRecord::new(UNIX_EPOCH)
    };
    assert_eq!(
        render(&format, &tcp),
        "[1970-01-01T00:00:00.000Z] \"- - -\" 0 UF - rbac_access_denied \"TLS error:\\x0abad\\x1b[31m\" 0 0 0 - \"-\" \
         \"-\" \"-\" \"-\" \"-\" - - - - outbound_.9000_._.db -\n"
    );
}

#[test]
fn istios_json_format() {
    let (request, response) = (mk_request(), mk_response());
    let format = LogFormat::json(DEFAULT_JSON.iter().copied()).unwrap();
    assert_eq!(
        render(&format, &mk_record(&request, &response)),
        "{\"start_time\":\"2026-01-02T03:04:05.678Z\",\"route_name\":\"default\",\"method\":\"GET\",\
         \"path\":\"/reviews/0?b=1\",\"protocol\":\"HTTP/1.1\",\"response_code\":200,\"response_flags\":\"-\",\
         \"response_code_details\":\"via_upstream\",\"connection_termination_details\":null,\"bytes_received\":0,\
         \"bytes_sent\":375,\"duration\":8,\"upstream_service_time\":\"7\",\"x_forwarded_for\":null,\
         \"user_agent\":\"curl/8 \\\"quoted\\\\\\\"\",\"request_id\":\"5f0c\",\"authority\":\"reviews:9080\",\
         \"upstream_host\":\"10.1.0.7:9080\",\
         \"upstream_cluster\":\"outbound|9080||reviews.default.svc.cluster.local\",\
         \"upstream_local_address\":\"10.1.0.3:45678\",\"downstream_local_address\":\"10.96.0.9:9080\",\
         \"downstream_remote_address\":\"[fd00::3]:50000\",\"requested_server_name\":null,\
         \"upstream_transport_failure_reason\":null}\n"
    );
    let mixed =
        LogFormat::json([("a\"b", "x \"%ROUTE_NAME%\" %UPSTREAM_HOST% %RESPONSE_CODE%"), ("n", "%DURATION%")]).unwrap();
    assert_eq!(
        render(&mixed, &AccessRecord { route_name: "q\"", ..AccessRecord::new(UNIX_EPOCH) }),
        "{\"a\\\"b\":\"x \\\"q\\\"\\\" - 0\",\"n\":0}\n"
    );
    assert_eq!(render(&LogFormat::json([]).unwrap(), &AccessRecord::new(UNIX_EPOCH)), "{}\n");
}

#[test]
fn commands_take_arguments_and_lengths() {
    let (request, mut response) = (mk_request(), mk_response());
    response.append("grpc-status", b"14").unwrap();
    let mut trailers = Head::trailers();
    trailers.append("grpc-status", b"5").unwrap();
    trailers.append("x-sum", b"abc").unwrap();
    let record = AccessRecord {
        trailers: Some(&trailers),
        response_duration: Some(Duration::from_millis(3)),
        code: Some(Code(3001)),
        flags: Flags::from(ResponseFlag::UpstreamConnectFailure).with(ResponseFlag::RetriesExhausted),
        ..mk_record(&request, &response)
    };
    check("%REQ(:PATH):4% %REQ(Missing?USER-AGENT):6%", &record, "/rew curl/8");
    check("%REQ_WITHOUT_QUERY(X-ENVOY-ORIGINAL-PATH?:PATH)%", &record, "/reviews/0");
    check("%RESP(:STATUS)% %TRAILER(X-SUM)% %REQ(nothing)%", &record, "200 abc -");
    check("%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)%", &record, "NotFound NOT_FOUND 5");
    check("%GRPC_STATUS_NUMBER%", &AccessRecord { trailers: None, ..record }, "14");
    check("%START_TIME(%s.%3f)% %START_TIME(%Y/%m)%", &record, "1767323045.678 2026/01");
    check("%START_TIME(%F (%T)):12%", &record, "2026-01-02 (");
    check(
        "%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%",
        &record,
        "UF,URX UpstreamConnectionFailure,UpstreamRetryLimitExceeded",
    );
    check("%RESPONSE_DURATION% %RESPONSE_TX_DURATION% %REQUEST_DURATION%", &record, "3 5 -");
    check("%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_REMOTE_PORT%", &record, "10.1.0.7 9080");
    check("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_REMOTE_PORT%", &record, "fd00::3 50000");
    check("100%% %MESH_CODE% %PROTOCOL%", &record, "100% LTN-3001 HTTP/1.1");
    check("", &record, "");
}

#[test]
fn mistakes_are_named_with_their_place() {
    let check = |format: &str, problem: Problem, position| {
        let error = LogFormat::text(format).unwrap_err();
        assert_eq!(error, FormatError { problem, position, key: None }, "{format}");
    };
    check("a %FOO% b", Problem::Unknown("FOO".into()), 2);
    check("é%CEL(request.path)%", Problem::Unknown("CEL".into()), 2);
    check("%DURATION%%%%Duration%", Problem::Unknown("Duration".into()), 12);
    check("%DURATION", Problem::Unterminated, 0);
    check("100%", Problem::Unterminated, 3);
    check("%REQ(a", Problem::Unterminated, 0);
    check("%REQ%", Problem::Argument("REQ".into()), 0);
    check("%REQ()%", Problem::Argument("REQ".into()), 0);
    check("%REQ(a b)%", Problem::Argument("REQ".into()), 0);
    check("%REQ(a?)%", Problem::Argument("REQ".into()), 0);
    check("%DURATION(x)%", Problem::Argument("DURATION".into()), 0);
    check("%START_TIME(%Q)%", Problem::Argument("START_TIME".into()), 0);
    check("%GRPC_STATUS(X)%", Problem::Argument("GRPC_STATUS".into()), 0);
    check("%REQ(a):b%", Problem::Unterminated, 0);
    check("%DURATION:b%", Problem::Length("DURATION".into()), 0);
    check(&"x".repeat(MAX_FORMAT_BYTES + 1), Problem::TooLong, MAX_FORMAT_BYTES);
    let error = LogFormat::json([("ok", "%DURATION%"), ("path", "-%NOPE%")]).unwrap_err();
    assert_eq!(error.to_string(), "unknown command %NOPE% at byte 1 of \"path\"");
}

#[test]
fn the_configurations_formats_compile() {
    let text = IrFormat::Text(DEFAULT_TEXT.into());
    let json = IrFormat::Json(DEFAULT_JSON.iter().map(|(key, format)| ((*key).into(), (*format).into())).collect());
    let record = AccessRecord::new(UNIX_EPOCH);
    assert!(render(&LogFormat::compile(&text).unwrap(), &record).ends_with(" - -\n"));
    assert!(render(&LogFormat::compile(&json).unwrap(), &record).starts_with("{\"start_time\""));
}

proptest! {
    /// Whatever peers send, a line is one line, and JSON stays JSON.
    #[test]
    fn values_cannot_break_a_line(value in prop::collection::vec(any::<u8>(), 0..60), text in any::<String>()) {
        let mut head = Head::request();
        let _ = head.append("user-agent", &value);
        let record = AccessRecord {
            request: Some(&head),
            route_name: &text,
            upstream_transport_failure_reason: &text,
            ..AccessRecord::new(UNIX_EPOCH)
        };
        let line = render(&LogFormat::text(DEFAULT_TEXT).unwrap(), &record);
        prop_assert!(line.chars().filter(|c| c.is_control()).eq(['\n']));
        let json = render(&LogFormat::json(DEFAULT_JSON.iter().copied()).unwrap(), &record);
        prop_assert!(json.chars().filter(|c| c.is_control()).eq(['\n']));
        let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(parsed["route_name"].as_str().unwrap_or_default(), text.as_str());
    }

    #[test]
    fn formats_never_panic(format in "(%|[A-Z_]{1,4}|REQ|START_TIME|\\(|\\)|:|[0-9]|é|\\?){0,12}") {
        if let Ok(format) = LogFormat::text(&format) {
            render(&format, &AccessRecord::new(UNIX_EPOCH));
        }
    }
}
