//! API servers for tests, in memory: one that answers by a function, and one that keeps objects as the real one does as far
//! as versions, conflicts and merges go.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower::service_fn;

/// A client whose server answers by this function: status and object.
pub(crate) fn answering(answer: impl Fn(&Request<Vec<u8>>) -> (u16, Value) + Send + Sync + 'static) -> Client {
    let answer = Arc::new(answer);
    let service = service_fn(move |request: Request<Body>| {
        let answer = Arc::clone(&answer);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await?.to_vec();
            let (status, object) = answer(&Request::from_parts(head, body));
            let body = Body::from(serde_json::to_vec(&object).unwrap());
            Ok::<_, kube::Error>(Response::builder().status(status).body(body).unwrap())
        }
    });
    Client::new(service, "default")
}

/// Objects by path, such as `/api/v1/namespaces/a/configmaps/b`.
#[derive(Clone, Default)]
pub(crate) struct Objects(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    /// Writes that were made, as `METHOD path`.
    writes: Vec<String>,
}

impl Objects {
    /// A client of these.
    pub(crate) fn client(&self) -> Client {
        let this = self.clone();
        answering(move |request| this.answer(request))
    }

    /// Puts an object as it is.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.0.lock().unwrap().store(path, object);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(path).cloned()
    }

    pub(crate) fn remove(&self, path: &str) {
        self.0.lock().unwrap().objects.remove(path);
    }

    /// The writes since the last call.
    pub(crate) fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().writes)
    }

    fn answer(&self, request: &Request<Vec<u8>>) -> (u16, Value) {
        let mut state = self.0.lock().unwrap();
        let path = request.uri().path().to_owned();
        // A status is kept with its object.
        let place = path.strip_suffix("/status").unwrap_or(&path).to_owned();
        let body = || serde_json::from_slice::<Value>(request.body()).unwrap();
        if request.method() != Method::GET {
            state.writes.push(format!("{} {path}", request.method()));
        }
        match *request.method() {
            Method::GET => match state.objects.get(&place) {
                Some(object) => (200, object.clone()),
                None => state.list(&path),
            },
            Method::POST => {
                let object = body();
                let name = object["metadata"]["name"].as_str().unwrap();
                let place = format!("{path}/{name}");
                if state.objects.contains_key(&place) {
                    return failure(409, "AlreadyExists");
                }
                (201, state.store(&place, object))
            }
            Method::PUT => {
                let object = body();
                match state.objects.get(&place) {
                    None => failure(404, "NotFound"),
                    Some(now) if conflicts(now, &object) => failure(409, "Conflict"),
                    Some(_) => (200, state.store(&place, object)),
                }
            }
            Method::PATCH => match state.objects.get(&place).cloned() {
                None => failure(404, "NotFound"),
                Some(now) if conflicts(&now, &body()) => failure(409, "Conflict"),
                Some(mut now) => {
                    merge(&mut now, &body());
                    (200, state.store(&place, now))
                }
            },
            Method::DELETE => match state.objects.remove(&place) {
                None => failure(404, "NotFound"),
                Some(object) => (200, object),
            },
            _ => failure(405, "MethodNotAllowed"),
        }
    }
}

impl State {
    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    /// All objects of a collection: of one namespace, or of all.
    fn list(&self, path: &str) -> (u16, Value) {
        let (root, plural) = path.rsplit_once('/').unwrap_or_default();
        let within = |place: &&String| {
            let Some((collection, _)) = place.rsplit_once('/') else { return false };
            let of_all =
                collection.starts_with(&format!("{root}/namespaces/")) && collection.ends_with(&format!("/{plural}"));
            collection == path || of_all
        };
        // Behind group and version: a plural, a plural and a name, and either of these behind `namespaces/NAME`.
        let skip = if path.starts_with("/api/") { 2 } else { 3 };
        let is_collection = path.split('/').filter(|part| !part.is_empty()).skip(skip).count() % 2 == 1;
        if !is_collection {
            return failure(404, "NotFound");
        }
        let items: Vec<&Value> = self.objects.keys().filter(within).map(|place| &self.objects[place]).collect();
        (200, json!({"metadata": {"resourceVersion": self.version.to_string()}, "items": items}))
    }
}

fn conflicts(now: &Value, new: &Value) -> bool {
    let version = &new["metadata"]["resourceVersion"];
    !version.is_null() && version != &now["metadata"]["resourceVersion"]
}

fn failure(code: u16, reason: &str) -> (u16, Value) {
    (code, json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason}))
}

/// RFC 7396.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut object[key], value);
        }
    }
}
