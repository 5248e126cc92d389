//! Redirects and direct responses of routes, and the redirect of plain HTTP to HTTPS.

use std::borrow::Cow;
use std::sync::Arc;

use mesh_api::text::Str;
use mesh_api_xds::ir::route::{Direct, Redirect, RedirectPath, RedirectPort};

use super::Answer;
use crate::head::Head;
use crate::head::known::KnownName;
use crate::head::syntax::split_port;

/// The answer of a redirecting route. `matched` is how much of the path the route's condition names.
#[must_use]
pub fn answer(redirect: &Redirect, matched: usize, head: &Head) -> Answer {
    let old_scheme = head.scheme().unwrap_or(b"http");
    let scheme = redirect.scheme.as_ref().map_or(old_scheme, |scheme| scheme.as_bytes());
    let authority = redirect.authority.as_ref().map_or_else(|| head.authority(), |authority| authority.as_bytes());
    let mut location = Vec::with_capacity(128);
    location.extend_from_slice(scheme);
    location.extend_from_slice(b"://");
    put_authority(&mut location, authority, redirect, old_scheme, scheme);
    let target = head.target();
    let query = target.get(head.path().len()..).unwrap_or_default();
    match &redirect.path {
        RedirectPath::Keep => location.extend_from_slice(target),
        RedirectPath::Full(path) => {
            location.extend_from_slice(path.as_bytes());
            // A configured path may bring its own query.
            if !path.contains('?') {
                location.extend_from_slice(query);
            }
        }
        RedirectPath::Prefix(prefix) => {
            location.extend_from_slice(prefix.as_bytes());
            location.extend_from_slice(target.get(matched..).unwrap_or_default());
        }
    }
    Answer::new(redirect.status, "direct_response").with(KnownName::Location, location)
}

/// The redirect of plain HTTP to the same place over HTTPS (`require_tls`); 301 as Envoy.
#[must_use]
pub fn to_https(head: &Head) -> Answer {
    let scheme = Some(Str::from("https"));
    let redirect =
        Redirect { status: 301, scheme, authority: None, port: RedirectPort::Keep, path: RedirectPath::Keep };
    answer(&redirect, 0, head)
}

/// The answer of a route that answers itself.
#[must_use]
pub fn direct(direct: &Direct) -> Answer {
    let mut answer = Answer::new(direct.status, "direct_response");
    if !direct.body.is_empty() {
        answer.headers.push((KnownName::ContentType, Cow::Borrowed(b"text/plain")));
    }
    answer.body = Arc::clone(&direct.body);
    answer
}

fn put_authority(out: &mut Vec<u8>, authority: &[u8], redirect: &Redirect, old_scheme: &[u8], scheme: &[u8]) {
    let (host, port) = split_port(authority);
    let port = match redirect.port {
        RedirectPort::Keep => {
            // A port that only stood for the old scheme does not stand for the new one.
            let stood_for_scheme = redirect.scheme.is_some() && port == default_port(old_scheme);
            port.filter(|_| !stood_for_scheme)
        }
        RedirectPort::Strip => None,
        RedirectPort::Port(port) => Some(port).filter(|port| Some(*port) != default_port(scheme)),
    };
    out.extend_from_slice(host);
    if let Some(port) = port {
        out.extend_from_slice(format!(":{port}").as_bytes());
    }
}

fn default_port(scheme: &[u8]) -> Option<u16> {
    match scheme {
        b"http" => Some(80),
        b"https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_head(scheme: &str, authority: &str, target: &str) -> Head {
        let mut head = Head::request();
        head.set_scheme(scheme.as_bytes()).unwrap();
        head.set_authority(authority.as_bytes()).unwrap();
        head.set_target(target.as_bytes()).unwrap();
        head
    }

    fn location(answer: &Answer) -> String {
        let (name, value) = answer.headers.first().unwrap();
        assert_eq!(*name, KnownName::Location);
        String::from_utf8_lossy(value).into_owned()
    }

    const KEEP: Redirect =
        Redirect { status: 301, scheme: None, authority: None, port: RedirectPort::Keep, path: RedirectPath::Keep };

    #[test]
    fn locations_keep_what_is_not_replaced() {
        #[track_caller]
        fn check(redirect: Redirect, head: &Head, expect: &str) {
            assert_eq!(location(&answer(&redirect, 4, head)), expect, "{redirect:?}");
        }
        let some = |text: &str| Some(Str::from(text));
        let head = mk_head("http", "a.io:8080", "/old/x?q=1");
        check(KEEP, &head, "http://a.io:8080/old/x?q=1");
        check(Redirect { authority: some("b.io"), ..KEEP }, &head, "http://b.io/old/x?q=1");
        check(Redirect { scheme: some("https"), ..KEEP }, &head, "https://a.io:8080/old/x?q=1");
        check(Redirect { scheme: some("https"), ..KEEP }, &mk_head("http", "a.io:80", "/"), "https://a.io/");
        check(Redirect { port: RedirectPort::Strip, ..KEEP }, &head, "http://a.io/old/x?q=1");
        check(Redirect { port: RedirectPort::Port(81), ..KEEP }, &head, "http://a.io:81/old/x?q=1");
        check(Redirect { port: RedirectPort::Port(80), ..KEEP }, &head, "http://a.io/old/x?q=1");
        check(Redirect { path: RedirectPath::Full(Str::from("/new")), ..KEEP }, &head, "http://a.io:8080/new?q=1");
        check(Redirect { path: RedirectPath::Full(Str::from("/new?z")), ..KEEP }, &head, "http://a.io:8080/new?z");
        check(Redirect { path: RedirectPath::Prefix(Str::from("/n")), ..KEEP }, &head, "http://a.io:8080/n/x?q=1");
        check(KEEP, &mk_head("https", "[::1]:8443", "/"), "https://[::1]:8443/");
    }

    #[test]
    fn plain_http_goes_to_the_same_place_over_https() {
        let answer = to_https(&mk_head("http", "a.io:80", "/x?q"));
        assert_eq!((answer.status, location(&answer).as_str()), (301, "https://a.io/x?q"));
    }

    #[test]
    fn direct_responses_are_as_configured() {
        let answer = direct(&Direct { status: 503, body: (*b"sorry").into() });
        assert_eq!((answer.status, &*answer.body), (503, &b"sorry"[..]));
    }
}
