use mesh_api::crd::common::StringMatch;
use mesh_api::parse::parse;

use super::*;
use crate::world::Change;

fn mk_world(text: &str) -> World {
    let mut world = World::default();
    for item in parse(text, "shop").objects {
        world.apply(Change::Upsert { cluster: ClusterId::from("c"), object: item.unwrap().object });
    }
    world
}

fn served(world: &World, config: &MeshConfig) -> Vec<String> {
    let converted = convert(world, &Settings::of(config), "cluster.local");
    converted.served.iter().map(|key| key.name.to_string()).collect()
}

const CLASSES: &str = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: ours}
spec: {controller: istio.io/ingress-controller}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: theirs}
spec: {controller: example.com/other}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: by-class}
spec: {ingressClassName: ours}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: of-others}
spec: {ingressClassName: theirs}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: of-nobody}
spec: {ingressClassName: missing}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: by-annotation, annotations: {kubernetes.io/ingress.class: istio}}
spec: {ingressClassName: theirs}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: annotated-otherwise, annotations: {kubernetes.io/ingress.class: nginx}}
spec: {ingressClassName: ours}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: without}
spec: {}
";

#[test]
fn the_mode_and_the_class_say_which_are_ours() {
    let world = mk_world(CLASSES);
    let with = |mode| MeshConfig { ingress_controller_mode: Some(mode), ..MeshConfig::default() };
    assert_eq!(served(&world, &MeshConfig::default()), ["by-annotation", "by-class"]);
    assert_eq!(served(&world, &with(IngressControllerMode::Strict)), ["by-annotation", "by-class"]);
    assert_eq!(served(&world, &with(IngressControllerMode::Default)), ["by-annotation", "by-class", "without"]);
    assert_eq!(served(&world, &with(IngressControllerMode::Off)), [""; 0]);
    let nginx = MeshConfig { ingress_class: Some("nginx".into()), ..MeshConfig::default() };
    assert_eq!(served(&world, &nginx), ["annotated-otherwise", "by-class"]);
}

#[test]
fn the_gateway_is_that_of_the_configuration() {
    let check = |selector: &str, service: &str, expect: &str| {
        let config = MeshConfig {
            ingress_selector: Some(selector.into()),
            ingress_service: Some(service.into()),
            ..MeshConfig::default()
        };
        assert_eq!(Settings::of(&config).selector, Selector::from([("istio", expect)]));
    };
    check("", "", "ingressgateway");
    check("", "istio-ingressgateway", "ingressgateway");
    check("", "edge", "edge");
    check("front", "edge", "front");
}

#[test]
fn paths_are_taken_by_segments_and_the_longest_wins() {
    let rank = |path_type, path| path::matches(path_type, path).unwrap().0;
    assert!(rank("Prefix", "/a/b") < rank("Exact", "/a"));
    assert!(rank("Exact", "/a") < rank("Prefix", "/a"));
    assert!(rank("Prefix", "/") < Rank::LAST);
    let uris = |path_type, path| -> Vec<StringMatch> {
        path::matches(path_type, path).unwrap().1.into_iter().filter_map(|request| request.uri).collect()
    };
    let (exact, prefix) = (|text: &str| StringMatch::Exact(text.into()), |text: &str| StringMatch::Prefix(text.into()));
    assert_eq!(uris("Exact", "/a/"), [exact("/a/")]);
    assert_eq!(uris("Prefix", "/a"), [exact("/a"), prefix("/a/")]);
    assert_eq!(uris("Prefix", "/a/"), [exact("/a"), prefix("/a/")]);
    assert_eq!(uris("Prefix", "/"), []);
    assert_eq!(uris("ImplementationSpecific", "/a.*"), [prefix("/a")]);
    assert_eq!(uris("ImplementationSpecific", "/a/*"), [prefix("/a")]);
    assert_eq!(uris("ImplementationSpecific", "/a"), [exact("/a")]);
    assert_eq!(uris("", "/*"), []);
    assert!(path::matches("Guess", "/").is_none());
}
