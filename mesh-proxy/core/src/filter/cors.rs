//! Cross-origin resource sharing (Fetch standard, section 3.2; envoyproxy/envoy: `source/extensions/filters/http/cors`).

use mesh_api_xds::ir::filter::Cors;

use super::{Answer, Flow, Needs};
use crate::head::known::KnownName;
use crate::head::{FieldError, Head, Method};
use crate::matcher::string::StringTest;
use crate::rejected::BadPattern;

/// A compiled policy.
#[derive(Clone, Debug)]
pub struct CorsRules {
    origins: Box<[StringTest]>,
    methods: Box<[u8]>,
    headers: Box<[u8]>,
    expose: Box<[u8]>,
    max_age: Option<Box<[u8]>>,
    credentials: bool,
    forward_unmatched: bool,
}

impl CorsRules {
    /// What it looks at.
    pub const NEEDS: Needs = Needs::REQUEST_HEAD.union(Needs::RESPONSE_HEAD);

    /// Compiles a policy.
    ///
    /// # Errors
    /// For a bad regular expression among the origins.
    pub fn compile(cors: &Cors) -> Result<Self, BadPattern> {
        let text = |text: &str| text.as_bytes().into();
        Ok(Self {
            origins: cors.origins.iter().map(StringTest::compile).collect::<Result<_, _>>()?,
            methods: text(&cors.methods),
            headers: text(&cors.headers),
            expose: text(&cors.expose),
            max_age: cors.max_age.map(|age| text(&age.as_secs().to_string())),
            credentials: cors.credentials,
            forward_unmatched: cors.forward_unmatched,
        })
    }

    /// Answers preflight requests.
    #[must_use]
    pub fn on_request(&self, head: &Head) -> Flow {
        let Some(origin) = head.get(KnownName::Origin).filter(|origin| !origin.is_empty()) else {
            return Flow::Continue;
        };
        let asked = head.get(KnownName::AccessControlRequestMethod).is_some_and(|method| !method.is_empty());
        if head.method() != Method::Options || !asked {
            return Flow::Continue;
        }
        if !self.allows(origin) {
            let refusal = Answer::new(200, "cors_response");
            return if self.forward_unmatched { Flow::Continue } else { refusal.into_flow() };
        }
        let mut answer = Answer::new(200, "cors_response").with(KnownName::AccessControlAllowOrigin, origin.to_vec());
        if self.credentials {
            answer = answer.with(KnownName::AccessControlAllowCredentials, &b"true"[..]);
        }
        let optional = [
            (KnownName::AccessControlAllowMethods, &*self.methods),
            (KnownName::AccessControlAllowHeaders, &*self.headers),
            (KnownName::AccessControlMaxAge, self.max_age.as_deref().unwrap_or_default()),
        ];
        for (name, value) in optional.into_iter().filter(|(_, value)| !value.is_empty()) {
            answer = answer.with(name, value.to_vec());
        }
        answer.into_flow()
    }

    /// Adds the fields that let the page of an allowed origin read the response.
    ///
    /// # Errors
    /// [`FieldError::TooLarge`] when the head outgrows its bound.
    pub fn on_response(&self, request: &Head, response: &mut Head) -> Result<(), FieldError> {
        let Some(origin) = request.get(KnownName::Origin).filter(|origin| self.allows(origin)) else { return Ok(()) };
        response.set(KnownName::AccessControlAllowOrigin, origin)?;
        if self.credentials {
            response.set(KnownName::AccessControlAllowCredentials, b"true")?;
        }
        if !self.expose.is_empty() {
            response.set(KnownName::AccessControlExposeHeaders, &self.expose)?;
        }
        Ok(())
    }

    fn allows(&self, origin: &[u8]) -> bool {
        !origin.is_empty() && self.origins.iter().any(|test| test.matches(origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Reply;
    use mesh_api::text::Str;
    use mesh_api_xds::ir::matcher::StringMatch;
    use std::time::Duration;

    fn mk_rules(forward_unmatched: bool) -> CorsRules {
        CorsRules::compile(&Cors {
            origins: [StringMatch::exact("https://a.io")].into(),
            methods: Str::from("GET,POST"),
            headers: Str::from("x-a"),
            expose: Str::from("x-b"),
            max_age: Some(Duration::from_secs(86_400)),
            credentials: true,
            forward_unmatched,
        })
        .unwrap()
    }

    fn mk_request(method: &str, fields: &[(&str, &str)]) -> Head {
        let mut head = Head::request();
        head.set_method(method.as_bytes()).unwrap();
        for (name, value) in fields {
            head.append(*name, value.as_bytes()).unwrap();
        }
        head
    }

    fn answer(flow: Flow) -> Vec<(String, String)> {
        let Flow::Reply(reply) = flow else { panic!("{flow:?}") };
        let Reply::Answer(answer) = *reply else { panic!("{reply:?}") };
        assert_eq!((answer.status, answer.details), (200, "cors_response"));
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        answer.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
    }

    const PREFLIGHT: (&str, &str) = ("access-control-request-method", "POST");

    #[test]
    fn preflights_of_allowed_origins_are_answered_in_full() {
        let request = mk_request("OPTIONS", &[("origin", "https://a.io"), PREFLIGHT]);
        let expect = [
            ("access-control-allow-origin", "https://a.io"),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "GET,POST"),
            ("access-control-allow-headers", "x-a"),
            ("access-control-max-age", "86400"),
        ];
        assert_eq!(answer(mk_rules(true).on_request(&request)), expect.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn preflights_of_other_origins_go_on_or_get_nothing() {
        let request = mk_request("OPTIONS", &[("origin", "https://evil.io"), PREFLIGHT]);
        assert_eq!(mk_rules(true).on_request(&request), Flow::Continue);
        assert!(answer(mk_rules(false).on_request(&request)).is_empty());
    }

    #[test]
    fn what_is_no_preflight_goes_on() {
        for request in [
            mk_request("GET", &[("origin", "https://a.io"), PREFLIGHT]),
            mk_request("OPTIONS", &[("origin", "https://a.io")]),
            mk_request("OPTIONS", &[PREFLIGHT]),
        ] {
            assert_eq!(mk_rules(false).on_request(&request), Flow::Continue, "{request:?}");
        }
    }

    #[test]
    fn responses_name_only_allowed_origins() {
        let response = |origin| {
            let mut response = Head::response();
            response.append("access-control-allow-origin", b"*").unwrap();
            mk_rules(true).on_response(&mk_request("GET", &[("origin", origin)]), &mut response).unwrap();
            let exposed = response.contains("access-control-expose-headers");
            (String::from_utf8_lossy(response.get("access-control-allow-origin").unwrap()).into_owned(), exposed)
        };
        assert_eq!(response("https://a.io"), ("https://a.io".to_owned(), true));
        assert_eq!(response("https://b.io"), ("*".to_owned(), false));
    }
}
