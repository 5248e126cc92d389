//! The path table of one listening socket.

use std::fmt::{self, Write as _};
use std::future::{Future, ready};
use std::pin::Pin;

use http::{Method, StatusCode};

use super::{Request, Response};

type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;
type Handler = Box<dyn Fn(Request) -> Answer + Send + Sync>;

struct Route {
    method: Method,
    path: &'static str,
    exact: bool,
    doc: &'static str,
    handler: Handler,
}

/// Which handler serves which method and path. `GET /help` lists them (so does `GET /` unless it is taken).
///
/// Handlers run on the server's only thread: one that takes longer than a few milliseconds is registered with
/// [`route_async`](Self::route_async) and does its work elsewhere.
#[derive(Default)]
pub struct Router {
    routes: Vec<Route>,
}

impl Router {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// `GET path`, answered at once. `doc` is its line in `/help`.
    #[must_use]
    pub fn get<F>(self, path: &'static str, doc: &'static str, handler: F) -> Self
    where
        F: Fn(Request) -> Response + Send + Sync + 'static,
    {
        self.add(Method::GET, path, true, doc, Box::new(move |request| Box::pin(ready(handler(request)))))
    }

    /// `POST path`, answered at once: for everything that changes state.
    #[must_use]
    pub fn post<F>(self, path: &'static str, doc: &'static str, handler: F) -> Self
    where
        F: Fn(Request) -> Response + Send + Sync + 'static,
    {
        self.add(Method::POST, path, true, doc, Box::new(move |request| Box::pin(ready(handler(request)))))
    }

    /// `GET` of every path that begins with `prefix` (write its final slash); [`Request::tail`] is the rest.
    #[must_use]
    pub fn prefix<F>(self, prefix: &'static str, doc: &'static str, handler: F) -> Self
    where
        F: Fn(Request) -> Response + Send + Sync + 'static,
    {
        self.add(Method::GET, prefix, false, doc, Box::new(move |request| Box::pin(ready(handler(request)))))
    }

    /// Any method, exact path, answered by a future.
    #[must_use]
    pub fn route_async<F, A>(self, method: Method, path: &'static str, doc: &'static str, handler: F) -> Self
    where
        F: Fn(Request) -> A + Send + Sync + 'static,
        A: Future<Output = Response> + Send + 'static,
    {
        self.add(method, path, true, doc, Box::new(move |request| Box::pin(handler(request))))
    }

    /// The same for every path that begins with `prefix`.
    #[must_use]
    pub fn prefix_async<F, A>(self, method: Method, prefix: &'static str, doc: &'static str, handler: F) -> Self
    where
        F: Fn(Request) -> A + Send + Sync + 'static,
        A: Future<Output = Response> + Send + 'static,
    {
        self.add(method, prefix, false, doc, Box::new(move |request| Box::pin(handler(request))))
    }

    fn add(mut self, method: Method, path: &'static str, exact: bool, doc: &'static str, handler: Handler) -> Self {
        self.routes.push(Route { method, path, exact, doc, handler });
        self
    }

    /// Answers one request: an exact path wins over a prefix, a longer prefix over a shorter one, and of equal ones the
    /// first that was added.
    pub async fn dispatch(&self, mut request: Request) -> Response {
        let mut best: Option<&Route> = None;
        let mut allowed: Vec<&str> = Vec::new();
        for route in self.routes.iter().filter(|route| route.covers(request.path())) {
            if route.method != request.method() {
                allowed.push(route.method.as_str());
            } else if best.is_none_or(|best| best.rank() < route.rank()) {
                best = Some(route);
            }
        }
        if let Some(route) = best {
            request.matched = route.path.len();
            return (route.handler)(request).await;
        }
        if !allowed.is_empty() {
            allowed.sort_unstable();
            allowed.dedup();
            return Response::method_not_allowed(&allowed.join(", "));
        }
        match (request.method(), request.path()) {
            (&Method::GET, "/" | "/help") => Response::ok(self.help()),
            _ => Response::text(StatusCode::NOT_FOUND, "no such page; GET /help lists what there is\n"),
        }
    }

    /// The routes, one line each, in order of path.
    #[must_use]
    pub fn help(&self) -> String {
        let mut routes: Vec<&Route> = self.routes.iter().collect();
        routes.sort_by_key(|route| (route.path, route.method.as_str()));
        let width = routes.iter().map(|route| route.path.len()).max().unwrap_or_default() + 1;
        routes.iter().fold(String::new(), |mut text, route| {
            let path = if route.exact { route.path.to_owned() } else { format!("{}…", route.path) };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{:<5} {path:<width$} {}", route.method.as_str(), route.doc);
            text
        })
    }
}

impl Route {
    fn covers(&self, path: &str) -> bool {
        if self.exact { path == self.path } else { path.starts_with(self.path) }
    }

    fn rank(&self) -> (bool, usize) {
        (self.exact, self.path.len())
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes = self.routes.iter().map(|route| format!("{} {}", route.method, route.path));
        f.debug_list().entries(routes).finish()
    }
}
