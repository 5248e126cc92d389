use super::*;

/// A workspace in which every package keeps its floor.
fn sound() -> Graph {
    let mut graph = Graph::default();
    for floor in FLOORS {
        let path = match floor.package {
            "mesh-api-xds" => "mesh-api/xds".to_owned(),
            "mesh-api-rt" => "mesh-api/rt".to_owned(),
            "meshd-core" => "meshd/core".to_owned(),
            "mesh-proxy-core" => "mesh-proxy/core".to_owned(),
            "e2e-shop" => "e2e/shop".to_owned(),
            name => name.to_owned(),
        };
        let normal = floor.ours.iter().map(|name| (*name).to_owned()).collect();
        graph.members.insert(floor.package.to_owned(), Member { path, normal, ..Member::default() });
    }
    graph.resolved.insert(("tokio".to_owned(), "v1.54.1".to_owned()));
    graph
}

/// Breaks one thing and expects exactly one complaint that holds `expect`.
#[track_caller]
fn check(spoil: impl FnOnce(&mut Graph), expect: &str) {
    let mut graph = sound();
    spoil(&mut graph);
    let found = problems(&graph);
    assert!(found.len() == 1 && found[0].contains(expect), "expected one complaint with {expect:?}, found {found:#?}");
}

fn member<'g>(graph: &'g mut Graph, name: &str) -> &'g mut Member {
    graph.members.get_mut(name).unwrap()
}

#[test]
fn a_sound_workspace_has_no_complaint() {
    assert_eq!(problems(&sound()), Vec::<String>::new());
}

#[test]
fn names_follow_paths() {
    check(|graph| member(graph, "mesh-ca").path = "ca".to_owned(), "asks for `ca`");
}

#[test]
fn a_package_without_a_floor_is_named() {
    check(
        |graph| {
            graph.members.insert("new".to_owned(), Member { path: "new".to_owned(), ..Member::default() });
        },
        "new: no floor",
    );
}

#[test]
fn higher_floors_are_out_of_reach() {
    check(
        |graph| {
            member(graph, "mesh-api").normal.insert("mesh-api-xds".to_owned());
        },
        "mesh-api: must not depend on mesh-api-xds",
    );
    check(
        |graph| {
            member(graph, "mesh-proxy").tests.insert("meshd-core".to_owned());
        },
        "mesh-proxy: its tests must not depend on meshd-core",
    );
}

#[test]
fn simulation_tests_of_the_control_plane_may_use_the_proxy_core() {
    let mut graph = sound();
    member(&mut graph, "meshd-core").tests.insert("mesh-proxy-core".to_owned());
    assert_eq!(problems(&graph), Vec::<String>::new());
}

#[test]
fn what_must_not_be_in_the_graph_is_found_however_deep() {
    check(
        |graph| {
            member(graph, "meshd-core").reachable.insert("tokio".to_owned());
        },
        "meshd-core: tokio must not be in its graph",
    );
}

#[test]
fn pure_crates_have_a_closed_list() {
    check(
        |graph| {
            member(graph, "mesh-proxy-core").normal.insert("reqwest".to_owned());
        },
        "mesh-proxy-core: may not name reqwest",
    );
}

#[test]
fn kube_stays_at_the_edges() {
    check(
        |graph| {
            member(graph, "mesh-ca").tests.insert("k8s-openapi".to_owned());
        },
        "mesh-ca: names k8s-openapi",
    );
}

#[test]
fn testing_features_stay_in_tests() {
    check(
        |graph| {
            member(graph, "meshd").testing.insert("meshd-core".to_owned());
        },
        "meshd: feature `testing` of meshd-core",
    );
    check(|graph| member(graph, "mesh-ca").testing_by_default = true, "must not be a default feature");
}

#[test]
fn banned_and_doubled_packages_are_found() {
    check(
        |graph| {
            graph.resolved.insert(("ring".to_owned(), "v0.17.8".to_owned()));
        },
        "ring is banned",
    );
    check(
        |graph| {
            graph.resolved.insert(("tokio".to_owned(), "v0.2.25".to_owned()));
        },
        "tokio must exist once, found v0.2.25 and v1.54.1",
    );
}

#[test]
fn a_tree_is_read_with_all_its_edges() {
    let edges = edges_of("0 a v1 (path)\n1 b v1\n2 c v2\n3 d v1\n1 c v2 (*)\n");
    let shown: Vec<String> = edges.iter().map(|(from, to)| format!("{from} {to:?}")).collect();
    assert_eq!(shown, [r#"a {"b", "c"}"#, r#"b {"c"}"#, r#"c {"d"}"#]);
}

#[test]
fn this_workspace_keeps_its_floors() {
    let found = super::check().unwrap();
    assert!(found.is_empty(), "{}", found.join("\n"));
}
