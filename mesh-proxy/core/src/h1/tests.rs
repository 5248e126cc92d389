//! Tables of accepted and refused messages, and properties of the whole machine.

use proptest::prelude::*;

use super::body::{Body, Event};
use super::encode::{self, Connection};
use super::head::{Asked, Request, Response, Stage, Switch, parse_request, parse_response};
use super::limits::{Http10, Limits};
use super::{Framing, H1Error, Scan};
use crate::head::{Head, Method, NameCase, Version};

fn request(input: &[u8], limits: &Limits) -> Result<Option<(Request, Head)>, H1Error> {
    let mut head = Head::request();
    let parsed = parse_request(input, &mut Scan::default(), limits, &mut head)?;
    Ok(parsed.map(|parsed| (parsed, head)))
}

fn response(input: &[u8], asked: Asked) -> Result<Option<(Response, Head)>, H1Error> {
    let mut head = Head::response();
    let parsed = parse_response(input, &mut Scan::default(), &Limits::default(), asked, &mut head)?;
    Ok(parsed.map(|parsed| (parsed, head)))
}

const GET: Asked = Asked { method: Method::Get, switch: Switch::None };

#[track_caller]
fn refuses(input: &str, error: H1Error) {
    assert_eq!(request(input.as_bytes(), &Limits::default()).map(|parsed| parsed.is_some()), Err(error), "{input:?}");
}

#[track_caller]
fn accepts(input: &str) -> (Request, Head) {
    let parsed = request(input.as_bytes(), &Limits::default());
    parsed.unwrap_or_else(|error| panic!("{input:?}: {error}")).unwrap_or_else(|| panic!("{input:?}: incomplete"))
}

/// What tells two readers of the same bytes apart. Each row names the rule and, where it has one, the attack's name.
#[test]
fn smuggling_vectors_are_refused() {
    let host = "POST / HTTP/1.1\r\nhost: a\r\n";
    let rows = [
        // RFC 9112 section 6.3 item 3; CL.TE and TE.CL (CVE-2019-18277 HAProxy, CVE-2019-20372 nginx class).
        ("content-length: 6\r\ntransfer-encoding: chunked\r\n", H1Error::LengthAndEncoding),
        ("transfer-encoding: chunked\r\ncontent-length: 6\r\n", H1Error::LengthAndEncoding),
        ("transfer-encoding: chunked\r\ncontent-length: 0\r\n", H1Error::LengthAndEncoding),
        // Section 6.3 item 5; CL.CL, also when equal.
        ("content-length: 6\r\ncontent-length: 5\r\n", H1Error::DuplicateContentLength),
        ("content-length: 6\r\ncontent-length: 6\r\n", H1Error::DuplicateContentLength),
        ("content-length: 6, 6\r\n", H1Error::ContentLength),
        // Section 6.2: digits only (CVE-2021-39214 class: signs, blanks, other bases, overflow).
        ("content-length: +6\r\n", H1Error::ContentLength),
        ("content-length: -0\r\n", H1Error::ContentLength),
        ("content-length: 0x6\r\n", H1Error::ContentLength),
        ("content-length: 6 6\r\n", H1Error::ContentLength),
        ("content-length: 6.0\r\n", H1Error::ContentLength),
        ("content-length: \r\n", H1Error::ContentLength),
        ("content-length: 1_0\r\n", H1Error::ContentLength),
        ("content-length: 18446744073709551616\r\n", H1Error::ContentLength),
        ("content-length: \u{661}\r\n", H1Error::ContentLength),
        // Section 6.1: chunked is final and alone; TE.TE obfuscation.
        ("transfer-encoding: xchunked\r\n", H1Error::Encoding),
        ("transfer-encoding: chunked, identity\r\n", H1Error::Encoding),
        ("transfer-encoding: identity\r\n", H1Error::Encoding),
        ("transfer-encoding: gzip, chunked\r\n", H1Error::Encoding),
        ("transfer-encoding: chunked, chunked\r\n", H1Error::Encoding),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", H1Error::Encoding),
        ("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", H1Error::Encoding),
        ("transfer-encoding: \"chunked\"\r\n", H1Error::Encoding),
        ("transfer-encoding: chunked;a=b\r\n", H1Error::Encoding),
        ("transfer-encoding:\r\n", H1Error::Encoding),
        ("transfer-encoding:\x0bchunked\r\n", H1Error::FieldValue),
        // Section 5.1: no blank before the colon (CVE-2019-16869 Netty).
        ("transfer-encoding : chunked\r\n", H1Error::SpaceBeforeColon),
        ("transfer-encoding\t: chunked\r\n", H1Error::SpaceBeforeColon),
        // Section 5.2: obsolete folding.
        ("x: a\r\n transfer-encoding: chunked\r\n", H1Error::ObsFold),
        ("transfer-encoding:\r\n chunked\r\n", H1Error::ObsFold),
        ("x: a\r\n\tb\r\n", H1Error::ObsFold),
        // Section 2.2: bare LF and bare CR as line ends (CVE-2021-22959 Node.js class, CVE-2023-30589 class).
        ("x: a\ntransfer-encoding: chunked\r\n", H1Error::LineEnd),
        ("x: a\rtransfer-encoding: chunked\r\n", H1Error::LineEnd),
        ("x: a\r\r\n", H1Error::LineEnd),
        ("x: a\n\r\n", H1Error::LineEnd),
        // Field names and values (CVE-2022-35256 class).
        ("transfer_encoding\0: chunked\r\n", H1Error::FieldName),
        ("x\u{b}: 1\r\n", H1Error::FieldName),
        (": 1\r\n", H1Error::FieldName),
        ("no colon\r\n", H1Error::FieldName),
        ("x(y): 1\r\n", H1Error::FieldName),
        ("x: a\0b\r\n", H1Error::FieldValue),
        ("x: a\u{7f}b\r\n", H1Error::FieldValue),
        // Section 3.2: one valid host.
        ("Host: b\r\n", H1Error::DuplicateHost),
        ("host: a\r\n", H1Error::DuplicateHost),
        // RFC 9110 section 10.1.1.
        ("expect: 200-ok\r\n", H1Error::Expectation),
    ];
    for (fields, error) in rows {
        refuses(&format!("{host}{fields}\r\n"), error);
    }
}

#[test]
fn start_lines_are_strict() {
    for (line, error) in [
        ("GET  / HTTP/1.1\r\n", H1Error::RequestLine),
        (" GET / HTTP/1.1\r\n", H1Error::RequestLine),
        ("GET / a HTTP/1.1\r\n", H1Error::RequestLine),
        ("GET /\tHTTP/1.1\r\n", H1Error::RequestLine),
        ("G(T / HTTP/1.1\r\n", H1Error::RequestLine),
        ("GET / HTTP/1.1 \r\n", H1Error::LineEnd),
        ("GET / HTTP/1.1\n", H1Error::LineEnd),
        ("GET / HTTP/1.1\r", H1Error::LineEnd),
        ("GET / HTTP/2.0\r\n", H1Error::Version),
        ("GET / HTTP/1.2\r\n", H1Error::Version),
        ("GET / HTTP/01.1\r\n", H1Error::Version),
        ("GET /\r\n", H1Error::RequestLine),
        ("GET / http/1.1\r\n", H1Error::RequestLine),
        ("GET / HTTP/1.0\r\n", H1Error::Http10),
        ("\nGET / HTTP/1.1\r\n", H1Error::LineEnd),
        ("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n", H1Error::RequestLine),
    ] {
        refuses(&format!("{line}host: a\r\n\r\n"), error);
    }
    refuses("GET / HTTP/1.1\r\nhost: a\n\n", H1Error::LineEnd);
    refuses("GET / HTTP/1.1\r\nx: y\r\n\r\n", H1Error::MissingHost);
    let (parsed, _) = accepts("\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\nrest");
    assert_eq!(parsed.consumed, "\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n".len());
}

#[test]
fn targets_have_the_form_their_method_allows() {
    let check = |line: &str, scheme: Option<&str>, authority: &str, target: &str| {
        let (_, head) = accepts(&format!("{line} HTTP/1.1\r\nHost: Seen\r\n\r\n"));
        assert_eq!(head.scheme(), scheme.map(str::as_bytes), "{line}");
        assert_eq!(String::from_utf8_lossy(head.authority()), authority, "{line}");
        assert_eq!(String::from_utf8_lossy(head.target()), target, "{line}");
    };
    check("GET /a?b", None, "Seen", "/a?b");
    check("GET //a", None, "Seen", "//a");
    check("GET /a#frag", None, "Seen", "/a");
    check("GET /\u{e9}", None, "Seen", "/\u{e9}");
    check("GET HTTP://Other:81/x?y", Some("http"), "Other:81", "/x?y");
    check("GET https://other", Some("https"), "other", "/");
    check("GET http://other?q=1", Some("http"), "other", "/?q=1");
    check("OPTIONS *", None, "Seen", "*");
    check("OPTIONS http://other", Some("http"), "other", "*");
    check("CONNECT db:5432", None, "db:5432", "");
    for line in [
        "GET *",
        "GET a",
        "GET a/b",
        "GET http:/a",
        "GET http:///a",
        "GET http://u@h/",
        "GET http://a b/",
        "GET http://a,b/",
        "GET ftp://a/",
        "GET #x",
        "CONNECT db",
        "CONNECT /x",
        "CONNECT http://a:80/",
        "CONNECT u@a:1",
        "POST *",
    ] {
        let result = request(format!("{line} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes(), &Limits::default());
        assert!(matches!(result, Err(H1Error::Target | H1Error::RequestLine)), "{line}: {result:?}");
    }
    for host in ["a b", "a,b", "u@a", "a/b", "a:x", "::1"] {
        refuses(&format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"), H1Error::InvalidHost);
    }
    let (_, head) = accepts("GET / HTTP/1.1\r\nHost:\r\n\r\n");
    assert_eq!(head.authority(), b"");
}

#[test]
fn connection_options_decide_persistence_and_switch() {
    let check = |fields: &str, persistent, switch| {
        let (parsed, _) = accepts(&format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n"));
        assert_eq!((parsed.persistent, parsed.switch), (persistent, switch), "{fields:?}");
    };
    check("", true, Switch::None);
    check("connection: keep-alive\r\n", true, Switch::None);
    check("connection: foo, CLOSE\r\n", false, Switch::None);
    check("connection: foo\r\nconnection: close\r\n", false, Switch::None);
    check("connection: Upgrade\r\nupgrade: websocket\r\n", true, Switch::Upgrade);
    check("upgrade: websocket\r\n", true, Switch::None);
    check("connection: upgrade\r\n", true, Switch::None);
    // h2c smuggling: a relayed upgrade would hide requests from the proxy.
    check("connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: x\r\n", true, Switch::None);
    check("connection: upgrade\r\nupgrade: websocket, H2C\r\n", true, Switch::None);

    let (parsed, _) = accepts("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\ncontent-length: 0\r\n\r\n");
    assert_eq!((parsed.switch, parsed.framing), (Switch::Connect, Framing::None));
    refuses("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\ncontent-length: 3\r\n\r\n", H1Error::Target);
    let (parsed, _) = accepts("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-Continue\r\ncontent-length: 3\r\n\r\n");
    assert_eq!((parsed.expect_continue, parsed.framing), (true, Framing::Length(3)));
}

#[test]
fn http10_is_an_option() {
    let limits = Limits { http10: Http10::Accept, ..Limits::default() };
    let check = |text: &str| request(text.as_bytes(), &limits).map(|parsed| parsed.unwrap());
    let (parsed, head) = check("GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!((parsed.persistent, head.version(), head.authority()), (false, Version::Http10, &b""[..]));
    let (parsed, _) = check("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n").unwrap();
    assert!(parsed.persistent);
    let (parsed, _) =
        check("GET / HTTP/1.0\r\nconnection: upgrade\r\nupgrade: x\r\nexpect: 100-continue\r\n\r\n").unwrap();
    assert_eq!((parsed.switch, parsed.expect_continue), (Switch::None, false));
    assert_eq!(check("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n").unwrap_err(), H1Error::EncodingInHttp10);
}

#[test]
fn sizes_are_bounded() {
    let limits = Limits { max_head_bytes: 100, max_fields: 3, ..Limits::default() };
    let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(100));
    assert_eq!(request(long.as_bytes(), &limits).unwrap_err(), H1Error::HeadTooLarge);
    assert_eq!(request(&long.as_bytes()[..101], &limits).unwrap_err(), H1Error::HeadTooLarge);
    let many = "GET / HTTP/1.1\r\nhost: a\r\nb: 1\r\nc: 1\r\nd: 1\r\n\r\n";
    assert_eq!(request(many.as_bytes(), &limits).unwrap_err(), H1Error::TooManyFields);
    let limits = Limits { max_fields: usize::MAX, ..Limits::default() };
    let most = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "b: 1\r\n".repeat(255));
    assert_eq!(request(most.as_bytes(), &limits).unwrap().unwrap().1.len(), 256);
    let more = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "b: 1\r\n".repeat(256));
    assert_eq!(request(more.as_bytes(), &limits).unwrap_err(), H1Error::TooManyFields);
}

/// RFC 9112 section 6.3, row by row.
#[test]
fn response_framing() {
    let ask = |method, switch| Asked { method, switch };
    let check = |text: &str, asked, framing, stage, persistent| {
        let (parsed, _) = response(text.as_bytes(), asked).unwrap().unwrap();
        assert_eq!((parsed.framing, parsed.stage, parsed.persistent), (framing, stage, persistent), "{text:?}");
        assert_eq!(parsed.consumed, text.len());
    };
    let head = ask(Method::Head, Switch::None);
    let connect = ask(Method::Connect, Switch::Connect);
    let upgrade = ask(Method::Get, Switch::Upgrade);
    use Stage::{Final, Interim, Switched};
    check("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", GET, Framing::Length(5), Final, true);
    check("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", GET, Framing::Length(0), Final, true);
    check("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n", GET, Framing::Chunked, Final, true);
    check("HTTP/1.1 200 OK\r\n\r\n", GET, Framing::UntilClose, Final, false);
    check("HTTP/1.1 200\r\n\r\n", GET, Framing::UntilClose, Final, false);
    check("HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\n", GET, Framing::Length(5), Final, false);
    check(
        "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\n",
        GET,
        Framing::Length(5),
        Final,
        true,
    );
    check("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", head, Framing::None, Final, true);
    check("HTTP/1.1 200 OK\r\n\r\n", head, Framing::None, Final, true);
    check("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", GET, Framing::None, Final, true);
    check("HTTP/1.1 204 No Content\r\n\r\n", GET, Framing::None, Final, true);
    check("HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", GET, Framing::None, Final, true);
    check("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", GET, Framing::None, Final, false);
    check("HTTP/1.1 100 Continue\r\n\r\n", GET, Framing::None, Interim, true);
    check("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", GET, Framing::None, Interim, true);
    check("HTTP/1.1 101 Switching\r\nupgrade: websocket\r\n\r\n", upgrade, Framing::None, Switched, false);
    check("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", connect, Framing::None, Switched, false);
    check("HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\n", connect, Framing::Length(2), Final, true);
    check("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", upgrade, Framing::Length(5), Final, true);

    for (text, error) in [
        ("HTTP/1.1 101 Switching\r\n\r\n", H1Error::UnexpectedSwitch),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", H1Error::LengthAndEncoding),
        ("HTTP/1.1 304 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", H1Error::LengthAndEncoding),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n", H1Error::DuplicateContentLength),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", H1Error::Encoding),
        ("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", H1Error::EncodingInHttp10),
        ("HTTP/1.1 099 No\r\n\r\n", H1Error::StatusLine),
        ("HTTP/1.1 20 No\r\n\r\n", H1Error::StatusLine),
        ("HTTP/1.1 200 a\u{1}b\r\n\r\n", H1Error::StatusLine),
        ("HTTP/1.1  200 OK\r\n\r\n", H1Error::StatusLine),
        ("HTTP/2 200 OK\r\n\r\n", H1Error::Version),
        ("ICY 200 OK\r\n\r\n", H1Error::StatusLine),
        ("HTTP/1.1 200 OK\n\n", H1Error::LineEnd),
        ("HTTP/1.1 200 OK\r\nset-cookie : a\r\n\r\n", H1Error::SpaceBeforeColon),
        ("HTTP/1.1 200 OK\r\nx: a\r\n b\r\n\r\n", H1Error::ObsFold),
    ] {
        assert_eq!(response(text.as_bytes(), GET).unwrap_err(), error, "{text:?}");
    }
}

#[test]
fn response_heads_keep_their_words() {
    let text = "HTTP/1.1 404 Nothing Here\r\nserver: X\r\ncontent-length: 0\r\n\r\n";
    let (parsed, head) = response(text.as_bytes(), GET).unwrap().unwrap();
    assert_eq!((head.status(), head.reason(), head.get(":status")), (404, &b"Nothing Here"[..], Some(&b"404"[..])));
    let mut out = Vec::new();
    encode::response(&head, parsed.framing, Connection::Persist, &mut out);
    assert_eq!(String::from_utf8(out).unwrap(), text);
    let (_, head) = response(b"HTTP/1.1 204 \r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", connect())
        .unwrap()
        .unwrap();
    assert!(head.is_empty(), "framing fields of bodiless messages do not survive");
}

fn connect() -> Asked {
    Asked { method: Method::Connect, switch: Switch::Connect }
}

/// All events of a body fed in pieces: payload, trailers, and what is left.
#[derive(Debug, PartialEq)]
struct Read {
    payload: Vec<u8>,
    trailers: Vec<(Vec<u8>, Vec<u8>)>,
    done: bool,
    left: Vec<u8>,
}

fn read_body(pieces: &[&[u8]], framing: Framing, limits: &Limits) -> Result<Read, H1Error> {
    let mut body = Body::new(framing);
    let mut trailers = Head::trailers();
    let (mut held, mut payload) = (Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        while !body.is_done() {
            let (consumed, event) = body.next(&held, limits, &mut trailers)?;
            if let Event::Data(range) = &event {
                assert!(!range.is_empty() && range.end == consumed, "data ends what was consumed");
                payload.extend_from_slice(&held[range.clone()]);
            }
            held.drain(..consumed);
            if event == Event::NeedMore {
                break;
            }
        }
    }
    assert_eq!(body.received(), payload.len() as u64);
    let trailers = trailers.iter().map(|field| (field.name.to_vec(), field.value.to_vec())).collect();
    Ok(Read { payload, trailers, done: body.is_done(), left: held })
}

#[test]
fn bodies_end_where_their_framing_says() {
    let check = |input: &str, framing, payload: &str, done, left: &str| {
        let read = read_body(&[input.as_bytes()], framing, &Limits::default()).unwrap();
        let shown = (String::from_utf8(read.payload).unwrap(), read.done, String::from_utf8(read.left).unwrap());
        assert_eq!(shown, (payload.to_owned(), done, left.to_owned()), "{input:?}");
    };
    check("abcX", Framing::Length(3), "abc", true, "X");
    check("ab", Framing::Length(3), "ab", false, "");
    check("X", Framing::None, "", true, "X");
    check("X", Framing::Length(0), "", true, "X");
    check("all", Framing::UntilClose, "all", false, "");
    check("3\r\nabc\r\n0\r\n\r\nX", Framing::Chunked, "abc", true, "X");
    check("00A\r\n0123456789\r\n1;a=\"b c\";d\r\nx\r\n000\r\n\r\n", Framing::Chunked, "0123456789x", true, "");
    check("1 \t;ext\r\nx\r\n0;last\r\n\r\n", Framing::Chunked, "x", true, "");
    check("1\r\nx\r\n0\r\nA: 1\r\n", Framing::Chunked, "x", false, "A: 1\r\n");
}

#[test]
fn closing_ends_only_bodies_that_may_end_so() {
    for (framing, input, complete) in [
        (Framing::UntilClose, "abc", true),
        (Framing::Length(3), "abc", true),
        (Framing::Length(4), "abc", false),
        (Framing::Chunked, "3\r\nabc\r\n", false),
        (Framing::Chunked, "3\r\nabc\r\n0\r\n", false),
        (Framing::Chunked, "0\r\n\r\n", true),
    ] {
        let mut body = Body::new(framing);
        let mut at = 0;
        loop {
            let (consumed, event) =
                body.next(&input.as_bytes()[at..], &Limits::default(), &mut Head::trailers()).unwrap();
            at += consumed;
            if !matches!(event, Event::Data(_)) {
                break;
            }
        }
        assert_eq!(body.finish().is_ok(), complete, "{framing:?} {input:?}");
    }
}

/// RFC 9112 section 7.1; chunked parsing is where most readers differ (CVE-2022-32213 llhttp, CVE-2025-22871 Go, the
/// TERM.EXT, EXT.TERM, TERM.SPILL and SPILL.TERM families of 2025).
#[test]
fn chunk_vectors_are_refused() {
    let small = Limits { max_extension_bytes: 8, max_trailer_bytes: 32, max_fields: 2, ..Limits::default() };
    for (input, error) in [
        ("\r\nx", H1Error::ChunkSize),
        ("g\r\n", H1Error::ChunkSize),
        ("0x1\r\nx", H1Error::ChunkSize),
        ("+1\r\nx", H1Error::ChunkSize),
        ("-1\r\nx", H1Error::ChunkSize),
        (" 1\r\nx", H1Error::ChunkSize),
        ("1_0\r\nx", H1Error::ChunkSize),
        ("1 \r\nx\r\n", H1Error::ChunkSize),
        ("1 x\r\n", H1Error::ChunkSize),
        ("1,2\r\n", H1Error::ChunkSize),
        ("10000000000000001\r\nx", H1Error::ChunkSize),
        ("0000000000000001\r\nx", H1Error::ChunkSize),
        ("ffffffffffffffffff\r\nx", H1Error::ChunkSize),
        ("1\nx\r\n", H1Error::ChunkSize),
        ("1\rx\r\n", H1Error::LineEnd),
        ("1;a\nx\r\n", H1Error::LineEnd),
        ("1;a\rb\r\n", H1Error::LineEnd),
        ("1;a\0\r\n", H1Error::ChunkExtension),
        ("1;\u{7f}\r\n", H1Error::ChunkExtension),
        ("1;123456789\r\nx\r\n", H1Error::ChunkExtension),
        ("1;123\r\nx\r\n1;1234\r\nx\r\n", H1Error::ChunkExtension),
        ("1\r\nxy\r\n", H1Error::ChunkEnd),
        ("1\r\nx\n0\r\n\r\n", H1Error::ChunkEnd),
        ("1\r\nx\rx", H1Error::ChunkEnd),
        ("1\r\nx0\r\n\r\n", H1Error::ChunkEnd),
        ("0\r\n\n", H1Error::LineEnd),
        ("0\r\na: 1\n\n", H1Error::LineEnd),
        ("0\r\na: 1\r\n\n", H1Error::LineEnd),
        ("0\r\na : 1\r\n\r\n", H1Error::SpaceBeforeColon),
        ("0\r\n a: 1\r\n\r\n", H1Error::ObsFold),
        ("0\r\na: 1\r\n b\r\n\r\n", H1Error::ObsFold),
        ("0\r\na(: 1\r\n\r\n", H1Error::FieldName),
        ("0\r\na: \u{1}\r\n\r\n", H1Error::FieldValue),
        ("0\r\na: 1\r\nb: 2\r\nc: 3\r\n\r\n", H1Error::TooManyFields),
        ("0\r\na: 123456789012345678901234567890\r\n\r\n", H1Error::TrailersTooLarge),
        ("0\r\na: 1234567890123456789012345678901234567890", H1Error::TrailersTooLarge),
        // Trailers that would change framing or routing if somebody merged them (CVE-2023-45648 class).
        ("0\r\ncontent-length: 5\r\n\r\n", H1Error::TrailerField),
        ("0\r\nTransfer-Encoding: x\r\n\r\n", H1Error::TrailerField),
        ("0\r\nhost: evil\r\n\r\n", H1Error::TrailerField),
    ] {
        assert_eq!(read_body(&[input.as_bytes()], Framing::Chunked, &small), Err(error), "{input:?}");
    }
}

#[test]
fn trailers_are_kept_without_connection_fields() {
    let input = "0\r\nGrpc-Status: 0\r\nConnection: x\r\nte: trailers\r\nGrpc-Message: ok \r\n\r\n";
    let read = read_body(&[input.as_bytes()], Framing::Chunked, &Limits::default()).unwrap();
    let names: Vec<_> = read.trailers.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
    assert_eq!(names, [(&b"grpc-status"[..], &b"0"[..]), (b"grpc-message", b"ok")]);
}

#[test]
fn heads_are_written_with_the_framing_asked_for() {
    let (_, mut head) = accepts(
        "POST http://Shop/x?y HTTP/1.1\r\nHost: other\r\nA:1\r\nContent-Length: 3\r\nConnection: close\r\nB:\t2 \r\n\r\n",
    );
    let write = |head: &Head, framing, connection| {
        let mut out = Vec::new();
        encode::request(head, framing, connection, &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        write(&head, Framing::Length(3), Connection::Persist),
        "POST /x?y HTTP/1.1\r\nhost: Shop\r\na: 1\r\ncontent-length: 3\r\nb: 2\r\n\r\n"
    );
    assert_eq!(
        write(&head, Framing::Length(4), Connection::Close),
        "POST /x?y HTTP/1.1\r\nhost: Shop\r\na: 1\r\nb: 2\r\ncontent-length: 4\r\nconnection: close\r\n\r\n"
    );
    assert_eq!(
        write(&head, Framing::UntilClose, Connection::Upgrade),
        "POST /x?y HTTP/1.1\r\nhost: Shop\r\na: 1\r\nb: 2\r\ntransfer-encoding: chunked\r\nconnection: upgrade\r\n\r\n"
    );
    assert!(!write(&head, Framing::None, Connection::Persist).contains("ontent-"));
    head.append("content-length", b"3").unwrap();
    assert_eq!(write(&head, Framing::Length(3), Connection::Persist).matches("ontent-").count(), 1);

    let mut head = Head::request();
    head.set_method(b"CONNECT").unwrap();
    assert_eq!(write(&head, Framing::None, Connection::Persist), "CONNECT  HTTP/1.1\r\nhost:\r\n\r\n");
    head.set_authority(b"db:1").unwrap();
    assert_eq!(write(&head, Framing::None, Connection::Persist), "CONNECT db:1 HTTP/1.1\r\nhost: db:1\r\n\r\n");

    let mut head = Head::response();
    let write = |head: &Head, framing| {
        let mut out = Vec::new();
        encode::response(head, framing, Connection::KeepAlive, &mut out);
        String::from_utf8(out).unwrap()
    };
    head.set_status(204).unwrap();
    head.append("content-length", b"3").unwrap();
    assert_eq!(write(&head, Framing::None), "HTTP/1.1 204 No Content\r\nconnection: keep-alive\r\n\r\n");
    head.set_status(304).unwrap();
    assert_eq!(
        write(&head, Framing::None),
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\nconnection: keep-alive\r\n\r\n"
    );
    assert_eq!(write(&head, Framing::UntilClose), "HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n");
    assert_eq!(encode::framing_for(Version::Http10, Framing::Chunked), Framing::UntilClose);
    assert_eq!(encode::framing_for(Version::Http11, Framing::Chunked), Framing::Chunked);
}

/// `preserveHttp1HeaderCase`; lower case is what servers behind Envoy are used to.
#[test]
fn the_case_of_names_is_a_setting() {
    let text = "GET / HTTP/1.1\r\nHost: A\r\nX-Custom-ID:  V\r\nACCEPT: X\r\n\r\n";
    for (names, expect) in [
        (NameCase::Lower, "GET / HTTP/1.1\r\nhost: A\r\nx-custom-id: V\r\naccept: X\r\n\r\n"),
        (NameCase::Keep, "GET / HTTP/1.1\r\nHost: A\r\nX-Custom-ID: V\r\nACCEPT: X\r\n\r\n"),
    ] {
        let (_, head) = request(text.as_bytes(), &Limits { names, ..Limits::default() }).unwrap().unwrap();
        let mut out = Vec::new();
        encode::request(&head, Framing::None, Connection::Persist, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }
}

#[test]
fn numbers_are_written_in_their_shortest_form() {
    let decimal = |value| {
        let mut out = Vec::new();
        encode::decimal(value, &mut out);
        String::from_utf8(out).unwrap()
    };
    for value in [0, 9, 10, 99, 100, 12_345, u64::MAX] {
        assert_eq!(decimal(value), value.to_string());
    }
    for len in [1usize, 15, 16, 255, 256, 4096, 0xdead_beef] {
        let mut out = Vec::new();
        encode::chunk_start(len, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("{len:x}\r\n"));
    }
}

/// Bytes that arrive one at a time are searched once, not from the beginning each time.
#[test]
fn searching_resumes_where_it_stopped() {
    let text = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(2000));
    let (mut scan, mut head) = (Scan::default(), Head::request());
    for end in 1..text.len() {
        let before = scan.seen;
        assert_eq!(parse_request(&text.as_bytes()[..end], &mut scan, &Limits::default(), &mut head), Ok(None));
        assert!(scan.seen == end && before == end - 1);
    }
    assert!(parse_request(text.as_bytes(), &mut scan, &Limits::default(), &mut head).unwrap().is_some());
    // Errors that the search can see do not wait for the blank line.
    let (mut scan, bad) = (Scan::default(), b"GET / HTTP/1.1\r\nhost: a\r\nx: y\nz");
    let first = parse_request(&bad[..20], &mut scan, &Limits::default(), &mut head);
    assert_eq!(
        (first, parse_request(bad, &mut scan, &Limits::default(), &mut head)),
        (Ok(None), Err(H1Error::LineEnd))
    );
}

fn token() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,12}"
}

fn value() -> impl Strategy<Value = String> {
    "([!-~]([ -~\t]{0,20}[!-~])?)?"
}

prop_compose! {
    fn any_request()(
        method in prop_oneof![Just("GET".to_owned()), Just("POST".to_owned()), token()],
        target in "/[!-\"$-~]{0,30}",
        host in "[a-zA-Z0-9.-]{0,10}(:[0-9]{1,5})?",
        fields in prop::collection::vec((token(), value()), 0..12),
        framing in prop_oneof![Just(Framing::None), (0u64..2000).prop_map(Framing::Length), Just(Framing::Chunked)],
        close in any::<bool>(),
    ) -> (String, Framing, bool) {
        let method = if method == "CONNECT" { "GET".to_owned() } else { method };
        let host = if host.starts_with(':') { "a".to_owned() } else { host };
        let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
        for (name, value) in fields {
            text += &format!("x{name}: {value}\r\n");
        }
        match framing {
            Framing::Length(length) => text += &format!("Content-Length: {length}\r\n"),
            Framing::Chunked => text += "Transfer-Encoding: chunked\r\n",
            _ => {}
        }
        if close {
            text += "Connection: close\r\n";
        }
        (text + "\r\n", framing, close)
    }
}

prop_compose! {
    fn chunked_body()(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
        trailers in prop::collection::vec(("x[a-z-]{0,8}", value()), 0..4),
    ) -> (Vec<Vec<u8>>, Vec<(String, String)>) {
        (chunks, trailers)
    }
}

proptest! {
    /// Writing what was read, and reading it again, gives the same message.
    #[test]
    fn encoding_and_parsing_round_trip((text, framing, close) in any_request()) {
        let (parsed, head) = request(text.as_bytes(), &Limits::default()).unwrap().unwrap();
        prop_assert_eq!((parsed.consumed, parsed.framing, parsed.persistent), (text.len(), framing, !close));
        let connection = if close { Connection::Close } else { Connection::Persist };
        let mut out = Vec::new();
        encode::request(&head, parsed.framing, connection, &mut out);
        let (again, second) = request(&out, &Limits::default()).unwrap().unwrap();
        prop_assert_eq!((again.framing, again.persistent), (parsed.framing, parsed.persistent));
        prop_assert_eq!(second.target(), head.target());
        let pairs = |head: &Head| {
            let mut pairs: Vec<_> = head.iter().map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec())).collect();
            pairs.sort();
            pairs
        };
        prop_assert_eq!(pairs(&second), pairs(&head));
    }

    /// However the bytes arrive, the result is that of one piece.
    #[test]
    fn heads_may_arrive_in_any_pieces((text, ..) in any_request(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let whole = request(text.as_bytes(), &Limits::default()).unwrap().unwrap();
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(text.len())).collect();
        ends.sort_unstable();
        let (mut scan, mut head) = (Scan::default(), Head::request());
        for end in ends {
            prop_assert_eq!(parse_request(&text.as_bytes()[..end], &mut scan, &Limits::default(), &mut head), Ok(None));
        }
        let parsed = parse_request(text.as_bytes(), &mut scan, &Limits::default(), &mut head).unwrap().unwrap();
        prop_assert_eq!((parsed, &head), (whole.0, &whole.1));
    }

    /// Chunks written are chunks read, whatever the pieces; and the next message's bytes are left alone.
    #[test]
    fn bodies_may_arrive_in_any_pieces((chunks, trailers) in chunked_body(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let mut head = Head::trailers();
        for (name, value) in &trailers {
            head.append(name.as_str(), value.as_bytes()).unwrap();
        }
        let mut wire = Vec::new();
        for chunk in &chunks {
            encode::chunk(chunk, &mut wire);
        }
        encode::last_chunk(Some(&head), &mut wire);
        wire.extend_from_slice(b"NEXT");
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(wire.len())).collect();
        ends.extend([0, wire.len()]);
        ends.sort_unstable();
        let pieces: Vec<&[u8]> = ends.windows(2).map(|pair| &wire[pair[0]..pair[1]]).collect();
        let read = read_body(&pieces, Framing::Chunked, &Limits::default()).unwrap();
        prop_assert!(read.done);
        prop_assert_eq!(read.payload, chunks.concat());
        let left_at = wire.len() - 4;
        prop_assert!(read.left.is_empty() || b"NEXT".starts_with(&read.left[..]) && left_at > 0);
        let expect: Vec<_> = trailers.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone().into_bytes())).collect();
        prop_assert_eq!(read.trailers, expect);
    }

    /// A prefix of a good head is never an error: nothing is decided too early.
    #[test]
    fn prefixes_are_incomplete_not_wrong((text, ..) in any_request()) {
        for end in 0..text.len() {
            prop_assert_eq!(request(&text.as_bytes()[..end], &Limits::default()).map(|parsed| parsed.is_some()), Ok(false));
        }
    }

    /// Damaged messages give errors or other messages, never a panic, and an accepted one can be written and read again.
    #[test]
    fn mutations_never_panic(
        (text, ..) in any_request(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 0..6),
    ) {
        let mut bytes = text.into_bytes();
        for (place, byte, kind) in edits {
            let place = place.index(bytes.len());
            match kind {
                0 => bytes[place] = byte,
                1 => bytes.insert(place, byte),
                _ if bytes.len() > 1 => { bytes.remove(place); }
                _ => {}
            }
        }
        if let Ok(Some((parsed, head))) = request(&bytes, &Limits { http10: Http10::Accept, ..Limits::default() }) {
            let mut out = Vec::new();
            encode::request(&head, parsed.framing, Connection::Persist, &mut out);
            let again = request(&out, &Limits::default());
            prop_assert!(matches!(&again, Ok(Some((again, _))) if again.consumed == out.len()), "{:?} of {:?}", again, out.escape_ascii().to_string());
        }
        let _ = response(&bytes, GET);
        let _ = read_body(&[&bytes], Framing::Chunked, &Limits::default());
    }

    /// Arbitrary bytes never panic any reader.
    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = request(&bytes, &Limits::default());
        let _ = response(&bytes, GET);
        let _ = read_body(&[&bytes], Framing::Chunked, &Limits::default());
        let mut status = b"HTTP/1.1 200 OK\r\n".to_vec();
        status.extend_from_slice(&bytes);
        let _ = response(&status, GET);
    }
}
