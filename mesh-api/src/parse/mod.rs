//! Text to objects: YAML (and so JSON) with many documents, each read on its own.
//!
//! One broken document never takes its neighbours along: the text is cut at the document markers first. Everything is
//! bounded: the size of a document, its depth, and what its aliases expand to. Whether an object makes sense is for
//! [`crate::validate`].

mod split;
mod value;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use self::split::Document;
use crate::{
    codes::Code,
    finding::{Finding, MAX_PER_OBJECT, Severity},
    ids::ObjectKey,
    kinds::{Kind, Scope},
    near::nearest,
    not_acting,
    object::AnyObject,
    text::Str,
    typed::{Shape, TypedError, from_value, line_of},
};

/// The largest document, in bytes: etcd, and so Kubernetes, refuses objects above 1.5 MiB; lists may be larger.
pub const MAX_DOCUMENT_BYTES: usize = 4 << 20;
/// The most documents in one text.
pub const MAX_DOCUMENTS: usize = 20_000;
/// The most lines that are looked up for the errors of one document: each look-up reads the document again, which a list
/// of thousands of broken items must not multiply. Further errors have the line of their document.
const MAX_LINE_LOOKUPS: usize = 20;
/// The deepest nesting. No kind needs more than 20.
pub const MAX_DEPTH: usize = 64;

/// What a text holds.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// The objects in the order of the text; those that cannot be read are errors.
    pub objects: Vec<Result<Item, ParseError>>,
    /// What was found about documents that are no objects of ours.
    pub findings: Vec<Finding>,
}

/// An object and where it stood.
#[derive(Clone, Debug)]
pub struct Item {
    /// The object.
    pub object: AnyObject,
    /// Unknown fields. An object with an error among them should not replace a good one.
    pub findings: Vec<Finding>,
    /// Which document of the text, from 0.
    pub document: usize,
    /// The line its document begins at, from 1.
    pub line: usize,
}

/// A document, or an item of a list, that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ParseError {
    /// Which document of the text, from 0.
    pub document: usize,
    /// The line of the error, from 1; that of the document where no better one is known.
    pub line: usize,
    /// The object, when so much could be read.
    pub key: Option<ObjectKey>,
    /// What kind of error.
    pub code: Code,
    /// The field, when it is known.
    pub path: Str,
    /// What is wrong.
    pub message: Str,
    /// What to do.
    pub hint: Str,
}

impl ParseError {
    /// The error as a finding.
    #[must_use]
    pub fn to_finding(&self) -> Finding {
        let mut finding = Finding::new(self.code, self.path.clone(), self.message.clone()).hint(self.hint.clone());
        finding.key.clone_from(&self.key);
        finding
    }
}

/// Reads every document of `text`. Objects of a kind with namespaces that name none get `default_namespace`.
#[must_use]
pub fn parse(text: &str, default_namespace: &str) -> Parsed {
    let mut parsed = Parsed::default();
    for (index, document) in split::documents(text).enumerate() {
        let mut reader = Reader { parsed: &mut parsed, document, index, default_namespace, item: None, lookups: 0 };
        if index == MAX_DOCUMENTS {
            let message = format!("the text has more than {MAX_DOCUMENTS} documents; the rest is not read");
            reader.fail(None, Code::TooLarge, message, "split the file");
            break;
        }
        reader.read();
    }
    parsed
}

/// Reads one document or item.
struct Reader<'a, 'out> {
    parsed: &'out mut Parsed,
    document: Document<'a>,
    index: usize,
    default_namespace: &'a str,
    /// Which item of a list is read.
    item: Option<usize>,
    /// Lines looked up so far.
    lookups: usize,
}

impl Reader<'_, '_> {
    fn read(&mut self) {
        if self.document.text.len() > MAX_DOCUMENT_BYTES {
            let message = format!("the document is larger than {MAX_DOCUMENT_BYTES} bytes");
            return self.fail(None, Code::TooLarge, message, "split it into several documents");
        }
        match value::read(self.document.text) {
            Ok(Value::Null) => {}
            Ok(value) => self.read_value(value),
            Err(error) => {
                let line = self.document.line + error.line.saturating_sub(1);
                // The scanner wants quotes where others guess: `[2001:db8::]`.
                let hint = if error.message.contains("unexpected ':'") { "put the value in quotes" } else { "" };
                self.push_error(line, None, error.code, Str::default(), error.message, hint.into());
            }
        }
    }

    fn read_value(&mut self, value: Value) {
        let Value::Object(map) = value else {
            return self.fail(None, Code::NotAnObject, "the document is not a mapping".into(), "");
        };
        let (api_version, kind) = (text_of(&map, "apiVersion"), text_of(&map, "kind"));
        let (Some(api_version), Some(kind)) = (api_version, kind) else {
            return self.fail(None, Code::NotAnObject, "the document has no apiVersion or no kind".into(), "");
        };
        match (kind.strip_suffix("List"), map.get("items")) {
            (Some(item_kind), Some(Value::Array(_))) => self.read_list(&api_version, item_kind, map),
            _ => self.read_object(&api_version, &kind, map),
        }
    }

    fn read_list(&mut self, api_version: &str, item_kind: &str, mut map: Map<String, Value>) {
        let Some(Value::Array(items)) = map.remove("items") else { return };
        for (index, item) in items.into_iter().enumerate() {
            self.item = Some(index);
            let Value::Object(item) = item else {
                self.fail(None, Code::NotAnObject, "an item of the list is not a mapping".into(), "");
                continue;
            };
            // The items of a typed list may leave both out.
            let api_version = text_of(&item, "apiVersion").unwrap_or_else(|| api_version.to_owned());
            let kind = text_of(&item, "kind").unwrap_or_else(|| item_kind.to_owned());
            self.read_object(&api_version, &kind, item);
        }
    }

    fn read_object(&mut self, api_version: &str, kind_text: &str, map: Map<String, Value>) {
        let Some(kind) = Kind::from_api(api_version, kind_text) else {
            let finding = unknown_kind(api_version, kind_text, &map);
            let line = self.line_of("kind");
            self.parsed.findings.push(finding.at(format!("line {line}")));
            return;
        };
        let mut value = Value::Object(map);
        let key = self.fill_namespace(kind, &mut value);
        if key.name.is_empty() {
            let message = "the object has no metadata.name".into();
            return self.fail(Some(key), Code::NotAnObject, message, "");
        }
        let mut findings = Vec::new();
        if kind.is_mesh() {
            let shape = kind.shape();
            shape.prune_nulls(&mut value);
            shape.unknown_fields(&value, &mut |path, hint| {
                let message = format!("is not a field of {kind}");
                if findings.len() == MAX_PER_OBJECT {
                    return;
                }
                findings.push(Finding::new(Code::UnknownField, path, message).hint(hint).on(key.clone()));
            });
        } else {
            prune_all_nulls(&mut value);
        }
        match AnyObject::from_value(kind, &value) {
            Ok(mut object) => {
                let meta = object.meta_mut();
                meta.namespace = key.namespace;
                let item = Item { object, findings, document: self.index, line: self.document.line };
                self.parsed.objects.push(Ok(item));
            }
            Err(error) => self.refuse(kind, key, error),
        }
    }

    /// Gives the object the default namespace and returns its key.
    fn fill_namespace(&self, kind: Kind, value: &mut Value) -> ObjectKey {
        let metadata = value.get_mut("metadata").and_then(Value::as_object_mut);
        let namespaced = kind.info().scope == Scope::Namespaced;
        let named = |field: &str| metadata.as_ref().and_then(|m| text_of(m, field)).unwrap_or_default();
        let (name, mut namespace) = (named("name"), named("namespace"));
        if !namespaced {
            namespace.clear();
        } else if namespace.is_empty() {
            self.default_namespace.clone_into(&mut namespace);
        }
        ObjectKey::new(kind, namespace, name)
    }

    fn refuse(&mut self, kind: Kind, key: ObjectKey, error: TypedError) {
        let mut message = error.message;
        if kind == Kind::Secret {
            // The message may quote the content.
            message = "is not what a Secret holds here: data is base64 text by key".to_owned();
        }
        let hint = if message.contains("expected a string") { "put the value in quotes" } else { "" };
        let line = self.line_of(&error.path);
        self.push_error(line, Some(key), Code::WrongType, error.path.into(), message, hint.into());
    }

    /// The line of a field in the whole text.
    fn line_of(&mut self, path: &str) -> usize {
        if self.lookups == MAX_LINE_LOOKUPS {
            return self.document.line;
        }
        self.lookups += 1;
        let within = match self.item {
            Some(item) => line_of(self.document.text, &format!("items[{item}].{path}")),
            None => line_of(self.document.text, path),
        };
        self.document.line + within.map_or(0, |line| line.saturating_sub(1))
    }

    fn fail(&mut self, key: Option<ObjectKey>, code: Code, message: String, hint: &str) {
        self.push_error(self.document.line, key, code, Str::default(), message, hint.into());
    }

    fn push_error(&mut self, line: usize, key: Option<ObjectKey>, code: Code, path: Str, message: String, hint: Str) {
        let error = ParseError { document: self.index, line, key, code, path, message: message.into(), hint };
        self.parsed.objects.push(Err(error));
    }
}

/// Reads a text, YAML or JSON, that is one value of no known type. `name` is what it is, for users.
///
/// # Errors
/// When it is not YAML, or too large.
pub fn parse_value(text: &str, name: &str) -> Result<Value, Box<ParseError>> {
    let fail = |line, code, message: String| {
        let (message, hint) = (message.into(), Str::default());
        Box::new(ParseError { document: 0, line, key: None, code, path: Str::default(), message, hint })
    };
    if text.len() > MAX_DOCUMENT_BYTES {
        return Err(fail(1, Code::TooLarge, format!("the {name} is larger than {MAX_DOCUMENT_BYTES} bytes")));
    }
    value::read(text).map_err(|e| fail(e.line, e.code, e.message))
}

/// Reads a text that is one value of a known type and not an object, such as the mesh configuration. An empty text is
/// the default. `name` is the type's name for users.
pub(crate) fn parse_plain<T>(text: &str, name: &str) -> Result<(T, Vec<Finding>), Box<ParseError>>
where
    T: DeserializeOwned + Default + JsonSchema,
{
    let fail = |line, code, path: Str, message: String| {
        let (message, hint) = (message.into(), Str::default());
        Box::new(ParseError { document: 0, line, key: None, code, path, message, hint })
    };
    if text.len() > MAX_DOCUMENT_BYTES {
        let message = format!("the {name} is larger than {MAX_DOCUMENT_BYTES} bytes");
        return Err(fail(1, Code::TooLarge, Str::default(), message));
    }
    let mut value = value::read(text).map_err(|e| fail(e.line, e.code, Str::default(), e.message))?;
    if value.is_null() {
        return Ok((T::default(), Vec::new()));
    }
    let shape = Shape::of::<T>();
    shape.prune_nulls(&mut value);
    let mut findings = Vec::new();
    shape.unknown_fields(&value, &mut |path, hint| {
        if findings.len() == MAX_PER_OBJECT {
            return;
        }
        findings.push(Finding::new(Code::UnknownField, path, format!("is not a field of {name}")).hint(hint));
    });
    let typed = from_value(&value).map_err(|error| {
        let line = line_of(text, &error.path).unwrap_or(1);
        fail(line, Code::WrongType, error.path.into(), error.message)
    })?;
    Ok((typed, findings))
}

fn text_of(map: &Map<String, Value>, field: &str) -> Option<String> {
    map.get(field).and_then(Value::as_str).map(str::to_owned)
}

pub(crate) fn prune_all_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(prune_all_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(prune_all_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A kind that this release does not read: one of Istio's, a typing error, or somebody else's.
fn unknown_kind(api_version: &str, kind: &str, map: &Map<String, Value>) -> Finding {
    let metadata = map.get("metadata").and_then(Value::as_object);
    let named = |field| metadata.and_then(|m| text_of(m, field)).unwrap_or_default();
    let object = format!("{kind}/{}/{}", named("namespace"), named("name"));
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    if let Some(reason) = not_acting::kind(group, kind) {
        let message = format!("{object} has no effect: {kind} does not act yet in this release");
        return Finding::new(Code::KindNotActing, "kind", message).hint(reason);
    }
    let ours = Kind::ALL.iter().map(|k| k.info());
    if let Some(info) = ours.clone().find(|info| info.name == kind && info.group == group) {
        let message = format!("{object} has no effect: {api_version} is not a version of {kind} that is read");
        return Finding::new(Code::UnknownKind, "apiVersion", message).hint(format!("use {}", info.api_version()));
    }
    let message = format!("{object} has no effect: {api_version} {kind} is not a kind that is read");
    let mut finding = Finding::new(Code::UnknownKind, "kind", message);
    if ours.clone().any(|info| !info.group.is_empty() && info.group == group) {
        if let Some(near) = nearest(kind, ours.filter(|info| info.group == group).map(|info| info.name)) {
            finding = finding.hint(format!("did you mean {near}?"));
        }
    } else {
        // Deployments and the like lie in the same folders; they are none of ours.
        finding.severity = Severity::Info;
    }
    finding
}

#[cfg(test)]
mod tests;
