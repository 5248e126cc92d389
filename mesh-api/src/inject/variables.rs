//! Variables of Istio's agent that ask for something our proxy does not do. Ignoring one would be a lie: the proxy does not
//! start and names it, and `meshctl migrate check` names it before.

/// A variable, the values that change nothing, and what one can do instead.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    /// The variable.
    pub name: &'static str,
    /// Values with which it may stay.
    pub harmless: &'static [&'static str],
    /// Why, and what to do.
    pub instead: &'static str,
}

const OFF: &[&str] = &["false", "False", "FALSE", "0", "f", "F"];

const fn refused(name: &'static str, harmless: &'static [&'static str], instead: &'static str) -> Refused {
    Refused { name, harmless, instead }
}

/// The variables, in the order in which they are looked at.
pub const REFUSED: &[Refused] = &[
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

impl Refused {
    /// The row about a variable with this value, if the proxy would not start with it.
    #[must_use]
    pub fn find(name: &str, value: &str) -> Option<&'static Self> {
        REFUSED.iter().find(|row| row.name == name && !row.harmless.contains(&value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_harmless_value_is_no_reason() {
        assert!(Refused::find("CA_PROVIDER", "Citadel").is_none());
        assert!(Refused::find("CA_PROVIDER", "GoogleCA").is_some());
        assert!(Refused::find("ISTIO_META_DNS_CAPTURE", "true").is_none());
    }
}
