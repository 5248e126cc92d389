//! The pages that both daemons serve: metrics, log levels, version.

use std::sync::Arc;

use http::StatusCode;

use super::{Request, Response, Router};
use crate::build_info::BuildInfo;
use crate::metrics::Metrics;
use crate::telemetry::{LevelError, LogHandle, parse_level};

impl Router {
    /// `GET path`: a scrape of these metrics.
    #[must_use]
    pub fn with_metrics(self, path: &'static str, metrics: Arc<Metrics>) -> Self {
        self.get(path, "Metrics in Prometheus' text format", move |request| scrape(&metrics, &request))
    }

    /// `GET /logging` shows the log levels and `POST /logging` changes them, with Envoy's parameters: `level=debug` for
    /// all scopes, `paths=scope:level,…` or `scope=level` for some.
    #[must_use]
    pub fn with_logging(self, handle: LogHandle) -> Self {
        let shown = handle.clone();
        self.get("/logging", "Log levels by scope", move |_| Response::ok(show_levels(&shown))).post(
            "/logging",
            "Change log levels: ?level=debug, ?paths=scope:level,… or ?scope=level",
            move |request| match set_levels(&handle, &request) {
                Ok(()) => Response::ok(show_levels(&handle)),
                Err(error) => Response::text(StatusCode::BAD_REQUEST, format!("{error}\n")),
            },
        )
    }

    /// `GET /version`: which build this is, as JSON.
    #[must_use]
    pub fn with_version(self, info: BuildInfo) -> Self {
        self.get("/version", "Which build this is", move |_| Response::json(&info))
    }
}

fn scrape(metrics: &Metrics, request: &Request) -> Response {
    match metrics.scrape(request.header("accept")) {
        Ok((content_type, text)) => Response::new(StatusCode::OK, content_type, text),
        Err(_) => Response::text(StatusCode::INTERNAL_SERVER_ERROR, "a metric could not be encoded\n"),
    }
}

/// In the form of Envoy's page, which `istioctl proxy-config log` reads.
fn show_levels(handle: &LogHandle) -> String {
    let levels = handle.levels();
    let default = format!("active loggers:\n  default: {}\n", levels.default_level());
    levels.scopes().fold(default, |text, (scope, level)| format!("{text}  {scope}: {level}\n"))
}

/// All or nothing: the levels are parsed before the first is set.
fn set_levels(handle: &LogHandle, request: &Request) -> Result<(), LevelError> {
    let mut levels = handle.levels();
    for (name, value) in request.query() {
        match &*name {
            "level" => levels.set_all(parse_level(&value)?),
            "paths" => {
                for part in value.split(',').filter(|part| !part.is_empty()) {
                    let (scope, level) = part.rsplit_once(':').unwrap_or((part, ""));
                    levels.set(scope, parse_level(level)?)?;
                }
            }
            scope => levels.set(scope, parse_level(&value)?)?,
        }
    }
    handle.replace(levels)
}
