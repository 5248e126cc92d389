//! `AdmissionReview` of `admission.k8s.io/v1`: the question and the answer, as they are on the wire.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version that is spoken.
const API_VERSION: &str = "admission.k8s.io/v1";
/// The longest warning that the API server shows whole, in bytes.
const MAX_WARNING_BYTES: usize = 256;
/// Most warnings of one answer: the API server cuts all of them off at 4 KiB.
const MAX_WARNINGS: usize = 16;
/// The longest reason for a refusal, in bytes.
const MAX_MESSAGE_BYTES: usize = 16 << 10;

/// A question as it came.
#[derive(Debug, Deserialize)]
struct Wire {
    #[serde(rename = "apiVersion", default)]
    api_version: String,
    request: Option<Question>,
}

/// What the API server asks about.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Question {
    /// Names the question.
    pub(crate) uid: String,
    /// What kind of object.
    pub(crate) kind: GroupKind,
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name; empty where one is to be made.
    pub(crate) name: String,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub(crate) operation: String,
    /// The object.
    pub(crate) object: Value,
}

/// A kind with its group and version.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct GroupKind {
    /// Group; empty for the core group.
    pub(crate) group: String,
    /// Version.
    pub(crate) version: String,
    /// Kind.
    pub(crate) kind: String,
}

/// The answer to a question.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    /// Why not; `None` lets the object in.
    pub(crate) refused: Option<String>,
    /// A JSON patch, where the object is to be changed.
    pub(crate) patch: Option<Value>,
    /// What the user is told besides.
    pub(crate) warnings: Vec<String>,
}

/// A question that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReviewError {
    /// No JSON, or not of this form.
    #[error("the body is no AdmissionReview")]
    Malformed(#[source] serde_json::Error),
    /// Another version.
    #[error(
        "AdmissionReview {0:?} is not spoken; list admission.k8s.io/v1 first in admissionReviewVersions of the webhook"
    )]
    Version(String),
    /// No question in it.
    #[error("the AdmissionReview has no request")]
    Empty,
}

/// Reads a question.
///
/// # Errors
/// When it is none that we understand.
pub(crate) fn read(body: &[u8]) -> Result<Question, ReviewError> {
    let wire: Wire = serde_json::from_slice(body).map_err(ReviewError::Malformed)?;
    if wire.api_version != API_VERSION {
        return Err(ReviewError::Version(wire.api_version.chars().take(64).collect()));
    }
    wire.request.filter(|question| !question.uid.is_empty()).ok_or(ReviewError::Empty)
}

impl Answer {
    /// The object may come in.
    pub(crate) fn allowed() -> Self {
        Self::default()
    }

    /// It may not.
    pub(crate) fn refused(why: impl Into<String>) -> Self {
        Self { refused: Some(why.into()), ..Self::default() }
    }

    /// The same with something to tell.
    pub(crate) fn warning(mut self, warnings: impl IntoIterator<Item = String>) -> Self {
        self.warnings.extend(warnings);
        self
    }

    /// The answer to the question of this id, as JSON.
    pub(crate) fn to_json(&self, uid: &str) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Response<'a> {
            uid: &'a str,
            allowed: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            status: Option<Value>,
            #[serde(skip_serializing_if = "Option::is_none")]
            patch: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            patch_type: Option<&'static str>,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            warnings: Vec<String>,
        }
        let status = self.refused.as_ref().map(|why| {
            // 400 as Istio's webhook; the reason is what kubectl shows.
            serde_json::json!({"status": "Failure", "reason": "BadRequest", "code": 400, "message": cut(why, MAX_MESSAGE_BYTES)})
        });
        let patch = self.patch.as_ref().map(|patch| STANDARD.encode(patch.to_string()));
        let response = Response {
            uid,
            allowed: self.refused.is_none(),
            status,
            patch_type: patch.as_ref().map(|_| "JSONPatch"),
            patch,
            warnings: self.warnings.iter().take(MAX_WARNINGS).map(|text| cut(text, MAX_WARNING_BYTES)).collect(),
        };
        let review = serde_json::json!({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response});
        review.to_string().into_bytes()
    }
}

/// The text in at most so many bytes.
fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let mut end = bytes.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_question_is_read_and_answered_by_its_id() {
        let body = json!({"apiVersion": API_VERSION, "kind": "AdmissionReview", "request": {
            "uid": "u1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "namespace": "shop", "operation": "CREATE",
            "object": {"metadata": {}}, "oldObject": null, "dryRun": false, "userInfo": {},
        }});
        let question = read(body.to_string().as_bytes()).unwrap();
        assert_eq!((question.uid.as_str(), question.kind.kind.as_str(), question.name.as_str()), ("u1", "Pod", ""));
        let patch = json!([{"op": "add", "path": "/spec/x", "value": 1}]);
        let answer = Answer { patch: Some(patch.clone()), ..Answer::allowed() };
        let json: Value = serde_json::from_slice(&answer.to_json("u1")).unwrap();
        assert_eq!((&json["response"]["uid"], &json["response"]["allowed"]), (&json!("u1"), &json!(true)));
        assert_eq!(json["response"]["patchType"], "JSONPatch");
        let sent = STANDARD.decode(json["response"]["patch"].as_str().unwrap()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&sent).unwrap(), patch);
    }

    #[test]
    fn a_refusal_says_why_and_texts_are_bounded() {
        let answer = Answer::refused("é".repeat(20_000)).warning(vec!["é".repeat(200); 40]);
        let json: Value = serde_json::from_slice(&answer.to_json("u")).unwrap();
        assert_eq!(json["response"]["allowed"], false);
        assert!(json["response"]["status"]["message"].as_str().unwrap().len() <= MAX_MESSAGE_BYTES);
        let warnings = json["response"]["warnings"].as_array().unwrap();
        assert!(warnings.len() == MAX_WARNINGS && warnings.iter().all(|text| text.as_str().unwrap().len() <= 256));
        assert!(json["response"].get("patch").is_none());
    }

    #[test]
    fn what_is_no_question_is_refused() {
        for body in ["", "[]", "{}", r#"{"apiVersion":"admission.k8s.io/v1"}"#] {
            assert!(read(body.as_bytes()).is_err(), "{body}");
        }
        let old = r#"{"apiVersion":"admission.k8s.io/v1beta1","request":{"uid":"1"}}"#;
        assert!(matches!(read(old.as_bytes()), Err(ReviewError::Version(_))));
    }
}
