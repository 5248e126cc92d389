//! The proxy's side of a stream, which outlives the stream: subscriptions and held versions survive a reconnect.
//!
//! The shell subscribes, pumps messages, and tells for each update whether it was accepted ([`ClientSession::ack`],
//! [`ClientSession::nack`]). What is held is known only after that answer: until then the last good state counts.

mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mesh_api::text::Str;
use prost::Message as _;

use self::state::{TypeState, Unanswered};
use super::sub::WILDCARD;
use super::{CloseReason, MAX_NAME_BYTES, MAX_UNANSWERED, Protocol, Rejection, Request, Response, nack_status};
use crate::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, GenerationMark, Status,
};
use crate::encoded::Version;
use crate::ir::names::NameTable;
use crate::type_url::{PerType, TypeUrl};

/// Settings of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// Variant of the protocol.
    pub protocol: Protocol,
    /// Encoded node, sent with the first request of each stream.
    pub node: Bytes,
    /// How long a demand waits for its answer.
    pub demand_timeout: Duration,
    /// Most names on demand at one time, over all types; bounded because strangers choose the names.
    pub max_demands: usize,
}

/// What the shell has to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAction {
    /// Write the message to the stream.
    Send(Request),
    /// Look at new configuration, then answer with `ack` or `nack`. With marks: stage it until [`ClientAction::Commit`].
    Update(Update),
    /// All updates so far make a consistent state: use it, then answer for each type, the mark included.
    Commit {
        /// Generation of the state.
        generation: u64,
        /// Ids of the changes that led to it.
        changes: Vec<Str>,
    },
    /// A demanded resource will not come for now. The subscription stays: if it appears later, it is sent.
    Absent {
        /// Type of the resource.
        type_url: TypeUrl,
        /// The demanded name.
        name: Str,
        /// Why.
        reason: Absence,
    },
    /// Call [`ClientSession::on_wake`] at this time. Replaces an earlier one.
    WakeAt(Instant),
    /// End the stream and connect again later.
    Close(CloseReason),
}

/// Why a demanded resource is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Absence {
    /// The server says that there is none.
    Unknown,
    /// The server did not answer in time.
    TimedOut,
    /// Too many names are on demand.
    Refused,
}

/// New configuration of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Type of the resources.
    pub type_url: TypeUrl,
    /// New and changed resources.
    pub upserts: Vec<Received>,
    /// Names of resources that are gone.
    pub removals: Vec<Str>,
}

/// A resource as it came.
#[derive(Clone, PartialEq, Eq)]
pub struct Received {
    /// Resource name.
    pub name: Str,
    /// Demanded names to which it is the answer.
    pub aliases: Vec<Str>,
    /// The server's version.
    pub version: Str,
    /// Encoded message.
    pub bytes: Bytes,
}

impl std::fmt::Debug for Received {
    /// Without the content, which may hold a private key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Received({} @{}, {} bytes)", self.name, self.version, self.bytes.len())
    }
}

/// Which resources of a type are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interest {
    /// All that the server has for this proxy.
    All,
    /// These.
    Names(Vec<Str>),
}

/// The proxy's side of the protocol.
#[derive(Debug)]
pub struct ClientSession {
    options: ClientOptions,
    types: PerType<TypeState>,
    connected: bool,
    /// The node was sent on this stream.
    introduced: bool,
    woken_at: Option<Instant>,
}

impl ClientSession {
    /// A session without subscriptions and without a stream.
    #[must_use]
    pub fn new(options: ClientOptions) -> Self {
        Self { options, types: PerType::default(), connected: false, introduced: false, woken_at: None }
    }

    /// Replaces what the next stream says of this client.
    pub fn introduce(&mut self, node: Bytes) {
        self.options.node = node;
    }

    /// Adds to what is wanted of a type.
    ///
    /// A client that commits by marks subscribes to [`TypeUrl::Generation`] too; the order of types puts it last.
    pub fn subscribe(&mut self, type_url: TypeUrl, interest: Interest) -> Vec<ClientAction> {
        let state = self.types.of_mut(type_url);
        let fresh = match interest {
            Interest::All if state.subscription.wildcard => Vec::new(),
            Interest::All => {
                state.subscription.wildcard = true;
                vec![WILDCARD.to_owned()]
            }
            Interest::Names(names) => {
                let names = names.into_iter().filter(|name| state.subscription.names.insert(name.clone()));
                names.map(|name| name.to_string()).collect()
            }
        };
        self.request_change(type_url, fresh, Vec::new())
    }

    /// Takes names from what is wanted of a type; they are no longer held. The shell drops its copies.
    pub fn unsubscribe(&mut self, type_url: TypeUrl, names: &[Str]) -> Vec<ClientAction> {
        let state = self.types.of_mut(type_url);
        let names = names.iter().filter(|name| state.subscription.names.remove(name.as_str()));
        let gone: Vec<_> = names.map(ToString::to_string).collect();
        for name in &gone {
            state.release(name);
        }
        self.request_change(type_url, Vec::new(), gone)
    }

    /// Asks for one resource because something needs it now.
    ///
    /// Nothing happens when it is held or asked for already. The answer is an [`ClientAction::Update`] that holds it under
    /// its name or an alias, or [`ClientAction::Absent`].
    pub fn demand(&mut self, type_url: TypeUrl, name: &Str, now: Instant) -> Vec<ClientAction> {
        if self.holds(type_url, name) {
            return Vec::new();
        }
        let known = self.types.of(type_url).demands.get(name);
        if known.is_some_and(Option::is_some) {
            return Vec::new();
        }
        let demands: usize = self.types.iter().map(|(_, state)| state.demands.len()).sum();
        if known.is_none() && (demands >= self.options.max_demands || name.len() > MAX_NAME_BYTES) {
            return vec![ClientAction::Absent { type_url, name: name.clone(), reason: Absence::Refused }];
        }
        let state = self.types.of_mut(type_url);
        state.demands.insert(name.clone(), Some(now + self.options.demand_timeout));
        state.subscription.names.insert(name.clone());
        // A name already subscribed to is asked for again: the server then answers what it knows now.
        let mut actions = self.request_change(type_url, vec![name.to_string()], Vec::new());
        actions.extend(self.next_wake());
        actions
    }

    /// Whether a resource of this name, or asked for by it, was accepted and not removed.
    #[must_use]
    pub fn holds(&self, type_url: TypeUrl, name: &str) -> bool {
        let state = self.types.of(type_url);
        state.held.contains_key(state.aliases.get(name).map_or(name, Str::as_str))
    }

    /// Names and versions of all accepted resources of a type.
    #[must_use]
    pub const fn held(&self, type_url: TypeUrl) -> &BTreeMap<Str, Str> {
        &self.types.of(type_url).held
    }

    /// A stream was opened: asks for everything wanted and reports what is held.
    pub fn on_connected(&mut self) -> Vec<ClientAction> {
        self.on_disconnected();
        self.connected = true;
        TypeUrl::ALL.into_iter().flat_map(|type_url| self.start(type_url)).collect()
    }

    /// The stream ended. What was not answered counts as not received.
    pub fn on_disconnected(&mut self) {
        self.connected = false;
        self.introduced = false;
        for (_, state) in self.types.iter_mut() {
            state.started = false;
            state.unanswered.clear();
            state.last_nonce.clear();
        }
    }

    /// The server sent a response.
    pub fn on_response(&mut self, response: Response) -> Vec<ClientAction> {
        let Some(type_url) = TypeUrl::parse(response.type_url()) else {
            // Nothing of ours was asked for: no answer is owed.
            return Vec::new();
        };
        if self.types.of(type_url).unanswered.len() >= MAX_UNANSWERED {
            return vec![ClientAction::Close(CloseReason::TooManyResponses(type_url))];
        }
        match (self.options.protocol, response) {
            (Protocol::Delta, Response::Delta(response)) => self.on_delta(type_url, response),
            (Protocol::Sotw, Response::Sotw(response)) => self.on_sotw(type_url, response),
            (Protocol::Delta, Response::Sotw(_)) | (Protocol::Sotw, Response::Delta(_)) => {
                vec![ClientAction::Close(CloseReason::WrongProtocol)]
            }
        }
    }

    /// The wake-up time has come: reports demands that were not answered in time.
    pub fn on_wake(&mut self, now: Instant) -> Vec<ClientAction> {
        self.woken_at = None;
        let mut actions = Vec::new();
        for (type_url, state) in self.types.iter_mut() {
            for (name, until) in &mut state.demands {
                if until.take_if(|until| *until <= now).is_some() {
                    actions.push(ClientAction::Absent { type_url, name: name.clone(), reason: Absence::TimedOut });
                }
            }
        }
        actions.extend(self.next_wake());
        actions
    }

    /// Accepts all unanswered responses of a type.
    pub fn ack(&mut self, type_url: TypeUrl) -> Vec<ClientAction> {
        self.answer(type_url, None)
    }

    /// Rejects the unanswered responses of a type: the named resources, or all when none is named.
    ///
    /// Of a rejected resource the last good version stays held, and is reported as held after a reconnect; the rejected
    /// version never is.
    pub fn nack(&mut self, type_url: TypeUrl, reason: &str, rejections: &[Rejection]) -> Vec<ClientAction> {
        self.answer(type_url, Some((reason, rejections)))
    }

    fn answer(&mut self, type_url: TypeUrl, nack: Option<(&str, &[Rejection])>) -> Vec<ClientAction> {
        let state = self.types.of_mut(type_url);
        let responses = std::mem::take(&mut state.unanswered);
        let mut answers = Vec::new();
        for response in responses {
            let names: BTreeSet<_> = response.upserts.iter().map(|(name, ..)| name.as_str()).collect();
            let rejected =
                nack.map(|(_, all)| all.iter().filter(|r| names.contains(r.name.as_str())).cloned().collect());
            let rejected: Vec<_> = rejected.unwrap_or_default();
            let error = match nack {
                Some((reason, all)) if all.is_empty() || !rejected.is_empty() => Some(nack_status(reason, &rejected)),
                _ => None,
            };
            if error.is_none() || !rejected.is_empty() {
                state.accept(&response, &rejected);
            }
            answers.push((response.nonce, error));
        }
        if !self.connected {
            return Vec::new();
        }
        let answer = |(nonce, error)| ClientAction::Send(self.mk_answer(type_url, nonce, error));
        answers.into_iter().map(answer).collect()
    }

    fn mk_answer(&self, type_url: TypeUrl, nonce: String, error: Option<Status>) -> Request {
        match self.options.protocol {
            Protocol::Delta => Request::Delta(DeltaDiscoveryRequest {
                type_url: type_url.as_str().to_owned(),
                response_nonce: nonce,
                error_detail: error,
                ..DeltaDiscoveryRequest::default()
            }),
            Protocol::Sotw => {
                let state = self.types.of(type_url);
                Request::Sotw(DiscoveryRequest {
                    version_info: state.version_info.clone(),
                    resource_names: state.wire_names(type_url),
                    type_url: type_url.as_str().to_owned(),
                    response_nonce: nonce,
                    error_detail: error,
                    node: Bytes::new(),
                })
            }
        }
    }

    /// The first request of a type on a stream.
    fn start(&mut self, type_url: TypeUrl) -> Option<ClientAction> {
        if self.types.of(type_url).subscription.is_empty() {
            return None;
        }
        let node = if self.introduced { Bytes::new() } else { self.options.node.clone() };
        self.introduced = true;
        let state = self.types.of_mut(type_url);
        state.started = true;
        let names = state.wire_names(type_url);
        Some(ClientAction::Send(match self.options.protocol {
            Protocol::Delta => Request::Delta(DeltaDiscoveryRequest {
                node,
                type_url: type_url.as_str().to_owned(),
                resource_names_subscribe: names,
                initial_resource_versions: state.held.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect(),
                ..DeltaDiscoveryRequest::default()
            }),
            Protocol::Sotw => Request::Sotw(DiscoveryRequest {
                version_info: state.version_info.clone(),
                node,
                resource_names: names,
                type_url: type_url.as_str().to_owned(),
                ..DiscoveryRequest::default()
            }),
        }))
    }

    fn request_change(&mut self, type_url: TypeUrl, add: Vec<String>, remove: Vec<String>) -> Vec<ClientAction> {
        if !self.connected || (add.is_empty() && remove.is_empty()) {
            return Vec::new();
        }
        if !self.types.of(type_url).started {
            return self.start(type_url).into_iter().collect();
        }
        let request = match self.options.protocol {
            Protocol::Delta => Request::Delta(DeltaDiscoveryRequest {
                type_url: type_url.as_str().to_owned(),
                resource_names_subscribe: add,
                resource_names_unsubscribe: remove,
                ..DeltaDiscoveryRequest::default()
            }),
            // A request with the nonce of an unanswered response would accept it; the answer to come carries the names.
            Protocol::Sotw if !self.types.of(type_url).unanswered.is_empty() => return Vec::new(),
            Protocol::Sotw => self.mk_answer(type_url, self.types.of(type_url).last_nonce.clone(), None),
        };
        vec![ClientAction::Send(request)]
    }

    fn on_delta(&mut self, type_url: TypeUrl, response: DeltaDiscoveryResponse) -> Vec<ClientAction> {
        let mut upserts = Vec::new();
        let mut removals: Vec<_> = response.removed_resources.iter().map(Str::from).collect();
        for resource in response.resources {
            match resource.resource {
                Some(content) => upserts.push(Received {
                    name: Str::from(&resource.name),
                    aliases: resource.aliases.iter().map(Str::from).collect(),
                    version: Str::from(&resource.version),
                    bytes: content.value,
                }),
                // A name without content: the server knows that there is nothing.
                None => removals.extend(std::iter::once(&resource.name).chain(&resource.aliases).map(Str::from)),
            }
        }
        self.receive(type_url, response.nonce, String::new(), upserts, removals)
    }

    fn on_sotw(&mut self, type_url: TypeUrl, response: DiscoveryResponse) -> Vec<ClientAction> {
        let state = self.types.of_mut(type_url);
        state.last_nonce.clone_from(&response.nonce);
        let mut upserts = Vec::new();
        for resource in response.resources {
            let Some(name) = resource_name(type_url, &resource.value) else {
                let error = nack_status("a resource without a readable name", &[]);
                return vec![ClientAction::Send(self.mk_answer(type_url, response.nonce, Some(error)))];
            };
            // Resources have no version of their own here: that of their bytes serves to find what did not change.
            let version = Str::from(Version::of(&*resource.value).to_string());
            upserts.push(Received { name, aliases: Vec::new(), version, bytes: resource.value });
        }
        // Only clusters and listeners are whole; of other types a response may be a part, and what is gone is gone with the
        // cluster or listener that named it (xDS protocol, "Deleting Resources").
        let mut removals = Vec::new();
        if matches!(type_url, TypeUrl::Cluster | TypeUrl::Listener) {
            let named: BTreeSet<_> = upserts.iter().map(|received| &received.name).collect();
            removals = state.held.keys().filter(|name| !named.contains(name)).cloned().collect();
        }
        upserts.retain(|received| state.held.get(&received.name) != Some(&received.version));
        self.receive(type_url, response.nonce, response.version_info, upserts, removals)
    }

    fn receive(
        &mut self,
        type_url: TypeUrl,
        nonce: String,
        version_info: String,
        mut upserts: Vec<Received>,
        removals: Vec<Str>,
    ) -> Vec<ClientAction> {
        let state = self.types.of_mut(type_url);
        let mut actions = Vec::new();
        // A response may cross the request that ends a subscription.
        let wanted = &state.subscription;
        let received = upserts.len();
        upserts.retain(|r| wanted.covers(&r.name) || r.aliases.iter().any(|alias| wanted.names.contains(alias)));
        let version_info = if upserts.len() == received { version_info } else { String::new() };
        for received in &upserts {
            for name in std::iter::once(&received.name).chain(&received.aliases) {
                state.demands.remove(name);
            }
        }
        for name in &removals {
            if let Some(until) = state.demands.get_mut(name) {
                *until = None;
                actions.push(ClientAction::Absent { type_url, name: name.clone(), reason: Absence::Unknown });
            }
        }
        let removals = state.resolve_removals(removals, &upserts);
        state.unanswered.push_back(Unanswered {
            nonce,
            version_info,
            upserts: upserts.iter().map(|r| (r.name.clone(), r.version.clone(), r.aliases.clone())).collect(),
            removals: removals.clone(),
        });
        if type_url == TypeUrl::Generation {
            actions.extend(upserts.iter().map(commit));
        } else {
            actions.insert(0, ClientAction::Update(Update { type_url, upserts, removals }));
        }
        actions
    }

    /// The next time at which a demand runs out, when it is not the one already told.
    fn next_wake(&mut self) -> Option<ClientAction> {
        let next = self.types.iter().flat_map(|(_, state)| state.demands.values().flatten()).min().copied();
        if next == self.woken_at {
            return None;
        }
        self.woken_at = next;
        next.map(ClientAction::WakeAt)
    }
}

fn commit(mark: &Received) -> ClientAction {
    // A mark that cannot be read still ends a state; its number is only reported.
    let content = GenerationMark::decode(mark.bytes.clone()).unwrap_or_default();
    ClientAction::Commit { generation: content.generation, changes: content.changes.iter().map(Str::from).collect() }
}

/// The name in an encoded resource, for the variant that sends none beside it: a string field of the message, the same field
/// number in all versions of Envoy's API.
fn resource_name(type_url: TypeUrl, content: &Bytes) -> Option<Str> {
    /// Any of the messages whose name is field 1.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Named {
        #[prost(string, tag = "1")]
        name: String,
    }
    if type_url == TypeUrl::Generation {
        return Some(Str::from(GenerationMark::NAME));
    }
    if type_url == TypeUrl::NameTable {
        return Some(Str::from(NameTable::NAME));
    }
    Named::decode(content.clone()).ok().filter(|named| !named.name.is_empty()).map(|named| Str::from(named.name))
}
