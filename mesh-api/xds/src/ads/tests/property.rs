//! Any history of states, subscriptions and broken streams ends with the client holding what the server serves.

use proptest::prelude::*;

use super::*;
use crate::ads::client::Interest;
use TypeUrl::{Cluster, Endpoint, Generation, Listener, VirtualHost};

#[derive(Clone, Debug)]
enum Op {
    /// The resource gets this value, or goes.
    Edit(TypeUrl, u8, Option<u32>),
    /// The edits so far are published as the next state.
    Publish,
    /// Some messages arrive.
    Deliver { up: u8, down: u8 },
    /// The stream breaks and a new one is opened.
    Reconnect,
    /// A name is asked for, or no longer.
    Want(TypeUrl, u8, bool),
}

fn arb_op() -> impl Strategy<Value = Op> {
    let config = prop::sample::select(vec![Cluster, Endpoint, Listener, VirtualHost]);
    let named = prop::sample::select(vec![Endpoint, VirtualHost]);
    prop_oneof![
        4 => (config, 0u8..5, prop::option::weighted(0.8, 10u32..15)).prop_map(|(t, n, v)| Op::Edit(t, n, v)),
        3 => Just(Op::Publish),
        4 => (0u8..4, 0u8..4).prop_map(|(up, down)| Op::Deliver { up, down }),
        1 => Just(Op::Reconnect),
        2 => (named, 0u8..5, any::<bool>()).prop_map(|(t, n, on)| Op::Want(t, n, on)),
    ]
}

fn name_of(type_url: TypeUrl, number: u8) -> String {
    if type_url == VirtualHost { format!("80/{number}") } else { format!("r{number}") }
}

type World = BTreeMap<(TypeUrl, String), u32>;

fn mk_world_set(generation: u64, world: &World) -> Arc<ResourceSet> {
    let resources: Vec<_> = world.iter().map(|((t, name), value)| (*t, name.as_str(), *value)).collect();
    mk_set(generation, &resources)
}

/// How a client subscribes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Marks,
    Names,
    Sotw,
}

/// Plays a history; returns the pair at its end, the last world, and every published one.
fn play(mode: Mode, ops: &[Op]) -> (Pair, World, Vec<World>) {
    let protocol = if mode == Mode::Sotw { Protocol::Sotw } else { Protocol::Delta };
    let (mut world, mut published) = (World::new(), vec![World::new()]);
    let mut set = mk_world_set(0, &world);
    let mut pair = Pair::new(protocol, mode == Mode::Marks, &set);
    pair.client.subscribe(Cluster, Interest::All);
    pair.client.subscribe(Listener, Interest::All);
    if mode == Mode::Marks {
        pair.client.subscribe(Endpoint, Interest::All);
        pair.client.subscribe(VirtualHost, Interest::All);
        pair.client.subscribe(Generation, Interest::All);
    }
    pair.connect(protocol, &set);
    for op in ops {
        match op.clone() {
            Op::Edit(type_url, number, value) => {
                let key = (type_url, name_of(type_url, number));
                match value {
                    Some(value) => drop(world.insert(key, value)),
                    None => drop(world.remove(&key)),
                }
            }
            Op::Publish => {
                set = mk_world_set(published.len() as u64, &world);
                published.push(world.clone());
                pair.publish(&set);
            }
            Op::Deliver { mut up, mut down } => {
                while up > 0 && pair.step_up() {
                    up -= 1;
                }
                while down > 0 && pair.step_down() {
                    down -= 1;
                }
            }
            Op::Reconnect => pair.connect(protocol, &set),
            Op::Want(..) if mode == Mode::Marks => {}
            Op::Want(type_url, number, on) => {
                let name = Str::from(name_of(type_url, number));
                let actions = if on {
                    pair.client.subscribe(type_url, Interest::Names(vec![name]))
                } else {
                    pair.live.remove(&(type_url, name.clone()));
                    pair.staged.remove(&(type_url, name.clone()));
                    pair.client.unsubscribe(type_url, &[name])
                };
                pair.obey(actions);
            }
        }
    }
    set = mk_world_set(published.len() as u64, &world);
    published.push(world.clone());
    pair.publish(&set);
    pair.settle();
    (pair, world, published)
}

/// What a client must hold of a world: all good values. A bad one leaves any earlier value, or none.
fn check_final(
    pair: &Pair,
    world: &World,
    type_url: TypeUrl,
    wanted: impl Fn(&str) -> bool,
    removals: bool,
) -> Result<(), TestCaseError> {
    let live = pair.live_of(type_url);
    for ((_, name), value) in world.iter().filter(|((t, name), _)| *t == type_url && wanted(name)) {
        if *value != BAD {
            prop_assert_eq!(live.get(name.as_str()), Some(value), "{} {}", type_url, name);
        }
    }
    for name in live.keys() {
        prop_assert!(wanted(name), "{} {} is not subscribed to", type_url, name);
        prop_assert!(!removals || world.contains_key(&(type_url, (*name).to_owned())), "{} {} is gone", type_url, name);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_history_ends_in_the_servers_state(ops in prop::collection::vec(arb_op(), 0..60)) {
        for mode in [Mode::Marks, Mode::Names, Mode::Sotw] {
            let (pair, world, _) = play(mode, &ops);
            let names = |type_url| -> Vec<String> { pair.server.names(type_url).map(ToString::to_string).collect() };
            let (endpoints, hosts) = (names(Endpoint), names(VirtualHost));
            // A rejected listener or host is kept as it was, and so are the clusters that it may lead to.
            let rejected = world.iter().any(|((t, _), value)| *value == BAD && matches!(t, Listener | VirtualHost));
            let removes = mode != Mode::Names || !rejected;
            check_final(&pair, &world, Cluster, |_| true, removes)?;
            check_final(&pair, &world, Listener, |_| true, true)?;
            let all = mode == Mode::Marks;
            // State of the world has no words for the end of an endpoint set.
            check_final(&pair, &world, Endpoint, |name| all || endpoints.iter().any(|n| n == name), mode != Mode::Sotw && removes)?;
            check_final(&pair, &world, VirtualHost, |name| all || hosts.iter().any(|n| n == name), mode != Mode::Sotw)?;
            prop_assert_eq!(pair.server.applied(), Some(pair.server.resources().generation));
            // Once silent, a reconnect moves no resource, bad ones apart.
            if !world.values().any(|value| *value == BAD) && mode != Mode::Sotw {
                let (mut pair, before) = { let n = pair.resources_sent; (pair, n) };
                let set = mk_world_set(1, &world);
                pair.connect(Protocol::Delta, &set);
                pair.settle();
                let wanted = endpoints.iter().map(|name| (Endpoint, name)).chain(hosts.iter().map(|name| (VirtualHost, name)));
                let asked_for_nothing = wanted.filter(|(t, name)| !world.contains_key(&(*t, (*name).clone()))).count();
                prop_assert!(pair.resources_sent - before <= asked_for_nothing, "resent");
            }
        }
    }

    #[test]
    fn every_commit_is_a_state_that_was_published(ops in prop::collection::vec(arb_op(), 0..60)) {
        let (pair, _, published) = play(Mode::Marks, &ops);
        for (generation, state) in &pair.commits {
            let world = &published[usize::try_from(*generation).unwrap()];
            for ((type_url, name), value) in world.iter().filter(|(_, value)| **value != BAD) {
                prop_assert_eq!(state.get(&(*type_url, Str::from(name))), Some(value));
            }
            for (type_url, name) in state.keys() {
                prop_assert!(world.contains_key(&(*type_url, name.to_string())), "{} {} at {}", type_url, name, generation);
            }
        }
    }
}
