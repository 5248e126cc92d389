//! Logging: one subscriber, text or JSON on standard error, with levels that can be changed while the process runs.
//!
//! A *scope* is a prefix of `tracing` targets, that is of module paths (`mesh_proxy::upstream`) or of named targets
//! (`access`). The admin endpoints of both daemons change levels through [`LogHandle`].

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layered, SubscriberExt as _};
use tracing_subscriber::{Registry, reload};

/// Names that mean the default level of all scopes (`default` is Istio's).
const DEFAULT_SCOPES: [&str; 3] = ["default", "all", ""];

/// How many scopes may have a level of their own: the admin endpoint takes names from outside.
const MAX_SCOPES: usize = 256;

/// Shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, fields at its top level.
    Json,
}

/// Levels by scope, as written in a flag: `info,mesh_proxy::upstream:debug` (`=` works as well as `:`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    default: LevelFilter,
    scopes: BTreeMap<String, LevelFilter>,
}

/// A level or a scope that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    /// The word is no level.
    #[error("unknown log level {0:?}: use off, error, warn, info, debug or trace")]
    UnknownLevel(String),
    /// The scope is no module path.
    #[error("log scope {0:?} is not a module path such as mesh_proxy::upstream")]
    BadScope(String),
    /// Too many scopes have a level of their own.
    #[error("more than {MAX_SCOPES} log scopes have a level of their own")]
    TooManyScopes,
    /// The subscriber is gone, so that nothing can be changed any more.
    #[error("logging has ended")]
    Ended,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("another log subscriber is already installed")]
pub struct AlreadyInstalled;

/// Changes and shows the levels of a running process.
#[derive(Clone)]
pub struct LogHandle {
    levels: Arc<Mutex<Levels>>,
    filter: reload::Handle<Targets, Registry>,
}

/// The subscriber that [`build`] makes, before the layer that writes lines is added.
type Filtered = Layered<reload::Layer<Targets, Registry>, Registry>;

/// Installs logging to standard error for the whole process.
///
/// # Errors
/// [`AlreadyInstalled`] when it is called twice.
pub fn init(format: LogFormat, levels: Levels) -> Result<LogHandle, AlreadyInstalled> {
    let (subscriber, handle) = build(format, levels, io::stderr);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| AlreadyInstalled)?;
    Ok(handle)
}

/// The same subscriber, not installed, with lines going to `writer`.
pub fn build<W>(format: LogFormat, levels: Levels, writer: W) -> (Box<dyn Subscriber + Send + Sync>, LogHandle)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(levels.targets());
    let filtered: Filtered = Registry::default().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let subscriber: Box<dyn Subscriber + Send + Sync> = match format {
        // Escape codes in a file or a pipe help nobody, and a terminal that wants colour has tools for it.
        LogFormat::Text => Box::new(filtered.with(lines.with_ansi(false))),
        LogFormat::Json => Box::new(filtered.with(lines.json().flatten_event(true).with_span_list(false))),
    };
    (subscriber, LogHandle { levels: Arc::new(Mutex::new(levels)), filter: handle })
}

impl LogHandle {
    /// The levels now.
    #[must_use]
    pub fn levels(&self) -> Levels {
        self.lock().clone()
    }

    /// Sets one scope, or the default with the scope `default` (or `all`).
    ///
    /// # Errors
    /// A scope that is no module path, or one too many; nothing has changed then.
    pub fn set_level(&self, scope: &str, level: LevelFilter) -> Result<(), LevelError> {
        self.change(|levels| levels.set(scope, level))
    }

    /// Replaces all levels at once: one default and no exception, as Envoy's `/logging?level=` does.
    ///
    /// # Errors
    /// Only when logging has ended.
    pub fn set_all(&self, level: LevelFilter) -> Result<(), LevelError> {
        self.replace(Levels::new(level))
    }

    /// Replaces all levels at once by these.
    ///
    /// # Errors
    /// Only when logging has ended.
    pub fn replace(&self, next: Levels) -> Result<(), LevelError> {
        self.change(|levels| {
            *levels = next;
            Ok(())
        })
    }

    fn change(&self, edit: impl FnOnce(&mut Levels) -> Result<(), LevelError>) -> Result<(), LevelError> {
        let mut levels = self.lock();
        let mut next = levels.clone();
        edit(&mut next)?;
        self.filter.reload(next.targets()).map_err(|_| LevelError::Ended)?;
        *levels = next;
        Ok(())
    }

    /// Held only while levels are read or replaced, by admin requests.
    fn lock(&self) -> MutexGuard<'_, Levels> {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogHandle").field("levels", &*self.lock()).finish_non_exhaustive()
    }
}

impl Levels {
    /// One level for every scope.
    #[must_use]
    pub fn new(default: LevelFilter) -> Self {
        Self { default, scopes: BTreeMap::new() }
    }

    /// The level of scopes without one of their own.
    #[must_use]
    pub fn default_level(&self) -> LevelFilter {
        self.default
    }

    /// The scopes that have a level of their own, in order of name.
    pub fn scopes(&self) -> impl Iterator<Item = (&str, LevelFilter)> {
        self.scopes.iter().map(|(scope, level)| (scope.as_str(), *level))
    }

    /// Sets one scope, or the default.
    ///
    /// # Errors
    /// A scope that is no module path, or one too many.
    pub fn set(&mut self, scope: &str, level: LevelFilter) -> Result<(), LevelError> {
        if DEFAULT_SCOPES.contains(&scope) {
            self.default = level;
            return Ok(());
        }
        let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if scope.len() > 128 || !scope.split("::").all(word) {
            return Err(LevelError::BadScope(scope.to_owned()));
        }
        if self.scopes.len() >= MAX_SCOPES && !self.scopes.contains_key(scope) {
            return Err(LevelError::TooManyScopes);
        }
        self.scopes.insert(scope.to_owned(), level);
        Ok(())
    }

    /// One level for every scope, and no exception.
    pub fn set_all(&mut self, level: LevelFilter) {
        *self = Self::new(level);
    }

    fn targets(&self) -> Targets {
        Targets::new().with_default(self.default).with_targets(self.scopes.iter().map(|(s, l)| (s.clone(), *l)))
    }
}

impl FromStr for Levels {
    type Err = LevelError;

    fn from_str(text: &str) -> Result<Self, LevelError> {
        let mut levels = Self::new(LevelFilter::INFO);
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.rsplit_once(['=', ':']) {
                Some((scope, level)) => levels.set(scope, parse_level(level)?)?,
                None => levels.default = parse_level(part)?,
            }
        }
        Ok(levels)
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.default)?;
        self.scopes.iter().try_for_each(|(scope, level)| write!(f, ",{scope}:{level}"))
    }
}

/// Reads a level in the words of `tracing`, of Istio (`none`, `fatal`) or of Envoy (`warning`, `critical`).
///
/// # Errors
/// [`LevelError::UnknownLevel`].
pub fn parse_level(text: &str) -> Result<LevelFilter, LevelError> {
    match text.to_ascii_lowercase().as_str() {
        "off" | "none" => Ok(LevelFilter::OFF),
        "error" | "fatal" | "critical" => Ok(LevelFilter::ERROR),
        "warn" | "warning" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(LevelError::UnknownLevel(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap()
        }
    }

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn writer(lines: &Lines) -> impl Fn() -> Lines + Send + Sync + use<> {
        let lines = lines.clone();
        move || lines.clone()
    }

    #[track_caller]
    fn check(text: &str, expect: Result<&str, LevelError>) {
        let levels: Result<Levels, _> = text.parse();
        assert_eq!(levels.map(|levels| levels.to_string()), expect.map(str::to_owned));
    }

    #[test]
    fn levels_are_read_in_istios_words_too() {
        check("", Ok("info"));
        check("debug", Ok("debug"));
        check("default:none,xds::delta:debug", Ok("off,xds::delta:debug"));
        check("warning, mesh_proxy::http=TRACE", Ok("warn,mesh_proxy::http:trace"));
        check("loud", Err(LevelError::UnknownLevel("loud".into())));
        check("a b:info", Err(LevelError::BadScope("a b".into())));
        check("mesh_proxy::http", Err(LevelError::UnknownLevel("http".into())));
    }

    #[test]
    fn number_of_scopes_is_bounded() {
        let mut levels = Levels::new(LevelFilter::INFO);
        for i in 0..MAX_SCOPES {
            levels.set(&format!("scope{i}"), LevelFilter::DEBUG).unwrap();
        }
        assert_eq!(levels.set("more", LevelFilter::DEBUG), Err(LevelError::TooManyScopes));
        levels.set("scope1", LevelFilter::WARN).unwrap();
    }

    #[test]
    fn a_level_changes_while_running() {
        let lines = Lines::default();
        let (subscriber, handle) = build(LogFormat::Text, Levels::new(LevelFilter::INFO), writer(&lines));
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "wires", "Hidden");
            assert_eq!(lines.take(), "");
            handle.set_level("wires", LevelFilter::DEBUG).unwrap();
            tracing::debug!(target: "wires", count = 3, "Shown");
            tracing::debug!(target: "other", "Hidden");
            let text = lines.take();
            assert!(text.contains("Shown") && text.contains("count=3") && !text.contains("Hidden"), "{text}");
            handle.set_all(LevelFilter::OFF).unwrap();
            tracing::error!(target: "wires", "Hidden");
            assert_eq!(lines.take(), "");
        });
        assert_eq!(handle.levels(), Levels::new(LevelFilter::OFF));
        assert_eq!(handle.set_level("wires", LevelFilter::INFO), Err(LevelError::Ended));
    }

    #[test]
    fn json_lines_carry_fields_at_the_top() {
        let lines = Lines::default();
        let (subscriber, _handle) = build(LogFormat::Json, Levels::new(LevelFilter::INFO), writer(&lines));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "xds", nacks = 2, "Resource rejected");
        });
        let line: serde_json::Value = serde_json::from_str(&lines.take()).unwrap();
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["target"], "xds");
        assert_eq!(line["nacks"], 2);
        assert_eq!(line["message"], "Resource rejected");
    }
}
