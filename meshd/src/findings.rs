//! All that is wrong with configuration, from every place that says so: said once in the log, shown on the debug page.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mesh_api::codes::Code;
use mesh_api::finding::{Finding, Severity};
use mesh_api::ids::ObjectKey;
use mesh_api::text::Str;

use crate::metrics::{BySeverity, PushMetrics};

/// Most new findings of one change that get a line of their own in the log.
const MAX_LINES: usize = 50;

/// The findings now.
#[derive(Debug)]
pub(crate) struct Findings {
    now: ArcSwap<Box<[Finding]>>,
    metrics: PushMetrics,
}

/// What makes two findings the same, wherever they were found.
type Identity = (Option<ObjectKey>, u16, Str, Str, Str);

impl Findings {
    /// None.
    pub(crate) fn new(metrics: PushMetrics) -> Self {
        Self { now: ArcSwap::default(), metrics }
    }

    /// The findings now, ordered by place.
    pub(crate) fn now(&self) -> Arc<Box<[Finding]>> {
        self.now.load_full()
    }

    /// Replaces the findings and logs those that are new and those that are gone.
    pub(crate) fn replace(&self, findings: impl IntoIterator<Item = Finding>) {
        let next = merge(findings);
        let before = self.now.load_full();
        let known: BTreeMap<Identity, &Finding> = before.iter().map(|finding| (identity(finding), finding)).collect();
        let fresh: Vec<&Finding> = next.iter().filter(|finding| !known.contains_key(&identity(finding))).collect();
        for finding in fresh.iter().take(MAX_LINES) {
            let said = finding.to_string();
            match finding.severity {
                Severity::Error => tracing::warn!(finding = %said, "Configuration has an error"),
                Severity::Warning | Severity::Info => tracing::info!(finding = %said, "Configuration has a finding"),
            }
        }
        if fresh.len() > MAX_LINES {
            let more = fresh.len() - MAX_LINES;
            tracing::warn!(more, "Configuration has more findings, see /debug/findings");
        }
        let there: std::collections::BTreeSet<Identity> = next.iter().map(identity).collect();
        let gone = known.into_iter().filter(|(identity, _)| !there.contains(identity));
        for (_, finding) in gone.filter(|(_, finding)| finding.is_error()).take(MAX_LINES) {
            tracing::info!(finding = %finding, "Configuration error is repaired");
        }
        self.count(&next);
        self.now.store(Arc::new(next.into()));
    }

    fn count(&self, findings: &[Finding]) {
        for (severity, name) in [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Info, "info")] {
            let count = findings.iter().filter(|finding| finding.severity == severity).count();
            let gauge = self.metrics.findings.get_or_create(&BySeverity { severity: name });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

/// One finding of each identity, that with a place in a file before that without, ordered.
pub(crate) fn merge(findings: impl IntoIterator<Item = Finding>) -> Vec<Finding> {
    let mut all: Vec<Finding> = findings.into_iter().collect();
    // An object's rules are checked where it is read and again where it is compiled; the reader knows the line.
    all.sort_by(|a, b| {
        let order = (&a.key, a.code, &a.path, said(a)).cmp(&(&b.key, b.code, &b.path, said(b)));
        order.then_with(|| a.origin.is_empty().cmp(&b.origin.is_empty())).then_with(|| a.origin.cmp(&b.origin))
    });
    all.dedup_by(|later, first| {
        later.key.is_some()
            && (&later.key, later.code, &later.path) == (&first.key, first.code, &first.path)
            && (later.origin.is_empty() || later.origin == first.origin)
            && said(later) == said(first)
    });
    all.sort_by(|a, b| (&a.origin, &a.key, &a.path, a.code).cmp(&(&b.origin, &b.key, &b.path, b.code)));
    all
}

/// What tells two findings of one code at one place apart. That a field does not act is one thing, in whatever words the
/// reader and the compiler say it.
fn said(finding: &Finding) -> &str {
    if finding.code == Code::NotActing { "" } else { plain(&finding.message) }
}

/// A message without the number of its document, which only the reader of files adds.
fn plain(message: &str) -> &str {
    let numbered = message.strip_prefix("document ").and_then(|rest| rest.split_once(": "));
    numbered.filter(|(number, _)| number.bytes().all(|b| b.is_ascii_digit())).map_or(message, |(_, plain)| plain)
}

fn identity(finding: &Finding) -> Identity {
    let Finding { key, code, path, message, origin, .. } = finding;
    // The line may move without the finding being a new one.
    let file = origin.rsplit_once(':').map_or(origin.as_str(), |(file, _)| file);
    (key.clone(), code.number(), path.clone(), message.clone(), Str::from(file))
}

#[cfg(test)]
mod tests {
    use mesh_api::kinds::Kind;

    use super::*;

    fn mk_finding(message: &str) -> Finding {
        Finding::new(Code::InvalidHost, "spec.hosts[0]", message).on(ObjectKey::new(
            Kind::VirtualService,
            "shop",
            "web",
        ))
    }

    #[test]
    fn what_is_found_twice_is_said_once_with_its_line() {
        let with_line = mk_finding("document 3: is no host").at("a.yaml:7");
        let merged = merge([mk_finding("is no host"), with_line.clone(), mk_finding("is empty")]);
        assert_eq!(merged, [mk_finding("is empty"), with_line]);
    }

    #[test]
    fn a_field_that_does_not_act_is_named_once() {
        let key = ObjectKey::new(Kind::DestinationRule, "shop", "web");
        let mk = |message: &str| Finding::new(Code::NotActing, "spec.tls.caCrl", message).on(key.clone());
        let read = mk("does not act yet").at("a.yaml:3");
        assert_eq!(merge([mk("lists are not checked yet"), read.clone()]), [read]);
    }

    #[test]
    fn the_gauges_follow() {
        let metrics = crate::push::registry::tests::mk_metrics();
        let findings = Findings::new(metrics.clone());
        let errors = || metrics.findings.get_or_create(&BySeverity { severity: "error" }).get();
        findings.replace([mk_finding("a"), mk_finding("b")]);
        assert_eq!((errors(), findings.now().len()), (2, 2));
        findings.replace([]);
        assert_eq!((errors(), findings.now().len()), (0, 0));
    }
}
