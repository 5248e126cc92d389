//! What a function is, and what it may ask of the run it is called in.

use crate::ErrorKind;
use crate::error::Fault;
use crate::value::Value;

/// A run of templates, as functions see it.
pub(crate) trait Run {
    /// Runs the template `name` over `data`: its text.
    fn named(&mut self, name: &str, data: Value) -> Result<String, Fault>;

    /// Reads `text` as a template and runs it over `data`: its text.
    fn text(&mut self, text: &str, data: Value) -> Result<String, Fault>;

    /// Accounts for work.
    fn charge(&mut self, steps: usize) -> Result<(), Fault>;

    /// Accounts for a dictionary or list that is put into a dictionary.
    fn nested_set(&mut self) -> Result<(), Fault>;
}

/// A result.
pub(crate) type Outcome = Result<Value, Fault>;
/// A function of its arguments only.
pub(crate) type Plain = fn(&[Value]) -> Outcome;
/// A function that runs templates or changes dictionaries.
pub(crate) type Running = fn(&mut dyn Run, &[Value]) -> Outcome;

/// A built-in function.
#[derive(Clone, Copy)]
pub(crate) enum Builtin {
    Plain(Plain),
    Running(Running),
}

/// Longest text that a function makes (bytes), 4 MiB: a quarter of the largest output.
pub(crate) const MAX_TEXT_BYTES: usize = 4 << 20;
/// Longest list that a function makes out of numbers.
pub(crate) const MAX_ITEMS: usize = 100_000;

/// Refuses texts that would be too long.
pub(crate) fn bounded(bytes: usize) -> Result<(), Fault> {
    if bytes > MAX_TEXT_BYTES {
        let message = format!("the text would be longer than {MAX_TEXT_BYTES} bytes");
        return Err(Fault::new(ErrorKind::Limit, message));
    }
    Ok(())
}
