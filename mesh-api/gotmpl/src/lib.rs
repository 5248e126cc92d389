//! Go's `text/template` with the functions that Helm charts and injection templates use.
//!
//! A template is read once ([`Templates::add`]) and run many times ([`Templates::render`]) over JSON data. Everything
//! is pure: no function reads a clock, a file, the environment or chance, and what a template may cost is bounded
//! ([`Limits`]). Functions that only a caller knows are added by it ([`Templates::function`]).
//!
//! Differences from Go, all on purpose: whole numbers stay whole (Helm makes them floats, so that a million prints as
//! `1e+06`), numbers of different types can be compared, and values have
//! only the methods that the caller gives them ([`Templates::method`]).

mod ast;
mod error;
mod exec;
mod funcs;
mod lex;
mod parse;
mod value;
pub mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value as Json;

pub use crate::error::{Error, ErrorKind};

/// A function of the caller: arguments to a result, or why there is none.
pub type Function = Arc<dyn Fn(&[Json]) -> Result<Json, String> + Send + Sync>;

/// What running a template may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Actions, calls and values made. Default 2,000,000, enough for charts of a hundred objects a hundred times over.
    pub steps: usize,
    /// Bytes written. Default 16 MiB, as for files that are read.
    pub output_bytes: usize,
    /// Templates, blocks and parentheses inside of each other. Default 150; Helm's own limit is 1000 templates, which
    /// none comes near.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { steps: 2_000_000, output_bytes: 16 << 20, depth: 150 }
    }
}

/// What is printed for a value that is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// Nothing, as Helm does.
    #[default]
    Empty,
    /// `<no value>`, as Go does.
    NoValue,
    /// It is an error.
    Refused,
}

/// Templates that can call each other.
#[derive(Clone, Default)]
pub struct Templates {
    trees: ast::Trees,
    functions: BTreeMap<String, Function>,
    methods: BTreeMap<String, Function>,
    /// What running one may cost.
    pub limits: Limits,
    /// What is printed for a value that is not there.
    pub missing: Missing,
}

impl fmt::Debug for Templates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Templates")
            .field("names", &self.names().collect::<Vec<_>>())
            .field("functions", &self.functions.keys().collect::<Vec<_>>())
            .field("limits", &self.limits)
            .field("missing", &self.missing)
            .finish()
    }
}

impl Templates {
    /// No templates, with the built-in functions only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a function, which wins over a built-in one of the same name. Templates can name it when they are added
    /// after it.
    #[must_use]
    pub fn function<F>(mut self, name: &str, function: F) -> Self
    where
        F: Fn(&[Json]) -> Result<Json, String> + Send + Sync + 'static,
    {
        self.functions.insert(name.to_owned(), Arc::new(function));
        self
    }

    /// Adds a method: `.Files.Get "name"` calls `Get` with the value of `.Files` and its arguments, unless that value
    /// has a field of the name.
    #[must_use]
    pub fn method<F>(mut self, name: &str, function: F) -> Self
    where
        F: Fn(&[Json]) -> Result<Json, String> + Send + Sync + 'static,
    {
        self.methods.insert(name.to_owned(), Arc::new(function));
        self
    }

    /// Reads a template and those it defines; a later one replaces an earlier one of the same name.
    ///
    /// # Errors
    /// When the text is no template, or names a function or variable that there is not.
    pub fn add(&mut self, name: &str, text: &str) -> Result<(), Error> {
        let trees = parse::parse(name, text, &|function| self.has_function(function))?;
        self.trees.extend(trees);
        Ok(())
    }

    /// Names of the templates.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.trees.keys().map(String::as_str)
    }

    /// Runs the template `name` over `data`.
    ///
    /// # Errors
    /// When there is no such template, a function fails, or a limit is reached; with the template and line.
    pub fn render(&self, name: &str, data: &Json) -> Result<String, Error> {
        exec::render(self, name, data)
    }

    pub(crate) fn has_function(&self, name: &str) -> bool {
        self.functions.contains_key(name) || funcs::find(name).is_some()
    }
}

#[cfg(test)]
mod tests;
