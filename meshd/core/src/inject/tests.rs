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
