//! The connection to a sandbox's helper: requests go out, answers and news come in and are kept until asked for.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::{Shutdown, shutdown};

use super::error::SandboxError;
use super::protocol::{Exit, Failure, FromHelper, ProcessId, Request, RequestBody, receive, send};

/// How long the helper may take over an answer before it is taken for dead.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// The connection to the helper, shared by everything that belongs to a sandbox.
pub(super) struct Control {
    socket: OwnedFd,
    /// Held for as long as it takes to look up or note an entry, never while waiting for the helper.
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    next: u64,
    answers: HashMap<u64, Result<Option<u32>, Failure>>,
    exits: HashMap<ProcessId, Exit>,
    running: usize,
    ended: bool,
}

impl Control {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Breaks the connection, which ends the sandbox.
    pub(super) fn close(&self) {
        // It may be broken already.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }

    /// A number that was not given before.
    pub(super) fn take_number(&self) -> u64 {
        self.state().take_number()
    }

    /// Notes that a process was started.
    pub(super) fn note_running(&self) {
        self.state().running += 1;
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state().ended
    }

    /// Sends a request and waits for its answer.
    pub(super) fn ask(&self, body: RequestBody, files: &[BorrowedFd<'_>]) -> Result<Option<u32>, SandboxError> {
        let id = self.state().take_number();
        send(&self.socket, &Request { id, body }, files).map_err(|source| match source.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => SandboxError::Ended,
            _ => SandboxError::Io { doing: "send a request to the sandbox's helper", source },
        })?;
        let answer = self.wait_for(ANSWER_LIMIT, |state| state.answers.remove(&id))?;
        answer
            .ok_or(SandboxError::Silent)?
            .map_err(|failure| SandboxError::Refused { step: failure.step, message: failure.message })
    }

    pub(super) fn exit(&self, process: ProcessId) -> Option<Exit> {
        self.state().exits.get(&process).copied()
    }

    pub(super) fn wait_exit(&self, process: ProcessId, limit: Duration) -> Result<Option<Exit>, SandboxError> {
        self.wait_for(limit, |state| state.exits.get(&process).copied())
    }

    /// Waits until every process that was started has ended, at most for `limit`.
    pub(super) fn wait_all(&self, limit: Duration) {
        // That the sandbox ended is as good.
        let _ = self.wait_for(limit, |state| (state.exits.len() >= state.running).then_some(()));
    }

    /// Waits until `find` finds what it looks for; `None` when `limit` has passed.
    fn wait_for<T>(
        &self,
        limit: Duration,
        mut find: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<Option<T>, SandboxError> {
        let mut found = None;
        let waited = self.changed.wait_timeout_while(self.state(), limit, |state| {
            found = find(state);
            found.is_none() && !state.ended
        });
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if found.is_none() && state.ended { Err(SandboxError::Ended) } else { Ok(found) }
    }

    /// Notes what the helper says until it is gone.
    pub(super) fn listen(&self) {
        while let Ok(Some((message, _))) = receive(&self.socket) {
            let mut state = self.state();
            match message {
                FromHelper::Answer { id, result } => {
                    state.answers.insert(id, result);
                }
                FromHelper::Exited { process, exit } => {
                    state.exits.insert(process, exit);
                }
                FromHelper::Ready | FromHelper::Failed(_) => {}
            }
            drop(state);
            self.changed.notify_all();
        }
        self.state().ended = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}
