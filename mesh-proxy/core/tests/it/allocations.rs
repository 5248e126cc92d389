//! A warm connection allocates nothing per request (performance.md section 5).

use std::time::{Duration, UNIX_EPOCH};

use mesh_proxy_core::h1::body::{Body, Event};
use mesh_proxy_core::h1::encode::{self, Connection};
use mesh_proxy_core::h1::head::{Asked, parse_request, parse_response};
use mesh_proxy_core::h1::hop::{self, KeepUpgrade};
use mesh_proxy_core::h1::limits::Limits;
use mesh_proxy_core::h1::{Framing, Scan};
use mesh_proxy_core::head::Head;
use mesh_proxy_core::head::known::KnownName;
use mesh_proxy_core::log_format::{AccessRecord, DEFAULT_JSON, DEFAULT_TEXT, LogFormat};

use crate::counting::allocations;

const REQUEST: &[u8] = b"POST /productpage?u=normal HTTP/1.1\r\nHost: Shop.Example:8080\r\nUser-Agent: curl/8.5.0\r\n\
    Accept: */*\r\nConnection: keep-alive, x-private\r\nX-Private: 1\r\nX-Forwarded-For: 10.0.0.1\r\nTE: gzip, trailers\r\n\
    Cookie: session=0123456789abcdef\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
    b\r\n{\"a\": true}\r\n0\r\nX-Checksum: 1\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";

/// What the data path keeps per worker or connection.
#[derive(Default)]
struct Warm {
    request: Head,
    response: Head,
    trailers: Head,
    out: Vec<u8>,
}

/// One exchange: both heads and bodies read, edited as a sidecar edits them, and written.
fn exchange(warm: &mut Warm, limits: &Limits) {
    let Warm { request, response, trailers, out } = warm;
    out.clear();
    let parsed = parse_request(REQUEST, &mut Scan::default(), limits, request).unwrap().unwrap();
    hop::strip(request, KeepUpgrade::No).unwrap();
    request.set(KnownName::XRequestId, b"5f0c1b2e-0000-4000-8000-000000000000").unwrap();
    request.append_to_list(KnownName::XForwardedFor, b"10.0.0.2").unwrap();
    request.set(KnownName::XForwardedProto, b"http").unwrap();
    request.set_target(b"/rewritten?u=normal").unwrap();
    assert_eq!(request.host_lower(), b"shop.example:8080");
    encode::request(request, parsed.framing, Connection::Persist, out);
    let mut body = Body::new(parsed.framing);
    let mut at = parsed.consumed;
    loop {
        let rest = &REQUEST[at..];
        let (consumed, event) = body.next(rest, limits, trailers).unwrap();
        at += consumed;
        match event {
            Event::Data(range) => encode::chunk(&rest[range], out),
            Event::End => break,
            Event::NeedMore => panic!("the request is complete"),
        }
    }
    encode::last_chunk(Some(trailers), out);
    assert_eq!(at, REQUEST.len());

    let asked = Asked { method: request.method(), switch: parsed.switch };
    let parsed = parse_response(RESPONSE, &mut Scan::default(), limits, asked, response).unwrap().unwrap();
    assert_eq!(parsed.framing, Framing::Length(5));
    hop::strip(response, KeepUpgrade::No).unwrap();
    response.set(KnownName::XEnvoyUpstreamServiceTime, b"3").unwrap();
    response.set(KnownName::Server, b"istio-envoy").unwrap();
    encode::response(response, parsed.framing, Connection::Persist, out);
    out.extend_from_slice(&RESPONSE[parsed.consumed..]);
}

#[test]
fn a_thousand_warm_exchanges_allocate_nothing() {
    let (mut warm, limits) = (Warm::default(), Limits::default());
    let cold = allocations(|| exchange(&mut warm, &limits));
    assert!(cold > 0, "the counter is not wired");
    let expect = warm.out.clone();
    let count = allocations(|| (0..1000).for_each(|_| exchange(&mut warm, &limits)));
    assert_eq!(count, 0);
    assert_eq!(warm.out, expect);
}

/// The access log is written on the worker, so a line costs no allocation either.
#[test]
fn a_warm_log_line_allocates_nothing() {
    let (mut warm, limits, mut line) = (Warm::default(), Limits::default(), Vec::new());
    exchange(&mut warm, &limits);
    let record = AccessRecord {
        request: Some(&warm.request),
        response: Some(&warm.response),
        trailers: Some(&warm.trailers),
        response_code: 200,
        upstream_host: "10.1.0.7:9080".parse().ok(),
        downstream_remote_address: "[fd00::3]:50000".parse().ok(),
        route_name: "caf\u{e9} \u{1}",
        ..AccessRecord::new(UNIX_EPOCH + Duration::from_millis(1_767_323_045_678))
    };
    for format in [LogFormat::text(DEFAULT_TEXT).unwrap(), LogFormat::json(DEFAULT_JSON.iter().copied()).unwrap()] {
        let mut write = || {
            line.clear();
            format.render(&record, &mut line);
        };
        write();
        assert_eq!(allocations(|| (0..1000).for_each(|_| write())), 0);
        assert!(line.ends_with(b"\n"));
    }
}

/// Bytes a connection holds for its heads while a request is under way; they can go back at rest.
#[test]
fn heads_stay_small() {
    let (mut warm, limits) = (Warm::default(), Limits::default());
    exchange(&mut warm, &limits);
    let bytes = warm.request.memory_bytes() + warm.response.memory_bytes() + warm.trailers.memory_bytes();
    assert!(bytes <= 4096, "{bytes}");
    for head in [&mut warm.request, &mut warm.response, &mut warm.trailers] {
        head.clear();
        head.shrink_to(0);
        assert_eq!(head.memory_bytes(), 0);
    }
}
