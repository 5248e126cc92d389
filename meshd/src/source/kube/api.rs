//! Lists and watches of one kind, as HTTP requests. Everything has a bound: pages, lines, and the time without a byte.

use std::time::Duration;

use ::kube::Client;
use ::kube::client::Body;
use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use mesh_api::kinds::Kind;
use serde::Deserialize;
use tokio::time::timeout;

use super::slice;

/// Objects on a page at first; a page that is too large makes smaller ones.
const PAGE_OBJECTS: usize = 500;
/// Largest page in bytes.
const MAX_PAGE_BYTES: usize = 64 << 20;
/// Largest event of a watch in bytes: etcd stores objects up to 1.5 MiB, and JSON is larger.
const MAX_EVENT_BYTES: usize = 16 << 20;
/// Largest error message that is read.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// Time in which a page must be there.
const PAGE_TIME: Duration = Duration::from_secs(60);
/// Time in which a request must be answered.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// Time that a watch is asked to last, in seconds; some more by chance, so that not all end at once.
const WATCH_SECONDS: u32 = 240;
/// Time without a byte after which a watch counts as dead. API servers send a bookmark each minute.
const SILENCE: Duration = Duration::from_secs(150);

/// What an API server answers about a group that it does not have at all; of others it says so in a `Status`.
const NO_GROUP: &[u8] = b"404 page not found";

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// The kind is not there, in this version at least.
    #[error("the API server does not know the kind")]
    Absent,
    /// What a watch should begin with is no longer known: everything has to be listed again.
    #[error("the history is gone")]
    Expired,
    /// The control plane may not.
    #[error("the API server refuses: {0}")]
    Refused(String),
    /// The API server answers with an error.
    #[error("the API server answers {0}")]
    Answer(String),
    /// A page or an event has more bytes than are read.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// What came is not what an API server sends.
    #[error("the answer is not {0}")]
    Malformed(&'static str),
    /// It cannot be reached, or the connection broke.
    #[error("the connection failed")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Which objects of a kind are asked for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The kind.
    pub(super) kind: Kind,
    /// Only those of this namespace.
    pub(super) namespace: Option<String>,
    /// Only those whose fields say so, in Kubernetes' notation.
    pub(super) fields: Option<String>,
}

/// The API of one kind in one of its versions.
#[derive(Clone)]
pub(super) struct Api {
    client: Client,
    wanted: Wanted,
    version: usize,
    page: usize,
}

/// A part of a list.
#[derive(Debug)]
pub(super) struct Page {
    body: Bytes,
    items: std::ops::Range<usize>,
    /// What to ask for the next page with; empty on the last one.
    pub(super) next: String,
    /// What to begin a watch with.
    pub(super) version: String,
}

/// The events of a watch.
pub(super) struct Events {
    body: Body,
    read: BytesMut,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    next: String,
}

/// What an API server says about an error.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    /// The HTTP status.
    pub(super) code: u16,
    /// In a word.
    pub(super) reason: String,
    /// In a sentence.
    pub(super) message: String,
}

impl Api {
    /// The API of a kind in the version that is stored.
    pub(super) const fn new(client: Client, wanted: Wanted) -> Self {
        Self { client, wanted, version: 0, page: PAGE_OBJECTS }
    }

    /// Turns to the next version that the kind has; an older cluster may not have the newest.
    pub(super) const fn next_version(&mut self) {
        self.version = (self.version + 1) % self.wanted.kind.info().versions.len();
    }

    /// Asks for smaller pages from now on. `false` when they cannot be smaller.
    pub(super) const fn smaller_pages(&mut self) -> bool {
        let shrinks = self.page > 1;
        self.page = if self.page > 8 { self.page / 8 } else { 1 };
        shrinks
    }

    /// A page of the list; the first when `next` is empty.
    pub(super) async fn list(&self, next: &str) -> Result<Page, ApiError> {
        let mut query = format!("limit={}", self.page);
        if !next.is_empty() {
            query.push_str("&continue=");
            query.push_str(&encode(next));
        }
        let response = self.send(&query).await?;
        let body = timeout(PAGE_TIME, collect(response.into_body(), MAX_PAGE_BYTES));
        Page::read(body.await.map_err(|_| ApiError::Silent(PAGE_TIME))??)
    }

    /// A watch of what changes after a version. `chance` is any number.
    pub(super) async fn watch(&self, from: &str, chance: u32) -> Result<Events, ApiError> {
        let seconds = WATCH_SECONDS + chance % 60;
        let from = encode(from);
        let query = format!("watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={from}");
        let response = self.send(&query).await?;
        Ok(Events { body: response.into_body(), read: BytesMut::new() })
    }

    async fn send(&self, query: &str) -> Result<Response<Body>, ApiError> {
        let uri = self.uri(query);
        // Each event of a watch would be compressed on its own, for nothing, and nobody here unpacks.
        let request = Request::get(uri).header(http::header::ACCEPT_ENCODING, "identity").body(Body::empty());
        let request = request.map_err(|_| ApiError::Malformed("an address"))?;
        let response = timeout(ANSWER_TIME, self.client.send(request)).await;
        let response = response.map_err(|_| ApiError::Silent(ANSWER_TIME))?;
        let response = response.map_err(|error| ApiError::Connection(Box::new(error)))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status();
        let body = timeout(ANSWER_TIME, collect(response.into_body(), MAX_ERROR_BYTES)).await;
        let body = body.map_err(|_| ApiError::Silent(ANSWER_TIME))?.unwrap_or_default();
        if code == StatusCode::NOT_FOUND && body.trim_ascii() == NO_GROUP {
            return Err(ApiError::Absent);
        }
        let status: Status = serde_json::from_slice(&body).unwrap_or_default();
        Err(ApiError::of(code, &status))
    }

    fn uri(&self, query: &str) -> String {
        let info = self.wanted.kind.info();
        let version = info.versions.get(self.version).copied().unwrap_or_default();
        let mut uri =
            if info.group.is_empty() { format!("/api/{version}") } else { format!("/apis/{}/{version}", info.group) };
        if let Some(namespace) = &self.wanted.namespace {
            uri.push_str("/namespaces/");
            uri.push_str(&encode(namespace));
        }
        uri.push('/');
        uri.push_str(info.plural);
        uri.push('?');
        uri.push_str(query);
        if let Some(fields) = &self.wanted.fields {
            uri.push_str("&fieldSelector=");
            uri.push_str(&encode(fields));
        }
        uri
    }
}

impl ApiError {
    /// What an answer or an event with an error means.
    pub(super) fn of(code: StatusCode, status: &Status) -> Self {
        let said = if status.message.is_empty() { String::new() } else { format!(": {}", status.message) };
        match code {
            StatusCode::GONE => Self::Expired,
            // The kind, not an object, is missing: only collections are asked for. A proxy's own 404 is no such statement.
            StatusCode::NOT_FOUND if status.code == 404 => Self::Absent,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Refused(format!("{code}{said}")),
            _ => Self::Answer(format!("{code}{said}")),
        }
    }
}

impl Page {
    fn read(body: Bytes) -> Result<Self, ApiError> {
        const LIST: ApiError = ApiError::Malformed("a list");
        let text = std::str::from_utf8(&body).map_err(|_| LIST)?;
        let fields = slice::fields(text).ok_or(LIST)?;
        let part = |name| fields.iter().find(|(field, _)| *field == name).map(|(_, value)| *value);
        let meta: ListMeta = serde_json::from_str(part("metadata").ok_or(LIST)?).map_err(|_| LIST)?;
        let items = part("items").unwrap_or("null");
        let items = match items.as_ptr().addr().checked_sub(text.as_ptr().addr()) {
            Some(start) if items != "null" => start..start + items.len(),
            _ => 0..0,
        };
        Ok(Self { items, next: meta.next, version: meta.resource_version, body })
    }

    /// The objects, as JSON.
    pub(super) fn objects(&self) -> Result<Vec<&str>, ApiError> {
        const LIST: ApiError = ApiError::Malformed("a list");
        if self.items.is_empty() {
            return Ok(Vec::new());
        }
        let text = self.body.get(self.items.clone()).and_then(|items| std::str::from_utf8(items).ok());
        slice::elements(text.ok_or(LIST)?).ok_or(LIST)
    }
}

impl Events {
    /// The next events, one on each line; all that are there. `None` at the end of the watch.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            if let Some(end) = self.read.iter().rposition(|byte| *byte == b'\n') {
                return Ok(Some(self.read.split_to(end + 1).freeze()));
            }
            if self.read.len() > MAX_EVENT_BYTES {
                return Err(ApiError::TooLarge(MAX_EVENT_BYTES));
            }
            let frame = timeout(SILENCE, self.body.frame()).await.map_err(|_| ApiError::Silent(SILENCE))?;
            match frame {
                // What is cut off in the middle comes again with the next watch.
                None => return Ok(None),
                Some(Err(error)) => return Err(ApiError::Connection(Box::new(error))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

async fn collect(mut body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::Connection(Box::new(error)))?;
        if let Ok(data) = frame.into_data() {
            if all.len() + data.len() > limit {
                return Err(ApiError::TooLarge(limit));
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(all.freeze())
}

/// A value of a query, with everything but plain letters escaped.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            for digit in [byte >> 4, byte & 15] {
                encoded.push(char::from_digit(u32::from(digit), 16).unwrap_or('0').to_ascii_uppercase());
            }
        }
    }
    encoded
}
