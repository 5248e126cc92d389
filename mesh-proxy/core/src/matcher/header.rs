//! A compiled test on one header field or pseudo header.

use mesh_api_xds::ir::matcher::{HeaderMatch, ValueTest};
use smallvec::SmallVec;

use super::string::StringTest;
use crate::head::Head;
use crate::head::name::FieldName;
use crate::rejected::Reason;

/// A compiled [`HeaderMatch`].
#[derive(Clone, Debug)]
pub struct HeaderTest {
    name: FieldName,
    /// `None`: presence.
    value: Option<StringTest>,
    invert: bool,
    missing_is_empty: bool,
}

impl HeaderTest {
    /// Compiles a test.
    ///
    /// # Errors
    /// For a name that is no field name, or a bad regular expression.
    pub fn compile(test: &HeaderMatch) -> Result<Self, Reason> {
        let name = FieldName::parse(&test.name).ok_or_else(|| Reason::FieldName(test.name.clone()))?;
        let value = match &test.test {
            ValueTest::Present => None,
            ValueTest::Matches(test) => Some(StringTest::compile(test)?),
        };
        Ok(Self { name, value, invert: test.invert, missing_is_empty: test.missing_is_empty })
    }

    /// The field's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Whether the head passes.
    ///
    /// Several lines of one name are one value joined by commas. An absent field fails a test of its value even when that
    /// is inverted, unless absence counts as emptiness (envoyproxy/envoy: `HeaderUtility::matchHeaders`).
    #[must_use]
    pub fn matches(&self, head: &Head) -> bool {
        let Some(test) = &self.value else { return head.contains(&self.name) != self.invert };
        let mut values = head.get_all(&self.name);
        let passes = match (values.next(), values.next()) {
            (None, _) if !self.missing_is_empty => return false,
            (None, _) => test.matches(b""),
            (Some(value), None) => test.matches(value),
            (Some(first), Some(second)) => {
                let mut joined = SmallVec::<[u8; 256]>::from_slice(first);
                for value in std::iter::once(second).chain(values) {
                    joined.push(b',');
                    joined.extend_from_slice(value);
                }
                test.matches(&joined)
            }
        };
        passes != self.invert
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_api::text::Str;
    use mesh_api_xds::ir::matcher::{StringMatch, StringPattern};

    fn mk_head(fields: &[(&str, &str)]) -> Head {
        let mut head = Head::request();
        head.set_target(b"/p?q=1").unwrap();
        head.set_authority(b"Web:80").unwrap();
        for (name, value) in fields {
            head.append(*name, value.as_bytes()).unwrap();
        }
        head
    }

    fn mk_test(name: &str, value: Option<&str>) -> HeaderMatch {
        let test = value.map_or(ValueTest::Present, |value| ValueTest::Matches(StringMatch::exact(value)));
        HeaderMatch { name: Str::from(name), test, invert: false, missing_is_empty: false }
    }

    #[track_caller]
    fn check(test: HeaderMatch, fields: &[(&str, &str)], expect: bool) {
        let compiled = HeaderTest::compile(&test).unwrap();
        assert_eq!(compiled.matches(&mk_head(fields)), expect, "{test:?} on {fields:?}");
    }

    #[test]
    fn values_presence_and_inversion_follow_envoy() {
        let inverted = |test| HeaderMatch { invert: true, ..test };
        let or_empty = |test| HeaderMatch { missing_is_empty: true, ..test };
        check(mk_test("end-user", Some("jason")), &[("End-User", "jason")], true);
        check(mk_test("end-user", Some("jason")), &[("end-user", "x")], false);
        check(mk_test("end-user", Some("jason")), &[], false);
        check(inverted(mk_test("end-user", Some("jason"))), &[("end-user", "x")], true);
        check(inverted(mk_test("end-user", Some("jason"))), &[], false);
        check(inverted(or_empty(mk_test("end-user", Some("jason")))), &[], true);
        check(or_empty(mk_test("end-user", Some(""))), &[], true);
        check(mk_test("end-user", None), &[("end-user", "")], true);
        check(mk_test("end-user", None), &[], false);
        check(inverted(mk_test("end-user", None)), &[], true);
        check(inverted(mk_test("end-user", None)), &[("end-user", "x")], false);
        check(mk_test("a", Some("1,2,3")), &[("a", "1"), ("b", "x"), ("A", "2"), ("a", "3")], true);
    }

    #[test]
    fn pseudo_headers_are_fields_too() {
        check(mk_test(":method", Some("GET")), &[], true);
        check(mk_test(":path", Some("/p?q=1")), &[], true);
        check(mk_test(":authority", Some("Web:80")), &[], true);
        check(mk_test("host", Some("Web:80")), &[], true);
    }

    #[test]
    fn bad_tests_are_refused() {
        assert!(HeaderTest::compile(&mk_test("a b", None)).is_err());
        let regex = ValueTest::Matches(StringMatch::new(StringPattern::Regex(Str::from("("))));
        assert!(HeaderTest::compile(&HeaderMatch { test: regex, ..mk_test("a", None) }).is_err());
    }
}
