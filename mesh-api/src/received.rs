//! Objects as an API server sends them: JSON, one at a time.

use serde_json::Value;

use crate::{
    codes::Code,
    finding::{Finding, MAX_PER_OBJECT},
    ids::ObjectKey,
    kinds::Kind,
    labels::Selector,
    meta::Meta,
    object::AnyObject,
    parse::prune_all_nulls,
    typed::from_value,
    validate::validate,
};

/// An object that was read.
#[derive(Clone, Debug)]
pub struct Received {
    /// The object.
    pub object: AnyObject,
    /// Unknown fields and broken rules of a kind of the mesh. Translation cuts out what is wrong, so that they do not keep
    /// the object from being used.
    pub findings: Vec<Finding>,
}

/// An object that cannot be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}: {}", finding.path, finding.message)]
pub struct Refused {
    /// Its metadata, as far as they can be read.
    pub meta: Meta,
    /// What is wrong.
    pub finding: Finding,
    /// What it says it selects, so that a policy can be replaced by one that lets nobody in.
    pub selector: Option<Selector>,
}

/// Reads an object of `kind` from JSON.
///
/// Kinds that are not the mesh's own are read straight into their types: there are tens of thousands of them, and the API
/// server has checked them.
///
/// # Errors
/// When it is not JSON, or a field is of the wrong type. What a Secret holds is never in the message.
pub fn received(kind: Kind, json: &str) -> Result<Received, Box<Refused>> {
    if !kind.is_mesh()
        && let Ok(object) = AnyObject::from_json(kind, json)
    {
        return Ok(Received { object, findings: Vec::new() });
    }
    let mut value: Value =
        serde_json::from_str(json).map_err(|error| refused(kind, Meta::default(), None, Code::Syntax, "", &error))?;
    let meta = value.get("metadata").and_then(|meta| from_value::<Meta>(meta).ok()).unwrap_or_default();
    let mut findings = Vec::new();
    if kind.is_mesh() {
        let shape = kind.shape();
        shape.prune_nulls(&mut value);
        shape.unknown_fields(&value, &mut |path, hint| {
            if findings.len() < MAX_PER_OBJECT {
                let message = format!("is not a field of {kind}");
                findings.push(Finding::new(Code::UnknownField, path, message).hint(hint).on(meta.key(kind)));
            }
        });
    } else {
        prune_all_nulls(&mut value);
    }
    match AnyObject::from_value(kind, &value) {
        Ok(object) => {
            if kind.is_mesh() {
                findings.extend(validate(&object));
                findings.truncate(MAX_PER_OBJECT);
            }
            Ok(Received { object, findings })
        }
        Err(error) => Err(refused(kind, meta, selector(&value), Code::WrongType, &error.path, &error.message)),
    }
}

fn refused(
    kind: Kind,
    meta: Meta,
    selector: Option<Selector>,
    code: Code,
    path: &str,
    message: &dyn std::fmt::Display,
) -> Box<Refused> {
    // The message may quote the content.
    let message = if kind == Kind::Secret {
        "is not what a Secret holds: data is base64 text by key".to_owned()
    } else {
        message.to_string()
    };
    let key: ObjectKey = meta.key(kind);
    Box::new(Refused { finding: Finding::new(code, path, message).on(key), meta, selector })
}

fn selector(value: &Value) -> Option<Selector> {
    let labels = value.pointer("/spec/selector/matchLabels")?;
    from_value(labels).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_of_the_api_server_are_absent_fields() {
        let json =
            r#"{"metadata":{"name":"web-1","namespace":"shop"},"addressType":"IPv4","endpoints":null,"ports":null}"#;
        let read = received(Kind::EndpointSlice, json).unwrap();
        assert_eq!(read.object.key().to_string(), "EndpointSlice/shop/web-1");
        let json = r#"{"metadata":{"name":"r","namespace":"shop","creationTimestamp":null},"spec":{"hosts":["r"],"http":null}}"#;
        assert!(received(Kind::VirtualService, json).is_ok());
    }

    #[test]
    fn unknown_fields_and_broken_rules_are_findings_of_an_object_that_is_used() {
        let json = r#"{"metadata":{"name":"r","namespace":"shop","managedFields":[{}]},
            "spec":{"hosts":["r"],"htpp":[],"http":[{"route":[]}]}}"#;
        let read = received(Kind::VirtualService, json).unwrap();
        let codes: Vec<_> = read.findings.iter().map(|finding| finding.code).collect();
        assert!(codes.contains(&Code::UnknownField) && codes.len() > 1, "{:?}", read.findings);
        assert!(read.findings.iter().all(|finding| finding.key == Some(read.object.key())));
    }

    #[test]
    fn what_cannot_be_read_says_who_where_and_what_it_selects() {
        let json = r#"{"metadata":{"name":"p","namespace":"shop"},
            "spec":{"selector":{"matchLabels":{"app":"web"}},"action":"MAYBE"}}"#;
        let refused = received(Kind::AuthorizationPolicy, json).unwrap_err();
        assert_eq!(refused.finding.key.as_ref().unwrap().to_string(), "AuthorizationPolicy/shop/p");
        assert_eq!(refused.finding.path, "spec.action");
        assert!(refused.selector.is_some());
        assert!(received(Kind::Service, "{").is_err());
    }

    #[test]
    fn a_refused_secret_is_not_quoted() {
        let refused = received(Kind::Secret, r#"{"metadata":{"name":"s"},"data":{"a":{"hush":1}}}"#).unwrap_err();
        assert!(!refused.to_string().contains("hush"), "{refused}");
    }
}
