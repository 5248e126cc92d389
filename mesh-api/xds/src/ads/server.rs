//! The control plane's side of one stream.
//!
//! A [`ServerSession`] is told what the proxy says ([`ServerSession::on_request`]) and what it is to be served
//! ([`ServerSession::on_resources`]), and returns what to do. It keeps a pointer to the shared state last offered and, for
//! each type, the subscription and the exceptions; see [`super`] for the invariants.

mod state;

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_api::text::Str;
use prost::Message as _;

use self::state::TypeState;
use super::delta::Diff;
use super::nonce::{Nonce, Nonces};
use super::sub::{Subscription, WILDCARD};
use super::{CloseReason, MAX_NAME_BYTES, MAX_NAMES, Protocol, Rejection, Request, Response, sotw};
use crate::discovery::{
    Any, DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, GenerationMark, Resource,
};
use crate::encoded::{ResourceSet, Version};
use crate::type_url::{PerType, TypeUrl};

/// Facts of a stream, known from its first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Variant of the protocol.
    pub protocol: Protocol,
    /// The client commits by generation marks ([`crate::node::NodeInfo::takes_marks`]). It subscribes to the mark last;
    /// nothing is sent before. Only with [`Protocol::Delta`].
    pub marks: bool,
}

/// What the shell has to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerAction {
    /// Write the message to the stream.
    Send(Response),
    /// The proxy accepted a response.
    Acked {
        /// Type of the response.
        type_url: TypeUrl,
        /// Generation that it was taken from.
        generation: u64,
    },
    /// The proxy rejected a response, or some resources of it; it keeps what it had.
    Nacked {
        /// Type of the response.
        type_url: TypeUrl,
        /// The rejection.
        nack: Nack,
    },
    /// The proxy answered everything up to this generation.
    Applied {
        /// Generation.
        generation: u64,
        /// Ids of the changes since the generation applied before.
        changes: Vec<Str>,
        /// Types in which a rejection stands.
        rejected: Vec<TypeUrl>,
    },
    /// End the stream: the client does not follow the protocol.
    Close(CloseReason),
}

/// A rejection by the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nack {
    /// Generation that was rejected.
    pub generation: u64,
    /// The proxy's words.
    pub reason: Str,
    /// The rejected resources, when the proxy names them; all others were accepted.
    pub rejections: Vec<Rejection>,
}

/// State of one type on a stream, for status and debugging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeStatus<'a> {
    /// Generation of the last response; `None` before the first.
    pub sent: Option<u64>,
    /// Generation last accepted.
    pub acked: Option<u64>,
    /// The rejection that stands.
    pub nack: Option<&'a Nack>,
    /// Whether all resources are subscribed to.
    pub wildcard: bool,
    /// Number of names subscribed to one by one.
    pub names: usize,
}

/// The control plane's side of one stream.
#[derive(Debug)]
pub struct ServerSession {
    options: ServerOptions,
    set: Arc<ResourceSet>,
    nonces: Nonces,
    types: PerType<Option<Box<TypeState>>>,
    /// Ids of changes not yet reported as applied, newest last.
    changes: Vec<Str>,
    /// Generation last reported as applied.
    applied: Option<u64>,
    /// Clusters sent to an Envoy that had not yet subscribed to endpoints; see [`ServerSession::renew_endpoints`].
    renewed: BTreeSet<Str>,
}

enum Payload {
    Delta(Diff),
    Whole(Version),
}

/// Most change ids kept for one report; the oldest are dropped.
const MAX_CHANGES: usize = 256;

impl ServerSession {
    /// A session at its start; `set` is what the proxy is to be served.
    #[must_use]
    pub fn new(options: ServerOptions, set: Arc<ResourceSet>) -> Self {
        let options = ServerOptions { marks: options.marks && options.protocol == Protocol::Delta, ..options };
        let mut session = Self {
            options,
            set: Arc::default(),
            nonces: Nonces::default(),
            types: PerType::default(),
            changes: Vec::new(),
            applied: None,
            renewed: BTreeSet::new(),
        };
        session.adopt(set);
        session
    }

    /// The proxy sent a request.
    pub fn on_request(&mut self, request: Request) -> Vec<ServerAction> {
        let mut actions = Vec::new();
        let done = match (self.options.protocol, request) {
            (Protocol::Delta, Request::Delta(request)) => self.on_delta(request, &mut actions),
            (Protocol::Sotw, Request::Sotw(request)) => self.on_sotw(request, &mut actions),
            (Protocol::Delta, Request::Sotw(_)) | (Protocol::Sotw, Request::Delta(_)) => {
                Err(CloseReason::WrongProtocol)
            }
        };
        match done {
            Ok(()) => self.pump(&mut actions),
            Err(reason) => actions.push(ServerAction::Close(reason)),
        }
        actions
    }

    /// The proxy is to be served another state.
    pub fn on_resources(&mut self, set: Arc<ResourceSet>) -> Vec<ServerAction> {
        self.adopt(set);
        let mut actions = Vec::new();
        self.pump(&mut actions);
        actions
    }

    /// The state that the proxy is to be served.
    #[must_use]
    pub const fn resources(&self) -> &Arc<ResourceSet> {
        &self.set
    }

    /// State of a type; `None` when the proxy never asked for it.
    #[must_use]
    pub fn status(&self, type_url: TypeUrl) -> Option<TypeStatus<'_>> {
        let state = self.types.of(type_url).as_deref()?;
        Some(TypeStatus {
            sent: state.sent,
            acked: state.acked,
            nack: state.nack.as_deref(),
            wildcard: state.subscription.wildcard,
            names: state.subscription.names.len(),
        })
    }

    /// Generation last applied whole.
    #[must_use]
    pub const fn applied(&self) -> Option<u64> {
        self.applied
    }

    /// Names of a type subscribed to one by one.
    pub fn names(&self, type_url: TypeUrl) -> impl Iterator<Item = &Str> {
        self.types.of(type_url).iter().flat_map(|state| &state.subscription.names)
    }

    fn adopt(&mut self, set: Arc<ResourceSet>) {
        self.changes.extend(set.changes.iter().cloned());
        let excess = self.changes.len().saturating_sub(MAX_CHANGES);
        self.changes.drain(..excess);
        self.set = set;
    }

    fn on_delta(&mut self, request: DeltaDiscoveryRequest, actions: &mut Vec<ServerAction>) -> Result<(), CloseReason> {
        let Some(type_url) = TypeUrl::parse(&request.type_url) else {
            actions.extend(self.answer_unknown_delta(request));
            return Ok(());
        };
        check_names(type_url, request.resource_names_subscribe.iter())?;
        check_names(type_url, request.initial_resource_versions.keys())?;
        let first = self.types.of(type_url).is_none();
        let set = self.set.of(type_url);
        let state = self.types.of_mut(type_url).get_or_insert_default();
        if first {
            let renewed =
                if type_url == TypeUrl::Endpoint { std::mem::take(&mut self.renewed) } else { BTreeSet::new() };
            state.start_delta(type_url, &request, set, &renewed);
        } else {
            actions.extend(state.answer(type_url, &request.response_nonce, request.error_detail.as_ref()));
            state.resubscribe(&request, set);
        }
        if state.subscription.names.len() > MAX_NAMES { Err(CloseReason::TooManyNames(type_url)) } else { Ok(()) }
    }

    fn on_sotw(&mut self, request: DiscoveryRequest, actions: &mut Vec<ServerAction>) -> Result<(), CloseReason> {
        let Some(type_url) = TypeUrl::parse(&request.type_url) else {
            if request.response_nonce.is_empty() {
                let nonce = self.nonces.issue().text();
                let response = DiscoveryResponse { type_url: request.type_url, nonce, ..DiscoveryResponse::default() };
                actions.push(ServerAction::Send(Response::Sotw(response)));
            }
            return Ok(());
        };
        check_names(type_url, request.resource_names.iter())?;
        let first = self.types.of(type_url).is_none();
        let set = self.set.of(type_url);
        let state = self.types.of_mut(type_url).get_or_insert_default();
        // Also when the subscription changes: the client repeats it when it answers the response that is on its way.
        let stale = state.last_nonce.is_some_and(|last| !last.is(&request.response_nonce));
        if !first && stale {
            return Ok(());
        }
        if !first {
            actions.extend(state.answer(type_url, &request.response_nonce, request.error_detail.as_ref()));
        }
        let subscription = Subscription {
            wildcard: request.resource_names.iter().any(|name| name == WILDCARD)
                || (request.resource_names.is_empty()
                    && type_url.empty_means_all()
                    && (first || state.subscription.wildcard)),
            names: request.resource_names.iter().filter(|name| *name != WILDCARD).map(Str::from).collect(),
        };
        state.resubscribed |= state.subscription != subscription;
        state.subscription = subscription;
        if first {
            let reported = Version::parse(&request.version_info);
            state.whole = reported.filter(|held| *held == sotw::version(&state.subscription, set));
            state.owes_answer = state.whole.is_none();
        }
        Ok(())
    }

    /// A type that we do not know has no resources: the client is told so and the stream goes on.
    fn answer_unknown_delta(&mut self, request: DeltaDiscoveryRequest) -> Option<ServerAction> {
        if !request.response_nonce.is_empty() && request.resource_names_subscribe.is_empty() {
            return None;
        }
        let names = request.resource_names_subscribe.into_iter().filter(|name| name != WILDCARD);
        let response = DeltaDiscoveryResponse {
            type_url: request.type_url,
            nonce: self.nonces.issue().text(),
            removed_resources: names.take(MAX_NAMES).collect(),
            ..DeltaDiscoveryResponse::default()
        };
        Some(ServerAction::Send(Response::Delta(response)))
    }

    /// Sends what is due and may be sent now.
    fn pump(&mut self, actions: &mut Vec<ServerAction>) {
        if self.options.marks {
            self.pump_whole_state(actions);
        } else {
            self.pump_types(actions);
        }
        self.report_applied(actions);
    }

    /// To a client without marks: each type as soon as its last response was answered.
    ///
    /// Listeners and routes wait while clusters are held up, lest they name one that the client lacks. Endpoints and
    /// secrets never wait: Envoy answers for clusters only when those arrived.
    fn pump_types(&mut self, actions: &mut Vec<ServerAction>) {
        let clusters_wait = self.is_busy(TypeUrl::Cluster) && self.due(TypeUrl::Cluster).is_some();
        for type_url in TypeUrl::CONFIG {
            let follows = matches!(type_url, TypeUrl::Listener | TypeUrl::RouteConfiguration | TypeUrl::VirtualHost);
            if self.is_busy(type_url) || (clusters_wait && follows) {
                continue;
            }
            if let Some(payload) = self.due(type_url) {
                actions.extend(self.send(type_url, payload));
            }
        }
    }

    /// To a client with marks: all that changed and then the mark, or nothing yet.
    fn pump_whole_state(&mut self, actions: &mut Vec<ServerAction>) {
        if self.types.of(TypeUrl::Generation).is_none() || self.is_busy(TypeUrl::Generation) {
            return;
        }
        let mut payloads = Vec::new();
        for type_url in TypeUrl::CONFIG {
            let Some(payload) = self.due(type_url) else { continue };
            if self.is_busy(type_url) {
                return;
            }
            payloads.push((type_url, payload));
        }
        let generation = self.set.generation;
        let any = !payloads.is_empty();
        for (type_url, payload) in payloads {
            actions.extend(self.send(type_url, payload));
        }
        let changes = self.changes.iter().map(ToString::to_string).collect();
        let nonce = self.nonces.issue();
        let Some(mark) = self.types.of_mut(TypeUrl::Generation) else { return };
        if any || mark.owes_answer || mark.sent != Some(generation) {
            mark.record_sent(nonce, generation);
            actions.push(ServerAction::Send(Response::Delta(mark_response(generation, changes, nonce))));
        }
    }

    /// Says once for each generation that the client answered all of it.
    fn report_applied(&mut self, actions: &mut Vec<ServerAction>) {
        let generation = self.set.generation;
        if self.applied == Some(generation) || self.types.iter().all(|(_, state)| state.is_none()) {
            return;
        }
        if TypeUrl::CONFIG.into_iter().any(|type_url| self.is_busy(type_url) || self.due(type_url).is_some()) {
            return;
        }
        let mark = self.types.of(TypeUrl::Generation).as_deref();
        if self.options.marks && mark.is_none_or(|mark| mark.acked != Some(generation)) {
            return;
        }
        self.applied = Some(generation);
        let rejected = self.types.iter().filter(|(_, state)| state.as_ref().is_some_and(|state| state.nack.is_some()));
        let rejected = rejected.map(|(type_url, _)| type_url).collect();
        actions.push(ServerAction::Applied { generation, changes: std::mem::take(&mut self.changes), rejected });
    }

    fn is_busy(&self, type_url: TypeUrl) -> bool {
        self.types.of(type_url).as_ref().is_some_and(|state| state.in_flight.is_some())
    }

    /// What the client must be sent of a type; `None` when it has it all.
    fn due(&mut self, type_url: TypeUrl) -> Option<Payload> {
        let set = self.set.of(type_url);
        let state = self.types.of_mut(type_url).as_deref_mut()?;
        match self.options.protocol {
            Protocol::Delta => {
                let mut diff = state.offer.diff(type_url, &state.subscription, set);
                let owes_answer = state.owes_answer;
                if !diff.removed.is_empty() && self.must_outlive_routes(type_url) {
                    let state = self.types.of(type_url).as_deref()?;
                    state.offer.withhold_removals(&mut diff);
                }
                if !diff.is_empty() || owes_answer {
                    return Some(Payload::Delta(diff));
                }
                if !diff.withheld.is_empty() {
                    return None;
                }
                let (set, state) = (self.set.of(type_url), self.types.of_mut(type_url).as_deref_mut()?);
                // Nothing differs: remember the new pointer, so that the next comparison is one of pointers.
                state.settle(set);
                None
            }
            Protocol::Sotw => {
                if state.offer.is_settled(set) && !state.resubscribed && !state.owes_answer {
                    return None;
                }
                let version = sotw::version(&state.subscription, set);
                if state.whole != Some(version) || state.owes_answer {
                    return Some(Payload::Whole(version));
                }
                state.settle(set);
                None
            }
        }
    }

    /// Whether resources that are gone must stay for now, because a listener or route on its way to the client, or one that it
    /// keeps after a rejection, may still lead to them. A client with marks changes over at once and needs no such care.
    fn must_outlive_routes(&mut self, type_url: TypeUrl) -> bool {
        let leads_to = [TypeUrl::Listener, TypeUrl::RouteConfiguration, TypeUrl::VirtualHost];
        !self.options.marks
            && matches!(type_url, TypeUrl::Cluster | TypeUrl::Endpoint)
            && leads_to.into_iter().any(|follower| {
                let rejected = self.types.of(follower).as_ref().is_some_and(|state| state.keeps_old());
                rejected || self.is_busy(follower) || self.due(follower).is_some()
            })
    }

    fn send(&mut self, type_url: TypeUrl, payload: Payload) -> Option<ServerAction> {
        let nonce = self.nonces.issue();
        let generation = self.set.generation;
        let set = Arc::clone(self.set.of(type_url));
        if type_url == TypeUrl::Cluster && !self.options.marks {
            self.renew_endpoints(&payload);
        }
        let state = self.types.of_mut(type_url).as_deref_mut()?;
        state.record_sent(nonce, generation);
        let withheld = match &payload {
            Payload::Delta(diff) => diff.withheld.clone(),
            Payload::Whole(_) => Vec::new(),
        };
        state.settle(&set);
        for (name, held) in withheld {
            state.offer.hold_as(name, held);
        }
        Some(ServerAction::Send(match payload {
            Payload::Delta(diff) => Response::Delta(diff.into_response(type_url, nonce.text(), generation.to_string())),
            Payload::Whole(version) => {
                state.whole = Some(version);
                Response::Sotw(sotw::response(type_url, &state.subscription, &set, version, nonce.text()))
            }
        }))
    }

    /// Envoy warms a changed cluster until its endpoints arrive anew, although it has them, and answers for clusters only
    /// then. So the endpoints of every cluster sent are sent again. (Istio forces an endpoint push after clusters likewise:
    /// `pilot/pkg/xds/ads.go`, `AlwaysRespond`.)
    fn renew_endpoints(&mut self, payload: &Payload) {
        match (self.types.of_mut(TypeUrl::Endpoint).as_deref_mut(), payload) {
            (Some(endpoints), Payload::Delta(diff)) => {
                for name in diff.upserts.keys().filter(|name| endpoints.subscription.covers(name)) {
                    endpoints.offer.forget(name.clone());
                }
            }
            (Some(endpoints), Payload::Whole(_)) => endpoints.owes_answer = true,
            (None, Payload::Delta(diff)) => self.renewed = diff.upserts.keys().cloned().collect(),
            (None, Payload::Whole(_)) => {}
        }
    }
}

fn mark_response(generation: u64, changes: Vec<String>, nonce: Nonce) -> DeltaDiscoveryResponse {
    let type_url = TypeUrl::Generation.as_str().to_owned();
    let mark = GenerationMark { generation, changes };
    DeltaDiscoveryResponse {
        system_version_info: generation.to_string(),
        resources: vec![Resource {
            version: generation.to_string(),
            resource: Some(Any { type_url: type_url.clone(), value: mark.encode_to_vec().into() }),
            name: GenerationMark::NAME.to_owned(),
            aliases: Vec::new(),
        }],
        type_url,
        nonce: nonce.text(),
        removed_resources: Vec::new(),
    }
}

fn check_names<'a>(type_url: TypeUrl, names: impl ExactSizeIterator<Item = &'a String>) -> Result<(), CloseReason> {
    if names.len() > MAX_NAMES {
        return Err(CloseReason::TooManyNames(type_url));
    }
    let mut names = names;
    if names.any(|name| name.len() > MAX_NAME_BYTES) { Err(CloseReason::NameTooLong(type_url)) } else { Ok(()) }
}
