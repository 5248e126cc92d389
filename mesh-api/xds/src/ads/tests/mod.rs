//! Scripts and properties of both machines, alone and against each other.

mod client;
mod property;
mod server;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mesh_api::text::Str;
use prost::Message as _;

use super::client::{ClientAction, ClientOptions, ClientSession};
use super::server::{ServerAction, ServerOptions, ServerSession};
use super::{Protocol, Rejection, Request, Response};
use crate::encoded::{Encoded, ResourceSet, TypeSet, Version};
use crate::type_url::TypeUrl;

/// A resource as tests see it: its name where all of Envoy's messages have it, and a number.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Content {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    value: u32,
}

/// The value that test clients refuse.
const BAD: u32 = 13;

fn mk_resource(name: &str, value: u32) -> Arc<Encoded> {
    let content = Content { name: name.to_owned(), value };
    // Of a virtual host `rc/<name>`: the alias `rc/<name>.alias`.
    let aliases = name.contains('/').then(|| Str::from(format!("{name}.alias"))).into_iter().collect();
    Arc::new(Encoded {
        name: Str::from(name),
        aliases,
        version: Version::of(&(name, value)),
        bytes: content.encode_to_vec().into(),
    })
}

/// A set with these `(type, name, value)`.
fn mk_set(generation: u64, resources: &[(TypeUrl, &str, u32)]) -> Arc<ResourceSet> {
    let mut set = ResourceSet::new(generation, [Str::from(format!("change-{generation}"))]);
    for type_url in TypeUrl::CONFIG {
        let of_type = resources.iter().filter(|(t, ..)| *t == type_url);
        set = set.with(type_url, TypeSet::new(of_type.map(|(_, name, value)| mk_resource(name, *value))));
    }
    Arc::new(set)
}

fn mk_server(protocol: Protocol, marks: bool, set: &Arc<ResourceSet>) -> ServerSession {
    ServerSession::new(ServerOptions { protocol, marks }, Arc::clone(set))
}

fn mk_client(protocol: Protocol) -> ClientSession {
    ClientSession::new(ClientOptions {
        protocol,
        node: Bytes::from_static(b"node"),
        demand_timeout: Duration::from_secs(2),
        max_demands: 8,
    })
}

/// Some time; the machines never look at a clock.
fn epoch() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "any instant will do: tests add to it")]
    Instant::now()
}

/// What a client runs.
type Live = BTreeMap<(TypeUrl, Str), u32>;

/// A client and a server with a stream between them, and the state that the client's shell would use.
struct Pair {
    client: ClientSession,
    server: ServerSession,
    marks: bool,
    to_server: VecDeque<Request>,
    to_client: VecDeque<Response>,
    /// What the shell runs: accepted updates, or with marks those committed.
    live: Live,
    staged: Live,
    /// Generations committed, with the state at that time.
    commits: Vec<(u64, Live)>,
    /// Types to answer, with the resources to reject.
    answers: Vec<(TypeUrl, Vec<Rejection>)>,
    applied: Vec<(u64, Vec<TypeUrl>)>,
    /// Configuration resources that crossed the wire.
    resources_sent: usize,
}

impl Pair {
    fn new(protocol: Protocol, marks: bool, set: &Arc<ResourceSet>) -> Self {
        Self {
            client: mk_client(protocol),
            server: mk_server(protocol, marks, set),
            marks,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            live: BTreeMap::new(),
            staged: BTreeMap::new(),
            commits: Vec::new(),
            answers: Vec::new(),
            applied: Vec::new(),
            resources_sent: 0,
        }
    }

    /// Opens a stream to a server that knows nothing of the client.
    fn connect(&mut self, protocol: Protocol, set: &Arc<ResourceSet>) {
        self.to_server.clear();
        self.to_client.clear();
        self.answers.clear();
        self.staged = self.live.clone();
        self.server = mk_server(protocol, self.marks, set);
        let actions = self.client.on_connected();
        self.obey(actions);
    }

    fn publish(&mut self, set: &Arc<ResourceSet>) {
        let actions = self.server.on_resources(Arc::clone(set));
        self.serve(actions);
    }

    fn obey(&mut self, actions: Vec<ClientAction>) {
        for action in actions {
            match action {
                ClientAction::Send(request) => self.to_server.push_back(request),
                ClientAction::Update(update) => {
                    let mut rejections = Vec::new();
                    for received in update.upserts {
                        let content = Content::decode(received.bytes).unwrap();
                        if content.value == BAD {
                            let reason = Str::from("bad luck");
                            rejections.push(Rejection { name: received.name, path: Str::from("value"), reason });
                        } else {
                            self.staged.insert((update.type_url, received.name), content.value);
                        }
                    }
                    for name in update.removals {
                        self.staged.remove(&(update.type_url, name));
                    }
                    self.answers.push((update.type_url, rejections));
                    if !self.marks {
                        self.live = self.staged.clone();
                        self.answer();
                    }
                }
                ClientAction::Commit { generation, .. } => {
                    self.live = self.staged.clone();
                    self.commits.push((generation, self.live.clone()));
                    self.answers.push((TypeUrl::Generation, Vec::new()));
                    self.answer();
                }
                ClientAction::Absent { .. } | ClientAction::WakeAt(_) => {}
                ClientAction::Close(reason) => panic!("client closes: {reason}"),
            }
        }
    }

    fn answer(&mut self) {
        for (type_url, rejections) in std::mem::take(&mut self.answers) {
            let actions = match rejections.as_slice() {
                [] => self.client.ack(type_url),
                rejections => self.client.nack(type_url, "bad luck", rejections),
            };
            self.obey(actions);
        }
    }

    fn serve(&mut self, actions: Vec<ServerAction>) {
        for action in actions {
            match action {
                ServerAction::Send(response) => self.to_client.push_back(response),
                ServerAction::Applied { generation, rejected, .. } => self.applied.push((generation, rejected)),
                ServerAction::Acked { .. } | ServerAction::Nacked { .. } => {}
                ServerAction::Close(reason) => panic!("server closes: {reason}"),
            }
        }
    }

    /// Moves one message towards the server; whether there was one.
    fn step_up(&mut self) -> bool {
        let Some(request) = self.to_server.pop_front() else { return false };
        let actions = self.server.on_request(request);
        self.serve(actions);
        true
    }

    /// Moves one message towards the client; whether there was one.
    fn step_down(&mut self) -> bool {
        let Some(response) = self.to_client.pop_front() else { return false };
        if response.type_url() != TypeUrl::Generation.as_str() {
            self.resources_sent += match &response {
                Response::Delta(response) => response.resources.len() + response.removed_resources.len(),
                Response::Sotw(response) => response.resources.len(),
            };
        }
        let actions = self.client.on_response(response);
        self.obey(actions);
        true
    }

    /// Runs until both sides are silent.
    #[track_caller]
    fn settle(&mut self) {
        for _ in 0..100_000 {
            if !self.step_up() && !self.step_down() {
                return;
            }
        }
        panic!("the two never fall silent");
    }

    fn live_of(&self, type_url: TypeUrl) -> BTreeMap<&str, u32> {
        let of_type = self.live.iter().filter(|((t, _), _)| *t == type_url);
        of_type.map(|((_, name), value)| (name.as_str(), *value)).collect()
    }
}
