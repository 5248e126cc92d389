//! How the process ends.

use std::process::ExitCode;

/// What the exit code says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exit {
    /// All is well: 0.
    #[default]
    Ok,
    /// Something was found, or the user asked for what cannot be: 1.
    User,
    /// Something that should work does not: 2.
    Internal,
    /// Ctrl-C: 130, as a shell counts signal 2.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::User => 1,
            Exit::Internal => 2,
            Exit::Interrupted => 130,
        })
    }
}
