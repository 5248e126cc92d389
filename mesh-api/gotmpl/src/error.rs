//! What can go wrong with a template, always with the template's name and line.

/// A template that cannot be read or run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("template {template}, line {line}: {message}")]
pub struct Error {
    /// The template's name, as it was given or defined.
    pub template: String,
    /// The line in it, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
    /// What kind of fault it is.
    pub kind: ErrorKind,
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The text is no template.
    Syntax,
    /// The template cannot be run with this data.
    Run,
    /// The template itself called `fail` or `required`: its message is for the user.
    Asked,
    /// The template goes beyond a limit.
    Limit,
}

/// Why something failed, before its place is known.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
    /// Set when the place is known already: an error of a template that was called.
    pub(crate) placed: Option<Box<Error>>,
}

impl Fault {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), placed: None }
    }
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self::new(ErrorKind::Run, message)
    }
}

impl From<&str> for Fault {
    fn from(message: &str) -> Self {
        Self::new(ErrorKind::Run, message)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self { kind: error.kind, message: String::new(), placed: Some(Box::new(error)) }
    }
}
