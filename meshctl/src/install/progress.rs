//! Telling what is going on: one line that changes on a terminal, a line for each change elsewhere.

use std::io::{self, IsTerminal as _, Write as _};

/// Progress of something long.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
    last: String,
}

impl Default for Progress {
    fn default() -> Self {
        Self { terminal: io::stderr().is_terminal(), last: String::new() }
    }
}

impl Progress {
    /// Says what is going on now.
    pub fn now(&mut self, text: impl Into<String>) {
        let text = text.into();
        if text == self.last {
            return;
        }
        let mut out = io::stderr().lock();
        // There is nowhere to tell that this fails.
        let _ = if self.terminal {
            let blanks = self.last.chars().count().saturating_sub(text.chars().count());
            write!(out, "\r{text}{}", " ".repeat(blanks)).and_then(|()| out.flush())
        } else {
            writeln!(out, "{text}")
        };
        self.last = text;
    }

    /// Ends with a line that stays.
    pub fn done(&mut self, text: impl Into<String>) {
        self.now(text);
        if self.terminal {
            let _ = writeln!(io::stderr().lock());
        }
        self.last.clear();
    }
}

impl Drop for Progress {
    /// What follows begins on a line of its own.
    fn drop(&mut self) {
        if self.terminal && !self.last.is_empty() {
            let _ = writeln!(io::stderr().lock());
        }
    }
}
