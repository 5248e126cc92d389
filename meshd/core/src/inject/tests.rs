use super::*;

#[test]
fn the_path_of_the_webhook_sets_variables() {
    let check = |path: &str, expected: &[(&str, &str)]| {
        let expected = expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        assert_eq!(env_of_path(path), expected, "{path}");
    };
    check("/inject", &[]);
    check("/inject/", &[]);
    check("/inject/cluster/c1/net/n1/", &[("ISTIO_META_CLUSTER_ID", "c1"), ("ISTIO_META_NETWORK", "n1")]);
    check("/inject/x_y/a--slash--b/odd", &[("X_Y", "a/b")]);
    check("/inject/:ENV:net=n1:ENV:A=b=c:ENV:=x", &[("ISTIO_META_NETWORK", "n1"), ("A", "b=c")]);
}

#[test]
fn a_text_that_is_no_template_is_an_error_of_the_configuration() {
    let config = r#"{"templates": {"extra": "a: {{ .Revision | unknownFunction }}"}}"#;
    let error = Injector::from_config(config, "", &MeshConfig::default(), "").unwrap_err();
    assert!(matches!(&error, ConfigError::Template { name, .. } if *name == "extra"), "{error:?}");
}

#[test]
fn who_asks_for_injection_is_not_asked_about_policy() {
    let config = "policy: disabled\nneverInjectSelector: [{matchLabels: {app: web}}]\n";
    let injector = Injector::from_config(config, "", &MeshConfig::default(), "").unwrap();
    let pod = serde_json::json!({"metadata": {"labels": {"app": "web"}}});
    let facts = PodFacts { pod: &pod, namespace: "shop" };
    assert_eq!(injector.decide(&facts), Decision::Skip(SkipReason::NeverSelector(0)));
    assert_eq!(injector.on_demand().decide(&facts), Decision::Inject(Cause::Policy));
}

#[test]
fn every_reason_reads_as_a_sentence() {
    let check = |config: &str, pod: Value, expected: &str| {
        let injector = Injector::from_config(config, "", &MeshConfig::default(), "").unwrap();
        assert_eq!(injector.decide(&PodFacts { pod: &pod, namespace: "shop" }).to_string(), expected);
    };
    let labelled = |labels: Value| serde_json::json!({"metadata": {"labels": labels}});
    check("", labelled(serde_json::json!({})), "the injection policy is enabled");
    check(
        "policy: maybe",
        labelled(serde_json::json!({})),
        "the injection policy is \"maybe\"; it must be enabled or disabled",
    );
    let always =
        "policy: disabled\nalwaysInjectSelector: [{}, {matchExpressions: [{key: a, operator: In, values: [b]}]}]";
    check(always, labelled(serde_json::json!({"a": "b"})), "pod labels match alwaysInjectSelector[1]");
    let none = "the injection policy is disabled and no label sidecar.istio.io/inject asks for injection";
    check(always, labelled(serde_json::json!({"a": "c"})), none);
    // A value that is neither is as good as none.
    check("", labelled(serde_json::json!({"sidecar.istio.io/inject": "yes"})), "the injection policy is enabled");
}
