//! Key `config` of the ConfigMap `istio-sidecar-injector[-REV]`. istio/istio: pkg/kube/inject/inject.go Config.

use std::collections::BTreeMap;

use crate::{
    crd::api,
    finding::Finding,
    mesh_config::LabelSelector,
    parse::{self, ParseError},
    text::Str,
};

api! {
    /// Who is injected, and with which templates.
    pub struct InjectorConfig {
        /// What happens to pods that do not say: `enabled` or `disabled`; `enabled` when absent.
        pub policy: Option<Str>,
        /// Templates of pods that name none; `sidecar` when empty.
        pub default_templates: Vec<Str>,
        /// Templates by name, Go template text each. `sidecar` and `gateway` are built in; a text here replaces them.
        pub templates: BTreeMap<Str, Str>,
        /// Names that stand for several templates.
        pub aliases: BTreeMap<Str, Vec<Str>>,
        /// Pods that are not injected, by their labels; one match is enough.
        pub never_inject_selector: Vec<LabelSelector>,
        /// Pods that are injected whatever the policy says, by their labels; one match is enough.
        pub always_inject_selector: Vec<LabelSelector>,
        /// Annotations that injected pods get.
        pub injected_annotations: BTreeMap<Str, Str>,
        /// The one template of releases before 1.10. Current charts put a text here that cannot be rendered.
        pub template: Option<Str>,
    }
}

/// The template of ordinary workloads.
pub const SIDECAR_TEMPLATE: &str = "sidecar";
/// The template of gateways.
pub const GATEWAY_TEMPLATE: &str = "gateway";

impl InjectorConfig {
    /// Reads the YAML text of the key. Unknown fields are findings.
    ///
    /// # Errors
    /// When the text is not YAML or a field has a wrong type.
    pub fn parse(text: &str) -> Result<(Self, Vec<Finding>), Box<ParseError>> {
        parse::parse_plain(text, "injector configuration")
    }

    /// The templates of pods that name none.
    #[must_use]
    pub fn default_templates(&self) -> Vec<&str> {
        if self.default_templates.is_empty() {
            return vec![SIDECAR_TEMPLATE];
        }
        self.default_templates.iter().map(Str::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_configuration_injects_the_sidecar() {
        let (config, findings) = InjectorConfig::parse("").unwrap();
        assert_eq!(config.default_templates(), [SIDECAR_TEMPLATE]);
        assert!(findings.is_empty(), "{findings:?}");
    }

    #[test]
    fn the_chart_text_of_istio_is_understood() {
        let text = "defaultTemplates: [sidecar]\npolicy: enabled\nalwaysInjectSelector:\n  []\n\
            neverInjectSelector:\n- matchExpressions:\n  - {key: openshift.io/build.name, operator: Exists}\n\
            injectedAnnotations:\ntemplate: \"{{ Mismatched }}\"\ntemplates:\n  extra: |\n    spec: {{ .Spec }}\n";
        let (config, findings) = InjectorConfig::parse(text).unwrap();
        assert_eq!((config.never_inject_selector.len(), config.templates.len()), (1, 1));
        assert!(findings.is_empty(), "{findings:?}");
    }

    #[test]
    fn an_unknown_field_is_named() {
        let (_, findings) = InjectorConfig::parse("polices: enabled").unwrap();
        assert_eq!(findings[0].path, "polices");
    }
}
