//! Whatever the changes and however they are bundled: the plan is the one that the final resources give.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::facts::{ConnFacts, RequestFacts};
use crate::head::Head;
use crate::plan::Mark;
use crate::plan::listener::ServePlan;
use crate::route::select_route;
use crate::testing::{rng, t0};
use crate::trace::Silent;
use mesh_api_xds::ir::secret::{Secret, SecretContent};

/// One step: a resource set, a resource removed, or a name resolved.
#[derive(Clone, Debug)]
enum Change {
    Set(Box<Resource>),
    Remove(TypeUrl, Str),
    Resolve(Str, Vec<[u8; 4]>),
}

const CLUSTERS: [&str; 4] = ["a", "b", "c", "d"];

fn any_cluster_name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&CLUSTERS[..])
}

fn any_endpoints() -> impl Strategy<Value = Vec<(&'static str, u32)>> {
    let at = prop::sample::select(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "db.x", "db.y"][..]);
    prop::collection::vec((at, 1..4_u32), 0..4)
}

fn any_discovery() -> impl Strategy<Value = Discovery> {
    prop_oneof![
        3 => Just(Discovery::Eds),
        1 => Just(Discovery::OriginalDst),
        1 => any_endpoints().prop_map(|e| Discovery::Static(Arc::new(mk_endpoints("x", &e)))),
        2 => any_endpoints().prop_map(|e| Discovery::Dns { endpoints: Arc::new(mk_endpoints("x", &e)), refresh: Duration::from_secs(1) }),
    ]
}

/// Some of them cannot be compiled and are cut.
fn any_route() -> impl Strategy<Value = Route> {
    let path = prop_oneof![
        3 => "/[ab]{0,2}".prop_map(|t| PathMatch::Prefix(text(&t))),
        1 => Just(PathMatch::Regex(text("/a("))),
        1 => Just(PathMatch::Exact(text("/a"))),
    ];
    (path, any_cluster_name()).prop_map(|(path, cluster)| mk_route("r", path, Action::Forward(mk_forward(cluster))))
}

fn any_host(config: Option<&'static str>) -> impl Strategy<Value = VirtualHost> {
    let domains = prop::sample::subsequence(vec!["x", "y", "*.z", "*", "Q"], 0..4);
    ("[hij]", domains, prop::collection::vec(any_route(), 0..4)).prop_map(move |(name, domains, routes)| {
        let name = config.map_or_else(|| name.clone(), |config| format!("{config}/{name}"));
        mk_host(&name, &domains, routes)
    })
}

fn any_config() -> impl Strategy<Value = RouteConfig> {
    let name = prop::sample::select(&["80", "90"][..]);
    let inline = prop::collection::vec(any_host(None), 0..3);
    prop_oneof![name.clone().prop_map(mk_apart), (name, inline).prop_map(|(name, hosts)| mk_routes(name, hosts))]
}

/// Never ambiguous: a rejected listener keeps its history, which a plan built from nothing does not have.
fn any_listener() -> impl Strategy<Value = Listener> {
    let name = prop::sample::select(&["l1", "l2", "l3"][..]);
    let at = prop::sample::select(&["0.0.0.0:80", "10.0.0.1:80", "0.0.0.0:90"][..]);
    let routes = prop_oneof![
        prop::sample::select(&["80", "90", "100"][..]).prop_map(|name| RouteSource::Named(text(name))),
        prop::collection::vec(any_host(None), 0..3)
            .prop_map(|hosts| RouteSource::Inline(Arc::new(mk_routes("inline", hosts)))),
    ];
    (name, at, routes, any_cluster_name(), any::<bool>()).prop_map(|(name, at, routes, cluster, tcp)| {
        let mut chains = vec![mk_http_chain("http", ChainMatch::default(), mk_http(routes))];
        if tcp {
            let matches = ChainMatch { destination_port: Some(1), ..ChainMatch::default() };
            chains.push(mk_tcp_chain("tcp", matches, &[(cluster, 1)]));
        }
        mk_listener(name, at, chains)
    })
}

fn any_resource() -> impl Strategy<Value = Resource> {
    let cluster = (any_cluster_name(), any_discovery()).prop_map(|(name, discovery)| mk_cluster(name, discovery));
    let endpoints = (any_cluster_name(), any_endpoints()).prop_map(|(name, endpoints)| mk_endpoints(name, &endpoints));
    let host = prop_oneof![any_host(Some("80")), any_host(Some("90"))];
    let secret = ("[st]", any::<u8>())
        .prop_map(|(name, byte)| Secret { name: text(&name), content: SecretContent::Trust([byte].into()) });
    prop_oneof![
        3 => cluster.prop_map(Resource::Cluster),
        3 => endpoints.prop_map(Resource::Endpoints),
        3 => host.prop_map(Resource::VirtualHost),
        2 => any_config().prop_map(Resource::Routes),
        2 => any_listener().prop_map(Resource::Listener),
        1 => secret.prop_map(Resource::Secret),
    ]
}

fn any_change() -> impl Strategy<Value = Change> {
    let name =
        prop::sample::select(&["a", "b", "c", "d", "80", "90", "80/h", "90/i", "80/j", "l1", "l2", "l3", "s"][..]);
    let type_url = prop::sample::select(&TypeUrl::CONFIG[..]);
    let ips = prop::collection::vec((1..4_u8).prop_map(|n| [10, 9, 9, n]), 0..3);
    prop_oneof![
        6 => any_resource().prop_map(|resource| Change::Set(Box::new(resource))),
        2 => (type_url, name).prop_map(|(type_url, name)| Change::Remove(type_url, text(name))),
        1 => (prop::sample::select(&["db.x", "db.y"][..]), ips).prop_map(|(name, ips)| Change::Resolve(text(name), ips)),
    ]
}

/// The final state of the world as one delta, by (type, name).
#[derive(Default)]
struct World {
    resources: BTreeMap<(TypeUrl, Str), Resource>,
    resolved: BTreeMap<Str, Vec<[u8; 4]>>,
}

fn type_of(resource: &Resource) -> TypeUrl {
    match resource {
        Resource::Cluster(_) => TypeUrl::Cluster,
        Resource::Endpoints(_) => TypeUrl::Endpoint,
        Resource::Listener(_) => TypeUrl::Listener,
        Resource::Routes(_) => TypeUrl::RouteConfiguration,
        Resource::VirtualHost(_) => TypeUrl::VirtualHost,
        Resource::Secret(_) => TypeUrl::Secret,
        Resource::Names(_) => TypeUrl::NameTable,
    }
}

fn resolved(name: &Str, ips: &[[u8; 4]]) -> (Str, Arc<[std::net::IpAddr]>) {
    (name.clone(), ips.iter().map(|&ip| ip.into()).collect())
}

impl World {
    /// Applies a bundle to the world and gives it as a delta. In a delta a name that is set is not removed.
    fn apply(&mut self, changes: &[Change], mark: Mark) -> Delta {
        let mut delta = Delta { mark, ..Delta::default() };
        let set: Vec<_> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Set(resource) => Some((type_of(resource), resource.name().clone())),
                _ => None,
            })
            .collect();
        for change in changes {
            match change {
                Change::Set(resource) => {
                    self.resources.insert((type_of(resource), resource.name().clone()), (**resource).clone());
                    delta.upserts.push((**resource).clone());
                }
                Change::Remove(type_url, name) => {
                    if !set.contains(&(*type_url, name.clone())) {
                        self.resources.remove(&(*type_url, name.clone()));
                    }
                    delta.removals.push((*type_url, name.clone()));
                }
                Change::Resolve(name, ips) => {
                    self.resolved.insert(name.clone(), ips.clone());
                    delta.resolved.push(resolved(name, ips));
                }
            }
        }
        delta
    }

    fn whole(&self, mark: Mark) -> Delta {
        Delta {
            mark,
            upserts: self.resources.values().cloned().collect(),
            removals: Vec::new(),
            resolved: self.resolved.iter().map(|(name, ips)| resolved(name, ips)).collect(),
        }
    }
}

/// What a plan answers to some connections and requests: indexes and slots do not print, so they are asked.
fn answers(plan: &Plan) -> Vec<String> {
    let mut answers = Vec::new();
    for destination in ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.1:90", "10.0.0.1:1"] {
        answers.push(format!("{destination} {:?}", plan.hand_off(address(destination)).map(|listener| &listener.name)));
    }
    let mut conn = ConnFacts::new(address("10.9.9.9:1"), address("10.0.0.1:80"));
    for listener in plan.listeners() {
        for port in [1, 80] {
            conn.destination.set_port(port);
            let Some(chain) = listener.select(&conn) else { continue };
            let ServePlan::Http(http) = &chain.serve else {
                answers.push(format!("{} {port} {}", listener.name, chain.name));
                continue;
            };
            for (host, path) in [("x", "/a"), ("y", "/b/"), ("w.z", "/"), ("q", "/ab"), ("other", "/a")] {
                let mut head = Head::request();
                head.set_authority(host.as_bytes()).unwrap();
                head.set_target(path.as_bytes()).unwrap();
                let facts = RequestFacts::direct(&conn);
                let selected = select_route(plan, http, &head, &facts, &mut rng(1), &mut Silent).map(|selected| {
                    let destination = selected.destination.unwrap();
                    let endpoint =
                        destination.cluster.map(|cluster| cluster.pick(&mut rng(1), &[], t0()).map(|e| e.address));
                    (
                        selected.host.name.clone(),
                        selected.route.name.clone(),
                        destination.reference.name.clone(),
                        endpoint,
                    )
                });
                answers.push(format!("{} {host}{path} {selected:?}", listener.name));
            }
        }
    }
    answers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn next_is_built_from_nothing(bundles in prop::collection::vec(prop::collection::vec(any_change(), 0..6), 1..8)) {
        let mut world = World::default();
        let mut plan = Plan::empty();
        for (generation, bundle) in (1..).zip(&bundles) {
            let mark = Mark { generation, changes: [text("id")].into() };
            let (next, _) = Plan::next(&plan, &world.apply(bundle, mark.clone()));
            let (fresh, _) = Plan::next(&Plan::empty(), &world.whole(mark));
            prop_assert_eq!(format!("{next:#?}"), format!("{fresh:#?}"));
            prop_assert_eq!(answers(&next), answers(&fresh));
            plan = next;
        }
    }
}
