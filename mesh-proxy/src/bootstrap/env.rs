//! Where settings come from: variables, files and interfaces of this process, or of a test.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_api::names;
use serde_json::{Map, Value};

use super::BootstrapError;
use crate::agent::pod;

/// Largest file of settings that is read, bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Where settings come from.
pub trait Env {
    /// The variable's value, if it is set.
    fn get(&self, name: &str) -> Option<String>;

    /// All variables.
    fn all(&self) -> Vec<(String, String)>;

    /// A small text file; `None` when there is none.
    ///
    /// # Errors
    /// When it is there but cannot be read.
    fn file(&self, path: &Path) -> io::Result<Option<String>> {
        read_small(path)
    }

    /// Addresses of this network namespace's interfaces that others may reach it at.
    fn interfaces(&self) -> Vec<IpAddr> {
        pod::addresses()
    }
}

/// The environment of this process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn all(&self) -> Vec<(String, String)> {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }
}

/// Reads a file of at most a mebibyte; `None` when there is none.
///
/// # Errors
/// When it is there but cannot be read, is too large or no text.
pub fn read_small(path: &Path) -> io::Result<Option<String>> {
    use std::io::Read as _;
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    let count = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if count as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than a mebibyte"));
    }
    Ok(Some(text))
}

/// The process environment over `proxyMetadata` of the proxy configuration, which Istio treats as environment too.
pub(super) struct Layered<'a, E> {
    pub(super) process: &'a E,
    pub(super) metadata: BTreeMap<String, String>,
}

impl<E: Env> Layered<'_, E> {
    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.process.get(name).or_else(|| self.metadata.get(name).cloned()).filter(|value| !value.is_empty())
    }

    pub(super) fn required(&self, name: &'static str, meaning: &'static str) -> Result<String, BootstrapError> {
        self.get(name).ok_or(BootstrapError::Missing(name, meaning))
    }

    pub(super) fn parsed<T: std::str::FromStr>(
        &self,
        name: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, BootstrapError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.trim().parse() {
            Ok(parsed) => Ok(Some(parsed)),
            Err(_) => Err(BootstrapError::Invalid { name: name.to_owned(), value, expected }),
        }
    }

    /// A flag as Go reads one (`strconv.ParseBool`).
    pub(super) fn flag(&self, name: &'static str) -> Result<Option<bool>, BootstrapError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            _ => Err(BootstrapError::Invalid { name: name.to_owned(), value, expected: "true or false" }),
        }
    }

    pub(super) fn duration(&self, name: &'static str) -> Result<Option<Duration>, BootstrapError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match mesh_api::duration::parse(&value) {
            Ok(parsed) => Ok(Some(parsed)),
            Err(_) => Err(BootstrapError::Invalid { name: name.to_owned(), value, expected: "a duration such as 24h" }),
        }
    }

    pub(super) fn path(&self, name: &str, default: &str) -> PathBuf {
        PathBuf::from(self.get(name).unwrap_or_else(|| default.to_owned()))
    }

    /// A folder to work in; an empty value is none.
    pub(super) fn folder(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    /// `ISTIO_META_<KEY>` and `ISTIO_METAJSON_<KEY>` as metadata (istio/istio: pkg/bootstrap/config.go).
    pub(super) fn metadata_keys(&self) -> Result<Map<String, Value>, BootstrapError> {
        let mut keys = Map::new();
        let lower = self.metadata.iter().map(|(name, value)| (name.clone(), value.clone()));
        for (name, value) in lower.chain(self.process.all()) {
            if let Some(key) = name.strip_prefix(names::META_PREFIX_ENV) {
                keys.insert(key.to_owned(), Value::String(value));
            } else if let Some(key) = name.strip_prefix("ISTIO_METAJSON_") {
                let value = serde_json::from_str(&value).map_err(BootstrapError::Metadata)?;
                merge(&mut keys, key, value);
            }
        }
        Ok(keys)
    }
}

/// `ISTIO_METAJSON_LABELS` and its like add to each other, key by key.
fn merge(keys: &mut Map<String, Value>, key: &str, value: Value) {
    match (keys.get_mut(key), value) {
        (Some(Value::Object(known)), Value::Object(more)) => known.extend(more),
        (_, value) => {
            keys.insert(key.to_owned(), value);
        }
    }
}
