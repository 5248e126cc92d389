//! What the control planes know of running proxies and no object of the cluster says.
//!
//! Commands that look at objects ask for it beside them. Where nobody answers there is nothing to tell: the control plane may
//! not be there yet, or the user may not open port forwards.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::CliError;
use crate::kube::client::Kube;
use crate::kube::control;

/// What is wrong when a proxy is not where its workload's traffic goes.
pub const NOT_CAPTURED: &str =
    "traffic of this workload is not led through its proxy: it is neither encrypted nor checked";

/// What was found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Whether traffic is led through a proxy, by `name.namespace`, of those that say so.
    pub captured: BTreeMap<String, bool>,
    /// Who was not asked, and why.
    pub silent: Vec<String>,
}

impl Live {
    /// Asks every replica of every revision.
    ///
    /// # Errors
    /// When the cluster does not answer. A control plane that is not there, or cannot be reached, is told in `silent`.
    pub async fn ask(kube: &Kube) -> Result<Self, CliError> {
        let said = match control::pages(kube, None, "/debug/syncz").await {
            Ok(said) => said,
            Err(error) if error.exit == crate::exit::Exit::User => {
                return Ok(Self { silent: vec![error.message], ..Self::default() });
            }
            Err(error) => return Err(error),
        };
        let mut live = Self::default();
        for control::Said { replica, page } in said {
            match page.map(|page| serde_json::from_slice::<Value>(&page)) {
                Ok(Ok(page)) => live.add(&page),
                Ok(Err(error)) => live.silent.push(format!("{replica} is left out: {error}")),
                Err(error) => live.silent.push(format!("{replica} is left out: {}", error.message)),
            }
        }
        Ok(live)
    }

    /// What one page says. Istio's control planes list proxies otherwise, and do not know this.
    fn add(&mut self, page: &Value) {
        for proxy in page.get("proxies").and_then(Value::as_array).into_iter().flatten() {
            if let (Some(name), Some(captured)) = (proxy.get("proxy").and_then(Value::as_str), is_captured(proxy)) {
                self.captured.insert(name.to_owned(), captured);
            }
        }
    }

    /// The proxies that traffic passes by, as `name.namespace`.
    pub fn uncaptured(&self) -> impl Iterator<Item = &str> {
        self.captured.iter().filter(|(_, captured)| !**captured).map(|(name, _)| name.as_str())
    }
}

/// Whether a proxy of a status page says that traffic is led through it.
#[must_use]
pub fn is_captured(proxy: &Value) -> Option<bool> {
    proxy.get("captured").and_then(Value::as_bool)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn proxies_that_say_so_are_known() {
        let mut live = Live::default();
        live.add(&json!({ "proxies": [
            { "proxy": "web-1.shop", "captured": true },
            { "proxy": "web-2.shop", "captured": false },
            { "proxy": "gate-1.edge" },
        ] }));
        live.add(&json!([{ "proxy": "old-1.shop", "cluster_id": "Kubernetes" }]));
        assert_eq!(live.captured.len(), 2);
        assert_eq!(live.uncaptured().collect::<Vec<_>>(), ["web-2.shop"]);
    }
}
