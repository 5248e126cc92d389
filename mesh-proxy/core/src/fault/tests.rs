use std::collections::HashSet;

use super::*;

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
        assert_eq!((fault.kind, fault.meaning().status), (kind, status), "{error:?}");
        assert_eq!(fault.detail.as_deref(), Some(error.to_string().as_str()));
    }
    assert_eq!(Fault::of_response(H1Error::Incomplete, false).kind, FaultKind::UpstreamClosed);
    assert_eq!(Fault::of_response(H1Error::ChunkSize, true).kind, FaultKind::UpstreamProtocolLate);
    assert_eq!(Fault::of_response(H1Error::ObsFold, false).kind, FaultKind::UpstreamProtocol);
}

#[test]
fn faults_print_code_name_and_particular() {
    let fault = Fault::new(FaultKind::ConnectFailed).with_detail("connection refused");
    assert_eq!(fault.to_string(), "LTN-3002 ConnectFailed: connection refused");
    assert_eq!(Fault::from(FaultKind::NoRoute).to_string(), "LTN-2001 NoRoute");
}
