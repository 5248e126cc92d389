//! Levels of logs from Istio's three flags: the agent's, Envoy's, and those of Envoy's components.

use mesh_api_rt::telemetry::{LevelError, Levels, parse_level};
use tracing::level_filters::LevelFilter;

/// Modules that do what Envoy does for Istio's agent.
const DATA_PATH: [&str; 6] = [
    "mesh_proxy::conn",
    "mesh_proxy::http",
    "mesh_proxy::net",
    "mesh_proxy::tcp",
    "mesh_proxy::tls",
    "mesh_proxy::upstream",
];

/// Names of Envoy's components and of Istio's scopes, and the module that does the same. Other names have no counterpart.
const COUNTERPARTS: [(&str, &str); 20] = [
    ("admin", "mesh_proxy::admin"),
    ("ca", "mesh_proxy::config::identity"),
    ("citadelclient", "mesh_proxy::config::identity"),
    ("config", "mesh_proxy::config"),
    ("conn_handler", "mesh_proxy::conn"),
    ("connection", "mesh_proxy::conn"),
    ("dns", "mesh_proxy::config::dns"),
    ("filter", "mesh_proxy::conn"),
    ("forward_proxy", "mesh_proxy::config::dns"),
    ("healthcheck", "mesh_proxy::agent::probe"),
    ("http", "mesh_proxy::http"),
    ("http2", "mesh_proxy::http::h2"),
    ("iptables", "mesh_proxy::capture"),
    ("pool", "mesh_proxy::upstream"),
    ("router", "mesh_proxy::http"),
    ("sds", "mesh_proxy::tls"),
    ("secretfetcher", "mesh_proxy::config::identity"),
    ("stats", "mesh_proxy::telemetry"),
    ("upstream", "mesh_proxy::upstream"),
    ("xdsproxy", "mesh_proxy::config::client"),
];

/// What the flags mean together, and the names in them that mean nothing here.
///
/// # Errors
/// When a flag has no levels.
pub fn read(agent: &str, proxy: &str, components: &str) -> Result<(Levels, Vec<String>), LevelError> {
    let mut unknown = Vec::new();
    let mut levels: Levels = "info".parse()?;
    let mut set = |levels: &mut Levels, list: &str| -> Result<(), LevelError> {
        for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (scope, level) = part.rsplit_once([':', '=']).unwrap_or(("default", part));
            let level = parse_level(level)?;
            match scope {
                "default" | "all" | "" => levels.set("default", level)?,
                ours if ours.starts_with("mesh_") || ours == "access" => levels.set(ours, level)?,
                name => match COUNTERPARTS.iter().find(|(known, _)| *known == name) {
                    Some((_, module)) => levels.set(module, level)?,
                    None => unknown.push(name.to_owned()),
                },
            }
        }
        Ok(())
    };
    set(&mut levels, agent)?;
    if !proxy.is_empty() {
        let level: LevelFilter = parse_level(proxy)?;
        DATA_PATH.iter().try_for_each(|module| levels.set(module, level))?;
    }
    set(&mut levels, components)?;
    Ok((levels, unknown))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(agent: &str, proxy: &str, components: &str, expect: &str) -> Vec<String> {
        let (levels, unknown) = read(agent, proxy, components).unwrap();
        assert_eq!(levels, expect.parse().unwrap());
        unknown
    }

    #[test]
    fn the_flags_of_the_injector_quieten_the_data_path_only() {
        let path = "mesh_proxy::conn:warn,mesh_proxy::http:warn,mesh_proxy::net:warn,mesh_proxy::tcp:warn,\
                    mesh_proxy::tls:warn,mesh_proxy::upstream:warn";
        assert_eq!(check("default:info", "warning", "misc:error", &format!("info,{path}")), ["misc"]);
    }

    #[test]
    fn known_components_and_scopes_are_led_to_our_modules() {
        let expect = "warn,mesh_proxy::upstream:debug,mesh_proxy::config::client:debug,mesh_proxy::http::h1:trace";
        let agent = "default:warn,xdsproxy:debug,mesh_proxy::http::h1:trace";
        assert!(check(agent, "", "upstream:debug", expect).is_empty());
        assert!(check("debug", "", "", "debug").is_empty());
        assert!(check("", "", "", "info").is_empty());
        assert!(read("default:loud", "", "").is_err() && read("", "loud", "").is_err());
    }
}
