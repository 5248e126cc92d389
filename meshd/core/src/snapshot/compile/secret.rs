//! Secret.

use std::sync::Arc;

use mesh_api::codes::Code;
use mesh_api::crd::core::secret::Secret as Spec;
use mesh_api::finding::Finding;
use mesh_api::ids::ClusterId;
use mesh_api::object::Object;
use mesh_api_xds::ir::secret::PrivateKey;

use super::Context;
use crate::snapshot::mesh::Mesh;
use crate::snapshot::secrets::Credential;
use crate::snapshot::shard::Compiled;

/// Compiles a Secret: `tls.crt`, `tls.key` and `ca.crt`, or `cert`, `key` and `cacert`. Others are none of ours.
pub(crate) fn secret(mesh: &Mesh, object: &Object<Spec>, cluster: &ClusterId) -> Compiled<Credential> {
    let mut cx = Context::new(mesh, object.key(), cluster);
    let content = |keys: [&str; 2]| keys.into_iter().find_map(|key| object.spec.content(key));
    let (chain, key) = (content(["tls.crt", "cert"]), content(["tls.key", "key"]));
    let trust = content(["ca.crt", "cacert"]);
    let certificate = match (chain, key) {
        (Some(chain), Some(key)) => {
            if is_pem(chain, "CERTIFICATE") && is_pem(key, "PRIVATE KEY") {
                Some((Arc::from(chain), PrivateKey(Arc::from(key))))
            } else {
                cx.report(Finding::new(Code::InvalidValue, "data", "certificate or key is not PEM; it is not used"));
                None
            }
        }
        (None, None) => None,
        _ => {
            cx.report(Finding::new(Code::Required, "data", "a certificate needs its key, and a key its certificate"));
            None
        }
    };
    let trust = trust.filter(|trust| is_pem(trust, "CERTIFICATE")).map(Arc::from);
    let values = if certificate.is_some() || trust.is_some() {
        vec![Credential { key: cx.key.clone(), certificate, trust }]
    } else {
        vec![]
    };
    Compiled { values, findings: cx.into_findings() }
}

/// Whether there is a PEM block whose label ends so (`RSA PRIVATE KEY` is a private key, too).
fn is_pem(bytes: &[u8], label: &str) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    text.lines()
        .any(|line| line.strip_prefix("-----BEGIN ").is_some_and(|rest| rest.ends_with(&format!("{label}-----"))))
}
