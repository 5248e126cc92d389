//! What the control plane does to a cluster, besides reading it: one replica at a time, only to what is its own.

#[cfg(test)]
pub(crate) mod fake;

/// What the API server, or the way to it, said: one line, without the structure around it.
pub(crate) fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => mesh_api_rt::report::Report::new(other).to_string(),
    }
}
