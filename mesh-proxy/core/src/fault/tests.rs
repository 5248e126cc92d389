use std::collections::HashSet;

use super::*;
use crate::head::Head;
use crate::reply::reply_for;

#[test]
fn every_kind_has_a_number_of_its_own_and_a_text() {
    let mut numbers = HashSet::new();
    let mut last = 0;
    for kind in FaultKind::ALL {
        let meaning = kind.meaning();
        assert!(numbers.insert(meaning.number), "{kind:?}: number is taken");
        assert!(meaning.number > last, "{kind:?}: the table is ordered by number");
        last = meaning.number;
        assert!(meaning.summary.ends_with('.') && meaning.hint.ends_with('.'), "{kind:?}");
        assert_eq!(meaning.name, format!("{kind:?}"));
        assert!(matches!(meaning.status, 0 | 400..=599), "{kind:?}");
        assert!(!meaning.details.contains(' '), "{kind:?}");
    }
}

/// Every kind gives an answer that a codec can write, to both sorts of clients, or none at all.
#[test]
fn every_kind_has_an_answer() {
    let mut head = Head::response();
    for kind in FaultKind::ALL {
        for is_grpc in [false, true] {
            let reply = reply_for(&Fault::new(*kind).with_detail("a reason"), is_grpc);
            assert_eq!(reply.write_head(&mut head).is_ok(), reply.status != 0, "{kind:?}");
            assert_eq!(reply.grpc_status.is_some(), is_grpc && reply.status != 0, "{kind:?}");
            assert!(!reply.details.contains(char::is_whitespace), "{kind:?}");
            if reply.status != 0 {
                assert_eq!(head.get("x-mesh-code"), Some(kind.code().to_string().as_bytes()), "{kind:?}");
                assert!(reply.body.is_empty() || !is_grpc, "{kind:?}");
            }
        }
    }
}

#[test]
fn faults_of_the_destination_before_an_answer_say_whether_to_retry() {
    for kind in FaultKind::ALL {
        let meaning = kind.meaning();
        if meaning.details == "upstream_reset_after_response_started" {
            assert_eq!(meaning.retry, Retry::Never, "{kind:?}: a client has part of the response");
        }
        if meaning.origin == Origin::Downstream {
            assert_eq!(meaning.retry, Retry::Never, "{kind:?}: the client is at fault");
        }
    }
}

#[test]
fn every_refused_message_is_a_fault() {
    let errors = [
        (H1Error::LengthAndEncoding, FaultKind::AmbiguousFraming, 400),
        (H1Error::DuplicateContentLength, FaultKind::AmbiguousFraming, 400),
        (H1Error::HeadTooLarge, FaultKind::RequestHeadTooLarge, 431),
        (H1Error::MissingHost, FaultKind::InvalidHost, 400),
        (H1Error::Http10, FaultKind::Http10Refused, 426),
        (H1Error::Version, FaultKind::VersionNotSupported, 505),
        (H1Error::Encoding, FaultKind::EncodingNotSupported, 501),
        (H1Error::Expectation, FaultKind::ExpectationFailed, 417),
        (H1Error::ChunkSize, FaultKind::InvalidRequestBody, 400),
        (H1Error::Incomplete, FaultKind::ClientClosed, 0),
        (H1Error::LineEnd, FaultKind::BadRequest, 400),
    ];
    for (error, kind, status) in errors {
        let fault = Fault::of_request(error);
        assert_eq!((fault.kind, reply_for(&fault, false).status), (kind, status), "{error:?}");
        assert_eq!(fault.detail.as_deref(), Some(error.to_string().as_str()));
    }
    assert_eq!(Fault::of_response(H1Error::Incomplete, false).kind, FaultKind::UpstreamClosed);
    assert_eq!(Fault::of_response(H1Error::ChunkSize, true).kind, FaultKind::UpstreamProtocolLate);
    assert_eq!(reply_for(&Fault::of_response(H1Error::ObsFold, false), false).status, 502);
}

#[test]
fn the_page_has_an_entry_for_each_kind() {
    let page = reference_page();
    for kind in FaultKind::ALL {
        let heading = format!("### {} {}\n", kind.code(), kind.meaning().name);
        assert_eq!(page.matches(&heading).count(), 1, "{heading}");
        assert!(page.contains(kind.meaning().summary) && page.contains(kind.meaning().hint));
    }
    assert_eq!(page.matches("\n### ").count(), FaultKind::ALL.len());
}

#[test]
fn faults_print_code_name_and_particular() {
    let fault = Fault::new(FaultKind::ConnectFailed).with_detail("connection refused");
    assert_eq!(fault.to_string(), "LTN-3002 ConnectFailed: connection refused");
    assert_eq!(Fault::from(FaultKind::NoRoute).to_string(), "LTN-2001 NoRoute");
}
