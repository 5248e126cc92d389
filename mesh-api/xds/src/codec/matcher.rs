//! String, header, query and address tests.

use mesh_api::text::Str;

use super::common::{read_u32, u32_value};
use super::error::{At, DecodeError, bad, fail, required};
use crate::ir::matcher::{Cidr, HeaderMatch, QueryMatch, StringMatch, StringPattern, ValueTest};
use crate::pb;
use crate::pb::matcher::string_matcher::MatchPattern;
use crate::pb::route::header_matcher::HeaderMatchSpecifier;
use crate::pb::route::query_parameter_matcher::QueryParameterMatchSpecifier;

pub(super) fn regex(pattern: &Str) -> pb::matcher::RegexMatcher {
    pb::matcher::RegexMatcher { regex: pattern.to_string(), ..pb::matcher::RegexMatcher::default() }
}

pub(super) fn string(test: &StringMatch) -> pb::matcher::StringMatcher {
    let pattern = match &test.pattern {
        StringPattern::Exact(text) => MatchPattern::Exact(text.to_string()),
        StringPattern::Prefix(text) => MatchPattern::Prefix(text.to_string()),
        StringPattern::Suffix(text) => MatchPattern::Suffix(text.to_string()),
        StringPattern::Contains(text) => MatchPattern::Contains(text.to_string()),
        StringPattern::Regex(text) => MatchPattern::SafeRegex(regex(text)),
    };
    // Envoy refuses a regular expression with this flag, which it would not heed.
    let ignore_case = test.ignore_case && !matches!(test.pattern, StringPattern::Regex(_));
    pb::matcher::StringMatcher { ignore_case, match_pattern: Some(pattern) }
}

pub(super) fn read_string(message: pb::matcher::StringMatcher) -> Result<StringMatch, DecodeError> {
    let pattern = match message.match_pattern {
        Some(MatchPattern::Exact(text)) => StringPattern::Exact(text.into()),
        Some(MatchPattern::Prefix(text)) if !text.is_empty() => StringPattern::Prefix(text.into()),
        Some(MatchPattern::Suffix(text)) if !text.is_empty() => StringPattern::Suffix(text.into()),
        Some(MatchPattern::Contains(text)) if !text.is_empty() => StringPattern::Contains(text.into()),
        Some(MatchPattern::SafeRegex(regex)) => StringPattern::Regex(regex.regex.into()),
        Some(MatchPattern::Prefix(_) | MatchPattern::Suffix(_) | MatchPattern::Contains(_)) => {
            return fail("an empty pattern matches everything: leave the test out");
        }
        Some(MatchPattern::Custom(_)) => return fail("is not supported").at("custom"),
        None => return fail("has no pattern"),
    };
    let ignore_case = message.ignore_case && !matches!(pattern, StringPattern::Regex(_));
    Ok(StringMatch { pattern, ignore_case })
}

pub(super) fn header(test: &HeaderMatch) -> pb::route::HeaderMatcher {
    pb::route::HeaderMatcher {
        name: test.name.to_string(),
        invert_match: test.invert,
        treat_missing_header_as_empty: test.missing_is_empty,
        header_match_specifier: Some(match &test.test {
            ValueTest::Present => HeaderMatchSpecifier::PresentMatch(true),
            ValueTest::Matches(test) => HeaderMatchSpecifier::StringMatch(string(test)),
        }),
    }
}

#[expect(deprecated, reason = "the old forms still come from other control planes and have an exact equivalent")]
pub(super) fn read_header(message: pb::route::HeaderMatcher) -> Result<HeaderMatch, DecodeError> {
    let mut invert = message.invert_match;
    let matches = |pattern| Ok(ValueTest::Matches(StringMatch::new(pattern)));
    let test = match message.header_match_specifier {
        None => Ok(ValueTest::Present),
        Some(HeaderMatchSpecifier::PresentMatch(present)) => {
            invert ^= !present;
            Ok(ValueTest::Present)
        }
        Some(HeaderMatchSpecifier::StringMatch(test)) => read_string(test).map(ValueTest::Matches),
        Some(HeaderMatchSpecifier::ExactMatch(text)) => matches(StringPattern::Exact(text.into())),
        Some(HeaderMatchSpecifier::PrefixMatch(text)) => matches(StringPattern::Prefix(text.into())),
        Some(HeaderMatchSpecifier::SuffixMatch(text)) => matches(StringPattern::Suffix(text.into())),
        Some(HeaderMatchSpecifier::ContainsMatch(text)) => matches(StringPattern::Contains(text.into())),
        Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => matches(StringPattern::Regex(regex.regex.into())),
        Some(HeaderMatchSpecifier::RangeMatch(_)) => fail("is not supported").at("range_match"),
    };
    Ok(HeaderMatch {
        name: Str::from(message.name.to_ascii_lowercase()),
        test: test?,
        invert,
        missing_is_empty: message.treat_missing_header_as_empty,
    })
}

pub(super) fn query(test: &QueryMatch) -> pb::route::QueryParameterMatcher {
    pb::route::QueryParameterMatcher {
        name: test.name.to_string(),
        query_parameter_match_specifier: Some(match &test.test {
            ValueTest::Present => QueryParameterMatchSpecifier::PresentMatch(true),
            ValueTest::Matches(test) => QueryParameterMatchSpecifier::StringMatch(string(test)),
        }),
    }
}

pub(super) fn read_query(message: pb::route::QueryParameterMatcher) -> Result<QueryMatch, DecodeError> {
    let test = match message.query_parameter_match_specifier {
        None | Some(QueryParameterMatchSpecifier::PresentMatch(true)) => ValueTest::Present,
        Some(QueryParameterMatchSpecifier::PresentMatch(false)) => {
            return fail("only true is supported").at("present_match");
        }
        Some(QueryParameterMatchSpecifier::StringMatch(test)) => ValueTest::Matches(read_string(test)?),
    };
    Ok(QueryMatch { name: message.name.into(), test })
}

pub(super) fn cidr(value: Cidr) -> pb::core::CidrRange {
    pb::core::CidrRange { address_prefix: value.address.to_string(), prefix_len: u32_value(value.bits.into()) }
}

pub(super) fn read_cidr(message: pb::core::CidrRange) -> Result<Cidr, DecodeError> {
    let bits = read_u32(message.prefix_len, 0);
    let address = message.address_prefix.parse().ok();
    let parsed = address.and_then(|address| Cidr::new(address, u8::try_from(bits).ok()?));
    parsed.map_or_else(|| bad("a prefix", format!("{}/{bits}", message.address_prefix)), Ok)
}

/// A path test in the form that policies use.
pub(super) fn path(test: &StringMatch) -> pb::matcher::PathMatcher {
    pb::matcher::PathMatcher { rule: Some(pb::matcher::path_matcher::Rule::Path(string(test))) }
}

pub(super) fn read_path(message: pb::matcher::PathMatcher) -> Result<StringMatch, DecodeError> {
    let pb::matcher::path_matcher::Rule::Path(test) = required(message.rule, "rule")?;
    read_string(test)
}
