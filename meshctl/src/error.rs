//! What went wrong, for people: what happened to what, why, and what to do.

use std::error::Error;
use std::fmt;

use mesh_api_rt::report::Report;

use crate::exit::Exit;

/// An error of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    /// What happened, to what.
    pub message: String,
    /// Why, each entry the cause of the one before.
    pub chain: Vec<String>,
    /// What to do about it: sentences or commands.
    pub hints: Vec<String>,
    /// How the process ends.
    pub exit: Exit,
}

impl CliError {
    /// The user asked for what cannot be.
    #[must_use]
    pub fn user(message: impl Into<String>) -> Self {
        Self { message: message.into(), chain: Vec::new(), hints: Vec::new(), exit: Exit::User }
    }

    /// Something that should work does not.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self { exit: Exit::Internal, ..Self::user(message) }
    }

    /// Adds the cause and the causes of the cause.
    #[must_use]
    pub fn because(mut self, cause: &dyn Error) -> Self {
        self.chain.push(Report::new(cause).to_string());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        for cause in &self.chain {
            write!(f, ": {cause}")?;
        }
        for (index, hint) in self.hints.iter().enumerate() {
            write!(f, "{}hint: {hint}", if index == 0 { "\n\n" } else { "\n" })?;
        }
        Ok(())
    }
}

impl Error for CliError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_why_and_what_to_do() {
        let cause = std::io::Error::other("no such file");
        let error = CliError::user("cannot read mesh.yaml").because(&cause).hint("meshctl validate -f .");
        assert_eq!(error.to_string(), "error: cannot read mesh.yaml: no such file\n\nhint: meshctl validate -f .");
    }
}
