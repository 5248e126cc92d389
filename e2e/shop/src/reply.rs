//! Building answers.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde::Serialize;

use crate::identity::Identity;

/// Why a body broke off.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// Any response body.
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// What every JSON answer begins with.
#[derive(Serialize)]
struct Named<'a, T> {
    #[serde(flatten)]
    identity: &'a Identity,
    #[serde(flatten)]
    content: T,
}

/// A body that is here at once.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// JSON with the identity's fields before those of `content` (a struct or map).
pub(crate) fn json(identity: &Identity, status: StatusCode, content: impl Serialize) -> Response<Body> {
    match serde_json::to_vec(&Named { identity, content }) {
        Ok(text) => typed(identity, status, "application/json", text),
        Err(error) => typed(identity, StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string()),
    }
}

/// A body of the given content type.
pub(crate) fn typed(
    identity: &Identity,
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    identity.write(response.headers_mut());
    response
}

/// An answer that only explains.
pub(crate) fn error(identity: &Identity, status: StatusCode, text: &str) -> Response<Body> {
    json(identity, status, serde_json::json!({ "error": text }))
}
