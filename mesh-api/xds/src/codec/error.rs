//! Errors with a place, and the check that nothing was left unread.

use std::fmt::{Debug, Display};
use std::sync::Arc;

/// A message that cannot be represented.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct DecodeError {
    /// Place in the message, for example `virtual_hosts[2].routes[0].match`; empty when it is the whole.
    pub path: String,
    /// What is wrong there.
    pub reason: String,
}

/// A value that Envoy's messages cannot say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct EncodeError {
    /// Place in the value.
    pub path: String,
    /// What is wrong there.
    pub reason: String,
}

/// An error that knows its place.
pub(super) trait Located: Sized {
    /// The error at the place where it was found.
    fn here(reason: String) -> Self;
    /// The same error one level up.
    fn below(self, segment: &str) -> Self;
}

fn join(segment: &str, path: &str) -> String {
    if path.is_empty() { segment.to_owned() } else { format!("{segment}.{path}") }
}

impl Located for DecodeError {
    fn here(reason: String) -> Self {
        Self { path: String::new(), reason }
    }

    fn below(self, segment: &str) -> Self {
        Self { path: join(segment, &self.path), reason: self.reason }
    }
}

impl Located for EncodeError {
    fn here(reason: String) -> Self {
        Self { path: String::new(), reason }
    }

    fn below(self, segment: &str) -> Self {
        Self { path: join(segment, &self.path), reason: self.reason }
    }
}

/// An error here.
pub(super) fn fail<T, E: Located>(reason: impl Into<String>) -> Result<T, E> {
    Err(E::here(reason.into()))
}

/// Gives an error its place.
pub(super) trait At {
    /// The result, an error of which happened in the field `segment`.
    fn at(self, segment: &str) -> Self;
}

impl<T, E: Located> At for Result<T, E> {
    fn at(self, segment: &str) -> Self {
        self.map_err(|error| error.below(segment))
    }
}

/// Converts each item; an error names the field and the position.
pub(super) fn each<A, B, C: FromIterator<B>, E: Located>(
    field: &str,
    items: impl IntoIterator<Item = A>,
    mut convert: impl FnMut(A) -> Result<B, E>,
) -> Result<C, E> {
    let items = items.into_iter().enumerate();
    items.map(|(position, item)| convert(item).map_err(|error| error.below(&format!("{field}[{position}]")))).collect()
}

/// As [`each`], into shared slices.
pub(super) fn each_arc<A, B, E: Located>(
    field: &str,
    items: impl IntoIterator<Item = A>,
    convert: impl FnMut(A) -> Result<B, E>,
) -> Result<Arc<[B]>, E> {
    let items: Vec<B> = each(field, items, convert)?;
    Ok(items.into())
}

/// A field that has to be there.
pub(super) fn required<T>(value: Option<T>, field: &str) -> Result<T, DecodeError> {
    value.map_or_else(|| fail::<T, _>("is missing").at(field), Ok)
}

/// A value that has to be this.
pub(super) fn only<T: PartialEq + Debug>(value: &T, expect: &T, field: &str) -> Result<(), DecodeError> {
    if value == expect { Ok(()) } else { fail(format!("only {expect:?} is supported")).at(field) }
}

/// Checks that everything in a message was taken out of it: what remains was not understood.
///
/// The generated messages know no reflection, so the field's name is found by comparing the debug text with that of an
/// empty message. Values stay out of the error: they may be secrets.
pub(super) fn leftover<M: Debug + Default + PartialEq>(rest: &M) -> Result<(), DecodeError> {
    let empty = M::default();
    if *rest == empty {
        return Ok(());
    }
    let (rest, empty) = (format!("{rest:#?}"), format!("{empty:#?}"));
    let mut field = "";
    for (line, expect) in rest.lines().zip(empty.lines()) {
        let indent = line.len() - line.trim_start().len();
        if let (4, Some((name, _))) = (indent, line.split_once(':')) {
            field = name.trim();
        }
        if line != expect {
            break;
        }
    }
    fail("is not supported").at(field.trim_start_matches("r#"))
}

/// A message with something to add to an error, for values that print themselves.
pub(super) fn bad<T, E: Located>(what: &str, value: impl Display) -> Result<T, E> {
    fail(format!("{value} is not {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb;

    #[test]
    fn the_first_field_that_was_left_is_named() {
        let check = |rest: &pb::cluster::Cluster, expect: &str| {
            assert_eq!(leftover(rest).unwrap_err().path, expect);
        };
        let empty = pb::cluster::Cluster::default();
        assert_eq!(leftover(&empty), Ok(()));
        check(
            &pb::cluster::Cluster { connection_pool_per_downstream_connection: true, ..empty.clone() },
            "connection_pool_per_downstream_connection",
        );
        check(&pb::cluster::Cluster { health_checks: vec![Default::default()], ..empty.clone() }, "health_checks");
        check(&pb::cluster::Cluster { metadata: Some(Default::default()), ..empty }, "metadata");
    }
}
