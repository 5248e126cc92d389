use mesh_api::inject::surface::{self, Effect};

use super::*;

fn checked(text: &str) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.yaml");
    std::fs::write(&path, text).unwrap();
    report(&objects::from_files(&[path], "shop").unwrap(), None)
}

#[test]
fn filters_annotations_and_fields_are_listed_with_what_to_do() {
    let refused = surface::rows()
        .find(|row| row.carrier == surface::Carrier::PodAnnotation && matches!(row.effect, Effect::Refused(_)))
        .unwrap();
    let text = format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: lua}}\nspec: {{}}\n---\n\
         apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  template:\n    metadata:\n      \
         annotations: {{{}: x}}\n",
        refused.name
    );
    let report = checked(&text);
    assert_eq!(report.exit, Exit::User);
    let rows = &report.table.rows;
    assert!(rows.iter().any(|row| row[0] == "blocks" && row[1] == "EnvoyFilter shop/lua"), "{rows:?}");
    let of_deployment = rows.iter().find(|row| row[1] == "Deployment shop/web").unwrap();
    assert!(of_deployment[0] == "blocks" && of_deployment[3].ends_with(refused.name), "{of_deployment:?}");
    assert!(rows.iter().all(|row| !row[5].is_empty()), "each says what to do: {rows:?}");
}

#[test]
fn what_behaves_the_same_is_not_listed() {
    let report = checked(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\n\
         spec: {hosts: [web], http: [{route: [{destination: {host: web}}]}]}\n",
    );
    assert_eq!((report.exit, report.table.rows.len()), (Exit::Ok, 0));
}

#[test]
fn the_mesh_configuration_is_looked_at() {
    let report = checked(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio-canary, namespace: istio-system}\n\
         data:\n  mesh: |\n    caCertificates: []\n    noSuchField: 1\n",
    );
    assert!(report.table.rows.iter().any(|row| row[3] == "data.mesh.noSuchField"), "{:?}", report.table.rows);
}

#[test]
fn documents_that_are_no_objects_are_a_note() {
    let report = checked("swagger: '2.0'\ninfo: {title: Bookinfo}\n");
    assert_eq!((report.exit, report.table.rows.len()), (Exit::Ok, 0));
    assert!(report.notes.iter().any(|note| note.starts_with("not looked at: 1 documents")), "{:?}", report.notes);
}

#[track_caller]
fn only(text: &str, weight: &str, object: &str, field: &str) {
    let report = checked(text);
    let rows: Vec<_> =
        report.table.rows.iter().map(|row| (row[0].as_str(), row[1].as_str(), row[3].as_str())).collect();
    assert_eq!(rows, [(weight, object, field)]);
}

#[test]
fn settings_of_an_installation_are_looked_at() {
    only(
        "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n  profile: demo\n  values: {global: {sts: {servicePort: 1}}}\n",
        "blocks",
        "IstioOperator",
        "spec.values.global.sts",
    );
    only(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n\
         data:\n  mesh: |\n    defaultConfig: {proxyMetadata: {CA_PROVIDER: GoogleCA}}\n",
        "blocks",
        "ConfigMap istio-system/istio",
        "data.mesh.defaultConfig: proxyMetadata.CA_PROVIDER",
    );
    only(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio-sidecar-injector, namespace: istio-system}\n\
         data:\n  config: |\n    policy: enabled\n    templates: {sidecar: '', mine: 'spec: {}'}\n",
        "differs",
        "ConfigMap istio-system/istio-sidecar-injector",
        "data.config.templates.mine",
    );
}

#[test]
fn variables_of_istios_control_plane_are_looked_at() {
    let deployment = |labels: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: istiod, namespace: istio-system, labels: {{{labels}}}}}\n\
             spec: {{template: {{spec: {{containers: [{{name: discovery, env: [{{name: PILOT_CERT_PROVIDER, value: istiod}}, \
             {{name: PILOT_ENABLE_MYSQL_FILTER, value: \"true\"}}]}}]}}}}}}\n"
        )
    };
    only(
        &deployment("app: istiod"),
        "differs",
        "Deployment istio-system/istiod",
        "spec.template.spec.containers[discovery].env.PILOT_ENABLE_MYSQL_FILTER",
    );
    let ours = checked(&deployment("app: istiod, app.kubernetes.io/managed-by: lateen"));
    assert_eq!(ours.table.rows.len(), 0, "{:?}", ours.table.rows);
}

#[test]
fn workloads_that_say_what_their_proxy_is_are_looked_at() {
    let deployment = |pod: &str| {
        format!("apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec: {{template: {pod}}}\n")
    };
    only(
        &deployment(
            "{spec: {containers: [{name: app, image: a}, {name: istio-proxy, image: docker.io/istio/proxyv2:1.31.0}]}}",
        ),
        "blocks",
        "Deployment shop/web",
        "spec.template.spec.containers[1].image",
    );
    only(
        &deployment(
            "{spec: {containers: [{name: istio-proxy, image: auto, env: [{name: FILE_MOUNTED_CERTS, value: \"true\"}]}]}}",
        ),
        "blocks",
        "Deployment shop/web",
        "spec.template.spec.containers[0].env[0]",
    );
    only(
        &deployment("{metadata: {annotations: {proxy.istio.io/config: 'proxyMetadata: {XDS_AUTH_PROVIDER: gcp}'}}}"),
        "blocks",
        "Deployment shop/web",
        "spec.template.metadata.annotations.proxy.istio.io/config: proxyMetadata.XDS_AUTH_PROVIDER",
    );
    only(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}\n",
        "blocks",
        "Namespace shop",
        "metadata.labels.istio.io/dataplane-mode",
    );
    let made = checked("apiVersion: v1\nkind: Service\nmetadata: {name: a, labels: {operator.istio.io/managed: x}}\n");
    assert_eq!(made.table.rows.len(), 0, "{:?}", made.table.rows);
}
