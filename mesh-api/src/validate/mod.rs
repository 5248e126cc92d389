//! Rules of single objects. Everything wrong is collected; nothing stops at the first.
//!
//! The rules are those of Istio's webhook (istio/istio: pkg/config/validation) plus a finding for each field that does
//! not act yet. What needs a second object to decide is for the analysers, not here.

mod check;
mod meta;
pub mod not_acting;
pub mod regex;

use self::check::Check;
use crate::{finding::Finding, kinds::AnyObject};

/// Everything there is to say about one object by itself, in the order of its fields.
#[must_use]
pub fn validate(object: &AnyObject) -> Vec<Finding> {
    let kind = object.kind();
    let mut check = Check::default();
    meta::check(kind, object.meta(), &mut check);
    let mut findings = check.into_findings();
    findings.extend(not_acting::annotations(kind, object.meta()));
    findings.extend(not_acting::fields(kind, object));
    let key = object.key();
    for finding in &mut findings {
        finding.key = Some(key.clone());
    }
    findings
}
