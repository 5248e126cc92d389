//! TCP load: lines to tcp-echo, each awaited before the next.

use anyhow::Result;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::call::{Failure, FailureKind};
use crate::cli::TcpClient;
use crate::client::drive::{Work, drive};
use crate::client::stats::{Outcome, Report};
use crate::stop::Stop;
use crate::target;

/// Longest line with its end (bytes); the server ends the connection at a longer one.
pub(crate) const LINE_BYTES: u64 = 64 << 10;

struct Talker {
    address: Arc<str>,
    bytes: usize,
    banner: bool,
    keep: bool,
    stream: Option<BufReader<TcpStream>>,
}

pub(crate) async fn run(args: TcpClient, stop: Stop) -> Result<Report> {
    let address: Arc<str> = args.addr.into();
    let worker = |_| Talker {
        address: Arc::clone(&address),
        bytes: args.bytes as usize,
        banner: args.banner,
        keep: !args.no_keepalive,
        stream: None,
    };
    drive(&args.load, &stop, worker).await
}

impl Work for Talker {
    async fn once(&mut self, number: u64) -> Result<Outcome, Failure> {
        // Taken, so that a line given up half way takes its connection with it.
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.open().await?,
        };
        let line = format!("{number:.>width$}\n", width = self.bytes);
        stream.write_all(line.as_bytes()).await.map_err(|error| Failure::broken(&error))?;
        let answer = read_line(&mut stream).await?;
        let Some((who, echo)) = split(&answer) else {
            return Err(Failure::new(FailureKind::Protocol, format!("answer {answer:?}")));
        };
        if echo != line {
            return Err(Failure::new(FailureKind::Protocol, format!("echo {echo:?} of {line:?}")));
        }
        if self.keep {
            self.stream = Some(stream);
        }
        let [version, instance] = who.map(|text| Some(text.to_owned()));
        Ok(Outcome { status: "echo".to_owned(), fine: true, group: version, instance })
    }
}

impl Talker {
    async fn open(&self) -> Result<BufReader<TcpStream>, Failure> {
        let stream = target::connect(&self.address).await.map_err(|error| Failure::connecting(&error))?;
        let mut stream = BufReader::new(stream);
        if self.banner {
            read_line(&mut stream).await?;
        }
        Ok(stream)
    }
}

async fn read_line(stream: &mut BufReader<TcpStream>) -> Result<String, Failure> {
    let mut line = String::new();
    // The echo has the server's name in front of the line.
    let mut limited = stream.take(2 * LINE_BYTES);
    limited.read_line(&mut line).await.map_err(|error| Failure::broken(&error))?;
    match line.ends_with('\n') {
        true => Ok(line),
        false => Err(Failure::new(FailureKind::Closed, "closed before the echo")),
    }
}

/// `tcp-echo v1 host line` → (`[v1, host]`, `line`).
fn split(answer: &str) -> Option<([&str; 2], &str)> {
    let mut words = answer.splitn(4, ' ').skip(1);
    Some(([words.next()?, words.next()?], words.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_echo_may_hold_spaces() {
        assert_eq!(split("tcp-echo v1 host a b\n"), Some((["v1", "host"], "a b\n")));
        assert_eq!(split("tcp-echo v1\n"), None);
    }
}
