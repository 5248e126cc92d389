//! Errors for people: the message with all its causes on one line.

use std::error::Error;
use std::fmt;

/// Shows an error and its chain of causes as `what failed: why: why`.
///
/// Our own errors never repeat their cause in their message; some foreign ones do, and such a cause is not said twice.
#[derive(Clone, Copy)]
pub struct Report<'a>(&'a (dyn Error + 'a));

impl<'a> Report<'a> {
    /// A report about this error.
    #[must_use]
    pub fn new(error: &'a (dyn Error + 'a)) -> Self {
        Self(error)
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !said.ends_with(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        #[source]
        cause: Option<Box<Self>>,
    }

    #[track_caller]
    fn check(layers: &[&'static str], expect: &str) {
        let mut error = None;
        for &text in layers.iter().rev() {
            error = Some(Box::new(Layer { text, cause: error }));
        }
        assert_eq!(Report::new(&*error.unwrap()).to_string(), expect);
    }

    #[test]
    fn causes_follow_the_message_and_are_not_repeated() {
        check(&["reading a.pem"], "reading a.pem");
        check(&["reading a.pem", "permission denied"], "reading a.pem: permission denied");
        check(&["connecting: refused", "refused", "os error 111"], "connecting: refused: os error 111");
    }
}
