//! Talking to the mesh: single HTTP/1.1 requests, and the shop's clients for load and other protocols.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::assert::PATIENCE;
use crate::process::binary;

/// An answer to a single request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers with lower-case names, in order.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
}

impl Answer {
    /// The first header of a name; empty without one.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Sends one request on a connection of its own.
///
/// # Errors
/// When there is no connection or no whole answer.
pub fn request(
    at: SocketAddr,
    method: &str,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Answer, io::Error> {
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(question(method, host, path, headers).as_bytes())?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    parse(&text).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("no answer: {:?}", String::from_utf8_lossy(&text)))
    })
}

/// Gets a page of an admin interface.
///
/// # Errors
/// When there is no connection or no whole answer.
pub fn get(at: SocketAddr, path: &str) -> Result<Answer, io::Error> {
    request(at, "GET", &at.to_string(), path, &[])
}

/// The head of a request on a connection of its own.
pub(crate) fn question(method: &str, host: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head + "\r\n"
}

/// The answer that fills a connection; none when it is not whole.
pub(crate) fn parse(text: &[u8]) -> Option<Answer> {
    let end = text.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&text[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut answer = Answer { status, headers, body: String::new() };
    let body = &text[end + 4..];
    let body = if answer.header("transfer-encoding") == "chunked" { dechunk(body)? } else { body.to_vec() };
    let length = answer.header("content-length").parse::<usize>();
    if length.is_ok_and(|length| body.len() < length) {
        return None;
    }
    answer.body = String::from_utf8_lossy(&body).into_owned();
    Some(answer)
}

fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(end + 2..end + 2 + size)?);
        rest = rest.get(end + 2 + size + 2..)?;
    }
}

/// One of the shop's clients; its figures are read by [`Load::finish`].
#[derive(Debug)]
pub struct Load {
    child: Option<Child>,
}

impl Load {
    /// Starts `e2e-shop client` with arguments.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(args: &[&str]) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(binary("e2e-shop")).arg("client").args(args);
        Self { child: Some(command.stdout(Stdio::piped()).spawn().unwrap()) }
    }

    /// Ends it early; what is under way is finished.
    ///
    /// # Panics
    /// When it cannot be told.
    pub fn interrupt(&self) {
        if let Some(child) = &self.child {
            kill_process(Pid::from_child(child), Signal::INT).unwrap();
        }
    }

    /// Waits for its end and returns its figures.
    ///
    /// # Panics
    /// When it printed none.
    #[track_caller]
    #[must_use]
    pub fn finish(mut self) -> Value {
        let output = self.child.take().unwrap().wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let last = text.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {text:?}"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

/// Runs one of the shop's clients to its end.
///
/// # Panics
/// See [`Load`].
#[track_caller]
#[must_use]
pub fn shop(args: &[&str]) -> Value {
    Load::start(args).finish()
}

/// A URL for the shop's clients that names `host` and connects to `at`.
#[must_use]
pub fn url(host: &str, path: &str, at: SocketAddr) -> String {
    format!("http://{host}{path}@{at}")
}

/// Makes a file appear at once, as an editor or a config map does.
///
/// # Panics
/// When the folder cannot be written.
pub fn replace(path: &Path, text: &str) {
    let new: PathBuf = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let plain = parse(b"HTTP/1.1 200 OK\r\nX-A: b\r\ncontent-length: 2\r\n\r\nhi").unwrap();
        assert_eq!((plain.status, plain.header("x-a"), plain.body.as_str()), (200, "b", "hi"));
        let chunked = parse(b"HTTP/1.1 404 No\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n1;x\r\n!\r\n0\r\n\r\n");
        assert_eq!(chunked.unwrap().body, "hi!");
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi"), None);
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n"), None);
    }
}
