//! When the certificates that stand in objects end: roots, the authority's own, those of gateways and of webhooks.
//!
//! A bundle of roots, as webhooks and workloads trust it, is of use as long as one of its roots is: an old one beside its
//! successor is how roots are replaced. Of a chain the first certificate to end counts.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mesh_api::names;
use mesh_ca::cert::Cert;
use mesh_ca::{pem, time};
use meshd_core::analyze::{Sort, Subject};
use serde_json::Value;

/// From then on something should be done.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);
/// From then on something must be done.
const URGENT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The kinds of objects that hold certificates which this module knows.
pub const SORTS: [Sort; 5] =
    [Sort::CONFIG_MAP, Sort::SECRET, Sort::GATEWAY, Sort::MUTATING_WEBHOOK, Sort::VALIDATING_WEBHOOK];

/// How near the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nearness {
    /// Within 30 days.
    Soon,
    /// Within seven days.
    Urgent,
    /// It is over.
    Expired,
}

/// Something that ends, or has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiring {
    /// The object's place in the list.
    pub subject: usize,
    /// The field that holds it.
    pub path: String,
    /// How near the end is.
    pub nearness: Nearness,
    /// In words.
    pub text: String,
}

/// How certificates stand together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Together {
    /// Any of them is enough.
    Bundle,
    /// All are needed.
    Chain,
}

/// How near the end of something is that ends then; `None` when it is far.
#[must_use]
pub fn nearness(not_after: SystemTime, now: SystemTime) -> Option<Nearness> {
    match not_after.duration_since(now) {
        Err(_) => Some(Nearness::Expired),
        Ok(left) if left <= URGENT => Some(Nearness::Urgent),
        Ok(left) if left <= SOON => Some(Nearness::Soon),
        Ok(_) => None,
    }
}

/// All that ends within 30 days in some objects. `root` is the namespace of the control plane.
pub fn find<'a>(subjects: impl Iterator<Item = &'a Subject> + Clone, root: &str, now: SystemTime) -> Vec<Expiring> {
    let gateways = subjects.clone().filter(|subject| subject.sort == Some(Sort::GATEWAY));
    let credentials: Vec<&str> = gateways
        .flat_map(|gateway| list(&gateway.value, "/spec/servers"))
        .filter_map(|server| server.pointer("/tls/credentialName")?.as_str())
        .collect();
    let mut found = Vec::new();
    for (index, subject) in subjects.enumerate() {
        for (path, together, text) in held(subject, root, &credentials) {
            found.extend(expiring(&text, together, now).map(|(nearness, text)| Expiring {
                subject: index,
                path,
                nearness,
                text,
            }));
        }
    }
    found
}

/// The texts with certificates that an object holds.
fn held(subject: &Subject, root: &str, credentials: &[&str]) -> Vec<(String, Together, Vec<u8>)> {
    let data = |entries: &[(&str, Together)]| -> Vec<(String, Together, Vec<u8>)> {
        let one = |(entry, together): &(&str, Together)| {
            let encoded = subject.value.get("data")?.get(*entry)?.as_str()?;
            Some((format!("data.{entry}"), *together, STANDARD.decode(encoded).ok()?))
        };
        entries.iter().filter_map(one).collect()
    };
    let is = |name: &str| subject.namespace == root && subject.name == name;
    match subject.sort {
        // The copies in other namespaces are the same.
        Some(Sort::CONFIG_MAP) if is(names::CA_ROOT_CONFIG_MAP) => {
            let text = subject.value.get("data").and_then(|data| data.get(names::CA_ROOT_KEY)).and_then(Value::as_str);
            let path = || format!("data.{}", names::CA_ROOT_KEY);
            let text = text.map(|text| (path(), Together::Bundle, text.as_bytes().to_vec()));
            text.into_iter().collect()
        }
        Some(Sort::SECRET) if is(names::CACERTS_SECRET) || is(names::SELF_SIGNED_CA_SECRET) => data(&[
            ("ca-cert.pem", Together::Chain),
            ("cert-chain.pem", Together::Chain),
            ("root-cert.pem", Together::Bundle),
        ]),
        Some(Sort::SECRET) if credentials.contains(&subject.name.trim_end_matches("-cacert")) => data(&[
            ("tls.crt", Together::Chain),
            ("cert", Together::Chain),
            ("ca.crt", Together::Bundle),
            ("cacert", Together::Bundle),
        ]),
        Some(Sort::MUTATING_WEBHOOK | Sort::VALIDATING_WEBHOOK) if is_of_mesh(subject) => {
            let webhooks = list(&subject.value, "/webhooks").iter().enumerate();
            let one = |(index, webhook): (usize, &Value)| {
                let encoded = webhook.pointer("/clientConfig/caBundle")?.as_str()?;
                let path = format!("webhooks[{index}].clientConfig.caBundle");
                Some((path, Together::Bundle, STANDARD.decode(encoded).ok()?))
            };
            webhooks.filter_map(one).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether webhooks are a mesh's, ours or Istio's.
fn is_of_mesh(subject: &Subject) -> bool {
    let labels = subject.value.pointer("/metadata/labels");
    labels.is_some_and(|labels| labels.get(names::REVISION_LABEL).is_some())
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// What is to be said of some certificates. Those that cannot be read are others' affair: the authority and gateways say so.
fn expiring(text: &[u8], together: Together, now: SystemTime) -> Option<(Nearness, String)> {
    let certificates = pem::certificates(text).ok()?.into_iter().filter_map(|der| Cert::parse(der).ok());
    let certificate = match together {
        Together::Bundle => certificates.max_by_key(|certificate| certificate.not_after),
        Together::Chain => certificates.min_by_key(|certificate| certificate.not_after),
    }?;
    let nearness = nearness(certificate.not_after, now)?;
    Some((nearness, told(&certificate.subject, certificate.not_after, nearness)))
}

/// What is said of a certificate.
#[must_use]
pub fn told(subject: &str, not_after: SystemTime, nearness: Nearness) -> String {
    let at = time::display(not_after);
    match nearness {
        Nearness::Expired => format!("The certificate of {subject:?} has expired at {at}."),
        Nearness::Urgent => format!("The certificate of {subject:?} expires within seven days, at {at}."),
        Nearness::Soon => format!("The certificate of {subject:?} expires within 30 days, at {at}."),
    }
}

#[cfg(test)]
mod tests {
    use mesh_ca::testing::TestCa;
    use serde_json::json;

    use super::*;

    fn subject(value: Value) -> Subject {
        Subject::new(value, "", Vec::new())
    }

    #[test]
    fn certificates_are_found_where_they_stand_and_told_in_time() {
        let now = SystemTime::now();
        let ca = TestCa::new(now);
        let credential = ca.credential("shop", "web");
        let (chain, roots) = (STANDARD.encode(credential.chain_pem()), STANDARD.encode(credential.roots_pem()));
        let at = |kind: &str, api: &str, namespace: &str, name: &str| json!({ "apiVersion": api, "kind": kind, "metadata": { "name": name, "namespace": namespace } });
        let with = |mut value: Value, field: &str, content: Value| {
            value[field] = content;
            subject(value)
        };
        let secret = |namespace: &str, name: &str, data: Value| with(at("Secret", "v1", namespace, name), "data", data);
        let mut webhook = at("MutatingWebhookConfiguration", "admissionregistration.k8s.io/v1", "", "hook");
        webhook["metadata"]["labels"] = json!({ "istio.io/rev": "default" });
        let all = [
            with(
                at("Gateway", "networking.istio.io/v1", "shop", "gate"),
                "spec",
                json!({ "servers": [{ "tls": { "credentialName": "web" } }] }),
            ),
            secret("shop", "web", json!({ "tls.crt": chain })),
            secret("shop", "not-named", json!({ "tls.crt": chain })),
            secret(
                "istio-system",
                "cacerts",
                json!({ "ca-cert.pem": chain, "root-cert.pem": roots, "ca-key.pem": "x" }),
            ),
            secret("shop", "cacerts", json!({ "ca-cert.pem": chain })),
            with(webhook, "webhooks", json!([{ "clientConfig": { "caBundle": roots } }])),
            with(
                at("ConfigMap", "v1", "istio-system", "istio-ca-root-cert"),
                "data",
                json!({ "root-cert.pem": credential.roots_pem() }),
            ),
        ];
        let told = |now: SystemTime| -> Vec<(usize, String, Nearness)> {
            let found = find(all.iter(), "istio-system", now);
            found.into_iter().map(|found| (found.subject, found.path, found.nearness)).collect()
        };
        let leaf_end = credential.leaf.not_after;
        let chains = [(1, "data.tls.crt".to_owned()), (3, "data.ca-cert.pem".to_owned())];
        let expect = |nearness| chains.clone().map(|(index, path)| (index, path, nearness)).to_vec();
        assert_eq!(told(leaf_end - Duration::from_secs(60)), expect(Nearness::Urgent));
        assert_eq!(told(leaf_end + Duration::from_secs(60)), expect(Nearness::Expired));
        let root_end = pem::certificates(credential.roots_pem().as_bytes()).unwrap();
        let root_end = Cert::parse(root_end.into_iter().next().unwrap()).unwrap().not_after;
        let late = told(root_end - Duration::from_secs(20 * 24 * 3600));
        let roots: Vec<&str> =
            late.iter().filter(|(_, _, near)| *near == Nearness::Soon).map(|(_, path, _)| path.as_str()).collect();
        assert_eq!(roots, ["data.root-cert.pem", "webhooks[0].clientConfig.caBundle", "data.root-cert.pem"]);
    }

    #[test]
    fn of_a_bundle_the_last_root_counts() {
        let now = SystemTime::now();
        let (old, new) = (TestCa::new(now), TestCa::new(now + Duration::from_secs(3600 * 24 * 365)));
        let pem = |ca: &TestCa| ca.credential("a", "b").roots_pem();
        let not_after = |text: &str| {
            let der = pem::certificates(text.as_bytes()).unwrap().into_iter().next().unwrap();
            Cert::parse(der).unwrap().not_after
        };
        let (one, other) = (pem(&old), pem(&new));
        let at = not_after(&one) - Duration::from_secs(60);
        let both = format!("{one}{other}");
        assert!(expiring(one.as_bytes(), Together::Bundle, at).is_some());
        assert_eq!(expiring(both.as_bytes(), Together::Bundle, at), None);
        assert!(expiring(both.as_bytes(), Together::Chain, at).is_some());
    }
}
