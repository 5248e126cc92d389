//! Access logs: compiled formats, a buffer per worker and file, one writer thread for the process.
//!
//! A worker never waits for a disk or a pipe. It renders into its buffer and hands it over when it is full or a second old;
//! when the writer is behind, the buffer is dropped and its lines are counted.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use mesh_api::text::Str;
use mesh_api_xds::ir::telemetry::AccessLog;
use mesh_proxy_core::log_format::{AccessRecord, LogFormat};

/// A buffer is handed over at this size, bytes.
const FLUSH_BYTES: usize = 32 * 1024;
/// Buffers on their way to the writer; with the size above, 2 MiB are the most that wait.
const QUEUE: usize = 64;
/// Compiled formats, and files, that are kept; more come from configuration that changes without end.
const MOST_LOGS: usize = 256;
/// Chains whose logs a worker remembers.
const MOST_CHAINS: usize = 4096;

/// All access logs of the process.
#[derive(Clone, Debug)]
pub struct Sinks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sender: SyncSender<Chunk>,
    /// Compiled logs by configuration. Taken when a worker meets a chain for the first time.
    logs: Mutex<HashMap<AccessLog, Arc<Log>>>,
    dropped: Arc<AtomicU64>,
    reopen: Arc<AtomicBool>,
}

/// One access log, compiled.
#[derive(Debug)]
struct Log {
    path: Str,
    format: LogFormat,
}

/// Lines on their way to a file.
#[derive(Debug)]
struct Chunk {
    path: Str,
    lines: u64,
    bytes: Vec<u8>,
}

/// A worker's side: its buffers.
#[derive(Debug)]
pub struct Writer {
    sinks: Sinks,
    /// Logs of each chain, by the address of its list, which is kept so that the address is not used again.
    chains: RefCell<hashbrown::HashMap<usize, Chain>>,
    buffers: RefCell<Vec<Chunk>>,
}

#[derive(Debug)]
struct Chain {
    _configured: Arc<[AccessLog]>,
    logs: Arc<[Arc<Log>]>,
}

impl Sinks {
    /// Starts the writer thread. It ends when the last handle is gone and everything has been written.
    ///
    /// # Errors
    /// When the kernel refuses the thread.
    pub fn start() -> io::Result<Self> {
        Self::with(open)
    }

    fn with(open: impl FnMut(&str) -> io::Result<Box<dyn Write>> + Send + 'static) -> io::Result<Self> {
        let (sinks, receiver) = Self::queue();
        let (dropped, reopen) = (Arc::clone(&sinks.0.dropped), Arc::clone(&sinks.0.reopen));
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || run(&receiver, open, &dropped, &reopen))?;
        Ok(sinks)
    }

    fn queue() -> (Self, Receiver<Chunk>) {
        let (sender, receiver) = sync_channel(QUEUE);
        let inner = Inner { sender, logs: Mutex::default(), dropped: Arc::default(), reopen: Arc::default() };
        (Self(Arc::new(inner)), receiver)
    }

    /// A worker's buffers.
    #[must_use]
    pub fn writer(&self) -> Writer {
        Writer { sinks: self.clone(), chains: RefCell::default(), buffers: RefCell::default() }
    }

    /// Files are opened anew before the next line is written: they may have been rotated.
    pub fn reopen(&self) {
        self.0.reopen.store(true, Relaxed);
    }

    /// Lines that were dropped: the writer was behind, or a file could not be written.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Relaxed)
    }

    /// The compiled log; `None` when its format cannot be used, which is reported once.
    fn log(&self, configured: &AccessLog) -> Option<Arc<Log>> {
        let mut logs = self.0.logs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = logs.get(configured) {
            return Some(Arc::clone(log));
        }
        match LogFormat::compile(&configured.format) {
            Ok(format) => {
                if logs.len() >= MOST_LOGS {
                    logs.clear();
                }
                let log = Arc::new(Log { path: configured.path.clone(), format });
                logs.insert(configured.clone(), Arc::clone(&log));
                Some(log)
            }
            Err(error) => {
                tracing::warn!(path = %configured.path, %error, "Access log not written: its format cannot be used");
                None
            }
        }
    }

    fn send(&self, chunk: Chunk) {
        if let Err(error) = self.0.sender.try_send(chunk) {
            let (std::sync::mpsc::TrySendError::Full(chunk) | std::sync::mpsc::TrySendError::Disconnected(chunk)) =
                error;
            self.0.dropped.fetch_add(chunk.lines, Relaxed);
        }
    }
}

impl Writer {
    /// Writes a line to each of the logs; gives their number.
    pub fn write(&self, configured: &Arc<[AccessLog]>, record: &AccessRecord<'_>) -> u64 {
        let logs = self.logs(configured);
        for log in logs.iter() {
            self.line(log, record);
        }
        logs.len() as u64
    }

    /// Hands over everything; called once a second and at the end.
    pub fn flush(&self) {
        for buffer in self.buffers.borrow_mut().iter_mut().filter(|buffer| buffer.lines > 0) {
            self.sinks.send(buffer.take());
        }
    }

    fn line(&self, log: &Log, record: &AccessRecord<'_>) {
        let mut buffers = self.buffers.borrow_mut();
        let place = buffers.iter().position(|buffer| buffer.path == log.path).unwrap_or_else(|| {
            if buffers.len() >= MOST_LOGS {
                for buffer in buffers.drain(..).filter(|buffer| buffer.lines > 0) {
                    self.sinks.send(buffer);
                }
            }
            buffers.push(Chunk { path: log.path.clone(), lines: 0, bytes: Vec::new() });
            buffers.len() - 1
        });
        let Some(buffer) = buffers.get_mut(place) else { return };
        log.format.render(record, &mut buffer.bytes);
        buffer.lines += 1;
        if buffer.bytes.len() >= FLUSH_BYTES {
            self.sinks.send(buffer.take());
        }
    }

    fn logs(&self, configured: &Arc<[AccessLog]>) -> Arc<[Arc<Log>]> {
        let at = Arc::as_ptr(configured).cast::<AccessLog>().addr();
        let mut chains = self.chains.borrow_mut();
        if let Some(chain) = chains.get(&at) {
            return Arc::clone(&chain.logs);
        }
        if chains.len() >= MOST_CHAINS {
            chains.clear();
        }
        let logs: Arc<[_]> = configured.iter().filter_map(|log| self.sinks.log(log)).collect();
        chains.insert(at, Chain { _configured: Arc::clone(configured), logs: Arc::clone(&logs) });
        logs
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Chunk {
    /// The lines so far; what stays is empty.
    fn take(&mut self) -> Self {
        Self { path: self.path.clone(), lines: std::mem::take(&mut self.lines), bytes: std::mem::take(&mut self.bytes) }
    }
}

fn run(
    receiver: &Receiver<Chunk>,
    mut open: impl FnMut(&str) -> io::Result<Box<dyn Write>>,
    dropped: &AtomicU64,
    reopen: &AtomicBool,
) {
    let mut files: HashMap<Str, Box<dyn Write>> = HashMap::new();
    // Paths whose failure has been reported.
    let mut failing: HashMap<Str, ()> = HashMap::new();
    while let Ok(chunk) = receiver.recv() {
        if reopen.swap(false, Relaxed) || files.len() > MOST_LOGS {
            files.clear();
        }
        let written = match files.entry(chunk.path.clone()) {
            std::collections::hash_map::Entry::Occupied(file) => deliver(file.into_mut(), &chunk.bytes),
            std::collections::hash_map::Entry::Vacant(place) => {
                open(&chunk.path).and_then(|file| deliver(place.insert(file), &chunk.bytes))
            }
        };
        match written {
            Ok(()) => {
                failing.remove(&chunk.path);
            }
            Err(error) => {
                dropped.fetch_add(chunk.lines, Relaxed);
                // Opened anew for the next lines: a full disk has room again one day.
                files.remove(&chunk.path);
                if failing.len() <= MOST_LOGS && failing.insert(chunk.path.clone(), ()).is_none() {
                    tracing::warn!(path = %chunk.path, %error, "Access log cannot be written; lines are dropped");
                }
            }
        }
    }
}

/// The standard output keeps back what does not end in a newline, so it is flushed.
fn deliver(file: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.flush()
}

/// Opens a log for appending; the two well-known names are the process's own streams, which may be pipes or sockets that
/// cannot be opened by name.
fn open(path: &str) -> io::Result<Box<dyn Write>> {
    match path {
        "/dev/stdout" => Ok(Box::new(io::stdout())),
        "/dev/stderr" => Ok(Box::new(io::stderr())),
        path => Ok(Box::new(File::options().append(true).create(true).open(path)?)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, UNIX_EPOCH};

    use mesh_api_xds::ir::telemetry::LogFormat as IrFormat;

    use super::*;

    fn mk_logs(path: &str, format: &str) -> Arc<[AccessLog]> {
        [AccessLog { path: path.into(), format: IrFormat::Text(format.into()) }].into_iter().collect()
    }

    fn mk_record(code: u16) -> AccessRecord<'static> {
        AccessRecord { response_code: code, ..AccessRecord::new(UNIX_EPOCH) }
    }

    /// Sends what is written to the test.
    struct ToTest(mpsc::SyncSender<Vec<u8>>);

    impl Write for ToTest {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const WAIT: Duration = Duration::from_secs(10);

    #[test]
    fn lines_wait_in_the_buffer_until_they_are_flushed() {
        let (sender, written) = mpsc::sync_channel(16);
        let sinks = Sinks::with(move |_| Ok(Box::new(ToTest(sender.clone())))).unwrap();
        let writer = sinks.writer();
        let logs = mk_logs("/a", "%RESPONSE_CODE%\n");
        assert_eq!(writer.write(&logs, &mk_record(200)), 1);
        writer.write(&logs, &mk_record(503));
        assert!(written.try_recv().is_err());
        writer.flush();
        assert_eq!(written.recv_timeout(WAIT).unwrap(), b"200\n503\n");
        let long = mk_logs("/a", &format!("{}\n", "x".repeat(FLUSH_BYTES)));
        writer.write(&long, &mk_record(200));
        assert_eq!(written.recv_timeout(WAIT).unwrap().len(), FLUSH_BYTES + 1);
        writer.write(&logs, &mk_record(404));
        drop(writer);
        assert_eq!(written.recv_timeout(WAIT).unwrap(), b"404\n");
        assert_eq!(sinks.dropped(), 0);
    }

    #[test]
    fn a_writer_that_is_behind_costs_lines_not_time() {
        let (sinks, receiver) = Sinks::queue();
        let writer = sinks.writer();
        let logs = mk_logs("/a", "line\n");
        for _ in 0..QUEUE + 5 {
            writer.write(&logs, &mk_record(200));
            writer.write(&logs, &mk_record(200));
            writer.flush();
        }
        assert_eq!(sinks.dropped(), 10);
        assert_eq!(receiver.try_iter().map(|chunk| chunk.lines).sum::<u64>(), 2 * QUEUE as u64);
    }

    #[test]
    fn a_file_that_fails_is_counted_and_tried_again() {
        let (sender, written) = mpsc::sync_channel(16);
        let mut attempts = 0;
        let sinks = Sinks::with(move |path| {
            attempts += 1;
            if attempts == 1 { Err(io::Error::other(path.to_owned())) } else { Ok(Box::new(ToTest(sender.clone()))) }
        })
        .unwrap();
        let writer = sinks.writer();
        let logs = mk_logs("/full", "%RESPONSE_CODE%\n");
        for code in [500, 501] {
            writer.write(&logs, &mk_record(code));
            writer.flush();
        }
        assert_eq!(written.recv_timeout(WAIT).unwrap(), b"501\n");
        assert_eq!(sinks.dropped(), 1);
    }

    #[test]
    fn files_are_appended_to_and_opened_anew_when_rotated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        std::fs::write(&path, "old\n").unwrap();
        let (sinks, receiver) = Sinks::queue();
        let writer = sinks.writer();
        let logs = mk_logs(path.to_str().unwrap(), "%RESPONSE_CODE%\n");
        let mut chunks = Vec::new();
        for code in [200, 201] {
            writer.write(&logs, &mk_record(code));
            writer.flush();
            chunks.push(receiver.recv().unwrap());
        }
        let deliver = |chunk, rotate: bool| {
            let (sender, receiver) = sync_channel(1);
            sender.send(chunk).unwrap();
            drop(sender);
            run(&receiver, open, &AtomicU64::new(0), &AtomicBool::new(rotate));
        };
        let mut chunks = chunks.into_iter();
        deliver(chunks.next().unwrap(), false);
        std::fs::rename(&path, folder.path().join("access.log.1")).unwrap();
        deliver(chunks.next().unwrap(), true);
        assert_eq!(std::fs::read_to_string(folder.path().join("access.log.1")).unwrap(), "old\n200\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "201\n");
    }

    #[test]
    fn a_format_that_cannot_be_used_writes_nothing() {
        let (sinks, receiver) = Sinks::queue();
        let writer = sinks.writer();
        assert_eq!(writer.write(&mk_logs("/a", "%NO_SUCH_COMMAND%"), &mk_record(200)), 0);
        writer.flush();
        assert!(receiver.try_recv().is_err());
    }

    #[test]
    fn logs_of_a_chain_are_compiled_once() {
        let (sinks, _receiver) = Sinks::queue();
        let (one, other) = (sinks.writer(), sinks.writer());
        let (same, equal) = (mk_logs("/a", "x\n"), mk_logs("/a", "x\n"));
        let found = [one.logs(&same), one.logs(&equal), other.logs(&same)];
        assert!(found.iter().all(|logs| Arc::ptr_eq(&logs[0], &found[0][0])));
    }
}
