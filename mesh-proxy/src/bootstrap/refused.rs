//! Variables of Istio's agent that ask for something this proxy does not do. Ignoring one would be a lie: the proxy does not
//! start, and says which.

use super::BootstrapError;
use super::env::{Env, Layered};

/// A variable, the values that change nothing, and what one can do instead.
struct Refused {
    name: &'static str,
    harmless: &'static [&'static str],
    instead: &'static str,
}

const OFF: &[&str] = &["false", "False", "FALSE", "0", "f", "F"];

const fn refused(name: &'static str, harmless: &'static [&'static str], instead: &'static str) -> Refused {
    Refused { name, harmless, instead }
}

const ALL: &[Refused] = &[
    refused("CA_PROVIDER", &["Citadel"], "certificates come from the control plane"),
    refused("CREDENTIAL_FETCHER_TYPE", &["JWT"], "the token file is read"),
    refused("XDS_AUTH_PROVIDER", &[], "the control plane is spoken to with the workload certificate"),
    refused("FILE_MOUNTED_CERTS", OFF, "certificates come from the control plane"),
    refused("PROXY_CONFIG_XDS_AGENT", OFF, "PROXY_CONFIG and the annotation are read"),
    refused("DISABLE_ENVOY", OFF, "proxyless gRPC needs no proxy at all"),
    refused("ISTIO_BOOTSTRAP", &[], "there is no Envoy bootstrap"),
    refused("ISTIO_BOOTSTRAP_OVERRIDE", &[], "there is no Envoy bootstrap"),
    refused("ENVOY_SECURE_METRICS_PORT", &["0"], "metrics are served in plaintext, for a NetworkPolicy to guard"),
    refused(
        "ENVOY_SECURE_MERGED_METRICS_PORT",
        &["0"],
        "metrics are served in plaintext, for a NetworkPolicy to guard",
    ),
    refused("ISTIO_META_CERT_SIGNER", &[], "certificates come from the control plane"),
    refused("PEER_METADATA_DISCOVERY", OFF, "peers tell their metadata in headers"),
];

/// Finds the first that asks for something.
pub(super) fn check<E: Env>(env: &Layered<'_, E>) -> Result<(), BootstrapError> {
    for Refused { name, harmless, instead } in ALL {
        if let Some(value) = env.get(name)
            && !harmless.contains(&value.as_str())
        {
            return Err(BootstrapError::Refused { name, value, instead });
        }
    }
    Ok(())
}
