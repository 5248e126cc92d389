//! What an object's `status` says of it: whether it acts as it stands, and what was found. Pure; the shell reads and writes.
//!
//! Ours are the conditions [`RECONCILED`] and [`PASSED_ANALYSIS`], `validationMessages` and `observedGeneration`, in the form of
//! Istio's `IstioStatus`. Conditions of others stay as they are. Nothing is written that is there already, so a status changes
//! when what it says changes, and not otherwise.

use mesh_api::finding::{Finding, Severity};
use serde_json::{Map, Value, json};

/// Whether the object is in effect as it stands.
pub const RECONCILED: &str = "Reconciled";
/// Whether no error was found in it.
pub const PASSED_ANALYSIS: &str = "PassedAnalysis";
/// Most findings that a status lists.
pub const MAX_MESSAGES: usize = 20;
/// Most characters of the message of a condition.
const MAX_MESSAGE: usize = 1024;

/// What is to be said of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether no error was found.
    pub is_valid: bool,
    /// Errors, for people.
    pub message: String,
    /// `validationMessages`.
    pub messages: Vec<Value>,
}

impl Verdict {
    /// What these findings, all of one object, say.
    #[must_use]
    pub fn of<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> Self {
        let mut findings: Vec<&Finding> = findings.into_iter().collect();
        findings.sort_by(|a, b| {
            let by_place = || (&a.path, a.code, &a.message).cmp(&(&b.path, b.code, &b.message));
            b.severity.cmp(&a.severity).then_with(by_place)
        });
        let errors: Vec<String> = findings.iter().filter(|finding| finding.is_error()).map(|f| line(f)).collect();
        let mut messages: Vec<Value> = Vec::new();
        for finding in findings {
            let message = to_message(finding);
            // The place is not part of it: one code counts once.
            if !messages.contains(&message) && messages.len() < MAX_MESSAGES {
                messages.push(message);
            }
        }
        let message = errors.join("; ").chars().take(MAX_MESSAGE).collect();
        Self { is_valid: errors.is_empty(), message, messages }
    }

    /// The status to write over `now`, `None` when that says all of this already. `generation` is that of the object that was
    /// judged, `at` the present time in RFC 3339.
    #[must_use]
    pub fn over(&self, now: &Value, generation: i64, at: &str) -> Option<Value> {
        let mut status = now.as_object().cloned().unwrap_or_default();
        let reconciled = if self.is_valid { ("True", "Accepted") } else { ("False", "Invalid") };
        let passed = if self.is_valid { ("True", "noErrorsFound") } else { ("False", "errorsFound") };
        let mut conditions: Vec<Value> = match status.get("conditions") {
            Some(Value::Array(conditions)) => conditions.clone(),
            _ => Vec::new(),
        };
        for (kind, (state, reason)) in [(RECONCILED, reconciled), (PASSED_ANALYSIS, passed)] {
            let found = conditions.iter().position(|condition| condition["type"] == kind);
            let before = found.and_then(|index| conditions.get(index)).cloned().unwrap_or_default();
            let since = match before.get("lastTransitionTime") {
                Some(since) if before["status"] == state => since.clone(),
                _ => Value::from(at),
            };
            let condition = json!({
                "type": kind, "status": state, "reason": reason, "message": self.message, "lastTransitionTime": since,
                "observedGeneration": generation,
            });
            match found.and_then(|index| conditions.get_mut(index)) {
                Some(place) => *place = condition,
                None => conditions.push(condition),
            }
        }
        status.insert("conditions".to_owned(), Value::Array(conditions));
        status.insert("observedGeneration".to_owned(), Value::from(generation));
        status.insert("validationMessages".to_owned(), Value::Array(self.messages.clone()));
        let status = Value::Object(status);
        let is_same = without_nothing(now) == without_nothing(&status);
        (!is_same).then_some(status)
    }
}

/// `AnalysisMessageBase` of Istio's API.
fn to_message(finding: &Finding) -> Value {
    let level = match finding.severity {
        Severity::Error => "ERROR",
        Severity::Warning => "WARNING",
        Severity::Info => "INFO",
    };
    json!({"type": {"code": finding.code.to_string(), "name": finding.code.name()}, "level": level})
}

fn line(finding: &Finding) -> String {
    let place = if finding.path.is_empty() { String::new() } else { format!("{}: ", finding.path) };
    format!("{} {place}{}", finding.code, finding.message)
}

/// An object without empty lists and numbers kept as text: how API servers of different ages store the same.
fn without_nothing(status: &Value) -> Map<String, Value> {
    let mut fields = status.as_object().cloned().unwrap_or_default();
    fields.retain(|_, value| value.as_array().is_none_or(|items| !items.is_empty()));
    if let Some(generation) = fields.get_mut("observedGeneration")
        && let Some(number) = generation.as_str().and_then(|text| text.parse::<i64>().ok())
    {
        *generation = Value::from(number);
    }
    fields
}

#[cfg(test)]
mod tests {
    use mesh_api::codes::Code;

    use super::*;

    const THEN: &str = "2026-01-01T00:00:00Z";
    const LATER: &str = "2026-01-02T00:00:00Z";

    fn mk_finding(code: Code, message: &str) -> Finding {
        Finding::new(code, "spec.hosts[0]", message)
    }

    fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
        status["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == kind).unwrap()
    }

    #[test]
    fn what_is_well_is_said_once() {
        let verdict = Verdict::of([]);
        let status = verdict.over(&Value::Null, 3, THEN).unwrap();
        assert_eq!(condition(&status, RECONCILED)["status"], "True");
        assert_eq!(status["observedGeneration"], 3);
        assert_eq!(verdict.over(&status, 3, LATER), None);
        // An API server may leave out what is empty, and write int64 as text.
        let mut stored = status.clone();
        stored.as_object_mut().unwrap().remove("validationMessages");
        stored["observedGeneration"] = json!("3");
        assert_eq!(verdict.over(&stored, 3, LATER), None);
        let next = verdict.over(&status, 4, LATER).unwrap();
        assert_eq!(condition(&next, RECONCILED)["lastTransitionTime"], THEN, "no transition");
        assert_eq!(next["observedGeneration"], 4);
    }

    #[test]
    fn an_error_is_a_transition_and_its_repair_another() {
        let well = Verdict::of([]).over(&Value::Null, 1, THEN).unwrap();
        let error = mk_finding(Code::InvalidHost, "is no host");
        let warning = mk_finding(Code::Ineffective, "is never reached");
        let status = Verdict::of([&warning, &error]).over(&well, 2, LATER).unwrap();
        let reconciled = condition(&status, RECONCILED);
        assert_eq!((&reconciled["status"], &reconciled["lastTransitionTime"]), (&json!("False"), &json!(LATER)));
        assert_eq!(reconciled["message"], "MESH2006 spec.hosts[0]: is no host");
        assert_eq!(condition(&status, PASSED_ANALYSIS)["reason"], "errorsFound");
        assert_eq!(status["validationMessages"][0]["level"], "ERROR");
        assert_eq!(status["validationMessages"][1]["type"], json!({"code": "MESH2009", "name": "Ineffective"}));
        let repaired = Verdict::of([]).over(&status, 3, "2026-01-03T00:00:00Z").unwrap();
        assert_eq!(condition(&repaired, PASSED_ANALYSIS)["lastTransitionTime"], "2026-01-03T00:00:00Z");
        assert_eq!(repaired["validationMessages"], json!([]));
    }

    #[test]
    fn the_order_of_findings_does_not_matter() {
        let (a, b) = (mk_finding(Code::InvalidHost, "a"), mk_finding(Code::InvalidHost, "b"));
        assert_eq!(Verdict::of([&a, &b]), Verdict::of([&b, &a]));
        let many: Vec<Finding> = (0..100).map(|n| mk_finding(Code::ALL[n % Code::ALL.len()], &"x".repeat(n))).collect();
        let verdict = Verdict::of(&many);
        assert!(verdict.messages.len() <= MAX_MESSAGES && verdict.message.len() <= MAX_MESSAGE);
    }

    #[test]
    fn what_others_say_stays() {
        let theirs =
            json!({"conditions": [{"type": "Healthy", "status": "True"}], "addresses": [{"value": "1.2.3.4"}]});
        let status = Verdict::of([]).over(&theirs, 1, THEN).unwrap();
        assert_eq!(status["addresses"], theirs["addresses"]);
        assert_eq!(condition(&status, "Healthy")["status"], "True");
        assert_eq!(status["conditions"].as_array().unwrap().len(), 3);
    }
}
