//! Walking a configuration dump: Envoy writes field names as in the protobuf files, istioctl in lower camel case.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// A field by its protobuf name, whichever way the dump spells it.
pub(crate) fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.get(name).or_else(|| value.get(camel(name)))
}

/// A field below others, names separated by dots.
pub(crate) fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, field)
}

/// Text below; empty without it.
pub(crate) fn text(value: &Value, path: &str) -> String {
    at(value, path).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A list below; empty without it.
pub(crate) fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A list of texts below.
pub(crate) fn texts(value: &Value, path: &str) -> Vec<String> {
    list(value, path).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The items of some lists of the dump's section `kind` (`ClustersConfigDump`), each taken out of its wrapper at `path`.
pub(crate) fn items<'a>(dump: &'a Value, kind: &str, lists: &[&str], path: &str) -> Vec<&'a Value> {
    let sections = list(dump, "configs").iter();
    let sections = sections.filter(|section| text(section, "@type").ends_with(kind));
    sections
        .flat_map(|section| lists.iter().flat_map(move |name| list(section, name)))
        .filter_map(|item| at(item, path))
        .collect()
}

/// The Istio object behind a resource, as `name.namespace`: from istiod's metadata, or from ours.
pub(crate) fn origin(value: &Value) -> String {
    let ours = || {
        let origin = value.pointer("/metadata/filter_metadata/lateen/origin")?.as_str()?;
        let mut parts = origin.split('/').skip(1);
        Some(format!("{1}.{0}", parts.next()?, parts.next()?))
    };
    let metadata = at(value, "metadata.filter_metadata").and_then(|all| all.get("istio"));
    match metadata.and_then(|istio| istio.get("config")).and_then(Value::as_str) {
        Some(path) => {
            // `/apis/networking.istio.io/v1/namespaces/<namespace>/<kind>/<name>`
            let mut parts = path.rsplit('/');
            match (parts.next(), parts.next(), parts.next(), parts.next()) {
                (Some(name), Some(_), Some(namespace), Some("namespaces")) => format!("{name}.{namespace}"),
                _ => "<unknown>".to_owned(),
            }
        }
        None => ours().unwrap_or_default(),
    }
}

/// Resources as canonical protobuf JSON writes them. What is below free-form metadata keeps its names.
pub(crate) fn canonical(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(canonical).collect(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| {
                let free = matches!(name.as_str(), "filter_metadata" | "filterMetadata" | "value");
                (camel(name), if free { value.clone() } else { canonical(value) })
            });
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// `load_assignment` → `loadAssignment`. Names that are no protobuf fields (with dots or an `@`) stay.
fn camel(name: &str) -> String {
    if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
        return name.to_owned();
    }
    let mut parts = name.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |mut all, part| {
        let mut letters = part.chars();
        all.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        all.extend(letters);
        all
    })
}

/// The parts of an Istio cluster name: direction, port, subset, host; `None` for names without three pipes.
pub(crate) fn cluster_parts(name: &str) -> Option<[&str; 4]> {
    let mut parts = name.split('|');
    let four = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    parts.next().is_none().then_some(four)
}

/// A `-` in place of nothing.
pub(crate) fn dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// The lists of a dump with secrets, and the state that each stands for.
pub(crate) const SECRETS: [(&str, &str); 3] =
    [("static_secrets", "ACTIVE"), ("dynamic_active_secrets", "ACTIVE"), ("dynamic_warming_secrets", "WARMING")];

/// The certificate chain of the secret `name` in a dump, as PEM.
#[must_use]
pub(crate) fn certificate_chain(dump: &Value, name: &str) -> Option<Vec<u8>> {
    let secrets = items(dump, "SecretsConfigDump", &SECRETS.map(|(list, _)| list), "secret");
    let secret = secrets.into_iter().find(|secret| text(secret, "name") == name)?;
    pem_of(at(secret, "tls_certificate.certificate_chain")?)
}

/// The content of a data source that holds it itself.
pub(crate) fn pem_of(source: &Value) -> Option<Vec<u8>> {
    match at(source, "inline_bytes").and_then(Value::as_str) {
        Some(encoded) => STANDARD.decode(encoded).ok(),
        None => Some(at(source, "inline_string")?.as_str()?.as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_spellings_are_read_and_one_is_written() {
        for value in [json!({"a_b": {"c_d": 1}}), json!({"aB": {"cD": 1}})] {
            assert_eq!(at(&value, "a_b.c_d"), Some(&json!(1)));
        }
        let value = json!({"filter_metadata": {"x_y": {"p_q": 1}}, "typed_config": {"@type": "t", "a_b": 1}});
        let expect = json!({"filterMetadata": {"x_y": {"p_q": 1}}, "typedConfig": {"@type": "t", "aB": 1}});
        assert_eq!(canonical(&value), expect);
    }

    #[test]
    fn origins_are_read_from_istiods_metadata_and_from_ours() {
        let config = "/apis/networking.istio.io/v1/namespaces/shop/destination-rule/web";
        let value = json!({"metadata": {"filter_metadata": {"istio": {"config": config}}}});
        assert_eq!(origin(&value), "web.shop");
        let value = json!({"metadata": {"filter_metadata": {"lateen": {"origin": "DestinationRule/shop/web"}}}});
        assert_eq!(origin(&value), "web.shop");
        assert_eq!(origin(&json!({})), "");
    }

    #[test]
    fn cluster_names_have_four_parts_or_none() {
        assert_eq!(cluster_parts("outbound|80|v1|web"), Some(["outbound", "80", "v1", "web"]));
        assert_eq!(cluster_parts("PassthroughCluster"), None);
    }
}
