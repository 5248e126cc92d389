//! A compiled test on one query parameter.

use mesh_api_xds::ir::matcher::{QueryMatch, ValueTest};

use super::string::StringTest;
use crate::rejected::BadPattern;

/// A compiled [`QueryMatch`].
#[derive(Clone, Debug)]
pub struct QueryTest {
    name: Box<str>,
    /// `None`: presence.
    value: Option<StringTest>,
}

impl QueryTest {
    /// Compiles a test.
    ///
    /// # Errors
    /// Only a regular expression can be wrong.
    pub fn compile(test: &QueryMatch) -> Result<Self, BadPattern> {
        let value = match &test.test {
            ValueTest::Present => None,
            ValueTest::Matches(test) => Some(StringTest::compile(test)?),
        };
        Ok(Self { name: test.name.as_str().into(), value })
    }

    /// The parameter's name.
    #[must_use]
    pub const fn name(&self) -> &str {
        &self.name
    }

    /// Whether the query (what follows `?`) passes. Of several parameters of one name the first counts; nothing is
    /// decoded; `?key` has the value "" (envoyproxy/envoy: `QueryParamsMulti::parseQueryString`).
    #[must_use]
    pub fn matches(&self, query: Option<&[u8]>) -> bool {
        let value = query.unwrap_or_default().split(|byte| *byte == b'&').find_map(|pair| {
            let rest = pair.strip_prefix(self.name.as_bytes())?;
            if rest.is_empty() { Some(rest) } else { rest.strip_prefix(b"=") }
        });
        match (value, &self.value) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(value), Some(test)) => test.matches(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_api::text::Str;
    use mesh_api_xds::ir::matcher::StringMatch;

    #[test]
    fn parameters_are_found_by_whole_name() {
        #[track_caller]
        fn check(name: &str, value: Option<&str>, query: Option<&str>, expect: bool) {
            let test = value.map_or(ValueTest::Present, |value| ValueTest::Matches(StringMatch::exact(value)));
            let test = QueryTest::compile(&QueryMatch { name: Str::from(name), test }).unwrap();
            assert_eq!(test.matches(query.map(str::as_bytes)), expect, "{name} {value:?} {query:?}");
        }
        check("a", Some("1"), Some("a=1"), true);
        check("a", Some("1"), Some("b=2&a=1&a=2"), true);
        check("a", Some("2"), Some("a=1&a=2"), false);
        check("a", Some("1"), Some("aa=1"), false);
        check("a", Some(""), Some("a"), true);
        check("a", Some(""), Some("a="), true);
        check("a", Some("b=c"), Some("a=b=c"), true);
        check("a", None, Some("a=x"), true);
        check("a", None, Some("b=a"), false);
        check("a", None, None, false);
        check("a", Some("%31"), Some("a=%31"), true);
    }
}
