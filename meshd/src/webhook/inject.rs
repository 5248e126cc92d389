//! `/inject`: pods get their proxy.

use std::sync::Arc;

use meshd_core::inject::{Admission, Facts, ProxyConfigs, env_of_path};

use super::review::{Answer, Question};
use super::settings::Settings;

/// What became of a pod, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It got a proxy.
    Injected,
    /// It stays as it is.
    Skipped,
    /// It was refused.
    Refused,
}

/// Answers a question with the injector of the moment; `path` may set variables. `native_sidecar` says what the cluster's
/// nodes can do.
pub(crate) async fn answer(
    settings: &Settings,
    question: &Question,
    path: &str,
    native_sidecar: bool,
    proxy_configs: Arc<ProxyConfigs>,
) -> (Answer, Outcome) {
    if question.kind.kind != "Pod" || question.operation != "CREATE" {
        return (Answer::allowed(), Outcome::Skipped);
    }
    let Some(injector) = settings.injector() else {
        let why = "the control plane has no usable injection configuration; see its log, and ConfigMap istio-sidecar-injector";
        return (Answer::refused(why), Outcome::Refused);
    };
    let namespace_annotations = match settings.annotations(&question.namespace).await {
        Ok(annotations) => annotations,
        Err(error) => {
            let why = format!("namespace {} could not be read: {error}", question.namespace);
            return (Answer::refused(why), Outcome::Refused);
        }
    };
    let facts = Facts {
        namespace: question.namespace.clone(),
        namespace_annotations,
        owner: None,
        env: env_of_path(path),
        native_sidecar,
        proxy_configs,
    };
    match injector.admit(&question.object, &facts) {
        Ok(Admission::Skipped(reason)) => {
            tracing::debug!(namespace = question.namespace, %reason, "Pod is not injected");
            (Answer::allowed(), Outcome::Skipped)
        }
        Ok(Admission::Patched { patch, warnings }) => {
            (Answer { patch: Some(patch), ..Answer::allowed().warning(warnings) }, Outcome::Injected)
        }
        Err(refusal) => {
            tracing::info!(namespace = question.namespace, error = %refusal, "Pod refused");
            (Answer::refused(refusal.message), Outcome::Refused)
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::{Value, json};

    use super::super::review::GroupKind;
    use super::super::settings::tests::mk_settings;
    use super::*;

    fn mk_question(labels: Value) -> Question {
        let container = json!({"name": "web", "image": "web"});
        let pod = json!({"metadata": {"name": "web", "labels": labels}, "spec": {"containers": [container]}});
        Question {
            uid: "u".into(),
            kind: GroupKind { version: "v1".into(), kind: "Pod".into(), ..GroupKind::default() },
            namespace: "shop".into(),
            operation: "CREATE".into(),
            object: pod,
            ..Question::default()
        }
    }

    #[tokio::test]
    async fn a_pod_gets_its_proxy_with_what_the_path_says() {
        let settings = mk_settings();
        let question = mk_question(json!({}));
        let (answer, outcome) = answer(&settings, &question, "/inject/cluster/west/net/n1", true, Arc::default()).await;
        assert_eq!((answer.refused.as_deref(), outcome), (None, Outcome::Injected));
        let json: Value = serde_json::from_slice(&answer.to_json("u")).unwrap();
        let patch = STANDARD.decode(json["response"]["patch"].as_str().unwrap()).unwrap();
        let patch = String::from_utf8(patch).unwrap();
        assert!(patch.contains("istio-proxy") && patch.contains("west") && patch.contains("n1"), "{patch}");
    }

    #[tokio::test]
    async fn the_namespaces_proxy_config_counts() {
        use mesh_api::crd::networking::proxy_config::ProxyConfig;
        use mesh_api::meta::Meta;
        use mesh_api::object::Object;

        let spec = ProxyConfig { concurrency: Some(7), ..ProxyConfig::default() };
        let configs = Arc::new(ProxyConfigs::new([&Object::new(Meta::new("shop", "all"), spec)]));
        let settings = mk_settings();
        let (answer, _) = answer(&settings, &mk_question(json!({})), "/inject", true, configs).await;
        assert!(answer.patch.unwrap().to_string().contains(r#"\"concurrency\":7"#));
    }

    #[tokio::test]
    async fn who_says_no_is_left_alone_and_others_are_not_asked_about() {
        let settings = mk_settings();
        let no = mk_question(json!({"sidecar.istio.io/inject": "false"}));
        assert_eq!(
            answer(&settings, &no, "/inject", true, Arc::default()).await,
            (Answer::allowed(), Outcome::Skipped)
        );
        let system =
            Question { namespace: "kube-system".into(), ..mk_question(json!({"sidecar.istio.io/inject": "true"})) };
        assert_eq!(
            answer(&settings, &system, "/inject", true, Arc::default()).await,
            (Answer::allowed(), Outcome::Skipped)
        );
        let update = Question { operation: "UPDATE".into(), ..mk_question(json!({})) };
        assert_eq!(
            answer(&settings, &update, "/inject", true, Arc::default()).await,
            (Answer::allowed(), Outcome::Skipped)
        );
    }

    #[tokio::test]
    async fn without_configuration_a_pod_is_refused_not_let_in_without_its_proxy() {
        let settings = Settings::new(crate::kube::fake::Objects::default().client());
        let (answer, outcome) = answer(&settings, &mk_question(json!({})), "/inject", true, Arc::default()).await;
        assert_eq!(outcome, Outcome::Refused);
        assert!(answer.refused.unwrap().contains("istio-sidecar-injector"));
    }
}
