//! The metrics registry, and typed declarations whose doc comment is the help text.
//!
//! A metric is declared once, by [`metrics!`](crate::metrics!), under the exact name that a Prometheus scrape shows.
//! Reference pages are generated from [`MetricSet::DECLARATIONS`]. What must be summed over workers at scrape time
//! comes in as a [`Collector`] with its declarations.

pub mod process;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Metric, Registry};

pub use text::Format;

/// One metric: its name, what it is, and its help.
#[derive(Clone, Copy, Debug)]
pub struct Declaration {
    /// The exact name in Prometheus' text format, such as `istio_requests_total`.
    pub name: &'static str,
    /// Counter, gauge, histogram, …
    pub kind: MetricType,
    /// The doc comment, with the line breaks of the source.
    doc: &'static str,
}

impl Declaration {
    /// A declaration; normally written by [`metrics!`](crate::metrics!).
    #[must_use]
    pub const fn new(name: &'static str, kind: MetricType, doc: &'static str) -> Self {
        Self { name, kind, doc }
    }

    /// Help text on one line, without the final full stop (the encoder adds it).
    #[must_use]
    pub fn help(&self) -> String {
        let words: Vec<&str> = self.doc.split_whitespace().collect();
        words.join(" ").trim_end_matches('.').to_owned()
    }

    /// What OpenMetrics calls the family: a counter's name without `_total`.
    #[must_use]
    pub fn family(&self) -> &'static str {
        match self.kind {
            MetricType::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            _ => self.name,
        }
    }
}

/// A struct of metric handles made by [`metrics!`](crate::metrics!).
pub trait MetricSet: Sized {
    /// All metrics of the set, in the order of the source.
    const DECLARATIONS: &'static [Declaration];

    /// Makes the handles and registers each.
    ///
    /// # Errors
    /// [`DuplicateMetric`] when a name is taken.
    fn register(metrics: &mut Metrics) -> Result<Self, DuplicateMetric>;
}

/// Two declarations of one name: a mistake in the program, found by any test that builds the registry.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("metric {0} is declared twice")]
pub struct DuplicateMetric(pub &'static str);

/// All metrics of a process. Filled at start, then shared behind an [`Arc`] and only encoded.
#[derive(Debug, Default)]
pub struct Metrics {
    registry: Registry,
    /// By family name; ordered, for the reference pages.
    declared: BTreeMap<&'static str, Declaration>,
}

impl Metrics {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes and registers a whole set.
    ///
    /// # Errors
    /// [`DuplicateMetric`] when a name is taken.
    pub fn register<S: MetricSet>(&mut self) -> Result<S, DuplicateMetric> {
        S::register(self)
    }

    /// Registers one handle under its declaration.
    ///
    /// # Errors
    /// [`DuplicateMetric`] when the name is taken.
    pub fn register_one(&mut self, declaration: &Declaration, metric: impl Metric) -> Result<(), DuplicateMetric> {
        self.declare(declaration)?;
        self.registry.register(declaration.family(), declaration.help(), metric);
        Ok(())
    }

    /// Adds a collector, which is asked at each scrape, and the declarations of what it will encode.
    ///
    /// # Errors
    /// [`DuplicateMetric`] when a name is taken; the collector is not added then.
    pub fn register_collector(
        &mut self,
        declarations: &[Declaration],
        collector: Box<dyn Collector>,
    ) -> Result<(), DuplicateMetric> {
        declarations.iter().try_for_each(|declaration| self.declare(declaration))?;
        self.registry.register_collector(collector);
        Ok(())
    }

    /// All declarations in order of name.
    pub fn declarations(&self) -> impl Iterator<Item = &Declaration> {
        self.declared.values()
    }

    /// The present values as text.
    ///
    /// # Errors
    /// Only when a collector fails.
    pub fn encode(&self, format: Format) -> Result<String, fmt::Error> {
        let mut open_metrics = String::with_capacity(16 * 1024);
        prometheus_client::encoding::text::encode(&mut open_metrics, &self.registry)?;
        Ok(match format {
            Format::OpenMetrics => open_metrics,
            Format::Prometheus => {
                text::to_prometheus(&open_metrics, |family| self.declared.get(family).map(|d| d.name))
            }
        })
    }

    /// Answers a scrape: the text in the format that its `Accept` header asks for, and the content type.
    ///
    /// # Errors
    /// Only when a collector fails.
    pub fn scrape(&self, accept: Option<&str>) -> Result<(&'static str, String), fmt::Error> {
        let format = Format::negotiate(accept);
        Ok((format.content_type(), self.encode(format)?))
    }

    /// No more registration: shared from here on.
    #[must_use]
    pub fn share(self) -> Arc<Self> {
        Arc::new(self)
    }

    fn declare(&mut self, declaration: &Declaration) -> Result<(), DuplicateMetric> {
        match self.declared.insert(declaration.family(), *declaration) {
            None => Ok(()),
            Some(first) => {
                self.declared.insert(declaration.family(), first);
                Err(DuplicateMetric(declaration.name))
            }
        }
    }
}

/// Declares a struct of metric handles: the doc comment of each field is its help text, the literal its exact name.
///
/// ```
/// use prometheus_client::metrics::{counter::Counter, histogram::Histogram};
///
/// mesh_api_rt::metrics! {
///     /// What pushes cost.
///     pub struct PushMetrics {
///         /// Pushes sent to proxies.
///         pub pushes: Counter = "pilot_xds_pushes",
///         /// Seconds from the first change to the last byte sent.
///         pub push_time: Histogram = "pilot_xds_push_time" => Histogram::new([0.01, 0.1, 1.0]),
///     }
/// }
///
/// let mut metrics = mesh_api_rt::metrics::Metrics::new();
/// let push: PushMetrics = metrics.register().unwrap();
/// push.pushes.inc();
/// ```
#[macro_export]
macro_rules! metrics {
    (
        $(#[$attr:meta])*
        $vis:vis struct $set:ident {
            $(
                $(#[doc = $doc:literal])+
                $field_vis:vis $field:ident : $kind:ty = $name:literal $(=> $make:expr)?
            ),+ $(,)?
        }
    ) => {
        $(#[$attr])*
        #[derive(Clone, Debug)]
        $vis struct $set {
            $( $(#[doc = $doc])+ $field_vis $field: $kind, )+
        }

        impl $crate::metrics::MetricSet for $set {
            const DECLARATIONS: &'static [$crate::metrics::Declaration] = &[
                $( $crate::metrics::Declaration::new(
                    $name,
                    <$kind as $crate::metrics::TypedMetric>::TYPE,
                    concat!($($doc, "\n"),+),
                ), )+
            ];

            fn register(
                metrics: &mut $crate::metrics::Metrics,
            ) -> Result<Self, $crate::metrics::DuplicateMetric> {
                let mut declarations = Self::DECLARATIONS.iter();
                $(
                    let $field: $kind = $crate::metrics!(@make $kind $(=> $make)?);
                    if let Some(declaration) = declarations.next() {
                        metrics.register_one(declaration, $field.clone())?;
                    }
                )+
                Ok(Self { $($field),+ })
            }
        }
    };
    (@make $kind:ty => $make:expr) => { $make };
    (@make $kind:ty) => { <$kind as Default>::default() };
}

#[cfg(test)]
mod tests;

/// Named by the expansion of [`metrics!`](crate::metrics!), so that its user needs no import.
pub use prometheus_client::metrics::TypedMetric;
