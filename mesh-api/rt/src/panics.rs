//! Panics as log lines: with the fields of every other line, on the stream where the others are.
//!
//! A daemon catches a panic at the edge of one piece of work (a connection, a watch, a page); what is left to do is to say
//! so once, which is the hook's matter.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

/// Logs every panic of the process from now on, instead of printing it. To be called once logging has started.
pub fn log_all() {
    std::panic::set_hook(Box::new(log));
}

fn log(info: &PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(
        panic = message(info.payload()),
        location,
        thread = thread.name().unwrap_or_default(),
        backtrace,
        "Panic: a mistake in the program, please report it"
    );
}

fn message(payload: &(dyn std::any::Any + Send)) -> &str {
    let text = payload.downcast_ref::<&'static str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_both_kinds_are_read() {
        let caught = |work: fn()| std::panic::catch_unwind(work).unwrap_err();
        let number = std::env::args().count() + 40;
        let text = caught(|| panic!("plain"));
        let made = std::panic::catch_unwind(move || panic!("made of {number}")).unwrap_err();
        assert_eq!(message(&*text), "plain");
        assert_eq!(message(&*made), format!("made of {number}"));
        assert_eq!(message(&*caught(|| std::panic::panic_any(7))), "no message");
    }
}
