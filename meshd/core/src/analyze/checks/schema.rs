//! What the rules of each kind say about its objects (`mesh_api::validate`), in Istio's words for it.

use mesh_api::codes::Code;
use mesh_api::finding::{Finding, Severity};

use super::Check;
use crate::analyze::message::{DEPRECATED, KIND_NOT_ACTING, Messages, NOT_ACTING, SCHEMA_ERROR, SCHEMA_WARNING};
use crate::analyze::objects::Objects;

pub(super) const CHECK: Check =
    Check { name: "schema", doc: "Every object follows the rules of its kind", needs: &[], run };

fn run(objects: &Objects, messages: &mut Messages) {
    for subject in objects.all() {
        for finding in &subject.findings {
            let (code, start) = match (finding.code, finding.severity) {
                (Code::NotActing, _) => (&NOT_ACTING, ""),
                (Code::KindNotActing, _) => (&KIND_NOT_ACTING, ""),
                (Code::Deprecated, _) => (&DEPRECATED, "Deprecated: "),
                // What no request reaches is told by a check that looks at all rules together.
                (Code::Ineffective, _) if finding.path.starts_with("spec.http") => continue,
                (_, Severity::Error) => (&SCHEMA_ERROR, "Schema validation error: "),
                (_, Severity::Warning) => (&SCHEMA_WARNING, "Schema validation warning: "),
                (_, Severity::Info) => continue,
            };
            messages.tell(code, subject, finding.path.as_str(), format!("{start}{}", said(finding)));
        }
    }
}

fn said(finding: &Finding) -> String {
    let path = if finding.path.is_empty() { String::new() } else { format!("{}: ", finding.path) };
    let hint = if finding.hint.is_empty() { String::new() } else { format!(" ({})", finding.hint) };
    format!("{path}{}{hint}", finding.message)
}
